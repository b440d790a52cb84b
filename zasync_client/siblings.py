"""Siblings: the other managers of our dispatcher, and whether their workers live.

A rescue must not err, and no two clocks may be compared. So a worker remembers when, by its
own monotonic seconds, it first saw a sibling's pulse as it is now, and counts its own beats
since: a pulse that has not changed for `max_idle_time` while we beat belongs to a dead worker.
When the server is stalled by a long commit nobody beats, and nobody is condemned.

Imports: zasync.
"""

from typing import NamedTuple

from Acquisition import aq_base
from Acquisition import aq_inner
from Acquisition import aq_parent

from Products.zasync import policy
from Products.zasync.interfaces import IAsynchronousCallManager


class _Seen(NamedTuple):
    """A pulse's serial, when it was first seen so, and our own beats until then."""

    serial: bytes
    since: float
    beats: int


class Siblings:
    """What one worker life knows of its siblings."""

    def __init__(self, clock):
        self._clock = clock
        self._seen = {}
        self._beats = 0

    def note_own_beat(self):
        """A beat of ours is in the database."""
        self._beats += 1

    def look(self, manager):
        """Look at the siblings in this snapshot; → ([those whose worker is dead], [others])."""
        now, dead, alive = self._clock.monotonic(), [], []
        max_idle = getattr(aq_parent(aq_inner(manager)), 'max_idle_time', None)
        for sibling in siblings_of(manager):
            id, serial = sibling.getId(), pulse_serial(sibling)
            before = self._seen.get(id)
            if before is None or before.serial != serial:
                before = _Seen(serial, now, self._beats)
            is_dead = policy.is_dead(now - before.since, self._beats - before.beats, max_idle)
            (dead if is_dead else alive).append(sibling)
            self._seen[id] = before
        return dead, alive

    def boots_alive(self, manager):
        """The worker lives at the siblings' desks, but for those known to be dead and for guests.

        What such a one runs at the manager's desk it ends itself.
        """
        _, alive = self.look(manager)
        return {each.queue.desk.boot for each in alive if not each.queue.desk.guest} - {None}


def siblings_of(manager):
    """The other managers in the dispatcher the manager lies in; [] if it lies in none."""
    container = aq_parent(aq_inner(manager))
    if getattr(aq_base(container), 'call_names', None) is None:
        return []
    return [child for child in container.objectValues()
            if IAsynchronousCallManager.providedBy(child)
            and aq_base(child) is not aq_base(manager)]


def identity(manager):
    """What a manager keeps under whatever name: (name of its database, oid)."""
    return manager._p_jar.db().database_name, manager._p_oid


def pulse_serial(manager):
    """The transaction that wrote the manager's pulse, as this snapshot has it; bytes."""
    pulse = manager.queue.pulse
    pulse._p_activate()  # what was forgotten has an old one
    return pulse._p_serial
