"""What the tests of progress, cancellation, time-outs and retries share."""

import threading

import transaction

from Products.zasync.options import Options
from tests.client.workbench import Bench
from zasync_client.config import Plugin


class Fate(Bench):
    """A Bench whose calls have options and callbacks, and whose plugins are given in full."""

    def config(self, threads=1, plugins=(), changes=()):
        """plugins -- (name, zope-aware handler), or config.Plugin."""
        full = [plugin for plugin in plugins if isinstance(plugin, Plugin)]
        config = super().config(threads, [each for each in plugins if each not in full],
                                changes)
        config.plugins.update((plugin.name, plugin) for plugin in full)
        return config

    def call(self, plugin, *args, callbacks=(), **options):
        """Put a call with those Options and callbacks, and commit; → its deferred."""
        transaction.begin()
        deferred = self.manager.putCallWith(Options(**options), plugin, *args)
        for pair in callbacks:
            deferred.addCallbacks(*pair)
        transaction.commit()
        return deferred

    def go(self, worker, rounds=4):
        """So many beats, each with what it has begun."""
        for _ in range(rounds):
            self.step(worker)
            self.settle(worker)

    def do(self, action, *args):
        """action(*args), committed; → its value."""
        transaction.begin()
        value = action(*args)
        transaction.commit()
        return value

    def elsewhere(self, action):
        """action(manager) in a connection and a transaction of its own; from any thread."""
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        try:
            manager.begin()
            action(connection.root()['Application'].zam)
            manager.commit()
        finally:
            manager.abort()
            connection.close()

    def counts(self):
        """(waiting, running) as everybody sees them."""
        transaction.begin()
        return self.manager.lenNewCalls(), self.manager.lenAcceptedCalls()

    def loaded(self, action, *args):
        """(value of action(*args), number of deferreds it loaded), in a connection of its own."""
        from Products.zasync.deferred import Deferred
        connection = self.db.open(transaction.TransactionManager())
        connection.cacheMinimize()
        loaded, setstate = set(), connection.setstate

        def note(each):
            if isinstance(each, Deferred):
                loaded.add(each._p_oid)
            setstate(each)

        connection.setstate = note
        try:
            return action(connection.root()['Application'].zam, *args), len(loaded)
        finally:
            del connection.setstate
            connection.transaction_manager.abort()
            connection.close()


class Gate:
    """Where a job waits until the test lets it go on. Tells when it is there."""

    def __init__(self):
        self._reached = threading.Semaphore(0)
        self._open = threading.Event()

    def wait(self):
        """For the job."""
        self._reached.release()
        assert self._open.wait(30), 'nobody opened the gate'

    def reached(self):
        """Wait until one more job is at the gate."""
        assert self._reached.acquire(timeout=30), 'nobody came to the gate'

    def open(self):
        """Let all go on."""
        self._open.set()
