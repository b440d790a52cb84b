"""A database in plain Python: snapshots, transactions that overlap, and who meets whom.

Records are immutable values by key. Each stands for one object of the real database, so two
transactions that write the same one can't both be committed. What many records hang in (a tree of
the archive, say) is a *shared* thing: two that write it may both be committed, or not.

What of a record is not changed by a transaction it leaves alone, though another one did: where a
call hangs is known by other objects than what it has come to.

Imports: nothing.
"""

from dataclasses import fields
from dataclasses import is_dataclass
from dataclasses import replace
from typing import NamedTuple


#: What is to become of a commit.
ACCEPTED, REFUSED, EITHER = 'accepted', 'refused', 'either'


class Commit(NamedTuple):
    """What a transaction has written. changes -- {key: (before, after)}, see `_difference`."""

    changes: dict
    written: frozenset
    shared: frozenset


class Ledger:
    """What is committed: the records, and all commits so far."""

    def __init__(self):
        self.records = {}
        self.commits = []

    def begin(self):
        """A Transaction that sees what is committed now."""
        return Transaction(self)

    def can_undo(self, number):
        """Whether nothing that the commit of that number wrote has been written since."""
        commit = self.commits[number]
        return not any(commit.written & later.written or commit.shared & later.shared
                       for later in self.commits[number + 1:])

    def undo(self, number):
        """Take back the commit of that number, as a commit of its own."""
        self._apply(_reverse(self.commits[number]))

    def after_undo(self, number):
        """The records that the undo of that commit would change, as they would be."""
        reverse = _reverse(self.commits[number])
        records = _applied(dict(self.records), reverse)
        return {key: records[key] for key in reverse.changes if key in records}

    def _apply(self, commit):
        _applied(self.records, commit)
        self.commits.append(commit)


def _reverse(commit):
    return commit._replace(changes={
        key: (after, before) for key, (before, after) in commit.changes.items()})


def _applied(records, commit):
    for key, (_, after) in commit.changes.items():
        if after is None:
            records.pop(key, None)
        elif not isinstance(after, dict):
            records[key] = after
        elif key in records:  # else what made it was undone
            records[key] = replace(records[key], **after)
    return records


def _difference(before, after):
    """(before, after), of records of one class only the fields that differ, as mappings."""
    if type(before) is not type(after) or not is_dataclass(after):
        return before, after
    names = [each.name for each in fields(after)
             if getattr(before, each.name) != getattr(after, each.name)]
    return tuple({name: getattr(each, name) for name in names} for each in (before, after))


class Transaction:
    """The records as one transaction sees them, and what it changes."""

    def __init__(self, ledger):
        self._ledger = ledger
        self._since = len(ledger.commits)
        self._base = dict(ledger.records)
        self.records = dict(ledger.records)
        self._changed = set()
        self._written = set()
        self._shared = set()
        self._relied = set()

    def __getitem__(self, key):
        return self.records[key]

    def get(self, key, default=None):
        """The record of that key."""
        return self.records.get(key, default)

    def __setitem__(self, key, value):
        self.note(key, value)
        self._written.add(key)

    def note(self, key, value):
        """It is that now, and its object is not written for it."""
        self.records[key] = value
        self._changed.add(key)

    def write(self, key):
        """Its object is written; it has no record that we know of."""
        self._written.add(key)

    def share(self, name):
        """That shared thing is written."""
        self._shared.add(name)

    def rely(self, key):
        """It is committed only if that record has not been written meanwhile."""
        self._relied.add(key)

    def savepoint(self):
        """Something for `rollback`."""
        return dict(self.records), set(self._changed), set(self._written), set(self._shared)

    def rollback(self, savepoint):
        """Be as at that savepoint. What was relied upon since still is."""
        records, *others = savepoint
        self.records = dict(records)
        self._changed, self._written, self._shared = map(set, others)

    def is_new(self, key):
        """Whether that record is of this transaction."""
        return key in self.records and key not in self._base

    def fate(self):
        """What is to become of it if it is committed now."""
        since = self._ledger.commits[self._since:]
        if any((self._written | self._relied) & each.written for each in since):
            return REFUSED
        return EITHER if any(self._shared & each.shared for each in since) else ACCEPTED

    def commit(self):
        """It has been committed."""
        if self._written or self._shared:
            self._ledger._apply(Commit(
                {key: _difference(self._base.get(key), self.records.get(key))
                 for key in self._changed},
                frozenset(self._written), frozenset(self._shared)))
