"""Late is late and no more: a worker that gave no sign of life, in every order of what follows."""

import itertools

import pytest
import transaction

from Products.zasync import policy
from tests.client import jobs
from tests.client.fate import Gate


ORDERS = list(itertools.permutations(['rescue', 'commit', 'beat', 'run']))


@pytest.fixture
def frozen(farm, monkeypatch):
    """(worker, call, gate): the call's first run waits at the gate, then counts."""
    gate, runs = Gate(), []

    def count():
        runs.append(True)
        if len(runs) == 1:
            gate.wait()
        jobs.root()['marks']['n'] = jobs.root()['marks'].get('n', 0) + 1

    monkeypatch.setattr(jobs, 'hook', count)
    worker = farm.serve('zam2')
    call = farm.put_to('zam2', 'zope_call', jobs.call_hook)
    farm.step(worker)
    gate.reached()
    yield worker, call, gate
    gate.open()


def test_a_beat_comes_late(farm, frozen, caplog):
    """Late is not too late: nothing changes."""
    worker, call, gate = frozen
    alive = farm.serve('zam1')
    farm.let_pass(58, alive)
    assert farm.holder('zam2') == (worker.boot, False)
    assert 'late' not in caplog.text
    farm.step(worker)
    assert 'the beat is 48 s late' in caplog.text
    farm.let_pass(58, alive)
    gate.open()
    farm.settle(worker)
    farm.run(worker, alive)
    assert farm.holder('zam2') == (worker.boot, False)
    assert (call.state, call.attempt, farm.marks['n']) == ('resolved', 1, 1)


def test_a_beat_a_little_late_is_not_worth_a_word(farm, caplog):
    worker = farm.serve('zam1')
    for _ in range(3):
        farm.clock.advance(14)
        assert farm.step(worker)
    assert 'late' not in caplog.text


@pytest.mark.parametrize('order', ORDERS, ids='-'.join)
def test_a_worker_that_was_stopped_and_its_rescuer_end_a_call_once_in_every_order(
        farm, frozen, order):
    """It wakes up after max_idle_time: its thread commits, it beats, and siblings do their part.
    """
    worker, call, gate = frozen
    alive = farm.serve('zam1', start=False)

    def rescue():
        farm.let_pass(70, alive)

    def commit():
        gate.open()
        farm.settle(worker)

    def beat():
        farm.step(worker)

    def run():
        if not alive._pool._started:
            alive._pool.start()
        farm.run(alive, rounds=2)

    steps = {'rescue': rescue, 'commit': commit, 'beat': beat, 'run': run}
    for name in order:
        steps[name]()
    run()
    farm.clock.advance(1)
    farm.run(worker, alive)
    assert (call.state, farm.marks['n']) == ('resolved', 1)
    assert policy.interruptions([each.outcome for each in call.attempts[:-1]]) <= 1
    assert call.attempt == 1 + (order.index('rescue') < order.index('commit'))
    # Whoever wakes up takes what is its own.
    farm.let_pass(30, worker, alive)
    assert farm.holder('zam2') == (worker.boot, False)
    transaction.begin()
    assert farm.zad.zam2.open_calls() == 0
