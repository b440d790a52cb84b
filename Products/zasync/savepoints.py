"""Savepoints that know what a rollback does not bring back: the files of blobs.

A ZODB connection keeps the bytes of a blob, once a savepoint has stored them, in one file for all
savepoints of the transaction. Who writes the blob again, and makes a savepoint, overwrites it.

Imports: errors.
"""

import os

from ZODB.Connection import Connection

from .errors import ZAsyncError


class BlobOverwritten(ZAsyncError):
    """What a blob had at the time of a savepoint is not there any more."""


class Savepoint:
    """A savepoint of that transaction; raises what keeps it from being made."""

    def __init__(self, current):
        self._transaction = current
        self._savepoint = current.savepoint(optimistic=True)
        self._files = {path: _state(path) for path in _blob_files(self._transaction)}

    def rollback(self):
        """Undo what was done since; raises what keeps it from that.

        BlobOverwritten: all but a blob is as it was. The transaction can't be committed any more.
        """
        self._savepoint.rollback()
        if self.is_overwritten():
            self._transaction.doom()
            raise BlobOverwritten('a blob that was written before has been overwritten, and a '
                                  'savepoint of its own has stored that')

    def is_overwritten(self):
        """Whether a later savepoint has stored what a blob got since, rolled back or not."""
        return any(_state(path) != before for path, before in self._files.items())


def _blob_files(current):
    """The paths of the files in which savepoints of a transaction have stored blobs."""
    for each in current._resources:
        stored = each._savepoint_storage if isinstance(each, Connection) else None
        place = getattr(stored, '_blob_dir', None)
        if place is not None:
            yield from (os.path.join(place, name) for name in os.listdir(place))


def _state(path):
    """What tells a file from one that was written later."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
