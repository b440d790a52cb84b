"""The beat, step by step: a worker in this process, its clock moved by hand."""

import errno
import threading

import pytest
import transaction
import ZODB
from ZODB.DemoStorage import DemoStorage

from Products.zasync import lanes
from Products.zasync import policy
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasync.places import NOT_BEFORE
from Products.zasync.places import parse_id
from tests.client import jobs
from tests.client.workbench import Bench
from zasync_client import beat as module
from zasync_client.database import Database
from zasync_client.errors import DeskLost
from zasync_client.errors import PoolBroken
from zasync_client.errors import TargetAway
from zasync_client.work import Work
from zasync_client.worker import UNBEGUN_SECONDS


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.close()


def test_a_beat_claims_and_a_thread_runs_and_a_later_beat_archives(bench):
    worker = bench.worker()
    deferred = bench.put('zope_call', jobs.add, 1, 2)
    assert bench.step(worker) is True
    bench.settle(worker)
    assert deferred.result == 3
    assert deferred.id in bench.manager.queue.desk.running
    bench.clock.advance(module.SWEEP_SECONDS)
    assert bench.step(worker) is True
    transaction.begin()
    assert bench.manager.queue.desk.running == {}
    assert bench.manager.queue.find(deferred.id) is deferred


def test_an_idle_worker_writes_a_heartbeat_each_beat_and_nothing_else(bench):
    worker = bench.worker()
    before = bench.serial()
    for _ in range(3):
        bench.clock.advance(module.BEAT_SECONDS / 4)
        assert bench.step(worker) is False
    assert bench.serial() == before
    beat = bench.manager.queue.pulse.beat
    bench.clock.advance(module.BEAT_SECONDS / 4)
    assert bench.step(worker) is True
    transaction.begin()
    assert bench.manager.queue.pulse.beat == beat + 1


def test_the_heartbeat_does_not_care_about_the_wall_clock(bench):
    worker = bench.worker()
    beat = bench.manager.queue.pulse.beat
    bench.clock.advance(module.BEAT_SECONDS)
    assert bench.apart(worker.step, bench.clock.now() - 3600) is True
    transaction.begin()
    assert bench.manager.queue.pulse.beat == beat + 1


def test_a_busy_worker_does_not_claim_more_than_it_has_threads(bench, tmp_path):
    worker = bench.worker(threads=1)
    gate = str(tmp_path / 'gate')
    first = bench.put('zope_call', jobs.wait_for_file, gate)
    second = bench.put('zope_call', jobs.add, 1, 1)
    bench.step(worker)
    assert (first.state, second.state) == ('accepted', 'new')
    bench.step(worker)
    transaction.begin()
    assert second.state == 'new'
    open(gate, 'w', encoding='ascii').close()
    bench.settle(worker)
    bench.step(worker)
    bench.settle(worker)
    assert second.result == 2


def test_all_threads_have_room_in_a_database_that_is_opened_after_the_start(caplog):
    """As Zope opens one when somebody comes to what is mounted from it."""
    databases, together = {}, threading.Barrier(16)
    bench = Bench(db=ZODB.DB(DemoStorage(), database_name='main', databases=databases))

    def look(run):
        together.wait(30)
        return len(run.app._p_jar.get_connection('mounted').root())

    try:
        worker = bench.worker(threads=16, plugins=[('look', look)])
        ZODB.DB(DemoStorage(), database_name='mounted', databases=databases)
        calls = [bench.put('look') for _ in range(16)]
        bench.step(worker)
        bench.settle(worker)
        assert [call.result for call in calls] == [0] * 16
    finally:
        bench.close()
        databases['mounted'].close()
    assert 'open connections with a pool_size of 7' not in caplog.text


def test_what_no_thread_has_begun_goes_back_as_if_it_had_not_been_claimed(bench):
    worker = bench.worker(start=False, threads=2)
    calls = [bench.put('zope_call', jobs.add, number, 0) for number in range(2)]
    bench.step(worker)
    assert [call.state for call in calls] == ['accepted', 'accepted']
    bench.clock.advance(UNBEGUN_SECONDS)
    bench.step(worker)
    transaction.begin()
    # Given back and, since the slots are free again, claimed once more by the same beat.
    assert [call.attempt for call in calls] == [1, 1]
    assert [len(call.attempts) for call in calls] == [1, 1]
    worker._pool.start()
    bench.settle(worker)
    assert [call.result for call in calls] == [0, 1]


def test_a_thread_keeps_nothing_of_a_call_that_has_ended(bench):
    """Arguments and results may be big, and calls many."""
    worker = bench.worker(plugins=[('double', lambda app, text: 2 * text)])
    deferred = bench.put('double', 'x' * 50_000)
    bench.step(worker)
    bench.settle(worker)
    assert deferred.result == 'x' * 100_000
    bench.connection.cacheMinimize()
    loaded = [each['klass'] for each in bench.db.cacheExtremeDetail()
              if each['state'] is not None]
    assert 'Products.zasync.queue.Queue' in loaded
    assert 'Products.zasync.payload.Payload' not in loaded


def test_what_nobody_runs_is_found_by_comparing_desk_and_pool(bench):
    worker = bench.worker(start=False)
    deferred = bench.put('zope_call', jobs.add, 1, 1)
    bench.step(worker)
    assert worker._pool.take_back()  # as after an undo: on the desk, and in no thread
    bench.clock.advance(module.RECONCILE_SECONDS)
    bench.step(worker)
    worker._pool.start()
    bench.settle(worker)
    assert deferred.state == 'resolved'
    assert [attempt.outcome for attempt in deferred.attempts] == ['nobody ran it', 'resolved']


def test_a_worker_was_started_without_a_plugin_it_had(bench):
    first = bench.worker(plugins=[('parrot', lambda run, value: value)])
    deferred = bench.put('parrot', 'hello')
    bench.stop(first)
    second = bench.worker()
    bench.step(second)
    bench.settle(second)
    bench.step(second)
    transaction.begin()
    assert deferred.state == 'new'
    assert bench.manager.lenNewCalls() == 1
    bench.stop(second)
    third = bench.worker(plugins=[('parrot', lambda run, value: value)])
    bench.clock.advance(60)
    bench.step(third)
    bench.settle(third)
    assert deferred.result == 'hello'


def test_a_call_that_always_meets_conflicts_goes_back_to_the_queue_for_a_while(bench):
    def stubborn(run):
        raise transaction.interfaces.TransientError('again')

    worker = bench.worker(plugins=[('stubborn', stubborn)])
    deferred = bench.put('stubborn')
    bench.step(worker)
    bench.settle(worker)
    bench.step(worker)
    transaction.begin()
    assert deferred.state == 'new'
    assert deferred.attempts[0].outcome == 'TransientError: again'
    assert bench.manager.queue.next_due() > bench.clock.now() - 1


def test_a_manager_made_anew_at_its_place_is_served_again(bench):
    worker = bench.worker()
    app = bench.connection.root()['Application']
    app._delObject('zam')
    app._setObject('zam', AsynchronousCallManager('zam'))
    transaction.commit()
    bench.manager = app.zam
    deferred = bench.put('zope_call', jobs.add, 3, 3)
    bench.step(worker)  # finds the desk free, and takes it
    bench.step(worker)
    bench.settle(worker)
    assert deferred.result == 6


def test_a_beat_the_storage_does_not_take_is_repeated(bench, monkeypatch):
    worker = bench.worker()
    deferred = bench.put('zope_call', jobs.add, 1, 1)
    trouble = [OSError(errno.ENOSPC, 'no space left')]
    real = transaction.commit

    def commit():
        if trouble:
            raise trouble.pop()
        real()

    monkeypatch.setattr(transaction, 'commit', commit)
    assert bench.step(worker) is False
    monkeypatch.undo()
    transaction.begin()
    assert deferred.state == 'new'
    bench.step(worker)
    bench.settle(worker)
    assert deferred.result == 2


def test_a_commit_that_comes_while_the_beat_looks_is_not_slept_over(bench, monkeypatch):
    """The flag is cleared, then the snapshot taken, then looked: the other order forgets it."""
    worker = bench.worker()
    bench.step(worker)
    real, ids = worker._database.manager, []

    def put():
        with bench.db.transaction() as connection:
            zam = connection.root()['Application'].zam
            ids.append(zam.putCall('zope_call', jobs.add, 1, 1).id)

    def manager(*target):
        """The beat has its snapshot by now."""
        found = real(*target)
        if not ids:
            thread = threading.Thread(target=put)
            thread.start()
            thread.join(30)
        return found

    monkeypatch.setattr(worker._database, 'manager', manager)
    bench.step(worker)
    transaction.begin()
    assert bench.manager.queue.find(ids[0]).state == 'new'  # it was not seen
    assert worker._wakeup._event.is_set()
    bench.step(worker)
    bench.settle(worker)
    assert bench.manager.queue.find(ids[0]).result == 2


def test_a_worker_that_starts_while_the_disk_is_full_waits(bench, monkeypatch):
    trouble, real = [OSError(errno.ENOSPC, 'no space left')] * 2, transaction.commit

    def commit():
        if trouble:
            raise trouble.pop()
        real()

    monkeypatch.setattr(transaction, 'commit', commit)
    worker = bench.worker()
    transaction.begin()
    assert not trouble and bench.manager.queue.desk.boot == worker.boot


def test_a_ping_by_a_clock_that_is_ahead_does_not_silence_the_next(bench):
    worker = bench.worker()
    queue = bench.manager.queue
    for asked in (bench.clock.now() + 3600, bench.clock.now()):
        queue.ping.asked_at = asked
        transaction.commit()
        assert bench.step(worker) is True
        transaction.begin()
        assert queue.pulse.answered == asked
        assert queue.pulse.pong_at == bench.clock.now()
        assert bench.step(worker) is False


def test_a_target_that_is_only_acquired_is_none(bench):
    app = bench.connection.root()['Application']
    from OFS.Folder import Folder
    app._setObject('sub', Folder('sub'))
    transaction.commit()
    database = Database(bench.db, ('', 'sub', 'zam'), 1)
    with pytest.raises(TargetAway):
        bench.apart(database.manager)


def test_a_worker_that_lost_its_desk_stops(bench):
    worker = bench.worker()
    bench.manager.queue.desk.boot = 'somebody else'
    transaction.commit()
    with pytest.raises(DeskLost):
        bench.step(worker)


def test_a_worker_whose_threads_do_not_start_stops(bench):
    worker = bench.worker(start=False)

    def no_runner():
        raise RuntimeError('no runner')

    worker._pool._make_runner = no_runner
    hook, threading.excepthook = threading.excepthook, lambda args: None
    try:
        worker._pool.start()
        for thread in threading.enumerate():
            if thread.name.startswith('zasync-'):
                thread.join(10)
    finally:
        threading.excepthook = hook
    with pytest.raises(PoolBroken):
        bench.step(worker)


def test_a_drain_gives_back_what_has_not_begun_and_leaves_the_desk(bench):
    worker = bench.worker(start=False)
    deferred = bench.put('zope_call', jobs.add, 1, 1)
    bench.step(worker)
    bench.stop(worker)
    assert deferred.state == 'new'
    assert deferred.attempts == ()
    assert bench.manager.queue.desk.boot is None
    assert not bench.manager.queue.pulse.accepting


def test_the_worker_meets_an_error_of_its_own_in_a_call(bench, caplog, monkeypatch):
    mistakes, ours = [RuntimeError('a mistake of ours')], Work.ours

    def spoilt(work, claim):
        if mistakes:
            raise mistakes.pop()
        return ours(work, claim)

    monkeypatch.setattr(Work, 'ours', spoilt)
    worker = bench.worker()
    deferred = bench.put('zope_call', jobs.set_mark, 'done', 1)
    bench.step(worker)
    bench.settle(worker)
    assert deferred.state == 'accepted'
    assert 'CRITICAL' in [record.levelname for record in caplog.records]
    bench.step(worker)
    bench.clock.advance(1)
    bench.step(worker)
    bench.settle(worker)
    assert deferred.state == 'resolved' and bench.marks['done'] == 1
    assert [attempt.outcome for attempt in deferred.attempts] == [
        'RuntimeError: a mistake of ours', 'resolved']


def test_while_many_wait_what_was_put_since_is_looked_at_now_and_then(
        bench, tmp_path, monkeypatch):
    """A look loads each chunk again into which it was put."""
    monkeypatch.setattr(policy, 'AHEAD_SECONDS', 0.0)
    gate = str(tmp_path / 'gate')
    for _ in range(2):
        bench.put('zope_call', jobs.wait_for_file, gate)
    transaction.begin()
    for _ in range(module.ENOUGH_READY + 3):
        bench.manager.putCall('zope_call', print)
    transaction.commit()
    worker = bench.worker(threads=2)
    bench.step(worker)
    queue, ready = bench.manager.queue, module.ENOUGH_READY + 3
    assert (len(queue.desk.running), queue.desk.n_ready) == (2, ready)
    bench.wait(lambda: worker._pool.oldest_waiting() is None)  # else they go back
    urgent = bench.manager.putCallWith(Options(priority=1), 'zope_call', print)
    transaction.commit()

    def step():
        bench.step(worker)
        return queue.desk.n_ready, bool(queue.news()), queue.pulse.new

    assert bench.step(worker) is False
    bench.clock.advance(module.FULL_LANES_SECONDS)
    assert bench.step(worker) is False  # no thread is free: it stays in its lane
    open(gate, 'w', encoding='ascii').close()
    bench.settle(worker)
    assert step() == (ready - 2, True, ready - 2)
    bench.settle(worker)
    assert urgent.state == 'new'
    bench.clock.advance(module.LANES_SECONDS)
    assert step() == (ready - 3, False, ready - 3)
    bench.settle(worker)
    assert urgent.state == 'resolved'
    # With few at hand each look is at all of them.
    while queue.desk.n_ready >= module.ENOUGH_READY:
        bench.step(worker)
        bench.settle(worker)
    urgent = bench.manager.putCallWith(Options(priority=1), 'zope_call', print)
    transaction.commit()
    bench.step(worker)
    bench.settle(worker)
    assert urgent.state == 'resolved'


def test_a_storage_pushes_no_news(bench):
    """DemoStorage tells nobody of commits: the worker must not sleep longer than its interval."""
    worker = bench.worker()
    bench.step(worker)
    assert 0 < worker._seconds_to_sleep(bench.clock.now()) <= bench.manager.poll_interval


def test_a_due_call_does_not_keep_a_full_worker_awake(bench, tmp_path):
    worker = bench.worker(threads=1)
    gate = str(tmp_path / 'gate')
    bench.put('zope_call', jobs.wait_for_file, gate)
    bench.step(worker)
    transaction.begin()
    queue = bench.manager.queue
    waiting = bench.put('zope_call', jobs.add, 1, 1)
    queue.lanes  # noqa: B018 (load before the tree below is written)
    lane_number, number, _ = parse_id(waiting.id)
    lanes.store(queue.lanes[lane_number], number, lanes.Entry(
        waiting.put_at, waiting, {NOT_BEFORE: bench.clock.now() - 5}))
    transaction.commit()
    bench.step(worker)
    assert worker._seconds_to_sleep(bench.clock.now()) > 0.1
    open(gate, 'w', encoding='ascii').close()
    bench.settle(worker)
