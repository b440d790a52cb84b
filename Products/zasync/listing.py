"""Lists of calls, a page at a time, and what is done to many of them.

A list never loads more than it shows and looks for: the ids tell when a call was put.

Imports: interfaces, queue.
"""

from itertools import islice

from .interfaces import ACCEPTED
from .interfaces import CALLBACK
from .interfaces import FAILED
from .interfaces import FINAL_STATES
from .interfaces import NEW
from .interfaces import STATES
from .queue import parse_id


#: Calls that one transaction purges, or retries, at most.
MOST = 10_000


def page(queue, state=None, plugin=None, user=None, start=None, limit=100):
    """See IAsynchronousCallManager.calls. Raises ValueError for a state that is none."""
    if state is not None and state not in STATES:
        raise ValueError(f'{state!r} is no state of a call; they are {", ".join(STATES)}')
    found = (deferred for deferred in _all(queue, state)
             if (state is None or deferred.state == state)
             and (plugin is None or deferred.plugin == plugin)
             and (user is None or (deferred.caller.user_id or deferred.caller.special) == user))
    if start is not None:
        found = _after(found, start)
    return list(islice(found, limit))


def _all(queue, state):
    """The calls that may be in `state` (None: all), each once."""
    seen = set()
    for source, states in ((_running, {ACCEPTED, CALLBACK, *FINAL_STATES}),
                           (_waiting, {NEW, CALLBACK}), (_in_lanes, {NEW, *FINAL_STATES}),
                           (_failed, {FAILED, NEW, CALLBACK}),
                           (_archived, FINAL_STATES - {FAILED})):
        if state is None or state in states:
            for id, deferred in source(queue):
                if id not in seen:
                    seen.add(id)
                    yield deferred


def _running(queue):
    return _newest_first(queue.desk.running)


def _waiting(queue):
    return ((deferred.id, deferred) for _, deferred in queue.waiting.items())


def _in_lanes(queue):
    for number, lane in enumerate(queue.lanes):
        mark = queue.desk.mark(number)[0]
        for entry in lane.values(mark, None, mark > 0):
            if entry[3] is not None:
                yield entry[3].id, entry[3]


def _failed(queue):
    return _newest_first(queue.failed)


def _archived(queue):
    for end in reversed(queue.archive.keys()):
        yield from _newest_first(queue.archive[end])


def _newest_first(calls):
    for id in sorted(calls.keys(), key=lambda id: parse_id(id)[2], reverse=True):
        yield id, calls[id]


def _after(found, start):
    for deferred in found:
        if deferred.id == start:
            break
    return found


def purge(queue, state, older_than, now):
    """See IAsynchronousCallManager.purge; MOST at a time."""
    if state not in FINAL_STATES:
        raise ValueError(f'only calls that have ended can be purged, not those that are '
                         f'{state!r}: {", ".join(sorted(FINAL_STATES))}')
    before, dropped = now - older_than, 0
    trees = [queue.failed] if state == FAILED else list(queue.archive.values())
    for tree in trees:
        for id, deferred in list(tree.items()):
            if dropped == MOST:
                return dropped
            if deferred.state == state and deferred.ended_at <= before:
                del tree[id]
                dropped += 1
    return dropped
