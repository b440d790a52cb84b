"""A worker on RelStorage with PostgreSQL, which tells nobody of commits by itself."""

import sys
import time

import psycopg2
import pytest
import transaction
import ZODB
from OFS.Application import Application
from persistent.mapping import PersistentMapping
from relstorage.adapters.postgresql import PostgreSQLAdapter
from relstorage.options import Options
from relstorage.storage import RelStorage

from bench.processes import wait_until
from bench.stack import our_environment
from bench.stack import Stack
from Products.zasync import clock
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.wakeup import Wakeup
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.client import jobs
from tests.postgres import postgres_or_skip


#: A call that waits for a poll waits 5 s on the average; one that is told of, milliseconds.
SOON = 2.5

CONF = '''\
%import relstorage
%define INSTANCE {instance}
instancehome $INSTANCE
<zodb_db main>
  mount-point /
  <relstorage>
    keep-history false
    <postgresql>
      dsn {dsn}
    </postgresql>
  </relstorage>
</zodb_db>
target /zam
'''


@pytest.fixture(scope='module')
def server():
    """A Postgres."""
    with postgres_or_skip() as server:
        yield server


def open_storage(server):
    return RelStorage(PostgreSQLAdapter(server.dsn, Options(keep_history=False)))


def open_db(server):
    return ZODB.DB(open_storage(server))


@pytest.fixture(scope='module')
def db(server):
    """The database, with a manager whose worker polls each minute."""
    db = open_db(server)
    with db.transaction() as connection:
        root = connection.root()
        app = root['Application'] = Application()
        root['marks'] = PersistentMapping()
        app._setObject('zam', AsynchronousCallManager('zam', poll_interval=60))
    yield db
    transaction.abort()
    db.close()


def put(connection, *call):
    """Put a call and commit, as a request does; → its deferred."""
    transaction.begin()
    deferred = connection.root()['Application'].zam.putCall('zope_call', *call)
    transaction.commit()
    return deferred


def test_a_put_of_another_process_wakes_a_worker_at_once(server, db, tmp_path):
    """And not at its next sign of life, ten seconds later at most."""
    connection = db.open()
    with Stack(tmp_path) as stack:
        (stack.instance / 'etc').mkdir()
        config = stack.instance / 'etc' / 'zasync.conf'
        config.write_text(CONF.format(instance=stack.instance, dsn=server.dsn), 'utf-8')
        stack.start('worker', [sys.executable, '-m', 'zasync_client', '-C', config],
                    env=our_environment(), ready_seconds=60,
                    is_ready=lambda process: ' serves ' in process.output())
        took = []
        for number in range(4):
            began = time.monotonic()
            deferred = put(connection, jobs.add, number, 1)

            def has_ended(deferred=deferred):
                transaction.begin()
                return deferred.ended

            assert wait_until(has_ended, 20, 0.02)
            took.append(time.monotonic() - began)
            assert deferred.result == number + 1
    connection.close()
    assert sorted(took)[-2] < SOON, took


class Listening:
    """A Wakeup that waits for news of a database."""

    def __init__(self, db):
        self.wakeup = Wakeup(clock.SYSTEM)
        self.wakeup.watch(db)
        self.forget()

    def forget(self):
        self.wakeup.start_looking()

    def is_told(self, seconds=20):
        return clock.SYSTEM.wait(self.wakeup._event, seconds)


def test_whoever_lost_the_connection_by_which_it_is_told_looks_and_listens_again(
        server, db, monkeypatch):
    monkeypatch.setattr('Products.zasync.wakeup.REACH_SECONDS', 0.1)
    there, connection = open_db(server), db.open()
    try:
        listening = Listening(there)
        assert listening.is_told()  # it looks when it begins to listen
        listening.forget()
        put(connection, jobs.add, 1, 1)
        assert listening.is_told()
        listening.forget()
        end_all_connections(server)
        assert listening.is_told()  # of what it may have missed
        transaction.abort()
        put_again(connection)
        listening.forget()
        put(connection, jobs.add, 2, 2)
        assert listening.is_told()
    finally:
        transaction.abort()
        connection.close()
        there.close()


def end_all_connections(server):
    connection = psycopg2.connect(server.dsn)
    with connection.cursor() as cursor:
        cursor.execute('select pg_terminate_backend(pid) from pg_stat_activity '
                       'where pid <> pg_backend_pid() and datname is not null')
    connection.close()


def put_again(connection):
    """As Zope's publisher does: it starts a request again that met a lost connection."""
    for _ in range(5):
        try:
            return put(connection, jobs.add, 0, 0)
        except transaction.interfaces.TransientError:
            transaction.abort()
    raise AssertionError('the database stays away')


def test_a_put_does_not_fail_because_nobody_can_be_told(server, db, monkeypatch):
    connection = db.open()
    put(connection, jobs.add, 1, 1)

    def broken(*args):
        raise OSError('no route')

    monkeypatch.setattr('Products.zasync.wakeup._execute', broken)
    deferred = put(connection, jobs.add, 1, 1)
    monkeypatch.undo()
    transaction.begin()
    assert connection.root()['Application'].zam.queue.find(deferred.id) is deferred
    connection.close()


def test_a_process_that_has_written_nothing_sees_that_a_worker_gives_no_sign_of_life(server, db):
    with db.transaction() as connection:
        app = connection.root()['Application']
        app._setObject('zad', ZAsyncDispatcher('zad'))
        app.zad.max_idle_time = 0.5
        app.zad._setObject('zam1', AsynchronousCallManager('zam1'))
    with db.transaction() as connection:
        connection.root()['Application'].zad.zam1.queue.pulse.write(
            new=0, accepted=0, rate=0.0, beat=1, accepting=1, pong_at=None, answered=0, pace=0.0)
    there = open_db(server)
    connection = there.open()
    zad = connection.root()['Application'].zad

    def is_seen():
        with db.transaction() as other:  # the time of the storage goes on
            other.root()['marks']['time'] = time.time()
        transaction.begin()
        return zad.load_of(zad.zam1).why.startswith('no sign of life')

    try:
        assert zad.load_of(zad.zam1).alive
        assert wait_until(is_seen, 5)
    finally:
        transaction.abort()
        connection.close()
        there.close()
