"""Waiting: the calls a worker has taken in and can't run at once. One writer, its beat.

A call waits in one of four trees:

=========  =============================================  ===========================
ready      for a thread                                   place → Deferred
later      for its time                                   (time, lane, number) → (place, Deferred)
blocked    for its series, in which another call runs     (series, *place) → Deferred
parked     for the ends of other calls                    place → Deferred
=========  =============================================  ===========================

A *place* is (−priority, put_at, lane, number): in this order calls are run. Where a
call waits is noted by (lane, number), but for `ready`, through which most calls pass.

Imports: deferred, trees.
"""

from itertools import islice

from persistent import Persistent
from ZODB.POSException import POSKeyError

from .deferred import has_ended
from .deferred import is_there
from .trees import ask_for
from .trees import NarrowTree


#: Places that are noted of an awaited call in one tuple, which is written whole; more are in a
#: tree of their own.
TUPLE_MOST = 16

#: Calls that are looked at in one beat of those that wait for one that has ended, or for any:
#: however many there are, the worker must not look dead.
AFTER_MOST = 1_000


class Waiting(Persistent):
    """See the module. Its counts are on the desk, which the beat writes anyway."""

    __zpublishable__ = False

    #: Whether what is parked waits for calls of other queues, so that nobody will tell it of
    #: their ends.
    parted = False

    #: Calls that have ended, with more that wait for them than one beat looks at.
    ended = ()

    #: From which place on calls that wait for others are to be looked at, whether they need to;
    #: None: nobody is at it. And whether all are to be looked at once more after that.
    further = None
    once_more = False

    def __init__(self, desk):
        self._desk = desk
        self.ready = NarrowTree()
        self.later = NarrowTree()
        self.blocked = NarrowTree()
        self.parked = NarrowTree()
        # (lane, number) → ('later', time), ('blocked', series) or ('parked', None)
        self._where = NarrowTree()
        # id of a call whose end is awaited → places in `parked`: a tuple, or a tree with them as
        # keys. Who waits for several calls waits for the last that has not ended, since they
        # mostly end in order; if a failure is enough, for all.
        self._awaited = NarrowTree()
        # (time, lane, number) → (place, Deferred), of the calls that expire
        self._expiring = NarrowTree()

    # putting in

    def add_ready(self, place, deferred):
        """It waits for a thread."""
        self.ready[place] = deferred
        self._desk.n_ready += 1

    def add_later(self, time, place, deferred):
        """It waits until `time`, POSIX seconds."""
        self.later[(time, *place[2:])] = (place, deferred)
        self._where[place[2:]] = 'later', time
        self._desk.n_later += 1

    def add_blocked(self, place, deferred):
        """It waits until no other call of its series runs."""
        self.blocked[(deferred.series, *place)] = deferred
        self._where[place[2:]] = 'blocked', deferred.series
        self._desk.n_aside += 1

    def add_parked(self, place, deferred):
        """It waits for the ends of the calls it is `after`."""
        self.parked[place] = deferred
        self._where[place[2:]] = 'parked', None
        self._desk.n_aside += 1
        self._await(place, deferred)

    def note_expiry(self, expires_at, place, deferred):
        """Look at it when its time is over, if it still waits then."""
        self._expiring[(expires_at, *place[2:])] = place, deferred

    def forget_expiry(self, deferred, place):
        """It waits no more, or has expired."""
        if deferred.expires_at is not None:
            self._expiring.pop((deferred.expires_at, *place[2:]), None)

    def forget_undone(self, places):
        """Their puts were undone: when they would have expired can't be read any more.

        places -- without their priorities, which can't either.
        """
        places = set(places)
        if not places:
            return
        for key, (place, _) in list(self._expiring.items()):
            if place[1:] in places:
                del self._expiring[key]

    # taking out

    def take_due(self, now, most):
        """Take out of `later` what is due, at most so many; → [(place, Deferred)]."""
        found = []
        while self._desk.n_later and len(found) < most:
            key = self.later.minKey()
            if key[0] > now:
                break
            found.append(self.later.pop(key))
            del self._where[key[1:]]
            self._desk.n_later -= 1
        return found

    def take_unblocked(self):
        """Take out the first call of each series in which none runs; → [(place, Deferred)]."""
        found, held_up = [], []
        for key, first in self._first_of_series():
            if not has_ended(first) and first.is_blocked():
                continue
            for place, deferred in self._of_series(key[0]):
                if has_ended(deferred) or not deferred.is_held_up():
                    found.append((place, deferred))
                    break
                # A call it waited for runs once more: the next one's turn.
                held_up.append((place, deferred))
        for place, deferred in found + held_up:
            self.remove(place, deferred)
        for place, deferred in held_up:
            self.add_parked(place, deferred)
        return found

    def take_after(self, ended):
        """Take out what needs to wait no longer now that the call `ended` has.

        → [(place, Deferred)]. If more wait for it than one beat looks at, those are left to
        `take_more_after`.
        """
        found, any_undone = [], False
        for place, deferred in self._some_after(ended):
            if deferred is None:
                continue
            if not is_there(deferred):
                any_undone = True
            elif deferred.is_held_up(ended):
                if not deferred.hurried:  # else it is noted for all
                    self._await(place, deferred)
            elif not deferred.ended:  # else it will be taken out for that
                self.remove(place, deferred)
                found.append((place, deferred))
        return found + self.take_not_held_up(anew=True) if any_undone else found

    def take_more_after(self):
        """The same for a call of which not all were looked at that wait for it."""
        if not self.ended:
            return []
        if is_there(self.ended[0]) and self.ended[0].ended:
            return self.take_after(self.ended[0])
        undone, self.ended = not is_there(self.ended[0]), self.ended[1:]
        # Else it runs once more, and all wait for that.
        return self.take_not_held_up(anew=True) if undone else []

    def _some_after(self, ended):
        """[(place, Deferred or None)] of those that wait for a call; these are noted no more."""
        places = self._awaited.pop(ended.id, ())
        some = list(islice(places, AFTER_MOST + 1))
        if ended in self.ended:
            self.ended = tuple(each for each in self.ended if each is not ended)
        if len(some) > AFTER_MOST:
            some.pop()
            left = self._awaited[ended.id] = _in_tree(places)
            for place in some:
                del left[place]
            self.ended = (*self.ended, ended)
        found = [(place, self.parked.get(place)) for place in some]
        ask_for(deferred for _, deferred in found if deferred is not None)
        return found

    def take_not_held_up(self, anew=False):
        """Take out what waits for calls of which none is left: undone, or ended elsewhere.

        → [(place, Deferred)], without what was undone itself. If more wait than one beat looks
        at, `further` tells it to be called again. anew -- a put was found to be undone: what was
        looked at before may have waited for that.
        """
        begins = self.further is None
        if anew and not begins:
            self.once_more = True
            return []
        some = list(islice(self.parked.items(self.further), AFTER_MOST + 1))
        further = some.pop()[0] if len(some) > AFTER_MOST else None
        ask_for(deferred for _, deferred in some)
        undone = [(place, deferred) for place, deferred in some if not is_there(deferred)]
        for place, deferred in undone:
            self.remove(place, deferred)
        self.forget_undone(place[1:] for place, _ in undone)
        if undone and not begins:
            self.once_more = True
        left = [(place, deferred) for place, deferred in some if not has_ended(deferred)]
        found = [(place, deferred) for place, deferred in left if not deferred.is_held_up()]
        if self.parted == begins:  # else nobody has said so; or it was found, or said, meanwhile
            parted = not all(each.is_beside(deferred) for _, deferred in left
                             for each in _awaited(deferred))
            if parted != self.parted:
                self.parted = parted
        for place, deferred in found:
            self.remove(place, deferred)
        if further is None and self.once_more:
            further, self.once_more = (), False  # before all places
        if further != self.further:
            self.further = further
        return found

    def take_expired(self, now, news, most):
        """Take out what has expired, here or of `news`, {place: Deferred}; → list of Deferreds.

        Looks at so many at most.
        """
        found = []
        for _ in range(most):
            if not self._expiring or self._expiring.minKey()[0] > now:
                break
            place, deferred = self._expiring.pop(self._expiring.minKey())
            if not is_waiting(deferred) or not deferred.is_expired(now):
                continue
            if place in self:
                self.remove(place, deferred)
                found.append(deferred)
            elif news.pop(place, None) is not None:
                found.append(deferred)
        return found

    def remove(self, place, deferred):
        """Take one call out, wherever it waits."""
        where = self._where.pop(place[2:], None)
        if where is None:
            del self.ready[place]
            self._desk.n_ready -= 1
        elif where[0] == 'later':
            del self.later[(where[1], *place[2:])]
            self._desk.n_later -= 1
        else:
            if where[0] == 'blocked':
                del self.blocked[(where[1], *place)]
            else:
                del self.parked[place]
                self._await_no_more(place, deferred)
            self._desk.n_aside -= 1

    # looking

    def find(self, put_at, lane, number):
        """The Deferred of that lane and number, or None."""
        where = self._where.get((lane, number))
        if where is None:
            return self._find_ready(put_at, lane, number)[1]
        if where[0] == 'later':
            return self.later[(where[1], lane, number)][1]
        if where[0] == 'blocked':
            return self._find_by_priority(self.blocked, (where[1],), put_at, lane, number)[1]
        return self._find_by_priority(self.parked, (), put_at, lane, number)[1]

    def __contains__(self, place):
        return place[2:] in self._where or place in self.ready

    def next_due(self):
        """When the first call that waits for its time is due, or None."""
        return self.later.minKey()[0] if self._desk.n_later else None

    def next_expiry(self):
        """When the first call expires, or None."""
        return self._expiring.minKey()[0] if self._expiring else None

    def later_of_lane(self, lane):
        """[((put_at, (lane, number)), Deferred)] of `later`, the highest number first.

        They are loaded as far as it is asked, and where others wait whose numbers lie between.
        """
        number = float('inf')
        while True:
            try:
                key = self._where.maxKey((lane, number))
            except ValueError:  # nothing so low
                return
            if key[0] != lane:
                return
            kind, time = self._where[key]
            if kind == 'later':
                place, deferred = self.later[(time, *key)]
                yield (place[1], place[2:]), deferred
            number = key[1] - 1

    def any_unblocked(self):
        """Whether a series that calls wait for is free."""
        return any(has_ended(first) or not first.is_blocked()
                   for _, first in self._first_of_series())

    def is_awaited(self, id):
        """Whether calls wait for the end of the call `id`."""
        return id in self._awaited

    def items(self):
        """All [(place, Deferred)], in no order that matters."""
        yield from self.ready.items()
        yield from self.later.values()
        for key, deferred in self.blocked.items():
            yield key[1:], deferred
        yield from self.parked.items()

    def _await(self, place, deferred):
        """Note whose ends it waits for."""
        for awaited in _awaited(deferred):
            places = self._awaited.get(awaited.id, ())
            if place not in places:
                if len(some := list(islice(places, TUPLE_MOST))) < TUPLE_MOST:
                    self._awaited[awaited.id] = (*some, place)
                else:
                    places = self._awaited[awaited.id] = _in_tree(places)
                    places[place] = None
            if not (self.parted or awaited.is_beside(deferred)):
                self.parted = True

    def _await_no_more(self, place, deferred):
        try:
            for awaited in deferred.after:
                places = self._awaited.get(awaited.id, ())
                if place in places:
                    if isinstance(places, tuple):
                        places = self._awaited[awaited.id] = tuple(
                            each for each in places if each != place)
                    else:
                        del places[place]
                    if not places:
                        del self._awaited[awaited.id]
        except POSKeyError:  # a put was undone; what is left here does no harm
            return

    def _first_of_series(self):
        key = None
        while True:
            try:
                key = self.blocked.minKey(key)
            except ValueError:  # no more
                return
            yield key, self.blocked[key]
            key = (key[0], float('inf'))

    def _of_series(self, series):
        for key, deferred in self.blocked.items((series,), (series, float('inf'))):
            yield key[1:], deferred

    def _find_ready(self, put_at, lane, number):
        return self._find_by_priority(self.ready, (), put_at, lane, number)

    def _find_by_priority(self, tree, prefix, put_at, lane, number):
        """Look once for each priority there is: few, however many calls wait."""
        start = prefix or None
        while True:
            try:
                key = tree.minKey(start)
            except ValueError:  # nothing at or after `start`
                return None, None
            if key[:len(prefix)] != prefix:
                return None, None
            priority = key[len(prefix)]
            wanted = (*prefix, priority, put_at, lane, number)
            if wanted in tree:
                return wanted, tree[wanted]
            start = (*prefix, priority, float('inf'))


def _in_tree(places):
    """The places of a tuple as the keys of a tree; a tree as it is."""
    return NarrowTree(dict.fromkeys(places)) if isinstance(places, tuple) else places


def _awaited(deferred):
    """The last call it waits for that has not ended; if a failure is enough, all of them."""
    awaited = (each for each in reversed(deferred.after) if not has_ended(each))
    return awaited if deferred.hurried else islice(awaited, 1)


def is_waiting(deferred):
    """Whether a call taken in is still to be run.

    One that was cancelled, or whose put was undone in the ZMI since, is not.
    """
    try:
        return deferred is not None and deferred.is_waiting()
    except POSKeyError:
        return False
