"""A dispatcher with managers and a worker of this process for each, stepped by hand."""

import dataclasses
import threading

import transaction

from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasync.wakeup import Wakeup
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.client import jobs
from tests.client.workbench import Bench
from zasync_client.database import Database
from zasync_client.worker import Worker


IDS = ('zam1', 'zam2', 'zam3')


#: A call that does nothing to speak of.
CALL = ('zope_exec', '/', {}, 'python:1')


class Farm(Bench):
    """See the module. `zad` is the dispatcher in the test's own connection."""

    def __init__(self, storage=None):
        super().__init__(storage)
        self.lay_out('zad')

    def lay_out(self, name):
        """Add the dispatcher, by that name, and its managers."""
        app = self.connection.root()['Application']
        app._setObject(name, ZAsyncDispatcher(name))
        self.zad = app[name]
        for id in IDS:
            self.zad._setObject(id, AsynchronousCallManager(id))
        transaction.commit()

    def unregistered(self, id, **options):
        """A worker for that manager that has not begun."""
        config = dataclasses.replace(self.config(**options), target=('', self.zad.getId(), id))
        worker = Worker(config, Database(self.db, config.target, config.threads),
                        Wakeup(self.clock), self.clock, threading.Event())
        self._workers.append(worker)
        return worker

    def serve(self, id, start=True, **options):
        """A registered worker for that manager."""
        worker = self.unregistered(id, **options)
        self.apart(worker.register)
        if start:
            worker._pool.start()
        return worker

    def put_to(self, id, *call, options=None):
        """Put a call to that manager and commit; → its deferred."""
        transaction.begin()
        deferred = self.zad[id].putCallWith(options or Options(), *call)
        transaction.commit()
        return deferred

    def run(self, *workers, rounds=6):
        """Let these workers beat in turn, and their threads end, so many times."""
        for _ in range(rounds):
            for worker in workers:
                self.step(worker)
                self.settle(worker)
        transaction.begin()

    def let_pass(self, seconds, *workers, each=5.0):
        """Let time pass while these workers beat."""
        left = seconds
        while left > 0:
            self.clock.advance(min(each, left))
            left -= each
            for worker in workers:
                self.step(worker)
        transaction.begin()

    def holder(self, id):
        """(boot, guest) of that manager's desk."""
        transaction.begin()
        desk = self.zad[id].queue.desk
        return desk.boot, desk.guest


def mark(name):
    """A call that sets a mark of that name."""
    return ('zope_call', jobs.set_mark, name, name)


def states(*deferreds):
    """The states of these calls."""
    return [deferred.state for deferred in deferreds]
