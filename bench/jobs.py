"""What the calls of benchmarks and fault tests do. Workers import these by name.

Imports: zasync.
"""

import os
import time

from BTrees.LLBTree import LLBTree
from persistent import Persistent

from Products.zasync import groupable


class Counter(Persistent):
    """The effect of one call: how often it was applied."""

    n = 0

    def add(self):
        """Apply it once more."""
        self.n += 1


class Effects(Persistent):
    """A fixed number of counters, each an object of its own, so that calls do not meet."""

    def __init__(self, number):
        self.counters = tuple(Counter() for _ in range(number))


#: Trees of a Ledger: calls that run at the same time write to different ones.
SHARDS = 400
#: So many calls write to SHARDS trees, as many after them to others: two workers do not meet, nor
#: does one have to load what the other has written.
HALF = 5_000


class Ledger(Persistent):
    """How often the call of each number had its effect: small records in trees of few.

    A tree of so few is one object, and an effect writes that and nothing else.
    """

    def __init__(self):
        self.shards = tuple(LLBTree() for _ in range(2 * SHARDS))

    def append(self, number):
        """The effect of call `number`: one more record, or one more mark on the one it has."""
        shard = self.shards[number % SHARDS + SHARDS * (number // HALF % 2)]
        shard[number] = shard.get(number, 0) + 1

    def counts(self):
        """{number: how often its call had its effect}."""
        return {number: n for shard in self.shards for number, n in shard.items()}


def append_record(number):
    """Append one small record to the Ledger under the key 'ledger' of the database's root."""
    from Products.zasync.running import current
    current().app._p_jar.root()['ledger'].append(number)


@groupable
def append_record_together(number):
    """The same, of a call that may be committed together with others."""
    append_record(number)


def stamp():
    """The time at which this call runs, POSIX seconds."""
    return time.time()


def equal_work(seconds):
    """Take so long, or longer by the factor BENCH_SLOWNESS of the worker's environment."""
    time.sleep(seconds * float(os.environ.get('BENCH_SLOWNESS', '1')))


def nothing():
    """Do nothing."""


def ignore(*args):
    """Do nothing with those."""


def apply_effect(number, seconds=0.0):
    """Count the effect of call `number`; take `seconds` to do so.

    Works on the Effects under the key 'effects' of the database's root.
    """
    from Products.zasync.running import current
    root = current().app._p_jar.root()
    if seconds:
        time.sleep(seconds)
    root['effects'].counters[number].add()
    return os.getpid()


@groupable
def apply_effect_together(number, seconds=0.0):
    """The same, of a call that may be committed together with others."""
    return apply_effect(number, seconds)
