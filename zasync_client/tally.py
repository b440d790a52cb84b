"""Tally: what a worker counts of its work since its life began, for those who watch it.

Imports: claims.
"""

import threading
from bisect import bisect_left
from collections import Counter

from .claims import ALONE
from .claims import ENDED
from .claims import LOST
from .claims import UNBEGUN


#: Upper bounds by which the durations of calls are counted, in seconds.
BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1_800.0)


class Durations:
    """Of calls of one plugin. counts -- how many took no longer than each of BOUNDS and longer
    than the one before; the last is of those that took longer than all. total -- seconds."""

    def __init__(self):
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds):
        """One more took so long."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Tally:
    """Written by all threads of a worker, read by any.

    conflicts -- that beats and runs have met. disconnects -- how often the worker had to wait for
    its database server.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self.conflicts = self.disconnects = 0
        self._attempts = Counter()
        self._durations = {}

    def note_end(self, end):
        """A run is over; end -- an End."""
        if end.how in (UNBEGUN, ALONE):
            return
        with self._lock:
            if end.how == ENDED:
                self._attempts[end.state] += 1
                self._durations.setdefault(end.plugin, Durations()).add(end.seconds)
            else:
                self._attempts['lost' if end.how == LOST else 'again'] += 1

    def note_conflict(self):
        """A commit met what somebody else has written."""
        with self._lock:
            self.conflicts += 1

    def note_disconnect(self):
        """The database server went away."""
        with self._lock:
            self.disconnects += 1

    def attempts(self):
        """[(outcome, how many runs of calls)].

        An outcome is the state of a call that has ended, 'again' of one that goes back to the
        queue, 'lost' of one that was not the run of its call any more: cancelled, timed out, or
        given to another worker.
        """
        with self._lock:
            return sorted(self._attempts.items())

    def durations(self):
        """[(plugin, [how many took no longer than each of BOUNDS, how many in all], seconds)]."""
        found = []
        with self._lock:
            for plugin, each in sorted(self._durations.items()):
                reached, sums = 0, []
                for count in each.counts:
                    reached += count
                    sums.append(reached)
                found.append((plugin, sums, each.total))
        return found
