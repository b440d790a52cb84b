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
        self.reconnected = False

    def watch(self, db):
        """Be woken by the commits that reach `db`; harmless where the storage pushes nothing."""
        adapter = db._mvcc_storage
        if isinstance(adapter, MVCCAdapter) and hasattr(db.storage, 'registerDB'):
            db.storage.registerDB(_Listener(adapter, self))

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

    def __init__(self, adapter, wakeup):
        self._adapter = adapter
        self._wakeup = wakeup

    def invalidate(self, transaction_id, oids):
        """A commit of another client."""
        self._adapter.invalidate(transaction_id, oids)
        self._wakeup.notify()

    def invalidateCache(self):
        """The connection was lost for so long that the cache can't be trusted."""
        self._adapter.invalidateCache()
        self._wakeup.reconnected = True
        self._wakeup.notify()

    def __getattr__(self, name):
        return getattr(self._adapter, name)
