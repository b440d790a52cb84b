"""The load of a manager as this process sees it: its pulse, and what was put since.

One small record is read for each manager, the pulse. Between two pulses a
process counts what it has put itself, else twenty calls put at once would all
go to the manager that was idle when the first came.

Imports: balancing, zasync.
"""

import threading

from Products.zasync import clock
from Products.zasync import policy
from Products.zasync.putting import StandIn

from .balancing import Load


_lock = threading.Lock()
#: (database name, oid of the pulse) → (serial of the pulse, calls put since)
_put_since = {}


def load_of(manager, max_idle_seconds):
    """The Load of `manager` in this connection's snapshot."""
    pulse = manager.queue.pulse
    alive = StandIn.serve is not None
    if not alive and pulse.accepting and not manager.paused and pulse._p_jar is not None:
        alive = policy.is_alive(clock.serial_seconds(pulse._p_serial), _storage_now(pulse._p_jar),
                                max_idle_seconds)
    return Load(manager.getId(), pulse.new + pulse.accepted + _ours(pulse), alive)


def note_put(manager):
    """Count a call that this process has just put to `manager`."""
    pulse = manager.queue.pulse
    key = _key(pulse)
    if key is not None:
        with _lock:
            serial, count = _put_since.get(key, (pulse._p_serial, 0))
            _put_since[key] = (pulse._p_serial, count + 1 if serial == pulse._p_serial else 1)


def _ours(pulse):
    serial, count = _put_since.get(_key(pulse), (None, 0))
    return count if serial == pulse._p_serial else 0


def _key(pulse):
    jar = pulse._p_jar
    return None if jar is None else (jar.db().database_name, pulse._p_oid)


def _storage_now(connection):
    database = connection.db()
    return clock.storage_clock(database.database_name).now(
        clock.SYSTEM.monotonic(), database.lastTransaction())
