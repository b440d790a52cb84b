"""What a put has written is asked for as soon as the server tells of it: of a real server."""

import functools
import logging

import pytest
import transaction
import ZEO
import ZODB
from ZODB.utils import p64
from ZODB.utils import u64

from Products.zasync import lanes
from Products.zasync.clock import SYSTEM
from Products.zasync.wakeup import Wakeup
from zasync_client.foresight import CLAIMS_MOST
from zasync_client.foresight import Foresight
from zasync_client.foresight import OIDS_MOST


class Listener:
    """Another client of the server, with nothing loaded but what it is told to ask for.

    heard -- (tid, oids) of each commit of others.
    """

    def __init__(self, address):
        self.db = ZODB.DB(ZEO.client(address, wait_timeout=20))
        self.foresight, self.wakeup, self.heard = Foresight(), Wakeup(SYSTEM), []
        self.foresight.watch(self.db)
        self.wakeup.watch(self.db, self.hear)

    def hear(self, tid, oids):
        self.foresight.hear(tid, oids)
        self.heard.append((tid, list(oids)))

    def has(self, oid, tid):
        """Whether it can tell of that object without its server, as of that commit."""
        return self.db.storage._cache.loadBefore(oid, p64(u64(tid) + 1)) is not None

    def has_all(self, commit):
        tid, oids = commit
        return all(self.has(oid, tid) for oid in oids)

    def close(self):
        self.db.close()


@pytest.fixture
def listener(site):
    made = Listener(site.address)
    yield made
    made.close()


@pytest.fixture
def put(site, listener):
    """callable() that puts, into one lane; → (tid, oids) that the listener has heard."""
    lane = lanes.current()

    def put(*args):
        lanes._thread.lane = lane
        listener.db.storage.ping()  # its answer comes after the news of what was before
        number = len(listener.heard)
        site.put('zope_call', print, *args)
        site.wait(lambda: len(listener.heard) > number, what='the news of the put')
        return listener.heard[number]

    return put


def learn(site, listener, times=1):
    """Have it learn of the last call of our lane."""
    transaction.begin()
    lane = site.app['zam1'].queue.lanes[lanes.current()]
    ids = [lanes.get(lane, lanes.highest(lane)).deferred.id] * times
    learn_ids(listener, ids)


def learn_ids(listener, ids):
    with listener.db.transaction() as connection:
        queue = connection.root()['Application']['zam1'].queue
        listener.foresight.learn(queue, ids)
    listener.foresight.is_open = True


def test_the_second_put_of_a_lane_is_there_before_anybody_looks(site, listener, put):
    put()
    for _ in range(lanes.CHUNK + 3):  # one of them begins a chunk, in which no call is known yet
        learn(site, listener)
        commit = put()
        site.wait(functools.partial(listener.has_all, commit), what='all that was put')
        transaction.begin()
        assert lanes.last(site.app['zam1'].queue.lanes[lanes.current()])[1] in commit[1]


@pytest.mark.parametrize('why', ['no lane is known', 'it has other things to do', 'many claims'])
def test_nothing_is_asked_for_when(why, site, listener, put, monkeypatch):
    asked = []
    put()
    if why == 'many claims':
        learn(site, listener, CLAIMS_MOST + 1)
    elif why == 'it has other things to do':
        learn(site, listener)
        listener.foresight.is_open = False
    else:
        listener.foresight.is_open = True
    monkeypatch.setattr(listener.db.storage, 'prefetch', lambda *args: asked.append(args))
    put()
    assert asked == []


def test_commits_of_others_and_big_ones_are_let_be(site, listener, put, monkeypatch):
    put()
    learn(site, listener)
    asked = []
    monkeypatch.setattr(listener.db.storage, 'prefetch', lambda oids, tid: asked.append(oids))
    site.change(lambda: site.root['marks'].update(other=1))
    for number in range(OIDS_MOST):
        site.app['zam1'].putCall('zope_call', print, number)
    transaction.commit()
    put('the one that counts')
    assert len(listener.heard) == 4
    assert [sorted(oids) for oids in asked] == [sorted(listener.heard[-1][1])]


def test_a_put_that_is_undone_is_no_error_in_the_log(site, listener, put, caplog):
    put()
    learn(site, listener)
    put()
    with caplog.at_level(logging.INFO):
        number = len(listener.heard)  # `put` has waited for its own news
        site.db.undo(site.db.undoInfo(0, 1)[0]['id'])
        transaction.commit()
        site.wait(lambda: len(listener.heard) > number, what='the news of the undo')
        tid, oids = listener.heard[number]
        site.wait(lambda: sum(listener.has(oid, tid) for oid in oids) == len(oids) - 1,
                  what='the chunk')
        listener.db.storage.ping()
    assert not [record for record in caplog.records if 'prefetch' in record.getMessage()]


def test_news_that_come_while_the_client_is_closed_are_heard(site, listener, put):
    put()
    learn(site, listener)
    commit = put()
    listener.db.close()
    listener.foresight.hear(*commit)


def test_of_a_lane_without_calls_the_first_is_known(site, listener, put):
    """A call that was moved here has an id of a lane of another manager."""
    learn_ids(listener, [f'{lanes.current():x}-1-1-1'])
    commit = put()
    site.wait(functools.partial(listener.has_all, commit), what='all that was put')


def test_a_storage_that_can_not_be_asked_ahead_is_not(site):
    foresight = Foresight()
    foresight.watch(type('DB', (), {'storage': object()}))
    transaction.begin()
    queue = site.app['zam1'].queue
    foresight.learn(queue, ['0-1-1-1'])
    foresight.is_open = True
    foresight.hear(p64(1), [queue.lanes[0]._p_oid])  # else it would ask None for that
