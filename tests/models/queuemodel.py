"""What a queue does with its calls, in plain Python: who may run, and what a beat does.

All is done in a ledger.Transaction whose records are Modelled by id, and for a series
('series', name): the id of the call that runs.

Imports: calls.
"""

from dataclasses import replace

from Products.zasync.interfaces import ACCEPTED
from Products.zasync.interfaces import CALLBACK
from Products.zasync.interfaces import FAILED
from Products.zasync.interfaces import NEW
from Products.zasync.interfaces import RESOLVED

from .calls import INTERRUPTIONS
from .calls import Modelled


def calls(records):
    """All calls, as {id: Modelled}."""
    return {key: value for key, value in records.items() if isinstance(value, Modelled)}


def has_ended(records, id):
    """Whether nobody need wait for that call; one whose put was undone is not there."""
    call = records.get(id)
    return call is None or call.ended


def is_held_up(records, call):
    """Whether it waits for the ends of others."""
    if call.state != NEW:
        return False
    if call.hurried and any(records[id].ended and records[id].failed
                            for id in call.after if id in records):
        return False
    return not all(has_ended(records, id) for id in call.after)


def is_blocked(records, call):
    """Whether another call of its series runs."""
    if call.series is None:
        return False
    return records.get(('series', call.series)) not in (None, call.id)


def lengths(records):
    """(calls that wait, calls that run)."""
    found = calls(records).values()
    return (sum(call.waits for call in found),
            sum(call.owner is not None for call in found))


def claimable(records, now):
    """The calls that a beat with enough threads would claim, one of a series, in order."""
    held = {key[1]: id for key, id in records.items() if key[0] == 'series' and id}
    for call in sorted(calls(records).values(), key=lambda call: call.place):
        if (call.waits and call.time <= now and not is_held_up(records, call)
                and held.get(call.series) in (None, call.id)):
            yield call
            if call.series is not None and not call.has_expired(now):
                held[call.series] = call.id


# what happens to one call, in a transaction

def release(t, call):
    """It runs no more."""
    name = ('series', call.series)
    if call.series is not None and t.get(name) == call.id:
        t[name] = None


def file(t, call, now):
    """It is kept with those that ended so."""
    t.note(call.id, t[call.id].file())
    t.share({RESOLVED: 'archive', FAILED: 'failed'}.get(call.state, 'withdrawn'))


def fail(t, call, now):
    """It ends badly, or its callback does, in no thread."""
    release(t, call)
    if call.state == CALLBACK:
        call = call.break_off(now)
    else:
        call = call.end_work(True, now)
    if call.ended:
        t[call.id] = call
        file(t, call, now)
    else:
        t[call.id] = replace(call, owner=None, listed=False, time=0.0, interruptions=0)


def give_back(t, call, now, begun=True, until=0.0, failed=False, interrupted=False):
    """It runs again, if it may."""
    if interrupted and call.interruptions + 1 >= INTERRUPTIONS:
        fail(t, call, now)
    elif begun and call.state == ACCEPTED and call.once:
        fail(t, call, now)
    else:
        release(t, call)
        t[call.id] = call.give_back(until, failed, interrupted)


def expire(t, call, now):
    """Nobody began it in time."""
    release(t, call)
    t[call.id] = call.expire(now)
    if t[call.id].ended:
        file(t, t[call.id], now)


# the parts of a beat

def sweep(t, ends, boot, now):
    """File what has ended. ends -- (id, attempt, how, begun, until, failed), in order."""
    for id, attempt, how, begun, until, failed in ends:
        call = t.get(id)
        if call is None or not call.listed:
            continue
        if call.ended:
            file(t, call, now)
        elif call.is_owned_by(boot, attempt):
            if how == 'not begun':
                release(t, call)
                t[id] = call.unclaim()
            else:
                undone = how == 'ended'
                give_back(t, call, now, undone or begun, until, failed)
        elif call.waits:
            t.note(id, replace(call, listed=False))


def time_out(t, call, now):
    """It runs for too long."""
    delay = call.next_delay()
    if delay is None or call.state != ACCEPTED:
        fail(t, call, now)
    else:
        release(t, call)
        t[call.id] = call.give_back(now + delay, failed=True)


def reconcile(t, held, now, interrupted=False):
    """Give out again what nobody runs. held -- {(id, attempt)}."""
    for call in list(calls(t.records).values()):
        if not call.listed or (call.id, call.attempt) in held:
            continue
        if call.ended:
            file(t, call, now)
        elif call.waits:
            t.note(call.id, replace(call, listed=False))
        else:
            give_back(t, call, now, interrupted=interrupted)


def take_in(t, now):
    """What is new is the worker's; what was cancelled or has expired where it waited is filed."""
    for call in list(calls(t.records).values()):
        if call.withdrawn:
            file(t, call, now)
            t.share('cancelled')
        elif call.waits:
            if not call.taken_in and call.attempt:  # it had failed
                t.share('failed')
            # Its object is not written: it only hangs elsewhere.
            t.note(call.id, replace(call, listed=False, taken_in=True))
            if call.noted and call.has_expired(now):
                expire(t, t[call.id], now)


def claim(t, boot, slots, now):
    """→ ids of the calls claimed, in order."""
    claimed = []
    if not slots:
        return claimed
    for call in list(claimable(t.records, now)):
        if call.has_expired(now):
            expire(t, call, now)
            continue
        t[call.id] = call.claim(boot)
        if call.series is not None:
            t['series', call.series] = call.id
        claimed.append(call.id)
        if len(claimed) == slots:
            break
    return claimed
