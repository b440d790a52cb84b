"""The database server goes away, or one of two does, while calls run."""

import sys
import threading

import pytest
import transaction
import ZEO
import ZODB
from OFS.Application import Application
from OFS.Folder import Folder
from Products.ZODBMountPoint.MountedObject import MountedObject
from ZEO.Exceptions import ClientDisconnected
from ZODB.FileStorage import FileStorage

from bench.processes import wait_until
from bench.stack import Stack
from Products.zasync.manager import AsynchronousCallManager
from tests.client.fate import Gate
from tests.client.workbench import Bench
from tests.storm.cables import Cables
from zasync_client.work import Work


#: Longest wait for the server of an operation, in seconds; 30 by default.
WAIT_SECONDS = 1


def test_the_zeo_server_goes_away_while_calls_run(caplog):
    caplog.set_level('WARNING', 'zasync')
    gate = Gate()

    def effect_at_gate(run):
        marks = run.app._p_jar.root()['marks']
        marks['effect'] = marks.get('effect', 0) + 1
        gate.wait()

    with Stack() as stack:
        address = stack.start_zeo()
        bench = Bench(db=ZODB.DB(ZEO.client(address, wait_timeout=WAIT_SECONDS)))
        try:
            worker = bench.worker(plugins=[('effect', effect_at_gate)])
            deferred = bench.put('effect')
            bench.step(worker)
            gate.reached()
            id = deferred.id
            stack.zeo.stop()
            gate.open()
            lost = f'call {id}: the database server went away'
            assert wait_until(lambda: lost in caplog.text, 30)
            stack.zeo.start()
            bench.settle(worker)
            assert (deferred.state, deferred.attempt) == ('resolved', 1)
            assert bench.marks['effect'] == 1
        finally:
            bench.close()


@pytest.mark.parametrize('where', ['/place/', '/place/below'])
def test_a_call_whose_object_can_not_be_loaded_waits_for_the_server(caplog, where):
    """Nothing but that object is asked for while the server is away."""
    caplog.set_level('WARNING', 'zasync')
    gate, began = threading.Event(), threading.Event()

    def begin(self, *args):
        began.set()
        gate.wait(30)
        return begin.real(self, *args)

    with Stack() as stack:
        address = stack.start_zeo()
        bench = Bench(db=ZODB.DB(ZEO.client(address, wait_timeout=WAIT_SECONDS)))
        try:
            add_places(address)
            worker = bench.worker()
            deferred = bench.put('zope_exec', where, {}, 'here/getId')
            patch = pytest.MonkeyPatch()
            begin.real = Work.plugin
            patch.setattr(Work, 'plugin', begin)
            bench.step(worker)
            assert began.wait(30)
            patch.undo()
            stack.zeo.stop()
            gate.set()
            lost = f'call {deferred.id}: the database server went away'
            assert wait_until(lambda: lost in caplog.text or deferred.ended, 30)
            stack.zeo.start()
            bench.settle(worker)
            assert deferred.failure is None
            assert (deferred.state, deferred.attempt) == ('resolved', 1)
            assert deferred.result == where.strip('/').split('/')[-1]
        finally:
            gate.set()
            bench.close()


def add_places(address):
    """Folders that no other client has loaded."""
    db = ZEO.DB(address)
    connection = db.open()
    app = connection.root()['Application']
    app._setObject('place', Folder('place'))
    app.place._setObject('below', Folder('below'))
    transaction.commit()
    connection.close()
    db.close()


@pytest.mark.slow
def test_an_idle_worker_tells_once_that_its_zeo_server_is_away_and_once_that_it_is_back():
    """Soon: at its next look, and not when the time-out of the storage is over."""
    lost = 'WARNING [zasync][MainThread] the database server is out of reach ('
    back = 'WARNING [zasync][MainThread] the database server is back after'
    with Stack() as stack:
        Bench(db=ZEO.DB(stack.start_zeo())).close()
        worker = stack.start_worker('worker', '/zam')
        stack.zeo.stop()
        assert wait_until(lambda: lost in worker.output(), 15)
        assert not wait_until(lambda: worker.output().count(lost) > 1, 3)
        stack.zeo.start()
        assert wait_until(lambda: back in worker.output(), 30)
        stack.stop(worker)
        said = worker.output()
        assert (said.count(lost), said.count(back)) == (1, 1), said


MOUNTED = '''
<zodb_db calls>
  mount-point /calls
  <zeoclient>
    server {0[0]}:{0[1]}
  </zeoclient>
</zodb_db>
'''


def mount_calls(address, other_address):
    """Have the folder `calls` mounted from the other server, with a manager in it."""
    databases = {}
    main = ZODB.DB(ZEO.client(address), databases=databases, database_name='main')
    other = ZODB.DB(ZEO.client(other_address), databases=databases, database_name='calls')
    connection = main.open()
    try:
        root, there = connection.root(), connection.get_connection('calls').root()
        root['Application'], there['Application'] = Application(), Application()
        there['Application']._setObject('calls', Folder('calls'))
        there['Application'].calls._setObject('zam', AsynchronousCallManager('zam'))
        transaction.commit()
        root['Application']._setOb('calls', MountedObject('/calls'))
        transaction.commit()
    finally:
        transaction.abort()
        connection.close()
        main.close()
        other.close()


@pytest.mark.slow
def test_a_worker_tells_that_the_server_is_away_from_which_its_target_is_mounted():
    lost = 'WARNING [zasync][MainThread] the database server is out of reach ('
    back = 'WARNING [zasync][MainThread] the database server is back after'
    with Stack() as stack, Stack() as other:
        address, other_address = stack.start_zeo(), other.start_zeo()
        mount_calls(address, other_address)
        worker = stack.start_worker('worker', '/calls/zam',
                                    settings=MOUNTED.format(other_address))
        other.zeo.stop()
        assert wait_until(lambda: lost in worker.output(), 15)
        assert not wait_until(lambda: back in worker.output(), 3)
        other.zeo.start()
        assert wait_until(lambda: back in worker.output(), 30)
        stack.stop(worker)
        said = worker.output()
        assert (said.count(lost), said.count(back)) == (1, 1), said


#: Which is told after a second that nobody answers.
MOUNTED_SOON = '''
%import ZEO
<zodb_db calls>
  mount-point /calls
  <clientstorage>
    server {0[0]}:{0[1]}
    wait-timeout 1
  </clientstorage>
</zodb_db>
'''


def test_a_worker_starts_while_the_server_is_away_from_which_its_target_is_mounted():
    lost = 'WARNING [zasync][MainThread] the database server is out of reach ('
    with Stack() as stack, Stack() as other:
        address, other_address = stack.start_zeo(), other.start_zeo()
        mount_calls(address, other_address)
        other.zeo.stop()
        config = stack.worker_config('worker', '/calls/zam',
                                     settings=MOUNTED_SOON.format(other_address))
        worker = stack.start('worker', [sys.executable, '-m', 'zasync_client', '-C', config],
                             is_ready=lambda process: lost in process.output())
        other.zeo.start()
        assert wait_until(lambda: ' serves /calls/zam ' in worker.output(), 30), worker.output()
        stack.stop(worker)


def test_a_call_waits_for_the_server_from_which_its_object_is_mounted():
    with Stack() as stack, Stack() as other:
        address, other_address = stack.start_zeo(), other.start_zeo()
        mount_calls(address, other_address)
        db = ZEO.DB(address)
        connection = db.open()
        app = connection.root()['Application']
        app._setObject('zam', AsynchronousCallManager('zam'))
        transaction.commit()
        worker = stack.start_worker('worker', '/zam', settings=MOUNTED_SOON.format(other_address))
        other.zeo.stop()
        found = [app.zam.putCall('zope_exec', path, {}, 'here/getId')
                 for path in ('/calls', '/calls/zam')]
        never = app.zam.putCall('zope_exec', '/nowhere/zam', {}, 'here/getId')
        transaction.commit()
        ids = [deferred.id for deferred in found]
        lost = 'call %s: the database server went away'
        assert wait_until(lambda: all(lost % id in worker.output() for id in ids), 30), (
            worker.output())
        other.zeo.start()
        assert wait_until(lambda: transaction.begin() and all(
            deferred.ended for deferred in (*found, never)), 60), worker.output()
        assert [deferred.state for deferred in found] == ['resolved'] * 2
        assert [deferred.result for deferred in found] == ['calls', 'zam']
        assert str(never.failure) == 'LookupError: there is nothing at /nowhere/zam'
        stack.stop(worker)
        transaction.abort()
        connection.close()
        db.close()


@pytest.mark.parametrize('arrives', [False, True])
def test_the_link_breaks_while_a_call_is_committed(caplog, arrives):
    """In tpc_finish, so all have voted: who sent it can't know whether it has arrived."""
    caplog.set_level('WARNING', 'zasync')

    def effect(run):
        marks = run.app._p_jar.root()['marks']
        marks['effect'] = marks.get('effect', 0) + 1

    with Stack() as stack, Cables() as cables:
        cable = cables.add(stack.start_zeo())
        near = ZEO.client(('127.0.0.1', cable.port), wait_timeout=WAIT_SECONDS)
        bench = Bench(db=ZODB.DB(near))
        other = ZEO.DB(stack.zeo_address)
        finish, results = near.tpc_finish, []

        def finish_without_answer(current, *args):
            near.tpc_finish = finish
            last = other.storage.lastTransaction()
            if arrives:
                cable.mute()
            else:
                cable.cut()

            def cut_when_done():
                wait_until(lambda: other.storage.lastTransaction() > last, 20)
                cable.cut()

            if arrives:
                threading.Thread(target=cut_when_done).start()
            try:
                return finish(current, *args)
            except ClientDisconnected:
                results.append(other.storage.lastTransaction() > last)
                cable.heal()
                raise

        try:
            worker = bench.worker(plugins=[('effect', effect)], start=False)
            deferred = bench.put('effect')
            bench.step(worker)
            near.tpc_finish = finish_without_answer
            worker._pool.start()
            bench.settle(worker)
            assert results == [arrives]
            assert f'call {deferred.id}: the database server went away' in caplog.text
            bench.wait(lambda: deferred.state == 'resolved')
            assert deferred.attempt == 1
            assert bench.marks['effect'] == 1
        finally:
            other.close()
            bench.close()


@pytest.mark.parametrize('effects, result, done', [('a', 'z', 2), ('z', 'a', 0)])
def test_the_server_dies_between_two_databases(tmp_path, effects, result, done):
    """The storage whose name sorts first has finished, the other one has not."""
    databases = {}
    others, main = (ZODB.DB(FileStorage(str(tmp_path / name)), databases=databases,
                            database_name=name) for name in (effects, result))
    bench = Bench(db=main)
    losses = [ClientDisconnected('gone')]

    def effect(run):
        root = run.app._p_jar.get_connection(effects).root()
        root['effects'] = root.get('effects', 0) + 1
        transaction.get().join(Between(losses, str(tmp_path / 'm')))

    try:
        worker = bench.worker(plugins=[('effect', effect)])
        deferred = bench.put('effect')
        bench.step(worker)
        bench.settle(worker)
        assert (deferred.state, deferred.attempt, losses) == ('resolved', 1, [])
        assert bench.connection.get_connection(effects).root().get('effects', 0) == done
    finally:
        bench.close()
        others.close()


class Between:
    """A data manager that finishes between the two, and raises what it is given, once."""

    def __init__(self, losses, key):
        self.transaction_manager = transaction.manager
        self._losses = losses
        self._key = key

    def sortKey(self):
        """After the one storage, before the other."""
        return self._key

    def tpc_finish(self, current):
        """The first database has finished."""
        if self._losses:
            raise self._losses.pop()

    def tpc_begin(self, current):
        """Nothing to do."""

    commit = tpc_vote = tpc_abort = abort = tpc_begin
