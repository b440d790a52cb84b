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
    why = _why_not(manager, pulse, max_idle_seconds)
    return Load(manager.getId(), pulse.new + pulse.accepted + _ours(pulse), not why, pulse.pace,
                why)


def _why_not(manager, pulse, max_idle_seconds):
    """Why the manager gets no calls, '' if it does."""
    if manager.leaving:
        return 'it is being removed'
    if manager.paused:
        return 'it is paused'
    if StandIn.serve is not None:
        return ''
    if pulse._p_jar is None or not pulse.beat:
        return 'no worker has served it yet'
    if not pulse.accepting:
        return 'its worker has stopped, or takes no more calls'
    if not is_heard_of(pulse, max_idle_seconds):
        silence = _storage_now(pulse._p_jar) - clock.serial_seconds(pulse._p_serial)
        return f'no sign of life for {silence:.0f} s, longer than max_idle_time'
    return ''


def is_heard_of(pulse, max_idle_seconds):
    """Whether the last sign of life of a worker is young, whatever it said."""
    if pulse._p_jar is None or not pulse.beat:
        return False
    return policy.is_alive(clock.serial_seconds(pulse._p_serial), _storage_now(pulse._p_jar),
                           max_idle_seconds)


def note_put(manager):
    """Count a call that this process has just put to `manager`."""
    pulse = manager.queue.pulse
    key = _key(pulse)
    if key is not None:
        with _lock:
            serial, count = _put_since.get(key, (b'', 0))
            if pulse._p_serial > serial:
                serial, count = pulse._p_serial, 0
            _put_since[key] = serial, count + 1


def _ours(pulse):
    serial, count = _put_since.get(_key(pulse), (b'', 0))
    # A request that began before the last pulse sees the one before it.
    return count if serial >= pulse._p_serial else 0


def _key(pulse):
    jar = pulse._p_jar
    return None if jar is None else (jar.db().database_name, pulse._p_oid)


def _storage_now(connection):
    # What a DB says its last transaction is stands still on RelStorage: only the storage that a
    # connection has of its own follows.
    return clock.storage_clock(connection.db().database_name).now(
        clock.SYSTEM.monotonic(), connection._normal_storage.lastTransaction())
