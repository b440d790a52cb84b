"""Queue: put, take in, claim, archive and find calls, over the persistent parts.

Who writes what (one kind of writer each, so puts meet nobody):

=========================  =====================================================
lanes                      putters (a trim included)
desk, marks, ready, later, the beat of the worker that holds the desk
archive, pulse
card                       that worker, at its start
ping                       whoever pings
=========================  =====================================================

No acquisition and no clock here: every time is an argument, POSIX seconds.

Imports: deferred, lanes, desk, pulse, policy.
"""

import random

from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from ZODB.POSException import POSKeyError

from . import lanes
from . import policy
from .deferred import Deferred
from .desk import Desk
from .interfaces import NEW
from .pulse import Ping
from .pulse import Pulse
from .pulse import WorkerCard


#: Most entries taken in by one beat: a backlog of any size must not make a beat
#: so long that the worker looks dead.
TAKE_IN_MOST = 1_000


class Queue(Persistent):
    """The calls of one manager. Written once, at birth; all that changes is in its parts."""

    __zpublishable__ = False

    #: Its manager is being deleted.
    closed = False

    def __init__(self):
        self.lanes = lanes.make_lanes()
        self.desk = Desk(len(self.lanes))
        # What was taken in and can't run at once. A ready key is (−priority,
        # put_at, lane, number). In `ready` it leads to the Deferred, in `later`
        # (time, lane, number) leads to (ready key, Deferred).
        self.ready = OOBTree()
        self.later = OOBTree()
        # (lane, number) → time in `later`, to find a call there.
        self.later_times = OOBTree()
        # End of the slice → {id: Deferred}; dropped slice by slice.
        self.archive = LOBTree()
        self.pulse = Pulse()
        self.ping = Ping()
        self.card = WorkerCard()

    # putters

    def put(self, call, lane_number):
        """Store `call` in that lane, in the current transaction; return its Deferred."""
        lane = self.lanes[lane_number]
        number = lanes.next_number(lane)
        deferred = Deferred(make_id(lane_number, number, call.put_at), call)
        lane[number] = (call.priority, call.put_at, call.not_before, deferred)
        if number % lanes.TRIM_EVERY == 0:
            lanes.trim(lane, self.desk.mark(lane_number)[0])
        return deferred

    def close(self):
        """Make every put fail that overlaps with this transaction, in either order."""
        if not self.closed:
            self.closed = True
            for lane in self.lanes:
                lanes.close(lane)

    # anybody, reading

    def length_new(self):
        """Calls that wait for a thread or for their time, exact in this snapshot."""
        desk = self.desk
        in_lanes = sum(max(0, lanes.highest(lane) - desk.mark(number)[0])
                       for number, lane in enumerate(self.lanes))
        return in_lanes + desk.n_ready + desk.n_later

    def length_accepted(self):
        """Calls claimed and not ended, exact in this snapshot."""
        return sum(1 for deferred in self.desk.running.values() if not deferred.ended)

    def find(self, id):
        """The Deferred of that id, or None."""
        try:
            lane_number, number, put_at = parse_id(id)
            lane = self.lanes[lane_number]
        except (ValueError, IndexError, OverflowError):
            return None
        try:
            entry = lane.get(number)
        except (TypeError, OverflowError):  # a number no lane can hold
            return None
        places = (lambda: entry and entry[3],
                  lambda: self.desk.running.get(id),
                  lambda: self._find_ready(put_at, lane_number, number),
                  lambda: self._find_later(lane_number, number),
                  lambda: self._find_archived(id))
        for look in places:
            deferred = look()
            if deferred is not None and deferred.id == id:
                return deferred
        return None

    def _find_ready(self, put_at, lane, number):
        """Look once for each priority there is: few, however many calls wait."""
        start = None
        while True:
            try:
                priority = self.ready.minKey(start)[0]
            except ValueError:  # nothing at or after `start`
                return None
            deferred = self.ready.get((priority, put_at, lane, number))
            if deferred is not None:
                return deferred
            start = (priority, float('inf'))

    def _find_later(self, lane, number):
        time = self.later_times.get((lane, number))
        return None if time is None else self.later[(time, lane, number)][1]

    def _find_archived(self, id):
        for end in reversed(self.archive.keys()):
            deferred = self.archive[end].get(id)
            if deferred is not None:
                return deferred
        return None

    def has_work(self, now, slots):
        """Whether a beat with that many free slots has anything to take in or to claim.

        Without a free slot new entries wait in their lanes until there are so many
        that the lanes want trimming.
        """
        if slots:
            due = self.next_due()
            return (self.desk.n_ready > 0 or (due is not None and due <= now)
                    or any(self._has_news(number, lane)
                           for number, lane in enumerate(self.lanes)))
        return self.length_new() - self.desk.n_ready - self.desk.n_later >= TAKE_IN_MOST // 2

    def next_due(self):
        """When the first call that waits for its time is due, or None."""
        return self.later.minKey()[0] if self.desk.n_later else None

    # the beat of the worker that holds the desk

    def take_in_and_claim(self, boot, now, slots):
        """Take in what is new or due and claim the first `slots` calls; → list of Deferreds.

        What is ended already (cancelled where it waited) goes to nobody.
        """
        waiting = self._take_in(now) + self._take_due(now)
        chosen = []
        for deferred in self._first(waiting, slots):
            if is_new(deferred):
                deferred.accept(boot, now)
                self.desk.add_running(deferred.id, deferred)
                chosen.append(deferred)
        return chosen

    def _take_in(self, now):
        """Advance the marks over new entries; → [(ready key, Deferred)] of those not delayed."""
        found = []
        news = [(number, lane) for number, lane in enumerate(self.lanes)
                if self._has_news(number, lane)]
        for lane_number, lane in news:
            most = max(1, TAKE_IN_MOST // len(news))
            for number, entry in self._new_entries(lane_number, lane, most):
                priority, put_at, not_before, deferred = entry
                key = (-priority, put_at, lane_number, number)
                if not_before > now:
                    self._add_later(not_before, key, deferred)
                else:
                    found.append((key, deferred))
        return found

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
        priority, put_at, _, deferred = entry
        return (is_new(deferred)
                and (-priority, put_at, lane_number, number) not in self.ready
                and (lane_number, number) not in self.later_times)

    def _drop_undone(self, lane_number):
        """Forget what was taken in from that lane and whose put was undone since."""
        for key, deferred in list(self.ready.items()):
            if key[2] == lane_number and not is_new(deferred):
                del self.ready[key]
                self.desk.n_ready -= 1
        for key, (_, deferred) in list(self.later.items()):
            if key[1] == lane_number and not is_new(deferred):
                del self.later[key]
                del self.later_times[key[1:]]
                self.desk.n_later -= 1

    def _take_due(self, now):
        """Take out of `later` what is due; → [(ready key, Deferred)]."""
        found = []
        while self.desk.n_later and len(found) < TAKE_IN_MOST:
            key = self.later.minKey()
            if key[0] > now:
                break
            found.append(self.later.pop(key))
            del self.later_times[key[1:]]
            self.desk.n_later -= 1
        return found

    def _first(self, waiting, slots):
        """The first `slots` of `waiting` and `ready` together; the rest is kept in `ready`."""
        waiting.sort(key=lambda item: item[0])
        if not self.desk.n_ready:
            first, rest = waiting[:slots], waiting[slots:]
        else:
            kept = []
            for key, deferred in self.ready.items():
                if len(kept) == slots:
                    break
                kept.append((key, deferred))
            both = sorted(kept + waiting, key=lambda item: item[0])
            first = both[:slots]
            chosen = {key for key, _ in first}
            for key, _ in kept:
                if key in chosen:
                    del self.ready[key]
                    self.desk.n_ready -= 1
            rest = [item for item in waiting if item[0] not in chosen]
        for key, deferred in rest:
            self._add_ready(key, deferred)
        return [deferred for _, deferred in first]

    def _add_later(self, time, key, deferred):
        place = key[2:]
        self.later[(time, *place)] = (key, deferred)
        self.later_times[place] = time
        self.desk.n_later += 1

    def _add_ready(self, key, deferred):
        self.ready[key] = deferred
        self.desk.n_ready += 1

    def give_back(self, id, now, outcome, until=0.0):
        """Put a running call back among the waiting; it runs again at `until` or at once."""
        deferred = self.desk.remove_running(id)
        deferred.give_back(now, outcome)
        self._add_waiting(deferred, now, until)

    def unclaim(self, id, now):
        """Put a claimed call that no thread has begun back among the waiting."""
        deferred = self.desk.remove_running(id)
        deferred.unclaim()
        self._add_waiting(deferred, now, now)

    def _add_waiting(self, deferred, now, until):
        key = ready_key(deferred)
        if until > now:
            self._add_later(until, key, deferred)
        else:
            self._add_ready(key, deferred)

    def archive_ended(self, id, ended_at, rotation_period):
        """File a call that ended under the slice of its end."""
        end = policy.slice_of(ended_at, rotation_period)
        if end not in self.archive:
            self.archive[end] = OOBTree()
        self.archive[end][id] = self.desk.remove_running(id)

    def drop_old(self, now, rotation_period):
        """Drop the oldest slice of the archive if all in it is too old; was one dropped?"""
        if not self.archive:
            return False
        end = self.archive.minKey()
        if not policy.slice_is_over(end, now, rotation_period):
            return False
        del self.archive[end]
        return True


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


def is_new(deferred):
    """Whether a call taken in is still to be run.

    One that was cancelled, or whose put was undone in the ZMI since, is not.
    """
    try:
        return deferred is not None and deferred.state == NEW
    except POSKeyError:
        return False


def ready_key(deferred):
    """Where a deferred stands in `ready`."""
    lane, number, put_at = parse_id(deferred.id)
    return (-deferred.priority, put_at, lane, number)
