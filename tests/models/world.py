"""A manager in a real storage, those who put to it, and its worker, a beat at a time.

Nothing here knows what is right: it does what it is told, and tells what came of it.

Imports: actors, zasync, zasync_client.
"""

import threading
from contextlib import ExitStack

import transaction
from AccessControl.userfolder import UserFolder
from OFS.Application import Application
from persistent.mapping import PersistentMapping

from Products.zasync import clock
from Products.zasync.clock import ManualClock
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.wakeup import Wakeup
from zasync_client.config import Config
from zasync_client.config import offered
from zasync_client.config import Plugin
from zasync_client.database import Database
from zasync_client.worker import Worker

from .actors import Actor
from .actors import job
from .actors import Run


#: When it begins, and how long results are kept; in seconds.
NOW, PERIOD = 1_700_000_000.0, 80

USERS = ('bob', 'eve', 'admin')

#: Threads of the worker; and of all its lives together, of which some hang.
THREADS, RUNNERS = 2, 5

#: Jobs that one history can have.
JOBS = 60

#: They are threads, and live as long as the process: a history has them to itself.
_actors = {name: Actor() for name in (*USERS, 'beat', *range(RUNNERS))}


class World:
    """One manager; `databases` stand for processes: that of the callers and of the worker."""

    def __init__(self, databases, name):
        self.databases = databases
        self.exits = ExitStack()
        self.clock = self.exits.enter_context(clock.replaced(ManualClock(NOW)))
        self.target, self.effects = ('', name), f'effects-{name}'
        self._tm = transaction.TransactionManager()
        self._reader = databases[0].open(self._tm)
        self.exits.callback(self._leave)
        self._build(name)
        for number, user in enumerate(USERS):
            _actors[user].enter(databases[number % len(databases)])
            _actors[user].become(user)
        self._database = Database(databases[-1], self.target, RUNNERS + 2)
        self.lives = 0
        self.worker = None
        self.restart()

    def _build(self, name):
        self._tm.begin()
        root = self._reader.root()
        if 'Application' not in root:
            root['Application'] = Application()
            if not hasattr(root['Application'], 'acl_users'):
                root['Application']._setObject('acl_users', UserFolder())
            users = root['Application'].acl_users
            for user in USERS:
                users._doAddUser(user, 'secret', ['Manager'] if user == 'admin' else [], [])
        root['Application']._setObject(name, AsynchronousCallManager(name, 5, PERIOD))
        root[self.effects] = PersistentMapping(
            {number: PersistentMapping() for number in range(JOBS)})
        self._tm.commit()

    def _leave(self):
        self._tm.abort()
        self._reader.close()

    def close(self):
        """Leave; nothing may run."""
        for name, actor in _actors.items():
            if name in USERS:
                actor.leave()
            else:
                actor.do(self._database.close)
        self.exits.close()

    # looking

    def look(self):
        """A new snapshot; → (manager, effects of the jobs)."""
        self._tm.begin()
        root = self._reader.root()
        return root['Application'][self.target[1]], root[self.effects]

    def last_tid(self):
        """Of the last commit."""
        return self.databases[0].lastTransaction()

    # callers

    def begin(self, user):
        """Begin a transaction of that user."""
        _actors[user].do(transaction.begin)

    def end(self, user, commit=True):
        """End it; what the commit raises is raised."""
        _end(_actors[user], commit)

    def act(self, user, action, *args, lane=None):
        """action(manager, *args) as that user, who puts into that lane; → its value."""
        actor = _actors[user]
        if lane is not None:
            actor.use_lane(lane)
        return actor.do(lambda: action(
            actor.connection.root()['Application'][self.target[1]], *args))

    # the worker

    def restart(self):
        """The worker was killed, and here is its next life. What ran goes on to run."""
        before, self.lives = self.worker, self.lives + 1
        plugins = [Plugin('job', lambda run, number: job(number), '', zope_aware=True)]
        config = Config(
            path='', target=self.target, threads=THREADS, max_conflict_attempts=3,
            initial_retry_seconds=1.0, retry_growth=1.0, max_total_retry_seconds=10.0,
            drain_seconds=5.0, plugins=offered(plugins), zope=None, handlers=None)
        self.worker = Worker(config, self._database, Wakeup(self.clock), self.clock,
                             threading.Event(), f'boot{self.lives}')
        self.beat = self.worker._beat
        _actors['beat'].do(self.worker._take_desk, before and before.boot)

    def begin_beat(self):
        """Begin the transaction of a beat."""
        _actors['beat'].do(transaction.begin)

    def beat_now(self, ends, held, hurry):
        """Do in it what a beat does; → its Done or None, and what `see` sees in it."""
        def beat():
            manager = self._database.manager()
            return self.beat.in_transaction(manager, self.clock.now(), ends, held, len(held),
                                            hurry)
        return _actors['beat'].do(beat)

    def see(self, action):
        """action(manager) in the transaction of the beat; → its value."""
        return _actors['beat'].do(lambda: action(self._database.manager()))

    def end_beat(self, commit=True):
        """End the transaction of the beat."""
        _end(_actors['beat'], commit)

    def run(self, number, claim):
        """A Run of that claim by a thread of that number."""
        return Run(_actors[number], self.worker._make_runner, self.worker._runs.is_stopped, claim,
                   self.effects)

    # the administrator of the database

    def undo(self, tid):
        """Undo the transaction of that id."""
        import base64
        self._tm.begin()
        self.databases[0].undo(base64.encodebytes(tid).rstrip(), self._tm.get())
        self._tm.commit()

    def pack(self):
        """Throw away what is not needed now."""
        self.databases[0].pack()


def _end(actor, commit):
    def end():
        try:
            if commit:
                transaction.commit()
        finally:
            transaction.abort()
    actor.do(end)
