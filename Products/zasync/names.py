"""Names: the keys and the series of calls, where callers and workers that share one meet.

A dispatcher has one for all its managers, a manager that stands alone has its own.
Both kinds hang in 64 trees by a hash of the name, so that two that have nothing to
do with each other seldom meet. Traffic never removes a name: two objects for one
series would let two of its calls run at once.

Imports: interfaces.
"""

import zlib

from BTrees.OOBTree import OOBTree
from persistent import Persistent
from persistent.wref import WeakRef

from .interfaces import NEW


TREES = 64


class Key(Persistent):
    """A key: the call that was put with it last, and the id of that call's manager.

    Written by puts only.
    """

    # Weak: a name outlives its calls, and must not keep their results.
    _call = None
    manager_id = None

    def waiting(self):
        """The call if it still waits to be run, else None.

        The transaction then holds only as long as that call is not claimed: whoever
        joins it relies on its running later than now.
        """
        call = None if self._call is None else self._call()
        if call is None or call.state != NEW:
            return None
        if call._p_jar is not None and call._p_serial != b'\0' * 8:
            call._p_jar.readCurrent(call)
        return call

    def move(self, call, manager_id):
        """That call, if it is the one that was put with this key last, has another manager."""
        if self._call is not None and self._call() is call:
            self.manager_id = manager_id

    def take(self, call, manager_id):
        """The call put with this key is that one now."""
        self._call = WeakRef(call)
        self.manager_id = manager_id


class Series(Persistent):
    """A series: the id of the call that runs, or None.

    Written by claims and by ends of calls of this series, nobody else.
    """

    holder = None

    def __init__(self, text):
        self.text = text

    def is_free_for(self, id):
        """Whether the call of that id may run."""
        return self.holder in (None, id)

    def hold(self, id):
        """That call runs."""
        self.holder = id

    def release(self, id):
        """That call runs no more."""
        if self.holder == id:
            self.holder = None


class Names(Persistent):
    """All keys and all series of a dispatcher, or of a manager that stands alone."""

    __zpublishable__ = False

    def __init__(self):
        self._keys = tuple(OOBTree() for _ in range(TREES))
        self._series = tuple(OOBTree() for _ in range(TREES))

    def key(self, text):
        """The Key of that text, made when it is new."""
        tree = self._keys[_hashed(text)]
        found = tree.get(text)
        if found is None:
            found = tree[text] = Key()
        return found

    def series(self, text):
        """The Series of that text, made when it is new."""
        tree = self._series[_hashed(text)]
        found = tree.get(text)
        if found is None:
            found = tree[text] = Series(text)
        return found


def _hashed(text):
    return zlib.crc32(text.encode('utf-8', 'surrogatepass')) % TREES
