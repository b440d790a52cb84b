"""Time-outs: the beat ends what runs too long, and its thread can't commit any more."""

import os
import time

import pytest
import transaction

from Products.zasync.errors import TimedOut
from Products.zasync.options import Retry
from tests.client import jobs
from tests.client.fate import Gate
from tests.client.test_cancel import jobs_marks
from zasync_client.config import Plugin


TIMED_OUT = 'Products.zasync.errors.TimedOut'


def waiting_plugin(gate, **fields):
    """A plugin whose calls write, and wait at the gate, when they run for the first time."""
    def wait(run):
        if run.attempt == 1:
            jobs_marks(run)['effect'] = True
            gate.wait()
        return f'attempt {run.attempt}'

    return Plugin('wait', wait, '', zope_aware=True, **fields)


@pytest.mark.parametrize('asked, ceiling, limit', [
    (5, None, 5), (None, 7, 7), (5, 7, 5), (9, 7, 7), (0.25, 7, 0.25)])
def test_a_call_times_out_when_its_time_is_over_and_not_before(fate, asked, ceiling, limit):
    gate = Gate()
    worker = fate.worker(plugins=[waiting_plugin(gate, timeout_seconds=ceiling)])
    deferred = fate.call('wait', timeout=asked)
    fate.step(worker)
    gate.reached()
    fate.clock.advance(limit - 0.1)
    fate.step(worker)
    transaction.begin()
    assert deferred.state == 'accepted'
    assert 0 < worker._seconds_to_sleep(fate.clock.now()) <= 0.1 + 1e-6
    fate.clock.advance(0.1 + 1e-6)
    fate.step(worker)
    transaction.begin()
    assert (deferred.state, deferred.failure.type_name) == ('failed', TIMED_OUT)
    assert deferred.failure.text == f'the call ran for longer than its time-out, {limit:g} s'
    assert fate.counts() == (0, 0)
    gate.open()
    fate.settle(worker)
    assert 'effect' not in fate.marks


@pytest.mark.parametrize('aware', [True, False])
def test_the_log_says_that_a_run_was_dropped_because_its_time_was_over(fate, caplog, aware):
    gate = Gate()
    worker = fate.worker(plugins=[Plugin('wait', lambda *run: gate.wait(), '', zope_aware=aware)])
    deferred = fate.call('wait', timeout=2)
    fate.step(worker)
    gate.reached()
    fate.clock.advance(3)
    fate.step(worker)
    gate.open()
    fate.settle(worker)
    assert (f'call {deferred.id}: its run (attempt 1) was dropped: the call ran for longer than '
            'its time-out, 2 s') in caplog.text


def test_a_call_without_a_limit_runs_as_long_as_it_likes(fate):
    gate = Gate()
    worker = fate.worker(plugins=[waiting_plugin(gate)])
    deferred = fate.call('wait')
    fate.step(worker)
    gate.reached()
    fate.clock.advance(1e6)
    fate.step(worker)
    gate.open()
    fate.settle(worker)
    assert deferred.result == 'attempt 1'


def test_a_short_limit_wakes_the_beat_and_a_long_one_need_not(fate):
    gate = Gate()
    worker = fate.worker(threads=2, plugins=[waiting_plugin(gate)])
    for limit, woken in ((3_600, False), (1, True)):
        worker._wakeup.start_looking()
        fate.call('wait', timeout=limit)
        fate.step(worker)
        gate.reached()
        assert worker._wakeup._hurry.is_set() is woken
    gate.open()
    fate.settle(worker)


@pytest.mark.parametrize('how', ['return', 'commit', 'checkpoint', 'raise', 'non-aware'])
def test_a_call_runs_longer_than_its_time_out(fate, how):
    gate, told = Gate(), []

    def deaf(*run):
        gate.wait()
        with pytest.raises(TimedOut) as reason:
            from Products.zasync.running import progress
            progress(1)
        told.append(str(reason.value))
        if how == 'non-aware':
            return 'done'
        jobs_marks(run[0])['effect'] = True
        if how == 'commit':
            transaction.commit()
        elif how == 'checkpoint':
            run[0].checkpoint(done=1)
        elif how == 'raise':
            raise ValueError('too late')
        return 'done'

    worker = fate.worker(plugins=[Plugin('deaf', deaf, '', zope_aware=how != 'non-aware')])
    deferred = fate.call('deaf', timeout=5)
    fate.step(worker)
    gate.reached()
    fate.clock.advance(6)
    fate.step(worker)
    gate.open()
    fate.settle(worker)
    fate.step(worker, hurry=True)
    transaction.begin()
    assert told == ['the call ran for longer than its time-out, 5 s']
    assert (deferred.state, deferred.failure.type_name) == ('failed', TIMED_OUT)
    assert (deferred.memo, deferred.result) == ({}, None)
    assert 'effect' not in fate.marks
    assert fate.counts() == (0, 0)


def test_a_call_hangs(fate):
    gate = Gate()
    worker = fate.worker(threads=1, plugins=[waiting_plugin(gate)])
    hanging, waiting = fate.call('wait'), fate.call('echo', 1)
    fate.step(worker)
    gate.reached()
    fate.clock.advance(86_400)
    fate.step(worker)
    assert fate.counts() == (1, 1)
    fate.stop(worker)  # which leaves it behind, and gives the call back
    assert (hanging.state, fate.manager.queue.desk.boot) == ('new', None)
    heir = fate.worker(plugins=[waiting_plugin(gate)])
    gate.open()
    fate.go(heir)
    assert (hanging.state, waiting.state) == ('resolved', 'resolved')
    assert hanging.attempt == 2


def test_a_call_that_timed_out_never_ends(fate):
    gate = Gate()
    worker = fate.worker(threads=2, plugins=[waiting_plugin(gate)])
    fate.call('wait', timeout=5)
    fate.step(worker)
    gate.reached()
    fate.clock.advance(6)
    fate.step(worker)
    others = [fate.call('wait') for _ in range(2)]
    fate.step(worker)
    gate.reached()
    fate.step(worker)
    transaction.begin()
    assert [other.state for other in others] == ['accepted', 'new']
    gate.open()
    fate.go(worker)
    assert [other.state for other in others] == ['resolved', 'resolved']


def test_a_call_that_timed_out_is_tried_again_by_its_policy_while_its_thread_hangs(fate):
    gate = Gate()
    worker = fate.worker(threads=2, plugins=[waiting_plugin(gate)])
    deferred = fate.call('wait', timeout=5, retry=Retry(2, delay=3, on=(TimedOut,)))
    fate.step(worker)
    gate.reached()
    fate.clock.advance(6)
    fate.step(worker)
    transaction.begin()
    assert deferred.state == 'new'
    fate.clock.advance(3)
    fate.step(worker)
    # The first attempt still hangs, and its thread holds the same call.
    for _ in range(1_000):
        transaction.begin()
        if deferred.ended:
            break
        time.sleep(0.01)
    assert deferred.result == 'attempt 2'
    assert len(worker._pool.held()) == 1
    fate.clock.advance(60)
    fate.step(worker)  # compares the desk with the pool, too
    gate.open()
    fate.settle(worker)
    fate.step(worker, hurry=True)
    transaction.begin()
    assert [attempt.outcome for attempt in deferred.attempts] == [
        'timed out: the call ran for longer than its time-out, 5 s', 'resolved']
    assert deferred.result == 'attempt 2'
    assert 'effect' not in fate.marks


def test_a_next_attempt_is_not_lost_when_the_hung_one_ends(fate):
    """One call in two threads of one worker: each is held for itself."""
    gates = [Gate(), Gate()]
    runs = []

    def wait(run):
        runs.append(run.attempt)
        gates[run.attempt - 1].wait()
        return run.attempt

    worker = fate.worker(threads=2, plugins=[('wait', wait)])
    deferred = fate.call('wait', timeout=5, retry=Retry(2, delay=0))
    fate.step(worker)
    gates[0].reached()
    fate.clock.advance(6)
    fate.step(worker)
    gates[1].reached()
    gates[0].open()
    for _ in range(1_000):
        if len(worker._pool.held()) == 1:
            break
        time.sleep(0.01)
    fate.clock.advance(4)  # of the five that the second may run
    worker._beat.doubt()   # so the desk is compared with the pool
    fate.step(worker, hurry=True)
    transaction.begin()
    assert (deferred.state, deferred.attempt) == ('accepted', 2)
    gates[1].open()
    fate.settle(worker)
    assert (runs, deferred.result) == ([1, 2], 2)


def test_callbacks_run_after_a_time_out(fate):
    gate, seen = Gate(), []
    jobs.hook = lambda value: seen.append(value.type_name) or 'rescued'
    worker = fate.worker(threads=2, plugins=[waiting_plugin(gate)])
    deferred = fate.call('wait', timeout=5, callbacks=[
        ('python: 1/0', jobs.call_hook), ('python: result + "!"',)])
    fate.step(worker)
    gate.reached()
    fate.clock.advance(6)
    fate.step(worker)
    for _ in range(1_000):
        fate.step(worker)
        transaction.begin()
        if deferred.ended:
            break
        time.sleep(0.01)
    assert (seen, deferred.state, deferred.result) == ([TIMED_OUT], 'resolved', 'rescued!')
    gate.open()
    fate.settle(worker)
    fate.step(worker, hurry=True)
    transaction.begin()
    assert deferred.result == 'rescued!'


def test_a_callback_runs_longer_than_its_time_out(fate):
    gate, seen = Gate(), []

    def first(value):
        seen.append(value)
        if len(seen) == 1:
            gate.wait()
        return 'in time'

    jobs.hook = first
    worker = fate.worker(threads=2)
    deferred = fate.call('zope_exec', '/', {}, 'python: 1', timeout=5, callbacks=[
        (jobs.call_hook,), (None, 'python: [failure.type_name][7]')])
    fate.step(worker)
    gate.reached()
    fate.clock.advance(6)
    fate.step(worker)
    for _ in range(1_000):
        fate.step(worker)
        transaction.begin()
        if deferred.ended:
            break
        time.sleep(0.01)
    assert (deferred.state, deferred.failure.type_name) == ('failed', 'IndexError')
    gate.open()
    fate.settle(worker)
    # Run again it goes on at the callback that took too long, and not at its work.
    fate.do(fate.manager.retry)
    fate.go(worker)
    assert (seen, deferred.result) == ([1, 1], 'in time')


def test_a_call_commits_while_it_times_out(fate, monkeypatch):
    """Its commit comes first, so the beat meets a conflict, looks again and leaves it."""
    from zasync_client.filing import Filing
    gate = Gate()
    worker = fate.worker(plugins=[waiting_plugin(gate)])
    deferred = fate.call('wait', timeout=5, retry=3)
    fate.step(worker)
    gate.reached()
    fate.clock.advance(6)
    real = Filing.time_out

    def late(self, *args):
        real(self, *args)
        gate.open()
        for _ in range(1_000):
            if not worker._pool.held():
                break
            time.sleep(0.01)

    monkeypatch.setattr(Filing, 'time_out', late)
    assert fate.step(worker) is False
    fate.go(worker)
    assert (deferred.state, deferred.result) == ('resolved', 'attempt 1')
    assert fate.marks['effect'] is True


def test_a_call_that_commits_just_after_it_timed_out_has_timed_out(fate, monkeypatch):
    """The beat's commit comes first, in the middle of the call's."""
    from zasync_client import execution
    gate = Gate()
    worker = fate.worker(plugins=[waiting_plugin(gate)])
    deferred = fate.call('wait', timeout=5)
    real, at_commit, beaten = execution.commit, Gate(), Gate()

    def commit():
        at_commit._reached.release()
        beaten.wait()
        real()

    monkeypatch.setattr(execution, 'commit', commit)
    fate.step(worker)
    gate.reached()
    gate.open()
    at_commit.reached()
    fate.clock.advance(6)
    assert fate.step(worker) is True
    beaten.open()
    fate.go(worker)
    assert (deferred.state, deferred.failure.type_name) == ('failed', TIMED_OUT)
    assert 'effect' not in fate.marks


def test_a_real_call_that_hangs_times_out_and_may_be_tried_again(site, tmp_path):
    site.start_worker(threads=2)
    gate = str(tmp_path / 'gate')
    deferred = site.put_with({'timeout': 1, 'retry': Retry(2, delay=0.2)}, 'zope_call',
                             jobs.mark_then_wait, 'hung', gate)
    site.wait(lambda: os.path.exists(gate + '.running'))
    site.wait(lambda: deferred.attempt == 2)
    assert deferred.attempts[0].outcome.startswith('timed out')
    assert deferred.attempts[0].ended_at - deferred.attempts[0].started_at < 3
    with open(gate, 'w', encoding='ascii'):
        pass
    site.ended(deferred)
    assert deferred.state == 'resolved'
    assert site.root['marks']['hung'] == 1
