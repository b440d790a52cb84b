"""Habits: what this process has learned of the callables whose calls may share a transaction.

Imports: nothing of ours.
"""

import logging
import threading


log = logging.getLogger('zasync')


class Habits:
    """Whether calls of a kind are short, and fit for a group; used by all threads.

    batch_seconds -- how long a group may take. A kind is a tuple of texts, see
    groupcommit.kind_of.
    """

    #: A call is short if so many of its kind fit into a group; or if it is no longer than what
    #: it can share: on a busy machine all takes longer.
    FIT = 4

    #: Weight of the newest call.
    WEIGHT = 0.2
    #: What was too long seems so much shorter each time it is asked for: calls change.
    PATIENCE = 0.95

    def __init__(self, batch_seconds):
        self._batch_seconds = batch_seconds
        self._shared_seconds = 0.0
        self._lock = threading.Lock()
        self._seconds = {}
        self._unfit = set()
        self._groups_work = False

    @property
    def groups_work(self):
        """Whether calls that might share a transaction did so of late."""
        return self._groups_work

    def note_group(self, works):
        """A group of several was committed; or what was to be in one could not be."""
        self._groups_work = works

    def may_share(self, kind):
        """Whether a call of that kind may share a transaction; not before one has run alone."""
        with self._lock:
            if kind in self._unfit or kind not in self._seconds:
                return False
            short = max(self._batch_seconds / self.FIT, self._shared_seconds)
            if self._seconds[kind] <= min(short, self._batch_seconds):
                return True
            self._seconds[kind] *= self.PATIENCE
            return False

    def is_known(self, kind):
        """Whether a call of that kind has run."""
        with self._lock:
            return kind in self._seconds

    def note(self, kind, seconds):
        """A call of that kind has run among others, for so long, its commit not included."""
        with self._lock:
            old = self._seconds.get(kind, seconds)
            self._seconds[kind] = old + self.WEIGHT * (seconds - old)

    def note_alone(self, kind, seconds, shared_seconds=0.0):
        """A call of that kind has run alone; see End."""
        with self._lock:
            self._seconds.setdefault(kind, seconds - shared_seconds)
            self._shared_seconds += self.WEIGHT * (shared_seconds - self._shared_seconds)

    def note_unfit(self, kind, why):
        """Calls of that kind can't share a transaction: never again in this process."""
        with self._lock:
            told = kind in self._unfit
            self._unfit.add(kind)
        if not told:
            log.warning('calls of %s run one by one from now on, they are not fit to share a '
                        'transaction: %s', ' '.join(kind), why)
