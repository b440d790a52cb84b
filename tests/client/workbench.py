"""A manager and workers in this process, whose beats a test makes and whose clock it moves."""

import threading
from dataclasses import replace

import transaction
import ZODB
from OFS.Application import Application
from persistent.mapping import PersistentMapping
from ZODB.DemoStorage import DemoStorage

from Products.zasync.clock import ManualClock
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.wakeup import Wakeup
from zasync_client.config import Config
from zasync_client.config import Plugin
from zasync_client.database import Database
from zasync_client.worker import Worker


class Bench:
    """A manager, and workers for it whose beats this test makes.

    storage -- an empty one, db -- a database on it; in memory if neither is given.
    """

    def __init__(self, storage=None, db=None):
        self.db = db or ZODB.DB(self.make_storage() if storage is None else storage)
        self.connection = self.db.open()
        root = self.connection.root()
        root['Application'] = Application()
        root['marks'] = PersistentMapping()
        root['Application']._setObject('zam', AsynchronousCallManager('zam'))
        transaction.commit()
        self.manager = root['Application'].zam
        self.marks = root['marks']
        from Products.zasync.clock import SYSTEM
        self.clock = ManualClock(SYSTEM.now() + 1)
        self._workers = []

    make_storage = DemoStorage

    def config(self, threads=1, plugins=(), changes=()):
        from Products.zasync.builtin import BUILTIN
        from Products.zasync.builtin import INTERNAL
        offered = {name: Plugin(name, plugin.run, plugin.description, zope_aware=True)
                   for name, plugin in {**BUILTIN, **INTERNAL}.items()}
        offered.update({name: Plugin(name, handler, '', zope_aware=True)
                        for name, handler in plugins})
        return replace(Config(
            path='', target=('', 'zam'), threads=threads, max_conflict_attempts=3,
            initial_retry_seconds=1.0, retry_growth=1.1, max_total_retry_seconds=10.0,
            drain_seconds=5.0, plugins=offered, zope=None, handlers=None), **dict(changes))

    def worker(self, start=True, **options):
        """A registered worker; its threads run unless `start` is false."""
        config = self.config(**options)
        # The beats run in a thread of the test's own transactions: give the worker's
        # database a connection apart from ours.
        worker = Worker(config, Database(self.db, config.target, config.threads),
                        Wakeup(self.clock), self.clock, threading.Event())
        self.apart(worker.register)
        if start:
            worker._pool.start()
        self._workers.append(worker)
        return worker

    def apart(self, action, *args, **kwargs):
        """action() in a thread, so with a transaction and a connection of its own; → its value."""
        outcome = {}

        def run():
            try:
                outcome['value'] = action(*args, **kwargs)
            except BaseException as error:
                outcome['error'] = error
            finally:
                transaction.abort()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(30)
        assert not thread.is_alive(), 'the step hangs'
        transaction.begin()
        if 'error' in outcome:
            raise outcome['error']
        return outcome['value']

    def step(self, worker, **options):
        """One beat; → whether it committed. What it claimed has begun where a thread is free: else
        a clock that is set on would make a moment's wait a long one.
        """
        committed = self.apart(worker.step, self.clock.now(), **options)
        self.wait_until(lambda: not _is_about_to_begin(worker._pool), 'a free thread rests')
        return committed

    def put(self, plugin, *args):
        transaction.begin()
        deferred = self.manager.putCall(plugin, *args)
        transaction.commit()
        return deferred

    def settle(self, worker):
        """Wait until the worker's threads hold nothing."""
        self.wait_until(lambda: not worker._pool.held(), 'the pool does not come to rest')
        transaction.begin()

    def wait(self, condition):
        """Wait until condition() is true in a fresh snapshot: a thread is about to commit."""
        def is_so():
            transaction.begin()
            return condition()

        self.wait_until(is_so, 'it does not come about')

    def wait_until(self, condition, complaint):
        """Wait until condition() is true, whatever transaction this is; complain after a while."""
        done = threading.Event()
        for _ in range(3_000):
            if condition():
                return
            done.wait(0.01)
        raise AssertionError(complaint)

    def stop(self, worker):
        """As TERM does."""
        worker.stopping.set()
        self.apart(worker.drain)

    def serial(self):
        return self.db.lastTransaction()

    def close(self):
        for worker in self._workers:
            worker._pool.stop()
        for worker in self._workers:
            worker._pool.join(10)  # the database can't close what a thread is about to
        transaction.abort()
        self.connection.close()
        self.db.close()


def _is_about_to_begin(pool):
    """Whether a thread of the pool is free, and a claim waits that it will take."""
    with pool._changed:
        busy = len(pool._held) - len(pool._waiting) - len(pool._aside)
        alive = sum(thread.is_alive() for thread in pool._started)
        return pool._first() is not None and busy < alive
