"""The fence: while a call runs, no commit of its thread succeeds but its owner's (I3).

Each commit made in a pool thread while a call runs writes the call's deferred, or
is refused because the call is no longer ours. So of two workers that both believe
they own a call the second meets a conflict, also when the call's code commits on
its way, by a checkpoint or behind our back. Nor is a commit let through that would never end.

Imports: zasync.errors.
"""

import pickle
from contextlib import contextmanager
from typing import NamedTuple

import transaction
from transaction._transaction import Status
from ZODB.Connection import Connection
from zope.interface import implementer

from Products.zasync.errors import CommitRefused
from Products.zasync.errors import NotOurs


#: Longest description of a transaction, in bytes, and so much of other information. A FileStorage
#: takes 65,535 of each.
NOTES_MOST = 60_000


class _Call(NamedTuple):
    """The call that runs. opened -- when its connection was opened: its code may close that."""

    id: str
    deferred: object
    boot: str
    attempt: int
    opened: float

    @property
    def is_connected(self):
        """Whether its connection is open as it was; else it may be another thread's by now."""
        return self.deferred._p_jar.opened == self.opened


class Fence:
    """A synchronizer for one thread. Keep a reference: the transaction manager holds it weakly.

    wake -- callable() for the beat: a storage tells a process nothing of its own
    commits, and a call may have put others.
    """

    def __init__(self, wake):
        self._wake = wake
        self._call = None
        self._ending = None
        self._closed = False

    @contextmanager
    def around(self, deferred, boot, attempt):
        """Guard the commits of the body, which runs that attempt of that call.

        Raises CommitRefused at its end if what it has left can't be committed.
        """
        connection = deferred._p_jar
        call = self._call = _Call(deferred.id, deferred, boot, attempt, connection.opened)
        transaction.manager.registerSynch(self)  # each time: a call may have cleared them
        try:
            yield
            # The end of the call is written through another connection than one it has closed.
            if second_connections(transaction.get(), connection, call.is_connected):
                raise _through_two(call.id)
        finally:
            self._call = None

    @contextmanager
    def ending(self, deferred):
        """The body commits the end of that call, and runs first what it has left to hooks."""
        self._ending = deferred.id, deferred._p_jar
        transaction.manager.registerSynch(self)
        try:
            yield
        finally:
            self._ending = None

    @contextmanager
    def closed(self):
        """Refuse all commits of the body: its transaction is not its own."""
        self._closed = True
        transaction.manager.registerSynch(self)
        try:
            yield
        finally:
            self._closed = False

    def drop_others(self):
        """Have nobody else but connections told of this thread's transactions; → whether any was.

        What the code of a call has left there stays for the next one, and may raise at each begin.
        """
        told = []
        transaction.manager.manager._synchs.map(told.append)
        others = [each for each in told if each is not self and not isinstance(each, Connection)]
        for each in others:
            transaction.manager.unregisterSynch(each)
        return bool(others)

    def beforeCompletion(self, current):
        """Commit and abort both come here; only a commit looks at what is joined.

        Raising here would break the abort as well. The status tells a live
        transaction from one whose commit was refused already.
        """
        if current.status is not Status.ACTIVE:
            return
        refused = self._why_refused(current)
        if self._call is not None or self._ending is not None:
            refused = refused or _fit_notes(current)
        if refused is not None:
            # All connections are asked to begin the commit before anybody votes on it.
            _keep_one_each(current)
            current.join(_Refusal(refused))

    def _why_refused(self, current):
        """The error of a commit that may not be; None if it may, and then it is the owner's."""
        if self._closed:
            return CommitRefused('a call that shares a transaction with others can not commit')
        if self._ending is not None:
            id, connection = self._ending
            return _through_two(id) if second_connections(current, connection) else None
        if self._call is None:
            return None
        call, deferred = self._call, self._call.deferred
        if not call.is_connected:
            return CommitRefused(f'the call {call.id} has closed the connection that it was '
                                 'given: it can not commit any more')
        try:
            if not deferred.is_owned_by(call.boot, call.attempt):
                return NotOurs(f'the call {call.id} has gone to another run')
        except Exception as error:  # the server is away: a commit can't succeed anyway
            return error
        deferred._p_changed = True
        return _through_two(call.id) if second_connections(current, deferred._p_jar) else None

    def afterCompletion(self, current):
        """Wake the beat."""
        if self._call is not None:
            # crash point 11: the code of a call has committed by itself; that stays, the call runs
            # again.
            self._wake()

    def newTransaction(self, current):
        """Nothing to do."""


def second_connections(current, connection, is_ours=True):
    """What takes part in that transaction though another connection to its database does.

    connection -- that of the call, which does, and those that belong to it; is_ours -- or others
    to these databases, if it has closed them. A storage lets one commit in at a time: the second
    would wait for the first, and with it all commits of the process, for ever.
    """
    ours = list(connection.connections.values())
    databases, found = [each.db() for each in ours], []
    for each in current._resources:
        if isinstance(each, Connection) and not (is_ours and each in ours):
            if each.db() in databases:
                found.append(each)
            databases.append(each.db())
    return found


def _keep_one_each(current):
    """Take out of a transaction what would wait for another connection to the same database."""
    databases = []
    for each in [each for each in current._resources if isinstance(each, Connection)]:
        if each.db() in databases:
            each.abort(current)
            current._resources.remove(each)
        databases.append(each.db())


def _fit_notes(current):
    """Cut what is noted with a transaction to what a storage takes; → the error if that can't be.

    A storage refuses what is longer as it does what it can't take just now.
    """
    if len(current.description) > NOTES_MOST // 4:  # a character has four bytes at most
        kept = current.description.encode('utf-8', 'ignore')[:NOTES_MOST]
        current.description = kept.decode('utf-8', 'ignore')
    try:
        apart = len(pickle.dumps((current.user, current.extension)))
    except Exception as error:  # of what the call has put there
        refused = error
    else:
        if apart <= NOTES_MOST:
            return None
        refused = CommitRefused('the user and the extended information of a transaction have '
                                f'{apart:,} bytes, more than a storage takes')
    # They are given to the storage before anybody votes.
    current.user, current.extension = '', {}
    return refused


def _through_two(id):
    return CommitRefused(
        f'the call {id} has changed a database through two connections, which can not be '
        'committed together: take objects from the application that the call has, or give the '
        'other connection a transaction manager of its own')


@implementer(transaction.interfaces.IDataManager)
class _Refusal:
    """A data manager that votes no."""

    transaction_manager = transaction.manager

    def __init__(self, error):
        self._error = error

    def tpc_begin(self, current):
        """Nothing to do."""

    def commit(self, current):
        """Nothing to do."""

    def tpc_vote(self, current):
        """Refuse."""
        raise self._error

    def tpc_finish(self, current):
        """Never reached."""

    def tpc_abort(self, current):
        """Nothing to do."""

    def abort(self, current):
        """Nothing to do."""

    def sortKey(self):
        """First: nobody else need be asked."""
        return ''
