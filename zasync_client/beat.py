"""The body of a beat: all that a worker does to its manager's queue in one transaction.

It takes in what is new, claims what there are threads for, archives what ended, ends what
ran too long, shows progress, makes the calls that are due by the calendar, and writes the
pulse. It only decides and writes; what has to be done once that is committed it returns.

Imports: filing, claims, rules, runs, pace, errors, zasync.
"""

import logging
from typing import NamedTuple

from Acquisition import aq_base

from Products.zasync import periodic
from Products.zasync import policy
from Products.zasync.claiming import Offers
from Products.zasync.deferred import is_there
from Products.zasync.errors import Cancelled
from Products.zasync.errors import NotOurs
from Products.zasync.interfaces import CANCELLED
from Products.zasync.interfaces import NEW
from Products.zasync.waiting import is_waiting

from .claims import ALONE
from .claims import attempts
from .claims import Claim
from .claims import GIVE_BACK
from .claims import LOST
from .claims import UNBEGUN
from .errors import DeskLost
from .filing import Filing
from .filing import timed_out
from .rules import may_reserve
from .rules import may_share
from .rules import time_limit


log = logging.getLogger('zasync')

#: A heartbeat at least this often, in seconds: 1.2 MB a day in an idle database.
#: Must stay well below the dispatcher's max_idle_time.
BEAT_SECONDS = 10.0

#: A beat that is so late, in seconds, is told of in the log.
LATE_SECONDS = 5.0

#: Ended calls wait for a beat that has more to do, at most this long, in seconds: their
#: results are to be seen at once, only the archive waits.
SWEEP_SECONDS = BEAT_SECONDS
#: When so many have ended they do not wait; the desk, written at each claim, names them.
SWEEP_AT = 20

#: The desk is compared with the pool this often, in seconds: what nobody runs
#: (after an undo, a restored backup) is given out again.
RECONCILE_SECONDS = 60.0

#: While so many calls wait for a thread, and enough for those that are free, what was put since is
#: looked at this often, in seconds: to look loads the chunks of lanes again into which it was put.
#: The second is for a worker with no thread that is free.
ENOUGH_READY = 100
LANES_SECONDS, FULL_LANES_SECONDS = 0.25, 1.0

#: A sibling's calls that wait are looked at this often, in seconds, by a worker that could take
#: none of them: it has no plugin for them.
BARREN_SECONDS = 1.0

#: Progress is written this often at most, in seconds: every process sees it within a second.
BOARD_SECONDS = 0.5


class DeskFree(Exception):
    """Nobody holds the desk that this worker took."""


class Done(NamedTuple):
    """What a beat that committed did: the Claims to run, whether it filed the ended calls,
    the claims whose time-out it stored, the progress it wrote, whether it compared the desk,
    whether it had free threads and nothing for them, how many more calls wait for a thread.
    """

    claims: tuple
    filed: bool
    timed_out: tuple
    reports: dict
    reconciled: bool
    barren: bool = False
    more_ready: int = 0


#: Why a worker beats at a desk: it is its own manager's; a dead sibling's, which it holds
#: until that one comes back; a busy sibling's, of which it takes calls and no more.
OWN, GUEST, VISITOR = 'own', 'guest', 'visitor'


class Beat:
    """The beats of one worker life at one desk. Times of the clock are monotonic seconds.

    target -- path of the desk's manager. role -- OWN, GUEST or VISITOR.
    """

    def __init__(self, boot, config, clock, pace, runs, habits, siblings, target, role=OWN):
        self._boot = boot
        self._config = config
        self._clock = clock
        self._pace = pace
        self._runs = runs
        self._habits = habits
        self._siblings = siblings
        self._filing = Filing(boot, config, siblings)
        self._offers = Offers(config.plugins)
        self.target = target
        self.role = role
        self.draining = False
        self.poll_seconds = BEAT_SECONDS
        #: POSIX seconds at which a call that waits is due; None for no such call.
        self.next_due = None
        self._beat_at = self._reconciled_at = self._board_at = self._barren_at = float('-inf')
        self._lanes_at = float('-inf')
        self._has_claimed = False
        #: Calls that were in the lanes at the last look, and were not taken in.
        self._in_lanes = 0

    def in_transaction(self, manager, now, ends, held, busy, hurry):
        """Do what is to be done in the current transaction; → Done, or None if it was nothing.

        now -- POSIX seconds. ends -- Ends that are not filed. held -- Claims of this manager
        that have a thread or wait for one. busy -- number of such claims of all managers.
        hurry -- file and beat even if that could wait.
        Filing waits otherwise: a claim should write as little as it can.
        Raises DeskFree, DeskLost.
        """
        queue, holds = manager.queue, self.role != VISITOR
        if holds:
            self._check_desk(queue)
        self.poll_seconds = manager.poll_interval
        idle = self.draining or manager.paused
        # Calls that are put go to a manager whose own worker lives.
        silent = idle or self.role == GUEST
        slots = 0 if idle else self._free_slots(busy)
        lanes = self._may_look_at_lanes(queue, slots, hurry)
        news = None if lanes else ()
        if lanes:
            self._lanes_at = self._clock.monotonic()
            if holds:  # then it counts them as well: one look for all
                news = queue.news()
        cancelled = self._tell_what_ended(queue, held)
        overdue = self._overdue(queue)
        reports = self._reports(queue, silent)
        filing = self._must_sweep(queue, ends, hurry)
        ours = held | {end.claim for end in ends}
        reconciling = (self.must_reconcile() or self._has_orphans(manager, held, ends)
                       if holds else self._has_strays(queue, ours))
        self.next_due = self._next_due(manager, now, slots, idle)
        periodic_due = holds and not idle and periodic.due(manager, now)
        if not (filing or cancelled or overdue or periodic_due or reports is not None
                or reconciling or self._may_take_in(queue, now, slots, news)
                or (holds and self._must_beat(queue, silent))):
            return None
        period = manager.rotation_period
        ready_before = queue.desk.n_ready
        if filing:
            self._filing.file(queue, ends, period, now)
        for id in cancelled:
            # crash point 23: a running call was cancelled and is not filed; the next life files
            # it.
            if id in queue.desk.reserved:
                queue.claim_reserved(id, self._boot, now)
            if id in queue.desk.running:  # else its thread has ended just now
                queue.archive_ended(id, period)
        for claim in overdue:
            self._filing.time_out(queue, claim, period, now)
        if reconciling and holds:
            self.reconcile(manager, now, ours, None)
        elif reconciling:
            self._filing.give_out_strays(manager, now, ours)
        if holds:
            queue.drop_old(now, period)
        if periodic_due:
            periodic.beat(manager, now)
        claims = self._of_alone(queue, ends, now, idle) if filing else ()
        if not self.draining and (holds or slots):
            offers = None if self.role == OWN else self._offers
            known = attempts(held, ends)
            claims += tuple(self._claim(deferred, known) for deferred in queue.take_in_and_claim(
                self._boot, now, slots, period, offers, self._config.max_interruptions,
                self._may_reserve(known), news))
        if claims and not self._has_claimed:
            self._has_claimed = True
            if not holds:
                self._reconciled_at = self._clock.monotonic()
        if claims and not holds:
            # Whoever pauses the manager asks its own worker whether the pause has been seen: what
            # is paused by the time of our commit is not claimed.
            manager._p_jar.readCurrent(aq_base(manager))
        self.next_due = self._next_due(manager, now, slots > len(claims), idle)
        self._write_board(queue, reports, {claim.id for claim in claims})
        if holds:
            desk = queue.desk
            unfiled = 0 if filing else sum(
                end.claim.id in desk.running or end.claim.id in desk.reserved for end in ends)
            if lanes:
                self._in_lanes = queue.length_in_lanes(news)
            self._write_pulse(queue, unfiled, silent)
        return Done(claims, filing, tuple(overdue), reports or {}, reconciling,
                    slots > 0 and not claims, queue.desk.n_ready - ready_before)

    def _check_desk(self, queue):
        """Raise DeskFree or DeskLost if the desk is not ours."""
        if queue.desk.boot is None:
            raise DeskFree
        if queue.desk.boot != self._boot:
            raise DeskLost(f'another worker serves {"/".join(self.target)} now: process '
                           f'{queue.card.pid} on {queue.card.host}', queue.desk.guest)

    def _may_look_at_lanes(self, queue, slots, hurry):
        """Whether it is time for another look at what was put."""
        has_enough = (self.role == OWN and queue.desk.n_ready >= max(ENOUGH_READY, slots)
                      and not queue.cancelled)  # that may be in a lane, and is to leave it
        apart = LANES_SECONDS if slots else FULL_LANES_SECONDS
        return (not has_enough or hurry
                or self._clock.monotonic() - self._lanes_at >= apart)

    def _may_take_in(self, queue, now, slots, news):
        """Whether there is something to take in or to claim.

        A visitor goes by the pulse: a sibling that has free threads is left alone.
        """
        if self.draining or (self.role == VISITOR and not (slots and queue.pulse.new)):
            return False
        # With what is left over by one who has no plugin for it, nobody need begin again.
        barren = (self.role != OWN
                  and self._clock.monotonic() - self._barren_at < BARREN_SECONDS)
        return queue.has_work(now, slots, ready=not barren, news=news)

    def note(self, done):
        """A beat is in the database now."""
        before, self._beat_at = self._beat_at, self._clock.monotonic()
        late = self._beat_at - before - BEAT_SECONDS
        if self.role != VISITOR and LATE_SECONDS <= late < float('inf'):
            log.warning('the beat is %.0f s late: a commit took so long, the database server was '
                        'away, a thread gave the others no time, or the process was stopped', late)
        self._barren_at = self._beat_at if done.barren else float('-inf')
        if done.reconciled:
            self._reconciled_at = self._beat_at
        if done.reports:
            self._board_at = self._beat_at
            self._runs.written(done.reports)
        for claim in done.timed_out:
            # crash point 29: the time-out is committed; that is the end of the call.
            self._runs.forget_deadline(claim)
            self._runs.stop(claim, timed_out(claim))

    def reconcile(self, manager, now, held, outcome):
        """See Filing."""
        self._filing.reconcile(manager, now, held, outcome)

    def cut_off(self, manager, now, claims, outcome):
        """Put back what these claims run, for the last time; in the current transaction."""
        queue = manager.queue
        self._filing.cut_off(queue, claims, manager.rotation_period, now, outcome)
        if queue.desk.boot == self._boot:
            self.write_pulse(queue, 0, True)

    def doubt(self):
        """The outcome of a claim that was under way is unknown: compare soon."""
        self._reconciled_at = float('-inf')

    def forget_overdue(self):
        """The manager is away: that its calls run too long can be written nowhere."""
        for claim in self._runs.overdue():
            if claim.target == self.target:
                self._runs.forget_deadline(claim)

    def may_leave(self, queue):
        """Whether a visitor that runs no call of this queue has left none behind."""
        self.doubt()
        return not self._has_strays(queue, set())

    def seconds_to_sleep(self, now):
        """How long there is nothing to do by the clock; now -- POSIX seconds."""
        monotonic = self._clock.monotonic()
        waits = [self.poll_seconds]
        if self.role != VISITOR:  # it gives no sign of life there
            waits.append(self._beat_at + BEAT_SECONDS - monotonic)
        if self.next_due is not None:
            waits.append(self.next_due - now)
        if self._changed():
            waits.append(self._board_at + BOARD_SECONDS - monotonic)
        deadline = self._runs.next_deadline()
        if deadline is not None:
            waits.append(deadline - monotonic)
        return min(waits)

    def has_room(self, busy):
        """Whether it may claim when so many calls are claimed."""
        return self._free_slots(busy) > 0

    # whether there is something to do

    def _free_slots(self, busy):
        ahead = 0
        if self.role == OWN:
            ahead = policy.claim_ahead(self._pace.seconds_ahead, self._config.threads)
        return policy.free_slots(self._config.threads, ahead, busy)

    def _must_sweep(self, queue, ends, hurry):
        return bool(ends) and (
            hurry or len(ends) >= SWEEP_AT
            or self._clock.monotonic() - ends[0].monotonic >= SWEEP_SECONDS
            or any(end.how in (GIVE_BACK, UNBEGUN, LOST, ALONE) for end in ends)
            or (queue.desk.n_aside > 0
                and any(queue.waiting.is_awaited(end.claim.id) for end in ends)))

    def _must_beat(self, queue, silent):
        return (self._clock.monotonic() - self._beat_at >= BEAT_SECONDS
                or is_unanswered(queue) or queue.pulse.accepting == silent)

    def _next_due(self, manager, now, slots, idle):
        """When there will be something to do that nobody tells of, in POSIX seconds, or None.

        A visitor is told of all: by the commits of the worker it visits.
        """
        if self.draining or self.role == VISITOR:
            return None
        times = (manager.queue.next_due(slots),
                 None if idle else periodic.next_due(manager, now))
        return min((time for time in times if time is not None), default=None)

    def must_reconcile(self):
        """Whether the desk is to be compared with the pool."""
        return self._clock.monotonic() - self._reconciled_at >= RECONCILE_SECONDS

    def _has_strays(self, queue, ours):
        """Whether a visitor has claimed what it does not run, if it is time to compare.

        That loads all calls that run at the sibling's desk.
        """
        if not (self._has_claimed and self.must_reconcile()):
            return False
        found = bool(self._filing.strays(queue, ours))
        if not found:
            self._reconciled_at = self._clock.monotonic()
        return found

    def _has_orphans(self, manager, held, ends):
        """Whether a call was run by a sibling's worker that is gone, or has begun a new life."""
        ours = {claim.id for claim in held} | {end.claim.id for end in ends}
        owners = {deferred.owner for id, deferred in manager.queue.desk.running.items()
                  if id not in ours} - {None, self._boot}
        return bool(owners and owners - self._siblings.boots_alive(manager))

    def _tell_what_ended(self, queue, held):
        """Have runs that lost their call learn of it; → ids of the calls that were cancelled.

        Whoever waits for the end of such a call need not wait for its thread.
        """
        cancelled = []
        for claim in held:
            if self._is_ours(queue, claim):
                continue
            deferred = _on_desk(queue, claim)
            if deferred is not None and is_there(deferred) and deferred.state == CANCELLED:
                cancelled.append(claim.id)
                self._runs.stop(claim, Cancelled(f'the call {claim.id} was cancelled'))
            else:
                self._runs.stop(claim, NotOurs(f'the call {claim.id} is not of this run any more'))
        return set(cancelled)

    def _is_ours(self, queue, claim):
        """Whether a claim holds still, as far as the database tells: it may have ended."""
        deferred = _on_desk(queue, claim)
        if claim.reserved:
            return is_waiting(deferred)
        return deferred is not None and deferred.is_owned_by(self._boot, claim.attempt)

    def _overdue(self, queue):
        found = []
        for claim in self._runs.overdue():
            if claim.target != self.target:
                continue
            deferred = queue.desk.running.get(claim.id)
            if deferred is not None and deferred.is_owned_by(self._boot, claim.attempt):
                found.append(claim)
            else:
                self._runs.forget_deadline(claim)
        return found

    def _changed(self):
        """{claim: Progress} told by runs of this manager's calls and not yet written."""
        return {claim: progress for claim, progress in self._runs.changed().items()
                if claim.target == self.target}

    def _reports(self, queue, silent):
        """{claim: Progress} to be written now; None for nothing to write."""
        changed = self._changed()
        if changed and self._clock.monotonic() - self._board_at < BOARD_SECONDS:
            return None
        if changed or (self.role != VISITOR and self._must_beat(queue, silent)
                       and queue.board.ids() - _here(queue)):
            return changed
        return None

    # what is done

    def _may_reserve(self, known):
        """What tells of a Deferred whether it is to be reserved; known -- see _claim."""
        def may(deferred):
            return (deferred.id, 1) not in known and may_reserve(
                deferred, self._config.plugins.get(deferred.plugin))

        useful = (self.role == OWN and self._config.batch_seconds > 0
                  and self._habits.groups_work)
        return may if useful else lambda deferred: False

    def _of_alone(self, queue, ends, now, idle):
        """The Claims of calls that were reserved and are to be run alone.

        One that has failed with others, or with which they did, is kept from them.
        """
        claims = []
        for end in ends:
            deferred = queue.desk.running.get(end.claim.id) if end.how == ALONE else None
            if deferred is None or not deferred.is_owned_by(self._boot, end.claim.attempt):
                continue
            if idle:
                queue.unclaim(deferred.id, now)
            else:
                claim = self._claim(deferred, ())
                claims.append(claim._replace(groupable=claim.groupable and not end.begun))
        return tuple(claims)

    def _claim(self, deferred, known):
        """The Claim of a call.

        known -- attempts that have a thread, or whose ends are filed now at the earliest. If this
        one is of the same number, that claim was undone: its run must not own this one.
        """
        # crash point 8: the claim is not committed; the call waits as before.
        if deferred.state == NEW:  # reserved
            return Claim(deferred.id, deferred._p_jar.db().database_name, deferred._p_oid, 1,
                         None, self.target, groupable=True, reserved=True)
        while (deferred.id, deferred.attempt) in known:
            deferred.attempt += 1
        plugin = self._config.plugins.get(deferred.plugin)
        groupable = self._config.batch_seconds > 0 and may_share(deferred, plugin)
        return Claim(deferred.id, deferred._p_jar.db().database_name, deferred._p_oid,
                     deferred.attempt, time_limit(deferred, plugin), self.target, groupable)

    def _write_board(self, queue, reports, claimed):
        """Write progress, and forget that of calls which run no more or have only been claimed."""
        told = queue.board.ids()
        if reports is None and not told & claimed:
            return
        queue.board.write({claim.id: progress for claim, progress in (reports or {}).items()
                           if self._is_ours(queue, claim)},
                          (told - _here(queue)) | (told & claimed))

    def write_pulse(self, queue, unfiled, silent):
        """The numbers that dispatchers read.

        unfiled -- ended calls still on the desk. silent -- it gets no calls from dispatchers.
        """
        self._in_lanes = queue.length_in_lanes(queue.news())
        self._write_pulse(queue, unfiled, silent)

    def _write_pulse(self, queue, unfiled, silent):
        pulse, asked = queue.pulse, queue.ping.asked_at
        pong = pulse.pong_at
        if is_unanswered(queue):
            pong = self._clock.now()
        pulse.write(
            new=self._in_lanes + queue.desk.n_taken_in(),
            accepted=max(0, len(queue.desk.running) + len(queue.desk.reserved) - unfiled),
            rate=round(self._pace.calls_a_second(self._clock.monotonic()), 2),
            beat=pulse.beat + 1, accepting=int(not silent), pong_at=pong, answered=asked or 0,
            pace=self._pace.possible(self._config.threads))


def _on_desk(queue, claim):
    """The Deferred of a claim, or None."""
    return (queue.desk.reserved if claim.reserved else queue.desk.running).get(claim.id)


def _here(queue):
    """The ids of all calls that run, or may."""
    return queue.desk.running.keys() | queue.desk.reserved.keys()


def is_unanswered(queue):
    """Whether somebody pinged since the last answer; no two clocks are compared."""
    asked = queue.ping.asked_at
    return asked is not None and asked != queue.pulse.answered
