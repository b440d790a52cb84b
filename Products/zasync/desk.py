"""Desk and marks: what the worker that serves a queue knows of it. One writer, the holder's beat.

Imports: nothing of ours.
"""

from types import MappingProxyType

from persistent import Persistent


#: Lanes whose marks share an object.
LANES_A_PART = 8


class _SomeMarks(Persistent):
    """The marks of some lanes: {lane number: (number, oid)}."""

    __zpublishable__ = False

    def __init__(self):
        self.of = {}


class Marks(Persistent):
    """How far each lane was taken in. Written once; what changes is in its parts.

    Apart from the desk: a claim would write all of them, and a put that wants to know how
    far its lane was taken in would load the desk.
    """

    __zpublishable__ = False

    def __init__(self, lanes):
        self._parts = tuple(_SomeMarks() for _ in range(-(-lanes // LANES_A_PART)))

    def get(self, lane):
        """The (number, oid) last taken in from that lane; (0, None) at first.

        The oid is that of the entry's deferred: an undone put can't hide the next one, which
        has the same number and another oid.
        """
        return self._parts[lane // LANES_A_PART].of.get(lane, (0, None))

    def set(self, lane, number, oid):
        """Note that the entries of that lane up to `number` were taken in."""
        part = self._parts[lane // LANES_A_PART]
        part.of[lane] = (number, oid)
        part._p_changed = True


class Desk(Persistent):
    """The worker's running calls and counts, written in one transaction with marks and trees.

    boot -- id of the worker life that holds the desk, or None.
    guest -- the holder is the worker of a sibling, and leaves when our own comes back.
    n_ready, n_later -- calls taken in that wait for a thread, for their time.
    n_aside -- calls taken in that wait for their series or for the ends of other calls.
    n_born -- calls the worker itself has made here, so far.
    running -- {call id: Deferred} claimed and not yet archived. They hang here so
    that packing can't take a running call away.
    reserved -- the same of calls that nobody has claimed and only the holder may run: their
    claim is committed together with their end.
    """

    __zpublishable__ = False

    guest = False
    #: Not stored while there are none, nor by who knew of none.
    reserved = MappingProxyType({})
    n_ready = n_later = n_aside = n_born = 0

    def __init__(self):
        self.boot = None
        self.running = {}

    def n_taken_in(self):
        """Calls taken in that wait, for whatever."""
        return self.n_ready + self.n_later + self.n_aside

    def take(self, boot, guest=False):
        """Become the holder; None for boot: nobody is."""
        self.boot = boot
        self.guest = guest

    def add_running(self, id, deferred):
        """Hang a claimed call here."""
        self.running[id] = deferred
        self._p_changed = True

    def remove_running(self, id):
        """Take it off, and return its deferred."""
        self._p_changed = True
        return self.running.pop(id)

    def add_reserved(self, id, deferred):
        """Keep a call for the holder."""
        if not self.reserved:
            self.reserved = {}
        self.reserved[id] = deferred
        self._p_changed = True

    def remove_reserved(self, id):
        """Keep it no more, and return its deferred."""
        self._p_changed = True
        deferred = self.reserved.pop(id)
        if not self.reserved:
            del self.reserved
        return deferred
