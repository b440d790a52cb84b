"""Lanes: where callers put calls without meeting one another.

A queue has a fixed number of lanes, each a LOBTree: number → (priority, put_at,
not_before, Deferred). A thread picks a lane at random once and keeps it; after a
failed commit it picks another. The number is the lane's highest plus one, so two
puts that overlap in one lane choose the same number, BTrees refuse to merge
them, and the order of commits is the order of numbers. Correctness never rests
on a lane being one thread's own; only speed does.

Only putters write lanes. Every 64th put trims what the worker has taken in.

Imports: nothing of ours.
"""

import random
import threading

from BTrees.LOBTree import LOBTree


#: Lanes of a queue. Birth cost 6 kB. With fewer, threads meet more often while
#: they settle; above 30 putting threads more would help.
LANES = 64

#: A put whose number is a multiple of this trims its lane.
TRIM_EVERY = 64

#: Most entries removed by one put, so that no caller pays for all.
TRIM_MOST = 128

_thread = threading.local()


def make_lanes():
    """A queue's lanes: a tuple that never changes."""
    return tuple(LOBTree() for _ in range(LANES))


def current():
    """Number of the lane that this thread puts into, in whatever queue."""
    try:
        return _thread.lane
    except AttributeError:
        move()
        return _thread.lane


def move():
    """Let this thread put into another lane, picked at random."""
    _thread.lane = random.randrange(LANES)


def next_number(lane):
    """The number the next put into `lane` gets, 1 at first."""
    return highest(lane) + 1


def highest(lane):
    """The highest number in `lane`, 0 when it is empty."""
    try:
        return lane.maxKey()
    except ValueError:  # the BTree's word for empty
        return 0


def trim(lane, mark):
    """Remove entries below `mark`, at most TRIM_MOST; the lane is never emptied.

    An emptied lane would start numbering again, under marks that say those
    numbers were taken in.
    """
    passed = []
    for number in lane.keys(None, mark, False, True):
        passed.append(number)
        if len(passed) == TRIM_MOST:
            break
    if passed and passed[-1] == highest(lane):
        passed.pop()
    for number in passed:
        del lane[number]


def forget(lane, mark, before):
    """Remove entries up to `mark` that were put before that time, at most TRIM_MOST.

    The last entry of the lane stays, without its call: see `trim`. → whether it came to that.
    """
    passed = []
    for number, entry in lane.items(None, mark):
        if entry[1] >= before or len(passed) == TRIM_MOST:
            break
        passed.append(number)
    emptied = bool(passed) and passed[-1] == highest(lane)
    if emptied:
        last = passed.pop()
        if lane[last][3] is None:
            emptied = False
        else:
            lane[last] = (0, 0.0, 0.0, None)
    for number in passed:
        del lane[number]
    return emptied


def close(lane):
    """Make every put into `lane` that overlaps with this transaction fail, in either order.

    It takes the number the next put would: two of the same number never merge.
    """
    lane[next_number(lane)] = (0, 0.0, 0.0, None)
