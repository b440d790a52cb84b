"""What the worker's beat does: take in, claim in order, give back, archive, drop."""

import pytest

from Products.zasync import lanes
from Products.zasync import policy
from Products.zasync.desk import Desk
from Products.zasync.interfaces import ACCEPTED
from Products.zasync.interfaces import NEW
from Products.zasync.interfaces import RESOLVED
from Products.zasync.places import make_id
from Products.zasync.places import parse_id
from tests.fakes import make_call
from tests.fakes import NOW


DAY = 86_400
LATE = NOW + 10_000


def lengths(client):
    queue = client.begin()
    return queue.length_new(), queue.length_accepted()


def end(client, id, at):
    """As a pool thread does: the result, in a transaction of its own."""
    client.begin().find(id).succeed(None, at)
    client.commit()


# order

def test_calls_are_claimed_by_priority_then_by_put_time(store):
    caller, worker = store.client(), store.client()
    puts = [(0, 3), (5, 4), (-1, 0), (5, 2), (0, 1)]
    ids = {put: caller.put(make_call(put[1], priority=put[0]), lane)
           for lane, put in enumerate(puts)}
    expected = [ids[put] for put in [(5, 2), (5, 4), (0, 1), (0, 3), (-1, 0)]]
    assert worker.beat(LATE, 10) == expected


@pytest.mark.parametrize('slots', [1, 2, 3])
def test_the_order_is_the_same_when_calls_wait_in_ready(store, slots):
    caller, worker = store.client(), store.client()
    expected = [caller.put(make_call(number), lane)
                for number, lane in enumerate([3, 1, 2, 0, 3, 1, 0])]
    claimed = []
    while len(claimed) < len(expected):
        found = worker.beat(LATE, slots)
        assert len(found) == min(slots, len(expected) - len(claimed))
        claimed += found
    assert claimed == expected


def test_a_call_that_came_later_with_more_priority_passes_those_in_ready(store):
    caller, worker = store.client(), store.client()
    waiting = [caller.put(make_call(number)) for number in range(3)]
    assert worker.beat(LATE, 1) == waiting[:1]
    urgent = caller.put(make_call(9, priority=1), 7)
    assert worker.beat(LATE, 2) == [urgent, waiting[1]]
    assert worker.beat(LATE, 5) == [waiting[2]]


def test_a_call_that_came_later_with_less_priority_does_not_pass_those_in_ready(store):
    caller, worker = store.client(), store.client()
    waiting = [caller.put(make_call(number)) for number in range(2)]
    worker.beat(LATE, 0)
    slow = caller.put(make_call(9, priority=-1), 7)
    assert worker.beat(LATE, 3) == [*waiting, slow]


def test_a_backlog_of_two_thousand_over_many_lanes_is_claimed_in_order_once_it_is_taken_in(store):
    """A beat takes in a thousand; what is claimed while some are in their lanes is the first of
    those it has seen."""
    caller, worker = store.client(), store.client()
    caller.begin()
    # In each lane the urgent ones come last.
    expected = {caller.queue.put(make_call(number, priority=number // 400), number % 20).id:
                (-(number // 400), number) for number in range(2_000)}
    caller.commit()
    order = sorted(expected, key=expected.get)
    first = worker.beat(LATE, 1)
    assert expected[first[0]][0] == -2  # the most urgent of the first 50 in each lane
    order.remove(first[0])
    assert worker.beat(LATE, 1) == order[:1]
    assert worker.begin().desk.n_ready == 1_998
    claimed = order[:1]
    for slots in (1, 7, 100, 500, 1_000, 391):
        claimed += worker.beat(LATE, slots)
    assert claimed == order


def test_a_claim_marks_the_deferred_with_its_owner_and_counts_the_attempt(store):
    caller, worker = store.client(), store.client()
    id = caller.put(make_call())
    assert worker.beat(LATE, 1, boot='life-7') == [id]
    deferred = caller.begin().find(id)
    assert (deferred.state, deferred.owner, deferred.attempt, deferred.started_at) == (
        ACCEPTED, 'life-7', 1, LATE)
    assert deferred.is_owned_by('life-7', 1)
    assert not deferred.is_owned_by('life-8', 1)
    assert not deferred.is_owned_by('life-7', 2)


def test_a_beat_without_a_free_slot_takes_in_and_claims_nothing(store):
    caller, worker = store.client(), store.client()
    ids = [caller.put(make_call(number)) for number in range(3)]
    assert worker.beat(LATE, 0) == []
    assert lengths(worker) == (3, 0)
    assert worker.beat(LATE, 3) == ids


def test_one_beat_takes_in_a_bounded_number_of_calls_and_the_next_goes_on(store):
    caller, worker = store.client(), store.client()
    caller.begin()
    for number in range(1_500):
        caller.queue.put(make_call(number), number % 2)
    caller.commit()
    worker.beat(LATE, 0)
    assert worker.begin().desk.n_ready == 1_000
    assert worker.queue.length_new() == 1_500
    assert worker.queue.has_work(LATE, 0)
    worker.beat(LATE, 0)
    assert worker.begin().desk.n_ready == 1_500
    assert worker.queue.length_new() == 1_500
    assert not worker.queue.has_work(LATE, 0)


def test_the_order_holds_across_lanes_that_are_taken_in_by_several_beats(store):
    caller, worker = store.client(), store.client()
    caller.begin()
    ids = [caller.queue.put(make_call(number), number % 3).id for number in range(1_200)]
    caller.commit()
    claimed = []
    for _ in range(10):
        claimed += worker.beat(LATE, 200)
    assert claimed == ids


# work or none

def test_there_is_work_exactly_when_a_beat_would_find_something(store):
    caller, worker = store.client(), store.client()
    assert not worker.begin().has_work(NOW, 4)
    caller.put(make_call())
    assert worker.begin().has_work(NOW, 4)
    assert not worker.queue.has_work(NOW, 0)
    worker.beat(NOW, 4)
    assert not worker.begin().has_work(NOW, 4)
    caller.put(make_call(1, not_before=NOW + 50))
    assert worker.begin().has_work(NOW, 4)
    worker.beat(NOW, 4)
    assert not worker.begin().has_work(NOW, 4)
    assert worker.queue.next_due() == NOW + 50
    assert worker.queue.has_work(NOW + 50, 4)


# time

def test_a_call_is_not_claimed_before_its_time(store):
    caller, worker = store.client(), store.client()
    id = caller.put(make_call(not_before=NOW + 60))
    assert worker.beat(NOW + 59.999, 5) == []
    assert lengths(worker) == (1, 0)
    assert worker.queue.next_due() == NOW + 60
    assert worker.queue.find(id).state == NEW
    assert worker.beat(NOW + 60, 5) == [id]
    assert lengths(worker) == (0, 1)
    assert worker.queue.next_due() is None


def test_a_call_whose_time_passed_before_it_was_taken_in_is_claimed_at_once(store):
    caller, worker = store.client(), store.client()
    id = caller.put(make_call(not_before=NOW + 60))
    assert worker.beat(NOW + 61, 5) == [id]


def test_calls_that_become_due_are_claimed_by_priority_and_put_time_like_any_other(store):
    caller, worker = store.client(), store.client()
    second = caller.put(make_call(1, not_before=NOW + 60), 1)
    first = caller.put(make_call(2, not_before=NOW + 90, priority=3), 2)
    assert worker.beat(NOW + 5, 5) == []
    third = caller.put(make_call(3), 0)
    assert worker.beat(NOW + 100, 5) == [first, second, third]


def test_calls_that_become_due_while_all_slots_are_taken_wait_in_ready(store):
    caller, worker = store.client(), store.client()
    ids = [caller.put(make_call(number, not_before=NOW + 60)) for number in range(3)]
    worker.beat(NOW + 5, 5)
    assert worker.beat(NOW + 100, 1) == ids[:1]
    assert lengths(worker) == (2, 1)
    assert worker.beat(NOW + 100, 5) == ids[1:]


# giving back

def give_back(worker, id, now, until=0.0):
    worker.begin().give_back(id, now, 'conflicts', until)
    worker.commit()


def test_a_call_given_back_at_once_is_claimed_again_as_the_next_attempt(store):
    caller, worker = store.client(), store.client()
    id, other = caller.put(make_call(1)), caller.put(make_call(2))
    assert worker.beat(LATE, 1) == [id]
    give_back(worker, id, LATE + 1)
    assert lengths(worker) == (2, 0)
    deferred = caller.begin().find(id)
    assert (deferred.state, deferred.owner) == (NEW, None)
    # It has kept its place before the call that was put after it.
    assert worker.beat(LATE + 2, 2, boot='next') == [id, other]
    deferred = caller.begin().find(id)
    assert (deferred.owner, deferred.attempt, deferred.started_at) == ('next', 2, LATE + 2)
    assert [tuple(attempt) for attempt in deferred.attempts] == [
        (1, LATE, LATE + 1, 'conflicts'), (2, LATE + 2, None, None)]


def test_a_call_given_back_with_a_delay_is_not_claimed_before_it_is_over(store):
    caller, worker = store.client(), store.client()
    id = caller.put(make_call())
    worker.beat(LATE, 1)
    give_back(worker, id, LATE + 1, LATE + 31)
    assert lengths(worker) == (1, 0)
    assert caller.begin().find(id).state == NEW
    assert worker.beat(LATE + 30, 5) == []
    assert worker.beat(LATE + 31, 5) == [id]
    assert lengths(worker) == (0, 1)


def test_a_call_given_back_keeps_its_priority(store):
    caller, worker = store.client(), store.client()
    id = caller.put(make_call(5, priority=9))
    worker.beat(LATE, 1)
    other = caller.put(make_call(1, priority=3))
    give_back(worker, id, LATE + 1)
    assert worker.beat(LATE + 2, 2) == [id, other]


def test_the_old_owner_does_not_own_a_call_that_was_given_back(store):
    caller, worker = store.client(), store.client()
    id = caller.put(make_call())
    worker.beat(LATE, 1)
    give_back(worker, id, LATE + 1)
    assert not caller.begin().find(id).is_owned_by('boot', 1)
    worker.beat(LATE + 2, 1)
    assert not caller.begin().find(id).is_owned_by('boot', 1)
    assert caller.queue.find(id).is_owned_by('boot', 2)


def test_a_claimed_call_that_no_thread_began_goes_back_as_if_it_had_not_been_claimed(store):
    caller, worker = store.client(), store.client()
    first = caller.put(make_call(1))
    worker.beat(LATE, 1)
    give_back(worker, first, LATE)
    second = caller.put(make_call(2))
    assert worker.beat(LATE, 2) == [first, second]
    queue = worker.begin()
    for id in (first, second):
        queue.unclaim(id, LATE + 1)
    worker.commit()
    assert lengths(worker) == (2, 0)
    queue = caller.begin()
    assert [(queue.find(id).state, queue.find(id).attempt) for id in (first, second)] == [
        (NEW, 1), (NEW, 0)]
    assert not queue.find(first).is_owned_by('boot', 2)
    assert [attempt.outcome for attempt in queue.find(first).attempts] == ['conflicts']
    assert queue.find(second).attempts == ()
    # Their places are the old ones.
    assert worker.beat(LATE + 2, 1) == [first]


# archive

def test_an_ended_call_is_archived_and_found_until_its_rotation_period_is_over(store):
    caller, worker = store.client(), store.client()
    id = caller.put(make_call())
    # The lane keeps a reference to what it holds; push it out of there.
    worker.beat(LATE, 1)
    for number in range(2, 65):
        caller.put(make_call(number))
        if number == 63:
            worker.beat(LATE, 100)
    assert lanes.get(worker.begin().lanes[0], 1) is None
    end(worker, id, LATE + 1)
    assert worker.begin().length_accepted() == 62
    worker.queue.archive_ended(id, DAY)
    worker.commit()
    assert id not in worker.begin().desk.running
    assert caller.begin().find(id).state == RESOLVED

    slice_end = policy.slice_of(LATE + 1, DAY)
    assert not worker.queue.drop_old(slice_end + DAY - 0.001, DAY)
    assert worker.queue.find(id) is not None
    assert worker.queue.drop_old(slice_end + DAY, DAY)
    worker.commit()
    assert caller.begin().find(id) is None
    assert not worker.begin().drop_old(slice_end + 10 * DAY, DAY)


@pytest.mark.parametrize('ended_at', [NOW, NOW + 1.5, NOW + DAY / 8 - 0.001, NOW + DAY / 3])
def test_a_result_lives_for_one_rotation_period_and_at_most_an_eighth_longer(ended_at):
    end = policy.slice_of(ended_at, DAY)
    assert end - DAY / 8 <= ended_at < end
    assert not policy.slice_is_over(end, ended_at + DAY, DAY)
    assert policy.slice_is_over(end, ended_at + DAY * 9 / 8 + 1, DAY)


def test_slices_are_dropped_oldest_first_one_a_beat(store):
    caller, worker = store.client(), store.client()
    ids = [caller.put(make_call(number)) for number in range(3)]
    worker.beat(LATE, 3)
    times = [LATE, LATE + DAY, LATE + 2 * DAY]
    for id, time in zip(ids, times, strict=True):
        end(worker, id, time)
        worker.begin().archive_ended(id, DAY)
        worker.commit()
    queue = worker.begin()
    assert len(queue.archive) == 3
    assert queue.drop_old(LATE + 2.5 * DAY, DAY)
    assert [[deferred.id for deferred in calls.values()]
            for calls in queue.archive.values()] == [[ids[1]], [ids[2]]]
    assert not queue.drop_old(LATE + 2 * DAY, DAY)
    assert queue.drop_old(LATE + 9 * DAY, DAY)
    assert queue.drop_old(LATE + 9 * DAY, DAY)
    assert not queue.drop_old(LATE + 9 * DAY, DAY)


def test_calls_of_one_slice_are_dropped_together(store):
    caller, worker = store.client(), store.client()
    ids = [caller.put(make_call(number)) for number in range(5)]
    worker.beat(LATE, 5)
    for id in ids:
        end(worker, id, LATE + 1)
    queue = worker.begin()
    for id in ids:
        queue.archive_ended(id, DAY)
    worker.commit()
    assert len(worker.begin().archive) == 1


# finding

def test_a_call_is_found_by_its_id_wherever_it_is(store):
    caller, worker = store.client(), store.client()
    places = {}
    places['archive'] = caller.put(make_call(1))
    assert worker.beat(LATE, 1) == [places['archive']]
    end(worker, places['archive'], LATE)
    worker.begin().archive_ended(places['archive'], DAY)
    worker.commit()
    places['running'] = caller.put(make_call(2))
    assert worker.beat(LATE, 1) == [places['running']]
    places['ready'] = caller.put(make_call(3))
    places['ready, other priority'] = caller.put(make_call(4, priority=-7))
    places['later'] = caller.put(make_call(5, not_before=LATE + DAY))
    worker.beat(LATE, 0)
    # Trim the lane, so that none of them hangs there any more.
    queue = worker.begin()
    lane = queue.lanes[0]
    last = queue.put(make_call(6), 0)
    chunk = lane[lane.maxKey()]
    for number in list(chunk.keys())[:-1]:
        del chunk[number]
    worker.commit()
    places['lane'] = last.id
    queue = caller.begin()
    assert len(queue.lanes[0]) == len(queue.lanes[0][0]) == 1
    for place, id in places.items():
        found = queue.find(id)
        assert found is not None and found.id == id, place


def test_an_id_that_names_no_call_is_not_found(store):
    client = store.client()
    id = client.put(make_call())
    lane, number, milliseconds, _ = id.split('-')
    wrong = [
        f'{lane}-{number}-{milliseconds}-00000000',   # an aborted request's, with another tail
        f'{lane}-{int(number) + 1}-{milliseconds}-00000000',
        f'1-{number}-{milliseconds}-00000000',
        make_id(63, 1, NOW)]
    queue = client.begin()
    assert [queue.find(other) for other in wrong] == [None] * len(wrong)
    client.beat(LATE, 0)
    queue = client.begin()
    assert [queue.find(other) for other in wrong] == [None] * len(wrong)


NONSENSE = ['', '-', '---', 'x', 'a-b-c', 'g-1-1-1', '0-1-1', '0-1-1-1-1', '40-1-1-1', '-1-1-1-1',
            '0--1-1-1', '0-1-', 'zam1', '../etc', '0-1-1-1\n', 'é-1-1-1', ' ',
            'f' * 400 + '-1-1-1', '0-' + 'f' * 400 + '-1-1', '0-1-' + 'f' * 400 + '-1',
            '0-8000000000000000-1-1']


@pytest.mark.parametrize('id', NONSENSE)
def test_an_id_that_is_nonsense_is_not_found(file_store, id):
    client = file_store.client()
    client.put(make_call())
    assert client.begin().find(id) is None
    client.beat(LATE, 0)
    assert client.begin().find(id) is None


def test_ids_of_one_place_differ_in_their_random_part():
    ids = {make_id(0, 1, NOW) for _ in range(50)}
    assert len(ids) == 50
    assert {parse_id(id) for id in ids} == {(0, 1, NOW)}


@pytest.mark.parametrize('taken_in', [False, True])
def test_a_call_that_was_cancelled_where_it_waited_is_claimed_by_nobody(store, taken_in):
    caller, worker = store.client(), store.client()
    cancelled, other = caller.put(make_call(1)), caller.put(make_call(2))
    if taken_in:
        worker.beat(LATE, 0)
    assert caller.begin().find(cancelled).cancel()
    caller.commit()
    claimed = worker.beat(LATE, 1) + worker.beat(LATE, 1)
    assert claimed == [other]
    assert lengths(worker) == (0, 1)
    assert caller.begin().find(cancelled).attempt == 0


def test_a_desk_stores_what_is_reserved_only_while_there_is_something():
    desk, other = Desk(), Desk()
    assert not desk.reserved and 'reserved' not in desk.__dict__
    desk.add_reserved('a', 'call a')
    desk.add_reserved('b', 'call b')
    assert desk.reserved == {'a': 'call a', 'b': 'call b'}
    assert not other.reserved
    assert [desk.remove_reserved(id) for id in 'ab'] == ['call a', 'call b']
    assert not desk.reserved and 'reserved' not in desk.__dict__
