"""Reserved calls: of those that share a transaction the claim is committed with the end."""

import datetime
import threading

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.SpecialUsers import system
from ZEO.Exceptions import ClientDisconnected
from ZODB.FileStorage import FileStorage

from Products.zasync import groupable
from Products.zasync import lanes
from Products.zasync import listing
from Products.zasync import moving
from Products.zasync.interfaces import ACCEPTED
from Products.zasync.interfaces import NEW
from Products.zasync.options import Retry
from tests.client import jobs
from tests.client.fate import Gate
from tests.client.grouping import assert_apart
from tests.client.grouping import assert_together
from tests.client.grouping import Group
from tests.client.grouping import states
from tests.client.grouping import times_run
from tests.client.test_undo import undo
from zasync_client.worker import UNBEGUN_SECONDS


@pytest.fixture
def group(tmp_path):
    """A Group in a storage that can undo, and tells what was written."""
    newSecurityManager(None, system)
    made = Group(True, FileStorage(str(tmp_path / 'Data.fs')))
    try:
        yield made
    finally:
        made.close()
        noSecurityManager()


def reserved(group):
    transaction.begin()
    return set(group.manager.queue.desk.reserved)


def running(group):
    transaction.begin()
    return set(group.manager.queue.desk.running)


def ids(deferreds):
    return {deferred.id for deferred in deferreds}


def writes(group, deferred):
    """How often the record of a call was written."""
    return sum(record.oid == deferred._p_oid
               for each in group.db.storage.iterator() for record in each)


def outcomes(deferred):
    transaction.begin()
    return [attempt.outcome for attempt in deferred.attempts]


def test_the_record_of_a_reserved_call_is_written_by_its_put_and_by_its_end(group):
    worker = group.worker()
    deferreds = group.put_marks(*range(4))
    odd = group.call('do', 'mark', 4, series='one')
    group.step(worker)
    assert reserved(group) == ids(deferreds)
    assert running(group) == {odd.id}
    assert [writes(group, deferred) for deferred in deferreds] == [1] * 4
    group.go(worker)
    assert_together(*deferreds)
    assert [writes(group, deferred) for deferred in (*deferreds, odd)] == [2, 2, 2, 2, 3]
    assert (reserved(group), running(group)) == (set(), set())
    assert group.marks_of() == [0, 1, 2, 3, 4]
    assert [outcomes(deferred) for deferred in deferreds] == [['resolved']] * 4
    assert all(deferred.started_at <= deferred.ended_at for deferred in deferreds)


def test_until_it_ends_a_reserved_call_is_new_and_counts_as_accepted(group):
    worker = group.worker()
    deferreds = group.put_marks(0, 1)
    group.step(worker)
    assert group.counts() == (0, 2)
    assert group.manager.queue.pulse.accepted == 2
    assert states(deferreds) == [NEW, NEW]
    assert [group.manager.getDeferred(deferred.id) for deferred in deferreds] == deferreds
    queue = group.manager.queue
    assert ids(listing.page(queue)) == ids(listing.page(queue, NEW)) == ids(deferreds)
    assert listing.page(queue, ACCEPTED) == []
    worker._pool.start()
    group.settle(worker)
    transaction.begin()
    assert group.counts() == (0, 0)  # though nothing is filed


@pytest.mark.parametrize('options', [
    {'key': 'one'}, {'expires': datetime.timedelta(seconds=60)}, {'timeout': 60.0}],
    ids=lambda options: ''.join(options))
def test_what_others_may_count_on_is_claimed_before_it_runs(group, options):
    worker = group.worker()
    odd = group.call('do', 'mark', 0, **options)
    deferreds = group.put_marks(1, 2)
    group.step(worker)
    assert (reserved(group), running(group)) == (ids(deferreds), {odd.id})
    group.go(worker)
    assert states([odd, *deferreds]) == ['resolved'] * 3


def test_nothing_is_reserved_before_a_group_was_committed_nor_after_one_failed(group):
    group.reserves = False
    group.actions['commit'] = lambda run: transaction.commit()
    worker = group.worker()
    for expected, calls in (([0, 1], group.put_marks), ([2, 3], group.put_marks)):
        deferreds = calls(*expected)
        group.step(worker)
        assert bool(reserved(group)) is (expected == [2, 3])
        group.go(worker)
        assert_together(*deferreds)
    # It turns out that this one is not fit.
    odd = [group.put('do', 'commit'), *group.put_marks(4, 5)]
    group.step(worker)
    assert reserved(group) == ids(odd)
    group.go(worker)
    assert states(odd) == ['resolved'] * 3
    assert_apart(*odd)
    after = group.put_marks(6, 7)
    group.step(worker)
    assert reserved(group) == set()
    group.go(worker)
    assert states(after) == ['resolved'] * 2


@pytest.mark.parametrize('when', ['before', 'meanwhile'])
def test_a_reserved_call_is_cancelled(group, when):
    gate = Gate()
    group.actions['wait'] = lambda run, number: (gate.wait(), group.mark(run, number))
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('do', 'wait', 1), *group.put_marks(2)]
    group.step(worker)
    assert reserved(group) == ids(deferreds)
    if when == 'meanwhile':
        worker._pool.start()
        gate.reached()
    assert group.do(deferreds[1].cancel)
    gate.open()
    group.go(worker)
    assert states(deferreds) == ['resolved', 'cancelled', 'resolved']
    assert group.marks_of() == [0, 2]
    assert times_run(group, deferreds[1]) == (when == 'meanwhile')
    assert (reserved(group), group.counts()) == (set(), (0, 0))
    assert not group.manager.queue.cancelled
    assert outcomes(deferreds[1]) == []
    assert deferreds[1].id in ids(listing.page(group.manager.queue, 'cancelled'))


def test_a_callback_is_added_while_a_reserved_call_runs(group):
    seen, gate = [], Gate()
    jobs.hook = seen.append

    def wait(run, number):
        if not seen and run.attempt == 1 and len(group.runs) == 2:
            gate.wait()
        return group.mark(run, number)

    group.actions['wait'] = wait
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('do', 'wait', 1)]
    group.step(worker)
    worker._pool.start()
    gate.reached()
    group.do(deferreds[1].addCallbacks, jobs.call_hook)
    gate.open()
    group.go(worker)
    assert states(deferreds) == ['resolved'] * 2
    assert seen == [1]
    assert group.marks_of() == [0, 1]


def test_reserved_calls_of_a_worker_that_is_gone_run_again_alone_and_the_attempt_counts(group):
    first = group.worker()
    deferreds = group.put_marks(*range(3))
    group.step(first)
    assert reserved(group) == ids(deferreds)
    second = group.worker()
    assert reserved(group) == set()
    assert [outcomes(deferred) for deferred in deferreds] == [
        ['interrupted, maybe by a call beside it']] * 3
    group.go(second)
    assert states(deferreds) == ['resolved'] * 3
    assert_apart(*deferreds)
    assert [deferred.attempt for deferred in deferreds] == [2] * 3
    assert group.marks_of() == [0, 1, 2]


def test_a_group_of_a_worker_that_lost_its_desk_meanwhile_is_not_committed(group):
    gate = Gate()

    def wait(run, number):
        if run.attempt == 1:
            gate.wait()
        return group.mark(run, number, run.attempt)

    group.actions['wait'] = wait
    first = group.worker()
    deferreds = [*group.put_marks(0), group.put('do', 'wait', 1)]
    group.step(first)
    first._pool.start()
    gate.reached()
    second = group.worker()  # as if it had been watched, and taken for dead
    gate.open()
    group.settle(first)
    transaction.begin()
    assert (states(deferreds), group.marks_of()) == ([NEW] * 2, [])
    group.go(second)
    assert states(deferreds) == ['resolved'] * 2
    assert [group.own[number]['mark'] for number in (0, 1)] == [True, 2]


def test_what_no_thread_comes_to_goes_back_without_a_write_of_its_record(group):
    gate = Gate()
    group.actions['wait'] = lambda run: gate.wait()
    worker = group.worker(plugins=[('slow', lambda run: gate.wait())])
    slow = group.put('slow')
    deferreds = group.put_marks(*range(3))
    group.step(worker)
    assert reserved(group) == ids(deferreds)
    worker._pool.start()
    gate.reached()
    group.clock.advance(UNBEGUN_SECONDS)
    group.step(worker)
    assert reserved(group) == set()
    assert group.counts() == (3, 1)
    assert [writes(group, deferred) for deferred in deferreds] == [1] * 3
    gate.open()
    group.go(worker, rounds=6)
    assert states([slow, *deferreds]) == ['resolved'] * 4
    assert [deferred.attempt for deferred in deferreds] == [1] * 3


def test_the_end_of_a_group_is_undone_before_it_is_filed(group):
    worker = group.worker()
    deferreds = group.put_marks(0, 1)
    group.step(worker)
    worker._pool.start()
    group.settle(worker)
    assert_together(*deferreds)
    undo(group)
    transaction.begin()
    assert (states(deferreds), group.marks_of()) == ([NEW] * 2, [])
    group.step(worker, hurry=True)
    group.go(worker)
    assert states(deferreds) == ['resolved'] * 2
    assert group.marks_of() == [0, 1]
    assert [outcomes(deferred)[0] for deferred in deferreds] == ['undone'] * 2


def test_a_reservation_is_undone_while_its_group_runs(group):
    gate = Gate()

    def wait(run, number):
        if len(group.runs) == 2:
            gate.wait()
        marks = run.app._p_jar.root()['own'][number]
        marks['n'] = marks.get('n', 0) + 1

    group.actions['wait'] = wait
    worker = group.worker()
    deferreds = [group.put('do', 'wait', number) for number in range(2)]
    group.step(worker)
    worker._pool.start()
    gate.reached()
    undo(group)
    assert reserved(group) == set()
    gate.open()
    group.settle(worker)
    group.go(worker)
    assert states(deferreds) == ['resolved'] * 2
    assert [group.own[number]['n'] for number in range(2)] == [1, 1]
    assert (reserved(group), running(group), group.counts()) == (set(), set(), (0, 0))


def test_what_has_failed_in_a_group_is_retried_by_a_person_before_it_is_filed(group):
    group.actions['fail_once'] = lambda run, number: 1 / (run.attempt - 1)
    worker = group.worker()
    deferreds = [group.put('do', 'fail_once', 0), *group.put_marks(1)]
    group.step(worker)
    worker._pool.start()
    group.settle(worker)
    assert states(deferreds) == ['failed', 'resolved']
    assert reserved(group) == ids(deferreds)
    group.do(group.manager.retry, deferreds[0].id)
    group.go(worker)
    assert states(deferreds) == ['resolved'] * 2
    assert times_run(group, deferreds[0]) == 2
    assert (reserved(group), running(group), group.counts()) == (set(), set(), (0, 0))


def test_a_retry_policy_counts_the_attempt_of_a_reserved_call(group):
    def fail_at_first(run, number):
        group.mark(run, number, run.attempt)
        return 1 / (run.attempt - 1)

    group.actions['fail_at_first'] = fail_at_first
    worker = group.worker()
    deferreds = [group.call('do', 'fail_at_first', 0, retry=Retry(2, delay=0)),
                 *group.put_marks(1)]
    group.step(worker)
    assert reserved(group) == ids(deferreds)
    group.go(worker)
    assert states(deferreds) == ['resolved'] * 2
    first, second = outcomes(deferreds[0])
    assert first.startswith('failed: ZeroDivisionError') and second == 'resolved'
    assert group.own[0]['mark'] == 2


@pytest.mark.parametrize('how', ['paused', 'draining'])
def test_what_is_to_run_alone_waits_while_nothing_may_be_claimed(group, how):
    gate = Gate()

    def commit(run):
        gate.wait()
        transaction.commit()

    group.actions['commit'] = commit
    worker = group.worker()
    deferreds = [group.put('do', 'commit'), *group.put_marks(1)]
    group.step(worker)
    worker._pool.start()
    gate.reached()
    if how == 'paused':
        group.do(group.manager.pause)
    else:
        worker._beat.draining = True
    gate.open()
    group.settle(worker)
    group.step(worker)
    assert (states(deferreds), group.counts()) == ([NEW] * 2, (2, 0))
    assert [outcomes(deferred) for deferred in deferreds] == [[]] * 2
    worker._beat.draining = False
    group.do(group.manager.resume)
    group.go(worker)
    assert states(deferreds) == ['resolved'] * 2


def test_a_worker_that_is_stopped_leaves_nothing_reserved(group):
    worker = group.worker()
    deferreds = group.put_marks(*range(3))
    group.step(worker)
    assert reserved(group) == ids(deferreds)
    group.stop(worker)  # its threads never began
    assert (reserved(group), group.counts()) == (set(), (3, 0))
    assert states(deferreds) == [NEW] * 3


@pytest.mark.parametrize('when', ['before', 'meanwhile'])
def test_a_reserved_call_that_is_cancelled_while_its_worker_stops_counts_no_more(group, when):
    """Else a manager could be deleted with as many calls that wait."""
    gate = Gate()
    group.actions['wait'] = lambda run, number: (gate.wait(), group.mark(run, number))
    worker = group.worker()
    deferreds = [group.put('do', 'wait', 0), *group.put_marks(1)]
    group.step(worker)
    assert reserved(group) == ids(deferreds)
    if when == 'meanwhile':
        worker._pool.start()
        gate.reached()
    worker._beat.draining = True
    group.put_marks(2)
    assert group.do(deferreds[0].cancel)
    group.step(worker)
    gate.open()
    group.stop(worker)
    assert group.counts() == (len(group.manager.calls('new')), 0)
    assert not group.manager.queue.cancelled
    assert group.manager.calls('cancelled') == [deferreds[0]]


@pytest.mark.parametrize('when', ['before', 'meanwhile', 'after'])
def test_the_put_of_a_reserved_call_is_undone(group, when):
    """Of one that is claimed it can not be: its record was written again."""
    gate = Gate()
    group.actions['wait'] = lambda run, number: (gate.wait(), group.mark(run, number))[1]
    worker = group.worker()
    deferreds = group.put_marks(0)
    lanes.move()
    deferreds.append(group.put('do', 'wait', 1))
    gone = deferreds[1].id
    before = len(group.db.undoLog(0, 100))
    lanes.move()
    deferreds += group.put_marks(2)
    group.step(worker)
    assert reserved(group) == ids(deferreds)
    if when != 'before':
        worker._pool.start()
        gate.reached()
    if when == 'after':
        group.clock.advance(UNBEGUN_SECONDS)
    undo(group, len(group.db.undoLog(0, 100)) - before)
    group.step(worker)
    gate.open()
    group.go(worker, rounds=6)
    assert states([deferreds[0], deferreds[2]]) == ['resolved'] * 2
    assert group.marks_of() == [0, 2]
    assert (reserved(group), running(group), group.counts()) == (set(), set(), (0, 0))
    assert group.manager.queue.find(gone) is None


@pytest.mark.parametrize('full', [False, True], ids=['free threads', 'no free thread'])
def test_the_last_put_of_a_lane_is_undone_and_what_is_reserved_is_not_taken_in_again(group, full):
    gate = Gate()
    worker = group.worker(plugins=[('slow', lambda run: gate.wait())])
    slow = group.put('slow')
    deferreds = group.put_marks(0, 1, 2)  # all in one lane
    group.step(worker)
    worker._pool.start()
    gate.reached()
    undo(group, 1)
    if full:
        group.do(group.manager.pause)
        group.do(group.manager.ping)
    group.step(worker)
    queue = group.manager.queue
    assert ids(deferreds[:2]) <= reserved(group)  # the third goes when its thread comes to it
    assert (set(queue.desk.running), queue.desk.n_ready) == ({slow.id}, 0)
    group.do(group.manager.resume)
    gate.open()
    group.go(worker, rounds=6)
    assert states(deferreds[:2]) == ['resolved'] * 2
    assert [deferred.attempt for deferred in deferreds[:2]] == [1, 1]
    assert (reserved(group), running(group), group.counts()) == (set(), set(), (0, 0))
    assert group.step(worker) is False


def test_the_server_is_away_when_a_group_is_to_begin(group):
    worker = group.worker()
    deferred, = group.put_marks(0)
    group.step(worker)
    connection, failed = worker._database.connection, []

    def fails_once():
        if threading.current_thread().name.startswith('zasync-') and not failed:
            failed.append(True)
            raise ClientDisconnected('away')
        return connection()

    worker._database.connection = fails_once
    worker._pool.start()
    group.settle(worker)
    group.go(worker)
    assert failed
    assert (deferred.state, deferred.attempt, group.marks_of()) == ('resolved', 1, [0])


def test_a_reserved_call_that_failed_tells_when_it_began(group):
    def fail_late(run):
        group.clock.advance(5)
        raise ValueError('late')

    group.actions['fail_late'] = fail_late
    worker = group.worker(batch_seconds=30.0)
    deferreds = [group.put('do', 'fail_late'), *group.put_marks(1)]
    group.step(worker)
    began = group.clock.now()
    group.go(worker)
    assert states(deferreds) == ['failed', 'resolved']
    assert (deferreds[0].started_at, deferreds[0].ended_at) == (began, began + 5)


# a worker that dies, and its siblings

@groupable
def leave_mark(name):
    """Its call may share a transaction."""
    jobs.set_mark(name, name)


def strand(farm, number=3):
    """(the worker that served zam2, calls that it has reserved); its threads never begin."""
    dead = farm.serve('zam2', start=False)
    dead._habits.note_group(True)
    dead._pace.note(0.0, farm.clock.monotonic())
    deferreds = [farm.put_to('zam2', 'zope_call', leave_mark, f'm{each}')
                 for each in range(number)]
    farm.step(dead)
    transaction.begin()
    assert set(farm.zad.zam2.queue.desk.reserved) == ids(deferreds)
    return dead, deferreds


def test_a_sibling_gives_out_again_what_a_dead_worker_had_reserved(farm):
    dead, deferreds = strand(farm)
    alive = farm.serve('zam1')
    farm.let_pass(70, alive)
    assert not farm.zad.zam2.queue.desk.reserved
    farm.run(alive)
    assert states(deferreds) == ['resolved'] * 3
    assert [outcomes(deferred) for deferred in deferreds] == [
        ['its worker was gone, maybe by a call beside it', 'resolved']] * 3
    assert dict(farm.marks) == {'m0': 'm0', 'm1': 'm1', 'm2': 'm2'}
    # The first one was only asleep: its threads find that nothing is theirs any more.
    dead._pool.start()
    farm.settle(dead)
    assert [deferred.attempt for deferred in deferreds] == [2] * 3


@pytest.mark.parametrize('held', [True, False])
def test_what_is_reserved_is_not_moved_while_its_worker_lives_and_is_when_it_is_gone(farm, held):
    dead, deferreds = strand(farm)
    queue, target = farm.zad.zam2.queue, farm.zad.zam1
    targets = [moving.Target('zam1', target.queue, target.periodic)]

    def move(served):
        transaction.begin()
        moved = moving.move_some(queue, targets, farm.zad.zam2.names(), farm.clock.now(), 60.0,
                                 served=served)
        left = moving.left(queue)
        transaction.commit()
        return moved, left

    assert move(served=True) == (0, 3)
    if not held:
        farm.zad.zam2.queue.desk.take(None)
        transaction.commit()
    assert move(served=False) == (3, 0)
    assert target.open_calls() == 3
    assert not queue.desk.reserved
    dead._pool.start()
    farm.settle(dead)
    transaction.begin()
    assert dict(farm.marks) == {}
    alive = farm.serve('zam1')
    farm.let_pass(70, alive)
    farm.run(alive)
    assert states(deferreds) == ['resolved'] * 3
    assert dict(farm.marks) == {'m0': 'm0', 'm1': 'm1', 'm2': 'm2'}
    assert all(target.queue.find(deferred.id) is deferred for deferred in deferreds)
