"""Service: one manager that a worker serves, its own or a sibling's.

Imports: beat, claims.
"""

import threading


class Service:
    """The beat at one desk, and the Ends of its calls that are not filed there.

    identity -- of its manager, see siblings; of our own manager when its desk was taken. target --
    its path as its claims have it. place -- where it is now. is_away -- it was not there.
    """

    def __init__(self, beat, identity=None):
        self.beat = beat
        self.identity = identity
        self.target = self.place = beat.target
        self.is_away = False
        self._lock = threading.Lock()
        self._ends = []

    def add(self, ends):
        """These runs have ended. Called by threads."""
        with self._lock:
            self._ends.extend(ends)

    def ends(self):
        """The Ends that are not filed, oldest first."""
        with self._lock:
            return list(self._ends)

    def filed(self, number):
        """The first so many are filed."""
        with self._lock:
            del self._ends[:number]
