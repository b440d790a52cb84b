"""A call run in the request that put it, because no worker lives.

It is the worker's execution with three differences: a savepoint in place of a
transaction, transient errors passed on to the publisher, which starts the
request again, and no commit inside. The call has its own security context (the
caller's user, not the caller's stack with its proxy roles) and its own bare
request: it can neither redirect nor expire the cookies of the real one.

Its deferred is not stored: the caller holds the only one, and it has ended.

Imports: zasync.
"""

import logging
import random

import transaction
from Acquisition import aq_base
from transaction.interfaces import TransientError

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


def can_run(call):
    """Whether `call` can run in a web process: only the built-in plugins are known there."""
    return call.plugin in BUILTIN


def run(root, call):
    """Run `call` now, inside the current transaction; → its Deferred, ended.

    root -- the application root of this connection.
    Raises TransientErrors of the call, and CommitRefused when it tried to commit
    or abort the transaction of the request: then the request must fail.
    """
    deferred = Deferred(f'direct-{random.getrandbits(64):016x}', call)
    deferred.accept('direct', clock.SYSTEM.now())
    current = transaction.get()
    savepoint = transaction.savepoint(optimistic=True)
    guard = _CommitGuard(current)
    try:
        result = payload.dumps(_execute(root, deferred), BadResult, 'the result')
        guard.check()
    except TransientError:
        guard.check()
        raise
    except BaseException as error:  # SystemExit too: a call must not stop the web server
        guard.check()
        savepoint.rollback()
        deferred.fail(Failure.from_exception(error), clock.SYSTEM.now())
        log.warning('call %s failed in the request: %s', deferred.id, deferred.failure)
    else:
        deferred.succeed(result, clock.SYSTEM.now())
        log.info('call %s resolved in the request in %.2f s', deferred.id,
                 deferred.ended_at - deferred.started_at)
    finally:
        guard.lift()
    return deferred


def _execute(root, deferred):
    args, kwargs = deferred.arguments()
    step = Run(deferred, commit=lambda memo: transaction.savepoint(optimistic=True))
    with restored(deferred.caller, aq_base(root)) as app, running(step):
        step.app = app
        return BUILTIN[deferred.plugin].run(step, *args, **kwargs)


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
