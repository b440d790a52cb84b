"""Lanes: where callers put calls without meeting one another.

A queue has a fixed number of lanes. In each, calls have numbers, and hang in chunks of
CHUNK numbers: a lane is a LOBTree, number of the chunk → LOBTree, number → Entry. A put
writes the last chunk, which is small however long the lane is; only who begins a chunk
writes the tree of chunks as well.

A thread picks a lane at random once and keeps it; after a failed commit it picks
another. The number is the lane's highest plus one, so two puts that overlap in one
lane choose the same number, BTrees refuse to merge them, and the order of commits is
the order of numbers. Correctness never rests on a lane being one thread's own; only
speed does.

Only putters write lanes. Who begins a chunk drops those that the worker has taken in.

Imports: nothing of ours.
"""

import random
import threading
from itertools import islice
from types import MappingProxyType
from typing import Any
from typing import NamedTuple

from BTrees.LOBTree import LOBTree


#: Lanes of a queue. Birth cost 6 kB. With fewer, threads meet more often while
#: they settle; above 30 putting threads more would help.
LANES = 64

#: Numbers of a chunk. With more a put writes more, with fewer the tree of chunks is written
#: and trimmed more often.
CHUNK = 16

#: Most chunks dropped by one put, so that no caller pays for all.
TRIM_MOST = 8

#: Most entries removed by the worker in one lane at once.
FORGET_MOST = 128

_thread = threading.local()


class Entry(NamedTuple):
    """What a lane says of a call, so that nobody need load it to see when it is to run.

    put_at -- POSIX seconds. deferred -- None: nothing is there any more. facts -- what is out
    of the ordinary, see `places`; a plain call has none.
    """

    put_at: float
    deferred: Any
    facts: Any = MappingProxyType({})


#: An entry for a number whose call is gone, or never was.
GONE = Entry(0.0, None)


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
    """Let this thread put into another lane than so far, picked at random."""
    here = getattr(_thread, 'lane', random.randrange(LANES))
    _thread.lane = (here + random.randrange(1, LANES)) % LANES


def next_number(lane):
    """The number the next put into `lane` gets, 1 at first."""
    return highest(lane) + 1


def highest(lane):
    """The highest number in `lane`, 0 when it is empty."""
    try:
        return lane[lane.maxKey()].maxKey()
    except ValueError:  # the BTree's word for empty
        return 0


def last(lane):
    """(highest number, oid of its deferred or None), (0, None) when it is empty.

    Asked of all lanes at each look of a worker.
    """
    if not lane:
        return 0, None
    chunk = lane[lane.maxKey()]
    number = chunk.maxKey()
    deferred = chunk[number][1]
    return number, None if deferred is None else deferred._p_oid


def written_by_next(lane):
    """The oids of the objects of the lane of which the next put writes one or both."""
    return {lane._p_oid, lane[lane.maxKey()]._p_oid} if lane else {lane._p_oid}


def get(lane, number):
    """The Entry of that number, or None."""
    chunk = lane.get(number // CHUNK)
    stored = None if chunk is None else chunk.get(number)
    return None if stored is None else Entry(*stored)


def after(lane, mark):
    """[(number, Entry)] of the numbers above `mark`, in order; loads as far as it is asked."""
    for chunk in lane.values(mark // CHUNK):
        for number, stored in chunk.items(mark + 1):
            yield number, Entry(*stored)


def down_to(lane, mark):
    """The same, the highest number first."""
    index = lane.maxKey() if lane else -1
    while index >= mark // CHUNK:
        chunk = lane[index]
        for number in reversed(chunk.keys(mark + 1)):
            yield number, Entry(*chunk[number])
        try:
            index = lane.maxKey(index - 1)
        except ValueError:  # that was the first chunk
            return


def store(lane, number, entry):
    """Note the Entry under that number; → whether that begins a chunk."""
    index = number // CHUNK
    chunk = lane.get(index)
    begins = chunk is None
    if begins:
        chunk = lane[index] = LOBTree()
    chunk[number] = tuple(entry) if entry.facts else tuple(entry[:2])
    return begins


def trim(lane, mark):
    """Drop the chunks before that of `mark`, at most TRIM_MOST; the lane is never emptied.

    An emptied lane would start numbering again, under marks that say those
    numbers were taken in.
    """
    passed = list(islice(lane.keys(None, mark // CHUNK, False, True), TRIM_MOST))
    if passed and passed[-1] == lane.maxKey():
        passed.pop()
    for index in passed:
        del lane[index]


def forget(lane, mark, before):
    """Remove entries up to `mark` that were put before that time, at most FORGET_MOST.

    The last entry of the lane stays, without its call: see `trim`. → whether it came to that.
    """
    passed = []
    for number, entry in after(lane, 0):
        if number > mark or entry.put_at >= before or len(passed) == FORGET_MOST:
            break
        passed.append(number)
    emptied = bool(passed) and passed[-1] == highest(lane)
    if emptied:
        last = passed.pop()
        if get(lane, last).deferred is None:
            emptied = False
        else:
            store(lane, last, GONE)
    if passed:
        _remove_up_to(lane, passed[-1])
    return emptied


def is_idle(lane, mark, before):
    """Whether all entries of the lane were taken in and put before that time, and more than one.

    What is put there again trims it.
    """
    last = highest(lane)
    return 1 < last <= mark and lane[lane.minKey()].minKey() < last and (
        get(lane, last).put_at < before)


def _remove_up_to(lane, last):
    for index in list(lane.keys(None, last // CHUNK)):
        chunk = lane[index]
        if chunk.maxKey() <= last:
            del lane[index]
        else:
            for number in list(chunk.keys(None, last)):
                del chunk[number]


def close(lane):
    """Make every put into `lane` that overlaps with this transaction fail, in either order.

    It takes the number the next put would: two of the same number never merge.
    """
    store(lane, next_number(lane), GONE)
