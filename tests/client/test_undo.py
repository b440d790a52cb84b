"""Transactions of a call that runs, or has ended, are undone in the ZMI."""

from base64 import decodebytes
from datetime import timedelta

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.SpecialUsers import system
from ZODB.FileStorage import FileStorage

from Products.zasync import lanes
from Products.zasync.zmi.callpages import facts_of
from tests.client import jobs
from tests.client.fate import Fate
from tests.client.fate import Gate
from zasync_client.beat import BEAT_SECONDS
from zasync_client.beat import RECONCILE_SECONDS


@pytest.fixture
def fate(tmp_path):
    """A Fate in a storage that can undo."""
    newSecurityManager(None, system)
    made = Fate(FileStorage(str(tmp_path / 'Data.fs')))
    try:
        yield made
    finally:
        made.close()
        noSecurityManager()


def undo(fate, number=0):
    """Undo the last transaction but so many."""
    transaction.begin()
    fate.db.undo(fate.db.undoLog(number, number + 1)[0]['id'])
    transaction.commit()


def test_of_a_claim_that_is_undone_while_it_runs_and_made_again_one_run_alone_can_commit(fate):
    """The second claim would be as the first: of the same worker life, by the same number."""
    gates, runs = [Gate(), Gate()], []

    def commits_on_its_way(run):
        number = len(runs)
        runs.append(run.attempt)
        if number < 2:
            gates[number].wait()
        marks = run.app._p_jar.root()['marks']
        marks[number] = marks.get(number, 0) + 1
        transaction.commit()
        return number

    worker = fate.worker(threads=2, plugins=[('commits', commits_on_its_way)])
    deferred = fate.put('commits')
    fate.step(worker)
    gates[0].reached()
    undo(fate)
    fate.step(worker)
    gates[1].reached()
    gates[0].open()
    # It has ended, or it begins once more.
    fate.wait(lambda: worker._own.ends() or len(runs) > 2)
    gates[1].open()
    fate.settle(worker)
    fate.go(worker)
    assert (deferred.state, deferred.result) == ('resolved', 1)
    assert dict(fate.marks) == {1: 1}
    assert len(runs) == 2


@pytest.mark.parametrize('lane', [3, 4])
def test_a_failed_call_whose_retry_is_undone_is_among_the_failed_ones_again(
        fate, monkeypatch, lane):
    """Also while nothing is claimed."""
    monkeypatch.setattr(lanes, 'current', lambda: 3)
    worker = fate.worker()
    failed = fate.call('zope_call', jobs.fail_after_effect, 'x')
    fate.go(worker)
    fate.step(worker, hurry=True)
    fate.do(fate.manager.pause)
    monkeypatch.setattr(lanes, 'current', lambda: lane)
    fate.do(fate.manager.retry, failed.id)
    retried = fate.db.lastTransaction()
    fate.clock.advance(BEAT_SECONDS)
    fate.step(worker)
    assert (fate.counts(), fate.manager.calls('failed')) == ((1, 0), [])
    assert fate.db.lastTransaction() != retried
    undo(fate, 1)
    fate.clock.advance(BEAT_SECONDS)
    fate.step(worker)
    assert (fate.counts(), fate.manager.calls('failed')) == ((0, 0), [failed])
    assert fate.do(fate.manager.retry, failed.id) == 1
    fate.do(fate.manager.resume)
    fate.go(worker)
    assert len(failed.attempts) == 2


def test_a_put_that_is_undone_under_others_of_its_lane_keeps_nobody_waiting_for_long(
        fate, monkeypatch):
    """The lane does not tell of that. Nor does anything keep the database from being packed."""
    monkeypatch.setattr(lanes, 'current', lambda: 3)
    worker = fate.worker()
    fate.call('zope_call', jobs.set_mark, 'first', 1)
    fate.go(worker)
    undone = fate.call('zope_call', jobs.set_mark, 'undone', 1, not_before=timedelta(hours=3))
    put = fate.db.lastTransaction()
    fate.go(worker)
    fate.do(undone.addCallbacks, None, 'python: 1')
    fate.call('zope_call', jobs.set_mark, 'other', 1)
    fate.go(worker)
    transaction.begin()
    [entry] = [each for each in fate.db.undoLog(0, 50)
               if decodebytes(each['id'] + b'\n') == put]
    fate.db.undo(entry['id'])
    transaction.commit()
    fate.clock.advance(RECONCILE_SECONDS)
    fate.go(worker)
    assert fate.counts() == (0, 0)
    fate.db.pack()


def test_the_page_of_a_call_does_without_one_that_it_waits_for_and_whose_put_was_undone(
        fate, monkeypatch):
    """Callbacks that were added later are such a call; no worker has come yet."""
    followed = fate.call('echo', 1)
    monkeypatch.setattr(lanes, 'current', lambda: 3)
    fate.do(followed.addCallbacks, 'python: result')
    follower, = (each for each in fate.manager.calls() if each is not followed)
    assert dict(facts_of(follower))['Waits for'] == followed.id
    undo(fate, 1)
    fate.db.cacheMinimize()
    transaction.begin()
    assert fate.manager.calls() == [follower]
    assert 'Waits for' not in dict(facts_of(follower))
