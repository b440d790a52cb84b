"""What the database went through: its transactions, those that were packed away included.

Imports: zasync.
"""

import io
from typing import NamedTuple

from ZODB._compat import PersistentUnpickler
from ZODB.FileStorage import FileStorage
from ZODB.utils import get_pickle_metadata

from Products.zasync.deferred import STORED


DEFERRED = 'Products.zasync.deferred', 'Deferred'
EFFECT = 'tests.storm.jobs', 'Effect'

#: Whose records are read, and not only counted.
_READ = (DEFERRED, EFFECT)


class Transaction(NamedTuple):
    """One transaction: its id (8 bytes), what it says of itself, its records by oid."""

    tid: bytes
    note: str
    records: dict


class Record(NamedTuple):
    """One record: (module, name) of its class, bytes, and the state of a Deferred or an Effect."""

    kind: tuple
    size: int
    state: dict | None


def read(paths):
    """The transactions of several files of one storage, of which some were packed; in order.

    A packed file lacks records that an earlier one still has.
    """
    found = {}
    for path in paths:
        storage = FileStorage(str(path), read_only=True)
        try:
            for each in storage.iterator():
                records = {record.oid: _read(record.data) for record in each
                           if record.data is not None}
                known = found.setdefault(
                    each.tid, Transaction(each.tid, each.description.decode('utf-8'), {}))
                known.records.update(records)
        finally:
            storage.close()
    return [found[tid] for tid in sorted(found)]


def _read(data):
    kind = get_pickle_metadata(data)
    state = _state(data) if kind in _READ else None
    if kind == DEFERRED:
        state = {STORED[number]: value for number, value in state.items()}
    return Record(kind, len(data), state)


def _state(data):
    unpickler = PersistentUnpickler(_find_class, lambda reference: None, io.BytesIO(data))
    unpickler.load()
    return unpickler.load()


def _find_class(module, name):
    """Classes are not made: what we read of the states is plain."""
    return type(name, (_Anything,), {})


class _Anything:

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass
