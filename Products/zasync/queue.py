"""Queue: put, take in, claim, archive and find calls, over the persistent parts.

Who writes what (one kind of writer each, so puts meet nobody):

=========================  =====================================================
lanes                      putters (a trim included)
desk, marks, waiting, the  the beat of the worker that holds the desk
archive, withdrawn, failed,
pulse, board
card                       that worker, at its start
ping                       whoever pings
cancelled                  whoever cancels a call that waits; the beat empties it
departed                   whoever moves calls away
intakes                    whoever moves calls here; from one the beat takes out what ends
names                      puts with a key; claims and ends of calls of a series
=========================  =====================================================

No acquisition and no clock here: every time is an argument, POSIX seconds.

Imports: deferred, lanes, desk, waiting, pulse, board, names, policy, failure.
"""

import random
from heapq import merge
from operator import itemgetter

from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from ZODB.POSException import POSKeyError
from ZODB.utils import u64

from . import lanes
from . import policy
from .board import Board
from .deferred import Deferred
from .desk import Desk
from .errors import Expired
from .failure import Failure
from .interfaces import FAILED
from .interfaces import RESOLVED
from .names import Names
from .pulse import Ping
from .pulse import Pulse
from .pulse import WorkerCard
from .waiting import is_waiting
from .waiting import Waiting


#: Most entries taken in by one beat: a backlog of any size must not make a beat
#: so long that the worker looks dead.
TAKE_IN_MOST = 1_000

#: The lane number in the ids of calls that a worker has made itself, on its desk.
DESK_LANE = lanes.LANES

#: The lane number in the places of calls that were put to another queue, which has lanes of
#: the same numbers. The number there is their oid.
MOVED_LANE = DESK_LANE + 1

#: What a lane's entry says of a call that is out of the ordinary, as a fifth item:
#: 'place', where it is to wait if not by its own number (it runs once more); 'expires';
#: 'after', it waits for the ends of others. A plain call has no fifth item.
PLACE, EXPIRES, AFTER = 'place', 'expires', 'after'

_by_place = itemgetter(0)


class Queue(Persistent):
    """The calls of one manager. Written once, at birth; all that changes is in its parts."""

    __zpublishable__ = False

    #: Its manager is being deleted.
    closed = False

    def __getnewargs__(self):
        """None; that there are some makes each call's reference to us 8 bytes, without a class."""
        return ()

    def __init__(self):
        self.lanes = lanes.make_lanes()
        self.desk = Desk(len(self.lanes))
        self.waiting = Waiting(self.desk)
        # End of the slice → {id: Deferred}; dropped slice by slice. What was resolved, and
        # what was cancelled or has expired: a list of the few need not load the many.
        self.archive = LOBTree()
        self.withdrawn = LOBTree()
        # id → Deferred of what failed for good; kept until somebody takes it away.
        self.failed = OOBTree()
        self.cancelled = OOBTree()
        # Number → {id: Deferred} of calls that came from another queue in one transaction and
        # have not ended. Whoever brings more does not meet the beat.
        self.intakes = LOBTree()
        # id → Deferred of calls that went to another queue: who knows ours is told of them.
        self.departed = OOBTree()
        self.names = Names()
        self.board = Board()
        self.pulse = Pulse()
        self.ping = Ping()
        self.card = WorkerCard()

    # putters

    def put(self, call, lane_number, names=None, after=()):
        """Store `call` in that lane, in the current transaction; return its Deferred.

        names -- the Names that have its series; None for our own. after -- Deferreds whose
        ends it waits for.
        """
        lane = self.lanes[lane_number]
        number = lanes.next_number(lane)
        deferred = Deferred(make_id(lane_number, number, call.put_at), call, self,
                            names or self.names)
        extra = {}
        if call.expires_at is not None:
            extra[EXPIRES] = call.expires_at
        if after:
            deferred.after = tuple(after)
            extra[AFTER] = True
        self._enter(lane_number, lane, number, call.not_before, deferred, extra)
        return deferred

    def put_again(self, deferred, lane_number):
        """Have a call that failed for good run once more, in the current transaction."""
        deferred.again()
        lane = self.lanes[lane_number]
        self._enter(lane_number, lane, lanes.next_number(lane), 0.0, deferred,
                    {PLACE: place_of(deferred)})

    def new_intake(self):
        """The number of an intake for the calls that the current transaction brings."""
        number = self.intakes.maxKey() + 1 if self.intakes else 1
        self.intakes[number] = OOBTree()
        return number

    def receive(self, deferred, intake, lane_number, not_before=0.0, held_up=False):
        """Take over a call that waits, from another queue, in the current transaction.

        intake -- see new_intake. not_before -- POSIX seconds before which it is not to run.
        held_up -- it waits for the ends of others.
        """
        self._take_over(deferred, intake)
        extra = {PLACE: place_of(deferred)}
        if deferred.expires_at is not None and deferred.attempt == 0:
            extra[EXPIRES] = deferred.expires_at
        if held_up:
            extra[AFTER] = True
        lane = self.lanes[lane_number]
        self._enter(lane_number, lane, lanes.next_number(lane), not_before, deferred, extra)

    def receive_running(self, deferred, intake):
        """Take over a call that some worker had claimed; ours finds that nobody runs it."""
        self._take_over(deferred, intake)
        self.desk.add_running(deferred.id, deferred)

    def receive_failed(self, deferred, intake):
        """Take over a call that failed for good."""
        deferred.move_to(self, intake)
        self.failed[deferred.id] = deferred

    def _take_over(self, deferred, intake):
        deferred.move_to(self, intake)
        self.intakes[intake][deferred.id] = deferred

    def _enter(self, lane_number, lane, number, not_before, deferred, extra):
        entry = (deferred.priority, deferred.put_at, not_before, deferred)
        lane[number] = (*entry, extra) if extra else entry
        if number % lanes.TRIM_EVERY == 0:
            lanes.trim(lane, self.desk.mark(lane_number)[0])

    def note_cancelled(self, deferred):
        """A call that waited has been cancelled: the beat is to take it out."""
        self.cancelled[deferred.id] = deferred

    def close(self):
        """Make every put and beat fail that overlaps with this transaction, in either order."""
        if not self.closed:
            self.closed = True
            self.desk._p_activate()
            self.desk._p_changed = True
            for lane in self.lanes:
                lanes.close(lane)

    # anybody, reading

    def length_new(self):
        """Calls that wait for a thread or for their time, exact in this snapshot."""
        desk = self.desk
        in_lanes = sum(max(0, lanes.highest(lane) - desk.mark(number)[0])
                       for number, lane in enumerate(self.lanes))
        return in_lanes + desk.n_ready + desk.n_later + desk.n_aside

    def length_accepted(self):
        """Calls claimed and not ended, exact in this snapshot."""
        return sum(1 for deferred in self.desk.running.values() if deferred.owner is not None)

    def find(self, id):
        """The Deferred of that id, or None."""
        return self._find(id, self._find_running, self._find_waiting, self._find_moved,
                          self._find_failed, self._find_archived)

    def find_waiting(self, id):
        """The Deferred of that id, or None, looked for only where a call may lie that waits."""
        return self._find(id, self._find_running, self._find_waiting, self._find_moved,
                          self._find_failed)

    def _find(self, id, *elsewhere):
        """Look in its lane, then elsewhere."""
        try:
            not_taken_in = self._find_in_lane(*parse_id(id)[:2])
        except (ValueError, IndexError, TypeError, OverflowError):  # an id no lane can hold
            return None
        for look in (lambda id: not_taken_in, *elsewhere):
            try:
                deferred = look(id)
                if deferred is not None and deferred.id == id:
                    return deferred
            except POSKeyError:  # the put of what lay there was undone
                pass
        return None

    def _find_in_lane(self, lane_number, number):
        """What is in a lane and not taken in: what is, hangs elsewhere, or was dropped."""
        if lane_number == DESK_LANE:
            return None
        lane = self.lanes[lane_number]
        mark, oid = self.desk.mark(lane_number)
        if number <= mark and oid_at(lane, mark) == oid:
            return None
        entry = lane.get(number)
        return entry and entry[3]

    def _find_running(self, id):
        return self.desk.running.get(id)

    def _find_waiting(self, id):
        lane_number, number, put_at = parse_id(id)
        return self.waiting.find(put_at, lane_number, number)

    def _find_moved(self, id):
        for calls in self.intakes.values():
            if id in calls:
                return calls[id]
        return self.departed.get(id)

    def _find_failed(self, id):
        return self.failed.get(id)

    def _find_archived(self, id):
        for slices in (self.archive, self.withdrawn):
            for end in reversed(slices.keys()):
                deferred = slices[end].get(id)
                if deferred is not None:
                    return deferred
        return None

    def has_news(self):
        """Whether a lane has entries that were not taken in."""
        return any(self._has_news(number, lane) for number, lane in enumerate(self.lanes))

    def has_work(self, now, slots):
        """Whether a beat with that many free slots has anything to take in or to claim.

        Without a free slot new entries wait in their lanes until there are so many
        that the lanes want trimming.
        """
        if self.cancelled:
            return True
        due = self.next_due(slots)
        if due is not None and due <= now:
            return True
        if slots:
            return (self.desk.n_ready > 0 or self.has_news()
                    or (self.desk.n_aside > 0 and self.waiting.any_unblocked()))
        desk = self.desk
        taken_in = desk.n_ready + desk.n_later + desk.n_aside
        return self.length_new() - taken_in >= TAKE_IN_MOST // 2

    def next_due(self, slots=1):
        """When the first call taken in expires, or, with free slots, is due; or None."""
        times = [self.waiting.next_expiry(), self.waiting.next_due() if slots else None]
        return min((time for time in times if time is not None), default=None)

    # the beat of the worker that holds the desk

    def take_in_and_claim(self, boot, now, slots, rotation_period, offers=None):
        """Take in what is new or due and claim the first `slots` calls; → list of Deferreds.

        What has ended where it waited (cancelled, expired) goes to nobody. offers -- names of
        the plugins that whoever claims can run; None: what is put here is for him.
        """
        news = self._take_in(now)
        self._take_out_cancelled(news, rotation_period)
        for deferred in self.waiting.take_expired(now, news, TAKE_IN_MOST):
            self._expire(deferred, now, rotation_period)
        waiting = [*news.items(), *self.waiting.take_due(now, TAKE_IN_MOST)]
        if slots and self.desk.n_aside:
            waiting += self.waiting.take_unblocked()
        return self._claim(waiting, boot, now, slots, rotation_period, offers)

    def _take_in(self, now):
        """Advance the marks over new entries; → {place: Deferred} of those that may run."""
        found = {}
        news = [(number, lane) for number, lane in enumerate(self.lanes)
                if self._has_news(number, lane)]
        for lane_number, lane in news:
            most = max(1, TAKE_IN_MOST // len(news))
            for number, entry in self._new_entries(lane_number, lane, most):
                priority, put_at, not_before, deferred = entry[:4]
                extra = entry[4] if len(entry) > 4 else {}
                place = extra.get(PLACE) or (-priority, put_at, lane_number, number)
                if PLACE in extra:
                    self._leave_ended(deferred.id)
                    if deferred.moved:
                        self._keep_moved(deferred)
                if EXPIRES in extra:
                    self.waiting.note_expiry(extra[EXPIRES], place, deferred)
                if AFTER in extra and deferred.is_held_up():
                    self.waiting.add_parked(place, deferred)
                elif not_before > now:
                    self.waiting.add_later(not_before, place, deferred)
                else:
                    found[place] = deferred
        return found

    def _leave_ended(self, id):
        """A call that had failed runs once more; it may not have been filed."""
        self.failed.pop(id, None)
        if id in self.desk.running:
            self.desk.remove_running(id)

    def _keep_moved(self, deferred):
        """A call that was moved waits; it may have been moved after it had failed."""
        if deferred.moved not in self.intakes:
            self.intakes[deferred.moved] = OOBTree()
        calls = self.intakes[deferred.moved]
        if deferred.id not in calls:
            calls[deferred.id] = deferred

    def _keep_moved_no_more(self, deferred):
        calls = self.intakes.get(deferred.moved)
        if calls is not None and calls.pop(deferred.id, None) is not None and not calls:
            del self.intakes[deferred.moved]

    def _has_news(self, lane_number, lane):
        number, oid = self.desk.mark(lane_number)
        return lanes.highest(lane) != number or (
            number > 0 and oid_at(lane, number) != oid)

    def _new_entries(self, lane_number, lane, most):
        """[(number, entry)] not taken in yet, at most `most`; advances the lane's mark."""
        mark, oid = self.desk.mark(lane_number)
        if mark and oid_at(lane, mark) != oid:
            # The put we marked was undone, and what came since may have its
            # number: look at the whole lane (a few hundred entries at most).
            self._drop_undone(lane_number)
            entries = [(number, entry) for number, entry in lane.items()
                       if self._is_unknown(lane_number, number, entry)]
            last = lanes.highest(lane)
        else:
            entries = []
            for number, entry in lane.items(mark, None, mark > 0):
                entries.append((number, entry))
                if len(entries) == most:
                    break
            last = entries[-1][0] if entries else mark
        self.desk.set_mark(lane_number, last, oid_at(lane, last) if last else None)
        return [item for item in entries if item[1][3] is not None]

    def _is_unknown(self, lane_number, number, entry):
        priority, put_at, _, deferred = entry[:4]
        place = (-priority, put_at, lane_number, number)
        if len(entry) > 4:
            place = entry[4].get(PLACE) or place
        return is_waiting(deferred) and place not in self.waiting

    def _drop_undone(self, lane_number):
        """Forget what was taken in from that lane and whose put was undone since."""
        for place, deferred in list(self.waiting.items()):
            if place[2] == lane_number and not is_waiting(deferred):
                self.waiting.remove(place, deferred)
        for place, deferred in self.waiting.take_not_held_up():
            self.waiting.add_ready(place, deferred)

    def _claim(self, waiting, boot, now, slots, rotation_period, offers):
        """Claim the first `slots` of `waiting` and `ready` together; the rest waits in `ready`."""
        waiting.sort(key=_by_place)
        waits_apart = {place for place, _ in waiting}
        # As many of the ready ones as may be needed; they are looked at in order.
        candidates = merge(waiting, self._ready_items(waits_apart), key=_by_place)
        chosen, seen = [], 0
        for place, deferred in candidates:
            if len(chosen) == slots or seen == slots + TAKE_IN_MOST:
                break
            seen += 1
            if offers is not None and not _is_offered(deferred, offers):
                continue  # it stays where it is
            if place in waits_apart:
                waits_apart.remove(place)
            else:
                self.waiting.remove(place, deferred)
            if not is_waiting(deferred):
                self._file_if_ended(deferred, rotation_period)
            elif deferred.is_expired(now):
                self._expire(deferred, now, rotation_period)
            elif deferred.is_held_up():  # a call it waited for runs once more
                self.waiting.add_parked(place, deferred)
            elif deferred.is_blocked():
                self.waiting.add_blocked(place, deferred)
            else:
                self.waiting.forget_expiry(deferred, place)
                deferred.accept(boot, now)
                self.desk.add_running(deferred.id, deferred)
                chosen.append(deferred)
        for place, deferred in waiting:
            if place in waits_apart:
                self.waiting.add_ready(place, deferred)
        return chosen

    def _ready_items(self, apart):
        """[(place, Deferred)] of `ready` in order, robust against removals on the way."""
        if not self.desk.n_ready:
            return
        place = None
        while True:
            try:
                place = self.waiting.ready.minKey(place)
            except ValueError:  # no more
                return
            yield place, self.waiting.ready[place]
            place = (*place, 0)  # the first possible one after it

    def _take_out_cancelled(self, news, rotation_period):
        """Archive what was cancelled where it waited; `news` is what was just taken in.

        What is in a lane still is left for the beat that takes it in.
        """
        for id, deferred in list(self.cancelled.items()):
            place = place_of(deferred)
            if place in self.waiting:
                self.waiting.remove(place, deferred)
            elif place in news:
                del news[place]
            elif self._is_in_lane(deferred):
                continue
            self._file_if_ended(deferred, rotation_period)
            del self.cancelled[id]

    def _is_in_lane(self, deferred):
        """Whether a call that does not wait anywhere else, and is not filed, was not taken in."""
        if deferred.moved:
            return deferred.id in self.intakes.get(deferred.moved, ())
        lane_number, number = parse_id(deferred.id)[:2]
        return lane_number != DESK_LANE and number > self.desk.mark(lane_number)[0]

    def _expire(self, deferred, now, rotation_period):
        self.waiting.forget_expiry(deferred, place_of(deferred))
        deferred.expire(_expired(deferred), now)
        self._file_or_go_on(deferred, now, rotation_period)

    def _file_or_go_on(self, deferred, now, rotation_period):
        """A call has ended in no thread: archive it, or have its callbacks run."""
        if deferred.ended:
            self.file(deferred, rotation_period)
        else:
            deferred.let_go(now)
            self.waiting.add_ready(place_of(deferred), deferred)

    def _file_if_ended(self, deferred, rotation_period):
        try:
            ended = deferred.ended
        except POSKeyError:  # its put was undone
            return
        if ended:
            self.file(deferred, rotation_period)

    def give_back(self, id, now, outcome, until=0.0, failed=False):
        """Put a running call back among the waiting; it runs again at `until` or at once."""
        deferred = self.desk.remove_running(id)
        deferred.give_back(now, outcome, failed)
        self._add_waiting(deferred, now, until)

    def unclaim(self, id, now):
        """Put a claimed call that no thread has begun back among the waiting."""
        deferred = self.desk.remove_running(id)
        deferred.unclaim()
        self._note_expiry(deferred)
        self._add_waiting(deferred, now, now)

    def _note_expiry(self, deferred):
        if deferred.expires_at is not None and deferred.attempt == 0:
            self.waiting.note_expiry(deferred.expires_at, place_of(deferred), deferred)

    def _add_waiting(self, deferred, now, until):
        place = place_of(deferred)
        if until > now:
            self.waiting.add_later(until, place, deferred)
        else:
            self.waiting.add_ready(place, deferred)

    def fail(self, id, failure, now, rotation_period):
        """End a running call, or its callback, with that Failure, whatever its thread does."""
        deferred = self.desk.remove_running(id)
        deferred.fail(failure, now)
        self._file_or_go_on(deferred, now, rotation_period)

    def recheck_held_up(self, now):
        """Have run what waits for calls that ended elsewhere: some were moved, here or away."""
        if self.desk.n_aside and (self.intakes or self.departed):
            for _, deferred in self.waiting.take_not_held_up():
                self._add_waiting(deferred, now, deferred.not_before)

    def take_off(self, id):
        """Take off the desk a call that failed and is to run once more, before it was filed."""
        deferred = self.desk.remove_running(id)
        if place_of(deferred) not in self.waiting:
            # As if it had been filed in time: the beat meets it in its lane.
            self.failed[id] = deferred

    def archive_ended(self, id, rotation_period):
        """File a call of the desk that has ended."""
        self.file(self.desk.remove_running(id), rotation_period)

    def file(self, deferred, rotation_period):
        """Keep an ended call: one that failed until somebody takes it away, others by slice.

        What waited for its end may run now.
        """
        if deferred.moved:
            self._keep_moved_no_more(deferred)
        if deferred.expires_at is not None:
            self.waiting.forget_expiry(deferred, place_of(deferred))
        if deferred.state == FAILED:
            self.failed[deferred.id] = deferred
        else:
            slices = self.archive if deferred.state == RESOLVED else self.withdrawn
            end = policy.slice_of(deferred.ended_at, rotation_period)
            if end not in slices:
                slices[end] = OOBTree()
            slices[end][deferred.id] = deferred
        if self.desk.n_aside:
            for _, waiter in self.waiting.take_after(deferred.id):
                self._add_waiting(waiter, deferred.ended_at, waiter.not_before)

    def born(self, call, now, names=None, after=()):
        """Take in a call that the worker makes itself, on its desk; → its Deferred.

        names, after -- see put.
        """
        self.desk.n_born += 1
        deferred = Deferred(make_id(DESK_LANE, self.desk.n_born, call.put_at), call, self,
                            names or self.names)
        if self._p_jar is not None:
            self._p_jar.add(deferred)  # a claim in this transaction wants to know its oid
        self._note_expiry(deferred)
        if after:
            deferred.after = tuple(after)
            self.waiting.add_parked(place_of(deferred), deferred)
        else:
            self._add_waiting(deferred, now, call.not_before)
        return deferred

    def let_age(self, deferred, now, rotation_period):
        """Keep a call that failed no longer than others: a newer one of its kind tells more."""
        if self.failed.pop(deferred.id, None) is not None:
            end = policy.slice_of(now, rotation_period)
            if end not in self.archive:
                self.archive[end] = OOBTree()
            self.archive[end][deferred.id] = deferred

    def drop_old(self, now, rotation_period):
        """Drop the oldest slice of the archive if all in it is too old; was one dropped?

        Of what was withdrawn too. Lanes are trimmed by those who put. Where nobody does they
        must not keep what was dropped.
        """
        dropped = False
        for slices in (self.archive, self.withdrawn):
            end = slices.minKey() if slices else None
            if slices and policy.slice_is_over(end, now, rotation_period):
                del slices[end]
                self._trim_lanes(end)
                dropped = True
        return dropped

    def _trim_lanes(self, before):
        """Remove the entries of calls taken in that were put before then."""
        for number, lane in enumerate(self.lanes):
            mark = self.desk.mark(number)[0]
            if mark and lanes.forget(lane, mark, before):
                self.desk.set_mark(number, mark, None)


def make_id(lane_number, number, put_at):
    """An id: lane, number, milliseconds of the put, and 32 random bits.

    The random part keeps an id that an aborted request had handed out from
    naming somebody else's call.
    """
    return f'{lane_number:x}-{number:x}-{round(put_at * 1000):x}-{random.getrandbits(32):08x}'


def parse_id(id):
    """(lane number, number, put_at) of an id; raises ValueError if it is none."""
    lane_number, number, milliseconds, _ = id.split('-')
    return int(lane_number, 16), int(number, 16), int(milliseconds, 16) / 1000


def oid_at(lane, number):
    """The oid of the deferred at that number of the lane, not loaded; None if there is none."""
    entry = lane.get(number)
    return None if entry is None or entry[3] is None else entry[3]._p_oid


def _is_offered(deferred, offers):
    try:
        return deferred.plugin in offers
    except POSKeyError:  # its put was undone
        return True


def place_of(deferred):
    """Where a deferred stands among those that wait: see `waiting`."""
    lane, number, put_at = parse_id(deferred.id)
    if deferred.moved:
        lane, number = MOVED_LANE, u64(deferred._p_oid)
    return (-deferred.priority, put_at, lane, number)


def _expired(deferred):
    late = 'the call had expired before a worker took it'
    return Failure.from_exception(Expired(late))
