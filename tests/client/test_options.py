"""Options in a worker: step by step in this process, and with two real workers on one server."""

import datetime
import os
import re
import threading
from collections import Counter

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.SpecialUsers import system

from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.client import jobs
from tests.client.workbench import Bench
from zasync_client.beat import BEAT_SECONDS


@pytest.fixture
def bench():
    """See Bench; calls are put as Zope's own user."""
    newSecurityManager(None, system)
    made = Bench()
    yield made
    made.close()
    noSecurityManager()


def put(bench, options, *call):
    transaction.begin()
    deferred = bench.manager.putCallWith(options, *(call or ('zope_call', jobs.add, 1, 1)))
    transaction.commit()
    return deferred


def in_seconds(bench, number):
    """That moment, by the clock of the bench."""
    return datetime.datetime.fromtimestamp(bench.clock.now() + number, datetime.UTC)


def run(bench, worker):
    """Beats until nothing is done any more."""
    for _ in range(20):
        done = bench.step(worker)
        bench.settle(worker)
        if not done:
            return
    raise AssertionError('it never rests')


def occupy(bench, tmp_path):
    """A worker whose one thread is busy until the file `gate` exists."""
    worker = bench.worker(threads=1)
    put(bench, Options(), 'zope_call', jobs.wait_for_file, str(tmp_path / 'gate'))
    bench.step(worker)
    wait_until(lambda: (tmp_path / 'gate.running').exists())
    return worker


def wait_until(condition):
    """Wait for something that a thread of this process does."""
    for _ in range(3_000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError('it does not come about')


def paused(bench, tmp_path):
    """A worker whose manager is paused."""
    bench.manager.pause()
    transaction.commit()
    return bench.worker()


def idle(bench, tmp_path):
    """A worker with free threads, and nothing to do."""
    return bench.worker()


# expiry

@pytest.mark.parametrize('state', [idle, occupy, paused])
def test_a_worker_is_woken_by_the_clock_to_let_a_call_expire(bench, tmp_path, state):
    bench.manager.poll_interval = 1_000
    worker = state(bench, tmp_path)
    late = put(bench, Options(expires=in_seconds(bench, BEAT_SECONDS + 4),
                              not_before=in_seconds(bench, BEAT_SECONDS + 3)))
    # At the latest a heartbeat takes it in.
    bench.clock.advance(BEAT_SECONDS)
    bench.step(worker)
    if state is idle:
        bench.manager.pause()
        transaction.commit()
        bench.step(worker)
    asleep = worker._seconds_to_sleep(bench.clock.now())
    assert asleep == pytest.approx(4, abs=0.01)
    bench.clock.advance(asleep - 0.1)
    assert bench.step(worker) is False
    bench.clock.advance(0.11)
    assert bench.step(worker) is True
    assert late.state == 'expired'
    assert worker._seconds_to_sleep(bench.clock.now()) > 4
    (tmp_path / 'gate').touch()
    bench.settle(worker)


def test_a_call_that_has_expired_before_its_worker_came_is_not_run(bench):
    late = put(bench, Options(expires=in_seconds(bench, 5)), 'zope_call', jobs.set_mark, 'late', 1)
    bench.clock.advance(5.01)
    worker = bench.worker()
    run(bench, worker)
    assert late.state == 'expired'
    assert 'expired' in late.failure.text
    assert 'late' not in bench.marks


def test_the_failure_callback_of_an_expired_call_runs_and_is_told_why(bench):
    transaction.begin()
    late = bench.manager.putCallWith(Options(expires=in_seconds(bench, 5)), 'zope_call', jobs.add,
                                     1, 1)
    late.addCallbacks(None, 'python: failure.type_name')
    transaction.commit()
    bench.clock.advance(5.01)
    worker = bench.worker()
    run(bench, worker)
    assert (late.state, late.result) == ('resolved', 'Products.zasync.errors.Expired')


# not before

@pytest.mark.parametrize('zone', [0, 14, -11, 5.75])
def test_a_call_is_run_when_its_time_has_come_in_whatever_zone_it_was_named(bench, zone):
    worker = bench.worker()
    there = datetime.timezone(datetime.timedelta(hours=zone))
    later = put(bench, Options(not_before=in_seconds(bench, 3).astimezone(there)))
    bench.clock.advance(2.9)
    run(bench, worker)
    assert later.state == 'new'
    assert 0 < worker._seconds_to_sleep(bench.clock.now()) < 0.2
    bench.clock.advance(0.11)
    run(bench, worker)
    assert later.state == 'resolved'
    assert later.attempts[0].started_at >= later.not_before


# priority

def test_calls_that_waited_for_a_thread_are_run_by_priority(bench, tmp_path):
    worker = occupy(bench, tmp_path)
    order = str(tmp_path / 'order')
    for priority in (0, 2, -1, 1, 2):
        put(bench, Options(priority=priority), 'zope_call', jobs.note, order, str(priority))
    (tmp_path / 'gate').touch()
    bench.settle(worker)
    run(bench, worker)
    assert (tmp_path / 'order').read_text('ascii').split() == ['2', '2', '1', '0', '-1']


# series

def test_one_worker_with_many_threads_runs_a_series_one_by_one(bench, tmp_path):
    worker = bench.worker(threads=4)
    marks = tmp_path / 'marks'
    calls = [put(bench, Options(series='s'), 'zope_call', jobs.begin_and_end, str(marks), number)
             for number in range(8)]
    run(bench, worker)
    assert {call.state for call in calls} == {'resolved'}
    assert overlaps(marks) == 0
    assert Counter(read(marks)) == Counter(
        (what, number) for number in range(8) for what in ('begin', 'end'))


def read(path):
    """[(begin or end, number of the call)] in the order they were written."""
    return [(what, int(number)) for what, number, _ in
            (line.split() for line in path.read_text('ascii').splitlines())]


def overlaps(path, killed=()):
    """How often a call began while another ran; `killed` ones need not have ended."""
    running, found = None, 0
    for what, number in read(path):
        if what == 'begin':
            found += running is not None and running not in killed
            running = number
        elif running == number:
            running = None
        else:
            found += 1
    return found


@pytest.fixture
def zad(site):
    """A dispatcher with two managers on the server; boss puts."""
    site.app._setObject('zad', ZAsyncDispatcher('zad'))
    for id in ('zam1', 'zam2'):
        site.app.zad._setObject(id, AsynchronousCallManager(id))
    transaction.commit()
    site.become('boss')
    return site.app.zad


def start(site, *ids):
    return [site.start_worker(f'zad/{id}', name=id, threads=2) for id in ids]


def put_series(site, zad, marks, numbers, job=jobs.begin_and_end, *more):
    """Put the calls of one series, to both managers in turn; → their Deferreds."""
    calls = []

    def action():
        calls.clear()
        for number in numbers:
            manager = (zad.zam1, zad.zam2)[number % 2]
            calls.append(manager.putCallWith(Options(series='s'), 'zope_call', job, str(marks),
                                             number, *more))

    site.change(action)
    return calls


def test_two_workers_never_run_two_calls_of_a_series_at_once(site, zad, tmp_path):
    marks = tmp_path / 'marks'
    start(site, 'zam1', 'zam2')
    calls = put_series(site, zad, marks, range(40))
    site.ended(*calls, limit=90)
    assert {call.state for call in calls} == {'resolved'}
    assert overlaps(marks) == 0
    assert {number for what, number in read(marks) if what == 'end'} == set(range(40))
    # Both have had a part in it.
    assert len(set(re.findall(r'end \d+ (\d+)', marks.read_text('ascii')))) == 2


def test_a_series_whose_worker_is_killed_goes_on_when_that_worker_is_back(site, zad, tmp_path):
    marks, gate = tmp_path / 'marks', str(tmp_path / 'gate')
    one, two = start(site, 'zam1', 'zam2')
    [held] = put_series(site, zad, marks, [0], jobs.begin_wait_and_end, gate)
    site.wait(lambda: os.path.exists(gate + '.running'), what='the run of the first')
    calls = put_series(site, zad, marks, range(1, 10))
    one.kill()
    # Nobody can know whether the call still runs: the series waits for its worker.
    for _ in range(2):
        transaction.begin()
        other = zad.zam2.putCall('zope_call', jobs.add, 2, 2)
        transaction.commit()
        site.ended(other)
    assert {call.state for call in calls} == {'new'}
    assert [what for what, _ in read(marks)] == ['begin']
    open(gate, 'w', encoding='ascii').close()
    one.start()
    site.ended(held, *calls, limit=120)
    assert {call.state for call in (held, *calls)} == {'resolved'}
    assert len(held.attempts) == 2
    assert overlaps(marks, killed=(0,)) == 0
    assert two.running


def test_a_series_is_free_when_the_call_of_a_worker_that_is_away_is_cancelled(
        site, zad, tmp_path):
    marks, gate = tmp_path / 'marks', str(tmp_path / 'gate')
    one, _ = start(site, 'zam1', 'zam2')
    [held] = put_series(site, zad, marks, [0], jobs.begin_wait_and_end, gate)
    site.wait(lambda: os.path.exists(gate + '.running'), what='the run of the first')
    [waiting] = put_series(site, zad, marks, [1])
    one.kill()
    site.change(lambda: zad.zam1.cancel(held.id))
    site.ended(waiting)
    assert (held.state, waiting.state) == ('cancelled', 'resolved')
