"""The call that this thread runs, as the code it runs may see it.

Imports: board, errors, interfaces.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from typing import TYPE_CHECKING

from zope.interface import implementer

from .board import Progress
from .errors import told
from .errors import ZAsyncError
from .interfaces import IRun


if TYPE_CHECKING:
    from .deferred import Deferred


#: Characters of a progress message that are kept.
MESSAGE_MOST = 200

_thread = threading.local()


@implementer(IRun)
class Run:
    """See IRun.

    commit -- callable(memo) that makes sure of what was done so far.
    report -- callable(Progress) that shows it to others; raises what stops the call.
    """

    def __init__(self, deferred: Deferred, commit: Callable[[dict[str, Any]], object],
                 report: Callable[[Progress], object]) -> None:
        self.id = deferred.id
        self.attempt = deferred.attempt
        self.memo = deferred.memo
        self.awaited = deferred.after
        self.app: Any = None
        self._deferred = deferred
        self._put: set[str] = set()
        self._commit = commit
        self._report = report

    def note_put(self, deferred: Deferred) -> None:
        """It has put that call."""
        self._put.add(deferred.id)

    def has_put(self, deferred: Deferred) -> bool:
        """Whether it has put that call."""
        return deferred.id in self._put

    def is_of(self, deferred: Deferred) -> bool:
        """Whether it is the run of that call, seen through the same connection."""
        return self._deferred is deferred

    def checkpoint(self, /, **memo: Any) -> None:
        """See IRun."""
        self._commit(memo)
        self.memo = memo

    def progress(self, done: float, total: float | None = None, message: object = '') -> None:
        """See IRun."""
        self._report(made_progress(done, total, message))


def made_progress(done: float, total: float | None, message: object) -> Progress:
    """A Progress of what a call says; raises ValueError for what is none."""
    if done is None:
        raise ValueError('progress is told in numbers: how much is done?')
    return Progress(_plain(done), None if total is None else _plain(total),
                    # Plain text: what str() returns may be of a class that has its own parts.
                    str.__getitem__(str(message), slice(MESSAGE_MOST)))


def _plain(value: float) -> float:
    """That number as an int or a float of no other class: any process can read those."""
    kind = int if isinstance(value, int) else float
    try:
        if isinstance(value, (int, float)) and value is not True and value is not False \
                and math.isfinite(value):
            return kind(value)
    except OverflowError:  # an int that no float can hold: pages could not show it
        pass
    raise ValueError(f'progress is told in numbers, not {told(value, 100)}')


def current() -> Run | None:
    """The Run of the call that runs in this thread, or None."""
    runs = _runs()
    return runs[-1] if runs else None


def is_own(deferred: Deferred) -> bool:
    """Whether that is the call whose code this is, in the transaction of its run.

    Another call that it began may run inside it.
    """
    return any(run.is_of(deferred) for run in _runs())


def _runs() -> tuple[Run, ...]:
    runs: tuple[Run, ...] = getattr(_thread, 'runs', ())
    return runs


@contextmanager
def running(run: Run) -> Iterator[Run]:
    """Make `run` the current one while the body runs."""
    outer = _runs()
    _thread.runs = (*outer, run)
    try:
        yield run
    finally:
        _thread.runs = outer


def no_checkpoint(memo: dict[str, Any]) -> None:
    """What a plugin that is not zope-aware gets for a checkpoint, wherever it runs."""
    raise ZAsyncError('a plugin that is not zope-aware has no transaction to commit')


def checkpoint(**memo: Any) -> None:
    """From inside a running call: commit what was done so far, see IRun.checkpoint."""
    run = current()
    if run is None:
        raise ZAsyncError('checkpoint() was called outside a running call')
    run.checkpoint(**memo)


def progress(done: float, total: float | None = None, message: object = '') -> None:
    """From inside a running call: tell how far it is, see IRun.progress.

    Outside one it does nothing: the same code may run in a request.
    """
    run = current()
    if run is not None:
        run.progress(done, total, message)
