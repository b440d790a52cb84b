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
departed                   whoever moves calls away; the beat takes out what has ended
intakes                    whoever moves calls here; from one the beat takes out what ends
names                      puts with a key; claims and ends of calls of a series
=========================  =====================================================

No acquisition and no clock here: every time is an argument, POSIX seconds.

Imports: claiming, archiving, places, deferred, lanes, desk, waiting, pulse, board, names,
trees.
"""

from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from ZODB.POSException import POSKeyError

from . import lanes
from .archiving import Archiving
from .board import Board
from .claiming import Claiming
from .claiming import TAKE_IN_MOST
from .deferred import Deferred
from .deferred import has_ended
from .desk import Desk
from .desk import Marks
from .names import Names
from .places import AFTER
from .places import DESK_LANE
from .places import EXPIRES
from .places import filing_key
from .places import holds
from .places import make_id
from .places import NOT_BEFORE
from .places import parse_id
from .places import PLACE
from .places import place_of
from .places import PRIORITY
from .pulse import Ping
from .pulse import Pulse
from .pulse import WorkerCard
from .trees import ask_for_leaves
from .waiting import Waiting


class Queue(Claiming, Archiving, Persistent):
    """The calls of one manager. Written once, at birth; all that changes is in its parts."""

    __zpublishable__ = False

    #: Its manager is being deleted.
    closed = False

    def __getnewargs__(self):
        """None; that there are some makes each call's reference to us 8 bytes, without a class."""
        return ()

    def __init__(self):
        self.lanes = lanes.make_lanes()
        self.marks = Marks(len(self.lanes))
        self.desk = Desk()
        self.waiting = Waiting(self.desk)
        # End of the slice → {filing key: Deferred}; dropped slice by slice. What was resolved, and
        # what was cancelled or has expired: a list of the few need not load the many.
        self.archive = LOBTree()
        self.withdrawn = LOBTree()
        # id → Deferred of what failed for good; kept until somebody takes it away.
        self.failed = OOBTree()
        self.cancelled = OOBTree()
        # Number → {id: Deferred} of calls that came from another queue in one transaction and
        # have not ended. Whoever brings more does not meet the beat.
        self.intakes = LOBTree()
        # As the archive, of calls that went to another queue: who knows ours is told of them.
        self.departed = LOBTree()
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
        if self._p_jar is not None:  # who keeps it may be in another database
            self._p_jar.add(deferred)
        facts = {}
        if call.priority:
            facts[PRIORITY] = call.priority
        if call.expires_at is not None:
            facts[EXPIRES] = call.expires_at
        if after:
            deferred.after = tuple(after)
            facts[AFTER] = True
        self._enter(lane_number, number, call.not_before, deferred, facts)
        return deferred

    def put_again(self, deferred, lane_number, names=None):
        """Have a call that failed for good run once more, in the current transaction.

        names -- the Names that have its series by now; None for those it had.
        """
        deferred.again(names)
        self._enter(lane_number, lanes.next_number(self.lanes[lane_number]), 0.0, deferred,
                    {PLACE: place_of(deferred)})

    def new_intake(self):
        """The number of an intake for the calls that the current transaction brings."""
        return self.intakes.maxKey() + 1 if self.intakes else 1

    def receive(self, deferred, intake, lane_number, not_before=0.0, held_up=False):
        """Take over a call that waits, from another queue, in the current transaction.

        intake -- see new_intake. not_before -- POSIX seconds before which it is not to run.
        held_up -- it waits for the ends of others.
        """
        self._take_over(deferred, intake)
        facts = {PLACE: place_of(deferred)}
        if deferred.expires_at is not None and deferred.attempt == 0:
            facts[EXPIRES] = deferred.expires_at
        if held_up:
            facts[AFTER] = True
        self._enter(lane_number, lanes.next_number(self.lanes[lane_number]), not_before, deferred,
                    facts)

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
        self._keep_moved(deferred)

    def _enter(self, lane_number, number, not_before, deferred, facts):
        if not_before:
            facts[NOT_BEFORE] = not_before
        lane = self.lanes[lane_number]
        if lanes.store(lane, number, lanes.Entry(deferred.put_at, deferred, facts)):
            mark, oid = self.marks.get(lane_number)
            if holds(lane, mark, oid):  # else what was put since may lie below it
                lanes.trim(lane, mark)

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
        return self.length_in_lanes(enumerate(self.lanes)) + self.desk.n_taken_in()

    def length_in_lanes(self, news):
        """How many of those were not taken in; less what was cancelled and is not taken out yet.

        news -- what `news` returned in this transaction: there are none in other lanes.
        """
        in_lanes = sum(max(0, lanes.highest(lane) - self.marks.get(number)[0])
                       for number, lane in news)
        return in_lanes - self._n_withdrawn()

    def _n_withdrawn(self):
        """How many of those were cancelled and are not taken out yet."""
        return len(self.cancelled) - sum(id in self.cancelled for id in self.desk.reserved)

    def length_accepted(self):
        """Calls claimed, or kept for a worker, and not ended; exact in this snapshot."""
        return (sum(1 for deferred in self.desk.running.values() if deferred.owner is not None)
                + sum(1 for deferred in self.desk.reserved.values() if not has_ended(deferred)))

    def length_failed(self):
        """Calls that failed for good, exact in this snapshot."""
        ask_for_leaves(self.failed)
        return len(self.failed)

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
        mark, oid = self.marks.get(lane_number)
        if number <= mark and holds(lane, mark, oid):
            return None
        entry = lanes.get(lane, number)
        return entry and entry.deferred

    def _find_running(self, id):
        return self.desk.running.get(id) or self.desk.reserved.get(id)

    def _find_waiting(self, id):
        lane_number, number, put_at = parse_id(id)
        return self.waiting.find(put_at, lane_number, number)

    def _find_moved(self, id):
        for calls in self.intakes.values():
            if id in calls:
                return calls[id]
        return _find_in_slices(id, self.departed)

    def _find_failed(self, id):
        return self.failed.get(id)

    def _find_archived(self, id):
        return _find_in_slices(id, self.archive, self.withdrawn)

    def news(self):
        """[(number, lane)] of the lanes with entries that were not taken in.

        To look loads what was put last in each lane in which anything was.
        """
        return [(number, lane) for number, lane in enumerate(self.lanes)
                if lanes.last(lane) != self.marks.get(number)]

    def has_work(self, now, slots, ready=True, news=None):
        """Whether a beat with that many free slots has anything to take in or to claim.

        ready -- whether calls count that only wait for a thread. news -- what `news` returned in
        this transaction, or () for what does not look at that; None: look.
        Without a free slot new entries wait in their lanes until there are so many
        that the lanes want trimming.
        """
        if self.cancelled or self.waiting.ended or self.waiting.further is not None:
            return True
        due = self.next_due(slots)
        if due is not None and due <= now:
            return True
        if slots and ready and self.desk.n_ready > 0:
            return True
        news = self.news() if news is None else news
        if slots:
            return bool(news) or (self.desk.n_aside > 0 and self.waiting.any_unblocked())
        return self.length_in_lanes(news) >= TAKE_IN_MOST // 2

    def next_due(self, slots=1):
        """When the first call taken in expires, or, with free slots, is due; or None."""
        times = [self.waiting.next_expiry(), self.waiting.next_due() if slots else None]
        return min((time for time in times if time is not None), default=None)


def _find_in_slices(id, *kinds):
    key = filing_key(id)
    for slices in kinds:
        for end in reversed(slices.keys()):
            deferred = slices[end].get(key)
            if deferred is not None:
                return deferred
    return None
