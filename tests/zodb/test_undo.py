"""Undo: a put that somebody takes back must not hide another one, nor stop the worker."""

import pytest
from BTrees.OOBTree import OOBTree

from Products.zasync import listing
from Products.zasync import moving
from Products.zasync.failure import Failure
from Products.zasync.interfaces import ACCEPTED
from Products.zasync.interfaces import NEW
from Products.zasync.lanes import CHUNK
from Products.zasync.queue import Queue
from Products.zasync.trees import NarrowTree
from Products.zasync.waiting import AFTER_MOST
from tests.fakes import make_call
from tests.fakes import NOW


LATE = NOW + 10_000
DAY = 86_400


def last_transaction_id(store):
    [entry] = store.databases[0].undoLog(0, 1)
    return entry['id']


def undo(store, client, id):
    client.begin()
    store.databases[0].undo(id, client.tm.get())
    client.commit()


@pytest.mark.parametrize('before', [0, 1, 5, 70])
@pytest.mark.parametrize('not_before', [0.0, LATE + 50])
def test_a_put_with_the_number_of_an_undone_one_that_was_taken_in_is_taken_in(
        file_store, before, not_before):
    caller, worker = file_store.client(), file_store.client()
    for number in range(before):
        caller.put(make_call(number))
    assert len(worker.beat(LATE, 100)) == before
    caller.put(make_call(200, not_before=not_before))
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    undo(file_store, caller, put)
    reused = caller.put(make_call(300))
    next_one = caller.put(make_call(301))
    queue = worker.begin()
    assert [int(id.split('-')[1], 16) for id in (reused, next_one)] == [before + 1, before + 2]
    assert queue.has_work(LATE, 10)
    claimed = worker.beat(LATE, 10)
    claimed += worker.beat(LATE, 10)
    assert claimed == [reused, next_one]


def test_a_put_that_is_undone_after_it_was_taken_in_is_in_no_list(file_store):
    """Whoever looked at a page of calls would see an error instead."""
    caller, worker = file_store.client(), file_store.client()
    kept = caller.put(make_call(100))
    caller.put(make_call(200))
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    undo(file_store, caller, put)
    assert [deferred.id for deferred in listing.page(caller.begin())] == [kept]


def test_what_was_put_since_an_undone_put_is_listed_before_a_worker_comes(file_store):
    caller, worker = file_store.client(), file_store.client()
    file_one(caller, worker)
    undo_one_taken_in(file_store, caller, worker)
    new = [caller.put(make_call(3)), caller.put(make_call(4))]
    queue = caller.begin()
    assert [deferred.id for deferred in listing.page(queue, NEW)] == new[::-1]
    assert len(listing.page(queue)) == 3


@pytest.mark.parametrize('before', [0, 1, 5])
def test_a_put_is_undone_after_the_worker_has_taken_it_in(file_store, before):
    """It has no record any more: whoever loads it gets a POSKeyError."""
    caller, worker = file_store.client(), file_store.client()
    for number in range(before):
        caller.put(make_call(number))
    worker.beat(LATE, 100)
    caller.put(make_call(200))
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    undo(file_store, caller, put)
    assert worker.beat(LATE, 10) == []
    after = caller.put(make_call(300), 1)
    assert worker.beat(LATE, 10) == [after]


def test_a_delayed_put_that_is_undone_after_it_was_taken_in_does_not_stop_the_worker(file_store):
    caller, worker = file_store.client(), file_store.client()
    caller.put(make_call(200, not_before=LATE + 50))
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    undo(file_store, caller, put)
    after = caller.put(make_call(300), 1)
    assert worker.beat(LATE + 100, 10) == [after]


def test_a_put_that_is_undone_before_it_was_taken_in_was_never_made(file_store):
    caller, worker = file_store.client(), file_store.client()
    first = caller.put(make_call(1))
    undone = caller.put(make_call(2))
    undo(file_store, caller, last_transaction_id(file_store))
    assert caller.begin().find(undone) is None
    assert caller.queue.length_new() == 1
    again = caller.put(make_call(3))
    assert worker.beat(LATE, 10) == [first, again]


def test_a_look_at_the_whole_lane_after_an_undo_takes_no_call_twice(file_store):
    """Calls that run, wait in ready or in later, or have ended are known already."""
    caller, worker = file_store.client(), file_store.client()
    ended, running = caller.put(make_call(1)), caller.put(make_call(2))
    assert worker.beat(LATE, 2) == [ended, running]
    worker.begin().find(ended).succeed(None, LATE)
    worker.queue.archive_ended(ended, 86_400)
    worker.commit()
    waiting = caller.put(make_call(3))
    caller.put(make_call(4, not_before=LATE + 500))
    caller.put(make_call(5))
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    undo(file_store, caller, put)
    new = caller.put(make_call(6))
    assert worker.beat(LATE, 1) == [waiting]
    queue = worker.begin()
    assert queue.find(running).state == ACCEPTED
    assert queue.desk.n_later == 1
    assert len(queue.waiting.later) == 1
    claimed = worker.beat(LATE, 10)
    claimed += worker.beat(LATE, 10)
    assert claimed == [new]


def test_what_waited_for_a_call_whose_put_is_undone_goes_on_waiting_for_its_time(file_store):
    caller, worker = file_store.client(), file_store.client()
    awaited = caller.put(make_call(1))
    put = last_transaction_id(file_store)
    queue = caller.begin()
    waits = queue.put(make_call(2, not_before=LATE + 500), 1, after=[queue.find(awaited)]).id
    caller.commit()
    assert worker.beat(LATE, 0) == []
    undo(file_store, caller, put)
    assert worker.beat(LATE, 9) == []
    assert worker.beat(LATE + 500, 9) == [waits]


def test_the_counts_are_exact_after_an_undone_put(file_store):
    caller, worker = file_store.client(), file_store.client()
    caller.put(make_call(1))
    caller.put(make_call(2))
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    undo(file_store, caller, put)
    worker.beat(LATE, 0)
    assert worker.begin().length_new() == 1
    caller.put(make_call(3))
    worker.beat(LATE, 0)
    assert worker.begin().length_new() == 2
    assert len(worker.beat(LATE, 10)) + len(worker.beat(LATE, 10)) == 2
    assert worker.begin().length_new() == 0


def test_a_claim_is_undone(file_store):
    caller, worker = file_store.client(), file_store.client()
    id = caller.put(make_call(1))
    assert worker.beat(LATE, 1) == [id]
    undo(file_store, caller, last_transaction_id(file_store))
    assert worker.beat(LATE, 1) == [id]
    assert worker.begin().length_accepted() == 1


@pytest.mark.parametrize('delay', [0, 50, 80])
@pytest.mark.parametrize('before', [0, 3])
def test_a_put_with_the_number_of_an_undone_delayed_one_is_not_lost(file_store, before, delay):
    """The place (lane, number) of the undone call must not stand for the new one."""
    caller, worker = file_store.client(), file_store.client()
    for number in range(before):
        caller.put(make_call(number))
    worker.beat(LATE, 100)
    caller.put(make_call(200, not_before=LATE + 50))
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    undo(file_store, caller, put)
    reused = caller.put(make_call(300, not_before=LATE + delay if delay else 0.0))
    claimed = worker.beat(LATE, 10)
    for later in (60, 90, 120):
        claimed += worker.beat(LATE + later, 10)
    assert claimed == [reused]
    assert worker.begin().length_new() == 0


def test_what_an_undone_put_leaves_behind_does_not_keep_the_database_from_being_packed(file_store):
    """A reference to what is not there ends a pack of ZODB; the first one forgets that it was."""
    caller, worker = file_store.client(), file_store.client()
    queue = caller.begin()
    queue.put(make_call(1, expires_at=LATE + 10_000), 0)
    caller.commit()
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    queue = caller.begin()
    [waits] = [deferred for _, deferred in queue.waiting.items()]
    follower = queue.put(make_call(2), 1, after=[waits]).id
    caller.commit()
    undo(file_store, caller, put)
    assert worker.beat(LATE, 1) == [follower]
    worker.begin().find(follower).succeed(None, LATE)
    worker.commit()
    for _ in range(2):
        file_store.databases[0].pack()
    caller.begin()
    assert caller.queue.find(follower).state == 'resolved'


def put_after(client, awaited, lane=0, **options):
    """Put a call that waits for the end of that one; → its id."""
    queue = client.begin()
    id = queue.put(make_call(50, **options), lane, after=[queue.find(awaited)]).id
    client.commit()
    return id


def undo_under_others(file_store, caller, worker, put):
    """Undo that transaction, which put a call that was taken in, as was one put after it there.

    → the id of that one. An undo of the last put of a lane shows in that lane, this one does not.
    """
    other = caller.put(make_call(60))
    worker.beat(LATE, 0)
    undo(file_store, caller, put)
    return other


def end(worker, id):
    """A call that runs ends, and is filed."""
    worker.begin().find(id).succeed(None, LATE)
    worker.queue.archive_ended(id, DAY)
    worker.commit()


def beats(worker, now=LATE):
    """What two beats claim: the second what the first finds to be free."""
    return worker.beat(now, 10) + worker.beat(now, 10)


@pytest.fixture
def begun(file_store):
    """(caller, worker) of a queue in whose first lane a call was put that runs."""
    caller, worker = file_store.client(), file_store.client()
    caller.put(make_call(1))
    assert len(worker.beat(LATE, 1)) == 1
    return caller, worker


def test_what_waits_for_a_call_whose_put_is_undone_runs(file_store, begun):
    caller, worker = begun
    undone = caller.put(make_call(2))
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    waits, delayed = (put_after(caller, undone, 1, not_before=at) for at in (0.0, LATE + 50))
    other = undo_under_others(file_store, caller, worker, put)
    assert beats(worker) == [other, waits]
    assert beats(worker, LATE + 60) == [delayed]
    assert worker.begin().length_new() == 0


def test_what_waits_for_a_call_that_was_kept_for_the_worker_and_is_undone_runs(
        file_store, begun):
    caller, worker = begun
    undone = caller.put(make_call(2))
    put = last_transaction_id(file_store)
    worker.begin().take_in_and_claim('boot', LATE, 1, DAY, may_reserve=lambda deferred: True)
    worker.commit()
    waits = put_after(caller, undone, 1)
    other = undo_under_others(file_store, caller, worker, put)
    worker.begin().claim_reserved(undone, 'boot', LATE)
    worker.commit()
    assert beats(worker) == [waits, other]


@pytest.mark.parametrize('many', [10, 2_500])
def test_of_those_that_wait_for_an_undone_call_a_beat_looks_at_a_part_and_all_run(
        file_store, begun, many):
    caller, worker = begun
    undone = caller.put(make_call(2))
    put = last_transaction_id(file_store)
    worker.beat(LATE)
    queue = caller.begin()
    for number in range(many):
        queue.put(make_call(100 + number), 1 + number % 8, after=[queue.find(undone)])
    caller.commit()
    while worker.begin().news():
        worker.beat(LATE)
    undo_under_others(file_store, caller, worker, put)
    beats = 0
    while worker.begin().has_work(LATE, 1) and worker.queue.desk.n_aside:
        worker.connection.cacheMinimize()
        worker.connection.getTransferCounts(clear=True)
        worker.beat(LATE, 1)
        assert worker.connection.getTransferCounts()[0] < AFTER_MOST + 500
        beats += 1
    assert worker.begin().length_new() == many + 1 - beats
    assert beats == 1 + many // AFTER_MOST
    assert not worker.queue.waiting.once_more


def test_what_was_looked_at_is_looked_at_once_more_when_another_undone_call_is_found(
        file_store, begun):
    """What it waits for was not known to be undone before."""
    caller, worker = begun
    first = caller.put(make_call(2))
    puts = [last_transaction_id(file_store)]
    second = caller.put(make_call(3, priority=-1))
    puts.append(last_transaction_id(file_store))
    worker.beat(LATE)
    queue = caller.begin()
    for awaited, numbers in ((second, range(5)), (first, range(5, 1_500))):
        for number in numbers:
            queue.put(make_call(100 + number), 1 + number % 8, after=[queue.find(awaited)])
    caller.commit()
    while worker.begin().news():
        worker.beat(LATE)
    undo_under_others(file_store, caller, worker, puts[0])
    worker.beat(LATE, 1)
    assert worker.begin().waiting.further is not None
    undo(file_store, caller, puts[1])
    worker.begin().have_run_not_held_up(LATE)  # as who claims does when he finds that
    worker.commit()
    assert worker.begin().waiting.once_more
    while worker.begin().waiting.further is not None:
        assert worker.queue.has_work(LATE, 0)
        worker.beat(LATE)
    assert worker.begin().desk.n_aside == 0


def test_many_undone_calls_are_looked_for_together_among_those_that_expire(
        file_store, monkeypatch):
    caller, worker = file_store.client(), file_store.client()
    queue, looks = caller.begin(), []
    for number in range(300):
        queue.put(make_call(number, expires_at=LATE + 5_000 + number), 0)
    caller.commit()
    put = last_transaction_id(file_store)
    worker.beat(LATE)
    assert len(worker.begin().waiting._expiring) == 300
    undo(file_store, caller, put)
    monkeypatch.setattr(NarrowTree, 'items', lambda tree, *args: (
        looks.append(tree), OOBTree.items(tree, *args))[1])
    worker.beat(LATE)
    assert not worker.begin().waiting._expiring
    assert sum(tree is worker.queue.waiting._expiring for tree in looks) == 1


def test_what_waits_for_a_call_whose_put_is_undone_is_not_begun_before_its_time(file_store):
    caller, worker = file_store.client(), file_store.client()
    undone = caller.put(make_call(2))
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    delayed = put_after(caller, undone, 1, not_before=LATE + 50)
    worker.beat(LATE, 0)
    undo(file_store, caller, put)
    caller.put(make_call(3))
    assert delayed not in beats(worker)
    assert beats(worker, LATE + 60) == [delayed]


def test_what_waits_for_the_end_of_a_call_and_is_undone_is_forgotten_at_that_end(
        file_store, begun):
    """And what waited for its end runs."""
    caller, worker = begun
    [running] = worker.begin().desk.running
    undone = put_after(caller, running, expires_at=LATE + 10_000)
    put = last_transaction_id(file_store)
    waits = put_after(caller, undone, 1)
    other = undo_under_others(file_store, caller, worker, put)
    assert beats(worker) == [other]
    end(worker, running)
    assert beats(worker) == [waits]
    assert worker.begin().length_new() == 0
    end(worker, waits)
    file_store.databases[0].pack()


@pytest.mark.parametrize('who', ['worker', 'move'])
def test_what_waits_for_a_call_that_was_cancelled_and_is_undone_is_forgotten_once(
        file_store, begun, who):
    caller, worker = begun
    [running] = worker.begin().desk.running
    cancelled = put_after(caller, running)
    worker.beat(LATE, 0)
    put_after(caller, cancelled)
    put = last_transaction_id(file_store)
    undo_under_others(file_store, caller, worker, put)
    caller.begin().find(cancelled).cancel()
    caller.commit()
    queue = worker.begin()
    if who == 'worker':
        queue.drop_undone(LATE, DAY)
        queue.take_in_and_claim('boot', LATE, 0, DAY)
    else:
        other = Queue()
        worker.connection.add(other)
        moving.move_some(queue, [moving.Target('other', other, {})], queue.names, LATE, DAY,
                         served=False)
    worker.commit()
    assert not worker.begin().waiting.parked
    assert worker.queue.desk.n_aside == 0


def test_a_cancelled_call_that_waited_for_an_undone_one_lets_the_database_be_packed(
        file_store, begun):
    """As while its manager is paused; what was cancelled is kept for long."""
    caller, worker = begun
    undone = caller.put(make_call(2))
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    waits = put_after(caller, undone, 1)
    undo_under_others(file_store, caller, worker, put)
    caller.begin().find(waits).cancel()
    caller.commit()
    assert len(beats(worker)) == 1
    assert caller.begin().find(waits).state == 'cancelled'
    file_store.databases[0].pack()


@pytest.mark.parametrize('options', [{'not_before': LATE + 5_000}, {'expires_at': LATE + 5_000}])
def test_an_undone_put_that_no_lane_tells_of_is_forgotten_when_the_worker_compares_its_desk(
        file_store, begun, options):
    """Until it is due it would be counted, and no pack would get past it."""
    caller, worker = begun
    caller.put(make_call(2, **options))
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    other = undo_under_others(file_store, caller, worker, put)
    worker.begin().drop_undone(LATE, DAY)
    worker.commit()
    assert [deferred.id for _, deferred in worker.begin().waiting.items()] == [other]
    assert worker.queue.length_new() == 1
    file_store.databases[0].pack()


@pytest.mark.parametrize('kept', [False, True])
def test_when_an_undone_put_would_have_expired_is_forgotten_when_its_turn_comes(
        file_store, begun, kept):
    """Else no pack would get past it until then."""
    caller, worker = begun
    undone = caller.put(make_call(2, expires_at=LATE + 5_000))
    put = last_transaction_id(file_store)
    worker.begin().take_in_and_claim('boot', LATE, int(kept), DAY, may_reserve=lambda _: True)
    worker.commit()
    other = undo_under_others(file_store, caller, worker, put)
    if kept:
        worker.begin().claim_reserved(undone, 'boot', LATE)
        worker.commit()
    assert worker.beat(LATE, 10) == [other]
    file_store.databases[0].pack()


@pytest.mark.parametrize('lane', [0, 1])
def test_a_look_at_the_whole_lane_after_an_undo_takes_no_call_twice_that_is_to_run_once_more(
        file_store, begun, lane):
    """There are two entries of it, and that of its put says that it waits for another call.

    lane -- in which it was put at first; it is put once more in lane 0.
    """
    caller, worker = begun
    awaited = caller.put(make_call(2), lane)
    worker.beat(LATE, 0)
    waits = put_after(caller, awaited, lane)
    for id in (awaited, waits):
        assert worker.beat(LATE, 10) == [id]
        worker.begin().find(id).fail(Failure('ValueError', 'no'), LATE)
        worker.queue.archive_ended(id, DAY)
        worker.commit()
    undo_one_taken_in(file_store, caller, worker, lane)
    queue = caller.begin()
    for id in (awaited, waits):
        queue.put_again(queue.find(id), 0)
    caller.commit()
    worker.beat(LATE, 0)
    assert worker.begin().length_new() == len(list(worker.queue.waiting.items())) == 2
    for id in (awaited, waits):
        assert worker.beat(LATE, 10) == [id]
        end(worker, id)
    assert worker.begin().length_new() == 0


def test_what_is_put_after_an_undo_is_not_trimmed_by_who_puts_next(file_store):
    """The new puts have the numbers of those that were taken in."""
    caller, worker = file_store.client(), file_store.client()
    queue = caller.begin()
    for number in range(3 * CHUNK):
        queue.put(make_call(number), 0)
    caller.commit()
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    undo(file_store, caller, put)
    new = [caller.put(make_call(100 + number)) for number in range(3 * CHUNK)]
    claimed = worker.beat(LATE, 100)
    claimed += worker.beat(LATE, 100)
    assert claimed == new


def file_one(caller, worker):
    """Put and end a call in lane 0."""
    id = caller.put(make_call(1))
    worker.beat(LATE, 1)
    end(worker, id)


def undo_one_taken_in(file_store, caller, worker, lane=0):
    """Put one in that lane that is taken in and undone."""
    caller.put(make_call(2), lane)
    put = last_transaction_id(file_store)
    worker.beat(LATE, 0)
    undo(file_store, caller, put)


def drop_old(worker):
    """Drop what was filed; entries as old leave the lanes."""
    assert worker.begin().drop_old(LATE + 3 * DAY, DAY)
    worker.commit()


def test_what_is_put_after_an_undo_is_not_dropped_with_old_results(file_store):
    caller, worker = file_store.client(), file_store.client()
    file_one(caller, worker)
    undo_one_taken_in(file_store, caller, worker)
    new = caller.put(make_call(3))
    drop_old(worker)
    assert worker.begin().find(new).id == new
    claimed = worker.beat(LATE + 3 * DAY, 10)
    claimed += worker.beat(LATE + 3 * DAY, 10)
    assert claimed == [new]


def test_a_lane_that_is_trimmed_after_an_undo_has_no_news_for_ever(file_store):
    """Each look would write a beat."""
    caller, worker = file_store.client(), file_store.client()
    file_one(caller, worker)
    undo_one_taken_in(file_store, caller, worker)
    drop_old(worker)
    worker.beat(LATE + 3 * DAY, 10)
    assert not worker.begin().news()


def test_a_mark_beyond_the_end_of_its_lane_does_not_hide_what_is_put(file_store):
    caller, worker = file_store.client(), file_store.client()
    caller.begin().marks.set(0, 5, None)
    caller.commit()
    id = caller.put(make_call(1))
    assert caller.begin().find(id).id == id
    assert worker.beat(LATE, 10) == [id]
    assert not worker.begin().news()
