"""Group commit: several calls in a transaction, and nobody can tell."""

import logging
import random
from datetime import timedelta

import pytest
import transaction
from AccessControl import getSecurityManager
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.userfolder import UserFolder
from OFS.Folder import Folder
from transaction.interfaces import TransientError
from zope.component.hooks import getSite
from zope.globalrequest import getRequest

from Products.zasync import groupable
from Products.zasync import policy
from Products.zasync import wakeup
from Products.zasync.builtin import FOLLOW
from Products.zasync.claiming import ALONE_SECONDS
from Products.zasync.options import Options
from Products.zasync.options import Retry
from Products.zasync.running import progress
from tests.client import jobs
from tests.client.fate import Gate
from tests.client.grouping import assert_apart
from tests.client.grouping import assert_together
from tests.client.grouping import Group
from tests.client.grouping import states
from tests.client.grouping import times_run
from tests.client.test_group_unfit import join
from tests.client.test_group_unfit import Sent
from tests.client.test_group_unfit import WithSavepoints
from zasync_client import groupcommit
from zasync_client.habits import Habits
from zasync_client.worker import UNBEGUN_SECONDS


def test_calls_that_wait_share_a_transaction(group):
    worker = group.worker()
    deferreds = group.put_marks(*range(8))
    group.go(worker)
    assert_together(*deferreds)
    assert states(deferreds) == ['resolved'] * 8
    assert [deferred.result for deferred in deferreds] == list(range(8))
    assert group.marks_of() == list(range(8))
    assert [times_run(group, deferred) for deferred in deferreds] == [1] * 8
    assert group.counts() == (0, 0)
    assert [group.manager.getDeferred(deferred.id) for deferred in deferreds] == deferreds


def test_the_transaction_tells_its_calls_and_not_what_they_noted(group):
    def note(run, number):
        transaction.get().setUser('somebody')
        transaction.get().note('something')
        return group.mark(run, number)

    group.actions['note'] = note
    worker = group.worker()
    deferreds = [group.put('do', 'note', number) for number in range(3)]
    group.go(worker)
    assert_together(*deferreds)
    found, = [record for record in group.db.storage.changes.iterator()
              if record.tid == deferreds[0]._p_serial]
    assert found.user.decode() == 'zasync'
    assert found.description.decode() == 'zasync calls ' + ' '.join(
        deferred.id for deferred in deferreds)


def test_a_lone_call_and_calls_that_are_not_groupable_have_transactions_of_their_own(group):
    worker = group.worker(plugins=[('plain', group._do)])
    deferreds = [group.put('plain', 'mark', number) for number in range(3)]
    deferreds += group.put_marks(3)
    group.go(worker)
    assert_apart(*deferreds)
    assert states(deferreds) == ['resolved'] * 4


def test_no_calls_share_a_transaction_where_the_configuration_says_so(group):
    worker = group.worker(batch_seconds=0.0)
    deferreds = group.put_marks(*range(4))
    group.go(worker)
    assert_apart(*deferreds)


@pytest.mark.parametrize('options', [
    {'series': 'one'}, {'timeout': 0.9}, {'retry': False},
    {'callbacks': [(jobs.call_hook, None)]}], ids=lambda options: ''.join(options))
def test_what_is_odd_about_a_call_keeps_it_alone(group, options):
    jobs.hook = lambda value: value
    worker = group.worker()
    odd = group.call('do', 'mark', 0, **options)
    deferreds = group.put_marks(1, 2, 3)
    group.go(worker)
    assert_together(*deferreds)
    assert_apart(odd, deferreds[0])
    assert odd.state == 'resolved'
    assert (times_run(group, odd), len(odd.attempts)) == (1, 1)


def test_an_attempt_after_the_first_is_alone(group):
    worker = group.worker()
    deferreds = [group.call('do', 'fail_at_first', number, retry=Retry(3, delay=0))
                 for number in range(3)]

    def fail_at_first(run, number):
        group.mark(run, number, run.attempt)
        return 1 / (run.attempt - 1)

    group.actions['fail_at_first'] = fail_at_first
    group.go(worker)
    assert states(deferreds) == ['resolved'] * 3
    assert_apart(*deferreds)
    for deferred in deferreds:
        first, second = deferred.attempts
        assert first.outcome.startswith('failed: ZeroDivisionError')
        assert (second.number, second.outcome) == (2, 'resolved')
    assert [group.own[number]['mark'] for number in range(3)] == [2, 2, 2]


# a member that fails

def test_a_call_of_a_group_fails(group):
    def fail(run, number):
        group.mark(run, number)
        raise KeyError(f'number {number}')

    group.actions['fail'] = fail
    worker = group.worker()
    deferreds = [group.put('do', 'fail' if number % 3 == 1 else 'mark', number)
                 for number in range(9)]
    group.go(worker)
    assert_together(*deferreds)
    assert group.marks_of() == [0, 2, 3, 5, 6, 8]
    for number, deferred in enumerate(deferreds):
        if number % 3 == 1:
            assert deferred.failure.type_name == 'KeyError'
            assert deferred.failure.text == f"'number {number}'"
        else:
            assert deferred.result == number
    assert [times_run(group, deferred) for deferred in deferreds] == [1] * 9


def leave(run):
    raise SystemExit(3)


def unpicklable_result(run):
    return lambda: None


@pytest.mark.parametrize('action, failure', [
    (leave, 'SystemExit'), (unpicklable_result, 'Products.zasync.errors.BadResult'),
    (lambda run: run.id.no_such_name, 'AttributeError')])
def test_a_call_that_can_not_end_well_ends_as_it_does_alone(group, action, failure):
    group.actions['odd'] = lambda run: group.mark(run, 1) and action(run)
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('odd', 'odd'), *group.put_marks(2)]
    group.go(worker)
    assert_together(*deferreds)
    assert states(deferreds) == ['resolved', 'failed', 'resolved']
    assert deferreds[1].failure.type_name == failure
    assert group.marks_of() == [0, 2]


def test_a_failure_that_is_returned_keeps_the_effects(group):
    from Products.zasync.failure import Failure
    group.actions['odd'] = lambda run: group.mark(run, 1) and Failure.from_exception(
        ValueError('handed on'))
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('odd', 'odd'), *group.put_marks(2)]
    group.go(worker)
    assert_together(*deferreds)
    assert (deferreds[1].state, deferreds[1].failure.text) == ('failed', 'handed on')
    assert group.marks_of() == [0, 1, 2]


# what calls put, and what they rely on

def test_calls_put_calls_and_failed_ones_have_not(group):
    def put(run, number, fails):
        run.app.zam.putCall('echo', number)
        if fails:
            raise ValueError('not so')

    group.actions['put'] = put
    worker = group.worker()
    deferreds = [group.put('do', 'put', number, number in (0, 2)) for number in range(5)]
    group.go(worker, rounds=4)
    assert_together(*deferreds)
    found = [each.result for each in group.manager.calls('resolved') if each.plugin == 'echo']
    assert sorted(found) == [1, 3, 4]


def test_callbacks_that_calls_of_a_group_add_to_one_call_are_a_chain_for_each(group):
    """Each begins with the value of that call, as if it had been added by another transaction."""
    group.actions['add'] = lambda run, id, text: run.app.zam.getDeferred(
        id).addCallbacks(text).addCallbacks('python: [result]') and None
    other = group.call('zope_exec', '/', {}, 'python: 5', not_before=timedelta(hours=1))
    worker = group.worker()
    deferreds = [group.put('do', 'add', other.id, f'python: result + {number}')
                 for number in (1, 2)]
    group.go(worker)
    assert_together(*deferreds)
    group.clock.advance(3_601)
    group.go(worker, rounds=6)
    assert other.result == 5
    assert sorted(each.result for each in group.manager.calls('resolved')
                  if each.plugin == FOLLOW) == [[6], [7]]


def test_a_callback_that_a_call_adds_to_what_another_of_its_group_has_put_is_none_of_that(group):
    """As if it had been committed: the result of that call stays as whoever put it wants it."""
    def put(run, *callbacks):
        found = run.app.zam.putCallWith(
            Options(key='one', not_before=timedelta(hours=1)), 'zope_exec', '/', {}, 'python: 5')
        for text in callbacks:
            found.addCallbacks(text)
        return found.id

    group.actions['put'] = put
    worker = group.worker()
    deferreds = [group.put('do', 'put', 'python: result + 1'),
                 group.put('do', 'put', 'python: result * 7', 'python: [result]')]
    group.go(worker)
    assert_together(*deferreds)
    [id] = {each.result for each in deferreds}
    group.clock.advance(3_601)
    group.go(worker, rounds=6)
    assert group.manager.getDeferred(id).result == 6
    [follower] = [each for each in group.manager.calls('resolved') if each.plugin == FOLLOW]
    assert follower.result == [42]


def test_a_put_is_told_though_the_first_one_of_its_transaction_was_rolled_back(
        group, monkeypatch):
    told = []
    monkeypatch.setattr(wakeup, 'tell', told.append)
    transaction.begin()
    savepoint = transaction.savepoint()
    group.manager.putCall('echo', 1)
    transaction.savepoint()
    savepoint.rollback()
    group.manager.putCall('echo', 2)
    transaction.commit()
    assert told == [group.db]
    transaction.begin()
    savepoint = transaction.savepoint()
    group.manager.putCall('echo', 3)
    savepoint.rollback()
    transaction.commit()
    assert told == [group.db]


def test_what_a_failed_call_relied_on_may_have_changed(group):
    """Its readCurrent is gone with it: the group does not meet the other's change."""
    gate = Gate()

    def rely(run):
        own = run.app._p_jar.root()['own'][9]
        assert 'changed' not in own  # of a ghost nothing would be noted
        run.app._p_jar.readCurrent(own)
        raise ValueError('after all')

    def wait(run, number):
        gate.wait()
        return group.mark(run, number)

    group.actions.update(rely=rely, wait=wait)
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('do', 'rely'), group.put('do', 'wait', 1)]
    group.step(worker)
    worker._pool.start()
    gate.reached()
    group.elsewhere(lambda app_zam: app_zam._p_jar.root()['own'][9].update(changed=True))
    gate.open()
    group.settle(worker)
    assert_together(*deferreds)
    assert times_run(group, deferreds[0]) == 1


def test_what_a_good_call_relies_on_may_not_have_changed_whatever_others_roll_back(group):
    """A savepoint of the failed one stored the object, which is no longer looked at then."""
    gate = Gate()
    seen = []

    def rely(run):
        own = run.app._p_jar.root()['own'][9]
        seen.append(own.get('changed', False))
        run.app._p_jar.readCurrent(own)
        return group.mark(run, 0)

    def disturb(run):
        run.app._p_jar.root()['own'][9]['mine'] = True
        transaction.savepoint()
        raise ValueError('after all')

    def wait(run, number):
        gate.wait()
        return group.mark(run, number)

    group.actions.update(rely=rely, disturb=disturb, wait=wait)
    worker = group.worker()
    deferreds = [group.put('do', 'rely'), group.put('do', 'disturb'), group.put('do', 'wait', 1)]
    group.step(worker)
    worker._pool.start()
    gate.reached()
    group.elsewhere(lambda app_zam: app_zam._p_jar.root()['own'][9].update(changed=True))
    gate.open()
    group.settle(worker)
    group.go(worker)
    assert seen == [False, True]
    assert_apart(*deferreds)


# conflicts, cancelled calls, time-outs

def run_beside(group, worker, action):
    """Do action() while a call of the group waits at the gate of `wait`."""
    gate = Gate()
    first = []

    def wait(run, number):
        if not first:
            first.append(1)
            gate.wait()
        return group.mark(run, number)

    group.actions['wait'] = wait
    waiting = group.put('do', 'wait', 15)
    group.step(worker)
    worker._pool.start()
    gate.reached()
    action()
    gate.open()
    group.settle(worker)
    group.go(worker)
    return waiting


def test_a_call_of_a_group_meets_a_conflict(group):
    worker = group.worker()
    deferreds = group.put_marks(0, 1, 2)
    deferreds.append(run_beside(group, worker, lambda: group.elsewhere(
        lambda zam: zam._p_jar.root()['own'][1].update(other=True))))
    assert_apart(*deferreds)
    assert states(deferreds) == ['resolved'] * 4
    assert [times_run(group, deferred) for deferred in deferreds] == [2] * 4
    assert group.marks_of() == [0, 1, 2, 15]
    assert [len(deferred.attempts) for deferred in deferreds] == [1] * 4


def test_a_conflict_inside_a_call_makes_all_run_alone_and_is_not_held_against_it(group):
    left = [1]

    def conflict(run):
        if left:
            left.pop()
            raise TransientError('a conflict')

    group.actions['odd'] = conflict
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('odd', 'odd'), *group.put_marks(1)]
    group.go(worker)
    assert states(deferreds) == ['resolved'] * 3
    assert worker._habits.may_share(('odd',))


def test_a_call_of_a_group_is_cancelled(group):
    worker = group.worker()
    deferreds = group.put_marks(0, 1, 2)
    waiting = run_beside(group, worker, lambda: group.do(group.manager.cancel, deferreds[1].id))
    assert states([*deferreds, waiting]) == ['resolved', 'cancelled', 'resolved', 'resolved']
    assert group.marks_of() == [0, 2, 15]
    assert times_run(group, deferreds[1]) == 1


def cancelled(group, deferred):
    group.do(group.manager.cancel, deferred.id)
    return 'cancelled'


def taken_over(group, deferred):
    queue = group.manager.queue
    if deferred.id in queue.desk.reserved:
        queue.claim_reserved(deferred.id, queue.desk.boot, group.clock.now())
    deferred.attempt += 1  # the worker believes that another thread runs it
    transaction.commit()
    return 'accepted'


@pytest.mark.parametrize('lost', [cancelled, taken_over], ids=lambda lost: lost.__name__)
def test_a_call_that_is_told_to_stop_leaves_its_group(group, lost):
    gate = Gate()

    def tell(run):
        gate.wait()
        progress(1)
        return 'not stopped'

    group.actions['tell'] = tell
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('do', 'tell'), *group.put_marks(1)]
    group.step(worker)
    worker._pool.start()
    gate.reached()
    transaction.begin()
    state = lost(group, deferreds[1])
    group.step(worker)
    gate.open()
    group.settle(worker)
    group.go(worker)
    assert states(deferreds) == ['resolved', state, 'resolved']
    assert times_run(group, deferreds[0]) == times_run(group, deferreds[1]) == 1
    assert group.marks_of() == [0, 1]


def test_a_call_of_a_group_runs_longer_than_its_time_out(group):
    gate = Gate()

    def hang(run):
        gate.wait()
        return group.mark(run, 9)

    group.actions['hang'] = hang
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.call('do', 'hang', timeout=2), *group.put_marks(1)]
    group.step(worker)
    worker._pool.start()
    gate.reached()
    group.clock.advance(3)
    group.step(worker)
    transaction.begin()
    assert deferreds[1].state == 'failed'
    gate.open()
    group.settle(worker)
    worker._pace.note(0.0, group.clock.monotonic())
    group.go(worker)
    assert states(deferreds) == ['resolved', 'failed', 'resolved']
    assert deferreds[1].failure.type_name == 'Products.zasync.errors.TimedOut'
    assert group.marks_of() == [0, 1]


def test_progress_of_a_call_in_a_group_is_seen(group):
    gate = Gate()

    def tell(run):
        progress(1, 2, 'half')
        gate.wait()

    group.actions['tell'] = tell
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('do', 'tell')]
    group.step(worker)
    worker._pool.start()
    gate.reached()
    group.step(worker)
    transaction.begin()
    assert tuple(deferreds[1].progress) == (1, 2, 'half')
    gate.open()
    group.settle(worker)
    assert_together(*deferreds)


# long calls, and workers that are lost

def test_a_call_of_a_group_takes_long(group, caplog):
    gate = Gate()
    group.actions['odd'] = lambda run: gate.wait() or group.mark(run, 9)
    worker = group.worker(threads=2)
    deferreds = group.put_marks(0, 1)
    hung = group.put('odd', 'odd')
    after = group.put_marks(2)
    group.step(worker)
    worker._pool.start()
    gate.reached()
    group.clock.advance(UNBEGUN_SECONDS)
    group.wait(lambda: group.step(worker) is None or all(
        each.ended for each in [*deferreds, *after]))
    assert group.marks_of() == [0, 1, 2]
    outcome = deferreds[0].attempts[0].outcome
    assert outcome == 'a call beside it takes long'
    gate.open()
    group.settle(worker)
    group.go(worker)
    assert hung.state == 'resolved'
    assert [times_run(group, deferred) for deferred in deferreds] == [2, 2]
    assert 'was dropped' not in caplog.text
    assert states(deferreds) == ['resolved', 'resolved']
    assert group.marks_of() == [0, 1, 2, 9]
    assert [len(deferred.attempts) for deferred in deferreds] == [2, 2]


def test_a_failure_beside_a_call_that_takes_long_counts_for_its_retry_policy(group, caplog):
    gate = Gate()
    group.actions['odd'] = lambda run: gate.wait() or group.mark(run, 9)
    group.actions['fail'] = lambda run: 1 / 0
    worker = group.worker(threads=2)
    failing = group.call('do', 'fail', retry=Retry(2, delay=5.0))
    hung = group.put('odd', 'odd')
    group.step(worker)
    worker._pool.start()
    gate.reached()
    group.clock.advance(UNBEGUN_SECONDS)
    group.step(worker)
    group.step(worker)
    assert failing.state == 'new' and failing.failures == 1
    group.clock.advance(5.0)
    group.wait(lambda: group.step(worker) is None or failing.ended)
    gate.open()
    group.settle(worker)
    group.go(worker)
    assert states([failing, hung]) == ['failed', 'resolved']
    assert [attempt.outcome for attempt in failing.attempts] == [
        'failed: ZeroDivisionError: division by zero', 'failed']
    assert times_run(group, failing) == 2
    assert caplog.text.count(f'call {failing.id} failed and runs again in 5.0 s') == 1


def test_calls_of_a_kind_that_takes_long_run_alone(group):
    def slow(run, number):
        group.clock.advance(0.04)
        return group.mark(run, number)

    group.actions['slow'] = slow
    worker = group.worker()
    deferreds = [group.put('odd', 'slow', number) for number in range(6)]
    group.go(worker)
    first, rest = deferreds[:2], deferreds[2:]
    assert_together(*first)
    assert_apart(*rest)


def test_a_kind_runs_alone_before_it_is_known_to_be_short(group):
    @groupable
    def hook(number):
        return jobs.root()['own'][number].update(mark=True)

    jobs.hook = hook
    worker = group.worker()
    deferreds = [group.put('zope_call', marked_hook, number) for number in range(6)]
    group.go(worker)
    assert_apart(*deferreds[:2])
    assert_together(*deferreds[1:])
    assert group.marks_of() == list(range(6))


def test_calls_of_a_marked_method_share_a_transaction(group):
    app = group.connection.root()['Application']
    app._setObject('visits', jobs.Visits('visits'))
    transaction.commit()
    worker = group.worker()
    deferreds = [group.put('zope_call', app.visits.count) for number in range(4)]
    group.go(worker)
    assert_together(*deferreds[1:])
    assert [deferred.result for deferred in deferreds] == [1, 2, 3, 4]
    assert app.visits.n == 4


@groupable
def marked_hook(*args):
    return jobs.hook(*args)


def test_calls_of_a_function_that_is_not_marked_run_alone(group):
    jobs.hook = lambda number: number
    worker = group.worker()
    deferreds = [group.put('zope_call', jobs.call_hook, number) for number in range(4)]
    group.go(worker)
    assert_apart(*deferreds)


def test_other_threads_leave_groupable_calls_to_the_group_and_take_the_rest(group):
    gate = Gate()
    group.actions['wait'] = lambda run, number: gate.wait() or group.mark(run, number)
    worker = group.worker(threads=2, plugins=[('plain', group._do)])
    deferreds = [group.put('do', 'wait', 0), *group.put_marks(1, 2)]
    plain = group.put('plain', 'mark', 3)
    group.step(worker)
    worker._pool.start()
    gate.reached()
    group.wait(lambda: plain.ended)
    assert {id for id, _attempt in group.runs} == {deferreds[0].id, plain.id}
    gate.open()
    group.settle(worker)
    assert_together(*deferreds)
    assert group.marks_of() == [0, 1, 2, 3]


def test_while_a_group_is_committed_the_next_one_waits(group, monkeypatch):
    """All threads share one core, and one client of a server has one commit at a time."""
    gate, commit = Gate(), groupcommit.commit

    def commit_at_gate():
        gate.wait()
        commit()

    monkeypatch.setattr(groupcommit, 'commit', commit_at_gate)
    worker = group.worker(threads=3, plugins=[('plain', group._do)])
    first, second = group.put_marks(0, 1, 2), group.put_marks(3, 4)
    taken = [call.id for call in first]
    real = worker._pool.take_groupable
    monkeypatch.setattr(worker._pool, 'take_groupable', lambda: (
        real() if len(group.runs) < len(taken) else None))
    group.step(worker)
    worker._pool.start()
    gate.reached()
    plain = group.put('plain', 'mark', 5)
    group.step(worker)
    group.wait(lambda: plain.ended)
    assert {id for id, _attempt in group.runs} == {*taken, plain.id}
    gate.open()
    group.settle(worker)
    group.step(worker)
    group.settle(worker)
    assert_together(*first)
    assert states(second) == ['resolved'] * 2
    assert group.marks_of() == [0, 1, 2, 3, 4, 5]


def test_what_seemed_long_is_tried_again():
    habits = Habits(0.05)
    assert not habits.may_share(('kind',))
    habits.note_alone(('kind',), 0.02)
    asked = next(number for number in range(1_000) if habits.may_share(('kind',)))
    assert 5 < asked < 20
    habits.note(('kind',), 0.02)
    habits.note(('kind',), 0.02)
    habits.note_unfit(('kind',), 'for a reason')
    assert not any(habits.may_share(('kind',)) for _ in range(1_000))


def test_what_was_interrupted_in_a_group_is_not_held_against_a_call(group):
    worker = group.worker()
    deferreds = group.put_marks(0, 1)
    group.step(worker)  # claimed: then the process dies
    for _ in range(policy.MAX_INTERRUPTIONS):
        worker = group.worker()
        transaction.begin()
        assert states(deferreds) == ['new', 'new']
        group.step(worker)
    # One more was one too many, so now they do not even run at the same time.
    worker._pool.start()
    group.settle(worker)
    group.clock.advance(ALONE_SECONDS)
    group.go(worker)
    for deferred in deferreds:
        assert [attempt.outcome for attempt in deferred.attempts] == [
            'interrupted, maybe by a call beside it',
            *['interrupted'] * (policy.MAX_INTERRUPTIONS - 1), 'resolved']
    assert_apart(*deferreds)


# who runs a call

def test_each_call_has_its_own_user_request_and_site(group):
    app = group.connection.root()['Application']
    if 'acl_users' not in app.objectIds():
        app._setObject('acl_users', UserFolder())
    for name in ('bob', 'amy'):
        app.acl_users._doAddUser(name, 'secret', [], [])
    from Products.Five.component.interfaces import IObjectManagerSite
    from zope.component.persistentregistry import PersistentComponents
    from zope.interface import alsoProvides
    for name in ('one', 'two'):
        app._setObject(name, Folder(name))
        app[name].setSiteManager(PersistentComponents())
        alsoProvides(app[name], IObjectManagerSite)
    transaction.commit()
    requests = []

    def who(run, fails):
        request = getRequest()
        assert request is run.app.REQUEST
        requests.append(request)
        found = (getSecurityManager().getUser().getId(), request.other.get('left'),
                 getattr(getSite(), 'id', None), request['AUTHENTICATED_USER'].getId())
        request.set('left', 'behind')
        newSecurityManager(None, None)
        if fails:
            raise ValueError(repr(found))
        return found

    group.actions['who'] = who
    worker = group.worker()
    deferreds, expected = [], []
    from zope.component.hooks import setSite
    for number in range(8):
        user = ('bob', 'amy')[number % 2]
        site = ('one', 'two', None)[number % 3]
        newSecurityManager(None, app.acl_users.getUserById(user).__of__(app.acl_users))
        setSite(None if site is None else app[site])
        deferreds.append(group.put('do', 'who', number == 3))
        expected.append((user, None, site, user))
    setSite(None)
    group.go(worker)
    assert_together(*deferreds)
    found = [deferred.result or eval(deferred.failure.text) for deferred in deferreds]
    assert found == expected
    assert len({id(request) for request in requests}) == 8


# the whole

def mixed_action(group, sent):
    """action(run, what, number) that does one of many things."""
    def act(run, what, number):
        group.mark(run, number, what)
        if what == 'fail':
            raise ValueError(number)
        if what == 'fail once' and run.attempt == 1:
            raise KeyError(number)
        if what == 'mail':
            join(WithSavepoints, sent, number)
        if what == 'mail and fail':
            join(WithSavepoints, sent, number)
            raise ValueError(number)
        if what == 'hook':
            transaction.get().addAfterCommitHook(
                lambda committed: committed and sent.append(number))
        if what == 'commit':
            transaction.commit()
        if what == 'count':
            jar = run.app._p_jar.root()
            jar['marks']['count'] = jar['marks'].get('count', 0) + 1
        if what == 'bad result':
            return lambda: None
        return what, number

    return act


WHAT = ('mark', 'mark', 'mark', 'count', 'count', 'fail', 'fail once', 'mail', 'mail and fail',
        'hook', 'commit', 'bad result')


@pytest.mark.parametrize('seed', range(12))
def test_a_mix_of_calls_ends_as_it_does_one_by_one(seed):
    from AccessControl.users import system
    dice = random.Random(seed)
    # Odd kinds in few of the mixes, or no group would be left.
    whats = [what for what in WHAT if what not in ('hook', 'commit') or dice.random() < 0.3]
    calls = [(dice.choice(whats), number, dice.random() < 0.3) for number in range(20)]
    outcomes = []
    newSecurityManager(None, system)
    for batch_seconds, reserves in ((0.0, False), (0.05, False), (0.05, True)):
        group = Group(reserves)
        try:
            sent = Sent()
            group.actions['act'] = mixed_action(group, sent)
            worker = group.worker(batch_seconds=batch_seconds)
            deferreds = [group.call('do', 'act', what, number,
                                    **({'retry': Retry(2, delay=0)} if tries else {}))
                         for what, number, tries in calls]
            group.go(worker, rounds=5)
            outcomes.append((
                states(deferreds), [deferred.result for deferred in deferreds],
                [deferred.failure and (deferred.failure.type_name, deferred.failure.text)
                 for deferred in deferreds],
                [[attempt.outcome for attempt in deferred.attempts] for deferred in deferreds],
                {number: dict(own) for number, own in group.own.items()},
                dict(group.marks), sorted(sent), group.counts()))
            assert all(deferred.ended for deferred in deferreds)
        finally:
            group.close()
            noSecurityManager()
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_calls_log_as_if_they_had_run_alone(group, caplog):
    caplog.set_level(logging.INFO, 'zasync')
    group.actions['fail'] = lambda run: 1 / 0
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('do', 'fail')]
    group.go(worker)
    told = [record.getMessage() for record in caplog.records]
    assert f'call {deferreds[0].id} resolved in 0.00 s' in told
    assert f'call {deferreds[1].id} failed: ZeroDivisionError: division by zero' in told
