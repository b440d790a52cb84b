"""Running a call again: after an exception by policy, after trouble by the worker's own rules."""

import functools
import os

import pytest
import transaction
from transaction.interfaces import TransientError
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from Products.zasync import running
from Products.zasync.failure import text_of
from Products.zasync.options import Options
from Products.zasync.options import Retry
from tests.client import jobs
from tests.client.fate import Gate
from tests.client.test_cancel import jobs_marks
from zasync_client import execution
from zasync_client.config import Plugin


INTERRUPTED = 'Products.zasync.errors.Interrupted'


class Odd(KeyError):
    """An exception of ours: a LookupError by its grandmother."""


class Mute(Exception):
    """Its text can't be made."""

    def __str__(self):
        raise self


class MuteExit(SystemExit):
    """So is that of an end of the process."""

    __str__ = Mute.__str__


class MuteConflict(TransientError):
    """And of a conflict."""

    __str__ = Mute.__str__


def failing(error, times=99):
    """(handler that raises `error` so many times, list of the attempts made)."""
    runs = []

    def fails(run):
        runs.append(run.attempt)
        if len(runs) <= times:
            raise error
        return len(runs)

    return fails, runs


ODD = f'{Odd.__module__}.Odd'

#: A module may have a class by more than one name, and so may Python itself.
Strange = Odd
STRANGE = f'{Odd.__module__}.Strange'


@pytest.mark.parametrize('fields, options, expected', [
    # (fields of the plugin, options of the call, attempts made)
    ({}, {}, 1),
    ({'attempts': 3}, {}, 3),
    ({}, {'retry': 3}, 3),
    ({}, {'retry': Retry(2)}, 2),
    ({'attempts': 3}, {'retry': 1}, 1),
    ({'attempts': 3}, {'retry': False}, 1),
    ({'attempts': 3, 'retry': False}, {}, 1),
    # What may never run twice does not: its plugin knows best.
    ({'retry': False}, {'retry': 3}, 1),
    ({'attempts': 3, 'retry_on': ('LookupError',)}, {}, 3),
    ({'attempts': 3, 'retry_on': ('builtins.LookupError',)}, {}, 3),
    ({'attempts': 3, 'retry_on': (LookupError,)}, {}, 3),
    ({'attempts': 3, 'retry_on': ('ValueError',)}, {}, 1),
    ({}, {'retry': Retry(3, on=(KeyError,))}, 3),
    ({}, {'retry': Retry(3, on=('LookupError',))}, 3),
    ({}, {'retry': Retry(3, on=(Odd,))}, 3),
    ({}, {'retry': Retry(3, on=ODD)}, 3),
    ({}, {'retry': Retry(3, on=STRANGE)}, 3),
    ({'attempts': 3, 'retry_on': (STRANGE,)}, {}, 3),
    ({}, {'retry': Retry(3, on=(ValueError, TypeError))}, 1),
    ({}, {'retry': Retry(3, on=('tests.client.other.Odd',))}, 1),
    ({'attempts': 3, 'retry_on': ('ValueError',)}, {'retry': Retry(2, on=Odd)}, 2),
])
@pytest.mark.parametrize('aware', [True, False])
def test_a_call_with_a_retry_policy_raises_an_exception(fate, fields, options, expected,
                                                            aware):
    handler, runs = failing(Odd('no'))
    if not aware:
        def bare():
            return handler(_Bare)
    plugin = Plugin('fails', handler if aware else bare, '', zope_aware=aware, **fields)
    worker = fate.worker(plugins=[plugin])
    deferred = fate.call('fails', **options)
    for _ in range(6):
        fate.go(worker, 2)
        fate.clock.advance(3_600)
    assert len(runs) == expected
    assert deferred.state == 'failed'
    assert deferred.failure.type_name == ODD
    outcomes = [attempt.outcome for attempt in deferred.attempts]
    assert outcomes == ["failed: Odd: 'no'"] * (expected - 1) + ['failed']
    assert [attempt.number for attempt in deferred.attempts] == list(range(1, expected + 1))


class _Bare:
    attempt = 0


@pytest.mark.parametrize('kind', [Mute, MuteExit])
def test_an_exception_whose_text_can_not_be_made_counts_like_any(fate, kind):
    handler, runs = failing(kind())
    worker = fate.worker(plugins=[Plugin('fails', handler, '', zope_aware=True, attempts=2)])
    deferred = fate.call('fails')
    fate.go(worker)
    fate.clock.advance(3_600)
    fate.go(worker)
    assert (deferred.state, runs) == ('failed', [1, 2])
    assert [attempt.outcome for attempt in deferred.attempts] == [
        f'failed: {kind.__name__}: (its text can not be shown: {kind.__name__})', 'failed']


def test_a_conflict_whose_text_can_not_be_made_is_one(fate):
    handler, runs = failing(MuteConflict(), times=3)
    worker = fate.worker(plugins=[('fails', handler)])
    deferred = fate.call('fails')
    fate.go(worker)
    fate.clock.advance(60)
    fate.go(worker)
    assert (deferred.state, runs) == ('resolved', [1, 1, 1, 2])
    assert deferred.attempts[0].outcome == (
        'MuteConflict: (its text can not be shown: MuteConflict)')


def test_a_callback_may_raise_what_has_no_text(fate):
    def fails(value):
        raise Mute

    jobs.hook = fails
    worker = fate.worker()
    deferred = fate.call('echo', 'a', callbacks=[(jobs.call_hook, None)])
    fate.go(worker)
    assert (deferred.state, deferred.failure.type_name) == ('failed', f'{Mute.__module__}.Mute')


@pytest.mark.parametrize('fields, options, waits', [
    ({}, {'retry': Retry(4, delay=5, growth=2)}, [5, 10, 20]),
    ({}, {'retry': Retry(4, delay=5, growth=1)}, [5, 5, 5]),
    ({}, {'retry': Retry(4, delay=5, growth=10, longest=60)}, [5, 50, 60]),
    ({'attempts': 4, 'retry_delay_seconds': 1.5, 'retry_growth': 3.0}, {}, [1.5, 4.5, 13.5]),
    ({'attempts': 2, 'retry_delay_seconds': 0.0}, {}, [0]),
])
def test_each_wait_is_as_long_as_the_policy_says(fate, fields, options, waits):
    handler, runs = failing(ValueError('no'))
    worker = fate.worker(plugins=[Plugin('fails', handler, '', zope_aware=True, **fields)])
    fate.call('fails', **options)
    fate.step(worker)
    fate.settle(worker)
    for number, wait in enumerate(waits, 1):
        assert len(runs) == number
        fate.step(worker)
        fate.settle(worker)
        if wait:
            fate.clock.advance(wait - 0.01)
            fate.step(worker)
            fate.settle(worker)
            assert len(runs) == number
            assert 0 < worker._seconds_to_sleep(fate.clock.now()) <= 0.01 + 1e-6
            fate.clock.advance(0.01 + 1e-6)
            fate.step(worker)
            fate.settle(worker)
    assert len(runs) == len(waits) + 1


def test_what_succeeds_in_the_end_is_resolved_and_tells_what_went_before(fate):
    handler, runs = failing(ValueError('x' * 1_000), times=2)
    worker = fate.worker(plugins=[('fails', handler)])
    deferred = fate.call('fails', retry=Retry(3, delay=1))
    for _ in range(3):
        fate.go(worker, 2)
        fate.clock.advance(60)
    assert (deferred.state, deferred.result, deferred.failure) == ('resolved', 3, None)
    outcomes = [attempt.outcome for attempt in deferred.attempts]
    assert outcomes[0] == outcomes[1] and outcomes[0].startswith('failed: ValueError: xxx')
    assert len(outcomes[0]) == 200
    assert outcomes[2] == 'resolved'


def test_conflicts_and_interruptions_do_not_count(fate):
    """A policy of two attempts: the third run of this call is the second that failed."""
    runs = []

    def troubled(run):
        runs.append(run.attempt)
        if len(runs) in (1, 5):
            raise ValueError('counts')
        raise ConflictError('does not')

    worker = fate.worker(plugins=[('troubled', troubled)])
    deferred = fate.call('troubled', retry=Retry(2, delay=0))
    for _ in range(4):
        fate.go(worker, 2)
        fate.clock.advance(120)
    assert deferred.state == 'failed'
    assert deferred.failure.text == 'counts'
    assert [outcome.partition(':')[0] for _, _, _, outcome in deferred.attempts] == [
        'failed', 'ConflictError', 'failed']


# calls that may not run twice

def once(handler, aware=True):
    return Plugin('once', handler, '', zope_aware=aware, retry=False)


@pytest.fixture(params=['plugin', 'call'])
def only_once(request):
    """(handler, aware) → (Plugin, options of a call to it), by its section or by the call."""
    def made(handler, aware=True):
        return Plugin('once', handler, '', zope_aware=aware, retry=request.param != 'plugin'), (
            {'retry': False} if request.param == 'call' else {})

    return made


@pytest.fixture
def trouble(monkeypatch):
    """Add exceptions to this list: commits of calls raise them, one each."""
    pending, real = [], execution.commit

    def commit():
        if not pending:
            return real()
        error = pending.pop(0)
        if getattr(error, 'arrived', False):
            real()
        raise error

    monkeypatch.setattr(execution, 'commit', commit)
    return pending


@pytest.mark.parametrize('error', [ConflictError('other'), ClientDisconnected('gone'),
                                   TransientError('again'), MuteConflict()], ids=text_of)
def test_a_call_that_may_not_run_twice_can_not_commit(
        fate, only_once, trouble, tmp_path, error):
    path = str(tmp_path / 'effects')

    def effect(run):
        jobs_marks(run)['effect'] = True
        jobs.append_line(path)

    plugin, options = only_once(effect)
    jobs.hook = lambda value: jobs.append_line(path + '.callback') or value.type_name
    worker = fate.worker(plugins=[plugin])
    deferred = fate.call('once', callbacks=[(None, jobs.call_hook)], **options)
    other = fate.call('once', **options)
    trouble.append(error)
    fate.step(worker)
    fate.settle(worker)
    assert deferred.result == INTERRUPTED
    assert lines(path) == lines(path + '.callback') == 1
    assert 'effect' not in fate.marks
    trouble.append(error)
    fate.go(worker)
    assert (other.state, other.failure.type_name) == ('failed', INTERRUPTED)
    assert text_of(error) in other.failure.text
    assert lines(path) == 2


def lines(path):
    with open(path, encoding='ascii') as file:
        return len(file.readlines())


def test_a_call_that_asks_to_be_started_again_and_may_not_is_interrupted(fate, only_once):
    handler, runs = failing(TransientError('again'))
    plugin, options = only_once(handler)
    worker = fate.worker(plugins=[plugin])
    deferred = fate.call('once', **options)
    fate.go(worker)
    assert (runs, deferred.failure.type_name) == ([1], INTERRUPTED)


def test_a_call_that_may_not_run_twice_and_raises_tells_what_it_raised(fate, only_once):
    handler, runs = failing(ValueError('its own'))
    plugin, options = only_once(handler)
    worker = fate.worker(plugins=[plugin])
    deferred = fate.call('once', **options)
    fate.go(worker)
    assert (runs, deferred.failure.text) == ([1], 'its own')


@pytest.mark.parametrize('aware', [True, False])
def test_a_commit_that_had_arrived_is_the_end_of_a_call_that_may_not_run_twice(
        fate, only_once, trouble, aware):
    """The server takes the result and goes away before it says so."""
    handler, runs = failing(ValueError, times=0)
    plugin, options = only_once(handler if aware else lambda: handler(_Bare), aware)
    worker = fate.worker(plugins=[plugin])
    calls = [fate.call('once', **options),
             fate.call('once', callbacks=[('python: result + 1', 'python: 0')], **options)]
    for _ in calls:
        error = ClientDisconnected('gone')
        error.arrived = True
        trouble.append(error)
        fate.step(worker)
        fate.settle(worker)
        fate.step(worker, hurry=True)
    transaction.begin()
    assert [deferred.state for deferred in calls] == ['resolved', 'resolved']
    assert [deferred.result for deferred in calls] == [1, 3]
    assert len(runs) == 2


def test_a_failure_that_had_arrived_is_not_taken_for_that_of_a_callback(fate, trouble):
    handler, runs = failing(ValueError('the reason'))
    worker = fate.worker(plugins=[('fails', handler)])
    deferred = fate.call('fails', callbacks=[(None, 'python: failure.text + "!"'),
                                             ('python: result + "?"',)])
    error = ClientDisconnected('gone')
    error.arrived = True
    trouble.append(error)
    fate.go(worker)
    assert (runs, deferred.state, deferred.result) == ([1], 'resolved', 'the reason!?')


@pytest.mark.parametrize('fields', [{}, {'retry': False}])
def test_a_known_result_can_not_be_stored_at_once(
        fate, trouble, tmp_path, fields):
    """However often that meets conflicts, and when the server goes away."""
    path = str(tmp_path / 'effects')

    def outside():
        jobs.append_line(path)
        return 42

    worker = fate.worker(plugins=[Plugin('outside', outside, '', **fields)])
    deferred = fate.call('outside')
    trouble += [ConflictError('no')] * 7 + [ClientDisconnected('gone')] * 2
    fate.go(worker, 2)
    assert (deferred.state, deferred.result) == ('resolved', 42)
    assert lines(path) == 1
    assert len(deferred.attempts) == 1


@pytest.mark.parametrize('fields, state', [({}, 'new'), ({'retry': False}, 'failed')])
def test_a_worker_that_stops_while_a_result_can_not_be_stored(fate, trouble, fields, state):
    runs = []
    worker = fate.worker(plugins=[Plugin('outside', lambda: runs.append(1), '', **fields)])
    deferred = fate.call('outside')
    trouble += [ClientDisconnected('gone')]
    worker.stopping.set()
    fate.step(worker)
    fate.settle(worker)
    fate.step(worker)
    transaction.begin()
    assert deferred.state == state
    assert deferred.ended is (state == 'failed')
    if deferred.ended:
        assert deferred.failure.type_name == INTERRUPTED
    assert runs == [1]


def test_an_error_of_the_worker_itself_does_not_run_such_a_call_twice(fate, trouble, only_once):
    handler, runs = failing(ValueError, times=0)
    plugin, options = only_once(handler)
    worker = fate.worker(plugins=[plugin])
    deferred = fate.call('once', **options)
    # Its result meets an error, and so does the storing of that error.
    trouble += [RuntimeError('no'), MemoryError('none left')]
    fate.go(worker)
    assert runs == [1]
    assert (deferred.state, deferred.failure.type_name) == ('failed', INTERRUPTED)


def test_a_call_that_may_not_run_twice_waits_for_its_plugin(fate):
    """It has not begun: nothing is lost by another try."""
    first = fate.worker(plugins=[once(lambda run: 1)])
    deferred = fate.call('once', retry=False)
    fate.stop(first)
    second = fate.worker()
    second._config.plugins.pop('once', None)
    fate.go(second, 2)
    assert deferred.state == 'new'
    fate.stop(second)
    third = fate.worker(plugins=[once(lambda run: 1)])
    fate.clock.advance(61)
    fate.go(third, 2)
    assert deferred.state == 'resolved'


def test_what_a_dead_worker_ran_and_may_not_run_twice_fails_at_the_next_start(fate, only_once):
    gate, runs, seen = Gate(), [], []

    def hangs(run):
        runs.append(run.attempt)
        gate.wait()

    jobs.hook = lambda value: seen.append((value.type_name, value.text))
    plugin, options = only_once(hangs)
    first = fate.worker(plugins=[plugin])
    deferred = fate.call('once', callbacks=[(None, jobs.call_hook)], **options)
    fate.step(first)
    gate.reached()
    second = fate.worker(plugins=[plugin])  # as if the first had been killed
    gate.open()
    fate.settle(first)
    fate.go(second)
    text = 'attempt 1 of the call was interrupted (its worker died), and it may not run twice'
    assert (runs, seen) == ([1], [(INTERRUPTED, text)])
    assert deferred.state == 'resolved'


def test_what_is_interrupted_and_may_run_twice_runs_again(fate):
    gate, runs = Gate(), []

    def hangs(run):
        runs.append(run.attempt)
        gate.wait()

    first = fate.worker(plugins=[('hangs', hangs)])
    deferred = fate.call('hangs', retry=1)  # one attempt: an interruption is none
    fate.step(first)
    gate.reached()
    second = fate.worker(plugins=[('hangs', hangs)])
    gate.open()
    fate.settle(first)
    fate.go(second)
    assert (runs, deferred.state) == ([1, 2], 'resolved')


def test_keywords_of_a_plugin_and_of_a_memo_may_have_any_name(fate):
    names = dict.fromkeys(('self', 'caller', 'step', 'handler', 'memo'), 1)

    def aware(run, /, **kwargs):
        run.checkpoint(**kwargs)
        return kwargs

    worker = fate.worker(threads=1, plugins=[
        Plugin('bare', lambda **kwargs: kwargs, ''), Plugin('aware', aware, '', zope_aware=True)])
    calls = [fate.do(functools.partial(fate.manager.putCall, name, **names))
             for name in ('bare', 'aware')]
    fate.go(worker)
    assert [(call.failure, call.result) for call in calls] == [(None, names)] * 2
    assert calls[1].memo == names


def test_a_plugin_that_is_not_zope_aware_runs_without_a_connection(fate):
    """Its thread has none open, neither before nor after it has told its progress."""
    seen = []

    def bare():
        for _ in range(2):
            seen.append('connection' in worker._database._local.__dict__)
            running.progress(1)

    worker = fate.worker(threads=1, plugins=[
        Plugin('bare', bare, ''), Plugin('aware', lambda run: bare(), '', zope_aware=True)])
    for name in ('bare', 'aware', 'bare'):
        deferred = fate.call(name)
        fate.step(worker)
        fate.settle(worker)
        assert deferred.state == 'resolved'
    assert seen == [False, False, True, True, False, False]


def test_a_worker_is_killed_while_it_runs_a_call_that_may_not_run_twice(site, tmp_path):
    path, gate = str(tmp_path / 'effects'), str(tmp_path / 'gate')
    worker = site.start_worker()
    site.become('boss')
    transaction.begin()
    deferred = site.app.zam1.putCallWith(Options(retry=False), 'zope_call', jobs.append_then_wait,
                                         path, gate)
    deferred.addCallbacks(None, 'python: failure.type_name')
    transaction.commit()
    site.wait(lambda: os.path.exists(gate + '.running'))
    worker.kill()
    with open(gate, 'w', encoding='ascii'):
        pass
    site.start_worker()
    site.ended(deferred)
    assert deferred.result == INTERRUPTED
    assert lines(path) == 1
