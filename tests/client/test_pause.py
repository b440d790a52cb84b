"""Pausing: nothing is claimed, what runs goes on, and the dispatcher puts elsewhere."""

import time

import transaction

from Products.zasyncdispatcher import loads
from tests.client import jobs
from tests.client.fate import Gate
from zasync_client import beat


def test_a_manager_is_paused(fate):
    gate = Gate()
    worker = fate.worker(threads=2, plugins=[('wait', lambda run: gate.wait())])
    runs = fate.call('wait')
    fate.step(worker)
    gate.reached()
    assert fate.do(fate.manager.pause) == 1
    assert fate.do(fate.manager.pause) == 0
    waits = fate.call('zope_exec', '/', {}, 'python: 2')
    assert fate.step(worker) is True  # the pulse says so
    assert fate.step(worker) is False
    fate.clock.advance(beat.BEAT_SECONDS)
    fate.step(worker)
    assert fate.counts() == (1, 1)
    assert not fate.manager.queue.pulse.accepting
    gate.open()
    fate.settle(worker)
    fate.step(worker, hurry=True)
    transaction.begin()
    assert (runs.state, waits.state) == ('resolved', 'new')
    assert fate.do(fate.manager.resume) == 1
    assert fate.do(fate.manager.resume) == 0
    fate.go(worker)
    assert waits.result == 2
    assert fate.manager.queue.pulse.accepting


def test_a_paused_worker_sleeps(fate):
    worker = fate.worker()
    fate.do(fate.manager.pause)
    fate.call('schedule', 1, 'zope_exec', '/', {}, 'python: 1')
    fate.step(worker)
    fate.clock.advance(2)
    fate.step(worker)
    before = fate.serial()
    for _ in range(3):
        assert fate.step(worker) is False
        assert worker._seconds_to_sleep(fate.clock.now()) > 1
    assert fate.serial() == before


def test_a_worker_that_starts_on_a_paused_manager_claims_nothing_and_says_so(fate):
    fate.do(fate.manager.pause)
    waits = fate.call('zope_exec', '/', {}, 'python: 2')
    worker = fate.worker()
    transaction.begin()
    assert not fate.manager.queue.pulse.accepting
    fate.go(worker)
    assert waits.state == 'new'
    fate.do(fate.manager.resume)
    fate.go(worker)
    assert waits.result == 2


def test_a_worker_may_stop_while_its_manager_is_paused(fate):
    worker = fate.worker()
    fate.do(fate.manager.pause)
    waits = fate.call('zope_exec', '/', {}, 'python: 2')
    fate.step(worker)
    fate.stop(worker)
    assert fate.manager.queue.desk.boot is None
    assert waits.state == 'new'
    assert fate.counts() == (1, 0)
    fate.do(fate.manager.resume)
    fate.go(fate.worker())
    assert waits.result == 2


def test_a_dispatcher_gives_nothing_to_a_paused_manager(fate):
    worker = fate.worker()
    fate.step(worker)
    transaction.begin()
    assert loads.load_of(fate.manager, 60).alive
    # At once, for those who see the pause; and by the pulse for all.
    fate.do(fate.manager.pause)
    assert not loads.load_of(fate.manager, 60).alive
    fate.step(worker)
    fate.manager.paused = False
    assert not loads.load_of(fate.manager, 60).alive
    transaction.abort()
    fate.do(fate.manager.resume)
    fate.step(worker)
    transaction.begin()
    assert loads.load_of(fate.manager, 60).alive


def test_a_real_worker_is_paused_and_resumed_within_the_wake_up(site):
    site.become('boss')
    site.start_worker()
    site.change(lambda: site.app.zam1.pause())
    site.wait(lambda: not site.app.zam1.queue.pulse.accepting, limit=2.0)
    waits = site.put('zope_call', jobs.add, 1, 1)
    done = site.put('zope_call', jobs.add, 2, 2, manager='zam1')
    site.change(lambda: site.app.zam1.ping())
    site.wait(lambda: site.app.zam1.getLastPong())
    assert (waits.state, done.state) == ('new', 'new')
    site.change(lambda: site.app.zam1.resume())
    resumed_at = time.monotonic()
    site.ended(waits, done)
    assert time.monotonic() - resumed_at < 2.0
