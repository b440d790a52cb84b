"""Being told of commits: the only module that knows a storage's ways.

A ZEO server pushes each commit to all its clients but the one that made it, in
milliseconds. What other threads of this process commit, whatever the storage, goes
through the one adapter that all connections of a database share. Any commit wakes
the worker: a look at its lanes costs less than knowing which object was meant.
Polling remains as the safety net, and is all there is where neither way is open.

Imports: zasync.clock.
"""

import threading
import weakref

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
        self._thread = None

    def watch(self, db):
        """Be woken by the commits that reach `db`; harmless where nobody tells of them."""
        _ears_of(db).add(self)

    def notify(self):
        """Somebody committed. Called in ZEO's network thread: nothing but a flag."""
        self._event.set()

    def notify_here(self):
        """A thread of this process committed. The one that looks knows what it did itself."""
        if threading.get_ident() != self._thread:
            self._event.set()

    def notify_own(self):
        """One of this process's threads has something for the beat: it need not be spaced."""
        self._hurry.set()
        self._event.set()

    def start_looking(self):
        """To be called before each look, and before its transaction begins.

        The other order would lose a commit that arrives between the two.
        """
        self._thread = threading.get_ident()
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


class _Ears:
    """The Wakeups that are told of the commits that reach one database."""

    def __init__(self, db):
        self._lock = threading.Lock()
        self._wakeups = ()
        adapter = db._mvcc_storage
        if not isinstance(adapter, MVCCAdapter):
            return
        if hasattr(db.storage, 'registerDB'):
            db.storage.registerDB(_Listener(adapter, self, db.storage))
        # What all commits made through the adapter pass, with a name that promises nothing.
        finish = getattr(adapter, '_invalidate_finish', None)
        if callable(finish):
            adapter._invalidate_finish = _OwnCommits(finish, self)

    def add(self, wakeup):
        """Tell that Wakeup, as long as somebody else holds it."""
        with self._lock:
            alive = [each for each in self._wakeups if each() not in (None, wakeup)]
            # A new tuple: whoever tells, in a commit, must not be disturbed.
            self._wakeups = (*alive, weakref.ref(wakeup))

    def of_others(self):
        """A commit of another client."""
        for each in self._wakeups:
            if (wakeup := each()) is not None:
                wakeup.notify()

    def of_ours(self):
        """A commit of this process."""
        for each in self._wakeups:
            if (wakeup := each()) is not None:
                wakeup.notify_here()


#: ZODB.DB → its _Ears
_all_ears = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _ears_of(db):
    with _lock:
        if db not in _all_ears:
            _all_ears[db] = _Ears(db)
        return _all_ears[db]


class _OwnCommits:
    """Stands in for the method of an adapter that tells its instances of a commit."""

    def __init__(self, finish, ears):
        self._finish = finish
        self._ears = ears

    def __call__(self, *args, **kwargs):
        # In this order whoever is woken sees the commit.
        self._finish(*args, **kwargs)
        self._ears.of_ours()


class _Listener:
    """Stands between a storage and its database, and hears what the one tells the other."""

    def __init__(self, adapter, ears, storage):
        self._adapter = adapter
        self._ears = ears
        self._storage = storage

    def invalidate(self, transaction_id, oids):
        """A commit of another client."""
        self._adapter.invalidate(transaction_id, oids)
        self._ears.of_others()

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
        self._ears.of_others()

    def __getattr__(self, name):
        return getattr(self._adapter, name)
