"""Connections to the ZODB, one a thread, and the unit of work.

Imports: away, errors, zasync.
"""

import errno
import logging
import threading
from contextlib import contextmanager

import transaction
from persistent import UPTODATE
from transaction._transaction import Status
from transaction.interfaces import TransientError
from ZEO.Exceptions import ClientDisconnected
from ZODB.Connection import Connection
from ZODB.POSException import ReadOnlyError
from ZODB.POSException import StorageError

from Products.zasync.deferred import Deferred
from Products.zasync.errors import ZAsyncError
from Products.zasync.interfaces import IAsynchronousCallManager
from Products.zasync.paths import at
from Products.zasync.staleoids import forget_loaded
from Products.zasync.staleoids import is_stale_oid

from .away import is_away
from .away import is_unable
from .away import told_away
from .errors import BadTarget
from .errors import TargetAway


log = logging.getLogger('zasync')

#: How long to wait for a connection to the server that was lost before that is told, in seconds.
REACH_SECONDS = 30.0
#: Whether it is back is looked at this often, in seconds.
AWAY_SECONDS = 0.2

#: Of each thread: whether its connection is not to be used any more.
_thread = threading.local()


class Database:
    """The database of a worker, seen by each thread through a connection of its own.

    db -- a ZODB.DB. target -- path of the manager, tuple.
    """

    def __init__(self, db, target, threads):
        self._db = db
        self._target = target
        self._threads = threads
        self._local = threading.local()
        #: Where the target is: in another one than the root if it is mounted.
        self._seen_in = db
        #: How many databases have room for the connections of all threads.
        self._roomy = 0
        self._make_room()

    def _make_room(self):
        """A thread keeps a connection to each database that something is mounted from.

        Zope opens those when somebody comes to what is mounted.
        """
        databases = list(self._db.databases.values())
        if len(databases) != self._roomy:
            for each in databases:
                each.setPoolSize(max(each.getPoolSize(), self._threads + 2))
            self._roomy = len(databases)

    def connection(self):
        """This thread's connection, opened when first asked for, or after a call has closed it."""
        if getattr(_thread, 'is_spoilt', False):
            _thread.is_spoilt = False
            self.close()
        self._make_room()
        connection = self._opened()
        if connection is None:
            connection = self._local.connection = self._db.open()
            self._local.opened = connection.opened
        return connection

    def close(self):
        """Close this thread's connection, its server there or not."""
        connection = self._opened()
        if connection is not None:
            del self._local.connection
            abort()
            connection.close()

    def _opened(self):
        """This thread's connection, or None: what a call has closed may be another thread's."""
        connection = getattr(self._local, 'connection', None)
        ours = connection is not None and connection.opened == self._local.opened
        told = getattr(transaction.manager.manager, '_synchs', (connection,))
        if ours and connection not in told:
            # A call has cleared them: it would never see again what others commit.
            for each in connection.connections.values():
                transaction.manager.registerSynch(each)
        return connection if ours else None

    def application(self):
        """The application root, unwrapped, in this thread's snapshot."""
        return self.connection().root()['Application']

    def manager(self, target=None):
        """The target, or the manager at that path (tuple), in this thread's snapshot.

        Raises TargetAway if there is nothing at its path, BadTarget if it is no
        manager.
        """
        target = target or self._target
        path = '/'.join(target)
        found = at(self.application(), target)
        if found is None:
            raise TargetAway(f'there is nothing at {path}')
        if not IAsynchronousCallManager.providedBy(found):
            raise BadTarget(f'the target {path} is no asynchronous call manager but '
                            f'{getattr(found, "meta_type", type(found).__name__)!r}')
        if target is self._target:
            self._seen_in = found._p_jar.db()
        return found

    def reach(self, clock, stopping):
        """Ask the servers for anything; raises ClientDisconnected while one is away.

        That of the root, and that of a target that is mounted. A look at the manager would be
        answered from the cache. Waits for a connection as long as a ZEO client does, which would
        not look whether `stopping` is set.
        """
        until = clock.monotonic() + REACH_SECONDS
        while not self.is_connected():
            if clock.wait(stopping, AWAY_SECONDS) or clock.monotonic() >= until:
                raise ClientDisconnected('no connection to the server')
        pings = [getattr(storage, 'ping', None) for storage in self._storages()]
        for ping in pings:
            if ping is not None:
                ping()
        if None in pings:
            with unit_of_work('zasync asks for the server') as work:
                # RelStorage has no ping, and asks when a transaction begins.
                self.connection()
                work.abandon()

    def is_connected(self):
        """Whether the storages believe that they have a server; True where one has no opinion."""
        asks = [getattr(storage, 'is_connected', None) for storage in self._storages()]
        return all(ask is None or ask() for ask in asks)

    def _storages(self):
        """What `reach` is about."""
        return [db.storage for db in {self._db, self._seen_in}]

    def watched(self):
        """The ZODB.DB that the target is stored in: another one if it is mounted."""
        return self.manager()._p_jar.db()

    def deferred(self, database_name, oid):
        """The deferred of that oid, in this thread's snapshot: not loaded, it may not be there."""
        cache = self.connection().get_connection(database_name)._cache
        deferred = cache.get(oid)
        if deferred is None:
            # Connection.get would load the record only to see of what class it is.
            deferred = Deferred.__new__(Deferred)
            cache.new_ghost(oid, deferred)
        return deferred

    def forget_deferred(self, database_name, oid):
        """Keep nothing of a deferred in the memory of this thread's connection.

        What has run is not asked for again, and arguments may be big.
        """
        connection = self._opened()
        if connection is not None:
            deferred = connection.get_connection(database_name)._cache.get(oid)
            if deferred is not None and deferred._p_state == UPTODATE:
                deferred.unload()

    def forget_loaded(self):
        """Keep nothing in the memory of this thread's connection that is in the database."""
        self.connection().cacheMinimize()


class StaleOid(ZAsyncError, TransientError):
    """A new object got the id of another, see zasync.staleoids.

    Wakeup forgets such ids, but some may be on their way at that moment.
    """


class UnitOfWork:
    """What the body of `unit_of_work` may say."""

    abandoned = False

    def abandon(self):
        """There was nothing to do: commit nothing."""
        self.abandoned = True


@contextmanager
def unit_of_work(note):
    """A transaction around the body: committed at its end, aborted on any exception.

    Yields a UnitOfWork. The body may have committed on its way; then what is
    committed here is the transaction it was in last. Raises a ClientDisconnected when a server
    is away, whatever the storage.
    """
    with told_away():
        transaction.begin().note(note)
        work = UnitOfWork()
        try:
            yield work
            if not work.abandoned:
                commit()
        finally:
            if _is_open():
                abort()


def abort():
    """Abort the current transaction. What goes wrong is logged: nothing was kept."""
    try:
        transaction.abort()
    except BaseException as error:  # SystemExit too; and what went wrong before has to be told
        if not is_away(error):
            log.exception('a data manager could not abort')


def _is_open():
    """Whether this thread is in a transaction, as far as that can be told.

    Ending one costs each connection a look at what others have committed, the next one's
    beginning does again.
    """
    return getattr(transaction.manager.manager, '_txn', True) is not None


def commit():
    """Commit the current transaction; raises StaleOid, and what a commit raises.

    Of a server that is away that is a ClientDisconnected, whatever the storage.
    """
    current = transaction.get()
    try:
        with told_away():
            transaction.commit()
    except ValueError as error:
        if not is_stale_oid(error):
            raise
        forget_loaded()
        _thread.is_spoilt = True
        raise StaleOid(str(error)) from error
    except BaseException as error:
        if not issubclass(type(error), Exception):
            _let_go(current)
        raise


def _let_go(current):
    """Undo the commit in the storages that a SystemExit of some data manager has kept from that.

    They would let no other commit of this process begin.
    """
    for each in current._resources:
        if isinstance(each, Connection) and current.status is Status.COMMITFAILED:
            try:
                if id(each) not in current._voted:
                    each.abort(current)
                each.tpc_abort(current)
            except KeyError:  # its part of the commit had not begun
                pass
            except Exception:  # the others have to be told
                log.exception('a storage could not undo a commit')


def is_storage_trouble(error):
    """Whether the storage may take the same commit later: a full disk, a read-only server."""
    kind = type(error)
    return issubclass(kind, (StorageError, ReadOnlyError)) or is_unable(error) or (
        issubclass(kind, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT))
