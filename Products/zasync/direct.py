"""Code of a call run inside the transaction of whoever asked for it.

It is the worker's execution with three differences: a savepoint in place of a
transaction, transient errors passed on, to whoever starts the transaction again, and no
commit inside. The code has its own security context (the caller's user, not the
caller's stack with its proxy roles) and its own bare request: it can neither redirect
nor expire the cookies of the real one.

Imports: callbacks, putting, security, running, payload, savepoints, failure, clock, errors.
"""

import contextlib
import functools
import logging

from Acquisition import aq_base
from transaction.interfaces import TransientError

from . import callbacks
from . import clock
from . import payload
from .errors import BadResult
from .errors import CommitRefused
from .failure import Failure
from .failure import name_of
from .failure import one_line
from .failure import text_of
from .putting import transaction_of
from .running import Run
from .running import running
from .savepoints import Savepoint
from .security import restored


log = logging.getLogger('zasync.direct')

#: What is no failure of the call: the transaction is lost with it.
FATAL = (TransientError, CommitRefused)


def outcome_of(root, deferred, caller, work, commit=None):
    """As `inside`; → what work(step) raises as a Failure, but for what is FATAL."""
    try:
        return inside(root, deferred, caller, work, commit)
    except FATAL:
        raise
    except BaseException as error:  # SystemExit too: a call must not stop the web server
        return Failure.from_exception(error)


def go_on(root, deferred, success, failure, caller):
    """Run a callback that was added to a call that has ended in this transaction."""
    chosen = success if deferred.failure is None else failure
    if chosen is None:
        return

    def work(step):
        value = deferred.result if deferred.failure is None else deferred.failure
        return callbacks.run(step, chosen, value)

    outcome = outcome_of(root, deferred, caller, work, callbacks.no_checkpoint)
    deferred.go_on(outcome, clock.SYSTEM.now())
    if isinstance(outcome, Failure):
        log.warning('a callback of call %s failed in the request: %s', deferred.id,
                    one_line(outcome))


def inside(root, deferred, caller, work, commit=None):
    """Do work(step) as `caller`, for the call `deferred`; → its value, pickled, or None for None.

    A Failure that it returns comes back as it is: its effects stay, but it is one.

    root -- the application root of this connection. step -- an IRun. commit -- see running.Run;
    a savepoint, if none is given, after which the deferred has the memo.
    Raises what the work raises, and then nothing of it is left. After a TransientError, and
    after CommitRefused (it tried to commit, to abort or to doom, or can't be undone alone), the
    transaction must not go on; after the latter it can't.
    """
    root, memo = aq_base(root), deferred._memo
    savepoint = Savepoint(transaction_of(root))
    guard = _CommitGuard(root)
    step = Run(deferred, commit or functools.partial(_checkpoint, root, deferred), _nothing)
    try:
        with restored(caller, root) as app, running(step):
            step.app = app
            result = payload.dump_result(work(step))
        # crash point 4: the call has run in a request that is not committed; it never ran.
        guard.check()
    except TransientError:
        guard.check()
        undo(savepoint)
        raise
    except BaseException as error:
        guard.check()
        _roll_back(savepoint, error)
        deferred._memo = memo  # a deferred that is not stored is not rolled back
        raise
    finally:
        guard.lift()
    return result


def undo(savepoint):
    """Leave nothing of what met a TransientError: somebody may catch it, and commit.

    Where all or nothing can be undone, the transaction has failed with that, and won't commit.
    """
    with contextlib.suppress(Exception):  # each data manager has errors of its own
        savepoint.rollback()


def _roll_back(savepoint, error):
    """Undo what a call did that has raised `error`.

    Raises CommitRefused where all or nothing of the transaction can be undone: something takes
    part in it that knows no savepoints, as connections to SQL databases do, or whose savepoints do
    not bring back all, as a blob's.
    """
    try:
        savepoint.rollback()
    except Exception as reason:  # each data manager has errors of its own
        raise CommitRefused(
            f'a call that ran inside a request has failed ({name_of(type(error))}: '
            f'{text_of(error)}), and what it did can not be undone alone: {text_of(reason)}'
        ) from error


def _checkpoint(root, deferred, memo):
    """Nothing is sure before the transaction is committed."""
    kept = payload.dumps(memo, BadResult, 'the memo')
    transaction_of(root).savepoint(optimistic=True)
    deferred.checkpoint(kept)


def _nothing(progress):
    """Nobody can see the progress of a transaction that is not committed."""


class _CommitGuard:
    """Refuses commits of one transaction, that of the application root, while it is up."""

    def __init__(self, root):
        self._root = root
        self._transaction = transaction_of(root)
        self._doomed = self._transaction.isDoomed()
        self._up = True
        self._refused = False
        self._transaction.addBeforeCommitHook(self._refuse)

    def _refuse(self):
        if self._up:
            self._refused = True
            raise CommitRefused('a call that runs inside a request can not commit: use checkpoint')

    def check(self):
        """Raise CommitRefused if the transaction was committed, aborted or doomed meanwhile.

        What is left of it is half of what the request did: it can't be committed either.
        """
        current = transaction_of(self._root)
        if self._refused or current is not self._transaction:
            current.doom()
            raise CommitRefused(
                'a call that ran inside a request has committed or aborted its transaction')
        if self._transaction.isDoomed() and not self._doomed:
            raise CommitRefused('a call that ran inside a request has doomed its transaction')

    def lift(self):
        """Let the request commit."""
        self._up = False
