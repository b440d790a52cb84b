"""Lists of calls, a page at a time, and what is done to many of them.

A list loads no call but those it shows, and those it must look at to see whether they
fit: where a call hangs tells its place and when it was put. Of the archive it loads no more leaves
than that takes.

Imports: interfaces, deferred, places, trees, errors.
"""

import math
import threading
from bisect import insort
from heapq import merge
from itertools import groupby
from itertools import islice
from operator import itemgetter

import transaction
from persistent import GHOST
from ZODB.POSException import POSKeyError

from .deferred import is_there
from .errors import told
from .interfaces import CALLBACK
from .interfaces import CANCELLED
from .interfaces import EXPIRED
from .interfaces import FAILED
from .interfaces import FINAL_STATES
from .interfaces import NEW
from .interfaces import RESOLVED
from .interfaces import STATES
from .places import filing_key
from .places import moment_of
from .places import MOVED_LANE
from .places import NOT_BEFORE
from .places import parse_filing_key
from .places import parse_id
from .places import PLACE
from .places import place_in_lane
from .trees import ask_for
from .trees import ask_for_leaves


#: Calls that one transaction purges, or retries, and that one page holds, at most.
MOST = 10_000

#: Calls that one transaction purges, or retries, at least, however many conflicts came before.
LEAST = 100

#: The clock of the host that put a call is no further ahead of the one of its worker. Seconds.
SKEW_SECONDS = 86_400.0

#: In a lane calls are in the order of their puts, but for those of hosts whose clocks differ. Who
#: puts many by a lane is alone there: of what has come before a call no more than so many seem to
#: have been put after it.
APART = 64

#: Calls that wait for their time and are gone through to find the newest; of more, lane by lane.
LATER_MOST = 10_000

#: Calls that are loaded together.
TOGETHER = 1_000

_by_key = itemgetter(0)
_thread = threading.local()


def page(queue, state=None, plugin=None, user=None, start=None, limit=100):
    """See IAsynchronousCallManager.calls. Raises ValueError for what is no state, no limit."""
    return search(queue, state, plugin, user, start, limit)[0]


def search(queue, state=None, plugin=None, user=None, start=None, limit=100, most=math.inf):
    """([Deferred] as `page` has them, the last one looked at if the search stopped there).

    most -- so many are looked at: of a million that ended few may fit, and each is loaded. The
    second is None when all were looked at, or enough found.
    """
    if state is not None and state not in STATES:
        raise ValueError(f'{told(state)} is no state of a call; they are {", ".join(STATES)}')
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST:
        raise ValueError(f'a page of calls holds 1 to {MOST:,} of them, not {told(limit)}')
    found, shown, looked = [], set(), 0
    items = _all(queue, state) if start is None else _after(queue, state, start, shown)
    items = iter(items)
    while some := list(islice(items, min(TOGETHER, limit - len(found), max(1, most - looked)))):
        ask_for(deferred for _, deferred in some if deferred is not None)
        for _, deferred in some:
            mark = _mark_of(deferred)
            if mark in shown:
                continue
            shown.add(mark)
            was_ghost = deferred._p_state == GHOST
            if _fits(deferred, state, plugin, user):
                found.append(deferred)
                if len(found) == limit:
                    return found, None
            elif was_ghost:  # of a million few may fit
                deferred._p_deactivate()
            looked += 1
            if looked >= most and is_there(deferred):
                return found, deferred
    return found, None


def _after(queue, state, start, shown):
    """What comes after the call of that id. shown -- gets the marks of what comes before.

    If it is there no more, since it has another state by now, what was put before it.
    """
    last = queue.find(start) if isinstance(start, str) else None
    if last is not None and _fits(last, state, None, None):
        for slices in _slices(queue, state):
            for end in slices.keys():
                if filing_key(start) in slices[end]:
                    # It has not been met before, nor will what is in there.
                    yield from _by_slice(slices, end, filing_key(start))
                    return
    if last is not None and start in _on_desk(queue) and not _fits(last, state, None, None):
        last = None  # it runs, and is met there only because calls of any state are
    mark, passed = _mark_of(last), set()
    items = iter(_all(queue, state))
    for _, deferred in items:
        passed.add(_mark_of(deferred))
        if mark in passed:
            shown.update(passed)
            yield from items
            return
    try:
        lane_number, number, put_at = parse_id(start)
    except (ValueError, AttributeError, TypeError, OverflowError):  # it is no id
        return
    for key, deferred in _all(queue, state):
        if key < (put_at, (lane_number, number)):
            yield key, deferred


def _fits(deferred, state, plugin, user):
    try:
        found = deferred.state  # in each case: a page shows it
        return (state in (None, found)
                and (plugin is None or deferred.plugin == plugin)
                and (user is None
                     or (deferred.caller.user_id or deferred.caller.special) == user))
    except POSKeyError:  # its put was undone
        return False


def _mark_of(deferred):
    """What tells one call from another, known without loading it."""
    return (deferred is not None and deferred._p_oid) or id(deferred)


# where calls may be: each yields ((put_at, (lane number, number)), Deferred), and loads none

def _all(queue, state):
    """The calls that may be in `state` (None: all), some of them twice."""
    for source, states in (
            (_running, STATES), (_waiting, (NEW, CALLBACK)), (_cancelled, (CANCELLED,)),
            (_failed, (FAILED,)), (_archived, (RESOLVED,)), (_withdrawn, (CANCELLED, EXPIRED))):
        if state is None or state in states:
            yield from source(queue)


def _running(queue):
    return _newest_first(_on_desk(queue))


def _on_desk(queue):
    return queue.desk.running | queue.desk.reserved


def _waiting(queue):
    """What was taken in and what is still in the lanes, newest first."""
    waiting = queue.waiting
    return merge(*_runs(waiting.ready), *_runs(waiting.blocked), *_runs(waiting.parked),
                 *_later(queue), *_in_lanes(queue), key=_by_key, reverse=True)


def _runs(calls):
    """Of a tree whose keys end with when and where a call was put, one list for each beginning."""
    found, key = [], None
    while True:
        try:
            key = calls.minKey(key)
        except ValueError:  # no more
            return found
        found.append(_run(calls, key[:-3]))
        key = (*key[:-3], math.inf)


def _run(calls, beginning):
    """The calls whose keys begin so: a leaf is loaded when its turn comes."""
    bound = (*beginning, math.inf)
    while True:
        try:
            key = calls.maxKey(bound)
        except ValueError:  # nothing so low
            return
        if key[:-3] != beginning:
            return
        yield (key[-3], key[-2:]), calls[key]
        bound = (*key[:-1], key[-1] - 1)


def _in_lanes(queue):
    """Of what is not taken in, an iterable for each lane, which loads a chunk when it has to."""
    ask_for(queue.lanes)
    ask_for(lane[lane.maxKey()] for lane in queue.lanes if lane)
    return [_in_lane(queue, number) for number in range(len(queue.lanes))]


def _in_lane(queue, lane_number):
    # What is to run once more, or came from another manager, may have been put long before it came
    # by this lane, but not after that.
    return _nearly_by_put(
        ((entry.put_at, place_in_lane(entry, lane_number, number)[2:]), entry.deferred,
         PLACE not in entry.facts)
        for number, entry in queue.not_taken_in(lane_number, newest_first=True)
        if entry.deferred is not None)


def _later(queue):
    """Of what waits for its time, some iterables: it is in the order of these times."""
    waiting, desk = queue.waiting, queue.desk
    if desk.n_later <= max(LATER_MOST, desk.n_aside):
        ask_for_leaves(waiting.later)
        return [_by_put(((place[1], place[2:]), deferred)
                        for place, deferred in waiting.later.values())]
    # The numbers in the last of these lanes tell nothing of the times of puts.
    return [*(_nearly_by_put((*item, True) for item in waiting.later_of_lane(number))
              for number in range(MOVED_LANE)),
            _by_put(waiting.later_of_lane(MOVED_LANE))]


def _nearly_by_put(items):
    """[((put_at, place), Deferred, whether no more than APART are out of order)], put in order."""
    ahead, so_many = [], 0
    for item in items:
        insort(ahead, item, key=_by_key)
        so_many += item[2]
        while so_many > APART:
            *found, counts = ahead.pop()
            so_many -= counts
            yield found
    yield from (found for *found, _ in reversed(ahead))


def _by_put(items):
    """Clocks differ, and some were put before: only who has seen all knows the order."""
    return sorted(items, key=_by_key, reverse=True)


def _cancelled(queue):
    """What was cancelled where it waits, and not yet seen by the worker."""
    return _newest_first(queue.cancelled)


def _failed(queue):
    return _newest_first(queue.failed)


def _archived(queue):
    return _by_slice(queue.archive)


def _withdrawn(queue):
    return _by_slice(queue.withdrawn)


def _slices(queue, state):
    """Where all that is in that state ends up, if it does not share that with others."""
    if state == RESOLVED:
        return [queue.archive]
    return [queue.withdrawn] if state in (CANCELLED, EXPIRED) else []


def _by_slice(slices, last=None, start=None):
    """The calls of the slices; with `start`, its filing key, those after it, in the slice `last`.
    """
    for end in reversed(slices.keys(None, last)):
        calls, bound, passed = slices[end], None, None
        if start is not None and end == last:
            bound, passed = f'{moment_of(start)}~', _place_by(parse_filing_key, start)
        for _, keys in groupby(_downwards(calls, bound), moment_of):
            for item in _sorted(calls, keys, parse_filing_key):
                if passed is None or item[0] < passed:
                    yield item


def _downwards(calls, bound=None):
    """The filing keys of a tree, the highest first: a leaf is loaded when its turn comes.

    bound -- none that is higher.
    """
    while True:
        try:
            key = calls.maxKey(bound)
        except ValueError:  # nothing so low
            return
        yield key
        bound = f'{key[:-1]}{chr(ord(key[-1]) - 1)}~'  # no key lies between the two


def _newest_first(calls):
    if not isinstance(calls, dict):
        ask_for_leaves(calls)
    return _sorted(calls, calls.keys(), parse_id)


def _sorted(calls, keys, parse):
    found = sorted(((_place_by(parse, key), key) for key in keys), reverse=True)
    return ((place, calls[key]) for place, key in found)


def _place_by(parse, key):
    lane_number, number, put_at = parse(key)
    return put_at, (lane_number, number)


# the oldest

def oldest_put(queue, now):
    """When the call was put that has waited longest, of those that may run by now; None: none.

    Of a lane it looks at the first few that are not taken in.
    """
    found, key = [], None
    while (key := _first(queue.waiting.ready, key)) is not None:
        found.append(key[1])
        key = (key[0], math.inf)  # on to the next priority
    for lane_number in range(len(queue.lanes)):
        for _, entry in islice(queue.not_taken_in(lane_number), APART):
            if entry.deferred is not None and entry.facts.get(NOT_BEFORE, 0.0) <= now:
                found.append(entry.put_at)
                break
    return min(found, default=None)


def _first(tree, key):
    try:
        return tree.minKey(key)
    except ValueError:  # no more
        return None


# many at once

def at_once():
    """How many calls this thread purges or retries next at most: few once it has met a conflict.

    The more there are the more it meets what a worker files meanwhile, or others put, and a
    request is repeated but a few times.
    """
    return getattr(_thread, 'at_once', MOST)


def note_at_once(number):
    """So many calls were purged or retried in this transaction."""
    if number:
        transaction.get().addAfterCommitHook(_note_commit, (number,))


def _note_commit(committed, number):
    _thread.at_once = min(MOST, 2 * at_once()) if committed else max(LEAST, number // 10)


def purge(queue, state, older_than, now, most=MOST):
    """See IAsynchronousCallManager.purge; `most` at a time."""
    if not isinstance(state, str) or state not in FINAL_STATES:
        raise ValueError(f'only calls that have ended can be purged, not those that are '
                         f'{told(state)}: {", ".join(sorted(FINAL_STATES))}')
    slices = queue.archive if state == RESOLVED else queue.withdrawn
    before, dropped = now - min(older_than, now), 0
    for tree, parse in ([(queue.failed, parse_id)] if state == FAILED else
                        [(tree, parse_filing_key) for tree in slices.values()]):
        # What was put since has not ended before, and is not loaded to see that.
        keys = iter([key for key in tree.keys() if parse(key)[2] <= before + SKEW_SECONDS])
        while some := [(key, tree[key]) for key in islice(keys, min(TOGETHER, most - dropped))]:
            # Together: the longer it takes, the more it meets what a worker files meanwhile.
            ask_for(deferred for _, deferred in some)
            for key, deferred in some:
                was_ghost = deferred._p_state == GHOST
                if deferred.state == state and deferred.ended_at <= before:
                    del tree[key]
                    dropped += 1
                if was_ghost:
                    deferred._p_deactivate()
        if dropped == most:
            return dropped
    return dropped
