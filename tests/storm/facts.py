"""What is known when a storm is over: the journal, the database at its end, and its history.

Imports: plan, history, journal, ZODB.
"""

from typing import NamedTuple

import ZODB
from Acquisition import aq_base
from ZODB.FileStorage import FileStorage

from tests.storm import history
from tests.storm import journal
from tests.storm import plan


class Fate(NamedTuple):
    """How a call ended, as the database has it; result -- None if it can't be read."""

    state: str
    result: object
    failure: str | None
    attempts: tuple


class Facts(NamedTuple):
    """lines -- the journal. fates -- {id: Fate} of the calls that were put. effects -- {token: ids
    of the calls that did it}. unread -- objects that can't be loaded. numbers -- {'wanted' and
    'done': {name: n}}. transactions -- of the whole history. managers -- {oid of a desk: id}.
    deeds, left, idle -- of the World. given_back -- ids of calls that workers say they gave back,
    or tried to. log -- lines of their logs that tell of trouble.
    """

    lines: list
    fates: dict
    effects: dict
    unread: list
    numbers: dict
    transactions: list
    managers: dict
    deeds: list
    left: str | None
    idle: tuple
    given_back: set
    log: list


def gather(world):
    """The Facts of a World whose storm is over."""
    lines = journal.read(world.journal)
    storage = FileStorage(str(world.directory / 'Data.fs'), read_only=True)
    db = ZODB.DB(storage)
    connection = db.open()
    try:
        root = connection.root()
        zad = root['Application'].asynchronous_call_dispatcher
        fates = _fates(zad, lines)
        effects = {token: effect.calls for tree in root['effects']
                   for token, effect in tree.items()}
        numbers = {what: {name: number.n for name, number in root[what].items()}
                   for what in ('wanted', 'done')}
        managers = {zad[name].queue.desk._p_oid: name for name in plan.WORKERS}
        unread = _unread(connection)
    finally:
        connection.close()
        db.close()
    return Facts(lines, fates, effects, unread, numbers, history.read(world.files()), managers,
                 world.deeds, world.left, world.idle, _given_back(world), _trouble(world))


def _fates(zad, lines):
    found = {}
    for line in lines:
        if line['event'] != 'put':
            continue
        for call in line['calls']:
            if call['manager'] is None or call['id'] in found:
                continue
            deferred = aq_base(zad[call['manager']]).queue.find(call['id'])
            if deferred is not None:
                failure = deferred.failure
                found[call['id']] = Fate(
                    deferred.state, deferred.result, None if failure is None else str(failure),
                    tuple(attempt.outcome for attempt in deferred.attempts))
    return found


def _unread(connection):
    """The oids that can be reached and not be loaded: a database without them has lost something.
    """
    from ZODB.serialize import referencesf
    storage, todo, seen, unread = connection._storage, [b'\0' * 8], set(), []
    while todo:
        oid = todo.pop()
        if oid in seen:
            continue
        seen.add(oid)
        try:
            data, _ = storage.load(oid)
        except KeyError as reason:
            unread.append(repr(reason))
            continue
        todo += referencesf(data)
    return unread


def _given_back(world):
    return {line.partition('] call ')[2].partition(' ')[0] for _, line in _log(world)
            if ' goes back to the queue ' in line}


def _trouble(world):
    """Lines of the workers' logs that should never be there: of errors they can't handle."""
    return [f'{name}: {line}' for name, line in _log(world) if ' CRITICAL [zasync]' in line]


def _log(world):
    """The (worker, line) of the workers' logs."""
    for name in plan.WORKERS:
        path = world.directory / 'site' / 'instance' / 'log' / f'{name}.log'
        for line in path.read_text('utf-8', 'replace').splitlines():
            yield name, line
