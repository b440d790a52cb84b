"""Claiming: from the lanes to the threads of a worker, in the beat of who holds the desk.

Imports: places, lanes, deferred, trees, waiting, policy, errors, failure.
"""

from heapq import merge
from itertools import count
from itertools import islice
from operator import itemgetter

from BTrees.OOBTree import OOBTree
from ZODB.POSException import POSKeyError

from . import lanes
from . import policy
from .deferred import is_there
from .errors import Expired
from .failure import Failure
from .places import AFTER
from .places import DESK_LANE
from .places import EXPIRES
from .places import holds
from .places import NOT_BEFORE
from .places import oid_at
from .places import parse_id
from .places import PLACE
from .places import place_in_lane
from .places import place_of
from .trees import ask_for
from .waiting import is_waiting


#: Most entries taken in by one beat: a backlog of any size must not make a beat
#: so long that the worker looks dead.
TAKE_IN_MOST = 1_000

#: Of the calls that one look of a worker sees that is not at home, those at the front.
FRONT_MOST = TAKE_IN_MOST // 2

#: A call that may be what kills its workers waits so long, in seconds, before it is looked at
#: again, while another such call runs.
ALONE_SECONDS = 1.0

_by_place = itemgetter(0)


def _never(_deferred):
    return False


class Offers:
    """What a worker can run that is not at home, and how far it has looked for that.

    plugins -- names. A look begins at the front, where the most urgent calls are, and goes on
    from `place`; None: from there.
    """

    def __init__(self, plugins):
        self._plugins = plugins
        self.place = None

    def __contains__(self, plugin):
        return plugin in self._plugins

    def note(self, found, end):
        """A look has found calls at those places and ended at that one; None: it has seen all.

        It goes on with what it has found, since somebody else may have been quicker.
        """
        far = next((place for place in found if self._is_far(place)), end)
        if far is None or self._is_far(far):
            self.place = far

    def _is_far(self, place):
        return self.place is None or place >= self.place


class Claiming:
    """The part of a Queue that takes calls in and claims them."""

    #: Id of a call that was cancelled, from which the next beat goes on looking; None: the first.
    _v_cancelled = None

    def take_in_and_claim(self, boot, now, slots, rotation_period, offers=None,
                          max_interruptions=policy.MAX_INTERRUPTIONS, may_reserve=_never,
                          news=None):
        """Take in what is new or due and claim the first `slots` calls; → list of Deferreds.

        What has ended where it waited (cancelled, expired) goes to nobody. offers -- the
        Offers of who claims; None: what is put here is for him. max_interruptions -- see
        policy.has_last_chance. may_reserve -- callable(Deferred) → whether the call is only kept
        for the holder, who commits its claim with its end. news -- as for has_work: what is in
        other lanes waits for the next beat.
        """
        found = self._take_in(self.news() if news is None else news, now, rotation_period)
        self._take_out_cancelled(found, rotation_period)
        for deferred in self.waiting.take_expired(now, found, TAKE_IN_MOST):
            self._expire(deferred, now, rotation_period)
        for _, deferred in self.waiting.take_more_after():
            self._add_waiting(deferred, now, deferred.not_before)
        if self.waiting.further is not None:
            self.have_run_not_held_up(now, anew=False)
        waiting = [*found.items(), *self.waiting.take_due(now, TAKE_IN_MOST)]
        if slots and self.desk.n_aside:
            waiting += self.waiting.take_unblocked()
        return self._claim(waiting, boot, now, slots, rotation_period, offers, max_interruptions,
                           may_reserve)

    def _take_in(self, news, now, rotation_period):
        """Advance the marks over new entries; → {place: Deferred} of those that may run."""
        found = {}
        for lane_number, lane in news:
            most = max(1, TAKE_IN_MOST // len(news))
            entries = self._new_entries(lane_number, lane, most, now, rotation_period)
            ask_for(entry.deferred for _, entry in entries if AFTER in entry.facts)
            for number, entry in entries:
                deferred, facts = entry.deferred, entry.facts
                place = place_in_lane(entry, lane_number, number)
                not_before = facts.get(NOT_BEFORE, 0.0)
                if PLACE in facts:
                    self._leave_ended(deferred.id)
                    if deferred.moved:
                        self._keep_moved(deferred)
                # It was put before, and lanes that are looked at once more have an entry for
                # each time.
                if place in found or (PLACE in facts and place in self.waiting):
                    continue
                if EXPIRES in facts:
                    self.waiting.note_expiry(facts[EXPIRES], place, deferred)
                if AFTER in facts and deferred.is_held_up():
                    self.waiting.add_parked(place, deferred)
                elif not_before > now:
                    self.waiting.add_later(not_before, place, deferred)
                else:
                    found[place] = deferred
        return found

    def _leave_ended(self, id):
        """A call that had failed runs once more; it may not have been filed."""
        self.failed.pop(id, None)
        if id in self.desk.reserved:
            self.desk.remove_reserved(id)
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

    def _new_entries(self, lane_number, lane, most, now, rotation_period):
        """[(number, entry)] not taken in yet, at most `most`; advances the lane's mark."""
        mark, oid = self.marks.get(lane_number)
        if not holds(lane, mark, oid):
            self.drop_undone(now, rotation_period, lane_number)
            entries = list(self.not_taken_in(lane_number))
            last, oid = lanes.last(lane)
        else:
            entries = list(islice(self.not_taken_in(lane_number), most))
            last = entries[-1][0] if entries else mark
            oid = oid_at(lane, last) if last else None
        self.marks.set(lane_number, last, oid)
        return [item for item in entries if item[1].deferred is not None]

    def not_taken_in(self, lane_number, newest_first=False):
        """[(number, Entry)] of a lane; calls are loaded only after an undo."""
        look = lanes.down_to if newest_first else lanes.after
        lane = self.lanes[lane_number]
        mark, oid = self.marks.get(lane_number)
        if holds(lane, mark, oid):
            return look(lane, mark)
        # The put we marked was undone, and what came since may have its number: look at the
        # whole lane.
        return ((number, entry) for number, entry in look(lane, 0)
                if self._is_unknown(lane_number, number, entry))

    def _is_unknown(self, lane_number, number, entry):
        deferred, place = entry.deferred, place_in_lane(entry, lane_number, number)
        return (is_waiting(deferred)
                # It was not moved away, nor back since.
                and deferred.is_in(self) and place[2:] == place_of(deferred)[2:]
                and place not in self.waiting
                and not (deferred.attempt == 0 and deferred.id in self.desk.reserved))

    def drop_undone(self, now, rotation_period, lane_number=None):
        """Forget what was taken in and whose put was undone since; what waits for that may run.

        lane_number -- of the lane that tells of an undo. None: no lane does, as after an undo of
        a put that others came after.
        What was to run once more waits where it did before, whatever lane told of that. If too
        many calls wait to look at all, a claim finds it.
        """
        all_lanes = self.desk.n_taken_in() <= TAKE_IN_MOST
        if not all_lanes and lane_number is None:
            return
        looked_at = [(place, deferred) for place, deferred in self.waiting.items()
                     if all_lanes or place[2] == lane_number]
        undone = []
        for place, deferred in self._loaded_together(iter(looked_at), TAKE_IN_MOST):
            if is_waiting(deferred) or self._is_cancelled(deferred):
                continue
            # With one that had ended others may have gone that waited for it.
            if place in self.waiting:
                self.waiting.remove(place, deferred)
                undone.append(place[1:])
                self._file_if_ended(deferred, rotation_period)
        self.waiting.forget_undone(undone)
        self.have_run_not_held_up(now)

    def _claim(self, waiting, boot, now, slots, rotation_period, offers, max_interruptions,
               may_reserve):
        """Claim the first `slots` of `waiting` and `ready` together; the rest waits in `ready`."""
        waiting.sort(key=_by_place)
        waits_apart = {place for place, _ in waiting}
        # As many of the ready ones as may be needed; they are looked at in order.
        candidates = self._loaded_together(
            merge(waiting, self._ready_items(offers and offers.place), key=_by_place), slots)
        chosen, places, seen, undone = [], [], 0, []
        for place, deferred in candidates:
            if seen == slots + TAKE_IN_MOST:
                break
            seen += 1
            if offers is not None and not _is_offered(deferred, offers):
                continue  # it stays where it is
            if place in waits_apart:
                waits_apart.remove(place)
            else:
                self.waiting.remove(place, deferred)
            if not is_waiting(deferred):
                if not is_there(deferred):
                    undone.append(place[1:])
                self._file_if_ended(deferred, rotation_period)
            elif deferred.is_expired(now):
                self._expire(deferred, now, rotation_period)
            elif deferred.is_held_up():  # a call it waited for runs once more
                self.waiting.add_parked(place, deferred)
            elif deferred.is_blocked():
                self.waiting.add_blocked(place, deferred)
            elif self._must_wait_alone(deferred, boot, max_interruptions):
                self.waiting.add_later(now + ALONE_SECONDS, place, deferred)
            else:
                if may_reserve(deferred):
                    self.desk.add_reserved(deferred.id, deferred)
                else:
                    self.waiting.forget_expiry(deferred, place)
                    deferred.accept(boot, now)
                    self.desk.add_running(deferred.id, deferred)
                chosen.append(deferred)
                places.append(place)
                if len(chosen) == slots:
                    break
        else:
            place = None
        if offers is not None and slots:
            offers.note(places, place)
        for place, deferred in waiting:
            if place in waits_apart:
                self.waiting.add_ready(place, deferred)
        if undone:
            self.waiting.forget_undone(undone)
            self.have_run_not_held_up(now)
        # Their threads will ask for them.
        ask_for(deferred.big_arguments for deferred in chosen
                if deferred.big_arguments is not None)
        return chosen

    def _must_wait_alone(self, deferred, boot, max_interruptions):
        """Whether a call that may be what kills its workers would run beside another such."""
        return _has_last_chance(deferred, max_interruptions) and any(
            each.owner == boot and _has_last_chance(each, max_interruptions)
            for each in self.desk.running.values())

    def _loaded_together(self, items, most):
        """The [(place, Deferred)] given, loaded `most` at a time: one journey to the server."""
        while together := list(islice(items, most)):
            ask_for([deferred for _, deferred in together])
            yield from together

    def _ready_items(self, further=None):
        """[(place, Deferred)] of `ready` in order, robust against removals on the way.

        further -- the place from which it goes on after the first FRONT_MOST.
        """
        if not self.desk.n_ready:
            return
        place = None
        for number in count():
            if number == FRONT_MOST and further is not None:
                place = max(place, further)
            try:
                place = self.waiting.ready.minKey(place)
            except ValueError:  # no more
                return
            yield place, self.waiting.ready[place]
            place = (*place, 0)  # the first possible one after it

    def _take_out_cancelled(self, news, rotation_period):
        """Archive what was cancelled where it waited; `news` is what was just taken in.

        What is in a lane still is left for the beat that takes it in. If there is much, each beat
        looks at a part, and goes on from there.
        """
        some = list(islice(self.cancelled.items(self._v_cancelled), TAKE_IN_MOST))
        self._v_cancelled = some[-1][0] if len(some) == TAKE_IN_MOST else None
        for id, deferred in self._loaded_together(iter(some), TAKE_IN_MOST):
            place = place_of(deferred)
            # There may be another: who keeps a call whose put was rolled back may store it later.
            if place in self.waiting and self.waiting.find(*place[1:]) is deferred:
                self.waiting.remove(place, deferred)
            elif news.get(place) is deferred:
                del news[place]
            elif self._is_in_lane(deferred):
                continue
            self._file_if_ended(deferred, rotation_period)
            # crash point 24: a waiting call was cancelled and is not filed; the next beat files
            # it.
            del self.cancelled[id]

    def _is_cancelled(self, deferred):
        """Whether it was cancelled where it waited, so that the beat takes it out for that."""
        return is_there(deferred) and deferred.id in self.cancelled

    def _is_in_lane(self, deferred):
        """Whether a call that does not wait anywhere else, and is not filed, was not taken in."""
        if deferred.moved:
            return deferred.id in self.intakes.get(deferred.moved, ())
        lane_number, number = parse_id(deferred.id)[:2]
        if lane_number == DESK_LANE or number <= self.marks.get(lane_number)[0]:
            return False
        entry = lanes.get(self.lanes[lane_number], number)
        return entry is not None and entry.deferred is deferred

    def _expire(self, deferred, now, rotation_period):
        self.waiting.forget_expiry(deferred, place_of(deferred))
        # crash point 7: the end of a call that expired is not committed; the next beat ends it.
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
        if is_there(deferred) and deferred.ended:
            self.file(deferred, rotation_period)


def _is_offered(deferred, offers):
    try:
        return deferred.plugin in offers
    except POSKeyError:  # its put was undone
        return True


def _has_last_chance(deferred, max_interruptions):
    return deferred.attempt > 0 and policy.has_last_chance(
        [attempt.outcome for attempt in deferred.attempts], max_interruptions)


def _expired(deferred):
    late = 'the call had expired before a worker took it'
    return Failure.from_exception(Expired(late))
