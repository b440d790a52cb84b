"""Aggregates and scheduled calls in a worker, step by step."""

import datetime

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.users import system

from Products.zasync.errors import BadCall
from Products.zasync.errors import UnknownPlugin
from Products.zasync.options import Options
from tests.client import chains
from tests.client.test_callbacks import at_rest
from tests.client.test_callbacks import kept
from tests.client.test_callbacks import run
from tests.client.test_callbacks import run_until
from tests.client.workbench import Bench


@pytest.fixture
def bench():
    made = Bench()
    newSecurityManager(None, system)
    chains.GATE.clear()
    chains.runs()
    yield made
    chains.GATE.set()
    made.close()
    noSecurityManager()


def job(function, *args):
    """A member of an aggregate."""
    return 'zope_call', (function, *args)


def put(bench, *args, options=None, **kwargs):
    """Put an aggregate and commit; → its deferred."""
    transaction.begin()
    deferred = bench.manager.putCallWith(options or Options(), 'aggregate', *args, **kwargs)
    transaction.commit()
    return deferred


def test_the_results_are_in_the_order_of_the_calls(bench):
    worker = bench.worker(threads=3)
    deferred = put(bench, [job(chains.value, number) for number in (3, 1, 2)])
    assert bench.manager.lenNewCalls() == 4
    run(bench, worker, deferred)
    assert (deferred.state, deferred.result) == ('resolved', [3, 1, 2])


def test_a_member_of_an_aggregate_fails(bench):
    worker = bench.worker()
    deferred = put(bench, [job(chains.value, 1), job(chains.fail, 'two'),
                           ('zope_exec', ('/', {}, 'python: 3'))])
    run(bench, worker, deferred)
    one, failure, three = deferred.result
    assert (one, three, deferred.state) == (1, 3, 'resolved')
    assert (failure.type_name, failure.text) == ('ValueError', 'two')
    assert 'chains' in failure.traceback_text


def test_members_that_were_cancelled_or_expired_are_Failures_too(bench):
    worker = bench.worker(threads=2)
    transaction.begin()
    deferred = bench.manager.putCall('aggregate', [
        job(chains.value, 1), job(chains.wait_for_gate), job(chains.value, 3)])
    # As a plugin or an administrator may do it: no member has options of its own.
    deferred.after[2].expires_at = bench.clock.now() - 1
    transaction.commit()
    bench.step(worker)
    bench.wait(lambda: deferred.after[1].state == 'accepted')
    transaction.begin()
    bench.manager.cancel(deferred.after[1].id)
    transaction.commit()
    # Its thread still runs, and nobody waits for that.
    run_until_not_held(bench, worker, deferred)
    assert [getattr(value, 'type_name', value) for value in deferred.result] == [
        1, 'Products.zasync.errors.Cancelled', 'Products.zasync.errors.Expired']


def run_until_not_held(bench, worker, deferred):
    """As `run`, where a thread never comes to rest."""
    def beat_and_look():
        bench.step(worker)
        transaction.begin()
        return deferred.ended

    bench.wait(beat_and_look)


def test_with_first_failure_it_fails_at_once_and_the_others_go_on(bench):
    worker = bench.worker(threads=2)
    deferred = put(bench, [job(chains.wait_for_gate, 1), job(chains.fail, 'two')],
                   first_failure=True)
    run_until_not_held(bench, worker, deferred)
    assert deferred.state == 'failed'
    assert deferred.failure.type_name == 'Products.zasync.errors.MemberFailed'
    assert deferred.failure.text.startswith('member 2 (zope_call) failed: ValueError: two')
    assert bench.manager.lenAcceptedCalls() == 1
    chains.GATE.set()
    run_until(bench, worker, lambda: at_rest(bench))
    assert deferred.after[0].result == 1
    assert not bench.manager.queue.waiting._awaited


def test_with_first_failure_and_none_it_has_all_results(bench):
    worker = bench.worker()
    deferred = put(bench, [job(chains.value, 1), job(chains.value, 2)], True)
    run(bench, worker, deferred)
    assert deferred.result == [1, 2]


def test_aggregates_and_delays_may_be_in_it(bench):
    worker = bench.worker(threads=2)
    inner = [job(chains.value, 2), ('schedule', (7, 'zope_call', chains.value, 3))]
    deferred = put(bench, [job(chains.value, 1), ('aggregate', (inner,))])
    for _ in range(4):
        bench.step(worker)
        bench.settle(worker)
    assert deferred.state == 'new'
    assert bench.manager.lenNewCalls() == 3
    bench.clock.advance(8)
    run(bench, worker, deferred)
    assert deferred.result == [1, [2, 3]]


def test_two_hundred_members(bench):
    worker = bench.worker(threads=4)
    deferred = put(bench, [job(chains.value, number) for number in range(200)])
    run_until(bench, worker, lambda: deferred.ended, 400)
    assert deferred.result == list(range(200))
    assert at_rest(bench)


def test_its_callbacks_get_the_list(bench):
    worker = bench.worker()
    transaction.begin()
    deferred = bench.manager.putCall('aggregate', [job(chains.value, 1), job(chains.value, 2)])
    deferred.addCallbacks('python: sum(result)').addCallbacks(chains.keep)
    deferred.after[0].addCallbacks(chains.double)
    transaction.commit()
    run(bench, worker, deferred)
    # A member has ended when its own callbacks have.
    assert kept(bench) == (4,)


def test_it_can_be_waited_for_like_any_call(bench):
    worker = bench.worker()
    deferred = put(bench, [job(chains.value, 1), job(chains.value, 2)])
    transaction.begin()
    deferred.addCallbacks(chains.keep)
    transaction.commit()
    run_until(bench, worker, lambda: at_rest(bench))
    assert kept(bench) == ([1, 2],)


def test_the_results_of_an_aggregate_are_too_big_together(bench):
    worker = bench.worker(changes={'max_result_bytes': 3_000})
    deferred = put(bench, [job(chains.big), job(chains.big)])
    run(bench, worker, deferred)
    assert deferred.failure.type_name == 'Products.zasync.errors.BadResult'
    assert 'the limit is 3,000' in deferred.failure.text
    assert [member.state for member in deferred.after] == ['resolved', 'resolved']


def test_a_member_whose_result_is_too_big_or_can_not_be_read_is_a_Failure(bench):
    worker = bench.worker(changes={'max_result_bytes': 10_000})
    deferred = put(bench, [job(chains.big, None, 20_000), job(chains.no_return),
                           job(chains.value, 3)])
    run(bench, worker, deferred)
    assert [getattr(value, 'type_name', value) for value in deferred.result] == [
        'Products.zasync.errors.BadResult', 'TypeError', 3]


def test_cancelled_it_leaves_its_members_alone(bench):
    worker = bench.worker()
    deferred = put(bench, [job(chains.keep, 1), job(chains.keep, 2)])
    transaction.begin()
    assert deferred.cancel() is True
    transaction.commit()
    run_until(bench, worker, lambda: at_rest(bench))
    assert (deferred.state, sorted(kept(bench))) == ('cancelled', [1, 2])
    bench.step(worker, hurry=True)
    transaction.begin()
    assert bench.manager.queue.find(deferred.id) is deferred
    assert not bench.manager.queue.waiting._awaited


def test_cancelled_while_its_members_run_it_is_counted_no_more(bench):
    worker = bench.worker(threads=1)
    deferred = put(bench, [job(chains.wait_for_gate, 1)])
    outer = put(bench, [job(chains.value)])
    bench.step(worker)
    bench.wait(lambda: deferred.after[0].state == 'accepted')
    transaction.begin()
    deferred.cancel()
    transaction.commit()
    bench.step(worker)
    transaction.begin()
    assert bench.manager.lenNewCalls() == 2  # the other and its member
    chains.GATE.set()
    run_until(bench, worker, lambda: at_rest(bench))
    assert outer.result == [1]


@pytest.mark.parametrize('first_failure', [False, True])
def test_run_again_with_its_failed_members_it_waits_for_them_again(bench, first_failure):
    worker = bench.worker(threads=2)
    deferred = put(bench, [job(chains.fail_once, 'here'), job(chains.value, 2)], first_failure)
    run_until(bench, worker, lambda: at_rest(bench))
    bench.step(worker, hurry=True)
    transaction.begin()
    if first_failure:
        assert deferred.state == 'failed'
        assert bench.manager.retry() == 2
        transaction.commit()
        run(bench, worker, deferred)
        assert deferred.result == ['here', 2]
    else:
        assert deferred.result[0].type_name == 'ValueError'
        assert bench.manager.retry() == 1


def test_a_member_of_an_aggregate_runs_again(bench):
    worker = bench.worker(threads=2)
    deferred = put(bench, [job(chains.fail_once, 'here'), job(chains.wait_for_gate, 2)])
    bench.step(worker)
    bench.wait(lambda: deferred.after[0].state == 'failed')
    bench.step(worker, hurry=True)
    transaction.begin()
    assert bench.manager.retry(deferred.after[0].id) == 1
    transaction.commit()
    chains.GATE.set()
    run(bench, worker, deferred)
    assert deferred.result == ['here', 2]


def test_priority_and_delay_hold_for_the_members_too(bench):
    worker = bench.worker()
    later = Options(priority=3, not_before=datetime.timedelta(seconds=60))
    deferred = put(bench, [job(chains.value, 1), ('schedule', (5, 'zope_call', chains.value))],
                   options=later)
    transaction.begin()
    scheduled = bench.manager.putCall('schedule', 60, 'aggregate', [job(chains.value, 2)])
    transaction.commit()
    assert {call.priority for call in (deferred, *deferred.after)} == {3}
    bench.step(worker)
    bench.settle(worker)
    assert bench.manager.lenNewCalls() == 5
    bench.clock.advance(61)
    run(bench, worker, scheduled)
    transaction.begin()
    assert [member.state for member in deferred.after] == ['resolved', 'new']
    bench.clock.advance(5)
    run(bench, worker, deferred)


# schedule

def test_a_scheduled_call_runs_after_so_many_seconds(bench):
    worker = bench.worker()
    transaction.begin()
    deferred = bench.manager.putCall('schedule', 10, 'zope_call', chains.value, number=5)
    transaction.commit()
    assert deferred.plugin == 'zope_call'
    bench.clock.advance(8)
    bench.step(worker)
    bench.settle(worker)
    assert deferred.state == 'new'
    bench.clock.advance(3)
    run(bench, worker, deferred)
    assert deferred.result == 5
    assert deferred.started_at - deferred.put_at >= 10


def test_delays_in_each_other_add_up(bench):
    transaction.begin()
    deferred = bench.manager.putCallWith(
        Options(not_before=datetime.timedelta(seconds=100)), 'schedule', 10, 'schedule', 5,
        'zope_call', chains.value)
    assert deferred.not_before == pytest.approx(deferred.put_at + 115, abs=0.01)
    transaction.abort()


DEEP = ['zope_call', (chains.value,)]
for _ in range(40):
    DEEP = ['aggregate', ([DEEP],)]
ENDLESS = []
ENDLESS += [('aggregate', (ENDLESS,))] * 1_000


@pytest.mark.parametrize('error, words, args', [
    (BadCall, 'number of seconds', ('schedule',)),
    (BadCall, 'number of seconds', ('schedule', 5)),
    (BadCall, 'back in time', ('schedule', -1, 'zope_call', chains.value)),
    (BadCall, 'number of seconds', ('schedule', '5', 'zope_call', chains.value)),
    (BadCall, 'number of seconds', ('schedule', True, 'zope_call', chains.value)),
    (BadCall, 'can not wait', ('schedule', float('inf'), 'zope_call', chains.value)),
    (BadCall, 'can not wait', ('schedule', float('nan'), 'zope_call', chains.value)),
    (BadCall, 'can not wait', ('schedule', 10 ** 400, 'zope_call', chains.value)),
    (BadCall, 'can not wait', ('schedule', 1e12, 'zope_call', chains.value)),
    (UnknownPlugin, "no plugin 'nothing'", ('schedule', 5, 'nothing')),
    (UnknownPlugin, "no plugin 'follow'", ('follow', 'x')),
    (UnknownPlugin, 'a text', ('schedule', 5, None)),
    (BadCall, '10 deep', ('schedule', *(1, 'schedule') * 2_000, 1, 'zope_call', chains.value)),
    (BadCall, 'list of calls', ('aggregate',)),
    (BadCall, 'list of calls', ('aggregate', [])),
    (BadCall, 'list of calls', ('aggregate', 'zope_call')),
    (BadCall, 'list of calls', ('aggregate', [('zope_call', (chains.value,))], True, 3)),
    (BadCall, 'true or false', ('aggregate', [('zope_call', (chains.value,))], 'yes')),
    (BadCall, 'member 1: give it', ('aggregate', ['zope_call'])),
    (BadCall, 'member 2: give it', ('aggregate', [('zope_call', (chains.value,)), ()])),
    (BadCall, 'member 1: its arg', ('aggregate', [('zope_call', 'text')])),
    (BadCall, 'member 1: its arg', ('aggregate', [('zope_call', (chains.value,), {1: 2})])),
    (UnknownPlugin, "member 2: there is no plugin 'nothing'",
     ('aggregate', [('zope_call', (chains.value,)), ('nothing', ())])),
    (BadCall, 'member 1: member 1: zope_exec',
     ('aggregate', [('aggregate', ([('zope_exec', ('/',))],))])),
    (BadCall, 'member 1: the expression',
     ('aggregate', [('zope_exec', ('/', {}, 'python: ('))])),
    (BadCall, '1,000 calls', ('aggregate', [('zope_call', (chains.value,))] * 1_001)),
    (BadCall, '10 deep', ('aggregate', [DEEP])),
    (BadCall, 'aggregate', ('aggregate', ENDLESS)),
])
def test_what_can_never_run_is_refused_and_nothing_is_put(bench, error, words, args):
    bench.worker(start=False)
    transaction.begin()
    with pytest.raises(error, match=words):
        bench.manager.putCall(*args)
    assert bench.manager.lenNewCalls() == 0


def test_calls_given_twice_are_refused(bench):
    with pytest.raises(BadCall, match='list of calls'):
        bench.manager.putCall('aggregate', [job(chains.value)], calls=[job(chains.value)])
