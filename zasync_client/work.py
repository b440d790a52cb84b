"""The work of one call, in the transaction its thread is in; others begin that and commit it.

Imports: away, claims, database, rules, runs, zasync.
"""

import logging
from contextlib import contextmanager
from typing import NamedTuple

from transaction.interfaces import TransientError
from ZODB.POSException import POSKeyError

from Products.zasync import payload
from Products.zasync import policy
from Products.zasync.deferred import OUTCOME_MOST
from Products.zasync.errors import NotOurs
from Products.zasync.errors import ZAsyncError
from Products.zasync.failure import Failure
from Products.zasync.failure import name_of
from Products.zasync.failure import one_line
from Products.zasync.failure import text_of
from Products.zasync.interfaces import NEW
from Products.zasync.options import class_names
from Products.zasync.running import Run
from Products.zasync.running import running
from Products.zasync.security import apart
from Products.zasync.security import restored

from .away import check_away
from .away import is_unable
from .database import commit as commit_to_storage
from .database import is_storage_trouble
from .rules import retry_of


log = logging.getLogger('zasync')
plugin_log = logging.getLogger('plugins')


class CommitFailed(ZAsyncError, TransientError):
    """The storage did not take a commit, or what led to it, for a reason that may pass."""


class NoPlugin(ZAsyncError, TransientError):
    """The worker's configuration does not name the plugin of a call."""


class Outcome(NamedTuple):
    """What is known of a call's end: pickled result, or failure.

    relayed -- the failure is another call's, which tells of it.
    """

    result: bytes | None = None
    failure: Failure | None = None
    relayed: bool = False


class LaterAgain(Exception):
    """The call has failed, and its retry policy gives it another attempt."""

    def __init__(self, delay, reason):
        super().__init__(reason)
        self.delay = delay
        self.why = f'failed: {reason}'[:OUTCOME_MOST]


class Work:
    """What a thread does with a call that it has claimed. tally -- a Tally of what it meets."""

    def __init__(self, database, config, boot, clock, runs, tally):
        self._database = database
        self._config = config
        self._boot = boot
        self._clock = clock
        self._runs = runs
        self.tally = tally

    # ours?

    def ours(self, claim):
        """The deferred of the claim; raises NotOurs if the call is not ours any more."""
        try:
            deferred = self._database.deferred(claim.database_name, claim.oid)
            self.check(claim, deferred)
        except POSKeyError:  # its manager was deleted, and the database packed
            raise NotOurs(f'the call {claim.id} is not in the database any more') from None
        return deferred

    def check(self, claim, deferred):
        """Raise NotOurs if the call is not ours any more."""
        if claim.reserved:
            ours = deferred.state == NEW and deferred.attempt == 0
        else:
            ours = deferred.is_owned_by(self._boot, claim.attempt)
        if not ours:
            where = 'has ended meanwhile' if deferred.ended else 'has gone to another run'
            raise NotOurs(str(self._runs.why_stopped(claim) or f'the call {claim.id} {where}'))

    def take(self, claim, deferred, now):
        """Claim what was reserved, in the current transaction, which is to end it."""
        if claim.reserved:
            deferred.accept(self._boot, now)

    def check_blame(self, claim, error):
        """What a run has raised is no failure of its call if it was told to stop, or the server of
        the database went away or can't do it now; raises NotOurs, ServerAway, CommitFailed.
        """
        if self._runs.is_stopped(claim):
            raise NotOurs(text_of(error)) from error
        check_away(error)
        if is_unable(error):
            raise CommitFailed(text_of(error)) from error

    # run

    def plugin(self, deferred):
        """The Plugin of a call; raises NoPlugin."""
        plugin = self._config.plugins.get(deferred.plugin)
        if plugin is None:
            raise NoPlugin(f'this worker offers no plugin {deferred.plugin!r}')
        return plugin

    def make_run(self, claim, deferred, commit):
        """What its code sees of the call; commit -- see Run."""
        return Run(deferred, commit, lambda progress: self._runs.report(claim, progress))

    @contextmanager
    def acting_as(self, caller, step):
        """Let the body act as that Caller, step.app being the application.

        The commit belongs into it: what code has left to a hook before it, as indexing in Plone
        is, asks for the user, the site and the request as well.
        """
        with restored(caller, self._database.application()) as app:
            step.app = app
            yield

    def run(self, step, handler, /, *args, **kwargs):
        """Run handler(step, …); → its Outcome."""
        with running(step):
            return self.outcome_of(handler(step, *args, **kwargs))

    def run_apart(self, step, handler, /, *args, **kwargs):
        """Run a handler that knows nothing of Zope, no connection open; → its Outcome."""
        step.awaited = ()
        self._database.close()
        with apart(), running(step):
            return self.outcome_of(handler(*args, **kwargs))

    def outcome_of(self, result):
        """What a plugin or a callback has returned; raises BadResult."""
        kept = payload.dump_result(result, self._config.max_result_bytes)
        return Outcome(failure=kept) if isinstance(kept, Failure) else Outcome(kept)

    # its end

    def outcome_of_error(self, claim, error, asked, failures, plugin):
        """The Outcome of a run that raised `error`; raises LaterAgain, and as check_blame does.

        asked -- what is stored of the call's options. failures -- its failures, this one included.
        """
        self.check_blame(claim, error)
        plugin_log.log(logging.WARNING if self._config.verbose_traceback else logging.DEBUG,
                       'call %s raised an exception', claim.id, exc_info=True)
        delay = policy.next_try(retry_of(asked, plugin), failures, class_names(type(error)))
        if delay is not None:
            raise LaterAgain(delay, f'{name_of(type(error))}: {text_of(error)}') from error
        return Outcome(failure=Failure.from_exception(error))

    def store(self, deferred, outcome):
        """Write the Outcome to the deferred."""
        now = self._clock.now()
        if outcome.failure is None:
            deferred.succeed(outcome.result, now)
        elif outcome.relayed:
            deferred.relay(outcome.failure, now)
        else:
            deferred.fail(outcome.failure, now)


def tell_end(id, state, failure, seconds):
    """The line of the log that says how a call ended."""
    if failure is None:
        log.info('call %s resolved in %.2f s', id, seconds)
    else:
        log.warning('call %s %s: %s', id, state, one_line(failure))


def tell_later(id, later):
    """The line of the log about a call that failed, and gets another attempt."""
    log.warning('call %s failed and runs again in %.1f s: %s', id, later.delay,
                one_line(later))


def commit():
    """Commit; trouble of the storage that may pass becomes a TransientError."""
    try:
        commit_to_storage()
    except TransientError:
        raise
    except Exception as error:
        if is_storage_trouble(error):
            raise CommitFailed(text_of(error)) from error
        raise
