"""Callbacks added late: whatever the order of commits, none is lost and no call is disturbed."""

import itertools
from contextlib import contextmanager

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.users import system
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage
from ZODB.POSException import ConnectionStateError

from Products.zasync import callbacks  # noqa: F401 (deferreds find it)
from Products.zasync import lanes
from Products.zasync import putting
from Products.zasync.errors import BadCall
from Products.zasync.failure import Failure
from Products.zasync.queue import Queue
from tests.fakes import make_call
from tests.fakes import NOW
from tests.zodb.conftest import Client


LATE = NOW + 10_000_000_000


@pytest.fixture
def adder(store):
    """A Client in this thread's own transaction manager, as a request has it."""
    client = Client(store.databases[-1], store._key)
    client.tm.abort()
    client.connection.close()
    client.tm = transaction.manager
    client.connection = store.databases[-1].open()
    newSecurityManager(None, system)
    yield client
    noSecurityManager()
    client.close()


def beat(client):
    """Ids of what one beat claims, whatever there is."""
    return client.beat(LATE, 100)


def file_ended(client):
    """File what has ended, as a beat does."""
    queue = client.begin()
    for id, deferred in list(queue.desk.running.items()):
        if deferred.ended:
            queue.archive_ended(id, 80)
    client.commit()


def running(store, adder):
    """(id of a call that runs, the connections of a thread and of the beat)."""
    thread, worker = store.client(), store.client()
    id = thread.put(make_call())
    assert worker.beat(LATE, 1) == [id]
    return id, thread, worker


ENDS = {
    'result': lambda queue, id: queue.find(id).succeed(None, LATE),
    'failure': lambda queue, id: queue.find(id).fail(Failure('ValueError', 'no'), LATE),
    'cancel': lambda queue, id: queue.find(id).cancel(),
    'checkpoint': lambda queue, id: queue.find(id).checkpoint(b'\x80\x04}.'),
}


@pytest.mark.parametrize('end', ENDS)
@pytest.mark.parametrize('first', ['end', 'add'])
@pytest.mark.parametrize('taken_in', ['before the end', 'after the end', 'when it was filed'])
def test_a_late_callback_disturbs_no_event_of_its_call_and_is_not_lost(
        store, adder, end, first, taken_in):
    id, thread, worker = running(store, adder)
    ENDS[end](thread.begin(), id)
    adder.begin().find(id).addCallbacks('result')
    for client in (thread, adder) if first == 'end' else (adder, thread):
        if client is thread and taken_in == 'before the end' and first == 'add':
            assert beat(worker) == []
        client.commit()  # neither meets the other
    if end == 'checkpoint':
        assert beat(worker) == []
        thread.begin().find(id).succeed(None, LATE)
        thread.commit()
    if taken_in == 'when it was filed':
        file_ended(worker)
    found = beat(worker)
    if not found:
        # It was taken in while the call ran: then it waits until that is filed.
        file_ended(worker)
        found = beat(worker)
    [follower] = found
    assert [call.id for call in adder.begin().find(follower).after] == [id]
    assert adder.queue.length_new() == 0
    assert not adder.queue.waiting._awaited


def test_callbacks_of_one_transaction_are_one_chain_also_across_savepoints(store, adder):
    id, _, worker = running(store, adder)
    deferred = adder.begin().find(id)
    deferred.addCallbacks('result').addCallbacks(None, 'failure')
    transaction.savepoint()
    adder.connection.cacheMinimize()
    del deferred
    adder.queue.find(id).addCallbacks('python: result')
    adder.commit()
    [follower] = followers(adder)
    assert [pair[:2] for pair in follower._callbacks] == [
        ('result', None), (None, 'failure'), ('python: result', None)]


def test_callbacks_of_two_transactions_of_another_manager_than_the_threads_are_two_chains(
        store, adder):
    client = store.client()
    id = client.put(make_call())
    for _ in range(2):
        client.begin().find(id).addCallbacks('result')
        client.commit()
    assert [len(follower._callbacks) for follower in followers(adder)] == [1, 1]


def test_a_callback_for_a_call_of_a_connection_that_is_closed_is_refused_with_that(store, adder):
    client = store.client()
    deferred = client.begin().find(client.put(make_call()))
    assert deferred.state == 'new'
    client.close()
    with pytest.raises(ConnectionStateError, match='closed'):
        deferred.addCallbacks('result')


def test_each_call_has_a_follower_of_its_own(store, adder):
    ids = [store.client().put(make_call(number)) for number in range(20)]
    adder.begin()
    for id in ids * 2:
        adder.queue.find(id).addCallbacks('result')
        # Whatever is not held may have its place in memory taken by the next one.
        transaction.savepoint()
        adder.connection.cacheMinimize()
    adder.commit()
    assert sorted(follower.after[0].id for follower in followers(adder)) == sorted(ids)
    assert {len(follower._callbacks) for follower in followers(adder)} == {2}


@pytest.mark.parametrize('steps', list(
    itertools.product(['add', 'savepoint'], repeat=3)))
def test_a_savepoint_that_is_rolled_back_takes_its_callbacks_with_it(store, adder, steps):
    id, _, worker = running(store, adder)
    adder.begin()
    before = 0
    savepoint = transaction.savepoint()
    for number, step in enumerate(steps):
        if step == 'add':
            adder.queue.find(id).addCallbacks(f'python: {number}')
        else:
            before = sum(step == 'add' for step in steps[:number])
            savepoint = transaction.savepoint()
    adder.queue.find(id).addCallbacks('python: "gone"')
    transaction.savepoint()
    savepoint.rollback()
    adder.queue.find(id).addCallbacks('python: "last"')
    adder.commit()
    [follower] = followers(adder)
    assert len(follower._callbacks) == before + 1
    assert follower._callbacks[-1][0] == 'python: "last"'
    assert adder.begin().length_new() == 1


def test_callbacks_of_a_transaction_that_aborts_are_gone(store, adder):
    id, thread, worker = running(store, adder)
    adder.begin().find(id).addCallbacks('result')
    adder.abort()
    assert adder.begin().length_new() == 0
    adder.queue.find(id).addCallbacks('result')
    adder.commit()
    assert len(followers(adder)) == 1


@pytest.mark.parametrize('savepoints', [0, 1])
def test_callbacks_of_the_transaction_that_puts_are_kept_with_the_call(store, adder, savepoints):
    deferred = put(adder)
    for number in range(3):
        deferred.addCallbacks(f'python: {number}')
        if savepoints:
            transaction.savepoint()
            adder.connection.cacheMinimize()
    adder.commit()
    assert followers(adder) == []
    assert [pair[0] for pair in adder.queue.find(deferred.id)._callbacks] == [
        'python: 0', 'python: 1', 'python: 2']


def test_a_savepoint_takes_callbacks_of_a_fresh_call_with_it(store, adder):
    deferred = put(adder)
    deferred.addCallbacks('python: 0')
    savepoint = transaction.savepoint()
    deferred.addCallbacks('python: 1')
    savepoint.rollback()
    deferred.addCallbacks('python: 2')
    adder.commit()
    assert [pair[0] for pair in deferred._callbacks] == ['python: 0', 'python: 2']


def put(adder):
    queue = adder.begin()
    return putting.put(queue, queue.names, make_call(), 'zam')


def followers(client):
    """All followers that are in a lane or were taken in."""
    queue = client.begin()
    found = [entry.deferred for lane in queue.lanes for _, entry in lanes.after(lane, 0)
             if entry.deferred is not None]
    return [deferred for deferred in found if deferred.plugin == 'follow']


def test_a_call_joined_by_its_key_gets_a_follower(store, adder):
    """It is somebody else's transaction that put it."""
    queue = adder.begin()
    names, call = queue.names, make_call(key='one')
    first = putting.put(queue, names, call, 'zam')
    adder.commit()
    adder.begin()
    _, again = putting.find_joined(names, lambda id: queue, call)
    assert again is first
    again.addCallbacks('result')
    adder.commit()
    assert len(followers(adder)) == 1
    assert first._callbacks == ()


def test_a_fresh_call_that_was_cancelled_hands_its_callbacks_on(store, adder):
    deferred = put(adder)
    deferred.addCallbacks(None, 'failure')
    assert deferred.cancel() is True
    adder.commit()
    worker = store.client()
    [id] = beat(worker)
    follower = worker.begin().find(id)
    assert [pair[:2] for pair in follower._callbacks] == [(None, 'failure')]
    assert worker.queue.length_new() == 0
    assert worker.queue.find(deferred.id).state == 'cancelled'


def test_who_waits_for_a_put_that_was_undone_waits_no_longer(file_store, adder_of):
    worker = file_store.client()
    with adder_of(file_store) as adder:
        queue = adder.begin()
        lanes._thread.lane = 5
        call = make_call(not_before=LATE + 10, expires_at=LATE + 20)
        deferred = putting.put(queue, queue.names, call, 'zam')
        transaction.get().note('the put')
        adder.commit()
        lanes._thread.lane = 6
        adder.begin()
        deferred.addCallbacks('result')
        adder.commit()
        assert beat(worker) == []
        assert worker.begin().length_new() == 2
        db = file_store.databases[0]
        [undone] = [each for each in db.undoInfo(0, 10) if 'the put' in str(each['description'])]
        adder.begin()
        db.undo(undone['id'], transaction.get())
        adder.commit()
        # The call of the lane is gone, and with it what the follower waited for.
        assert len(beat(worker)) == 1
        assert worker.beat(LATE + 30, 1) == []
        assert worker.begin().length_new() == 0


@pytest.fixture
def adder_of():
    """A maker of Clients like `adder`, for another store."""
    @contextmanager
    def make(store):
        client = store.client()
        client.tm.abort()
        client.connection.close()
        client.tm = transaction.manager
        client.connection = store.databases[0].open()
        newSecurityManager(None, system)
        try:
            yield client
        finally:
            noSecurityManager()
    return make


def test_a_deleted_manager_takes_no_late_callbacks(store, adder):
    id, _, _ = running(store, adder)
    deferred = adder.begin().find(id)
    adder.queue.close()
    with pytest.raises(BadCall, match='deleted'):
        deferred.addCallbacks('result')
    adder.abort()


def test_two_late_additions_of_two_processes_do_not_meet(store, adder):
    id, _, worker = running(store, adder)
    other = store.client()
    adder.begin().find(id).addCallbacks('result')
    other.begin().put(make_call(1), 7)
    adder.commit()
    other.commit()
    assert len(followers(adder)) == 1


def test_nothing_of_a_follower_needs_the_archive_of_its_call(store, adder):
    """Added after the call was dropped: whoever holds the deferred may still do it."""
    id, thread, worker = running(store, adder)
    thread.begin().find(id).succeed(b'\x80\x04K\x07.', LATE)
    thread.commit()
    file_ended(worker)
    deferred = adder.begin().find(id)
    worker.begin().drop_old(LATE + 1_000, 80)
    worker.commit()
    deferred.addCallbacks('result')
    adder.commit()
    assert adder.begin().find(id) is None
    [follower] = beat(worker)
    assert [call.result for call in worker.begin().find(follower).after] == [7]


def test_idle_lanes_do_not_keep_what_the_archive_has_dropped():
    """Lanes are trimmed by puts; where there are none, by the worker, with each slice."""
    db = DB(DemoStorage())
    connection = db.open()
    queue = connection.root()['queue'] = Queue()
    transaction.commit()
    deferred = queue.put(make_call(), 3)
    waiting = queue.put(make_call(1, not_before=LATE), 3)
    transaction.commit()
    assert len(queue.take_in_and_claim('boot', NOW + 10, 5, 80)) == 1
    deferred.succeed(None, NOW + 10)
    queue.archive_ended(deferred.id, 80)
    transaction.commit()
    assert queue.find(deferred.id) is deferred
    assert queue.drop_old(NOW + 100, 80) is True
    transaction.commit()
    assert queue.find(deferred.id) is None
    assert [entry.deferred for _, entry in lanes.after(queue.lanes[3], 0)] == [None]
    # The lane goes on numbering, and what waits is where it was.
    assert queue.find(waiting.id) is waiting
    third = queue.put(make_call(2), 3)
    transaction.commit()
    assert third.id.startswith('3-3-')
    assert queue.has_work(NOW + 100, 1)
    assert queue.take_in_and_claim('boot', NOW + 100, 5, 80) == [third]
    assert queue.length_new() == 1
    transaction.abort()
    connection.close()
    db.close()
