"""Progress: told by a running call, written by the beat, seen by everybody."""

import datetime
import math
import os

import pytest
import transaction
from ZODB.FileStorage import FileIterator

import Products.zasync
from Products.zasync import running
from Products.zasync.board import Board
from Products.zasync.board import Progress
from tests.client import jobs
from tests.client.fate import Gate
from zasync_client import beat


def transactions(site):
    """How many the server has stored."""
    return sum(1 for _ in FileIterator(str(site.stack.base_dir / 'Data.fs')))


def read(deferred):
    """Its progress as another process would read it now."""
    transaction.begin()
    return deferred.progress


def test_progress_is_a_name_of_the_package():
    assert Products.zasync.progress is running.progress


@pytest.mark.parametrize('value', [
    math.nan, math.inf, -math.inf, 'half', b'1', None, 1j, [1], True, datetime.timedelta(1)])
def test_what_is_no_number_is_no_progress(value):
    with pytest.raises(ValueError, match='progress is told in numbers'):
        running.made_progress(value, 10, '')
    if value is not None:
        with pytest.raises(ValueError, match='progress is told in numbers'):
            running.made_progress(1, value, '')


def test_a_number_too_big_for_a_float_is_no_progress():
    with pytest.raises(ValueError, match='progress is told in numbers'):
        running.made_progress(10 ** 400, None, '')


class Half(float):
    """A number of a class that other processes may not have."""


def test_what_is_kept_of_progress_are_plain_numbers_and_a_short_text():
    class Long(str):
        pass

    made = running.made_progress(Half(0.5), 1, Long('x' * 1_000))
    assert made == Progress(0.5, 1, 'x' * running.MESSAGE_MOST)
    assert [type(value) for value in made] == [float, int, str]
    assert running.made_progress(1, 2, 3).message == '3'


def test_a_message_whose_text_is_of_a_class_of_its_own_harms_no_beat(fate):
    """As that of a form's field, which is markup. Nobody else need have that class."""
    class Marked(str):
        def __getitem__(self, key):
            return Marked(super().__getitem__(key))

    class Field:
        def __str__(self):
            return Marked('<b>half</b>')

    gate = Gate()

    def tells(run):
        run.progress(1, 2, Field())
        gate.wait()

    worker = fate.worker(plugins=[('tells', tells)])
    call = fate.call('tells')
    fate.step(worker)
    gate.reached()
    fate.step(worker)
    assert read(call) == Progress(1, 2, '<b>half</b>')
    assert type(read(call).message) is str
    gate.open()
    fate.go(worker)
    assert call.state == 'resolved'


def test_progress_outside_a_call_is_harmless():
    assert running.progress(1, 2, 'nobody is told') is None
    assert running.progress('nonsense') is None


def test_the_progress_of_a_running_call_is_seen_by_others(fate):
    gate = Gate()

    def tells(run):
        running.progress(3, 4, 'three')
        gate.wait()

    worker = fate.worker(plugins=[('tells', tells)])
    deferred = fate.call('tells')
    assert read(deferred) is None
    fate.step(worker)
    gate.reached()
    fate.step(worker)
    assert read(deferred) == Progress(3, 4, 'three')
    gate.open()
    fate.settle(worker)
    assert deferred.state == 'resolved'
    assert read(deferred) is None


def test_what_is_told_wakes_the_beat_and_is_written_within_a_second(fate):
    gates = [Gate(), Gate()]

    def tells(run):
        for done, gate in enumerate(gates):
            run.progress(done)
            gate.wait()

    worker = fate.worker(plugins=[('tells', tells)])
    deferred = fate.call('tells')
    fate.step(worker)
    gates[0].reached()
    assert worker._seconds_to_sleep(fate.clock.now()) == 0
    fate.step(worker)
    assert read(deferred).done == 0
    gates[0].open()
    gates[1].reached()
    # Not at once: the last was written just now.
    fate.step(worker)
    assert read(deferred).done == 0
    wait = worker._seconds_to_sleep(fate.clock.now())
    assert 0 < wait <= beat.BOARD_SECONDS < 0.8
    fate.clock.advance(wait)
    fate.step(worker)
    assert read(deferred).done == 1
    gates[1].open()
    fate.settle(worker)


def test_the_progress_of_an_attempt_is_not_that_of_the_next(fate):
    gate = Gate()

    def fails_once(run):
        if run.attempt == 1:
            run.progress(9, 10)
            gate.wait()
            raise ValueError('once')
        gate.wait()

    worker = fate.worker(plugins=[('fails_once', fails_once)])
    deferred = fate.call('fails_once', retry=2)
    fate.step(worker)
    gate.reached()
    fate.step(worker)
    assert read(deferred).done == 9
    gate.open()
    fate.settle(worker)
    fate.step(worker)
    assert deferred.state == 'new'
    assert read(deferred) is None
    fate.clock.advance(5)
    gate._open.clear()
    fate.step(worker)
    gate.reached()
    assert deferred.state == 'accepted'
    assert read(deferred) is None
    gate.open()
    fate.settle(worker)


def test_what_a_call_of_an_earlier_life_of_the_worker_told_is_forgotten(fate):
    gate = Gate()

    def tells(run):
        if run.attempt == 1:
            run.progress(1)
        gate.wait()

    first = fate.worker(plugins=[('tells', tells)])
    deferred = fate.call('tells')
    fate.step(first)
    gate.reached()
    fate.step(first)
    assert read(deferred).done == 1
    second = fate.worker(plugins=[('tells', tells)])
    assert read(deferred) is None
    fate.step(second)
    gate.reached()
    assert (deferred.attempt, read(deferred)) == (2, None)
    gate.open()
    fate.settle(second)
    fate.settle(first)


def test_progress_in_a_callback_is_seen_too(fate):
    gate = Gate()

    def told_by_callback(value):
        running.progress(1, 2)
        gate.wait()

    jobs.hook = told_by_callback
    worker = fate.worker()
    deferred = fate.call('zope_exec', '/', {}, 'python: 1', callbacks=[(jobs.call_hook,)])
    fate.step(worker)
    gate.reached()
    fate.step(worker)
    assert (deferred.state, read(deferred)) == ('callback', Progress(1, 2, ''))
    gate.open()
    fate.settle(worker)


def test_ten_thousand_steps_cost_a_few_commits_and_no_conflict(fate, monkeypatch):
    """The job commits once, at its end, and never has to start again for what it told."""
    gates, runs, writes = [Gate() for _ in range(5)], [], []

    def tells(run):
        runs.append(run.attempt)
        for burst, gate in enumerate(gates):
            for done in range(2_000):
                run.progress(2_000 * burst + done, 10_000)
            gate.wait()

    real = Board.write
    monkeypatch.setattr(Board, 'write', lambda *args: (writes.append(1), real(*args)))
    worker = fate.worker(plugins=[('tells', tells)])
    deferred = fate.call('tells')
    fate.step(worker)
    for gate in gates:
        gate.reached()
        for _ in range(3):
            fate.step(worker)
        fate.clock.advance(0.2)
        gate.open()
    fate.settle(worker)
    assert deferred.state == 'resolved'
    assert (runs, len(deferred.attempts)) == ([1], 1)
    assert len(writes) == 2  # at once, and 0.6 s later


def test_progress_of_a_real_call_is_read_by_another_process_within_a_second(site, tmp_path):
    site.start_worker()
    told, gate = str(tmp_path / 'told'), str(tmp_path / 'gate')
    deferred = site.put('zope_call', jobs.tell_progress_then_wait, 7, 10, told, gate)
    site.wait(lambda: os.path.exists(told))
    site.wait(lambda: deferred.progress is not None, limit=1.0, what='the progress')
    assert deferred.progress == Progress(7, 10, 'as told')
    with open(gate, 'w', encoding='ascii'):
        pass
    site.ended(deferred)
    assert (deferred.result, deferred.progress) == ('waited', None)


def test_a_real_call_that_tells_ten_thousand_times_costs_a_few_commits(site):
    worker = site.start_worker()
    before = transactions(site)
    deferred = site.put('zope_call', jobs.tell_progress_often, 10_000, 0.0002)
    seen = site.wait(lambda: deferred.progress or deferred.ended)
    site.ended(deferred)
    assert deferred.result == 'told 10000 times'
    assert isinstance(seen, Progress)
    # The put, the claim, the result; a board each half second; a pulse each ten.
    seconds = deferred.ended_at - deferred.started_at
    assert transactions(site) - before <= 6 + 2 * seconds
    assert len(deferred.attempts) == 1
    assert 'conflict' not in worker.output()
