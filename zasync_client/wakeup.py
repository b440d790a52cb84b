"""Being told of commits: the only module that knows a storage's ways.

A ZEO server pushes each commit to all its clients, in milliseconds. Any commit
wakes the worker: a look at its lanes costs less than knowing which object was
meant. Polling remains as the safety net, and is all there is where a storage
pushes nothing.

Imports: zasync.clock.
"""

import threading

from ZODB.mvccadapter import MVCCAdapter


#: Shortest time between two looks when others' commits wake us, in seconds. At a
#: hundred commits a second looking at each would only cost processor time.
LOOK_SECONDS = 0.02


class Wakeup:
    """An alarm clock: set by commits of others, by this worker's own threads, by signals."""

    def __init__(self, clock):
        self._clock = clock
        self._event = threading.Event()
        self._hurry = threading.Event()
        self._looked_at = float('-inf')
        self._watched = None

    def watch(self, db):
        """Be woken by the commits that reach `db`; harmless where the storage pushes nothing."""
        if self._watched is db:
            return
        self._watched = db
        adapter = db._mvcc_storage
        if isinstance(adapter, MVCCAdapter) and hasattr(db.storage, 'registerDB'):
            db.storage.registerDB(_Listener(adapter, self, db.storage))

    def notify(self):
        """Somebody committed. Called in ZEO's network thread: nothing but a flag."""
        self._event.set()

    def notify_own(self):
        """One of this process's threads has something for the beat: it need not be spaced."""
        self._hurry.set()
        self._event.set()

    def start_looking(self):
        """To be called before each look, and before its transaction begins.

        The other order would lose a commit that arrives between the two.
        """
        self._event.clear()
        self._hurry.clear()
        self._looked_at = self._clock.monotonic()

    def wait(self, seconds):
        """Wait for a reason to look again, `seconds` at most."""
        if seconds <= 0 or not self._clock.wait(self._event, seconds):
            return
        rest = self._looked_at + LOOK_SECONDS - self._clock.monotonic()
        if rest > 0:
            self._clock.wait(self._hurry, rest)


class _Listener:
    """Stands between a storage and its database, and hears what the one tells the other."""

    def __init__(self, adapter, wakeup, storage):
        self._adapter = adapter
        self._wakeup = wakeup
        self._storage = storage

    def invalidate(self, transaction_id, oids):
        """A commit of another client."""
        self._adapter.invalidate(transaction_id, oids)
        self._wakeup.notify()

    def invalidateCache(self):
        """The storage connects, again it may be, and its cache is not to be trusted.

        A restarted ZEO server counts object ids on from the highest it has stored,
        so it gives out ids that a client which survived it still holds ready: each
        new object of that client would meet a conflict until they are used up. So
        forget them.
        """
        self._adapter.invalidateCache()
        held_ready = getattr(self._storage, '_oids', None)
        if held_ready:
            del held_ready[:]
        self._wakeup.notify()

    def __getattr__(self, name):
        return getattr(self._adapter, name)
