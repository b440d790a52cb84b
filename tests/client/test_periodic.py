"""Periodic calls in the worker: step by step with a clock moved by hand, and in real processes."""

import datetime
import os

import pytest
import transaction
from transaction import TransactionManager
from ZODB.POSException import ConflictError

from Products.zasync import clock
from Products.zasync import cron
from Products.zasync import periodic
from Products.zasync.cron import Timetable
from Products.zasync.options import Options
from tests.client import jobs
from tests.client.workbench import Bench
from zasync_client.beat import BEAT_SECONDS
from zasync_client.beat import SWEEP_SECONDS
from zasync_client.errors import DeskLost
from zasync_client.rules import may_run_twice


MINUTELY = '* * * * *'


class Calendar(Bench):
    """A Bench whose manager has a periodic call, and whose one clock stands at a full minute."""

    def __init__(self):
        super().__init__()
        self.clock.advance(60 - self.clock.now() % 60)

    def set(self, id='tick', expression=MINUTELY, zone='UTC', plugin='zope_call',
            args=(jobs.add, 1, 2), **more):
        """Set a periodic call and commit; → it."""
        transaction.begin()
        self.manager.setPeriodicCall(id, expression, zone, plugin, args, **more)
        transaction.commit()
        return self.manager.periodic[id]

    def change(self, action, *args):
        transaction.begin()
        action(*args)
        transaction.commit()

    def pass_time(self, worker, seconds, *, settle=True):
        """Let time pass and make beats until there is nothing to do."""
        self.clock.advance(seconds)
        self.work(worker, settle=settle)

    def work(self, worker, *, settle=True):
        for _ in range(50):
            if not self.step(worker):
                return
            if settle:
                self.settle(worker)
        raise AssertionError('the worker finds no rest')

    def made(self):
        """How many calls the worker has made so far."""
        transaction.begin()
        return self.manager.queue.desk.n_born


@pytest.fixture
def bench(monkeypatch):
    bench = Calendar()
    monkeypatch.setattr(clock, 'SYSTEM', bench.clock)
    yield bench
    bench.close()


# ticks

def test_of_many_that_are_due_a_beat_makes_a_part_and_the_next_ones_the_rest(bench, monkeypatch):
    monkeypatch.setattr(periodic, 'DUE_MOST', 3)
    for number in range(8):
        bench.set(f'tick{number}')
    worker = bench.worker()
    bench.clock.advance(60)
    made = []
    while bench.step(worker) and len(made) < 4:
        made.append(bench.made())
        bench.settle(worker)
    assert made[:3] == [3, 6, 8]
    bench.pass_time(worker, 0)
    assert bench.made() == 8
    assert {each.last.state for each in bench.manager.periodic.values()} == {'resolved'}


def test_a_call_is_made_at_each_tick_and_only_then(bench):
    each, worker = bench.set(), bench.worker()
    bench.pass_time(worker, 59.5)
    assert bench.made() == 0
    bench.pass_time(worker, 0.5)
    assert bench.made() == 1
    assert each.last.result == 3
    assert each.last.id.startswith('40-')
    bench.pass_time(worker, 59.5)
    assert bench.made() == 1
    bench.pass_time(worker, 0.5)
    assert bench.made() == 2


def test_the_worker_sleeps_no_longer_than_to_the_next_tick(bench):
    bench.change(bench.manager.set_times, 3600, 86_400)
    worker = bench.worker()
    bench.set()
    bench.pass_time(worker, 57)
    assert worker._seconds_to_sleep(bench.clock.now()) == pytest.approx(3.0)
    bench.pass_time(worker, 3)
    assert bench.made() == 1
    assert worker._seconds_to_sleep(bench.clock.now()) <= BEAT_SECONDS


def test_between_ticks_nothing_is_written(bench):
    for number in range(5):
        bench.set(f'tick{number}', '30 4 * * *')
    worker = bench.worker(start=False)
    bench.work(worker)
    before = bench.serial()
    bench.clock.advance(BEAT_SECONDS / 2)
    assert bench.step(worker) is False
    assert bench.serial() == before


def test_between_ticks_no_time_is_worked_out_anew_however_many_periodic_calls_there_are(
        bench, monkeypatch):
    for number in range(5_000):
        bench.manager.setPeriodicCall(f'tick{number}', '0 0 * * *', 'UTC', 'zope_call',
                                      (jobs.add, number, 1))
        bench.clock.advance(0.001)
    first = periodic.next_due(bench.manager, bench.clock.now())
    worked_out = []
    monkeypatch.setattr(cron, '_walls', lambda *args: worked_out.append(args) or iter(()))
    assert periodic.next_due(bench.manager, bench.clock.now()) == first
    assert not periodic.due(bench.manager, bench.clock.now())
    assert not worked_out
    transaction.abort()


def test_a_settings_object_is_not_written_by_ticks(bench):
    each, worker = bench.set(), bench.worker()
    before = each._p_serial
    bench.pass_time(worker, 60)
    assert bench.made() == 1
    each._p_deactivate()
    assert each.title == '' and each._p_serial == before


def test_the_call_runs_as_whoever_set_it_with_its_options(bench):
    each = bench.set(options=Options(priority=4, timeout=9, retry=False, series='s',
                                     expires=datetime.timedelta(seconds=30)))
    worker = bench.worker(start=False)
    bench.pass_time(worker, 60, settle=False)
    last = each.last
    assert (last.priority, last.timeout_seconds, last.series) == (4, 9, 's')
    assert last.put_at == bench.clock.now()
    assert last.expires_at == bench.clock.now() + 30
    assert last.caller == each.call.caller
    assert not may_run_twice(last, None)


def test_times_are_those_of_the_clocks_of_the_zone(bench):
    # Kathmandu's clocks are 5 hours and 45 minutes ahead.
    there = datetime.timezone(datetime.timedelta(hours=5, minutes=45))
    soon = datetime.datetime.fromtimestamp(bench.clock.now() + 120, there)
    bench.set(expression=f'{soon.minute} {soon.hour} * * *', zone='Asia/Kathmandu')
    worker = bench.worker()
    bench.pass_time(worker, 119)
    assert bench.made() == 0
    bench.pass_time(worker, 1)
    assert bench.made() == 1
    bench.pass_time(worker, 3600)
    assert bench.made() == 1


# missed ticks

def test_ticks_missed_while_no_worker_ran_are_made_up_for_by_one_call(bench):
    each = bench.set()
    bench.clock.advance(3600)
    worker = bench.worker()
    bench.work(worker)
    assert bench.made() == 1
    bench.pass_time(worker, 59)
    assert bench.made() == 1
    bench.pass_time(worker, 1)
    assert bench.made() == 2
    assert each.last.ended


def test_a_restart_makes_no_tick_come_twice_and_forgets_none(bench):
    bench.set()
    worker = bench.worker()
    bench.pass_time(worker, 60)
    bench.stop(worker)
    second = bench.worker()
    bench.work(second)
    assert bench.made() == 1
    bench.pass_time(second, 60)
    assert bench.made() == 2


def test_ticks_missed_while_the_manager_was_paused_are_made_up_for_by_one_call(bench):
    bench.set()
    worker = bench.worker()
    bench.change(bench.manager.pause)
    for _ in range(3):
        bench.pass_time(worker, 60)
    assert bench.made() == 0
    bench.change(bench.manager.resume)
    bench.work(worker)
    assert bench.made() == 1


def test_a_worker_that_stops_makes_no_calls(bench):
    bench.set()
    worker = bench.worker()
    bench.clock.advance(60)
    bench.stop(worker)
    assert bench.made() == 0


def test_while_a_call_has_not_ended_ticks_wait_and_are_served_by_one(bench, tmp_path):
    gate = tmp_path / 'gate'
    each = bench.set(args=(jobs.wait_for_file, str(gate)))
    worker = bench.worker(threads=2)
    bench.pass_time(worker, 60, settle=False)
    first = each.last
    for _ in range(3):
        bench.pass_time(worker, 60, settle=False)
        assert bench.made() == 1 and not first.ended
        assert worker._seconds_to_sleep(bench.clock.now()) > 0
    gate.touch()
    bench.settle(worker)
    bench.work(worker)
    assert first.ended
    assert bench.made() == 2
    bench.work(worker)
    assert bench.made() == 2


# pausing, changing, asking

def test_ticks_of_a_pause_are_not_made_up_for(bench):
    each, worker = bench.set(), bench.worker()
    bench.change(bench.manager.pausePeriodicCall, 'tick')
    bench.pass_time(worker, 600)
    assert bench.made() == 0
    assert each.next_tick(bench.clock.now()) is None
    bench.clock.advance(30)
    bench.change(bench.manager.resumePeriodicCall, 'tick')
    bench.work(worker)
    assert bench.made() == 0
    bench.pass_time(worker, 30)
    assert bench.made() == 1


def test_ticks_from_before_a_change_of_the_times_are_not_made_up_for(bench):
    bench.set(expression='0 0 1 1 *')
    worker = bench.worker()
    bench.pass_time(worker, 600)
    bench.set(expression=MINUTELY)
    bench.work(worker)
    assert bench.made() == 0
    bench.pass_time(worker, 60)
    assert bench.made() == 1


def test_a_change_of_anything_else_loses_no_tick(bench):
    bench.set()
    bench.clock.advance(61)
    bench.set(title='Renamed', args=(jobs.add, 2, 3))
    worker = bench.worker()
    bench.work(worker)
    assert bench.manager.periodic['tick'].last.result == 5


def test_a_run_that_is_asked_for_is_made_at_once_and_takes_no_tick_away(bench):
    each, worker = bench.set(), bench.worker()
    bench.work(worker)
    bench.change(bench.manager.runPeriodicCall, 'tick')
    assert each.is_asked()
    bench.pass_time(worker, 1)
    assert bench.made() == 1 and not each.is_asked()
    bench.pass_time(worker, 59)
    assert bench.made() == 2


def test_a_paused_periodic_call_runs_when_asked_to(bench):
    bench.set()
    bench.change(bench.manager.pausePeriodicCall, 'tick')
    bench.change(bench.manager.runPeriodicCall, 'tick')
    worker = bench.worker()
    bench.work(worker)
    assert bench.made() == 1
    bench.pass_time(worker, 300)
    assert bench.made() == 1


def test_a_dropped_periodic_call_is_made_no_more_and_its_last_call_goes_on(bench, tmp_path):
    gate = tmp_path / 'gate'
    each = bench.set(args=(jobs.wait_for_file, str(gate)))
    worker = bench.worker()
    bench.pass_time(worker, 60, settle=False)
    last = each.last
    bench.change(bench.manager.dropPeriodicCall, 'tick')
    gate.touch()
    bench.settle(worker)
    bench.pass_time(worker, 600)
    assert last.state == 'resolved'
    assert bench.made() == 1


# what calls may be

def test_a_periodic_aggregate_waits_for_its_members(bench):
    each = bench.set(plugin='aggregate', args=([('zope_call', (jobs.add, 1, 1)),
                                                ('zope_call', (jobs.add, 2, 2))],))
    worker = bench.worker()
    bench.pass_time(worker, 60)
    bench.pass_time(worker, SWEEP_SECONDS)
    assert each.last.result == [2, 4]
    bench.pass_time(worker, 60 - SWEEP_SECONDS)
    bench.pass_time(worker, SWEEP_SECONDS)
    assert bench.made() == 6


def test_periodic_calls_of_one_series_do_not_run_at_the_same_time(bench, tmp_path):
    gate = tmp_path / 'gate'
    for id in ('one', 'two'):
        bench.set(id, args=(jobs.wait_for_file, str(gate)), options=Options(series='s'))
    worker = bench.worker(threads=2)
    bench.pass_time(worker, 60, settle=False)
    states = sorted(each.last.state for each in bench.manager.periodic.values())
    assert states == ['accepted', 'new']
    gate.touch()
    bench.settle(worker)
    bench.work(worker)
    assert all(each.last.ended for each in bench.manager.periodic.values())


def test_of_the_calls_that_failed_only_the_last_stays(bench):
    each = bench.set(args=(jobs.fail_after_effect, 'x'))
    worker = bench.worker()
    found = []
    for _ in range(3):
        bench.pass_time(worker, 60)
        bench.pass_time(worker, SWEEP_SECONDS)
        bench.clock.advance(-SWEEP_SECONDS)
        found.append(each.last)
        transaction.begin()
        assert list(bench.manager.queue.failed) == [each.last.id]
    assert len({deferred.id for deferred in found}) == 3
    # The others are kept as long as what ended well.
    assert [bench.manager.queue.find(deferred.id) for deferred in found] == found
    assert 'failed on purpose' in each.last.failure.text


def test_a_call_that_failed_just_before_the_next_one_stays_no_longer_than_others(bench):
    """It is not filed yet."""
    each = bench.set(args=(jobs.fail_after_effect, 'x'))
    worker = bench.worker()
    for number in range(3):
        bench.change(bench.manager.runPeriodicCall, 'tick')
        bench.work(worker)
        assert bench.made() == number + 1 and each.last.state == 'failed'
        # It was when the last beat was made.
        assert bench.manager.queue.pulse.accepted == 1
    bench.pass_time(worker, SWEEP_SECONDS)
    transaction.begin()
    assert list(bench.manager.queue.failed) == [each.last.id]


def test_so_does_one_that_failed_among_others(bench):
    """It is reserved still."""
    each = bench.set(args=(jobs.fail_in_group,))
    worker = bench.worker(changes={'batch_seconds': 0.05})
    worker._habits.note_alone(('zope_call', jobs.__name__, 'fail_in_group'), 0.0)
    worker._habits.note_group(True)
    bench.change(bench.manager.runPeriodicCall, 'tick')
    bench.step(worker)
    transaction.begin()
    assert list(bench.manager.queue.desk.reserved) == [each.last.id]
    bench.settle(worker)
    bench.change(bench.manager.runPeriodicCall, 'tick')
    bench.work(worker)
    bench.pass_time(worker, SWEEP_SECONDS)
    transaction.begin()
    assert bench.made() == 2
    assert list(bench.manager.queue.failed) == [each.last.id]


def test_so_do_the_members_of_the_last_one_that_failed(bench):
    each = bench.set(plugin='aggregate', args=([
        ('zope_call', (jobs.add, 1, 1)), ('zope_call', (jobs.fail_after_effect, 'x')),
        ('aggregate', ([('zope_call', (jobs.fail_after_effect, 'y'))],))],))
    worker = bench.worker()
    for _ in range(3):
        bench.change(bench.manager.runPeriodicCall, 'tick')
        bench.work(worker)
        bench.pass_time(worker, SWEEP_SECONDS)
        transaction.begin()
        good, bad, nested = each.last.after
        assert set(bench.manager.queue.failed) == {bad.id, nested.after[0].id}


def test_a_member_that_fails_after_a_newer_call_was_made_does_not_stay_either(bench, tmp_path):
    gate = tmp_path / 'gate'
    each = bench.set(plugin='aggregate', kwargs={'first_failure': True}, args=([
        ('zope_call', (jobs.fail_after_effect, 'x')),
        ('zope_call', (jobs.wait_and_fail, str(gate)))],))
    worker = bench.worker(threads=3)
    bench.pass_time(worker, 60, settle=False)
    first = each.last
    bench.wait(lambda: first.after[0].ended)
    bench.pass_time(worker, 1, settle=False)
    bench.wait(lambda: first.ended)
    for _ in range(2):
        bench.pass_time(worker, 60, settle=False)
        assert not first.after[1].ended and each.last is not first
    gate.touch()
    bench.settle(worker)
    bench.pass_time(worker, 60)
    bench.pass_time(worker, SWEEP_SECONDS)
    transaction.begin()
    assert set(bench.manager.queue.failed) == {
        each.last.id, *(member.id for member in each.last.after)}
    assert each.state.left == ()


def test_the_outcome_of_the_last_call_is_there_when_the_archive_has_dropped_it(bench):
    each = bench.set(expression='0 0 1 1 *')
    bench.change(bench.manager.runPeriodicCall, 'tick')
    worker = bench.worker()
    bench.work(worker)
    id = each.last.id
    for _ in range(4):
        bench.pass_time(worker, 86_400)
    bench.db.pack()
    bench.connection.cacheMinimize()
    transaction.begin()
    assert bench.manager.queue.find(id) is None
    assert each.last.result == 3


# trouble

def test_two_workers_can_not_both_make_the_call_of_a_tick(bench):
    bench.set()
    now = bench.clock.now() + 60
    made = []
    for manager in (TransactionManager(), TransactionManager()):
        zam = bench.db.open(manager).root()['Application'].zam
        assert periodic.beat(zam, now) == 1
        made.append((manager, zam))
    made[0][0].commit()
    with pytest.raises(ConflictError):
        made[1][0].commit()
    for manager, zam in made:
        manager.abort()
        assert periodic.beat(zam, now) == 0
        zam._p_jar.close()
    assert bench.made() == 1


def test_a_frozen_worker_that_has_lost_the_desk_makes_no_call(bench):
    bench.set()
    frozen = bench.worker(start=False)
    bench.change(lambda: setattr(bench.manager.queue.desk, 'boot', None))
    second = bench.worker()
    bench.pass_time(second, 60)
    with pytest.raises(DeskLost):
        bench.step(frozen)
    assert bench.made() == 1


def test_a_last_call_that_was_undone_holds_nothing_up(bench):
    each, worker = bench.set(), bench.worker()
    bench.pass_time(worker, 60)
    ghost = bench.connection.new_oid()
    transaction.begin()
    # What a reference to an object whose creation was undone looks like.
    lost = type(each.last).__new__(type(each.last))
    lost._p_jar, lost._p_oid = bench.connection, ghost
    lost._p_deactivate()
    each.state.last = lost
    transaction.commit()
    assert each.last is None
    bench.pass_time(worker, 60)
    assert bench.made() == 2


def test_a_clock_that_was_years_ahead_once_does_not_stop_a_periodic_call(bench):
    each, worker = bench.set(), bench.worker()
    transaction.begin()
    each.state.served_at = bench.clock.now() + 10 * 365 * 86_400
    transaction.commit()
    bench.pass_time(worker, 60)
    assert bench.made() == 1
    assert each.state.served_at == bench.clock.now()


def test_a_clock_a_little_behind_makes_no_tick_come_twice(bench):
    bench.set()
    worker = bench.worker()
    bench.pass_time(worker, 60)
    bench.clock.advance(-30)
    bench.work(worker)
    bench.pass_time(worker, 30)
    assert bench.made() == 1
    bench.pass_time(worker, 60)
    assert bench.made() == 2


def test_a_time_zone_that_this_machine_does_not_know_stops_nobody_else(bench, caplog):
    foreign = bench.set('foreign')
    bench.set('ours')
    table = Timetable(MINUTELY)
    object.__setattr__(table, 'zone', 'Mars/Elysium')
    bench.change(setattr, foreign, 'timetable', table)
    worker = bench.worker()
    bench.pass_time(worker, 60)
    bench.pass_time(worker, 60)
    assert bench.made() == 2
    assert foreign.last is None
    assert caplog.text.count('Mars/Elysium') == 1


# real processes

def overdue(site, id, target, *args):
    """A periodic call whose last tick was a minute ago and whose next is tomorrow."""
    past = datetime.datetime.fromtimestamp(clock.SYSTEM.now() - 60, datetime.UTC)

    def set_it():
        manager = site.app.zam1
        manager.setPeriodicCall(id, f'{past.minute} {past.hour} * * *', 'UTC', 'zope_call',
                                (target, *args))
        manager.periodic[id].since -= 600

    site.change(set_it)
    return site.app.zam1.periodic[id]


@pytest.mark.faults
def test_a_killed_worker_makes_no_second_call_of_a_tick(site, tmp_path):
    site.become('boss')
    gate = str(tmp_path / 'gate')
    each = overdue(site, 'nightly', jobs.mark_then_wait, 'nightly', gate)
    worker = site.start_worker()
    site.wait(lambda: os.path.exists(gate + '.running'), what='the run of the tick')
    transaction.begin()
    first = each.last
    assert site.app.zam1.queue.desk.n_born == 1
    worker.kill()
    os.remove(gate + '.running')
    site.start_worker(name='again')
    site.wait(lambda: os.path.exists(gate + '.running'), what='the second attempt')
    open(gate, 'w').close()
    site.ended(first)
    assert each.last is first
    assert first.state == 'resolved' and first.attempt == 2
    assert str(first.caller) == 'boss of /acl_users'
    assert site.root['marks']['nightly'] == 1
    assert site.app.zam1.queue.desk.n_born == 1


def test_a_worker_runs_what_is_asked_for_and_goes_on_after_a_restart(site):
    site.become('boss')
    site.change(lambda: site.app.zam1.setPeriodicCall(
        'yearly', '@yearly', 'Europe/Berlin', 'zope_call', (jobs.set_mark, 'yearly', True)))
    each = site.app.zam1.periodic['yearly']
    worker = site.start_worker()
    site.change(lambda: site.app.zam1.runPeriodicCall('yearly'))
    first = site.wait(lambda: each.last is not None and each.last.ended and each.last)
    assert first.state == 'resolved' and site.root['marks']['yearly'] is True
    worker.stop()
    site.change(lambda: site.app.zam1.runPeriodicCall('yearly'))
    site.start_worker(name='again')
    site.wait(lambda: each.last is not first and each.last.ended)
    assert site.app.zam1.queue.desk.n_born == 2
