"""Managers come and go while workers run: calls are moved to siblings, managers renamed."""

import dataclasses
import threading
from collections import Counter

import pytest
import transaction

from Products.zasync import moving
from Products.zasync.interfaces import FAILED
from Products.zasync.interfaces import NEW
from Products.zasync.interfaces import RESOLVED
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.policy import WORKER_GONE
from Products.zasync.wakeup import Wakeup
from Products.zasyncdispatcher import leaving
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.client import jobs
from tests.client.fate import Gate
from zasync_client.beat import RECONCILE_SECONDS
from zasync_client.database import Database
from zasync_client.errors import GaveUp
from zasync_client.worker import Worker


# real processes

def put_lines(site, path, number, manager):
    """So many calls that each append a line to their own file; → {file: deferred}."""
    transaction.begin()
    found = {}
    for position in range(number):
        name = str(path / f'{manager}-{position}')
        found[name] = site.app.zad[manager].putCall('zope_call', jobs.append_line, name)
    transaction.commit()
    return found


def remove(site, manager):
    """As the page does, a transaction a part; → their number."""
    parts = []

    def go_on():
        zad = site.app.zad
        leaving.start(zad, zad[manager])
        return leaving.go_on(zad, zad[manager], 0.0)

    def done():
        gone = []
        site.change(lambda: gone.append(go_on()))
        parts.append(1)
        return gone[-1]

    site.wait(done, what=f'the removal of {manager}')
    return len(parts)


@pytest.fixture
def zad(site):
    site.become('boss')
    site.app._setObject('zad', ZAsyncDispatcher('zad'))
    for id in ('zam1', 'zam2', 'zam3'):
        site.app.zad._setObject(id, AsynchronousCallManager(id))
    transaction.commit()
    return site.app.zad


def test_calls_whose_worker_is_stopped_are_moved_to_one_that_runs_and_run_once_each(
        site, zad, tmp_path, monkeypatch):
    monkeypatch.setattr(moving, 'MOST', 40)
    site.start_worker('zad/zam1', 'zam1')
    second = site.start_worker('zad/zam2', 'zam2')
    site.stack.stop(second)
    site.change(lambda: zad._delObject('zam3'))
    waiting = put_lines(site, tmp_path, 300, 'zam2')
    assert remove(site, 'zam2') >= 8
    transaction.begin()
    assert zad.objectIds() == ['zam1']
    site.ended(*waiting.values())
    assert Counter(deferred.state for deferred in waiting.values()) == {RESOLVED: 300}
    assert {deferred.attempt for deferred in waiting.values()} == {1}
    assert [len(path.read_text('ascii').splitlines()) for path in tmp_path.iterdir()] == [1] * 300
    site.wait(lambda: zad.zam1.open_calls() == 0)


def test_a_call_whose_worker_was_killed_is_moved_and_starts_again_at_its_new_place(
        site, zad, tmp_path):
    gate = str(tmp_path / 'gate')
    site.start_worker('zad/zam1', 'zam1')
    second = site.start_worker('zad/zam2', 'zam2')
    site.change(lambda: zad._delObject('zam3'))
    transaction.begin()
    deferred = zad.zam2.putCall('zope_call', jobs.wait_for_file, gate)
    transaction.commit()
    site.wait(lambda: deferred.state == 'accepted')
    site.stack.kill(second)
    site.change(lambda: setattr(zad, 'max_idle_time', 0.0))
    remove(site, 'zam2')
    open(gate, 'w', encoding='ascii').close()
    site.ended(deferred)
    assert [attempt.outcome for attempt in deferred.attempts] == [WORKER_GONE, RESOLVED]


# step by step

def worker_at(bench, *target, **options):
    """A worker of that path, registered; its threads run."""
    config = dataclasses.replace(bench.config(**options), target=('', *target))
    worker = Worker(config, Database(bench.db, config.target, config.threads),
                    Wakeup(bench.clock), bench.clock, threading.Event())
    bench._workers.append(worker)
    bench.apart(worker.register)
    worker._pool.start()
    return worker


def with_two_managers(fate):
    """The application of a fate, with `zam1` and `zam2` in a dispatcher `zad`."""
    app = fate.connection.root()['Application']
    app._setObject('zad', ZAsyncDispatcher('zad'))
    for id in ('zam1', 'zam2'):
        app.zad._setObject(id, AsynchronousCallManager(id))
    transaction.commit()
    return app


def rename(fate, old, new):
    fate.do(lambda: _rename(fate.connection.root()['Application'], old, new))


def _rename(app, old, new):
    manager = app._getOb(old)
    app._delObject(old, suppress_events=True)
    manager._setId(new)
    app._setObject(new, manager.aq_base, suppress_events=True)


def test_a_worker_whose_manager_is_renamed_ends_what_it_runs_and_waits_for_the_target(fate):
    gate = Gate()
    worker = fate.worker(plugins=[('wait', lambda run: gate.wait())])
    runs, waits = fate.call('wait'), fate.call('zope_exec', '/', {}, 'python: 2')
    fate.step(worker)
    gate.reached()
    rename(fate, 'zam', 'other')
    gate.open()
    fate.settle(worker)
    assert (runs.state, waits.state) == (RESOLVED, NEW)
    with pytest.raises(GaveUp) as reason:  # after max-total-retry
        fate.step(worker)
    assert 'nothing at /zam' in str(reason.value)
    # The one that is told the new id goes on, with what the other had not filed.
    heir = worker_at(fate, 'other')
    fate.go(heir)
    assert waits.result == 2
    transaction.begin()
    manager = fate.connection.root()['Application'].other
    assert manager.getDeferred(runs.id) is runs
    assert manager.open_calls() == 0


def _elsewhere(fate, action):
    """action(application) in a connection and a transaction of its own; from any thread."""
    own = transaction.TransactionManager()
    connection = fate.db.open(own)
    try:
        own.begin()
        action(connection.root()['Application'])
        own.commit()
    finally:
        own.abort()
        connection.close()


def test_a_worker_whose_manager_is_renamed_back_goes_on(fate):
    worker = fate.worker()
    waits = fate.call('zope_exec', '/', {}, 'python: 2')
    rename(fate, 'zam', 'other')
    wait, tries = fate.clock.wait, []

    def rename_back(event, seconds):
        tries.append(seconds)
        if len(tries) == 3:
            _elsewhere(fate, lambda app: _rename(app, 'other', 'zam'))
        return wait(event, seconds)

    fate.clock.wait = rename_back
    assert fate.step(worker) is False
    fate.go(worker)
    assert waits.result == 2 and len(tries) == 3


@pytest.mark.parametrize('again', [True, False])
def test_a_worker_gives_out_again_what_was_moved_to_it_while_it_ran(fate, again):
    """Or has it fail, if it may not run twice: only a worker knows what its plugins allow."""
    app = with_two_managers(fate)
    gate = Gate()
    old = worker_at(fate, 'zad', 'zam2', plugins=[('wait', lambda run: gate.wait())])
    new = worker_at(fate, 'zad', 'zam1', plugins=[('wait', lambda run: 'again')])
    fate.manager = app.zad.zam2
    deferred = fate.call('wait', retry=None if again else False)
    fate.step(old)
    gate.reached()
    fate.do(lambda: setattr(app.zad.zam2.queue.desk, 'boot', None))
    fate.do(lambda: leaving.start(app.zad, app.zad.zam2))
    assert fate.do(lambda: leaving.go_on(app.zad, app.zad.zam2, fate.clock.now()))
    assert deferred.id in app.zad.zam1.queue.desk.running
    fate.clock.advance(RECONCILE_SECONDS)
    fate.go(new)
    if again:
        assert deferred.result == 'again'
    else:
        assert deferred.failure.type_name.endswith('Interrupted')
    # What the first run does now is refused by the fence.
    gate.open()
    fate.settle(old)
    transaction.begin()
    assert deferred.result == ('again' if again else None)
    assert app.zad.zam1.getDeferred(deferred.id) is deferred
    assert app.zad.zam1.open_calls() == 0


def test_what_waits_where_a_removal_was_called_off_is_run_when_the_moved_calls_have_ended(
        fate, monkeypatch):
    monkeypatch.setattr(moving, 'MOST', 1)
    app = with_two_managers(fate)
    fate.manager = app.zad.zam2
    call = ('zope_exec', ('/', {}, 'python: 7'))
    whole = fate.call('aggregate', [call, call])
    for _ in range(2):
        fate.do(lambda: leaving.start(app.zad, app.zad.zam2))
        fate.do(lambda: leaving.go_on(app.zad, app.zad.zam2, fate.clock.now()))
    assert [each.lenNewCalls() for each in (app.zad.zam1, app.zad.zam2)] == [2, 1]
    fate.do(lambda: leaving.call_off(app.zad, app.zad.zam2))
    fate.do(app.zad.zam2.resume)
    one, two = worker_at(fate, 'zad', 'zam1'), worker_at(fate, 'zad', 'zam2')
    fate.go(one)
    fate.go(two)
    assert whole.state == NEW
    fate.clock.advance(RECONCILE_SECONDS)
    fate.go(two)
    assert whole.result == [7, 7]


def test_a_call_that_failed_and_was_moved_runs_again_where_it_is_whoever_is_asked(
        fate, monkeypatch):
    monkeypatch.setattr(moving, 'MOST', 1)
    app = with_two_managers(fate)
    fate.manager = app.zad.zam2
    one, two = worker_at(fate, 'zad', 'zam1'), worker_at(fate, 'zad', 'zam2')
    failed = fate.call('zope_call', jobs.fail_after_effect, 'x')
    fate.go(two)
    fate.call('zope_call', jobs.fail_after_effect, 'y')
    fate.go(two)
    fate.step(two, hurry=True)
    fate.do(lambda: leaving.start(app.zad, app.zad.zam2))
    fate.do(lambda: leaving.go_on(app.zad, app.zad.zam2, fate.clock.now()))
    assert list(app.zad.zam1.queue.failed) == [failed.id]
    assert fate.do(app.zad.zam2.retry, failed.id) == 1
    assert [each.lenNewCalls() for each in (app.zad.zam1, app.zad.zam2)] == [1, 0]
    fate.do(lambda: leaving.call_off(app.zad, app.zad.zam2))
    fate.do(app.zad.zam2.resume)
    fate.go(two)
    assert failed.state == NEW
    fate.go(one)
    fate.step(one, hurry=True)
    transaction.begin()
    assert failed.state == FAILED and len(failed.attempts) == 2
    assert app.zad.zam1.calls(FAILED) == [failed]
    assert not app.zad.zam2.queue.intakes
