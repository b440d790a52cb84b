"""Putting a call into a queue, in the caller's transaction.

Imports: running, lanes, staleoids, wakeup, clock, interfaces, errors.
"""

import sys
from collections.abc import Callable
from typing import Any

import transaction

from . import clock
from . import lanes
from . import running
from . import wakeup
from .errors import BadCall
from .interfaces import NEW
from .staleoids import forget_loaded
from .staleoids import is_stale_oid


#: What a connection gives an object that was never stored.
NO_SERIAL = b'\0' * 8


class StandIn:
    """What stands in for workers in tests, see `testing`; elsewhere nothing does.

    serve -- callable(queue, manager or None), called after each put, and when a pause ends. While
    there is one each manager counts as having a living worker. plugins -- names of what that
    worker offers beyond what the managers know already.
    """

    serve: Callable[..., Any] | None = None
    plugins: tuple[str, ...] = ()


def after_put(queue, manager=None):
    """A call has been put to `queue`, its callbacks included, or may run; `manager` if known."""
    if StandIn.serve is not None:
        StandIn.serve(queue, manager)


def put(queue, names, call, manager_id):
    """Queue `call`, and its members before it; → its Deferred.

    names -- the Names that `queue` shares. manager_id -- of the queue's manager.
    Raises BadCall if that was deleted: somebody has kept it.
    """
    _refuse_closed(queue, 'the call')
    members = [put(queue, names, member, manager_id) for member in call.members]
    deferred = put_after(queue, call, members, names)
    if call.key is not None:
        names.key(_own_key(call)).take(deferred.id, manager_id, queue._p_oid)
    return deferred


def put_after(queue, call, after, names=None):
    """Queue `call`, to run after the ends of the Deferreds in `after`; → its Deferred."""
    deferred = queue.put(call, lanes.current(), names, after)
    run = running.current()
    if run is not None:
        run.note_put(deferred)
    # crash point 1: the request that puts is not committed; there is no call.
    _watch_commit(deferred)
    return deferred


def put_again(queue, deferred, names, manager_id, queue_of, queues=dict):
    """Have a call that failed for good run once more.

    names -- the Names that `queue` shares. manager_id -- of the queue's manager. It may have had
    others when it failed. queue_of, queues -- see find_joined. Raises BadCall if the manager was
    deleted.
    """
    _refuse_closed(queue, f'the call {deferred.id}')
    queue.put_again(deferred, lanes.current(), names)
    if deferred.key is not None:
        key, place = names.key(_own_key(deferred)), (manager_id, queue._p_oid)
        if key.call_id != deferred.id:
            if _waiting_with(key, queue_of, queues, clock.SYSTEM.now()) is None:
                key.take(deferred.id, *place)
        elif place != (key.manager_id, key.queue_oid):
            key.move(deferred.id, *place)
    # crash point 6: the request that has it run again is not committed; it stays failed.
    _watch_commit(deferred)


def _refuse_closed(queue, what):
    if queue.closed:
        raise BadCall(f'the manager was deleted: nobody would run {what}')


def receive(queue, deferred, intake, names, manager_id, **waits):
    """Have a call of another queue that waits go to this one; waits -- see Queue.receive."""
    queue.receive(deferred, intake, lanes.current(), **waits)
    key = None if deferred.key is None else names.find_key(_own_key(deferred))
    if key is not None:
        key.move(deferred.id, manager_id, queue._p_oid)
    _watch_commit(deferred)


def find_joined(names, queue_of, call, queues=dict):
    """(manager id, Deferred) of the waiting call that `call` joins by its key, or None.

    queue_of -- callable(manager id) → the Queue of that manager, which shares `names`, or
    None. queues -- callable() → {manager id: Queue} of all that do. The transaction then
    holds only as long as the call that is joined is not claimed: whoever joins it relies on
    its running later than now.
    """
    key = None if call.key is None else names.find_key(_own_key(call))
    found = key and _waiting_with(key, queue_of, queues, call.put_at)
    if found is None:
        return None
    manager_id, waiting = found
    if waiting._p_jar is not None and waiting._p_serial != NO_SERIAL:
        waiting._p_jar.readCurrent(waiting)
    return manager_id, waiting


def _waiting_with(key, queue_of, queues, now):
    """(manager id, Deferred) of the call that was put with that Key last, if it waits; or None."""
    if key.call_id is None:
        return None
    manager_id, waiting = _put_with(key, queue_of, queues)
    if waiting is None or waiting.state != NEW or waiting.is_expired(now):
        return None
    return manager_id, waiting


def _put_with(key, queue_of, queues):
    """(manager id, Deferred or None) of the call that was put with that Key last."""
    queue = queue_of(key.manager_id)
    if key.is_of(queue):
        return key.manager_id, queue.find_waiting(key.call_id)
    # Its manager was renamed, or is gone: what it was running has gone to another then.
    for id, queue in queues().items():
        waiting = queue.find_waiting(key.call_id)
        if waiting is not None and waiting.is_in(queue):
            return id, waiting
    return None, None


def _own_key(call):
    """The key as a name: a caller's own, and in a session call the browser's.

    Else anybody could have others' calls join a call of theirs, and read results that
    are not theirs.
    """
    caller = call.caller
    return repr((call.key, caller.user_id, caller.folder, caller.special, caller.owner,
                 call.session))


def transaction_of(thing):
    """The transaction in which a persistent object, unwrapped, is changed now.

    Its connection may have a transaction manager of its own; a closed one has none.
    """
    own = getattr(thing._p_jar, 'transaction_manager', None)
    return (transaction.manager if own is None else own).get()


class Kept(dict[Any, Any]):
    """What code of ours keeps with a transaction: it knows of rollbacks, and that calls share it.
    """


def kept_by(owner: object, current: Any = None) -> Kept:
    """What `owner` keeps with a transaction, by default this thread's; empty at first."""
    current = current or transaction.get()
    try:
        kept: Kept = current.data(owner)
    except KeyError:
        kept = Kept()
        current.set_data(owner, kept)
    return kept


def _watch_commit(deferred):
    """Have the end of this transaction tell us of our lane and of the storage's clock; once."""
    current = transaction_of(deferred)
    kept = kept_by(_watch_commit, current)
    if not kept:
        kept['put'] = []
        # crash point 2, at the vote: as 1; the servers drop what was voted for.
        current.addAfterCommitHook(note_commit, (kept['put'],))
    kept['put'].append((deferred, deferred._p_serial))


def note_commit(committed, put):
    """The hook of a transaction that puts calls, to whatever databases.

    put -- [(Deferred, its serial before)]. What is in no database was rolled back; what has that
    serial still may have been, or is not loaded again.
    """
    if not committed:
        lanes.move()
        if is_stale_oid(sys.exc_info()[1]):
            forget_loaded()
        return
    serials = {}
    for deferred, before in put:
        if deferred._p_jar is not None:
            db, serial = deferred._p_jar.db(), deferred._p_serial
            serials[db] = serials.get(db) if serial == before else serial
    for db, serial in serials.items():
        # crash point 3: the put is committed and nobody is told; the call runs.
        clock.storage_clock(db.database_name).observe(serial, clock.SYSTEM.monotonic())
        wakeup.tell(db)
