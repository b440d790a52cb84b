"""Names: the keys and the series of calls, where callers and workers that share one meet.

A dispatcher has one for all its managers, a manager that stands alone has its own.
Both kinds hang in 64 trees by a hash of the name, so that two that have nothing to
do with each other seldom meet. Traffic never removes a name: two objects for one
series would let two of its calls run at once.

Imports: nothing of ours.
"""

import zlib

from BTrees.OOBTree import OOBTree
from persistent import Persistent


TREES = 64


class Key(Persistent):
    """A key: the id of the call that was put with it last, or put again, and of its manager.

    Ids, not references: a name outlives its calls, and must not keep their results. The oid of
    the manager's queue tells it from a manager that has got its id since.
    Written by puts, moves and retries only.
    """

    __zpublishable__ = False

    call_id = manager_id = queue_oid = None

    def move(self, call_id, manager_id, queue_oid):
        """That call, if it is the one that was put with this key last, has another manager."""
        if self.call_id == call_id:
            self.manager_id, self.queue_oid = manager_id, queue_oid

    def take(self, call_id, manager_id, queue_oid):
        """The call put with this key is that one now; the oid is None if the queue is new."""
        self.call_id, self.manager_id, self.queue_oid = call_id, manager_id, queue_oid

    def is_of(self, queue):
        """Whether that Queue, of the manager of that id, is the one that was meant."""
        return queue is not None and self.queue_oid in (None, queue._p_oid)


class Series(Persistent):
    """A series: the id of the call that runs, or None.

    Written by claims and by ends of calls of this series, nobody else.
    """

    __zpublishable__ = False

    holder = None


class Names(Persistent):
    """All keys and all series of a dispatcher, or of a manager that stands alone."""

    __zpublishable__ = False

    def __init__(self):
        self._keys = tuple(OOBTree() for _ in range(TREES))
        self._series = tuple(OOBTree() for _ in range(TREES))

    # keys

    def find_key(self, text):
        """The Key of that text, or None."""
        return _tree(self._keys, text).get(text)

    def key(self, text):
        """The Key of that text, made when it is new."""
        return _found_or_made(self._keys, text, Key)

    # series

    def is_free(self, series, id):
        """Whether the call of that id may run: none of the series does, or that one itself."""
        found = _tree(self._series, series).get(series)
        return found is None or found.holder in (None, id)

    def hold(self, series, id):
        """The call of that id runs."""
        _found_or_made(self._series, series, Series).holder = id

    def release(self, series, id):
        """It runs no more."""
        found = _tree(self._series, series).get(series)
        if found is not None and found.holder == id:
            found.holder = None


def _tree(trees, text):
    return trees[zlib.crc32(text.encode('utf-8', 'surrogatepass')) % TREES]


def _found_or_made(trees, text, make):
    tree = _tree(trees, text)
    found = tree.get(text)
    if found is None:
        found = tree[text] = make()
    return found
