"""Service: one manager that a worker serves, its own or a sibling's.

Imports: beat, claims.
"""

import threading


class Service:
    """The beat at one desk, and the Ends of its calls that are not filed there."""

    def __init__(self, beat):
        self.beat = beat
        self.target = beat.target
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
