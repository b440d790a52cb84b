"""Desk: what the worker that serves a queue knows of it. One writer, the holder's beat.

Imports: nothing of ours.
"""

from persistent import Persistent


class Desk(Persistent):
    """The worker's marks, counts and running calls, written in one transaction with its trees.

    boot -- id of the worker life that holds the desk, or None.
    marks -- {lane number: (number, oid)}: the last entry taken in. The oid is the
    deferred's: an undone put can't hide the next one, which has the same number
    and another oid.
    n_ready, n_later -- calls taken in that wait for a thread, for their time.
    running -- {call id: Deferred} claimed and not yet archived. They hang here so
    that packing can't take a running call away.
    """

    def __init__(self):
        self.boot = None
        self.marks = {}
        self.n_ready = 0
        self.n_later = 0
        self.running = {}

    def mark(self, lane):
        """The (number, oid) last taken in from that lane; (0, None) at first."""
        return self.marks.get(lane, (0, None))

    def set_mark(self, lane, number, oid):
        """Note that the entries of that lane up to `number` were taken in."""
        self.marks[lane] = (number, oid)
        self._p_changed = True

    def add_running(self, id, deferred):
        """Hang a claimed call here."""
        self.running[id] = deferred
        self._p_changed = True

    def remove_running(self, id):
        """Take it off, and return its deferred."""
        self._p_changed = True
        return self.running.pop(id)
