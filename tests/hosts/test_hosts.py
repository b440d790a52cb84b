"""A ZEO server, Zope and workers on five hosts; clocks differ, links are slow or cut."""

import sys
import threading
import time

import pytest
import requests
import transaction

from bench.stack import ADMIN
from bench.stack import our_environment
from Products.zasync import clock
from tests.hosts import jobs
from tests.hosts.conftest import SHIFTS


def test_calls_that_zope_puts_run_on_the_hosts_of_the_workers_whose_clocks_are_minutes_apart(
        estate):
    effects = estate.take(16)
    put = estate.put_in_zope(effects, seconds=0.2)
    estate.ended(*put)
    ran_on = [deferred.result for deferred in put]
    assert set(ran_on) == set(SHIFTS)
    assert min(map(ran_on.count, SHIFTS)) >= 4
    assert estate.counts(effects) == [1] * 16


def test_a_worker_of_another_time_is_alive_and_answers_in_its_own(estate):
    for number, shift in enumerate(SHIFTS.values(), 1):
        manager = estate.dispatcher[f'zam{number}']
        estate.change(manager.ping)
        asked = clock.SYSTEM.now()
        estate.wait(lambda manager=manager: manager.queue.pulse.answered ==
                    manager.queue.ping.asked_at, what='the pong')
        assert estate.dispatcher.load_of(manager).alive
        assert manager.getLastPing().timestamp() == pytest.approx(asked, abs=5)
        assert manager.getLastPong().timestamp() == pytest.approx(asked + shift, abs=5)


def test_the_test_of_the_workers_tells_the_time_that_passed(estate):
    """Not what the clocks of Zope and of a worker, minutes apart, make of it."""
    page = f'{estate.stack.zope_url}/asynchronous_call_dispatcher'
    began = clock.SYSTEM.monotonic()
    shown = requests.post(f'{page}/manage_test', auth=ADMIN, timeout=60).url

    def answered():
        answer = requests.get(shown.replace('manage_overview', 'manage_overview_data'),
                              auth=ADMIN, timeout=60)
        found = answer.json()['tests']
        return all(each.startswith('answered after ') for each in found.values()) and found
    found = estate.wait(answered, what='the answers of both workers')
    passed = 1_000 * (clock.SYSTEM.monotonic() - began)
    assert set(found) == {'zam1', 'zam2'}
    for each in found.values():
        assert 0 < int(each.split()[2]) < passed


def test_calls_run_behind_a_slow_link(estate):
    boot = estate.app.zam3.queue.desk.boot
    effects = estate.take(5)
    for effect in effects:
        started = time.monotonic()
        deferred = estate.put('zope_call', jobs.work, effect, 0.0, manager='zam3')
        estate.ended(deferred)
        assert deferred.result == 'far'
        assert 0.2 < time.monotonic() - started < 5
    assert estate.counts(effects) == [1] * 5
    assert estate.app.zam3.queue.desk.boot == boot
    log = estate.workers['far'].output()
    assert 'out of reach' not in log and 'taken up again' not in log


@pytest.mark.faults
def test_the_connections_of_a_host_that_was_cut_off_in_the_middle_of_a_commit_can_be_ended(estate):
    """What docs/hosts.rst says to do: until then nobody can commit."""
    far = estate.host['far']
    stopped = estate.stack.start(
        'stopped', [sys.executable, '-m', 'tests.hosts.jobs', *estate.address],
        env=our_environment(), host=far, is_ready=lambda process: 'voted' in process.output())
    estate.hosts.cut(far)
    ran = []
    commit = threading.Thread(target=lambda: ran.append(estate.put_elsewhere()), daemon=True)
    try:
        commit.start()
        commit.join(2)
        assert not ran
        estate.hosts.run(estate.host['zeo'], 'ss', '--kill', 'dst', far.address)
        commit.join(20)
        assert ran
    finally:
        estate.hosts.join(far)
        stopped.kill()
    transaction.begin()
    assert 'never' not in estate.root
    assert estate.root['marks']['elsewhere']


@pytest.mark.slow
@pytest.mark.faults
def test_a_host_that_is_cut_off_while_it_runs_a_call_has_its_effect_once(estate, tmp_path):
    running, effect = estate.run_on('workers1', tmp_path, manager='zam1')
    estate.hosts.cut(estate.host['workers1'])
    cut_at = time.monotonic()
    (tmp_path / 'workers1').touch()
    meanwhile = estate.take(10)
    put = estate.put_in_zope(meanwhile)
    estate.wait(lambda: any(deferred.ended for deferred in put), what='a call of the other host')
    estate.wait(lambda: time.monotonic() - cut_at > 20, what='twenty seconds')
    assert not running.ended
    estate.hosts.join(estate.host['workers1'])
    estate.ended(running, *put, limit=60)
    assert running.result == 'workers1'
    assert estate.counts([effect, *meanwhile]) == [1] * 11
    assert estate.workers['workers1'].running


@pytest.mark.slow
@pytest.mark.faults
def test_calls_put_before_and_after_a_restart_of_the_zeo_server_end_once(estate):
    effects = estate.take(20)
    before = estate.put_in_zope(effects[:10], seconds=0.3)
    estate.restart_server()
    estate.stack.zope.stop()
    estate.stack.zope.start()
    after = estate.put_in_zope(effects[10:], seconds=0.1)
    estate.ended(*before, *after, limit=60)
    assert {deferred.result for deferred in before + after} == set(SHIFTS)
    assert estate.counts(effects) == [1] * 20


@pytest.mark.slow
@pytest.mark.faults
def test_the_calls_of_a_host_that_is_cut_off_finish_elsewhere_and_its_own_runs_can_not_commit(
        estate, tmp_path):
    estate.change(lambda: estate.dispatcher.manage_changeProperties(max_idle_time=25.0))
    running, effect = estate.run_on('workers1', tmp_path, manager='zam1')
    effects = estate.take(5)
    (tmp_path / 'workers2').touch()  # there it will not have to wait
    estate.hosts.cut(estate.host['workers1'])
    waiting = [estate.put('zope_call', jobs.work, each, 0.0, manager='zam1')
               for each in effects]
    estate.ended(running, *waiting, limit=60)
    assert {deferred.result for deferred in (running, *waiting)} == {'workers2'}
    (tmp_path / 'workers1').touch()  # now the run that was cut off comes to its end
    estate.hosts.join(estate.host['workers1'])
    again = estate.put('zope_call', jobs.work, estate.take(1)[0], 0.0, manager='zam1')
    estate.ended(again, limit=60)
    dropped = f'call {running.id}: its run (attempt 1) was dropped'
    estate.wait(lambda: dropped in estate.workers['workers1'].output(), limit=60, what=dropped)
    assert running.result == 'workers2'
    assert estate.counts([effect, *effects]) == [1] * 6
