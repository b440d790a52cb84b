"""One call, from claimed to ended, in a pool thread.

What is lost when the process dies on the way is told at each crash point; all of them are
listed in docs/failure-modes.rst.

Imports: course, work, claims, database, rules, zasync.
"""

import logging
import random
import threading

import transaction
from transaction.interfaces import TransactionFailedError
from transaction.interfaces import TransientError
from ZEO.Exceptions import ClientDisconnected

from Products.zasync import callbacks
from Products.zasync import payload
from Products.zasync import policy
from Products.zasync.deferred import OUTCOME_MOST
from Products.zasync.errors import BadResult
from Products.zasync.errors import CommitRefused
from Products.zasync.errors import NotOurs
from Products.zasync.failure import Failure
from Products.zasync.failure import name_of
from Products.zasync.failure import one_line
from Products.zasync.failure import Relayed
from Products.zasync.failure import text_of
from Products.zasync.interfaces import CALLBACK
from Products.zasync.running import no_checkpoint

from .claims import End
from .claims import ENDED
from .claims import GIVE_BACK
from .claims import LOST
from .course import Course
from .database import unit_of_work
from .rules import may_run_twice
from .work import commit
from .work import LaterAgain
from .work import NoPlugin
from .work import Outcome
from .work import tell_end
from .work import tell_later


log = logging.getLogger('zasync')

#: A call whose run was dropped though it is still ours waits so long, in seconds.
LOST_SECONDS = 5.0

#: How long a call waits whose plugin this worker does not know, in seconds: it was
#: restarted with another configuration, and may be so again.
NO_PLUGIN_SECONDS = 60.0


class Execution:
    """Runs calls in the thread that made it."""

    def __init__(self, work, fence, config, boot, clock, stopping, wake, runs):
        self._work = work
        self._fence = fence
        self._config = config
        self._boot = boot
        self._clock = clock
        self._stopping = stopping
        self._wake = wake
        self._runs = runs

    def run(self, claim):
        """Run the call until it ends, in whatever way; → End. Conflicts and lost servers included.
        """
        with self._runs.of(claim):
            return self._go_on(Course(claim, self._clock.monotonic(), self._config))

    def _go_on(self, call):
        claim = call.claim
        while True:
            try:
                if self._advance(call):
                    return self._end(call, ENDED)
                call.start_afresh()
            except NotOurs as reason:
                log.warning('call %s: its run (attempt %d) was dropped: %s', claim.id,
                            claim.attempt, one_line(reason))
                return self._end(call, LOST)
            except NoPlugin as reason:
                log.error('call %s goes back to the queue for %.0f s: %s', claim.id,
                          NO_PLUGIN_SECONDS, reason)
                return self._end(call, GIVE_BACK, NO_PLUGIN_SECONDS, str(reason))
            except LaterAgain as later:
                tell_later(claim.id, later)
                return self._end(call, GIVE_BACK, later.delay, later.why, failed=True)
            except ClientDisconnected as reason:
                call.stop_if_once(reason)
                delay = call.tries.after_disconnect()
                log.warning('call %s: the database server went away; it runs again in %.0f s',
                            claim.id, delay)
                if self._clock.wait(self._stopping, delay):
                    return self._end(call, LOST)
            except TransientError as reason:
                call.stop_if_once(reason)
                self._work.tally.note_conflict()
                delay = call.tries.after_conflict()
                if delay is not None:
                    self._clock.wait(threading.Event(), delay)
                elif call.outcome is None:
                    return self._give_back(call, reason)
                elif self._clock.wait(self._stopping, call.tries.to_store()):
                    return self._end(call, LOST)
            except TransactionFailedError as reason:
                # The plugin went on after a commit or a savepoint had failed. It was a
                # conflict, it may be, so try again; but not for ever.
                call.stop_if_once(reason)
                self._work.tally.note_conflict()
                if call.tries.after_conflict() is None:
                    call.outcome = Outcome(failure=Failure.from_exception(reason))
            except BaseException as reason:  # a bug of ours, or no memory left
                if self._fence.drop_others():
                    log.warning('call %s: what a call has left in this thread, to be told of its '
                                'transactions, is dropped, for it may be what raises %s: %s',
                                claim.id, name_of(type(reason)), one_line(text_of(reason)))
                    continue
                log.critical('call %s: the worker met an error it can not handle', claim.id,
                             exc_info=True)
                return self._give_back(call, reason)

    def _give_back(self, call, reason):
        delay = policy.give_back_delay(call.claim.attempt, random.random())
        why = f'{name_of(type(reason))}: {text_of(reason)}'[:OUTCOME_MOST]
        log.warning('call %s goes back to the queue for %.1f s: %s', call.claim.id, delay,
                    one_line(why))
        return self._end(call, GIVE_BACK, delay, why)

    def _end(self, call, how, delay=0.0, why='', failed=False):
        now, monotonic = self._clock.now(), self._clock.monotonic()
        if how == LOST:
            delay = LOST_SECONDS
        seconds = monotonic - call.started
        shared = seconds - call.own_seconds if call.own_seconds is not None else 0.0
        return End(call.claim, how, now, monotonic, seconds, now + delay, why, failed, call.begun,
                   shared, call.state, call.plugin)

    def _advance(self, call):
        """Do what is next in the life of the call, in a transaction; → whether it has ended.

        That is its work, or the storing of its outcome where that is known already, or one
        callback. Raises TransientErrors, NotOurs among them, and TransactionFailedError.
        """
        with unit_of_work(f'zasync call {call.claim.id}') as work:
            try:
                deferred = self._work.ours(call.claim)
                call.once = not may_run_twice(deferred, self._config.plugins.get(deferred.plugin))
                if call.outcome is None:
                    call.step = deferred.step()
                if call.step != deferred.step():
                    # The commit whose answer was lost had arrived.
                    pass
                elif call.outcome is not None:
                    self._work.store(deferred, call.outcome)
                    # crash point 17: a known end, such as a failure, is not committed; the call
                    # runs again.
                    commit()
                elif deferred.state == CALLBACK:
                    deferred = self._call_back(call, deferred)
                else:
                    deferred = self._run(call, deferred)
            finally:
                work.abandon()
        return False if deferred is None else self._note(call, deferred)

    def _note(self, call, deferred):
        """Something is in the database now; → whether the call has ended."""
        call.outcome = None
        call.begun = False
        call.state, call.plugin = deferred.state, deferred.plugin
        if deferred.state == CALLBACK:
            # crash point 20: what ran is committed, the next callback has not begun; it runs next.
            self._wake()  # of our own commits a storage tells us nothing
            return False
        # crash point 18: the end is committed and not filed; the next life files it.
        tell_end(deferred.id, deferred.state, deferred.failure,
                 self._clock.monotonic() - call.started)
        return True

    # the work of the call

    def _run(self, call, deferred):
        """Run its plugin; → the deferred, committed, or None: the outcome is in `call`."""
        plugin = self._work.plugin(deferred)
        asked, failures = deferred.retry, deferred.failures + 1
        try:
            if plugin.zope_aware:
                return self._run_aware(call, deferred, plugin)
            call.outcome = self._run_apart(call, deferred, plugin)
        except (TransientError, TransactionFailedError):
            raise
        except Relayed as other:
            call.outcome = Outcome(failure=other.failure, relayed=True)
        except BaseException as error:  # SystemExit too: a call must not stop its worker
            call.outcome = self._work.outcome_of_error(call.claim, error, asked, failures, plugin)
        return None

    def _run_aware(self, call, deferred, plugin):
        """Run a plugin as the caller, in the current transaction; → the deferred, committed."""
        def checkpoint(memo):
            self._work.check(call.claim, deferred)
            deferred.checkpoint(payload.dumps(memo, BadResult, 'the memo'))
            # crash point 12: the checkpoint is not committed; the call starts again at the last
            # one.
            before = deferred._p_serial
            commit()
            if deferred._p_serial == before:  # the fence has each commit write it
                raise _undone_by_hook(call)
            # crash point 13: the checkpoint is committed; the call starts again with its memo.
            transaction.begin()

        began = self._clock.monotonic()
        step = self._work.make_run(call.claim, deferred, checkpoint)
        args, kwargs = deferred.arguments()
        with self._work.acting_as(deferred.caller, step):
            with self._fence.around(deferred, self._boot, call.claim.attempt):
                outcome = self._work.run(step, call.begins(plugin.handler), *args, **kwargs)
            call.own_seconds = self._clock.monotonic() - began
            # A plugin may have committed behind our back: look again, in the snapshot this
            # transaction has now.
            # crash point 15: the plugin has run, effects and result are not committed; it runs
            # again.
            deferred = self._work.ours(call.claim)
            self._work.store(deferred, outcome)
            # A data manager of the plugin may refuse the commit: its failure, too.
            # crash point 16, at the vote: as 15; the servers drop what was voted for.
            self._commit_end(call, deferred)
        return deferred

    def _commit_end(self, call, deferred):
        """Commit what a plugin or a callback did, and how it ended; raises what refuses that."""
        with self._fence.ending(deferred):
            commit()
        if deferred.step() == call.step and not deferred.ended:
            raise _undone_by_hook(call)

    def _run_apart(self, call, deferred, plugin):
        """Run a plugin that knows nothing of Zope, no connection open; → its Outcome."""
        args, kwargs = deferred.arguments()
        step = self._work.make_run(call.claim, deferred, no_checkpoint)
        outcome = self._work.run_apart(step, call.begins(plugin.handler), *args, **kwargs)
        # crash point 14: only this process knows what a plugin that is not zope-aware has
        # returned; it runs again.
        return outcome

    # its callbacks

    def _call_back(self, call, deferred):
        """Run its next callback; → the deferred, committed, or None: it has failed."""
        success, failure, caller = deferred.next_callback()
        value = deferred.failure
        chosen = success if value is None else failure
        if chosen is None:
            deferred.pass_callback(self._clock.now())
            commit()
            return deferred

        def run(step):
            return callbacks.run(step, chosen, deferred.result if value is None else value)

        try:
            step = self._work.make_run(call.claim, deferred, callbacks.no_checkpoint)
            with self._work.acting_as(caller, step):
                with self._fence.around(deferred, self._boot, call.claim.attempt):
                    outcome = self._work.run(step, run)
                # crash point 19: a callback has run and is not committed; it runs again, and no
                # other.
                deferred = self._work.ours(call.claim)
                self._work.store(deferred, outcome)
                self._commit_end(call, deferred)
        except (TransientError, TransactionFailedError):
            raise
        except BaseException as error:
            self._work.check_blame(call.claim, error)
            log.warning('a callback of call %s failed: %s', call.claim.id,
                        one_line(text_of(error)))
            call.outcome = Outcome(failure=Failure.from_exception(error))
            return None
        return deferred


def _undone_by_hook(call):
    return CommitRefused(f'the call {call.claim.id} has something called before its commit that '
                         'ended the transaction: nothing was committed')
