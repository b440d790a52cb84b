"""Cancelling: a waiting call at once, a running one when it tells its progress or commits."""

import datetime
import os
import time

import pytest
import transaction
from transaction.interfaces import TransientError

from Products.zasync import running
from Products.zasync.errors import BadCall
from Products.zasync.errors import Cancelled
from Products.zasync.options import Options
from Products.zasync.places import parse_id
from tests.client import jobs
from tests.client.fate import Gate
from zasync_client import beat
from zasync_client.config import Plugin


HOUR = datetime.timedelta(hours=1)


def cancel(fate, deferred):
    return fate.do(fate.manager.cancel, deferred.id)


def assert_gone(fate, deferred):
    """It is cancelled, in the archive, and to be found there."""
    transaction.begin()
    queue = fate.manager.queue
    assert deferred.state == 'cancelled'
    assert deferred.failure.type_name == 'Products.zasync.errors.Cancelled'
    assert dict(queue.cancelled) == {}
    assert [deferred in tree.values() for tree in queue.withdrawn.values()] == [True]
    assert fate.manager.getDeferred(deferred.id) is deferred
    assert fate.manager.calls('cancelled') == [deferred]


def ready(fate, worker, gate):
    return fate.call('zope_exec', '/', {}, 'python: 1')


def later(fate, worker, gate):
    return fate.call('zope_exec', '/', {}, 'python: 1', not_before=HOUR)


def blocked(fate, worker, gate):
    return fate.call('zope_exec', '/', {}, 'python: 1', series='one')


def parked(fate, worker, gate):
    return fate.call('aggregate', [('schedule', (3600, 'zope_exec', '/', {}, 'python: 1'))])


@pytest.fixture(params=[ready, later, blocked, parked], ids=lambda put: put.__name__)
def waits(request, fate):
    """(worker, gate, put): a worker whose thread runs a call of the series `one`."""
    gate = Gate()
    worker = fate.worker(threads=1, plugins=[('wait', lambda run: gate.wait())])
    fate.call('wait', series='one')
    fate.step(worker)
    gate.reached()
    yield worker, lambda: request.param(fate, worker, gate)
    gate.open()
    fate.settle(worker)


@pytest.mark.parametrize('paused', [False, True])
@pytest.mark.parametrize('taken_in', [False, True])
def test_a_call_is_cancelled_while_it_waits(fate, waits, taken_in, paused):
    worker, put = waits
    before = fate.counts()
    deferred = put()
    if taken_in:
        fate.clock.advance(beat.BEAT_SECONDS)
        fate.step(worker)
    if paused:
        fate.do(fate.manager.pause)
    members = len(deferred.after)
    assert fate.counts() == (before[0] + 1 + members, before[1])
    assert cancel(fate, deferred) == 1
    assert deferred.state == 'cancelled'
    assert fate.counts() == (before[0] + members, before[1])
    assert fate.step(worker) is True
    assert_gone(fate, deferred)
    assert fate.counts() == (before[0] + members, before[1])
    assert cancel(fate, deferred) == 0
    assert fate.step(worker) is False


def abort(put):
    deferred = put()
    transaction.abort()
    return deferred


def roll_back(put):
    savepoint = transaction.savepoint()
    deferred = put()
    transaction.savepoint()
    savepoint.rollback()
    return deferred


def roll_back_unstored(put):
    savepoint = transaction.savepoint()
    deferred = put()
    savepoint.rollback()
    return deferred


@pytest.mark.parametrize('undo', [abort, roll_back])
def test_cancelling_a_call_whose_put_was_rolled_back_touches_no_other(fate, waits, undo):
    """The next one of this thread has its number in the lane."""
    worker, put = waits
    transaction.begin()
    gone = undo(lambda: fate.manager.putCall('echo', 1).addCallbacks(None, 'python: 1/0'))
    assert gone.cancel() is True
    transaction.commit()
    assert (gone.state, gone._p_jar, fate.manager.calls('cancelled')) == ('cancelled', None, [])
    with pytest.raises(BadCall, match='the put of the call was rolled back'):
        gone.addCallbacks('result')
    before = fate.counts()
    deferred = put()
    assert deferred.after or parse_id(deferred.id)[:2] == parse_id(gone.id)[:2]
    fate.clock.advance(beat.BEAT_SECONDS)
    fate.step(worker)
    assert fate.counts() == (before[0] + 1 + len(deferred.after), before[1])
    assert deferred in fate.manager.calls('new')
    fate.step(worker)
    assert fate.step(worker) is False


@pytest.mark.parametrize('taken_in', [False, True])
def test_cancelling_a_call_that_was_stored_after_its_put_was_rolled_back_touches_no_other(
        fate, waits, taken_in):
    """Who tries a request again may have kept it in a global."""
    worker, put = waits
    transaction.begin()
    gone = abort(lambda: fate.manager.putCall('echo', 1))
    before = fate.counts()
    if taken_in:
        deferred = put()
        fate.clock.advance(beat.BEAT_SECONDS)
        fate.step(worker)
    transaction.begin()
    fate.manager.kept = gone
    transaction.commit()
    gone.cancel()
    transaction.commit()
    fate.step(worker)
    assert fate.step(worker) is False
    if not taken_in:
        deferred = put()
        fate.clock.advance(beat.BEAT_SECONDS)
        fate.step(worker)
    assert deferred.after or parse_id(deferred.id)[:2] == parse_id(gone.id)[:2]
    assert fate.counts() == (before[0] + 1 + len(deferred.after), before[1])
    assert deferred in fate.manager.calls('new')
    assert fate.step(worker) is False


@pytest.mark.parametrize('undo', [abort, roll_back_unstored])
def test_a_call_that_was_stored_after_its_put_was_rolled_back_takes_no_callbacks(
        fate, waits, undo):
    """They would wait for its end for ever."""
    _worker, put = waits
    transaction.begin()
    gone = undo(lambda: fate.manager.putCall('echo', 1))
    fate.manager.kept = gone
    transaction.commit()
    for _ in range(2):  # the next one of this thread has its number in the lane
        with pytest.raises(BadCall, match='the put of the call was rolled back'):
            gone.addCallbacks('result')
        put()
    assert [each for each in fate.manager.calls('new') if each.plugin == 'follow'] == []


def test_an_aggregate_whose_put_was_rolled_back_is_cancelled_whatever_is_in_memory(fate):
    """Of what a savepoint has stored the database leaves empty what it had unloaded."""
    fate.worker()
    transaction.begin()
    savepoint = transaction.savepoint()
    gone = fate.manager.putCall('aggregate', [('echo', (1,))])
    transaction.savepoint()
    gone.after[0]._p_deactivate()
    savepoint.rollback()
    assert gone.cancel() is True
    transaction.commit()
    assert (gone.state, fate.manager.calls()) == ('cancelled', [])


def test_a_call_cancelled_behind_a_backlog_leaves_when_the_beat_comes_to_it(fate):
    from Products.zasync import queue
    worker = fate.worker(start=False)
    transaction.begin()
    for _ in range(queue.TAKE_IN_MOST):
        fate.manager.putCall('zope_exec', '/', {}, 'python: 1')
    last = fate.manager.putCall('schedule', 3600, 'zope_exec', '/', {}, 'python: 1')
    transaction.commit()
    cancel(fate, last)
    fate.step(worker)
    transaction.begin()
    assert last.id in fate.manager.queue.cancelled
    fate.step(worker)
    assert_gone(fate, last)


def test_cancelled_calls_are_dropped_with_the_rotation_period(fate):
    worker = fate.worker()
    deferred = later(fate, worker, None)
    cancel(fate, deferred)
    fate.step(worker)
    assert_gone(fate, deferred)
    fate.clock.advance(2 * fate.manager.rotation_period)
    fate.step(worker)
    transaction.begin()
    assert fate.manager.calls() == []
    assert list(fate.manager.queue.withdrawn) == []


def test_cancel_of_an_unknown_call_says_so(fate):
    for id in ('0-1-0-0', 'nonsense', '', None):
        with pytest.raises(KeyError):
            fate.manager.cancel(id)


@pytest.mark.parametrize('text, state', [('python: 1', 'resolved'), ('python: 1/0', 'failed')])
def test_a_call_that_has_ended_is_not_cancelled(fate, text, state):
    worker = fate.worker()
    deferred = fate.call('zope_exec', '/', {}, text)
    fate.go(worker)
    failure = deferred.failure
    assert deferred.state == state
    assert cancel(fate, deferred) == 0
    assert deferred.cancel() is False
    assert (deferred.state, deferred.failure) == (state, failure)


def test_a_running_call_is_cancelled(fate):
    gates, heard = [Gate(), Gate()], []

    def loops(run):
        jobs_marks(run)['effect'] = True
        running.progress(1)
        gates[0].wait()
        try:
            for number in range(2, 5):
                running.progress(number)
        except Cancelled as reason:
            heard.append(str(reason))
            raise

    worker = fate.worker(plugins=[('loops', loops)])
    deferred = fate.call('loops')
    fate.step(worker)
    gates[0].reached()
    assert cancel(fate, deferred) == 1
    assert fate.counts() == (0, 0)
    assert fate.step(worker) is True
    gates[0].open()
    fate.settle(worker)
    assert heard == [f'the call {deferred.id} was cancelled']
    assert 'effect' not in fate.marks
    fate.step(worker)
    assert_gone(fate, deferred)
    assert [attempt.outcome for attempt in deferred.attempts] == ['cancelled']


def test_a_cancelled_call_whose_thread_ends_while_the_beat_looks_is_filed_once(fate, monkeypatch):
    """The beat looks at the threads first, then at the ends: that call is among both."""
    gate = Gate()
    worker = fate.worker(plugins=[('waits', lambda run: gate.wait())])
    deferred = fate.call('waits')
    fate.step(worker)
    gate.reached()
    held = worker._pool.held()
    assert cancel(fate, deferred) == 1
    gate.open()
    fate.settle(worker)
    monkeypatch.setattr(worker._pool, 'held', lambda: held)
    assert fate.step(worker) is True
    assert_gone(fate, deferred)


def jobs_marks(run):
    return run.app._p_jar.root()['marks']


@pytest.mark.parametrize('how', ['return', 'commit', 'checkpoint', 'swallow'])
def test_a_cancelled_call_does_not_listen(fate, how):
    """Of one that never tells, that commits on its way, that does not listen."""
    gate, runs = Gate(), []

    def deaf(run):
        runs.append(run.attempt)
        gate.wait()
        jobs_marks(run)['effect'] = True
        if how == 'commit':
            transaction.commit()
        elif how == 'checkpoint':
            run.checkpoint(done=1)
        elif how == 'swallow':
            for _ in range(2):
                with pytest.raises(Cancelled):
                    run.progress(1)
        return 'done'

    worker = fate.worker(plugins=[('deaf', deaf)])
    deferred = fate.call('deaf', retry=5)
    fate.step(worker)
    gate.reached()
    cancel(fate, deferred)
    fate.step(worker)
    gate.open()
    fate.settle(worker)
    fate.step(worker)
    assert_gone(fate, deferred)
    assert 'effect' not in fate.marks
    assert (runs, deferred.result, deferred.memo) == ([1], None, {})


def test_who_waits_for_a_cancelled_call_need_not_wait_for_its_thread(fate):
    gate = Gate()
    worker = fate.worker(threads=2, plugins=[('hangs', lambda run: gate.wait())])
    whole = fate.call('aggregate', [('hangs', ())])
    fate.step(worker)
    gate.reached()
    assert cancel(fate, whole.after[0]) == 1
    fate.step(worker)
    for _ in range(1_000):
        fate.step(worker)
        transaction.begin()
        if whole.ended:
            break
        time.sleep(0.01)
    assert whole.result[0].type_name == 'Products.zasync.errors.Cancelled'
    gate.open()
    fate.settle(worker)


def test_failure_callbacks_of_a_cancelled_call_run(fate):
    gate, seen = Gate(), []
    jobs.hook = lambda value: seen.append(value.type_name) or 'told'
    worker = fate.worker(plugins=[('wait', lambda run: gate.wait())])
    callbacks = [('python: 1/0', jobs.call_hook)]
    running_one = fate.call('wait', callbacks=callbacks)
    waiting = fate.call('wait', callbacks=callbacks)
    fate.step(worker)
    gate.reached()
    cancel(fate, running_one)
    cancel(fate, waiting)
    gate.open()
    fate.go(worker)
    assert seen == ['Products.zasync.errors.Cancelled'] * 2
    assert {running_one.state, waiting.state} == {'cancelled'}
    assert [call.result for call in fate.manager.calls(plugin='follow')] == ['told', 'told']


def test_cancelled_just_before_the_commit_of_the_job_the_job_loses(fate):
    deferreds = []

    def cancels_itself(run):
        jobs_marks(run)['effect'] = True
        fate.elsewhere(lambda manager: manager.queue.find(deferreds[0]).cancel())

    worker = fate.worker(plugins=[('late', cancels_itself)])
    deferred = fate.call('late')
    deferreds.append(deferred.id)
    fate.step(worker)
    fate.settle(worker)
    fate.step(worker)
    assert_gone(fate, deferred)
    assert 'effect' not in fate.marks


def test_a_cancel_that_commits_after_the_job_loses_and_then_finds_it_ended(fate):
    gate = Gate()
    worker = fate.worker(plugins=[('wait', lambda run: gate.wait())])
    deferred = fate.call('wait')
    fate.step(worker)
    gate.reached()
    transaction.begin()
    assert fate.manager.cancel(deferred.id) == 1
    gate.open()
    held = worker._pool.held
    for _ in range(3_000):
        if not held():
            break
        time.sleep(0.01)
    with pytest.raises(TransientError):
        transaction.commit()
    transaction.abort()
    assert cancel(fate, deferred) == 0
    assert deferred.state == 'resolved'


def test_two_who_cancel_at_once_count_one(fate):
    worker = fate.worker()
    deferred = later(fate, worker, None)
    transaction.begin()
    assert fate.manager.cancel(deferred.id) == 1
    fate.elsewhere(lambda manager: manager.queue.find(deferred.id).cancel())
    with pytest.raises(TransientError):
        transaction.commit()
    transaction.abort()
    assert cancel(fate, deferred) == 0


def test_what_a_thread_left_is_not_remembered_for_ever(fate):
    """The beat may come to a call between its commit and the end of its thread's work."""
    worker = fate.worker()
    real = worker._pool.held
    for _ in range(20):
        fate.call('zope_exec', '/', {}, 'python: 1')
        fate.step(worker)
        before = real()
        fate.settle(worker)
        worker._pool.held = lambda before=before: before
        fate.step(worker, hurry=True)
        worker._pool.held = real
    runs = worker._runs
    assert (runs._running, runs._stops, runs._changed, runs._deadlines) == (set(), {}, {}, {})


@pytest.mark.parametrize('groupable', [False, True])
def test_a_call_that_cancels_all_calls_goes_on_itself(fate, groupable):
    """It would run again and again: a call that was cancelled can't commit."""
    plugin = Plugin('cancel_all', lambda run: jobs.cancel_all(), '', zope_aware=True,
                    groupable=groupable)
    worker = fate.worker(plugins=[plugin], changes={'batch_seconds': 1.0 if groupable else 0.0})
    worker._habits.note_alone(('cancel_all',), 0.0)
    other = fate.call('zope_exec', '/', {}, 'python: 1', not_before=HOUR)
    deferreds = [fate.put('cancel_all') for _ in range(2)]
    fate.go(worker, rounds=6)
    assert other.state == 'cancelled'
    assert {deferred.state for deferred in deferreds} <= {'resolved', 'cancelled'}
    ended = [deferred for deferred in deferreds if deferred.state == 'resolved']
    assert sum(deferred.result for deferred in ended) == 3 - len(ended)
    assert [deferred.attempt for deferred in ended] == [1] * len(ended)
    assert fate.counts() == (0, 0)


def test_a_callback_that_cancels_all_calls_goes_on_with_its_own(fate):
    worker = fate.worker()
    other = fate.call('zope_exec', '/', {}, 'python: 1', not_before=HOUR)
    deferred = fate.call('zope_exec', '/', {}, 'python: 1', callbacks=[
        (jobs.cancel_all,), ('python: result + 1',)])
    fate.go(worker, rounds=6)
    assert (deferred.state, deferred.result, other.state) == ('resolved', 2, 'cancelled')
    assert len(deferred.attempts) == 1


def test_a_real_running_call_that_tells_ends_within_a_second(site, tmp_path):
    site.become('boss')
    site.start_worker(threads=1)
    told = str(tmp_path / 'told')
    deferred = site.put('zope_call', jobs.tell_progress_for_ever, 'looped', told)
    site.wait(lambda: os.path.exists(told))
    site.change(lambda: site.app.zam1.cancel(deferred.id))
    cancelled_at = time.monotonic()
    # The one thread is free again when the next call has run.
    following = site.put('zope_call', jobs.add, 1, 1)
    site.ended(following)
    assert time.monotonic() - cancelled_at < 1.0
    assert deferred.state == 'cancelled'
    assert 'looped' not in site.root['marks']


def test_a_real_running_call_that_commits_by_itself_is_refused(site, tmp_path):
    site.become('boss')
    site.start_worker(threads=1)
    gate = str(tmp_path / 'gate')
    deferred = site.put('zope_call', jobs.mark_and_commit_when_told, 'sneaked', gate)
    site.wait(lambda: os.path.exists(gate + '.running'))
    site.change(lambda: site.app.zam1.cancel(deferred.id))
    with open(gate, 'w', encoding='ascii'):
        pass
    following = site.put('zope_call', jobs.add, 1, 1)
    site.ended(following)
    assert deferred.state == 'cancelled'
    assert 'sneaked' not in site.root['marks']


def test_a_real_worker_runs_what_is_put_after_a_call_that_was_rolled_back_and_cancelled(site):
    site.become('boss')
    site.start_worker()
    transaction.begin()
    gone = site.app.zam1.putCall('echo', 1)
    transaction.abort()
    gone.cancel()
    soon = Options(not_before=datetime.timedelta(seconds=1))
    deferred = site.app.zam1.putCallWith(soon, 'echo', 2)
    transaction.commit()
    site.ended(deferred)
    assert (deferred.result, site.app.zam1.calls('cancelled')) == (2, [])
