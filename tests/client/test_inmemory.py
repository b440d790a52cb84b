"""The cache of a ZEO client in memory holds what the file would, whatever comes between."""

import os
import random

import pytest
import transaction
import ZEO
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.MappingStorage import MappingStorage

from tests.client import jobs
from zasync_client import inmemory
from zasync_client.inmemory import keep_in_memory


KILOBYTE = 1024
MANY = 300


class Client:
    """A client of the server. asked -- oids that its server was asked for."""

    def __init__(self, address, **options):
        self.storage = ZEO.client(address, wait_timeout=5, **options)
        self.cache = self.storage._cache
        self.db = ZODB.DB(self.storage)
        self.connection = self.db.open()
        self.asked = []
        load = self.storage._server.load_before

        def note(oid, tid):
            self.asked.append(oid)
            return load(oid, tid)

        self.storage._server.load_before = note

    def values(self):
        """What it sees of the many, nothing being left in the memory of its connection."""
        self.storage.ping()
        self.connection.sync()
        self.connection.cacheMinimize()
        return [dict(each) for each in self.connection.root()['many']]

    def close(self):
        transaction.abort()
        self.connection.close()
        self.db.close()


@pytest.fixture
def clients(site):
    """Makes Clients of a server with many objects."""
    site.root['many'] = [PersistentMapping(n=number) for number in range(MANY)]
    transaction.commit()
    made = []

    def make(**options):
        made.append(Client(site.address, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def written(values):
    return [{'n': value} for value in values]


def test_what_was_loaded_before_is_there_and_what_is_loaded_and_stored_after(clients):
    client = clients()
    many = client.connection.root()['many']
    for each in many[:100]:
        each._p_activate()
    assert len(client.asked) >= 100
    keep_in_memory(client.storage)
    client.asked.clear()
    assert client.values() == written(range(MANY))
    assert len(client.asked) == MANY - 100
    for each in many[:50]:
        each['n'] += 1
    transaction.commit()
    client.asked.clear()
    assert client.values() == written([*range(1, 51), *range(50, MANY)])
    assert client.asked == []


def test_a_small_one_drops_the_oldest_and_never_says_what_is_not_so(site, clients):
    """The ring of the cache goes round many times, with objects of all sizes."""
    client = clients(cache_size=60 * KILOBYTE)
    for each in client.connection.root()['many']:
        each._p_activate()  # once round before
    keep_in_memory(client.storage)
    dice, expected = random.Random(7), list(range(MANY))
    for _ in range(25):
        some = [(number, 'x' * dice.randrange(2_000)) for number in dice.sample(range(MANY), 20)]
        if dice.random() < 0.5:
            many = client.connection.root()['many']
            for number, value in some:
                many[number]['n'] = value
            transaction.commit()
        else:
            with site.db.transaction() as other:
                for number, value in some:
                    other.root()['many'][number]['n'] = value
        for number, value in some:
            expected[number] = value
        assert client.values() == written(expected)
    assert client.cache.getStats()[2] > MANY  # so many were put out of it


def test_it_is_emptied_as_it_is_when_a_server_was_away_for_too_long(clients):
    client = clients()
    keep_in_memory(client.storage)
    assert client.values() == written(range(MANY))
    client.cache.clear()
    assert len(client.cache) == 0
    client.asked.clear()
    assert client.values() == written(range(MANY))
    assert len(client.asked) >= MANY
    client.asked.clear()
    assert client.values() == written(range(MANY))
    assert client.asked == []


def test_the_file_it_was_in_takes_no_space_and_is_closed_with_it(clients):
    client = clients()
    file = client.cache.f
    keep_in_memory(client.storage)
    assert os.fstat(file.fileno()).st_size == 0
    assert client.values() == written(range(MANY))
    assert os.fstat(file.fileno()).st_size == 0
    memory = client.cache.f
    client.storage.close()
    assert file.closed
    assert memory.closed


def test_a_cache_that_is_to_outlive_the_process_stays_in_its_file(clients, tmp_path):
    path = str(tmp_path / 'kept.zec')
    client = clients(cache=path)
    file = client.cache.f
    keep_in_memory(client.storage)
    assert client.cache.f is file
    assert file.name == path


@pytest.mark.parametrize(('size', 'stays'), [(inmemory.MOST, False), (inmemory.MOST + 1, True)])
def test_a_cache_that_is_too_large_stays_in_its_file(clients, size, stays):
    client = clients(cache_size=size)
    file = client.cache.f
    keep_in_memory(client.storage)
    assert (client.cache.f is file) is stays


def test_with_no_memory_left_it_stays_in_its_file(clients, monkeypatch):
    client = clients()
    file = client.cache.f

    def fail(cls, file, size):
        raise OSError('Cannot allocate memory')

    monkeypatch.setattr(inmemory._Memory, '__new__', fail)
    keep_in_memory(client.storage)
    assert client.cache.f is file
    assert client.values() == written(range(MANY))


def test_a_worker_has_its_cache_there_and_sends_together(site):
    site.start_worker()
    deferred = site.put('zope_call', jobs.ways_of_storage)
    site.ended(deferred)
    assert deferred.result == ['_Memory', '_Together']


def test_another_storage_is_left_alone():
    storage = MappingStorage()
    before = dict(vars(storage))
    keep_in_memory(storage)
    assert vars(storage) == before
