"""Ids and places: where a call was put, and where it stands among those that wait.

Imports: lanes.
"""

import random

from ZODB.utils import u64

from . import lanes


#: The lane number in the ids of calls that a worker has made itself, on its desk.
DESK_LANE = lanes.LANES

#: The lane number in the places of calls that were put to another queue, which has lanes of
#: the same numbers. The number there is their oid.
MOVED_LANE = DESK_LANE + 1

#: What a lane's entry says of a call that is out of the ordinary: 'priority', 'not before';
#: 'place', where it is to wait if not by its own number (it runs once more); 'expires';
#: 'after', it waits for the ends of others. A plain call has none of them.
PRIORITY, NOT_BEFORE = 'priority', 'not before'
PLACE, EXPIRES, AFTER = 'place', 'expires', 'after'


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


def filing_key(id):
    """Under which text an archive keeps the call: what ends together was put together, mostly.

    So what a beat files lies side by side, in whatever lanes it was put.
    """
    lane_number, number, milliseconds, tail = id.split('-')
    return f'{milliseconds}-{lane_number}-{number}-{tail}'


def moment_of(key):
    """The part of such a text that sorts as its calls were put; what else it has does not."""
    return key.partition('-')[0]


def parse_filing_key(key):
    """What parse_id tells of an id, of such a text."""
    milliseconds, lane_number, number, _ = key.split('-')
    return int(lane_number, 16), int(number, 16), int(milliseconds, 16) / 1000


def place_of(deferred):
    """Where a deferred stands among those that wait: see `waiting`."""
    lane, number, put_at = parse_id(deferred.id)
    if deferred.moved:
        lane, number = MOVED_LANE, u64(deferred._p_oid)
    return (-deferred.priority, put_at, lane, number)


def place_in_lane(entry, lane_number, number):
    """The same of an Entry of a lane: nothing is loaded."""
    place = entry.facts.get(PLACE)
    return place or (-entry.facts.get(PRIORITY, 0), entry.put_at, lane_number, number)


def oid_at(lane, number):
    """The oid of the deferred at that number of the lane, not loaded; None if there is none."""
    entry = lanes.get(lane, number)
    return None if entry is None or entry.deferred is None else entry.deferred._p_oid


def holds(lane, mark, oid):
    """Whether what was taken in last from that lane, see Marks, is still there: not undone."""
    return mark <= lanes.highest(lane) and oid_at(lane, mark) == oid
