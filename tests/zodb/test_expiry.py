"""Expiry: a call that nobody has begun in time is not run, wherever it waits by then."""

import pytest

from Products.zasync.failure import Failure
from tests.fakes import make_call
from tests.fakes import NOW


LATE = NOW + 10_000
OVER = LATE + 60
DAY = 86_400


def expiring(number=0, **changes):
    return make_call(number, expires_at=OVER, **changes)


def states(client, *ids):
    queue = client.begin()
    return [queue.find(id).state for id in ids]


def in_lane(caller, worker):
    return caller.put(expiring())


def in_ready(caller, worker):
    id = caller.put(expiring())
    worker.beat(LATE, 0)
    return id


def in_later(caller, worker):
    id = caller.put(expiring(not_before=OVER - 1))
    worker.beat(LATE, 10)
    return id


def blocked(caller, worker):
    caller.put(make_call(0, series='s'))
    worker.beat(LATE, 1)
    id = caller.put(expiring(1, series='s'))
    worker.beat(LATE, 1)
    return id


def parked(caller, worker):
    queue = caller.begin()
    member = queue.put(make_call(0, not_before=OVER + 1_000), 0)
    id = queue.put(expiring(1), 0, after=(member,)).id
    caller.commit()
    worker.beat(LATE, 10)
    return id


PLACES = [in_lane, in_ready, in_later, blocked, parked]


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('slots', [0, 10])
def test_a_call_expires_wherever_it_waits_and_whether_a_thread_is_free_or_not(
        store, place, slots):
    caller, worker = store.client(), store.client()
    id = place(caller, worker)
    others = caller.begin().length_new() - 1
    assert states(caller, id) == ['new']
    if place is not in_lane:
        assert not worker.begin().has_work(OVER - 0.001, 0)
        assert worker.queue.next_due(0) == OVER
        assert worker.queue.has_work(OVER, slots)
    assert worker.beat(OVER, slots) == []
    deferred = caller.begin().find(id)
    assert (deferred.state, deferred.ended_at, deferred.attempts) == ('expired', OVER, ())
    assert deferred.failure.type_name == 'Products.zasync.errors.Expired'
    assert deferred.result is None
    assert caller.queue.length_new() == others
    assert worker.begin().next_due(0) is None
    assert not worker.queue.has_work(OVER, 0)
    [filed] = worker.queue.withdrawn[worker.queue.withdrawn.minKey()].values()
    assert filed.id == id


@pytest.mark.parametrize('place', [in_lane, in_ready])
@pytest.mark.parametrize('early, expected', [(0.001, 'accepted'), (0.0, 'expired')])
def test_the_moment_of_the_claim_decides(store, place, early, expected):
    caller, worker = store.client(), store.client()
    id = place(caller, worker)
    assert worker.beat(OVER - early, 10) == ([id] if expected == 'accepted' else [])
    assert states(caller, id) == [expected]


@pytest.mark.parametrize('place', [in_lane, in_ready])
def test_a_call_that_was_begun_once_does_not_expire(store, place):
    caller, worker = store.client(), store.client()
    id = place(caller, worker)
    assert worker.beat(LATE, 1) == [id]
    assert worker.beat(OVER, 1) == []
    assert states(caller, id) == ['accepted']
    worker.begin().give_back(id, OVER + 1, 'interrupted', OVER + 9)
    worker.commit()
    assert worker.beat(OVER + 2, 1) == []
    assert worker.beat(OVER + 9, 1) == [id]
    worker.begin().fail(id, Failure('ValueError', 'no'), OVER + 10, DAY)
    worker.commit()
    queue = caller.begin()
    queue.put_again(queue.find(id), 7)
    caller.commit()
    assert worker.beat(OVER + 20, 1) == [id]


def test_a_call_that_was_claimed_and_not_begun_expires_with_no_thread_free(store):
    caller, worker = store.client(), store.client()
    id = in_ready(caller, worker)
    worker.beat(LATE, 1)
    worker.beat(OVER, 0)  # it is over while it is claimed
    worker.begin().unclaim(id, OVER)
    worker.commit()
    assert worker.begin().has_work(OVER, 0)
    assert worker.beat(OVER, 0) == []
    assert states(caller, id) == ['expired']


@pytest.mark.parametrize('what', ['claimed', 'cancelled', 'expired'])
def test_what_waits_no_more_is_not_kept_until_its_expiry(store, what):
    """A call that has ended is dropped by rotation, however late it would have expired."""
    caller, worker = store.client(), store.client()
    id = in_ready(caller, worker)
    assert len(worker.begin().waiting._expiring) == 1
    if what == 'cancelled':
        caller.begin().find(id).cancel()
        caller.commit()
    worker.beat({'claimed': LATE, 'cancelled': LATE, 'expired': OVER}[what], 1)
    assert len(worker.begin().waiting._expiring) == 0


def test_a_call_that_is_cancelled_when_it_expires_stays_cancelled(store):
    caller, worker = store.client(), store.client()
    ids = [in_ready(caller, worker), in_lane(caller, worker)]
    queue = caller.begin()
    for id in ids:
        queue.find(id).cancel()
    caller.commit()
    assert worker.beat(OVER, 10) == []
    worker.beat(OVER, 10)
    assert states(caller, *ids) == ['cancelled', 'cancelled']
    assert caller.begin().length_new() == 0


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('slots', [0, 10])
def test_the_callbacks_of_an_expired_call_wait_for_a_thread_and_are_not_lost(
        store, place, slots):
    caller, worker = store.client(), store.client()
    id = place(caller, worker)
    deferred = caller.begin().find(id)
    deferred.append_callback(None, 'python:1', None)
    caller.commit()
    claimed = worker.beat(OVER, slots)
    assert states(caller, id) == ['callback']
    if place is blocked:
        assert claimed == []
        holder = next(iter(caller.begin().desk.running.values()))
        holder.succeed(None, OVER)
        caller.commit()
    while not claimed:
        assert worker.begin().has_work(OVER + 60, 10)
        claimed = worker.beat(OVER + 60, 10)
    assert claimed == [id]
    deferred = caller.begin().find(id)
    assert deferred.next_callback()[1] == 'python:1'
    deferred.pass_callback(OVER + 61)
    caller.commit()
    assert states(caller, id) == ['expired']


def test_an_expired_call_lets_those_go_on_that_waited_for_its_end(store):
    caller, worker = store.client(), store.client()
    queue = caller.begin()
    member = queue.put(expiring(), 0)
    waiter = queue.put(make_call(1), 0, after=(member,)).id
    member = member.id
    caller.commit()
    worker.beat(LATE, 0)
    assert worker.beat(OVER, 10) == [waiter]
    assert states(caller, member) == ['expired']


def test_thousands_that_expire_at_once_are_spread_over_beats(store):
    caller, worker = store.client(), store.client()
    caller.begin()
    for number in range(1_200):
        caller.queue.put(expiring(number), number % 64)
    caller.commit()
    for _ in range(4):
        worker.beat(LATE, 0)
    assert worker.begin().desk.n_ready == 1_200
    worker.beat(OVER, 0)
    assert worker.begin().desk.n_ready == 200
    assert worker.begin().has_work(OVER, 0)
    worker.beat(OVER, 0)
    assert worker.begin().length_new() == 0


def test_a_put_that_is_undone_before_it_expires_does_not_stop_the_worker(file_store):
    caller, worker = file_store.client(), file_store.client()
    caller.put(expiring())
    undo = file_store.databases[0].undoLog(0, 1)[0]['id']
    worker.beat(LATE, 0)
    caller.begin()
    file_store.databases[0].undo(undo, caller.tm.get())
    caller.commit()
    # Its number is given to another call, which is not to expire.
    reused = caller.put(make_call(9))
    worker.beat(OVER - 1, 0)
    assert worker.beat(OVER, 0) == []
    assert states(caller, reused) == ['new']
    assert worker.beat(OVER, 10) == [reused]


def test_what_waits_for_a_call_whose_put_was_undone_is_let_go(file_store):
    caller, worker = file_store.client(), file_store.client()
    first = caller.put(make_call(0, not_before=OVER), 0)
    undo = file_store.databases[0].undoLog(0, 1)[0]['id']
    queue = caller.begin()
    follower = queue.put(make_call(1), 1, after=(queue.find(first),)).id
    caller.commit()
    caller.begin()
    file_store.databases[0].undo(undo, caller.tm.get())
    caller.commit()
    assert worker.beat(LATE, 10) == [follower]


# not before

def test_a_call_that_waits_for_others_is_not_run_before_its_time_either(store):
    caller, worker = store.client(), store.client()
    queue = caller.begin()
    member = queue.put(make_call(0), 0)
    id = queue.put(make_call(1, not_before=OVER), 0, after=(member,)).id
    member = member.id
    caller.commit()
    assert worker.beat(LATE, 10) == [member]
    caller.begin().find(member).succeed(None, LATE)
    caller.commit()
    worker.begin().archive_ended(member, DAY)
    worker.commit()
    assert worker.beat(LATE, 10) == []
    assert worker.begin().next_due(1) == OVER
    assert worker.beat(OVER, 10) == [id]


def test_a_call_that_is_due_waits_for_a_thread_and_then_runs_by_priority(store):
    caller, worker = store.client(), store.client()
    plain = caller.put(make_call(0), 0)
    due = caller.put(make_call(9, not_before=OVER, priority=1), 1)
    assert worker.beat(LATE, 0) == []
    assert worker.begin().next_due(0) is None
    assert worker.beat(OVER, 1) == [due]
    assert worker.beat(OVER, 1) == [plain]
