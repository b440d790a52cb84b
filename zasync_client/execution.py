"""One call, from claimed to ended, in a pool thread.

crash point 1: the claim is committed, nothing has run. After a kill here the
next life of the worker finds the call on its desk and gives it out again.
crash point 2: the plugin has run, its result is not committed. As before: its
effects in the ZODB never were, its other effects happen twice.
crash point 3: the result is committed, the beat has not archived the call. The
next life archives it.

Imports: database, fence, zasync.
"""

import logging
import random
import threading
from typing import NamedTuple

import transaction
from transaction.interfaces import TransactionFailedError
from transaction.interfaces import TransientError
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import POSKeyError

from Products.zasync import payload
from Products.zasync import policy
from Products.zasync.errors import BadResult
from Products.zasync.errors import NotOurs
from Products.zasync.errors import ZAsyncError
from Products.zasync.failure import Failure
from Products.zasync.running import Run
from Products.zasync.running import running
from Products.zasync.security import restored

from .database import is_storage_trouble
from .database import unit_of_work
from .fence import Fence


log = logging.getLogger('zasync')

ENDED = 'ended'
GIVE_BACK = 'give back'
LOST = 'lost'
UNBEGUN = 'not begun'

#: A call whose run was dropped though it is still ours waits so long, in seconds.
LOST_SECONDS = 5.0


#: How long a call waits whose plugin this worker does not know, in seconds: it was
#: restarted with another configuration, and may be so again.
NO_PLUGIN_SECONDS = 60.0


#: Longest reason kept with an attempt, in characters.
WHY_MOST = 200


class CommitFailed(ZAsyncError, TransientError):
    """The storage did not take a commit, for a reason that may pass."""


class NoPlugin(ZAsyncError, TransientError):
    """The worker's configuration does not name the plugin of a call."""


class Claim(NamedTuple):
    """A call this worker has claimed; database_name and oid are of its deferred."""

    id: str
    database_name: str
    oid: bytes
    attempt: int


class End(NamedTuple):
    """How a run ended: ENDED, GIVE_BACK, LOST to another run, or UNBEGUN.

    at, until -- POSIX seconds; what goes back to the queue waits until then.
    monotonic -- monotonic seconds of the end. seconds -- how long it took.
    """

    claim: Claim
    how: str
    at: float
    monotonic: float
    seconds: float
    until: float = 0.0
    why: str = ''


class Execution:
    """Runs calls in the thread that made it."""

    def __init__(self, database, config, boot, clock, stopping, wake):
        self._database = database
        self._config = config
        self._boot = boot
        self._clock = clock
        self._stopping = stopping
        self._fence = Fence(wake)

    def run(self, claim):
        """Run the call until it ends, in whatever way; → End. Conflicts and lost servers included.
        """
        started = self._clock.monotonic()
        tries = _Tries(self._config)
        failure = None
        while True:
            try:
                if failure is None:
                    failure = self._attempt(claim)
                if failure is not None:
                    # From here on only this has to be stored: the call does not run again.
                    self._store_failure(claim, failure)
                return self._end(claim, ENDED, started)
            except NotOurs as reason:
                log.warning('call %s: its run (attempt %d) was dropped: %s', claim.id,
                            claim.attempt, reason)
                return self._end(claim, LOST, started)
            except NoPlugin as reason:
                log.error('call %s goes back to the queue for %.0f s: %s', claim.id,
                          NO_PLUGIN_SECONDS, reason)
                return self._end(claim, GIVE_BACK, started, NO_PLUGIN_SECONDS, str(reason))
            except ClientDisconnected:
                delay = tries.after_disconnect()
                log.warning('call %s: the database server went away; it runs again in %.0f s',
                            claim.id, delay)
                if self._clock.wait(self._stopping, delay):
                    return self._end(claim, LOST, started)
            except TransientError as reason:
                delay = tries.after_conflict()
                if delay is None:
                    return self._give_back(claim, started, reason)
                self._clock.wait(threading.Event(), delay)
            except TransactionFailedError as reason:
                # The plugin went on after a commit or a savepoint had failed. It was a
                # conflict, it may be, so try again; but not for ever.
                if tries.after_conflict() is None:
                    failure = Failure.from_exception(reason)
            except BaseException as reason:  # a bug of ours, or no memory left
                log.critical('call %s: the worker met an error it can not handle', claim.id,
                             exc_info=True)
                return self._give_back(claim, started, reason)

    def _give_back(self, claim, started, reason):
        delay = policy.give_back_delay(claim.attempt, random.random())
        why = f'{type(reason).__name__}: {reason}'[:WHY_MOST]
        log.warning('call %s goes back to the queue for %.1f s: %s', claim.id, delay, why)
        return self._end(claim, GIVE_BACK, started, delay, why)

    def _end(self, claim, how, started, delay=0.0, why=''):
        now, monotonic = self._clock.now(), self._clock.monotonic()
        if how == LOST:
            delay = LOST_SECONDS
        return End(claim, how, now, monotonic, monotonic - started, now + delay, why)

    def _attempt(self, claim):
        """One try: the plugin's effects and its result, committed; → None, or its Failure.

        Raises TransientErrors, NotOurs among them, and TransactionFailedError.
        """
        with unit_of_work(f'zasync call {claim.id}') as work:
            deferred = self._ours(claim)
            try:
                with self._fence.around(deferred, self._boot, claim.attempt):
                    result = self._run_plugin(claim, deferred)
                # A plugin may have committed behind our back: look again, in the
                # snapshot this transaction has now.
                deferred = self._ours(claim)
                deferred.succeed(result, self._clock.now())
                _commit()
            except (TransientError, TransactionFailedError):
                raise
            except BaseException as error:  # SystemExit too: a call must not stop its worker
                return Failure.from_exception(error)
            finally:
                work.abandon()
        log.info('call %s resolved in %.2f s', claim.id, deferred.ended_at - deferred.started_at)
        return None

    def _run_plugin(self, claim, deferred):
        def commit(memo):
            self._check(claim, deferred)
            deferred.checkpoint(payload.dumps(memo, BadResult, 'the memo'))
            _commit()
            transaction.begin()

        step = Run(deferred, commit)
        plugin = self._config.plugins.get(deferred.plugin)
        if plugin is None:
            raise NoPlugin(f'this worker offers no plugin {deferred.plugin!r}')
        args, kwargs = deferred.arguments()
        with restored(deferred.caller, self._database.application()) as app, running(step):
            step.app = app
            result = plugin.handler(step, *args, **kwargs)
        return None if result is None else payload.dumps(result, BadResult, 'the result')

    def _store_failure(self, claim, failure):
        with unit_of_work(f'zasync call {claim.id} failed') as work:
            self._ours(claim).fail(failure, self._clock.now())
            _commit()
            work.abandon()
        log.warning('call %s failed: %s', claim.id, failure)

    def _ours(self, claim):
        """The deferred of the claim; raises NotOurs if the call is not ours any more."""
        try:
            deferred = self._database.deferred(claim.database_name, claim.oid)
        except POSKeyError:  # its manager was deleted, and the database packed
            raise NotOurs(f'the call {claim.id} is not in the database any more') from None
        self._check(claim, deferred)
        return deferred

    def _check(self, claim, deferred):
        if not deferred.is_owned_by(self._boot, claim.attempt):
            raise NotOurs(f'the call {claim.id} has gone to another run')


class _Tries:
    """How often a run met conflicts and lost servers, and how long to wait after each."""

    def __init__(self, config):
        self._config = config
        self._conflicts = self._disconnects = 0

    def after_disconnect(self):
        """Seconds to wait after one more lost server."""
        self._disconnects += 1
        return policy.reconnect_delay(self._disconnects, self._config.initial_retry_seconds,
                                      self._config.retry_growth)

    def after_conflict(self):
        """Seconds to wait after one more conflict, or None after too many."""
        self._conflicts += 1
        if self._conflicts >= self._config.max_conflict_attempts:
            return None
        return policy.conflict_delay(self._conflicts, random.random())


def _commit():
    """Commit; trouble of the storage that may pass becomes a TransientError."""
    try:
        transaction.commit()
    except TransientError:
        raise
    except Exception as error:
        if is_storage_trouble(error):
            raise CommitFailed(str(error)) from error
        raise
