"""A worker with threads that hang is replaced; what its end cuts off goes back to the queue."""

import logging

import pytest
import transaction

from bench.processes import wait_until
from Products.zasync import policy
from Products.zasync.clock import ManualClock
from Products.zasync.options import Retry
from tests.client import jobs
from tests.client.fate import Gate
from zasync_client import memory
from zasync_client.config import Plugin
from zasync_client.errors import ConfigurationError
from zasync_client.replacing import HUNG_SECONDS
from zasync_client.replacing import SHORTEST_LIFE_SECONDS


MB = 1024 ** 2


@pytest.fixture
def gate():
    """A Gate, open at the end in any case."""
    made = Gate()
    yield made
    made.open()


def deaf(gate, **fields):
    """A plugin whose calls wait at the gate, whatever happens to them."""
    return Plugin('deaf', lambda run: gate.wait(), '', zope_aware=True, **fields)


def hang(fate, worker, gate, number, timeout=5):
    """Have so many threads run calls that time out and go on; → their deferreds."""
    calls = [fate.call('deaf', timeout=timeout) for _ in range(number)]
    fate.step(worker)
    for _ in calls:
        gate.reached()
    fate.clock.advance(timeout)
    fate.step(worker)
    transaction.begin()
    assert {call.state for call in calls} == {'failed'}
    return calls


def lives_on(fate, worker):
    """What `run` asks before each beat."""
    return not fate.apart(worker.replacing.is_wanted)


# threads that hang

@pytest.mark.parametrize('threads, limit, hung', [
    (1, None, 1), (2, None, 1), (4, None, 2), (5, None, 2), (4, 3, 3), (4, 4, 4)])
def test_too_many_threads_of_a_worker_hang(fate, gate, caplog, threads, limit, hung):
    """Half of them, or so many as the configuration says; then it is to be replaced."""
    worker = fate.worker(threads=threads, plugins=[deaf(gate)],
                         changes={'max_hung_threads': limit})
    if hung > 1:
        hang(fate, worker, gate, hung - 1)
        fate.clock.advance(HUNG_SECONDS)
        assert lives_on(fate, worker)
    [call] = hang(fate, worker, gate, 1)
    fate.clock.advance(HUNG_SECONDS - 1)
    assert lives_on(fate, worker)
    fate.clock.advance(1)
    assert not lives_on(fate, worker)
    assert worker.replacing.wanted.reason.startswith(f'{hung} of its {threads} threads hang in ')
    assert call.id in worker.replacing.wanted.reason
    [line] = [each for each in caplog.records if 'is to be replaced' in each.getMessage()]
    assert line.levelno == logging.WARNING and call.id in line.getMessage()


def test_with_a_limit_above_its_threads_it_never_is(fate, gate):
    worker = fate.worker(plugins=[deaf(gate)], changes={'max_hung_threads': 2})
    hang(fate, worker, gate, 1)
    fate.clock.advance(100 * HUNG_SECONDS)
    assert lives_on(fate, worker)


@pytest.mark.parametrize('how', ['cancelled', 'rescued'])
def test_a_thread_hangs_too_whose_call_was_cancelled_or_is_anothers(fate, gate, how):
    worker = fate.worker(plugins=[deaf(gate)])
    call = fate.call('deaf')
    fate.step(worker)
    gate.reached()
    fate.clock.advance(HUNG_SECONDS)
    assert lives_on(fate, worker)  # it may take as long as it likes
    if how == 'cancelled':
        fate.do(fate.manager.cancel, call.id)
    else:
        fate.do(fate.manager.queue.give_back, call.id, fate.clock.now(), policy.WORKER_GONE)
    fate.step(worker)
    assert lives_on(fate, worker)
    fate.clock.advance(HUNG_SECONDS)
    assert not lives_on(fate, worker)


def test_a_thread_that_ends_after_all_hangs_no_more(fate, gate):
    worker = fate.worker(plugins=[deaf(gate)])
    hang(fate, worker, gate, 1)
    gate.open()
    fate.settle(worker)
    fate.clock.advance(HUNG_SECONDS)
    assert lives_on(fate, worker)


def test_a_drain_does_not_wait_for_threads_that_hang(fate, gate):
    worker = fate.worker(threads=2, plugins=[deaf(gate)])
    hang(fate, worker, gate, 1)
    fate.clock.advance(HUNG_SECONDS)
    before = fate.clock.monotonic()
    fate.apart(worker.drain)
    assert fate.clock.monotonic() - before < worker._config.drain_seconds
    assert len(worker.held()) == 1
    transaction.begin()
    assert fate.manager.queue.desk.boot is None


def test_the_next_life_serves_while_the_old_thread_goes_on_and_that_one_commits_nothing(
        fate, gate):
    def write(run):
        if run.attempt == 1:
            gate.wait()
        run.app._p_jar.root()['marks'].setdefault('by', run.attempt)
        return run.attempt

    plugin = Plugin('write', write, '', zope_aware=True)
    first = fate.worker(plugins=[plugin])
    call = fate.call('write', timeout=5, retry=Retry(2, delay=1))
    fate.step(first)
    gate.reached()
    fate.clock.advance(5)
    fate.step(first)
    fate.clock.advance(HUNG_SECONDS)
    assert not lives_on(fate, first)
    fate.apart(first.drain)
    second = fate.worker(plugins=[plugin])
    fate.go(second)
    assert (call.state, call.result) == ('resolved', 2)
    gate.open()
    fate.settle(first)
    assert fate.marks['by'] == 2
    assert [each.outcome for each in call.attempts][1:] == ['resolved']


# a life, and the next

def test_a_life_that_has_just_begun_is_not_replaced(fate, caplog):
    worker = fate.worker()
    worker.replacing.want('it must', policy.TOO_MUCH_MEMORY)
    fate.clock.advance(SHORTEST_LIFE_SECONDS - 1)
    worker.replacing.want('it must', policy.TOO_MUCH_MEMORY)
    assert lives_on(fate, worker)
    fate.clock.advance(1)
    worker.replacing.want('it must', policy.TOO_MUCH_MEMORY)
    worker.replacing.want('it must for another reason', policy.WORKER_REPLACED)
    assert worker.replacing.wanted == ('it must', policy.TOO_MUCH_MEMORY)
    assert caplog.text.count('is to be replaced') == 1


@pytest.mark.parametrize('wanted, outcome, counted', [
    (None, 'its worker was stopped', 0),
    (policy.WORKER_REPLACED, 'its worker was replaced', 0),
    (policy.TOO_MUCH_MEMORY, 'its worker took too much memory', 1)])
def test_a_call_is_cut_off_by_an_orderly_stop(fate, gate, wanted, outcome, counted):
    worker = fate.worker(plugins=[deaf(gate)])
    call = fate.call('deaf')
    fate.step(worker)
    gate.reached()
    if wanted:
        fate.clock.advance(SHORTEST_LIFE_SECONDS)
        worker.replacing.want('it must', wanted)
    fate.apart(worker.drain)
    transaction.begin()
    assert (call.state, [each.outcome for each in call.attempts]) == ('new', [outcome])
    assert policy.interruptions([each.outcome for each in call.attempts]) == counted
    queue = fate.manager.queue
    # So a sibling that has nothing to do sees that something waits.
    assert (queue.desk.boot, queue.pulse.new, queue.pulse.accepted, queue.pulse.accepting) == (
        None, 1, 0, 0)
    second = fate.worker()
    assert fate.manager.queue.desk.boot == second.boot
    assert len(call.attempts) == 1


def test_what_may_not_run_twice_fails_when_it_is_cut_off_and_says_why(fate, gate):
    worker = fate.worker(plugins=[deaf(gate, retry=False)])
    call = fate.call('deaf')
    fate.step(worker)
    gate.reached()
    fate.apart(worker.drain)
    transaction.begin()
    assert call.state == 'failed'
    assert call.failure.text == ('attempt 1 of the call was interrupted (its worker was stopped), '
                                 'and it may not run twice')


def test_a_call_that_ends_while_the_desk_is_left_has_its_result(fate, gate, monkeypatch):
    """Whichever is committed first counts; it is never both."""
    worker = fate.worker(plugins=[deaf(gate)])
    call = fate.call('deaf')
    fate.step(worker)
    gate.reached()
    leave, tries = worker._guests.leave, []

    def end_first():
        """The last thing in the transaction that leaves the desk; the first try meets the call."""
        tries.append(True)
        gate.open()
        assert wait_until(lambda: not worker.held(), 30, 0.005)
        leave()

    monkeypatch.setattr(worker._guests, 'leave', end_first)
    fate.apart(worker.drain)
    transaction.begin()
    assert len(tries) == 2
    assert (call.state, fate.manager.queue.desk.boot) == ('resolved', None)
    fate.worker()
    assert [each.outcome for each in call.attempts] == ['resolved']


# calls that are interrupted

def test_of_calls_that_have_one_chance_left_a_worker_runs_one_at_a_time(fate):
    calls = [fate.call('zope_call', jobs.add, number, 1) for number in range(3)]
    fresh = []
    for _ in range(2):  # lives that end with all they run
        fate.step(fate.worker(start=False, threads=4, changes={'max_interruptions': 3}))
    last = fate.worker(start=False, threads=4, changes={'max_interruptions': 3})
    fresh += [fate.call('zope_call', jobs.add, number, 2) for number in range(2)]
    fate.step(last)
    transaction.begin()
    assert [call.state for call in calls] == ['accepted', 'new', 'new']
    assert [call.state for call in fresh] == ['accepted', 'accepted']
    fate.clock.advance(5)
    fate.step(last)
    transaction.begin()
    assert [call.state for call in calls] == ['accepted', 'new', 'new']
    # The one that runs alone is found out, and the others are not blamed.
    good = fate.worker(threads=4, changes={'max_interruptions': 3})
    transaction.begin()
    assert [call.state for call in calls] == ['failed', 'new', 'new']
    assert '3 attempts of the call in a row were interrupted' in calls[0].failure.text
    for _ in range(4):
        fate.clock.advance(2)
        fate.go(good)
    assert [call.state for call in calls + fresh] == ['failed'] + ['resolved'] * 4


def test_one_interruption_may_be_too_many(fate):
    call = fate.call('zope_call', jobs.add, 1, 1)
    fate.step(fate.worker(start=False, changes={'max_interruptions': 1}))
    fate.worker(start=False, changes={'max_interruptions': 1})
    transaction.begin()
    assert call.state == 'failed'
    assert call.failure.text == (
        'the call was interrupted (its worker died): it may be what ends its workers')


# memory

class Meter:
    """A memory.Ceiling of 100 MB over a process that has what the test says."""

    def __init__(self):
        self.used, self.told = 10 * MB, []
        self.ceiling = memory.Ceiling(
            100 * MB, lambda used: self.told.append(('above', used)),
            lambda used: self.told.append(('far above', used)), ManualClock(), lambda: self.used)


@pytest.mark.parametrize('used, told', [
    (99, []), (100, ['above']), (149, ['above']), (150, ['far above']), (1_000, ['far above'])])
def test_a_worker_takes_too_much_memory(used, told):
    meter = Meter()
    meter.used = used * MB
    meter.ceiling.look()
    assert meter.told == [(name, used * MB) for name in told]


def test_a_ceiling_below_what_the_worker_starts_with_is_refused():
    meter = Meter()
    meter.ceiling.check()
    meter.used = 100 * MB
    with pytest.raises(ConfigurationError) as refusal:
        meter.ceiling.check()
    assert str(refusal.value) == (
        'max-memory is 100 MB, and the worker has 100 MB before its first call: give it twice of '
        'that, or more')


def test_what_this_process_has_is_measured():
    before = memory.resident_bytes()
    ballast = bytearray(b'x' * (64 * MB))
    grown = memory.resident_bytes() - before
    assert 10 * MB < before
    assert 48 * MB < grown < 256 * MB and len(ballast) == 64 * MB
