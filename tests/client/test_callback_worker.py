"""Callbacks and aggregates in real workers that are killed on the way."""

import os

import pytest
import transaction

from tests.client import chains


@pytest.fixture
def gate(tmp_path):
    """A file that lets a waiting call go on when it is made."""
    return str(tmp_path / 'gate')


def open_gate(gate):
    with open(gate, 'w', encoding='ascii'):
        pass


def waits_at(gate):
    return os.path.exists(gate + '.running')


def kept(site):
    transaction.begin()
    return site.root['marks'].get('kept', ())


def put(site, *args, callbacks=()):
    transaction.begin()
    deferred = site.app.zam1.putCall(*args)
    for pair in callbacks:
        deferred.addCallbacks(*pair)
    transaction.commit()
    return deferred


def test_a_worker_is_killed_between_two_callbacks(site, gate):
    worker = site.start_worker()
    deferred = put(site, 'zope_call', chains.keep, gate, callbacks=[
        (chains.keep,), (chains.wait_where_it_says,), (chains.keep,)])
    site.wait(lambda: waits_at(gate))
    worker.kill()
    # Plugin and first callback are there, the one that was under way is not.
    assert kept(site) == (gate, gate)
    assert deferred.state == 'callback'
    open_gate(gate)
    site.start_worker()
    site.ended(deferred)
    assert kept(site) == (gate, gate, gate, gate)
    assert [attempt.outcome for attempt in deferred.attempts] == ['interrupted', 'resolved']


def test_late_callbacks_survive_the_worker_that_ran_their_call(site, gate):
    worker = site.start_worker()
    deferred = put(site, 'zope_call', chains.wait_where_it_says, gate)
    site.wait(lambda: waits_at(gate))
    transaction.begin()
    deferred.addCallbacks(chains.keep)
    transaction.commit()
    # It is taken in, and waits.
    site.wait(lambda: site.app.zam1.queue.desk.n_aside == 1)
    worker.kill()
    open_gate(gate)
    site.start_worker()
    site.wait(lambda: len(kept(site)) == 2)
    site.wait(lambda: site.app.zam1.lenAcceptedCalls() + site.app.zam1.lenNewCalls() == 0)
    assert kept(site) == (gate, gate)


def test_an_aggregate_survives_the_worker_of_its_members(site, gate):
    worker = site.start_worker()
    deferred = put(site, 'aggregate', [
        ('zope_call', (chains.keep, 1)), ('zope_call', (chains.wait_where_it_says, gate)),
        ('schedule', (1, 'zope_call', chains.keep, 3))])
    site.wait(lambda: waits_at(gate) and len(kept(site)) >= 1)
    worker.kill()
    open_gate(gate)
    site.start_worker()
    site.ended(deferred)
    assert deferred.result == [1, gate, 3]
    assert sorted(kept(site), key=str) == sorted([1, gate, 3], key=str)


def test_callbacks_follow_each_other_at_once_and_late_ones_too(site):
    """The beat is told of what the thread committed, and does not wait for its next look."""
    site.app.zam1.poll_interval = 600
    transaction.commit()
    site.start_worker()
    deferred = put(site, 'zope_call', chains.value, 1, callbacks=[
        ('python: [result]',), ('python: result + [2]',)])
    site.ended(deferred, limit=5)
    transaction.begin()
    deferred.addCallbacks('python: result + [3]').addCallbacks(chains.keep)
    transaction.commit()
    site.wait(lambda: kept(site) == ([1, 2, 3],), limit=5)
