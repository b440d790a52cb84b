"""Desk: what the worker that serves a queue knows of it. One writer, the holder's beat.

Imports: nothing of ours.
"""

from persistent import Persistent


#: Lanes whose marks share an object.
LANES_A_MARKS = 8


class Marks(Persistent):
    """How far some lanes were taken in: {lane number: (number, oid)}.

    The oid is that of the last entry's deferred: an undone put can't hide the next
    one, which has the same number and another oid.
    """

    __zpublishable__ = False

    def __init__(self):
        self.of = {}


class Desk(Persistent):
    """The worker's running calls, counts and marks, written in one transaction with its trees.

    boot -- id of the worker life that holds the desk, or None.
    guest -- the holder is the worker of a sibling, and leaves when our own comes back.
    n_ready, n_later -- calls taken in that wait for a thread, for their time.
    n_aside -- calls taken in that wait for their series or for the ends of other calls.
    n_born -- calls the worker itself has made here, so far.
    running -- {call id: Deferred} claimed and not yet archived. They hang here so
    that packing can't take a running call away.
    marks -- tuple of Marks; apart from the desk, or a claim would write all of them.
    """

    __zpublishable__ = False

    guest = False

    def __init__(self, lanes):
        self.boot = None
        self.n_ready = 0
        self.n_later = 0
        self.n_aside = 0
        self.n_born = 0
        self.running = {}
        self.marks = tuple(Marks() for _ in range(-(-lanes // LANES_A_MARKS)))

    def mark(self, lane):
        """The (number, oid) last taken in from that lane; (0, None) at first."""
        return self.marks[lane // LANES_A_MARKS].of.get(lane, (0, None))

    def set_mark(self, lane, number, oid):
        """Note that the entries of that lane up to `number` were taken in."""
        marks = self.marks[lane // LANES_A_MARKS]
        marks.of[lane] = (number, oid)
        marks._p_changed = True

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
