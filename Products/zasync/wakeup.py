"""Being told of commits: the only module that knows a storage's ways.

A ZEO server pushes each commit to all its clients but the one that made it, in
milliseconds. What other threads of this process commit, whatever the storage, goes
through the one adapter that all connections of a database share. RelStorage tells nobody
of anything; on PostgreSQL whoever has put a call says so after its commit, by NOTIFY on a
connection apart, and a worker listens there. Any commit wakes the worker: a look at its
lanes costs less than knowing which object was meant. Polling remains as the safety net, and
is all there is where none of these ways is open.

Imports: clock.
"""

import logging
import select
import threading
import weakref

from ZODB.mvccadapter import MVCCAdapter

from . import clock


log = logging.getLogger('zasync')

#: Shortest time between two looks when others' commits wake us, in seconds. At a
#: hundred commits a second looking at each would only cost processor time.
LOOK_SECONDS = 0.02
#: The same when whoever looks has all it can do, and is told by its threads when it has not.
BUSY_LOOK_SECONDS = 0.1

#: What is said, and listened for, in PostgreSQL.
CHANNEL = 'zasync'
#: Between two tries to reach PostgreSQL on a connection apart, at most. Seconds.
REACH_SECONDS = 10.0
#: A listener that lost its connection waits so long at first, and twice as long after each try.
AGAIN_SECONDS = 0.5
#: A listener looks that often whether anybody still wants to know. Seconds.
LISTEN_SECONDS = 5.0


def tell(db):
    """Tell workers of a commit to the ZODB.DB, where its storage does not.

    Called after the commit. What goes wrong is logged: they poll as well.
    """
    channel = _channel_of(db)
    if channel is not None:
        channel.tell()


class Wakeup:
    """An alarm clock: set by commits of others, by this worker's own threads, by signals."""

    def __init__(self, clock):
        self._clock = clock
        self._hear = None
        self._event = threading.Event()
        self._hurry = threading.Event()
        self._looked_at = float('-inf')
        self._thread = None

    def watch(self, db, hear=None):
        """Be woken by the commits that reach `db`; harmless where nobody tells of them.

        hear -- callable(tid, oids), called before, in ZEO's network thread: what others have
        written.
        """
        self._hear = hear
        _ears_of(db).add(self)

    def notify(self):
        """Somebody committed. Called in ZEO's network thread: nothing but a flag."""
        self._event.set()

    def hear(self, tid, oids):
        """Others have written these objects; `notify` comes next."""
        if self._hear is not None:
            self._hear(tid, oids)

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

    def wait(self, seconds, apart=LOOK_SECONDS):
        """Wait for a reason to look again, `seconds` at most.

        apart -- seconds between two looks; what is our own is looked at earlier.
        """
        until = self._clock.monotonic() + seconds
        if seconds <= 0 or not self._clock.wait(self._event, seconds):
            return
        rest = min(self._looked_at + apart, until) - self._clock.monotonic()
        if rest > 0:
            self._clock.wait(self._hurry, rest)

    def give_way(self, seconds):
        """Let other threads go on, so long at most, unless one has something for the beat."""
        self._clock.wait(self._hurry, seconds)


class _Ears:
    """The Wakeups that are told of the commits that reach one database."""

    def __init__(self, db):
        self._lock = threading.Lock()
        self._wakeups = ()
        self._channel = _channel_of(db)
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
        if self._channel is not None:
            self._channel.listen(self)

    def of_others(self, tid=None, oids=()):
        """A commit of another client; tid, oids -- what it wrote, if that is known."""
        for each in self._wakeups:
            if (wakeup := each()) is not None:
                if oids:
                    wakeup.hear(tid, oids)
                wakeup.notify()

    def of_ours(self):
        """A commit of this process."""
        for each in self._wakeups:
            if (wakeup := each()) is not None:
                wakeup.notify_here()


    def is_used(self):
        """Whether anybody is told."""
        return any(each() is not None for each in self._wakeups)


#: ZODB.DB → its _Ears; ZODB.DB → its _Channel, or None
_all_ears = weakref.WeakKeyDictionary()
_all_channels = weakref.WeakKeyDictionary()
_lock = threading.RLock()


def _ears_of(db):
    with _lock:
        if db not in _all_ears:
            _all_ears[db] = _Ears(db)
        return _all_ears[db]


def _channel_of(db):
    with _lock:
        if db not in _all_channels:
            adapter = getattr(db.storage, '_adapter', None)
            is_there = type(adapter).__module__.startswith('relstorage.adapters.postgresql')
            _all_channels[db] = _Channel(adapter.connmanager) if is_there else None
        return _all_channels[db]


class _Channel:
    """NOTIFY and LISTEN of one PostgreSQL database, each on a connection of its own.

    manager -- RelStorage's, which knows how to connect.
    """

    def __init__(self, manager):
        self._manager = manager
        self._lock = threading.Lock()
        self._connection = self._listener = None
        self._tried_at = float('-inf')

    def tell(self):
        """NOTIFY, in the thread that asks."""
        with self._lock:
            if self._connection is not None:
                try:
                    _execute(self._connection, f'NOTIFY {CHANNEL}')
                    return
                except Exception:  # of any driver; the server was restarted, it may be
                    self._manager.close(self._connection)
                    self._connection = None
            if clock.SYSTEM.monotonic() - self._tried_at < REACH_SECONDS:
                return
            try:
                self._connection, cursor = self._manager.open()
                cursor.close()
                _execute(self._connection, f'NOTIFY {CHANNEL}')
            except Exception as reason:  # the commit itself is done
                self._tried_at = clock.SYSTEM.monotonic()
                log.warning('workers are not told of a commit, and will poll: %s', reason)
                self._manager.close(self._connection)
                self._connection = None

    def listen(self, ears):
        """Have a thread tell those Ears; it ends when they have nobody to tell."""
        with self._lock:
            if self._listener is None or not self._listener.is_alive():
                self._listener = threading.Thread(
                    target=self._listen, args=(weakref.ref(ears),), daemon=True,
                    name='zasync-postgresql')
                self._listener.start()

    def _listen(self, ears):
        never, delay = threading.Event(), AGAIN_SECONDS
        while _are_used(ears):
            connection = None
            try:
                connection, cursor = self._manager.open()
                cursor.close()
                _execute(connection, f'LISTEN {CHANNEL}')
                delay = AGAIN_SECONDS
                self._hear(connection, ears)
            except Exception as reason:  # of any driver; the worker polls meanwhile
                if delay == AGAIN_SECONDS:
                    log.warning('PostgreSQL does not tell of commits until it can be reached '
                                'again: %s', ' '.join(str(reason).split()))
                    _tell(ears)  # that there may be no server
                clock.SYSTEM.wait(never, delay)
                delay = min(2 * delay, REACH_SECONDS)
            finally:
                self._manager.close(connection)

    def _hear(self, connection, ears):
        _tell(ears)  # of what was committed while nobody listened
        while _are_used(ears):
            ready, _, _ = select.select([connection], [], [], LISTEN_SECONDS)
            if ready:
                connection.poll()
                if connection.notifies:
                    del connection.notifies[:]
                    _tell(ears)


def _execute(connection, statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.commit()


def _are_used(ears):
    found = ears()
    return found is not None and found.is_used()


def _tell(ears):
    found = ears()
    if found is not None:
        found.of_others()


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
        self._ears.of_others(transaction_id, oids)

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
