"""Databases for tests with two or more connections: in memory, and a real ZEO server."""

import itertools
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import transaction
from ZEO.ClientStorage import ClientStorage
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage

from Products.zasync.names import Names
from Products.zasync.queue import Queue


ROOT = Path(__file__).resolve().parents[2]


class Client:
    """One connection with a transaction manager of its own, and the queue as it sees it."""

    def __init__(self, db, key):
        self.tm = transaction.TransactionManager()
        self.connection = db.open(self.tm)
        self._key = key

    @property
    def queue(self):
        """The queue of this test in this connection."""
        return self.connection.root()[self._key]

    def begin(self):
        """Start a transaction and look at the queue, so that the snapshot is taken now."""
        self.tm.begin()
        return self.queue

    def commit(self):
        """Commit; conflicts go to the caller."""
        try:
            self.tm.commit()
        finally:
            self.tm.abort()

    def abort(self):
        """Abort."""
        self.tm.abort()

    def close(self):
        """Leave the connection."""
        self.tm.abort()
        self.connection.close()

    def put(self, call, lane=0):
        """Put a call in a transaction of its own; → its id."""
        id = self.begin().put(call, lane).id
        self.commit()
        return id

    def beat(self, now, slots=0, boot='boot'):
        """Take in and claim in a transaction of its own; → ids of the calls claimed."""
        queue = self.begin()
        claimed = [deferred.id
                   for deferred in queue.take_in_and_claim(boot, now, slots, 86_400)]
        self.commit()
        return claimed


class Store:
    """The databases of one test: each stands for a process, and holds the same queue."""

    _numbers = itertools.count()

    def __init__(self, databases, stack):
        self.databases = databases
        self._stack = stack
        self._key = f'queue-{next(self._numbers)}'
        self._turn = itertools.cycle(databases)
        client = self.client()
        client.tm.begin()
        client.connection.root()[self._key] = Queue()
        client.commit()

    def client(self):
        """A new Client; each in another process than the one before, where there are several."""
        client = Client(next(self._turn), self._key)
        self._stack.callback(client.close)
        return client


@pytest.fixture(scope='session')
def zeo_address(tmp_path_factory):
    """The address of a ZEO server in a process of its own, where our packages are not imported."""
    place = tmp_path_factory.mktemp('zeo')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        address = probe.getsockname()
    apart = ROOT / '.venv-zeo' / 'bin' / 'python'
    python = str(apart) if apart.exists() else sys.executable
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    with open(place / 'zeo.log', 'wb') as log:
        server = subprocess.Popen(
            [python, '-m', 'ZEO.runzeo', '-a', f'{address[0]}:{address[1]}', '-f',
             str(place / 'Data.fs')],
            cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(params=['demo', 'zeo'])
def store(request):
    """A Store: in the memory of one process, and in a ZEO server with two clients."""
    with ExitStack() as stack:
        if request.param == 'demo':
            databases = [DB(DemoStorage())]
        else:
            address = request.getfixturevalue('zeo_address')
            # With server_sync a transaction begins by hearing of all commits before it.
            databases = [DB(ClientStorage(address, wait_timeout=60, server_sync=True))
                         for _ in range(2)]
        for database in databases:
            stack.callback(database.close)
        yield Store(databases, stack)


@pytest.fixture
def file_store(tmp_path):
    """A Store in a file: it can undo, and say which objects a transaction wrote."""
    with ExitStack() as stack:
        database = DB(FileStorage(str(tmp_path / 'Data.fs')))
        stack.callback(database.close)
        yield Store([database], stack)


@pytest.fixture
def sites(store):
    """Callable: a new Site, each with a connection of its own, all of the same three queues."""
    first = store.client()
    key = f'moving-{first._key}'
    first.begin()
    first.connection.root()[key] = {'old': Queue(), 'one': Queue(), 'two': Queue(),
                                    'names': Names()}
    first.commit()

    def make():
        from tests.zodb.movingsite import Site
        return Site(store.client(), key)

    return make


@pytest.fixture
def site(sites):
    return sites()
