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
from ZODB.POSException import POSError
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
        conflicts = disconnects = 0
        while True:
            try:
                self._attempt(claim)
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
                disconnects += 1
                delay = policy.reconnect_delay(disconnects, self._config.initial_retry_seconds,
                                               self._config.retry_growth)
                log.warning('call %s: the database server went away; it runs again in %.0f s',
                            claim.id, delay)
                if self._clock.wait(self._stopping, delay):
                    return self._end(claim, LOST, started)
            except (TransientError, TransactionFailedError) as reason:
                # The latter: the plugin went on after a commit or a savepoint failed.
                conflicts += 1
                if conflicts >= self._config.max_conflict_attempts:
                    delay = policy.give_back_delay(claim.attempt, random.random())
                    log.warning('call %s met %d conflicts (%s); it goes back to the queue for '
                                '%.1f s', claim.id, conflicts, type(reason).__name__, delay)
                    return self._end(claim, GIVE_BACK, started, delay, 'conflicts')
                self._clock.wait(threading.Event(),
                                 policy.conflict_delay(conflicts, random.random()))

    def _end(self, claim, how, started, delay=0.0, why=''):
        now, monotonic = self._clock.now(), self._clock.monotonic()
        if how == LOST:
            delay = LOST_SECONDS
        return End(claim, how, now, monotonic, monotonic - started, now + delay, why)

    def _attempt(self, claim):
        """One try: the plugin's effects and its result, or its failure, committed.

        Raises TransientErrors, NotOurs among them, and TransactionFailedError.
        """
        failure = None
        with unit_of_work(f'zasync call {claim.id}') as work:
            deferred = self._ours(claim)
            try:
                with self._fence.around(deferred, self._boot, claim.attempt):
                    result = self._run_plugin(claim, deferred)
            except (TransientError, TransactionFailedError):
                raise
            except BaseException as error:  # SystemExit too: a call must not stop its worker
                work.abandon()
                failure = Failure.from_exception(error)
            else:
                failure = self._store_result(claim, result)
                work.abandon()
        if failure is not None:
            self._store_failure(claim, failure)
        else:
            log.info('call %s resolved in %.2f s', claim.id,
                     deferred.ended_at - deferred.started_at)

    def _store_result(self, claim, result):
        """Commit result and effects; → None, or the Failure if they can't be stored at all.

        Raises TransientErrors; trouble of the storage is one: it may pass.
        """
        try:
            # A plugin may have committed behind our back: look again, in the
            # snapshot this transaction has now.
            self._ours(claim).succeed(result, self._clock.now())
            transaction.commit()
        except (TransientError, TransactionFailedError):
            raise
        except (POSError, OSError) as reason:
            raise CommitFailed(str(reason)) from reason
        except Exception as error:  # such as an effect that can't be pickled
            return Failure.from_exception(error)
        return None

    def _run_plugin(self, claim, deferred):
        def commit(memo):
            self._check(claim, deferred)
            deferred.checkpoint(payload.dumps(memo, BadResult, 'the memo'))
            transaction.commit()
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
        with unit_of_work(f'zasync call {claim.id} failed'):
            self._ours(claim).fail(failure, self._clock.now())
        log.warning('call %s failed: %s', claim.id, failure)

    def _ours(self, claim):
        """The deferred of the claim; raises NotOurs if the call is not ours any more."""
        deferred = self._database.deferred(claim.database_name, claim.oid)
        self._check(claim, deferred)
        return deferred

    def _check(self, claim, deferred):
        try:
            ours = deferred.is_owned_by(self._boot, claim.attempt)
        except POSKeyError:  # its manager was deleted, and the database packed
            ours = False
        if not ours:
            raise NotOurs(f'the call {claim.id} has gone to another run')
