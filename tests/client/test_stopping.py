"""TERM to all, in every order, with calls that run, wait and are being put: none is lost."""

import itertools
import logging
import threading

import pytest
import transaction
from ZEO.Exceptions import ClientDisconnected
from ZODB.DemoStorage import DemoStorage

from bench.jobs import Effects
from bench.processes import wait_until
from Products.zasync import policy
from Products.zasync.clock import ManualClock
from tests.client import jobs
from tests.client.farm import Farm
from tests.client.fate import Gate
from zasync_client.config import Plugin
from zasync_client.errors import GaveUp


CALLS = 40
EVENTS = ['worker1', 'worker2', 'zope', 'server']
NOTHING = 'zope_exec', '/', {}, 'python:1'
ORDERS = list(itertools.permutations(EVENTS))


class Server(DemoStorage):
    """A storage that is away when the test says so, as one behind a network may be."""

    away = False

    def _ask(self):
        if self.away:
            raise ClientDisconnected('the server is away')

    def is_connected(self):
        """As a ZEO client's."""
        return not self.away

    ping = _ask

    def loadBefore(self, *args):
        """See IMVCCStorage."""
        self._ask()
        return super().loadBefore(*args)

    def tpc_begin(self, *args, **kwargs):
        """See IStorage."""
        self._ask()
        return super().tpc_begin(*args, **kwargs)

    def tpc_finish(self, *args, **kwargs):
        """See IStorage."""
        self._ask()
        return super().tpc_finish(*args, **kwargs)


class Place(Farm):
    """A Farm on a Server, whose calls count their effects; some wait at a gate the first time."""

    make_storage = Server

    def __init__(self):
        super().__init__()
        self.zad.manage_changeProperties(no_worker='queue')
        self.connection.root()['effects'] = Effects(CALLS)
        transaction.commit()
        self.storage = self.db.storage
        self.gate = Gate()
        self.calls = []
        self.seen = set()

    def count(self, number, waits):
        """What each call does."""
        if waits and number not in self.seen:
            self.seen.add(number)
            self.gate.wait()
        jobs.root()['effects'].counters[number].add()

    def put_one(self, id=None, waits=False):
        """Put one more call, through the dispatcher if no manager is named."""
        transaction.begin()
        number = len(self.calls)
        call = 'zope_call', jobs.call_hook, number, waits
        if id is None:
            manager, deferred = self.zad.putCall(*call)
        else:
            deferred = self.zad[id].putCall(*call)
        transaction.commit()
        self.calls.append(deferred)

    def effects(self):
        """How often each call had its effect."""
        transaction.begin()
        return [each.n for each in self.connection.root()['effects'].counters[:len(self.calls)]]


@pytest.fixture
def place(monkeypatch):
    """A Place; its workers end with the test."""
    made = Place()
    monkeypatch.setattr(jobs, 'hook', made.count)
    yield made
    made.storage.away = False
    made.gate.open()
    for worker in made._workers:
        made.settle(worker)
    made.close()


def interruptions(call):
    """How many attempts of a call did not come to their end."""
    return sum(each.outcome in (policy.INTERRUPTED, policy.WORKER_GONE, policy.WORKER_STOPPED)
               for each in call.attempts)


@pytest.mark.parametrize('order', ORDERS, ids='-'.join)
def test_all_processes_are_told_to_stop_at_once(place, order):
    """In any order; no call is lost, and none is interrupted twice."""
    workers = {id: place.serve(id, threads=2) for id in ('zam1', 'zam2')}
    for id in workers:
        for waits in (True, False, True, False, False):
            place.put_one(id, waits)
    for worker in workers.values():
        place.step(worker)
        place.gate.reached()

    def put():
        """A request, if there is somebody who takes it, and a server."""
        if 'zope' not in done and not place.storage.away:
            place.put_one()

    def stop_server():
        place.storage.away = True

    act = {'worker1': lambda: place.stop(workers['zam1']),
           'worker2': lambda: place.stop(workers['zam2']),
           'zope': put, 'server': stop_server}
    done = set()
    for name in order:
        put()
        act[name]()
        done.add(name)
    # All are started again; what the threads of before still do is done by nobody.
    place.storage.away = False
    heirs = [place.serve(id, threads=2) for id in ('zam1', 'zam2')]
    place.gate.open()
    for worker in workers.values():
        place.settle(worker)
    for _ in range(3):
        place.let_pass(40, *heirs)
        place.run(*heirs)
    transaction.begin()
    assert {call.state for call in place.calls} == {'resolved'}
    assert place.effects() == [1] * len(place.calls)
    assert max(interruptions(call) for call in place.calls) == 1
    assert [place.zad[id].open_calls() for id in place.zad.objectIds()] == [0, 0, 0]


# one who begins, and is told to stop

@pytest.mark.parametrize('when', ['before it looks', 'while it waits for the server',
                                  'while it watches who holds the desk', 'when it has the desk'])
def test_who_is_told_to_stop_while_it_begins_leaves_no_desk_behind(place, monkeypatch, when):
    worker, wait, holder = place.unregistered('zam1'), place.clock.wait, None
    call = place.put_to('zam1', *NOTHING)

    def wait_and_be_told(event, seconds):
        worker.stopping.set()
        return wait(event, seconds)

    if when == 'before it looks':
        worker.stopping.set()
    elif when == 'when it has the desk':
        monkeypatch.setattr(worker._pool, 'start', worker.stopping.set)
    elif when == 'while it waits for the server':
        place.storage.away = True
        monkeypatch.setattr(place.clock, 'wait', wait_and_be_told)
    else:
        holder = place.serve('zam1', start=False).boot
        transaction.begin()
        place.zad.zam1.queue.card.place = 'another machine'
        transaction.commit()
        monkeypatch.setattr(place.clock, 'wait', wait_and_be_told)
    try:
        place.apart(worker.run)
    except GaveUp as reason:
        assert 'stopped while' in str(reason) and when.startswith('while')
    place.storage.away = False
    assert place.holder('zam1') == (holder, False)
    assert (call.state, call.attempts) == ('new', ())
    assert worker.held() == set()


# one who waits for the server, and is told to stop

class PatientClock(ManualClock):
    """One whose waits take a moment: threads wait for each other here."""

    def wait(self, event, seconds):
        """See IClock."""
        event.wait(0.002)
        return super().wait(event, seconds)


def test_a_worker_is_told_to_stop_while_its_server_is_away(place, monkeypatch, caplog):
    """A call that needs no database is under way; the server comes back while it is."""
    gate = Gate()
    place.clock = PatientClock(place.clock.now())
    worker = place.serve('zam1', start=False, plugins=[('apart', None)], changes={
        'max_total_retry_seconds': 0.0, 'drain_seconds': 1e6})
    worker._config.plugins['apart'] = Plugin('apart', gate.wait, '')
    place.calls.append(place.put_to('zam1', 'apart'))
    monkeypatch.setattr(worker, 'begin', worker._pool.start)  # it has its desk already
    thread = threading.Thread(target=worker.run)
    with caplog.at_level(logging.INFO, 'zasync'):
        thread.start()
        gate.reached()
        place.storage.away = True
        place.clock.advance(10)
        worker._wakeup.notify_own()
        assert wait_until(lambda: 'the database server is out of reach' in caplog.text, 30, 0.005)
        worker.stopping.set()
        assert wait_until(lambda: 'stopping; 1 calls still run' in caplog.text, 30, 0.005)
        place.storage.away = False
        gate.open()
        thread.join(30)
    assert not thread.is_alive()
    transaction.begin()
    assert place.calls[0].state == 'resolved'
    assert place.zad.zam1.queue.desk.boot is None


def test_a_drain_without_a_server_does_not_spin(place, monkeypatch):
    worker = place.serve('zam1')
    place.put_one('zam1', waits=True)
    place.step(worker)
    place.gate.reached()
    place.storage.away = True
    place.clock.advance(60)  # a beat is long due
    waits = []
    monkeypatch.setattr(worker._wakeup, 'wait',
                        lambda seconds: (waits.append(seconds), place.clock.advance(seconds)))
    place.stop(worker)
    assert 0 < min(waits) and sum(waits) == pytest.approx(5.0, abs=0.2)
