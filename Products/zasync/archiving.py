"""Archiving: what becomes of calls after their runs, in the beat of who holds the desk.

Imports: places, lanes, deferred, trees, policy, interfaces.
"""

from itertools import islice

from . import lanes
from . import policy
from .deferred import Deferred
from .deferred import is_there
from .interfaces import FAILED
from .interfaces import RESOLVED
from .places import DESK_LANE
from .places import filing_key
from .places import holds
from .places import make_id
from .places import parse_id
from .places import place_of
from .trees import ask_for
from .trees import NarrowTree


#: Most calls that have gone which one beat looks at, whether they are to be forgotten.
DEPARTED_MOST = 100


class Archiving:
    """The part of a Queue that puts calls back, files what has ended, and makes calls itself."""

    #: Lanes by which nobody puts have more entries that were put before then; None: none has.
    _v_trim_before = None

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

    def unreserve(self, id, now):
        """Put a call kept for the holder back among the waiting: no thread had begun it."""
        self._add_waiting(self.desk.remove_reserved(id), now, now)

    def claim_reserved(self, id, boot, now):
        """What is kept for the holder becomes a call like any other that it has claimed.

        boot -- of the holder that kept it. Of one that has ended only the place changes.
        """
        deferred = self.desk.remove_reserved(id)
        if not is_there(deferred):  # its put was undone
            lane_number, number, put_at = parse_id(id)
            self.waiting.forget_undone([(put_at, lane_number, number)])
            self.have_run_not_held_up(now)
            return
        if deferred.is_waiting() and deferred.attempt == 0:
            deferred.accept(boot, now)
        elif deferred.attempt == 0:
            # It was cancelled: of what runs `cancelled` has nothing, and it may be that no beat
            # looks there for long.
            self.cancelled.pop(id, None)
        self.desk.add_running(id, deferred)

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
        if self.desk.n_aside and (self.intakes or self.waiting.parted):
            self.have_run_not_held_up(now, anew=False)

    def have_run_not_held_up(self, now, anew=True):
        """Have run what waits for calls that nobody will tell of: none of them is left.

        anew -- see Waiting.take_not_held_up.
        """
        for _, deferred in self.waiting.take_not_held_up(anew):
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
            _into_slice(slices, deferred, policy.slice_of(deferred.ended_at, rotation_period))
        if self.desk.n_aside:
            for _, waiter in self.waiting.take_after(deferred):
                self._add_waiting(waiter, deferred.ended_at, waiter.not_before)

    def unfile(self, deferred):
        """Take out a call that was filed: it goes on."""
        self.failed.pop(deferred.id, None)
        for slices in (self.archive, self.withdrawn):
            for calls in slices.values():
                calls.pop(filing_key(deferred.id), None)

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
        if deferred.state == FAILED:  # it may not have been filed
            if deferred.id in self.desk.reserved:
                self.claim_reserved(deferred.id, self.desk.boot, now)
            if deferred.id in self.desk.running:
                self.archive_ended(deferred.id, rotation_period)
        if self.failed.pop(deferred.id, None) is not None:
            _into_slice(self.archive, deferred, policy.slice_of(now, rotation_period))

    def drop_old(self, now, rotation_period):
        """Drop the oldest slice of the archive if all in it is too old; was one dropped?

        Of what was withdrawn too. Lanes are trimmed by those who put. Where nobody does they
        must not keep what was dropped.
        """
        self._forget_departed(now, rotation_period)
        if self._v_trim_before is not None:
            self._trim_lanes(self._v_trim_before, only_idle=True)
        dropped = False
        for slices in (self.archive, self.withdrawn):
            end = slices.minKey() if slices else None
            if slices and policy.slice_is_over(end, now, rotation_period):
                del slices[end]
                # crash point 25: old results are not dropped; the next beat drops them.
                self._trim_lanes(end)
                dropped = True
        return dropped

    def note_departed(self, deferred, now, rotation_period):
        """A call has gone to another queue, or has not ended there."""
        _into_slice(self.departed, deferred, policy.slice_of(now, rotation_period))

    def _forget_departed(self, now, rotation_period):
        """Look at the oldest that have gone, and keep those that have not ended long ago."""
        end = self.departed.minKey() if self.departed else None
        if end is None or not policy.slice_is_over(end, now, rotation_period):
            return
        calls = self.departed[end]
        some = list(islice(calls.items(), DEPARTED_MOST))
        ask_for([deferred for _, deferred in some])
        for key, deferred in some:
            del calls[key]
            if is_there(deferred):
                seen_at = deferred.ended_at if deferred.ended else now
                if seen_at + rotation_period > now:
                    self.note_departed(deferred, seen_at, rotation_period)
        if not calls:
            del self.departed[end]

    def _trim_lanes(self, before, only_idle=False):
        """Remove entries of calls taken in that were put before then, of each lane a part.

        What is left of those by which nobody puts is for the next beats.
        """
        self._v_trim_before = None
        for number, lane in enumerate(self.lanes):
            mark, oid = self.marks.get(number)
            # If it does not hold, what was put since may lie below it; the next look finds that.
            if not mark or not holds(lane, mark, oid) or (
                    only_idle and not lanes.is_idle(lane, mark, before)):
                continue
            if lanes.forget(lane, mark, before):
                self.marks.set(number, mark, None)
            elif lanes.is_idle(lane, mark, before):
                self._v_trim_before = before


def _into_slice(slices, deferred, end):
    """Keep it in the slice with that end."""
    if end not in slices:
        slices[end] = NarrowTree()
    slices[end][filing_key(deferred.id)] = deferred
