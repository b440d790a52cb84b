"""The call that this thread runs, as the code it runs may see it.

Imports: errors, interfaces.
"""

import threading
from contextlib import contextmanager

from zope.interface import implementer

from .errors import ZAsyncError
from .interfaces import IRun


_thread = threading.local()


@implementer(IRun)
class Run:
    """See IRun.

    commit -- callable(memo) that makes sure of what was done so far.
    """

    def __init__(self, deferred, commit):
        self.id = deferred.id
        self.attempt = deferred.attempt
        self.memo = deferred.memo
        self.app = None
        self._commit = commit

    def checkpoint(self, **memo):
        """See IRun."""
        self._commit(memo)
        self.memo = memo


def current():
    """The Run of the call that runs in this thread, or None."""
    return getattr(_thread, 'run', None)


@contextmanager
def running(run):
    """Make `run` the current one while the body runs."""
    outer = current()
    _thread.run = run
    try:
        yield run
    finally:
        _thread.run = outer


def checkpoint(**memo):
    """From inside a running call: commit what was done so far, see IRun.checkpoint."""
    run = current()
    if run is None:
        raise ZAsyncError('checkpoint() was called outside a running call')
    run.checkpoint(**memo)
