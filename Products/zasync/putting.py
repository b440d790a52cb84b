"""Putting a call into a queue, in the caller's transaction.

Imports: lanes, names, queue, clock.
"""

import transaction

from . import clock
from . import lanes


def put(queue, names, call, manager_id):
    """Queue `call`, and its members before it; → its Deferred, or the one it joins by its key.

    names -- the Names that `queue` shares. manager_id -- of the queue's manager.
    """
    joined = find_joined(names, call)
    if joined is not None:
        return joined[1]
    series = None if call.series is None else names.series(call.series)
    members = [put(queue, names, member, manager_id) for member in call.members]
    deferred = put_after(queue, call, members, series)
    if call.key is not None:
        names.key(_own_key(call)).take(deferred, manager_id)
    return deferred


def put_after(queue, call, after, series=None):
    """Queue `call`, to run after the ends of the Deferreds in `after`; → its Deferred."""
    deferred = queue.put(call, lanes.current(), series, after)
    _watch_commit(deferred)
    return deferred


def put_again(queue, deferred):
    """Have a call that failed for good run once more."""
    queue.put_again(deferred, lanes.current())
    _watch_commit(deferred)


def adopt(queue, deferred, intake, names, manager_id, **waits):
    """Have a call of another queue that waits go to this one; waits -- see Queue.adopt."""
    queue.adopt(deferred, intake, lanes.current(), **waits)
    if deferred.key is not None:
        names.key(_own_key(deferred)).move(deferred, manager_id)
    _watch_commit(deferred)


def find_joined(names, call):
    """(manager id, Deferred) of the waiting call that `call` joins by its key, or None."""
    if call.key is None:
        return None
    key = names.key(_own_key(call))
    waiting = key.waiting()
    return None if waiting is None else (key.manager_id, waiting)


def _own_key(call):
    """The key as a name: a caller's own, and in a session call the browser's.

    Else anybody could have others' calls join a call of theirs, and read results that
    are not theirs.
    """
    caller = call.caller
    return repr((call.key, caller.user_id, caller.folder, caller.special, caller.owner,
                 call.session))


def _watch_commit(deferred):
    """Have the end of this transaction tell us of our lane and of the storage's clock; once."""
    current = transaction.get()
    try:
        current.data(_watch_commit)
    except KeyError:
        current.set_data(_watch_commit, True)
        current.addAfterCommitHook(_after_commit, (deferred,))


def _after_commit(committed, deferred):
    if not committed:
        lanes.move()
    elif deferred._p_jar is not None:
        name = deferred._p_jar.db().database_name
        clock.storage_clock(name).observe(deferred._p_serial, clock.SYSTEM.monotonic())
