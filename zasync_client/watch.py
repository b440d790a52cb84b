"""The watch over a transaction that several calls share: what did one of them do to it?

Imports: away, fence, zasync.
"""

import transaction
from transaction._transaction import Status

from Products.zasync.errors import CommitRefused
from Products.zasync.failure import name_of
from Products.zasync.failure import text_of
from Products.zasync.putting import Kept
from Products.zasync.putting import note_commit
from Products.zasync.savepoints import Savepoint

from .away import is_away
from .fence import second_connections


class Unfit(Exception):
    """A call has done what can not be undone for it alone, or can not be committed with others."""


class Watch:
    """Compares a transaction with what it was before a call ran in it.

    connection -- of this thread.
    """

    def __init__(self, connection):
        self._connection = connection
        self._transaction = transaction.get()
        self._has_checkpoint = False

    def save(self):
        """What was done so far stays, whatever the next call does. Raises Unfit."""
        try:
            self._savepoint = Savepoint(transaction.get())
        except Exception as error:
            if is_away(error):
                raise
            raise Unfit(f'what it changed can not be stored ({name_of(type(error))}: '
                        f'{text_of(error)})') from error
        self._hooks = self._count_hooks()
        self._data = self._kept_data()
        self._guarded = {each: dict(each._readCurrent) for each in self._connections()}

    def refuse_checkpoint(self, memo):
        """What the call gets for a checkpoint. It can not hide that it asked for one."""
        self._has_checkpoint = True
        raise CommitRefused('a call that shares a transaction with others has no checkpoints')

    def check(self):
        """Raise Unfit if what the call did can not be told from what others do."""
        current = self._transaction
        if transaction.get() is not current or current.status is not Status.ACTIVE:
            raise Unfit('it committed or aborted its transaction, or tried to')
        if self._has_checkpoint:
            raise Unfit('it makes checkpoints')
        if self._count_hooks() != self._hooks:
            raise Unfit('it has something called at the end of its transaction')
        if self._kept_data() != self._data:
            raise Unfit('it keeps something with its transaction, for all that is done there')
        if self._savepoint.is_overwritten():
            raise Unfit('it has stored by a savepoint of its own a blob that was stored before')
        if second_connections(current, self._connection):
            raise Unfit('it changes a database through two connections')
        for resource in current._resources:
            if not hasattr(resource, 'savepoint'):
                raise Unfit(f'its data manager {type(resource).__name__} has no savepoints')

    def roll_back(self):
        """Undo what the call did. Raises Unfit."""
        if transaction.get() is self._transaction:
            try:
                self._savepoint.rollback()
            except Exception as error:
                if is_away(error):
                    raise
                raise Unfit(f'it could not be rolled back ({name_of(type(error))}: '
                            f'{text_of(error)})') from error
        self.check()
        # The objects which calls before it rely on not having changed; a rollback leaves some
        # out that it stored by a savepoint of its own.
        for each in self._connections():
            each._readCurrent.clear()
            each._readCurrent.update(self._guarded.get(each, {}))

    def _connections(self):
        return self._connection.connections.values()

    def _kept_data(self):
        """What others' code keeps for as long as the transaction lasts, by the ids of its keys."""
        kept = getattr(self._transaction, '_data', {})
        return {key: id(value) for key, value in kept.items() if type(value) is not Kept}

    def _count_hooks(self):
        current = self._transaction
        return [sum(hook is not note_commit for hook, _args, _kwargs in hooks) for hooks in (
            current.getBeforeCommitHooks(), current.getAfterCommitHooks(),
            current.getBeforeAbortHooks(), current.getAfterAbortHooks())]
