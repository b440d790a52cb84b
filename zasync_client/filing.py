"""Filing: what a beat does with calls that have ended, ran too long, or are run by nobody.

Imports: claims, rules, siblings, zasync.
"""

import logging

from Products.zasync import policy
from Products.zasync.errors import Interrupted
from Products.zasync.errors import TimedOut
from Products.zasync.failure import Failure
from Products.zasync.failure import one_line
from Products.zasync.interfaces import ACCEPTED
from Products.zasync.options import class_names
from Products.zasync.waiting import is_waiting

from .claims import ALONE
from .claims import ENDED
from .claims import UNBEGUN
from .rules import may_run_twice
from .rules import may_share
from .rules import retry_of


log = logging.getLogger('zasync')


class Filing:
    """For one worker life. All is done in the current transaction, the beat's."""

    def __init__(self, boot, config, siblings):
        self._boot = boot
        self._config = config
        self._siblings = siblings

    def file(self, queue, ends, rotation_period, now):
        """Archive what ended, put back what could not run."""
        for end in ends:
            id = end.claim.id
            deferred = queue.desk.reserved.get(id)
            kept = end.how == UNBEGUN and is_waiting(deferred)
            if not kept:
                if deferred is not None:
                    queue.claim_reserved(id, self._boot, end.at - end.seconds)
                deferred = queue.desk.running.get(id)
            if deferred is None:
                continue
            if deferred.ended:
                # crash point 21: what is filed is not committed; the next life files it.
                queue.archive_ended(id, rotation_period)
            elif kept or deferred.is_owned_by(self._boot, end.claim.attempt):
                if end.how == ALONE:
                    pass  # a thread will get it: see Beat
                elif end.how == UNBEGUN:
                    (queue.unreserve if kept else queue.unclaim)(id, now)
                    # crash point 27: a claim is not given back; the attempt is lost, as at 9.
                    log.info('call %s goes back to the queue (%s)', id, end.how)
                else:
                    undone = end.how == ENDED
                    self._give_back(
                        queue, deferred, rotation_period, now,
                        'undone' if undone else end.why or end.how, undone or end.begun,
                        end.until, end.failed)
            elif deferred.is_waiting():  # it had failed, and is to run once more
                queue.take_off(id)

    def time_out(self, queue, claim, rotation_period, now):
        """End a call that runs too long: its thread goes on, but can't commit any more."""
        deferred = queue.desk.running[claim.id]
        error = timed_out(claim)
        delay = policy.next_try(
            retry_of(deferred.retry, self._config.plugins.get(deferred.plugin)),
            deferred.failures + 1, class_names(TimedOut))
        # crash point 28: the time-out is not committed; the call runs again, for its whole time.
        if delay is None or deferred.state != ACCEPTED:
            queue.fail(claim.id, Failure.from_exception(error), now, rotation_period)
            log.warning('call %s failed: %s', claim.id, error)
        else:
            queue.give_back(claim.id, now, f'timed out: {error}', now + delay, failed=True)
            log.warning('call %s goes back to the queue for %.1f s: %s', claim.id, delay, error)

    def reconcile(self, manager, now, held, outcome):
        """Give out again the calls on the desk that nobody runs, or have them fail.

        held -- Claims that somebody runs, or that have ended and are not filed. outcome -- of
        the attempts that nobody runs; None: that of a sibling's worker has lost it, one of ours
        was undone, it may be.
        """
        queue, known = manager.queue, {(claim.id, claim.attempt) for claim in held}
        for id in [id for id in queue.desk.reserved if (id, 1) not in known]:
            queue.claim_reserved(id, self._boot, now)
        others = self._siblings.boots_alive(manager) - {self._boot}
        self._give_out(manager, now, {
            id: deferred for id, deferred in queue.desk.running.items()
            if (id, deferred.attempt) not in known and deferred.owner not in others}, outcome)
        queue.drop_undone(now, manager.rotation_period)
        queue.recheck_held_up(now)

    def strays(self, queue, held):
        """{id: Deferred} of calls on the desk that we have claimed and do not run.

        held -- see reconcile. Only we can tell: to others our calls are run, as long as we live.
        """
        known = {(claim.id, claim.attempt) for claim in held}
        return {id: deferred for id, deferred in queue.desk.running.items()
                if deferred.owner == self._boot and (id, deferred.attempt) not in known}

    def give_out_strays(self, manager, now, held):
        """The same as reconcile, for these, at a desk that we do not hold."""
        self._give_out(manager, now, self.strays(manager.queue, held), None)

    def _give_out(self, manager, now, calls, outcome):
        queue = manager.queue
        for id, deferred in calls.items():
            if deferred.ended:
                queue.archive_ended(id, manager.rotation_period)
            elif deferred.is_waiting():  # it had failed, and is to run once more
                queue.take_off(id)
            else:
                ours = deferred.owner == self._boot
                why = outcome or ('nobody ran it' if ours else policy.WORKER_GONE)
                self._give_back(queue, deferred, manager.rotation_period, now, why)

    def cut_off(self, queue, claims, rotation_period, now, outcome):
        """Give out again the calls that these claims run: their threads are about to go."""
        for claim in claims:
            if claim.id in queue.desk.reserved:
                queue.claim_reserved(claim.id, self._boot, now)
            deferred = queue.desk.running.get(claim.id)
            if deferred is not None and deferred.is_owned_by(self._boot, claim.attempt):
                self._give_back(queue, deferred, rotation_period, now, outcome)

    def _give_back(self, queue, deferred, rotation_period, now, outcome, begun=True, until=0.0,
                   failed=False):
        """Give out a call again; one that may not run twice, and has begun, fails."""
        id, plugin = deferred.id, self._config.plugins.get(deferred.plugin)
        if outcome in policy.LOSSES and may_share(deferred, plugin):
            outcome += policy.SHARED
        outcomes = [*(attempt.outcome for attempt in deferred.attempts[:-1]), outcome]
        what = outcome.replace(policy.INTERRUPTED, 'its worker died')
        if policy.is_suspect(outcomes, self._config.max_interruptions):
            many = policy.interruptions(outcomes)
            failure = Failure.from_exception(Interrupted(
                f'{many} attempts of the call in a row were interrupted ({what}): it may be '
                'what ends its workers' if many > 1 else
                f'the call was interrupted ({what}): it may be what ends its workers'))
            queue.fail(id, failure, now, rotation_period)
            log.error('call %s failed: %s', id, one_line(failure))
        elif begun and deferred.state == ACCEPTED and not may_run_twice(deferred, plugin):
            failure = Failure.from_exception(Interrupted(
                f'attempt {deferred.attempt} of the call was interrupted ({what}), and it may '
                'not run twice'))
            queue.fail(id, failure, now, rotation_period)
            log.warning('call %s failed: %s', id, one_line(failure))
        else:
            queue.give_back(id, now, outcome, until, failed)
            # crash point 26: a call that failed does not wait for its next attempt; it runs at
            # once.
            log.info('call %s goes back to the queue (%s)', id, one_line(outcome))


def timed_out(claim):
    """What a call that ran too long fails with."""
    return TimedOut(f'the call ran for longer than its time-out, {claim.timeout_seconds:g} s')
