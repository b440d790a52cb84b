"""Calls that harm their commit, their connection or their thread, and those beside them."""

import errno
import functools
import threading
from dataclasses import replace

import pytest
import transaction
from ZODB import POSException
from ZODB.FileStorage import FileStorage

from tests.client import jobs
from tests.client.workbench import Bench


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.close()


def test_a_dangling_reference_in_the_site_fails_the_call_and_is_not_tried_for_ever(bench):
    from ZODB.POSException import POSKeyError

    def dangling(run):
        raise POSKeyError(b'\0' * 7 + b'\7')

    worker = bench.worker(plugins=[('dangling', dangling)])
    deferred = bench.put('dangling')
    bench.step(worker)
    bench.settle(worker)
    assert deferred.state == 'failed'
    assert deferred.failure.type_name.endswith('POSKeyError')


def test_no_memory_for_a_call_is_its_failure_and_its_thread_goes_on(bench):
    def greedy(run):
        raise MemoryError('too much')

    worker = bench.worker(threads=1, plugins=[('greedy', greedy)])
    first = bench.put('greedy')
    bench.step(worker)
    bench.settle(worker)
    second = bench.put('zope_call', jobs.add, 2, 2)
    bench.step(worker)
    bench.settle(worker)
    assert (first.failure.type_name, second.result) == ('MemoryError', 4)


def test_an_effect_that_can_not_be_stored_fails_the_call(bench):
    def unstorable(run):
        run.app._p_jar.root()['marks']['bad'] = lambda: None

    worker = bench.worker(plugins=[('unstorable', unstorable)])
    deferred = bench.put('unstorable')
    bench.step(worker)
    bench.settle(worker)
    assert deferred.state == 'failed'
    assert 'bad' not in bench.marks


def test_a_call_that_hides_a_failed_commit_is_run_again(bench):
    runs = []

    def hides(run):
        runs.append(run.attempt)
        if len(runs) == 1:
            transaction.get().join(_Broken(RuntimeError('no')))
            try:
                run.checkpoint()
            except RuntimeError:
                pass
        return len(runs)

    worker = bench.worker(plugins=[('hides', hides)])
    deferred = bench.put('hides')
    bench.step(worker)
    bench.settle(worker)
    assert deferred.result == 2


class _Ends:
    """A data manager that wants to end the process, in these steps of a commit."""

    transaction_manager = transaction.manager

    def __init__(self, steps, first):
        self._steps = steps
        self._first = first

    def __getattr__(self, name):
        if name not in ('tpc_begin', 'commit', 'tpc_vote', 'tpc_finish', 'tpc_abort', 'abort'):
            raise AttributeError(name)
        return functools.partial(self._do, name)

    def _do(self, name, current):
        if name in self._steps:
            raise SystemExit(name)

    def sortKey(self):
        return '!' if self._first else '~'


@pytest.mark.parametrize('first', [True, False])
@pytest.mark.parametrize('steps', [
    ('tpc_vote', 'tpc_abort'), ('tpc_vote', 'abort'), ('tpc_begin', 'tpc_abort'),
    ('commit', 'abort', 'tpc_abort'), ('tpc_finish', 'tpc_abort')])
def test_a_data_manager_that_ends_the_undoing_of_a_commit_does_not_hold_up_all_others(
        bench, steps, first):
    def leaves(run):
        transaction.get().join(_Ends(steps, first))
        run.app._p_jar.root()['marks']['left'] = True

    worker = bench.worker(plugins=[('leaves', leaves)])
    call = bench.put('leaves')
    bench.step(worker)
    bench.settle(worker)
    other = bench.put('zope_call', jobs.add, 2, 2)
    bench.step(worker)
    bench.settle(worker)
    assert other.state == 'resolved'
    if steps[0] == 'tpc_finish' and not first:  # the storage has kept it all
        assert (call.state, dict(bench.marks)) == ('resolved', {'left': True})
    else:
        assert (call.failure.type_name, dict(bench.marks)) == ('SystemExit', {})


class _Broken:
    """A data manager whose vote fails, and whose abort may."""

    transaction_manager = transaction.manager

    def __init__(self, error, abort=None):
        self._error = error
        self._abort = abort

    def tpc_begin(self, current):
        pass

    commit = tpc_finish = tpc_abort = tpc_begin

    def abort(self, current):
        if self._abort is not None:
            raise self._abort

    def tpc_vote(self, current):
        raise self._error

    def sortKey(self):
        return 'broken'


@pytest.mark.parametrize('error', [
    OSError(errno.ENOSPC, 'no space left'), POSException.StorageSystemError('broken')])
def test_trouble_of_the_storage_at_a_commit_is_waited_out(bench, error):
    """The call did nothing wrong: it runs again, and ends when the disk has room."""
    trouble = [error] * 4

    def unlucky(run):
        if trouble:
            transaction.get().join(_Broken(trouble.pop()))
        return 'done'

    worker = bench.worker(plugins=[('unlucky', unlucky)])
    deferred = bench.put('unlucky')
    for _ in range(3):
        bench.step(worker)
        bench.settle(worker)
        bench.clock.advance(120)
    assert deferred.result == 'done'
    assert type(error).__name__ in deferred.attempts[0].outcome or (
        'CommitFailed' in deferred.attempts[0].outcome)


@pytest.mark.parametrize('error', [
    OSError('recipients refused'), POSException.InvalidObjectReference('foreign'),
    RuntimeError('no')])
def test_what_a_commit_will_never_take_fails_the_call_with_its_reason(bench, error):
    def hopeless(run):
        transaction.get().join(_Broken(error))

    worker = bench.worker(plugins=[('hopeless', hopeless)])
    deferred = bench.put('hopeless')
    bench.step(worker)
    bench.settle(worker)
    assert deferred.state == 'failed'
    assert str(error) in deferred.failure.text
    assert deferred.attempt == 1


def test_a_call_that_hides_a_failed_commit_each_time_fails_in_the_end(bench):
    runs = []

    def hides(run):
        runs.append(run.attempt)
        transaction.get().join(_Broken(RuntimeError('no')))
        try:
            run.checkpoint()
        except RuntimeError:
            pass

    worker = bench.worker(plugins=[('hides', hides)])
    deferred = bench.put('hides')
    bench.step(worker)
    bench.settle(worker)
    assert deferred.state == 'failed'
    assert deferred.failure.type_name.endswith('TransactionFailedError')
    assert len(runs) == 3


def run_with_others(bench, worker, plugin, result):
    """Two calls of that plugin, which have that result, and two harmless ones after them."""
    deferreds = [bench.put(plugin) for _ in range(2)]
    deferreds += [bench.put('zope_exec', '/', {}, f'python: {result!r}') for _ in range(2)]
    for _ in range(6):
        bench.step(worker)
        bench.settle(worker)
    transaction.begin()
    assert [(each.state, each.result) for each in deferreds] == [('resolved', result)] * 4


@pytest.mark.parametrize('groupable', [False, True])
@pytest.mark.parametrize('before', [lambda: None, transaction.abort, transaction.commit])
def test_a_call_that_closes_the_connection_of_its_thread_does_it_to_no_other(
        bench, before, groupable):
    """As a function does that was written for a script, with the application it got."""
    def closes(run):
        before()
        run.app._p_jar.close()
        return 'closed'

    worker = bench.worker(plugins=[('closes', closes)], changes={'batch_seconds': 1.0})
    plugin = worker._config.plugins['closes']
    worker._config.plugins['closes'] = replace(plugin, groupable=groupable)
    worker._habits.note_alone(('closes',), 0.0)
    run_with_others(bench, worker, 'closes', 'closed')


@pytest.mark.parametrize('after', [transaction.abort, transaction.begin, transaction.commit])
def test_a_call_that_has_closed_the_connection_of_its_thread_may_abort_and_not_commit(
        bench, after):
    def closes(run):
        run.app._p_jar.close()
        after()
        return 'closed'

    worker = bench.worker(plugins=[('closes', closes)])
    deferred = bench.put('closes')
    for _ in range(3):
        bench.step(worker)
        bench.settle(worker)
    transaction.begin()
    if after is transaction.commit:
        assert deferred.failure.type_name == 'Products.zasync.errors.CommitRefused'
        assert 'has closed the connection' in deferred.failure.text
    else:
        assert deferred.result == 'closed'


def test_a_call_that_ends_the_synchronisation_of_its_thread_does_it_to_no_other(bench):
    """As the code of tests does, to be alone with its transactions."""
    def clears(run):
        transaction.manager.clearSynchs()
        return 'cleared'

    worker = bench.worker(plugins=[('clears', clears)], changes={'threads': 1})
    run_with_others(bench, worker, 'clears', 'cleared')


def test_after_such_a_call_no_commit_of_another_succeeds_but_its_owners(bench):
    there, goes_on = threading.Event(), threading.Event()

    def commits_late(run):
        there.set()
        assert goes_on.wait(30)
        run.app._p_jar.root()['marks']['late'] = True
        transaction.commit()

    worker = bench.worker(plugins=[
        ('clears', lambda run: transaction.manager.clearSynchs()), ('late', commits_late)],
        changes={'threads': 1})
    cleared = bench.put('clears')
    bench.step(worker)
    bench.settle(worker)
    deferred = bench.put('late')
    bench.step(worker)
    assert there.wait(30)
    transaction.begin()
    assert cleared.ended
    deferred.cancel()
    transaction.commit()
    goes_on.set()
    bench.settle(worker)
    transaction.begin()
    assert 'late' not in bench.marks


class _Left:
    """A synchronizer that raises at one of its moments."""

    kept = None

    def __init__(self, moment):
        self._moment = moment
        _Left.kept = self  # else nobody would

    def _tell(self, moment):
        if moment == self._moment:
            raise RuntimeError(f'at {moment}')

    def newTransaction(self, current):
        self._tell('begin')

    def beforeCompletion(self, current):
        self._tell('commit')

    def afterCompletion(self, current):
        self._tell('end')


@pytest.mark.parametrize('moment, state', [('begin', 'failed'), ('commit', 'failed'),
                                           ('end', 'resolved')])
def test_a_synchronizer_that_a_call_leaves_and_that_raises_harms_no_later_call(
        bench, moment, state, monkeypatch):
    def leaves(run):
        transaction.manager.registerSynch(_Left(moment))

    monkeypatch.setattr(_Left, 'kept', None)
    worker = bench.worker(plugins=[('leaves', leaves)])
    calls = [bench.put('leaves'), *(bench.put('zope_call', jobs.add, 2, 2) for _ in range(3))]
    for _ in range(3):
        bench.step(worker)
        bench.settle(worker)
        bench.clock.advance(5)
    _Left.kept._moment = None
    assert [call.state for call in calls] == [state, *['resolved'] * 3]
    assert [call.attempt for call in calls] == [1] * 4


@pytest.fixture
def on_file(tmp_path):
    """A Bench on a FileStorage."""
    made = Bench(FileStorage(str(tmp_path / 'Data.fs')))
    yield made
    made.close()


@pytest.mark.parametrize('where', ['at the end', 'at a checkpoint', 'in a callback', 'in a group'])
def test_what_a_call_notes_with_its_transaction_is_cut_to_what_a_storage_takes(
        on_file, where, monkeypatch):
    def notes(*args):
        jobs.set_mark('noted', True)
        for number in range(5_000):
            transaction.get().note(f'/site/documents/a-dôcument-of-many-{number}')

    def does(run):
        if where != 'in a callback':
            notes()
        if where == 'at a checkpoint':
            run.checkpoint()

    monkeypatch.setattr(jobs, 'hook', notes)
    worker = on_file.worker(plugins=[('does', does)], changes={'batch_seconds': 1.0})
    plugins = worker._config.plugins
    plugins['does'] = replace(plugins['does'], groupable=where == 'in a group')
    worker._habits.note_alone(('does',), 0.0)
    calls = [on_file.put('does'), on_file.put('does')]
    if where == 'in a callback':
        calls[0].addCallbacks(jobs.call_hook)
        transaction.commit()
    for _ in range(4):
        on_file.step(worker)
        on_file.settle(worker)
    assert [(call.state, call.attempt) for call in calls] == [('resolved', 1)] * 2
    on_file.step(worker)
    assert on_file.marks['noted']
    told = max(len(each.description) for each in on_file.db.storage.iterator())
    assert (where == 'in a group') or 50_000 < told < 65_535


@pytest.mark.parametrize('value', ['x' * 70_000, lambda: None], ids=['long', 'unpicklable'])
def test_a_call_fails_whose_extended_information_no_storage_takes(on_file, value):
    def does(run):
        jobs.set_mark('noted', True)
        transaction.get().setExtendedInfo('of', value)

    worker = on_file.worker(plugins=[('does', does)])
    call = on_file.put('does')
    for _ in range(2):
        on_file.step(worker)
        on_file.settle(worker)
    assert (call.state, call.attempt, dict(on_file.marks)) == ('failed', 1, {})


def test_a_conflict_of_storing_a_failure_does_not_run_the_call_again(bench, monkeypatch):
    runs = []

    def fails(run):
        runs.append(run.attempt)
        raise RuntimeError('once is enough')

    from zasync_client import execution
    real, left = execution.commit, [1, 1]

    def commit():
        if left:
            left.pop()
            raise transaction.interfaces.TransientError('conflict')
        real()

    monkeypatch.setattr(execution, 'commit', commit)
    worker = bench.worker(plugins=[('fails', fails)])
    deferred = bench.put('fails')
    bench.step(worker)
    bench.settle(worker)
    assert deferred.failure.text == 'once is enough'
    assert runs == [1]


@pytest.mark.parametrize('way', [transaction.abort, transaction.begin])
def test_a_checkpoint_whose_hook_ends_the_transaction_is_none(bench, way):
    def half(run):
        run.checkpoint(done=0)
        marks = run.app._p_jar.root()['marks']
        marks['first'] = True
        transaction.get().addBeforeCommitHook(way)
        run.checkpoint(done=1)
        marks['second'] = True

    worker = bench.worker(plugins=[('half', half)])
    deferred = bench.put('half')
    bench.step(worker)
    bench.settle(worker)
    assert deferred.failure.type_name == 'Products.zasync.errors.CommitRefused'
    assert 'before its commit that ended the transaction' in deferred.failure.text
    assert (dict(bench.marks), deferred.memo) == ({}, {'done': 0})


@pytest.mark.parametrize('abort', [RuntimeError('no abort'), SystemExit('no abort')])
def test_a_data_manager_that_can_not_abort_does_not_hide_why_a_call_failed(bench, abort):
    def fails(run):
        transaction.get().join(_Broken(RuntimeError('unused'), abort=abort))
        raise ValueError('the reason')

    worker = bench.worker(plugins=[('fails', fails)])
    deferred = bench.put('fails')
    bench.step(worker)
    bench.settle(worker)
    assert deferred.failure is not None
    assert deferred.failure.text == 'the reason'
