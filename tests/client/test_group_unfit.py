"""Group commit: what a call does that can not be undone for it alone, and what goes with it."""

import threading
from contextlib import suppress

import pytest
import transaction
from ZODB.blob import Blob

from Products.zasync.running import checkpoint
from tests.client.grouping import assert_apart
from tests.client.grouping import assert_together
from tests.client.grouping import states
from tests.client.grouping import times_run


class DataManager:
    """Of an application; it notes what it sent."""

    transaction_manager = transaction.manager

    def __init__(self, sent, what, refuses=False):
        self.sent, self.what, self.refuses = sent, what, refuses

    def tpc_begin(self, current):
        pass

    def commit(self, current):
        pass

    def tpc_vote(self, current):
        if self.refuses:
            raise ValueError('it does not vote for this')

    def tpc_finish(self, current):
        self.sent.append(self.what)

    def tpc_abort(self, current):
        pass

    def abort(self, current):
        pass

    def sortKey(self):
        return '~'


class NoOp:
    """The savepoint of zope.sendmail's data manager."""

    def rollback(self):
        pass


class WithSavepoints(DataManager):

    def savepoint(self):
        return NoOp()


class BadSavepoints(DataManager):
    """It can make savepoints and not go back to them."""

    def savepoint(self):
        class Savepoint:
            def rollback(self):
                raise RuntimeError('no way back')

        return Savepoint()


def join(kind, sent, what, **more):
    transaction.get().join(kind(sent, what, **more))


class Sent(list):
    """What was done outside the database."""


def commits_itself(run, sent):
    transaction.commit()


def commits_and_hides_it(run, sent):
    try:
        transaction.commit()
    except Exception:
        transaction.abort()


def aborts(run, sent):
    transaction.abort()


def begins(run, sent):
    transaction.begin()


def dooms(run, sent):
    transaction.get().doom()


def makes_a_checkpoint(run, sent):
    checkpoint(done=1)


def makes_a_checkpoint_and_hides_it(run, sent):
    with suppress(Exception):
        checkpoint(done=1)


def calls_before_commit(run, sent):
    transaction.get().addBeforeCommitHook(sent.append, (run.id,))


def calls_after_commit(run, sent):
    transaction.get().addAfterCommitHook(lambda committed: committed and sent.append(run.id))


def calls_before_abort(run, sent):
    transaction.get().addBeforeAbortHook(lambda: None)


def calls_after_abort(run, sent):
    transaction.get().addAfterAbortHook(lambda: None)


def joins_without_savepoints(run, sent):
    join(DataManager, sent, run.id)


def stores_what_has_no_pickle(run, sent):
    run.app._p_jar.root()['own'][19]['odd'] = lambda: None


def keeps_for_its_transaction(run, sent):
    """As code does that has something made once a transaction: what its user may, for example."""
    try:
        transaction.get().data(ALONE)
    except KeyError:
        transaction.get().set_data(ALONE, run.id)


def savepoint_fails(run, sent):
    run.app._p_jar.root()['own'][19]['odd'] = lambda: None
    with suppress(Exception):
        transaction.savepoint()


def changes_through_another_connection(run, sent):
    run.app._p_jar.db().open().root()['own'][19]['odd'] = 1


def commits_through_another_connection(run, sent):
    changes_through_another_connection(run, sent)
    transaction.commit()


ALONE = {
    commits_itself: 'resolved', commits_and_hides_it: 'resolved', aborts: 'resolved',
    begins: 'resolved', dooms: 'failed', makes_a_checkpoint: 'resolved',
    makes_a_checkpoint_and_hides_it: 'resolved', calls_before_commit: 'resolved',
    calls_after_commit: 'resolved', calls_before_abort: 'resolved',
    keeps_for_its_transaction: 'resolved',
    calls_after_abort: 'resolved', joins_without_savepoints: 'resolved',
    stores_what_has_no_pickle: 'failed', savepoint_fails: 'failed',
    changes_through_another_connection: 'failed', commits_through_another_connection: 'failed'}
SENDS = (calls_before_commit, calls_after_commit, joins_without_savepoints)


@pytest.mark.parametrize('at', [0, 1, 2])
@pytest.mark.parametrize('action', ALONE, ids=lambda action: action.__name__)
def test_a_call_of_a_group_does_what_can_not_be_undone_for_it_alone(group, action, at, caplog):
    sent = Sent()

    def odd(run, number):
        group.mark(run, number)
        action(run, sent)
        return number

    group.actions['odd'] = odd
    worker = group.worker()
    # One that fails after it: nothing of the odd one may be lost, or come twice, for that.
    group.actions['fail'] = lambda run, number: group.mark(run, number) and 1 / 0
    deferreds = [group.put('odd' if number == at else 'do', 'odd' if number == at else 'mark',
                           number) for number in range(3)]
    deferreds.append(group.put('do', 'fail', 3))
    deferreds += group.put_marks(4)
    group.go(worker)
    assert_apart(*deferreds[:at + 1])
    expected = ['resolved', 'resolved', 'resolved', 'failed', 'resolved']
    expected[at] = ALONE[action]
    assert states(deferreds) == expected
    marks = [0, 1, 2, 4]
    if action in (aborts, begins) or ALONE[action] == 'failed':
        marks.remove(at)
    if action is commits_and_hides_it:
        assert group.marks_of() == marks
    assert group.marks_of() == marks
    assert sent == ([deferreds[at].id] if action in SENDS else [])
    assert deferreds[at].attempts[0].number == 1 and len(deferreds[at].attempts) == 1
    told = [record.getMessage() for record in caplog.records
            if record.getMessage().startswith('calls of odd run one by one from now on')]
    assert len(told) == 1
    # It is known now, and keeps nobody from anything.
    again = [*group.put_marks(5), *group.put_marks(6), group.put('odd', 'odd', 7),
             *group.put_marks(8), *group.put_marks(9)]
    worker._pace.note(0.0, group.clock.monotonic())
    group.go(worker)
    tries = 3 if action is savepoint_fails else 1  # as many as for a conflict
    assert [times_run(group, deferred) for deferred in again] == [1, 1, tries, 1, 1]


def test_a_call_that_fails_after_a_hook_has_not_called_it(group):
    sent = Sent()
    group.actions['odd'] = lambda run: calls_after_commit(run, sent) or 1 / 0
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('odd', 'odd'), *group.put_marks(1)]
    group.go(worker)
    assert states(deferreds) == ['resolved', 'failed', 'resolved']
    assert sent == []


@pytest.mark.parametrize('kind', [DataManager, WithSavepoints, BadSavepoints],
                         ids=lambda kind: kind.__name__)
def test_what_a_failed_call_has_joined_is_dropped_with_it(group, kind):
    sent = Sent()
    group.actions['odd'] = lambda run: join(kind, sent, 'odd') or 1 / 0
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('odd', 'odd'), *group.put_marks(1)]
    group.go(worker)
    assert_together(*deferreds)
    assert states(deferreds) == ['resolved', 'failed', 'resolved']
    assert sent == []


def test_mails_of_calls_are_sent_once_and_those_of_failed_ones_are_not(group):
    sent = Sent()

    def mail(run, number, fails):
        group.mark(run, number)
        join(WithSavepoints, sent, number)
        if fails:
            raise ValueError('not so')

    group.actions['mail'] = mail
    worker = group.worker()
    deferreds = [group.put('do', 'mail', number, number in (1, 3)) for number in range(5)]
    group.go(worker)
    assert_together(*deferreds)
    assert sorted(sent) == group.marks_of() == [0, 2, 4]


def test_what_can_not_be_rolled_back_makes_all_run_alone(group):
    sent = Sent()
    group.actions['odd'] = lambda run: join(BadSavepoints, sent, 'odd')
    group.actions['fail'] = lambda run: 1 / 0
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('odd', 'odd'), group.put('do', 'fail'),
                 *group.put_marks(1)]
    group.go(worker)
    assert_apart(*deferreds)
    assert states(deferreds) == ['resolved', 'resolved', 'failed', 'resolved']
    assert sent == ['odd']


@pytest.mark.parametrize('fails', [True, False])
def test_a_blob_is_as_the_call_before_left_it_whatever_one_that_rolls_back_has_written(
        group, fails):
    """A connection has one file for it, whatever the number of savepoints."""
    group.own[0]['blob'] = Blob(b'at first')
    transaction.commit()

    def write(run, text, goes_back):
        before = transaction.savepoint(optimistic=True)
        with run.app._p_jar.root()['own'][0]['blob'].open('w') as file:
            file.write(text)
        if goes_back:
            transaction.savepoint(optimistic=True)
            if fails:
                raise ValueError('no')
            before.rollback()

    group.actions['write'] = write
    worker = group.worker()
    deferreds = [group.put('do', 'write', b'good', False), group.put('odd', 'write', b'bad', True),
                 *group.put_marks(1)]
    group.go(worker)
    assert_apart(*deferreds[:2])
    assert states(deferreds) == ['resolved', 'failed' if fails else 'resolved', 'resolved']
    assert [len(deferred.attempts) for deferred in deferreds] == [1, 1, 1]
    with group.own[0]['blob'].open() as file:
        assert file.read() == b'good'


def test_a_commit_that_a_data_manager_refuses_is_the_failure_of_its_call_alone(group):
    sent = Sent()
    group.actions['odd'] = lambda run: join(WithSavepoints, sent, 'odd', refuses=True)
    worker = group.worker()
    deferreds = [*group.put_marks(0), group.put('odd', 'odd'), *group.put_marks(1)]
    group.go(worker)
    assert_apart(*deferreds)
    assert states(deferreds) == ['resolved', 'failed', 'resolved']
    assert deferreds[1].failure.text == 'it does not vote for this'
    assert sent == []


class Queue(threading.local):
    """A queue of a thread, as index queues are; its data manager works it off at the commit."""

    def __init__(self):
        self.waiting = []
        self.manager = None


class QueueManager(WithSavepoints):
    """One a transaction; its savepoints are real."""

    def __init__(self, queue, sent):
        super().__init__(sent, None)
        self.queue = queue

    def savepoint(self):
        kept, queue = list(self.queue.waiting), self.queue

        class Savepoint:
            def rollback(self):
                queue.waiting[:] = kept

        return Savepoint()

    def tpc_finish(self, current):
        self.sent.extend(self.queue.waiting)
        self.abort(current)

    def abort(self, current):
        self.queue.waiting.clear()
        self.queue.manager = None


def test_a_queue_of_the_thread_keeps_what_good_calls_put_there(group):
    sent, queue = Sent(), Queue()

    def index(run, number, fails):
        if queue.manager is None:
            queue.manager = QueueManager(queue, sent)
            transaction.get().join(queue.manager)
        queue.waiting.append(number)
        if fails:
            raise ValueError('not so')

    group.actions['index'] = index
    worker = group.worker()
    deferreds = [group.put('do', 'index', number, number in (0, 2)) for number in range(5)]
    group.go(worker)
    assert_together(*deferreds)
    assert states(deferreds) == ['failed', 'resolved', 'failed', 'resolved', 'resolved']
    assert sorted(sent) == [1, 3, 4]


def test_a_queue_of_the_thread_that_a_hook_works_off_makes_all_run_alone(group):
    sent, queue = Sent(), Queue()

    def work_off():
        sent.extend(queue.waiting)
        queue.waiting.clear()

    def index(run, number):
        if not queue.waiting:
            transaction.get().addBeforeCommitHook(work_off)
            transaction.get().addAfterAbortHook(queue.waiting.clear)
        queue.waiting.append(number)

    group.actions['index'] = index
    worker = group.worker()
    deferreds = [group.put('do', 'index', number) for number in range(5)]
    group.go(worker)
    assert_apart(*deferreds)
    assert sorted(sent) == list(range(5))
