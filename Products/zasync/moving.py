"""Moving: the calls of one manager go to others, a part in each transaction.

It plays the beat's part at the manager that is left and the putter's at the others, so
whoever puts, claims, cancels or retries at the same time meets it at a lane, at the desk or
at the call, and one of the two is repeated. Calls stay the same objects: a Deferred that
somebody holds stays true, and its id finds it at the new manager.

A call that waits for the ends of others is woken by the queue they end in. So all that are
connected by such waits go to one place: the one to which some of them have gone already,
else the one with the least to do. A call goes after those it waits for, and nothing goes
before all that was put is taken in: what is connected must be known. What is parted all the
same, since a call that had ended is run again, is found by Queue.recheck_held_up. What a periodic
call has made goes where that one has gone: only there a newer one lets it age.

Kept results stay where they are.

Imports: putting, queue, deferred, periodic, interfaces.
"""

from itertools import islice
from typing import Any
from typing import NamedTuple

from ZODB.POSException import POSKeyError

from . import putting
from .deferred import is_there
from .interfaces import FAILED
from .periodic import ID_MOST
from .waiting import is_waiting


#: Calls that one transaction moves.
MOST = 1_000


class Target(NamedTuple):
    """A manager that calls may go to; lives -- its worker does. paused -- nobody runs its calls.
    """

    id: str
    queue: Any
    periodic: Any
    lives: bool = True
    paused: bool = False


def left(queue):
    """How many calls of the queue have not moved: those that have not ended, and the failed ones.

    Exact in this snapshot once all is taken in.
    """
    return queue.length_new() + queue.length_accepted() + queue.length_failed()


def move_some(queue, targets, names, now, rotation_period, served=True, most=None):
    """Move calls of `queue` to the targets, in the current transaction; → how many.

    names -- the Names they all share. served -- a worker runs the calls that are claimed:
    as long as there are some nothing is moved. Else these are moved as well.
    most -- how many at most, MOST if it is None.
    0 does not mean that nothing is left: what was put first has to be taken in. See `left`.
    """
    # With no slots it claims nothing.
    queue.take_in_and_claim(None, now, 0, rotation_period)
    _clear_desk(queue, rotation_period)
    if queue.news() or (served and queue.length_accepted()):
        return 0
    for id in list(queue.desk.reserved):
        queue.claim_reserved(id, queue.desk.boot or 'nobody', now)
    move = _Move(queue, targets, names, now, rotation_period, MOST if most is None else most)
    move.running()
    move.waiting()
    move.held_up()
    move.failed()
    # crash point 39: this part has not moved; all is as before it.
    return move.count


def move_periodic(periodic, targets):
    """Move periodic calls, a mapping as each target has one; → how many.

    Where the id of one is taken it gets another one, which begins as it did.
    """
    spread = _Spread(targets)
    moved = list(periodic.items())
    for id, each in moved:
        target = spread.choose(_plugins_of(each.call))
        del periodic[id]
        each.id = _free_id(id, target.periodic)
        target.periodic[each.id] = each
    return len(moved)


def _plugins_of(call):
    """The plugins of a Call and of those it is made of."""
    return {call.plugin}.union(*map(_plugins_of, call.members))


def _free_id(id, mapping):
    number = 1
    free = id
    while free in mapping:
        number += 1
        end = f'-{number}'
        free = id[:ID_MOST - len(end)] + end
    return free


def _clear_desk(queue, rotation_period):
    """File what has ended and is still on the desk, as a beat does."""
    for id, deferred in list(queue.desk.reserved.items()):
        if not is_waiting(deferred) or deferred.attempt:
            queue.claim_reserved(id, queue.desk.boot, 0.0)
    for id, deferred in list(queue.desk.running.items()):
        if deferred.ended:
            queue.archive_ended(id, rotation_period)
        elif deferred.is_waiting():  # it had failed, and is to run once more
            queue.take_off(id)


class _Move:
    """One transaction's part of a move."""

    def __init__(self, queue, targets, names, now, rotation_period, most):
        self.count = 0
        self._queue = queue
        self._names = names
        self._now = now
        self._period = rotation_period
        self._most = most
        self._spread = _Spread(targets)
        # oid → Target to which its periodic call has gone
        self._homes = {each._p_oid: target for target in targets
                       for periodic in target.periodic.values() for each in periodic.kept()
                       if each.is_in(queue)}
        self._groups = _groups_in(queue)
        self._targets = {target.queue._p_oid: target for target in targets}
        self._intakes = {}

    def running(self):
        """What some worker had claimed that is gone."""
        for id, deferred in self._some(self._queue.desk.running):
            target = self._target_of(deferred)
            self._queue.desk.remove_running(id)
            target.queue.receive_running(deferred, self._intake(target))
            self._note(deferred)

    def waiting(self):
        """What waits for a thread, its time or its series."""
        waiting = self._queue.waiting
        for place, deferred in self._some(waiting.ready):
            self._put(place, deferred)
        for key, (place, deferred) in self._some(waiting.later):
            self._put(place, deferred, not_before=key[0])
        for key, deferred in self._some(waiting.blocked):
            self._put(key[1:], deferred)

    def held_up(self):
        """What waits for the ends of calls, none of which is still here."""
        went = True
        while went:
            went = False
            for place, deferred in list(self._queue.waiting.parked.items()):
                if self.count < self._most and not any(
                        each.is_in(self._queue) for each in _awaited(deferred)):
                    self._put(place, deferred, not_before=_not_before(deferred), held_up=True)
                    went = True

    def failed(self):
        """What failed for good."""
        for id, deferred in self._some(self._queue.failed):
            del self._queue.failed[id]
            if is_there(deferred) and deferred.state == FAILED:
                target = self._homes.get(deferred._p_oid) or self._spread.choose(
                    {deferred.plugin}, 0)
                target.queue.receive_failed(deferred, self._intake(target))
                self._note(deferred)

    def _some(self, tree):
        return list(islice(tree.items(), max(0, self._most - self.count)))

    def _put(self, place, deferred, **waits):
        if place not in self._queue.waiting:  # it was undone, as was found when another ended
            return
        self._queue.waiting.remove(place, deferred)
        if is_waiting(deferred):
            target = self._target_of(deferred)
            putting.receive(target.queue, deferred, self._intake(target), self._names, target.id,
                          **waits)
            self._note(deferred)
        elif is_there(deferred):
            self._queue.file(deferred, self._period)

    def _note(self, deferred):
        self._queue.note_departed(deferred, self._now, self._period)
        if self._queue.waiting.is_awaited(deferred.id):
            self._queue.waiting.parted = True
        self.count += 1

    def _intake(self, target):
        if target.id not in self._intakes:
            self._intakes[target.id] = target.queue.new_intake()
        return self._intakes[target.id]

    def _target_of(self, deferred):
        group, target = self._groups.of(deferred), self._homes.get(deferred._p_oid)
        if group is not None:
            target = self._target_of_group(group)
        if target is None:
            return self._spread.choose({deferred.plugin})
        self._spread.note(target)
        return target

    def _target_of_group(self, group):
        found = next((self._targets[oid] for oid in group.goes_to if oid in self._targets), None)
        if found is None:
            found = (next((self._homes[oid] for oid in group.oids if oid in self._homes), None)
                     or self._spread.choose(group.plugins, 0))
            group.goes_to[found.queue._p_oid] = None
        return found


class _Group:
    """Calls that are connected by waiting for one another.

    goes_to -- oids of queues, as keys: where some of them have gone.
    """

    def __init__(self):
        self.oids = []
        self.plugins = set()
        self.goes_to = {}


def _groups_in(queue):
    """The _Groups of a queue, with what has come since they were kept.

    To find them all calls that wait for others are loaded: not for each part of a move. Whoever
    else moves calls, or has some run, writes the desk, and with it goes what is kept there.
    """
    desk = queue.desk
    if getattr(desk, '_v_groups', None) is None:
        desk._p_activate()  # else it would be loaded later, and forget that
        desk._v_groups = _Groups()
    desk._v_groups.add_new(queue)
    return desk._v_groups


class _Groups:
    """The groups there are in a queue."""

    def __init__(self):
        self._of = {}
        self._places = set()

    def add_new(self, queue):
        """Add the calls that wait for others and are not known."""
        for place, deferred in queue.waiting.parked.items():
            if place not in self._places:
                self._places.add(place)
                self._add(queue, deferred)

    def _add(self, queue, deferred):
        for each in _awaited(deferred):
            group = self._joined(deferred._p_oid, each._p_oid)
            group.plugins |= {deferred.plugin, each.plugin}
            if not each.is_in(queue) and each.queue is not None:
                group.goes_to[each.queue._p_oid] = None

    def of(self, deferred):
        """The group of a call, or None for one that neither waits nor is waited for."""
        return self._of.get(deferred._p_oid)

    def _joined(self, *oids):
        """The one group of those calls."""
        found = [self._of.get(oid) for oid in oids]
        known = sorted({id(group): group for group in found if group is not None}.values(),
                       key=lambda group: len(group.oids))
        joined = known.pop() if known else _Group()
        for other in known:  # the smaller ones go into the largest
            self._note(joined, other.oids)
            joined.plugins |= other.plugins
            joined.goes_to.update(other.goes_to)
        self._note(joined, [oid for oid in oids if self._of.get(oid) is not joined])
        return joined

    def _note(self, group, oids):
        group.oids += oids
        self._of.update(dict.fromkeys(oids, group))


class _Spread:
    """Which target gets a call: of those that can run it the one with the least to do."""

    def __init__(self, targets):
        self._targets = targets
        self._loads = {target.id: target.queue.length_new() + target.queue.length_accepted()
                       for target in targets}

    def choose(self, plugins, calls=1):
        """The Target for so many calls more, which want those plugins."""
        chosen = min(self._targets, key=lambda target: (
            not plugins <= set(target.queue.card.plugins), not target.lives, target.paused,
            self._loads[target.id], target.id))
        self.note(chosen, calls)
        return chosen

    def note(self, target, calls=1):
        """It gets so many calls more."""
        self._loads[target.id] += calls


def _awaited(deferred):
    """The calls that a parked one waits for and that have not ended."""
    try:
        return [each for each in deferred.after if not _has_ended(each)]
    except POSKeyError:  # its put was undone
        return []


def _has_ended(deferred):
    try:
        return deferred.ended
    except POSKeyError:
        return True


def _not_before(deferred):
    return deferred.not_before if deferred.attempt == 0 else 0.0
