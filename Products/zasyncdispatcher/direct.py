"""A call run in the request that put it, because no worker lives.

It is the worker's execution with three differences: a savepoint in place of a
transaction, transient errors passed on to the publisher, which starts the
request again, and no commit inside. The call has its own security context (the
caller's user, not the caller's stack with its proxy roles) and its own bare
request: it can neither redirect nor expire the cookies of the real one.

Its deferred is not stored: the caller holds the only one, and it has ended.

Imports: zasync.
"""

import functools
import logging
import random

import transaction
from Acquisition import aq_base
from transaction.interfaces import TransientError

from Products.zasync import callbacks
from Products.zasync import clock
from Products.zasync import payload
from Products.zasync.builtin import BUILTIN
from Products.zasync.deferred import Deferred
from Products.zasync.errors import BadResult
from Products.zasync.errors import CommitRefused
from Products.zasync.failure import Failure
from Products.zasync.running import Run
from Products.zasync.running import running
from Products.zasync.security import restored


log = logging.getLogger('zasync.direct')


def can_run(call, names):
    """Whether `call` can run in a web process, now.

    Only the built-in plugins are known there. What is delayed waits in a queue, and so
    does what is of a series in which a call runs, or is to be got by a browser later.
    """
    if call.not_before or call.session is not None:
        return False
    if call.series is not None and names.series(call.series).holder is not None:
        return False
    plugin = BUILTIN.get(call.plugin)
    return (plugin is not None and plugin.run is not None
            and all(can_run(member, names) for member in call.members))


def run(root, call, names):
    """Run `call` now, inside the current transaction; → its Deferred, ended.

    root -- the application root of this connection. names -- a Names.
    Raises TransientErrors of the call, and CommitRefused when it tried to commit
    or abort the transaction of the request: then the request must fail.
    """
    deferred = Deferred(f'direct-{random.getrandbits(64):016x}', call)
    deferred.after = tuple(run(root, member, names) for member in call.members)
    if call.series is not None:
        deferred.join_series(names.series(call.series))
    # A call of the same series that a worker begins meanwhile meets this write.
    deferred.accept('direct', clock.SYSTEM.now())
    plugin = BUILTIN[call.plugin]

    def work(step):
        args, kwargs = deferred.arguments()
        return plugin.run(step, *args, **kwargs)

    outcome = _inside(root, deferred, deferred.caller, work)
    if isinstance(outcome, Failure):
        deferred.fail(outcome, clock.SYSTEM.now())
        log.warning('call %s failed in the request: %s', deferred.id, deferred.failure)
    else:
        deferred.succeed(outcome, clock.SYSTEM.now())
        log.info('call %s resolved in the request in %.2f s', deferred.id,
                 deferred.ended_at - deferred.started_at)
    deferred._v_continue = functools.partial(_call_back, root, deferred)
    return deferred


def _call_back(root, deferred, success, failure, caller):
    """Run a callback that was added to a call that has ended here."""
    value = deferred.failure or deferred.result
    chosen = failure if isinstance(value, Failure) else success
    if chosen is None:
        return
    outcome = _inside(root, deferred, caller, lambda step: callbacks.run(step, chosen, value))
    deferred.go_on(outcome, clock.SYSTEM.now())
    if isinstance(outcome, Failure):
        log.warning('a callback of call %s failed in the request: %s', deferred.id, outcome)


def _inside(root, deferred, caller, work):
    """Do work(step) as `caller`; → its pickled value, or a Failure: then nothing of it is left."""
    current = transaction.get()
    savepoint = transaction.savepoint(optimistic=True)
    guard = _CommitGuard(current)
    step = Run(deferred, lambda memo: transaction.savepoint(optimistic=True), _nothing)
    try:
        with restored(caller, aq_base(root)) as app, running(step):
            step.app = app
            result = work(step)
            result = None if result is None else payload.dumps(result, BadResult, 'the result')
        guard.check()
    except TransientError:
        guard.check()
        raise
    except BaseException as error:  # SystemExit too: a call must not stop the web server
        guard.check()
        savepoint.rollback()
        return Failure.from_exception(error)
    finally:
        guard.lift()
    return result


def _nothing(progress):
    """Nobody can see the progress of a request."""


class _CommitGuard:
    """Refuses commits of one transaction while it is up."""

    def __init__(self, current):
        self._transaction = current
        self._up = True
        self._refused = False
        current.addBeforeCommitHook(self._refuse)

    def _refuse(self):
        if self._up:
            self._refused = True
            raise CommitRefused('a call that runs inside a request can not commit: use checkpoint')

    def check(self):
        """Raise CommitRefused if the transaction was committed, or aborted, meanwhile.

        What is left of it is half of what the request did: it can't be committed either.
        """
        if self._refused or transaction.get() is not self._transaction:
            transaction.get().doom()
            raise CommitRefused(
                'a call that ran inside a request has committed or aborted its transaction')

    def lift(self):
        """Let the request commit."""
        self._up = False
