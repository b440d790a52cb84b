"""Series: two of its calls never run at once, whichever managers they were put to."""

import itertools

import pytest
from ZODB.POSException import ConflictError

from Products.zasync.failure import Failure
from Products.zasync.queue import Queue
from tests.fakes import make_call
from tests.fakes import NOW


LATE = NOW + 10_000
DAY = 86_400


def of_series(number=0, series='s', **changes):
    return make_call(number, series=series, **changes)


class Sibling:
    """A second queue beside a client's own, with the same names: two managers of a dispatcher."""

    def __init__(self, client, make=False):
        self.client = client
        if make:
            client.begin()
            client.connection.root()['sibling'] = Queue()
            client.commit()

    def begin(self):
        self.client.begin()
        return self.client.connection.root()['sibling']

    def put(self, call, lane=0):
        queue = self.begin()
        id = queue.put(call, lane, self.client.queue.names).id
        self.client.commit()
        return id

    def beat(self, now, slots):
        claimed = [deferred.id for deferred in
                   self.begin().take_in_and_claim('sibling', now, slots, DAY)]
        self.client.commit()
        return claimed


def states(client, *ids):
    queue = client.begin()
    return [queue.find(id).state for id in ids]


def succeed(client, id, at=LATE):
    client.begin().find(id).succeed(None, at)
    client.commit()


# one at a time

def test_the_calls_of_a_series_are_claimed_one_after_the_other(store):
    caller, worker = store.client(), store.client()
    ids = [caller.put(of_series(number), number) for number in range(4)]
    free = caller.put(make_call(9), 9)
    assert worker.beat(LATE, 10) == [ids[0], free]
    for before, after in itertools.pairwise(ids):
        assert worker.beat(LATE, 10) == []
        succeed(caller, before)
        assert worker.begin().has_work(LATE, 1)
        assert worker.beat(LATE, 10) == [after]


def test_different_series_do_not_wait_for_each_other(store):
    caller, worker = store.client(), store.client()
    ids = [caller.put(of_series(number, f's{number % 3}'), number) for number in range(6)]
    assert worker.beat(LATE, 10) == ids[:3]
    succeed(caller, ids[1])
    assert worker.beat(LATE, 10) == [ids[4]]


def test_calls_that_wait_for_their_series_count_as_new_and_are_found(store):
    caller, worker = store.client(), store.client()
    ids = [caller.put(of_series(number), number) for number in range(4)]
    worker.beat(LATE, 10)
    queue = caller.begin()
    assert (queue.length_new(), queue.length_accepted()) == (3, 1)
    assert queue.desk.n_aside == 3
    assert [queue.find(id).id for id in ids] == ids
    succeed(caller, ids[0])
    worker.beat(LATE, 10)
    queue = caller.begin()
    assert (queue.length_new(), queue.length_accepted(), queue.desk.n_aside) == (2, 1, 2)


@pytest.mark.parametrize('slots', [1, 2, 10])
def test_a_series_is_run_by_priority_then_by_put_time(store, slots):
    caller, worker = store.client(), store.client()
    puts = [(0, 3), (5, 4), (-1, 0), (5, 2), (0, 1)]
    ids = {put: caller.put(of_series(put[1], priority=put[0]), lane)
           for lane, put in enumerate(puts)}
    order = []
    for _ in puts:
        [id] = worker.beat(LATE, slots)
        order.append(id)
        succeed(caller, id)
    assert order == [ids[put] for put in [(5, 2), (5, 4), (0, 1), (0, 3), (-1, 0)]]


def test_a_call_that_came_later_with_more_priority_is_the_next_of_its_series(store):
    caller, worker = store.client(), store.client()
    first, second = (caller.put(of_series(number)) for number in range(2))
    worker.beat(LATE, 10)
    urgent = caller.put(of_series(9, priority=1), 7)
    worker.beat(LATE, 10)
    succeed(caller, first)
    assert worker.beat(LATE, 10) == [urgent]
    succeed(caller, urgent)
    assert worker.beat(LATE, 10) == [second]


def test_a_freed_series_does_not_pass_others_of_more_priority(store):
    caller, worker = store.client(), store.client()
    first, second = (caller.put(of_series(number)) for number in range(2))
    worker.beat(LATE, 10)
    urgent = [caller.put(make_call(number, priority=1), 7) for number in range(10, 12)]
    succeed(caller, first)
    assert worker.beat(LATE, 2) == urgent
    assert worker.beat(LATE, 1) == [second]


# two managers

def test_two_managers_with_the_same_names_do_not_run_a_series_at_once(store):
    one, client = store.client(), store.client()
    two = Sibling(client, make=True)
    here, there = one.put(of_series(1)), two.put(of_series(0))
    assert one.beat(LATE, 10) == [here]
    assert two.beat(LATE, 10) == []
    assert two.begin().length_new() == 1
    succeed(one, here)
    assert two.begin().has_work(LATE, 1)
    assert two.beat(LATE, 10) == [there]
    assert not one.begin().has_work(LATE, 1)


@pytest.mark.parametrize('first', [0, 1])
@pytest.mark.parametrize('used', [False, True])
def test_of_two_beats_that_claim_from_one_series_at_once_the_second_is_refused(
        store, first, used):
    one, client = store.client(), store.client()
    two = Sibling(client, make=True)
    if used:
        succeed_of = one.put(of_series(0))
        one.beat(LATE, 1)
        succeed(one, succeed_of)
    ids = [one.put(of_series(1)), two.put(of_series(2))]
    for queue in (one.begin(), two.begin()):
        assert len(queue.take_in_and_claim('boot', LATE, 10, DAY)) == 1
    winner, loser = ((one, client), (client, one))[first]
    winner.commit()
    with pytest.raises(ConflictError):
        loser.commit()
    assert (two if first == 0 else one).beat(LATE, 10) == []
    queue, sibling = one.begin(), two.begin()
    assert [queue.find(ids[0]).state, sibling.find(ids[1]).state] == (
        ['accepted', 'new'] if first == 0 else ['new', 'accepted'])


def test_the_end_of_a_call_does_not_meet_a_beat_that_its_series_keeps_waiting(store):
    """Nobody but the holder writes a series that is held: its effects are never refused for it."""
    one, client = store.client(), store.client()
    two = Sibling(client, make=True)
    here, there = one.put(of_series(1)), two.put(of_series(2))
    one.beat(LATE, 1)
    one.begin().find(here).succeed(None, LATE)
    assert two.begin().take_in_and_claim('sibling', LATE, 10, DAY) == []
    one.commit()
    client.commit()
    assert two.beat(LATE, 10) == [there]


def test_overlapping_puts_of_one_series_do_not_meet_not_even_the_first(store):
    one, two, worker = store.client(), store.client(), store.client()
    for number in range(3):
        ids = [one.begin().put(of_series(number), 0).id, two.begin().put(of_series(number), 1).id]
        one.commit()
        two.commit()
        assert worker.begin().find(ids[1]).series == 's'


@pytest.mark.parametrize('order', [0, 1])
def test_a_put_does_not_meet_a_claim_of_its_series(store, order):
    caller, worker = store.client(), store.client()
    first = caller.put(of_series(1))
    second = caller.begin().put(of_series(2), 1).id
    assert [each.id for each in worker.begin().take_in_and_claim('boot', LATE, 9, DAY)] == [first]
    for client in ((caller, worker), (worker, caller))[order]:
        client.commit()
    assert worker.beat(LATE, 9) == []
    succeed(caller, first)
    assert worker.beat(LATE, 9) == [second]


# free again

def finish(client, id):
    succeed(client, id)


def fail_in_its_thread(client, id):
    client.begin().find(id).fail(Failure('ValueError', 'no'), LATE)
    client.commit()


def time_out(client, id):
    client.begin().fail(id, Failure('TimedOut', 'late'), LATE, DAY)
    client.commit()


def time_out_and_retry(client, id):
    client.begin().give_back(id, LATE, 'timed out', LATE + 60, failed=True)
    client.commit()


def give_back(client, id):
    client.begin().give_back(id, LATE, 'interrupted', LATE + 60)
    client.commit()


def unclaim(client, id):
    client.begin().unclaim(id, LATE)
    client.commit()


def cancel(client, id):
    client.begin().find(id).cancel()
    client.commit()


@pytest.mark.parametrize('how', [finish, fail_in_its_thread, time_out, time_out_and_retry,
                                 give_back, cancel])
def test_a_series_is_free_when_its_call_runs_no_more(store, how):
    caller, worker = store.client(), store.client()
    first, second = caller.put(of_series(1)), caller.put(of_series(2))
    assert worker.beat(LATE, 10) == [first]
    assert worker.beat(LATE, 10) == []
    how(caller, first)
    assert worker.beat(LATE, 10) == [second]
    # And one that waits for another attempt waits for the series too.
    assert worker.beat(LATE + 61, 10) == []
    succeed(caller, second)
    again = worker.beat(LATE + 61, 10)
    assert again == ([first] if how in (give_back, time_out_and_retry) else [])


def test_a_series_is_free_when_its_call_was_claimed_and_not_begun(store):
    caller, worker = store.client(), store.client()
    first, second = caller.put(of_series(1)), caller.put(of_series(2, priority=-1))
    worker.beat(LATE, 10)
    urgent = caller.put(of_series(3, priority=1))
    unclaim(caller, first)
    assert worker.beat(LATE, 10) == [urgent]
    succeed(caller, urgent)
    assert worker.beat(LATE, 10) == [first]
    succeed(caller, first)
    assert worker.beat(LATE, 10) == [second]


@pytest.mark.parametrize('where', ['lane', 'waiting'])
def test_a_call_that_is_cancelled_while_it_waits_frees_nothing_of_others(store, where):
    caller, worker = store.client(), store.client()
    first, second, third = (caller.put(of_series(number)) for number in range(3))
    if where == 'waiting':
        assert worker.beat(LATE, 10) == [first]
    cancel(caller, second)
    if where == 'lane':
        assert worker.beat(LATE, 10) == [first]
    assert worker.beat(LATE, 10) == []
    assert worker.begin().length_new() == 1
    succeed(caller, first)
    assert worker.beat(LATE, 10) == [third]


def test_a_call_that_expires_while_its_series_is_busy_frees_nothing_of_others(store):
    caller, worker = store.client(), store.client()
    first = caller.put(of_series(1))
    late = caller.put(of_series(2, expires_at=LATE + 5))
    third = caller.put(of_series(3))
    worker.beat(LATE, 10)
    assert worker.beat(LATE + 5, 10) == []
    assert states(caller, first, late, third) == ['accepted', 'expired', 'new']
    succeed(caller, first)
    assert worker.beat(LATE + 6, 10) == [third]


def test_a_series_is_held_until_the_last_callback_has_run(store):
    caller, worker = store.client(), store.client()
    deferred = caller.begin().put(of_series(1), 0)
    deferred.append_callback('python:1', None, None)
    caller.commit()
    first, second = deferred.id, caller.put(of_series(2))
    assert worker.beat(LATE, 10) == [first]
    succeed(caller, first)
    assert states(caller, first) == ['callback']
    assert worker.beat(LATE, 10) == []
    caller.begin().find(first).pass_callback(LATE)
    caller.commit()
    assert worker.beat(LATE, 10) == [second]


def test_callbacks_that_lost_their_worker_wait_for_the_series_like_a_call(store):
    caller, worker = store.client(), store.client()
    deferred = caller.begin().put(of_series(1), 0)
    deferred.append_callback('python:1', None, None)
    caller.commit()
    first, urgent = deferred.id, caller.put(of_series(2, priority=1, not_before=LATE + 1))
    worker.beat(LATE, 10)
    succeed(caller, first)
    give_back(caller, first)
    assert worker.beat(LATE + 1, 10) == [urgent]
    assert worker.beat(LATE + 61, 10) == []
    assert states(caller, first) == ['callback']
    succeed(caller, urgent)
    assert worker.beat(LATE + 61, 10) == [first]


# what it costs

def test_a_thousand_calls_that_wait_for_one_series_cost_a_beat_next_to_nothing(file_store):
    costs = {}
    for number, calls in enumerate((10, 1_000)):
        caller, worker = file_store.client(), file_store.client()
        series = f'series {number}'
        caller.begin()
        for each in range(calls):
            caller.queue.put(of_series(each, series), each % 10)
        caller.commit()
        [holder] = worker.beat(LATE, 1)
        while worker.beat(LATE, 50):
            pass
        assert worker.begin().desk.n_aside == calls - 1
        worker.connection.cacheMinimize()
        worker.connection.getTransferCounts(clear=True)
        assert not worker.begin().has_work(LATE, 50)
        looking = worker.connection.getTransferCounts(clear=True)[0]
        assert worker.beat(LATE, 50) == []
        costs[calls] = looking, *worker.connection.getTransferCounts(clear=True)
        cancel_all(caller, holder)
    (few_looked, few_loaded, few_stored), (looked, loaded, stored) = costs[10], costs[1_000]
    # A level or two more of a tree.
    assert looked <= few_looked + 4, costs
    assert loaded <= few_loaded + 4, costs
    assert stored == few_stored == 0, costs


def cancel_all(client, holder):
    queue = client.begin()
    for _, deferred in list(queue.waiting.items()):
        deferred.cancel()
    queue.find(holder).cancel()
    client.commit()
    client.beat(LATE, 0)


def test_each_blocked_call_is_set_aside_once(file_store):
    """Beats of a long series write the calls they move, not the calls that go on waiting."""
    caller, worker = file_store.client(), file_store.client()
    caller.begin()
    for each in range(300):
        caller.queue.put(of_series(each), each % 8)
    caller.commit()
    [holder] = worker.beat(LATE, 10)
    stored = []
    for _ in range(5):
        succeed(caller, holder)
        worker.connection.getTransferCounts(clear=True)
        [holder] = worker.beat(LATE, 10)
        stored.append(worker.connection.getTransferCounts(clear=True)[1])
    assert max(stored) <= 8, stored


def test_a_call_without_a_series_reads_no_name(store):
    caller, worker = store.client(), store.client()
    caller.put(make_call(1))
    worker.connection.cacheMinimize()
    queue = worker.begin()
    assert len(queue.take_in_and_claim('boot', LATE, 1, DAY)) == 1
    assert queue.names._p_state == -1  # a ghost: nobody looked


# undo

def test_a_put_that_is_undone_while_its_series_keeps_it_waiting_does_not_stop_the_worker(
        file_store):
    caller, worker = file_store.client(), file_store.client()
    first = caller.put(of_series(1))
    worker.beat(LATE, 1)
    caller.put(of_series(2), 1)
    undo = file_store.databases[0].undoLog(0, 1)[0]['id']
    worker.beat(LATE, 1)
    assert worker.begin().desk.n_aside == 1
    caller.begin()
    file_store.databases[0].undo(undo, caller.tm.get())
    caller.commit()
    queue = worker.begin()
    assert queue.has_work(LATE, 1)
    assert worker.beat(LATE, 1) == []
    assert worker.begin().length_new() == 0
    third = caller.put(of_series(3), 2)
    assert worker.beat(LATE, 1) == []
    succeed(caller, first)
    assert worker.beat(LATE, 1) == [third]


def test_the_undo_of_the_first_put_of_a_series_leaves_the_series_to_the_others(file_store):
    caller, worker = file_store.client(), file_store.client()
    caller.put(of_series(1), 0)
    undo = file_store.databases[0].undoLog(0, 1)[0]['id']
    others = [caller.put(of_series(number), number) for number in (2, 3)]
    caller.begin()
    file_store.databases[0].undo(undo, caller.tm.get())
    caller.commit()
    assert worker.beat(LATE, 10) == others[:1]
    succeed(caller, others[0])
    assert worker.beat(LATE, 10) == others[1:]


def test_the_undo_of_a_claim_frees_the_series(file_store):
    caller, worker = file_store.client(), file_store.client()
    first, second = (caller.put(of_series(number)) for number in (1, 2))
    worker.beat(LATE, 1)
    undo = file_store.databases[0].undoLog(0, 1)[0]['id']
    caller.begin()
    file_store.databases[0].undo(undo, caller.tm.get())
    caller.commit()
    assert states(caller, first, second) == ['new', 'new']
    assert worker.beat(LATE, 10) == [first]
    assert worker.beat(LATE, 10) == []
