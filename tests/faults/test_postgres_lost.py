"""The server under RelStorage goes away, under a worker that does nothing and one that runs calls.

RelStorage lets through what the driver raises, and asks its server at the end of a transaction
too.
"""

import sys
import threading

import psycopg2
import pytest
import transaction
from persistent.mapping import PersistentMapping
from relstorage.adapters.postgresql import PostgreSQLAdapter

from bench.processes import wait_until
from bench.stack import our_environment
from bench.stack import Stack
from tests.client import jobs
from tests.client.fate import Gate
from tests.client.grouping import Group
from tests.client.test_postgres import CONF
from tests.client.test_postgres import open_db
from tests.client.test_postgres import open_storage
from tests.client.test_postgres import put
from tests.client.workbench import Bench
from tests.postgres import postgres_or_skip


pytestmark = pytest.mark.faults

#: What a worker says once when it meets the absence of the server, and once when that is over.
LOST = 'WARNING [zasync][MainThread] the database server is out of reach ('
BACK = 'WARNING [zasync][MainThread] the database server is back after'


@pytest.fixture
def server():
    """A Postgres that the test may stop."""
    with postgres_or_skip() as server:
        yield server


@pytest.fixture
def bench(server):
    """A Bench on the server."""
    bench = Bench(db=open_db(server))
    yield bench
    bench.close()


class Place:
    """The process of a worker on the server of a test."""

    def __init__(self, stack, server):
        self._server = server
        self._stack = stack
        (stack.instance / 'etc').mkdir()
        self._config = stack.instance / 'etc' / 'zasync.conf'
        self._config.write_text(CONF.format(instance=stack.instance, dsn=server.dsn)
                                + 'initial-retry-delay 0.2\n', 'utf-8')

    def start(self, words):
        """Start the worker, and wait until it says that."""
        self.worker = self._stack.start(
            'worker', [sys.executable, '-m', 'zasync_client', '-C', self._config],
            env=our_environment(), is_ready=lambda process: words in process.output())

    def says(self, words, times=1):
        """Whether the worker has said that so often, now or soon."""
        return wait_until(lambda: self.worker.output().count(words) == times, 60)

    def runs_calls(self):
        """Whether a call that is put now is run."""
        db = open_db(self._server)
        connection = db.open()
        deferred = put(connection, jobs.add, 20, 22)

        def has_ended():
            transaction.begin()
            return deferred.ended

        try:
            return wait_until(has_ended, 60) and deferred.result == 42
        finally:
            transaction.abort()
            connection.close()
            db.close()

    def stop(self):
        """As TERM does; → what the worker has said, nothing of which may be its undoing."""
        self.worker.stop()
        said = self.worker.output()
        assert self.worker.wait(1) == 0, said
        assert 'CRITICAL [zasync]' not in said and 'Exception in thread' not in said, said
        return said


@pytest.fixture
def place(server, tmp_path):
    bench = Bench(db=open_db(server))
    bench.close()
    with Stack(tmp_path) as stack:
        yield Place(stack, server)


def test_postgresql_is_away_when_a_worker_starts(server, place):
    server.stop()
    place.start(LOST)
    assert 'Traceback' not in place.worker.output()
    server.start()
    assert place.says(' serves ')
    assert place.says(BACK)
    assert place.runs_calls()
    place.stop()


def test_postgresql_goes_away_and_comes_back(server, place):
    place.start(' serves ')
    for times in (1, 2):
        server.stop()
        assert place.says(LOST, times)
        server.start()
        assert place.says(BACK, times)
        assert place.runs_calls()
    place.stop()


#: What a standby says, as it is after a failover until it is promoted: RelStorage can only read.
STANDBY = 'cannot set transaction read-write mode during recovery'


def test_a_worker_starts_while_postgresql_is_a_standby(server, place):
    server.stop()
    server.start_as_standby()
    place.start(STANDBY)
    assert 'Traceback' not in place.worker.output()
    server.promote()
    assert place.says(BACK)
    assert place.runs_calls()
    place.stop()


def test_postgresql_is_a_standby_for_a_while(server, place):
    place.start(' serves ')
    server.stop()
    server.start_as_standby()
    assert wait_until(lambda: f'takes no beat: {STANDBY}' in place.worker.output(), 60)
    server.promote()
    assert place.runs_calls()
    place.stop()


def test_a_worker_is_told_to_stop_while_postgresql_is_away(server, place):
    place.start(' serves ')
    server.stop()
    assert place.says(LOST)
    place.stop()


def effect(run):
    """What a call of these tests does in the database."""
    marks = run.app._p_jar.root()['marks']
    marks['effect'] = marks.get('effect', 0) + 1


def begun(bench, plugin, gate):
    """(a worker, the deferred of a call that it runs and that is at the gate now)."""
    worker = bench.worker(plugins=[('at_gate', plugin)])
    deferred = bench.put('at_gate')
    bench.step(worker)
    gate.reached()
    return worker, deferred


def test_postgresql_goes_away_while_calls_run(server, bench, caplog):
    caplog.set_level('WARNING', 'zasync')
    gate = Gate()

    def effect_at_gate(run):
        effect(run)
        gate.wait()

    worker, deferred = begun(bench, effect_at_gate, gate)
    id = deferred.id
    server.stop()
    gate.open()
    lost = f'call {id}: the database server went away'
    assert wait_until(lambda: lost in caplog.text, 30)
    server.start()
    bench.settle(worker)
    assert (deferred.state, deferred.attempt) == ('resolved', 1)
    assert bench.marks['effect'] == 1


def test_postgresql_is_a_standby_while_a_call_makes_objects(server, bench, caplog):
    """More than there are ids ready for, which RelStorage gets by a transaction of its own."""
    caplog.set_level('WARNING', 'zasync')
    gate = Gate()

    def make_objects(run):
        effect(run)
        gate.wait()
        for _ in range(100):
            run.app._p_jar.add(PersistentMapping())

    worker, deferred = begun(bench, make_objects, gate)
    id = deferred.id
    transaction.abort()
    server.stop()
    server.start_as_standby()
    gate.open()
    back = f'call {id} goes back to the queue'
    assert wait_until(lambda: back in caplog.text, 30), caplog.text
    server.promote()
    bench.settle(worker)
    bench.clock.advance(60)
    bench.step(worker)
    bench.clock.advance(60)
    bench.step(worker)
    bench.settle(worker)
    bench.wait(lambda: deferred.state == 'resolved')
    assert bench.marks['effect'] == 1


@pytest.mark.parametrize('arrives', [False, True])
def test_postgresql_goes_away_while_a_call_is_committed(server, bench, arrives, caplog,
                                                        monkeypatch):
    """In tpc_finish, so all have voted: who sent it can't know whether it has arrived."""
    caplog.set_level('WARNING', 'zasync')
    worker = bench.worker(plugins=[('effect', effect)], start=False)
    deferred = bench.put('effect')
    bench.step(worker)
    commit, id, went = PostgreSQLAdapter.lock_database_and_move, deferred.id, threading.Event()
    transaction.abort()

    def commit_without_answer(*args, **kwargs):
        monkeypatch.undo()
        if arrives:
            commit(*args, **kwargs)
        server.stop()
        went.set()
        raise psycopg2.OperationalError('server closed the connection unexpectedly')

    monkeypatch.setattr(PostgreSQLAdapter, 'lock_database_and_move', commit_without_answer)
    worker._pool.start()
    assert went.wait(30)
    assert wait_until(lambda: f'call {id}: the database server went away' in caplog.text, 30)
    server.start()
    bench.settle(worker)
    bench.wait(lambda: deferred.state == 'resolved')
    assert deferred.attempt == 1
    assert bench.marks['effect'] == 1


@pytest.mark.parametrize('reserves', [False, True])
def test_postgresql_goes_away_while_calls_share_a_transaction(server, reserves, caplog):
    """That is no fault of theirs: such calls may share one again."""
    caplog.set_level('INFO', 'zasync')
    group, running = Group(reserves, open_storage(server)), [server]

    def mark_and_stop(run, number):
        group.mark(run, number)
        if running:
            running.pop().stop()

    group.actions['stop'] = mark_and_stop
    try:
        worker = group.worker()
        calls = [*group.put_marks(0), group.put('do', 'stop', 1), *group.put_marks(2)]
        transaction.abort()
        group.step(worker)
        worker._pool.start()
        assert wait_until(lambda: 'was not committed, they run one by one' in caplog.text, 30)
        server.start()
        group.settle(worker)
        group.go(worker)
        assert [call.state for call in calls] == ['resolved'] * 3
        assert group.marks_of() == [0, 1, 2]
        assert 'not fit' not in caplog.text
    finally:
        group.close()


def test_a_call_that_can_not_reach_a_postgresql_of_its_own_fails(bench, server):
    """It is the call's, and no reason to wait for the server of the database."""
    worker = bench.worker(plugins=[('asks', lambda run: psycopg2.connect(
        server.dsn.replace(str(server.port), '1')))])
    deferred = bench.put('asks')
    bench.step(worker)
    bench.settle(worker)
    assert (deferred.state, deferred.failure.type_name) == ('failed', 'psycopg2.OperationalError')
