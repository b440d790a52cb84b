"""The site of a benchmark: a ZEO server, managers in it, and workers for them when started.

Imports: stack, processes, clients, jobs.
"""

import os
import time

import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from bench.clients import Clients
from bench.clients import open_database
from bench.clients import Record
from bench.jobs import Ledger
from bench.processes import keep_on
from bench.stack import Stack


TARGET = '/asynchronous_call_manager'

#: Objects for raw committers, one for each thread of each client.
RECORDS = 64

#: With more calls than that open nobody looks often.
MANY = 200

#: Puts of one transaction when many calls are to wait.
BATCH = 500


class Site:
    """See the module. manager -- in our own connection.

    prepare -- callable(the database's root), on the file itself, before there is a server: much is
    stored faster so. apart -- the server is on the last processor and workers on the first, as
    docs/operations.rst has it for short calls; where there is one only that makes no difference.
    """

    def __init__(self, prepare=None, apart=False):
        self.stack = Stack()
        self._prepare = prepare
        self._apart = apart

    def __enter__(self):
        self.stack.__enter__()
        if self._prepare is not None:
            db = ZODB.DB(FileStorage(str(self.stack.base_dir / 'Data.fs')), cache_size=2_000)
            connection = db.open()
            self._prepare(connection.root())
            transaction.commit()
            connection.close()
            db.close()
        self.address = self.stack.start_zeo()
        if self._apart:
            keep_on(self.stack.zeo.pid, max(os.sched_getaffinity(0)))
        self.db, self.connection, root = open_database(self.address)
        from OFS.Application import Application
        if 'Application' not in root:
            root['Application'] = Application()
        self.app = root['Application']
        root['raw'] = [Record() for _ in range(RECORDS)]
        root['ledger'] = Ledger()
        self.manager = self.add_manager(TARGET[1:])
        return self

    def __exit__(self, *error):
        transaction.abort()
        self.connection.close()
        self.db.close()
        return self.stack.__exit__(*error)

    def add_manager(self, id):
        """A manager in the root, committed."""
        from Products.zasync.manager import AsynchronousCallManager
        self.app._setObject(id, AsynchronousCallManager(id))
        transaction.commit()
        return self.app[id]

    def start_worker(self, threads=4, id=TARGET[1:], settings='', **options):
        """A worker process for that manager, up when this returns; → its Process."""
        if self._apart:
            settings += f'cpu-affinity {min(os.sched_getaffinity(0))}\n'
        return self.stack.start_worker(f'worker_{id.replace("/", "_")}', f'/{id}', threads=threads,
                                       settings=settings, **options)

    def clients(self, mode, processes, **task):
        """Results of that many processes that do the same task at once."""
        tasks = [{'mode': mode, 'address': self.address, 'client': client, 'target': TARGET,
                  'threads': 1, 'first': 0, 'function': 'nothing', 'request_seconds': 0, **task}
                 for client in range(processes)]
        clients = Clients(tasks)
        clients.start()
        return clients.results()

    def raw_seconds(self, number, processes=1, threads=1):
        """Seconds a raw commit takes when so many clients commit at once, `number` each."""
        results = self.clients('raw', processes, threads=threads, number=number)
        return duration(results) / (number * processes * threads)

    def fill(self, number, function, *args, manager=None, numbered=False, start=0):
        """Have that many calls wait; numbered -- each gets its number, from `start` on."""
        manager = manager or self.manager
        for first in range(start, start + number, BATCH):
            for index in range(first, min(start + number, first + BATCH)):
                manager.putCall('zope_call', function, *([index] if numbered else []), *args)
            transaction.commit()

    def resume(self, managers):
        """Have the workers of managers that were paused begin."""
        transaction.begin()
        for manager in managers:
            manager.resume()
        transaction.commit()

    def wait_until_done(self, limit_seconds, *managers):
        """Wait until no call of them is open; all of ours is the one manager if none is given."""
        managers = managers or (self.manager,)
        until = time.monotonic() + limit_seconds
        while left := self._open_calls(managers):
            if time.monotonic() > until:
                raise RuntimeError(f'{left} calls are still open after {limit_seconds} s')
            time.sleep(0.1 if left > MANY else 0.01)

    def _open_calls(self, managers):
        """How many are open; by the word of their workers if many are, which is one object each.

        An exact look takes the server as long as a few calls do.
        """
        transaction.begin()
        pulses = [manager.queue.pulse for manager in managers]
        told = sum(pulse.new + pulse.accepted for pulse in pulses)
        return told if told > MANY else self._exactly_open(managers)

    def _exactly_open(self, managers):
        transaction.begin()
        return sum(manager.open_calls() for manager in managers)

    def drain(self, limit_seconds, *managers):
        """Seconds a call takes until no call of those managers is open, and none was lost.

        From when a fiftieth of them has ended: a worker's start is not counted.
        """
        managers = managers or (self.manager,)
        until = time.monotonic() + limit_seconds
        left = all_of_them = self._exactly_open(managers)
        while left > 0.98 * all_of_them:
            if time.monotonic() > until:
                raise RuntimeError(f'{left} calls are still open after {limit_seconds} s')
            time.sleep(0.02)
            left = self._open_calls(managers)
        began = time.monotonic()
        left = self._exactly_open(managers)
        self.wait_until_done(until - began, *managers)
        return (time.monotonic() - began) / left

    def check_effects(self, number):
        """Each of that many calls left its record once."""
        transaction.begin()
        counts = self.connection.root()['ledger'].counts()
        if counts != dict.fromkeys(range(number), 1):
            raise RuntimeError(f'of {number} effects {len(counts)} are there, and not all once')


def duration(results):
    """Seconds from the start of the first client to the end of the last."""
    return max(each['ended'] for each in results) - min(each['started'] for each in results)
