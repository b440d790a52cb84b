"""Callbacks in a worker, step by step: chains, transactions, and what a worker may lose."""

import datetime
import itertools
from dataclasses import dataclass

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.users import system

from Products.zasync.errors import BadCall
from Products.zasync.failure import Failure
from Products.zasync.options import Options
from Products.zasync.options import Retry
from tests.client import chains
from tests.client.workbench import Bench
from zasync_client import callview
from zasync_client.config import Plugin


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


def put(bench, job, *args, callbacks=(), options=None):
    """Put a call of a function with these pairs of callbacks and commit; → its deferred."""
    transaction.begin()
    deferred = bench.manager.putCallWith(options or Options(), 'zope_call', job, *args)
    for pair in callbacks:
        deferred.addCallbacks(*pair)
    transaction.commit()
    return deferred


def add(deferred, *pairs):
    """Add pairs of callbacks in a transaction of their own."""
    transaction.begin()
    for pair in pairs:
        deferred.addCallbacks(*pair)
    transaction.commit()


def run_until(bench, worker, done, rounds=40):
    """Beat after beat until done()."""
    for _ in range(rounds):
        bench.step(worker)
        bench.settle(worker)
        transaction.begin()
        if done():
            return
    raise AssertionError(f'not after {rounds} beats: {[*bench.manager.calls()]}')


def run(bench, worker, *deferreds):
    """Beat until these calls have ended."""
    run_until(bench, worker, lambda: all(deferred.ended for deferred in deferreds))


def at_rest(bench):
    """Whether nothing waits and nothing runs."""
    return bench.manager.lenNewCalls() == bench.manager.lenAcceptedCalls() == 0


def kept(bench):
    """The effects of callbacks, in their order."""
    return bench.marks.get('kept', ())


def followers(bench):
    return bench.manager.calls(plugin='follow', limit=1_000)


# Twisted's rules

SUCCESS = {'-': None, 'returns': chains.double, 'raises': chains.boom}
FAILURE = {'-': None, 'recovers': chains.recover, 'hands on': chains.hand_on,
           'raises': chains.boom_again}
PAIRS = [pair for pair in itertools.product(SUCCESS, FAILURE) if pair != ('-', '-')]


def by_twisted(failed, chain):
    """What Twisted makes of a chain: ('resolved', value) or ('failed', type of the exception)."""
    kind, value = ('failed', 'ValueError') if failed else ('resolved', 1)
    for success, failure in chain:
        if kind == 'resolved' and success != '-':
            kind, value = (('resolved', 2 * value) if success == 'returns'
                           else ('failed', 'RuntimeError'))
        elif kind == 'failed' and failure not in ('-', 'hands on'):
            kind, value = (('resolved', 100) if failure == 'recovers'
                           else ('failed', 'LookupError'))
    return kind, value


def test_the_rules_of_the_model_are_those_of_twisted():
    """The table of `addCallbacks` in words; the next test runs all chains of two."""
    table = [
        (False, [('returns', '-')], ('resolved', 2)),
        (False, [('-', 'recovers')], ('resolved', 1)),
        (False, [('raises', '-')], ('failed', 'RuntimeError')),
        # A callback does not catch what its own partner raises; the next pair does.
        (False, [('raises', 'recovers')], ('failed', 'RuntimeError')),
        (False, [('raises', 'recovers'), ('-', 'recovers')], ('resolved', 100)),
        (True, [('returns', '-')], ('failed', 'ValueError')),
        (True, [('-', 'recovers'), ('returns', '-')], ('resolved', 200)),
        (True, [('-', 'raises'), ('returns', 'recovers')], ('resolved', 100)),
        (True, [('-', 'raises'), ('returns', '-')], ('failed', 'LookupError')),
        (True, [('-', 'hands on'), ('returns', '-')], ('failed', 'ValueError')),
    ]
    for failed, chain, expected in table:
        assert by_twisted(failed, chain) == expected


@pytest.mark.parametrize('failed', [False, True])
@pytest.mark.parametrize('late', [False, True])
def test_chains_follow_the_rules_of_twisted(bench, failed, late):
    worker = bench.worker(threads=4)
    expected = {}
    job = chains.fail if failed else chains.value
    for chain in itertools.product(PAIRS, repeat=2):
        pairs = [(SUCCESS[success], FAILURE[failure]) for success, failure in chain]
        if late:
            deferred = put(bench, job)
            add(deferred, *pairs)
        else:
            deferred = put(bench, job, callbacks=pairs)
        expected[deferred] = by_twisted(failed, chain)
    run_until(bench, worker, lambda: at_rest(bench), 400)
    if late:
        # The call is as it was, and the chain's end is its follower's.
        assert {deferred.state for deferred in expected} == {'failed' if failed else 'resolved'}
        ends = {follower.after[0]: follower for follower in followers(bench)}
        assert len(ends) == len(expected)
    else:
        ends = {deferred: deferred for deferred in expected}
    for deferred, (state, value) in expected.items():
        end = ends[deferred]
        if state == 'resolved':
            assert (end.state, end.result, end.failure) == (state, value, None)
        else:
            assert (end.failure.type_name, end.result) == (value, None)
            # A follower that only hands on the failure of its call has not failed itself.
            handed_on = late and failed and value == 'ValueError'
            assert end.state == ('resolved' if handed_on else 'failed')


def test_a_TALES_callback_has_result_and_failure_of_which_one_is_None(bench):
    worker = bench.worker()
    one = put(bench, chains.value, 5, callbacks=[('python: (result, failure is None)',)])
    two = put(bench, chains.fail, 'bad luck', callbacks=[
        (None, 'python: (result, failure.type_name, failure.text, bool(failure.traceback_text))')])
    three = put(bench, chains.value, callbacks=[
        ('python: (here is root, root is home, request.get("REQUEST_METHOD"))',)])
    run(bench, worker, one, two, three)
    assert one.result == (5, True)
    assert two.result == (None, 'ValueError', 'bad luck', True)
    assert three.result == (True, True, 'GET')


def test_a_Failure_that_is_returned_is_a_failure_and_its_effects_stay(bench):
    worker = bench.worker()
    one = put(bench, chains.value, 1, callbacks=[(chains.disappointed,), (chains.double,)])
    two = put(bench, chains.disappointed, 2, callbacks=[(None, chains.text_of)])
    run(bench, worker, one, two)
    assert (one.state, str(one.failure)) == ('failed', 'Disappointment: that is all')
    assert (two.state, two.result) == ('resolved', 'that is all')
    assert sorted(kept(bench)) == [1, 2]


def test_a_None_is_a_result_too(bench):
    worker = bench.worker()
    deferred = put(bench, chains.value, None, callbacks=[(chains.keep,), (chains.keep,)])
    run(bench, worker, deferred)
    assert (deferred.state, deferred.result) == ('resolved', None)
    assert kept(bench) == (None, None)


# transactions

def test_a_callback_raises_an_exception(bench):
    worker = bench.worker()
    deferred = put(bench, chains.value, 1, callbacks=[
        (chains.keep,), (chains.double,), (chains.keep_and_raise,), (None, chains.keep_type)])
    run(bench, worker, deferred)
    assert kept(bench) == (1, 'RuntimeError')
    assert deferred.result == 'RuntimeError'


def test_each_callback_is_committed_before_the_next_begins(bench):
    worker = bench.worker()
    deferred = put(bench, chains.value, 7, callbacks=[(chains.keep,), (chains.wait_for_gate,)])
    bench.step(worker)
    bench.wait(lambda: kept(bench) == (7,))
    assert (deferred.state, deferred.result, deferred.ended) == ('callback', 7, False)
    assert bench.manager.lenAcceptedCalls() == 1
    chains.GATE.set()
    bench.settle(worker)
    assert deferred.state == 'resolved'


def test_a_callback_meets_a_conflict(bench):
    worker = bench.worker()
    deferred = put(bench, chains.counted, 3, callbacks=[
        (chains.count_runs,), (chains.conflicts,), (chains.count_runs,)])
    run(bench, worker, deferred)
    assert chains.runs() == ['call', 3, 'callback', 'callback', 'callback', 3]
    assert kept(bench) == (3, 3)
    assert len(deferred.attempts) == 1


def test_a_callback_that_always_conflicts_goes_back_to_the_queue_and_the_call_is_not_repeated(
        bench):
    worker = bench.worker()
    deferred = put(bench, chains.counted, 3, callbacks=[(chains.always_conflicts,)])
    bench.step(worker)
    bench.settle(worker)
    bench.step(worker)
    transaction.begin()
    assert (deferred.state, deferred.owner) == ('callback', None)
    assert bench.manager.lenNewCalls() == 1
    bench.clock.advance(60)
    bench.step(worker)
    bench.settle(worker)
    assert chains.runs() == ['call']
    assert [attempt.outcome for attempt in deferred.attempts][:1] == ['TransientError: again']


def test_an_effect_that_can_not_be_stored_fails_the_callback(bench):
    worker = bench.worker()
    deferred = put(bench, chains.value, callbacks=[
        (chains.unstorable_effect,), (None, chains.keep_type)])
    run(bench, worker, deferred)
    assert deferred.state == 'resolved'
    assert 'bad' not in bench.marks


def test_a_callback_has_no_checkpoints(bench):
    worker = bench.worker()
    deferred = put(bench, chains.value, callbacks=[(chains.makes_checkpoint,)])
    run(bench, worker, deferred)
    assert deferred.state == 'failed'
    assert 'checkpoint' in deferred.failure.text


@pytest.mark.parametrize('callback', [chains.unpicklable, chains.disappointed_unpicklably])
def test_the_result_of_a_callback_can_not_be_stored(bench, callback):
    worker = bench.worker()
    deferred = put(bench, chains.value, callbacks=[(callback,), (None, chains.keep_type)])
    run(bench, worker, deferred)
    assert deferred.result == 'Products.zasync.errors.BadResult'
    assert kept(bench) == ('Products.zasync.errors.BadResult',)


@pytest.mark.parametrize('job, text', [
    (chains.unpicklable, 'the result holds a function, '),
    (chains.disappointed_unpicklably, 'the failure holds an exception, ')])
def test_a_result_of_a_call_that_can_not_be_pickled_goes_to_the_failure_chain(bench, job, text):
    worker = bench.worker()
    deferred = put(bench, job, callbacks=[(None, chains.text_of)])
    run(bench, worker, deferred)
    assert deferred.result.startswith(text)
    assert kept(bench) == ()


@pytest.mark.parametrize('fields, text', [
    ((404, ''), 'the type_name of the failure is no text but 404'),
    (('Declined', 'no', 7), 'the traceback_text of the failure is no text but 7')])
def test_a_failure_that_a_list_of_calls_could_not_show_is_refused(bench, fields, text):
    worker = bench.worker(plugins=[('fails', lambda run: Failure(*fields))])
    deferred = bench.put('fails')
    run(bench, worker, deferred)
    assert text in callview.summary(deferred)['failure']
    assert deferred.failure.type_name == 'Products.zasync.errors.BadResult'
    assert deferred.failure.text == text


@dataclass
class Mute:
    """A value that has no text."""

    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize('text, kept', [
    ('no' * 5_000, 'no' * 1_000), (404, '404'), (None, ''),
    (Mute(), '(its text can not be shown: RuntimeError)')])
def test_of_a_failure_that_is_returned_no_more_is_kept_than_of_an_exception(bench, text, kept):
    given = Failure('Declined', text, 't' * 50_000)
    worker = bench.worker(plugins=[('fails', lambda run: given)])
    deferred = bench.put('fails')
    run(bench, worker, deferred)
    assert (deferred.failure.text, type(deferred.failure.text)) == (kept, str)
    assert deferred.failure.traceback_text == 't' * 20_000


@pytest.mark.parametrize('callbacks', [[], [(chains.big,)]])
def test_a_result_over_the_limit_fails_and_the_failure_says_the_limit(bench, callbacks):
    worker = bench.worker(changes={'max_result_bytes': 1_000})
    deferred = put(bench, chains.value if callbacks else chains.big, callbacks=callbacks)
    run(bench, worker, deferred)
    assert deferred.failure.type_name == 'Products.zasync.errors.BadResult'
    assert 'the limit is 1,000' in deferred.failure.text


def test_a_result_that_can_not_be_read_again_fails_the_callback_and_not_the_worker(bench):
    worker = bench.worker()
    deferred = put(bench, chains.no_return, callbacks=[(chains.keep,), (None, chains.text_of)])
    late = put(bench, chains.no_return)
    add(late, (chains.keep,), (None, chains.keep_type))
    run_until(bench, worker, lambda: at_rest(bench))
    assert (deferred.state, deferred.result) == ('resolved', 'it does not come back')
    assert kept(bench) == ('TypeError',)


def test_what_a_callback_puts_is_seen_before_the_chain_has_ended(bench):
    worker = bench.worker(threads=2)
    put(bench, chains.value, callbacks=[(chains.put_another,), (chains.wait_for_gate,)])
    bench.step(worker)
    bench.wait(lambda: bench.manager.lenNewCalls() == 1)
    # Not by its next look, a poll interval later: the thread has told of its commit.
    bench.wait(worker._wakeup._event.is_set)
    bench.step(worker)
    bench.wait(lambda: kept(bench) == ('another',))
    chains.GATE.set()


# added late

def test_a_callback_is_added_to_a_call_that_runs(bench):
    worker = bench.worker(threads=2)
    deferred = put(bench, chains.wait_for_gate, 4)
    bench.step(worker)
    add(deferred, (chains.double,), (chains.keep,))
    bench.step(worker)
    transaction.begin()
    assert kept(bench) == ()
    chains.GATE.set()
    run_until(bench, worker, lambda: at_rest(bench))
    assert kept(bench) == (8,)
    assert (deferred.result, len(deferred.attempts)) == (4, 1)


@pytest.mark.parametrize('when', ['ended', 'archived', 'dropped'])
def test_a_callback_is_added_to_a_call_that_has_ended(bench, when):
    worker = bench.worker()
    deferred = put(bench, chains.value, 4)
    run(bench, worker, deferred)
    if when != 'ended':
        bench.step(worker, hurry=True)
    if when == 'dropped':
        bench.clock.advance(2 * bench.manager.rotation_period)
        bench.step(worker)
        transaction.begin()
        assert bench.manager.queue.find(deferred.id) is None
    add(deferred, (chains.keep,))
    run_until(bench, worker, lambda: at_rest(bench))
    assert kept(bench) == (4,)


def test_callbacks_of_two_transactions_begin_with_the_value_of_the_call(bench):
    worker = bench.worker()
    deferred = put(bench, chains.value, 4)
    add(deferred, (chains.double,), (chains.keep,))
    add(deferred, (chains.keep,))
    run_until(bench, worker, lambda: at_rest(bench))
    assert sorted(kept(bench)) == [4, 8]
    assert len(followers(bench)) == 2


def test_late_callbacks_begin_with_what_the_calls_own_made_of_its_value(bench):
    worker = bench.worker()
    deferred = put(bench, chains.value, 4, callbacks=[(chains.double,)])
    add(deferred, (chains.keep,))
    run_until(bench, worker, lambda: at_rest(bench))
    assert kept(bench) == (8,)


def test_a_call_may_add_callbacks_to_itself(bench):
    worker = bench.worker()
    deferred = put(bench, chains.callback_of_itself, 6)
    run_until(bench, worker, lambda: at_rest(bench) and kept(bench))
    assert (deferred.state, kept(bench)) == ('resolved', (6,))


def test_late_callbacks_wait_no_shorter_than_those_of_other_priority(bench):
    """They are as urgent as their call."""
    worker = bench.worker()
    deferred = put(bench, chains.value, options=Options(priority=7))
    run(bench, worker, deferred)
    add(deferred, (chains.keep,))
    [follower] = followers(bench)
    assert follower.priority == 7


# ends that come from outside

@pytest.mark.parametrize('when', ['new', 'accepted', 'callback'])
def test_a_call_with_callbacks_is_cancelled(bench, when):
    worker = bench.worker(threads=2)
    wait = (chains.wait_for_gate, chains.wait_for_gate)
    deferred = put(bench, chains.wait_for_gate if when == 'accepted' else chains.value, 1,
                   callbacks=[*([wait] if when == 'callback' else []),
                              (chains.keep, chains.keep_type)])
    if when != 'new':
        bench.step(worker)
        bench.wait(lambda: deferred.state == when)
    transaction.begin()
    assert deferred.cancel() is True
    transaction.commit()
    chains.GATE.set()
    run_until(bench, worker, lambda: at_rest(bench))
    assert kept(bench) == ('Products.zasync.errors.Cancelled',)
    assert (deferred.state, deferred.result) == ('cancelled', None)
    [follower] = followers(bench)
    assert follower.state == 'resolved'


def test_a_call_with_callbacks_expires(bench):
    worker = bench.worker()
    soon = Options(expires=datetime.timedelta(seconds=5))
    plain = put(bench, chains.counted, 1, options=soon)
    kept_on = put(bench, chains.counted, 1, options=soon,
                  callbacks=[(chains.keep, chains.keep_type), (chains.boom,)])
    handed_on = put(bench, chains.counted, 1, options=soon, callbacks=[(chains.keep,)])
    bench.clock.advance(6)
    run(bench, worker, plain, kept_on, handed_on)
    assert (plain.state, handed_on.state, kept_on.state) == ('expired', 'expired', 'failed')
    assert kept(bench) == ('Products.zasync.errors.Expired',)
    assert 'after Products.zasync.errors.Expired' in kept_on.failure.text
    assert chains.runs() == []


def test_a_call_that_timed_out_has_its_failure_callbacks_run(bench):
    worker = bench.worker(threads=2)
    deferred = put(bench, chains.wait_for_gate, options=Options(timeout=5),
                   callbacks=[(chains.keep, chains.keep_type)])
    bench.step(worker)
    bench.wait(lambda: worker._runs.next_deadline() is not None)
    bench.clock.advance(6)
    bench.step(worker)
    bench.wait(lambda: deferred.ended)
    assert kept(bench) == ('Products.zasync.errors.TimedOut',)
    assert [attempt.number for attempt in deferred.attempts] == [1, 2]
    first, second = deferred.attempts
    assert first.outcome.startswith('failed: Products.zasync.errors.TimedOut')
    assert second.outcome == 'resolved'
    chains.GATE.set()
    bench.settle(worker)
    assert deferred.state == 'resolved'


def test_a_callback_that_runs_too_long_fails_and_the_next_are_run(bench):
    worker = bench.worker(threads=2)
    deferred = put(bench, chains.counted, 1, options=Options(timeout=5), callbacks=[
        (chains.wait_for_gate,), (chains.double, chains.keep_type)])
    bench.step(worker)
    bench.wait(lambda: deferred.state == 'callback')
    bench.clock.advance(6)
    bench.step(worker)
    bench.wait(lambda: deferred.ended)
    assert kept(bench) == (1, 'Products.zasync.errors.TimedOut')
    chains.GATE.set()
    bench.settle(worker)
    assert chains.runs() == ['call']


def test_the_last_callback_that_runs_too_long_fails_the_call_and_alone_runs_again(bench):
    worker = bench.worker(threads=2)
    deferred = put(bench, chains.counted, 5, options=Options(timeout=5),
                   callbacks=[(chains.wait_for_gate,)])
    bench.step(worker)
    bench.wait(lambda: deferred.state == 'callback')
    bench.clock.advance(6)
    bench.step(worker)
    assert deferred.state == 'failed'
    assert deferred.failure.type_name.endswith('TimedOut')
    chains.GATE.set()
    bench.settle(worker)
    transaction.begin()
    assert bench.manager.retry(deferred.id) == 1
    transaction.commit()
    run(bench, worker, deferred)
    assert (deferred.state, deferred.result) == ('resolved', 5)
    assert chains.runs() == ['call']


def test_a_call_that_fails_by_its_retry_policy_has_its_callbacks_run_once_in_the_end(bench):
    worker = bench.worker()
    deferred = put(bench, chains.fail, options=Options(retry=Retry(3, delay=5)),
                   callbacks=[(None, chains.keep_type)])
    for _ in range(3):
        bench.step(worker)
        bench.settle(worker)
        bench.step(worker)
        bench.clock.advance(30)
    run(bench, worker, deferred)
    assert kept(bench) == ('ValueError',)
    assert [attempt.number for attempt in deferred.attempts] == [1, 2, 3]


def test_a_call_that_runs_again_begins_with_the_callback_that_failed(bench):
    worker = bench.worker()
    deferred = put(bench, chains.counted, 3, callbacks=[
        (chains.double,), (chains.keep_and_raise,), (chains.boom,)])
    run(bench, worker, deferred)
    assert deferred.state == 'failed'
    transaction.begin()
    assert bench.manager.retry(deferred.id) == 1
    transaction.commit()
    assert (deferred.state, deferred.ended_at) == ('callback', None)
    run(bench, worker, deferred)
    assert chains.runs() == ['call']
    assert kept(bench) == (3,)


def test_a_call_whose_work_failed_runs_again_as_a_whole(bench):
    worker = bench.worker()
    deferred = put(bench, chains.fail, callbacks=[(chains.double, chains.boom_again)])
    run(bench, worker, deferred)
    assert deferred.failure.type_name == 'LookupError'
    transaction.begin()
    assert bench.manager.retry(deferred.id) == 1
    transaction.commit()
    assert deferred.state == 'new'
    run(bench, worker, deferred)
    assert deferred.failure.type_name == 'LookupError'


@pytest.mark.parametrize('filed', [False, True])
def test_a_call_may_be_run_again_before_or_after_it_was_filed(bench, filed):
    worker = bench.worker()
    deferred = put(bench, chains.fail)
    run(bench, worker, deferred)
    if filed:
        bench.step(worker, hurry=True)
    transaction.begin()
    assert bench.manager.retry(deferred.id) == 1
    transaction.commit()
    run_until(bench, worker, lambda: deferred.ended and at_rest(bench))
    bench.step(worker, hurry=True)
    transaction.begin()
    assert (deferred.state, len(deferred.attempts)) == ('failed', 2)
    assert bench.manager.queue.desk.running == {}
    assert list(bench.manager.queue.failed) == [deferred.id]


def test_late_callbacks_of_a_failed_call_that_runs_again_wait_for_its_new_end(bench):
    worker = bench.worker(start=False)
    deferred = put(bench, chains.fail)
    worker._pool.start()
    run(bench, worker, deferred)
    bench.step(worker, hurry=True)
    transaction.begin()
    deferred.addCallbacks(chains.keep, chains.keep_type)
    bench.manager.retry(deferred.id)
    transaction.commit()
    run_until(bench, worker, lambda: at_rest(bench))
    assert kept(bench) == ('ValueError',)
    assert len(deferred.attempts) == 2


def test_a_worker_without_the_plugin_any_more_still_runs_the_callbacks(bench):
    first = bench.worker(plugins=[('there', lambda run: 8)])
    transaction.begin()
    deferred = bench.manager.putCall('there').addCallbacks(chains.always_conflicts)
    deferred.addCallbacks(chains.keep)
    transaction.commit()
    bench.step(first)
    bench.settle(first)
    bench.stop(first)
    transaction.begin()
    assert deferred.state == 'callback'
    second = bench.worker()
    bench.clock.advance(600)
    bench.step(second)
    bench.settle(second)
    assert deferred.state == 'callback'
    assert 'NoPlugin' not in str(deferred.attempts)


def test_callbacks_of_a_plugin_that_is_not_zope_aware_run_in_zope(bench):
    worker = bench.worker(changes={'plugins': {
        **bench.config().plugins, 'apart': Plugin('apart', lambda number: number + 1, '')}})
    transaction.begin()
    deferred = bench.manager.putCall('apart', 1).addCallbacks(chains.keep)
    transaction.commit()
    run(bench, worker, deferred)
    assert (deferred.result, kept(bench)) == (2, (2,))


# refused where they are added

@pytest.mark.parametrize('pair', [
    ('python: (',), ('no such: thing',), (chains.keep, 'python: )'), (5,), (lambda value: 1,),
    (), (None, None), ([].append,)])
def test_bad_callbacks_are_refused_and_nothing_is_added(bench, pair):
    worker = bench.worker()
    deferred = put(bench, chains.value)
    for when in ('new', 'ended'):
        transaction.begin()
        with pytest.raises(BadCall) as refusal:
            deferred.addCallbacks(*pair)
        assert len(str(refusal.value)) > 20
        assert bench.manager.lenNewCalls() == (when == 'new')
        transaction.abort()
        run(bench, worker, deferred)
    assert followers(bench) == []
