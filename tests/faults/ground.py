"""Where processes die at crash points: a ZEO server, real processes, and lives after them.

Who dies is a real process, run by `killer`. Who comes next is a worker of the test's own process,
with a clock moved by hand: what takes a minute until somebody notices takes none here. All share
one server; each scenario has a dispatcher of its own.

Imports: jobs, bench, tests.client, tests.mail.
"""

import contextlib
import functools
import http.client
import os
import signal
import subprocess
import sys
from base64 import b64encode

import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.users import system
from persistent.mapping import PersistentMapping

from bench.clients import open_database
from bench.jobs import Counter
from bench.processes import free_port
from bench.stack import answers
from bench.stack import HOST
from bench.stack import Stack
from Products.zasync.clock import ManualClock
from Products.zasync.clock import SYSTEM
from Products.zasync.options import Options
from tests.client.farm import Farm
from tests.client.fate import Fate
from tests.faults import jobs
from tests.mail.servers import PyPIServer


#: Longest time a process takes to come to its crash point, in seconds.
LIMIT = 60.0

ADMIN = 'admin', 'admin'


class Theatre:
    """The servers that all scenarios share."""

    def __init__(self):
        self.stack = Stack()
        self.grounds = 0
        self._exits = contextlib.ExitStack()

    def __enter__(self):
        self.stack.__enter__()
        try:
            self.db, self.connection, root = open_database(self.stack.start_zeo())
            from OFS.Application import Application
            root['Application'] = Application()
            root['effects'] = PersistentMapping()
            root['Application'].acl_users._doAddUser(*ADMIN, ['Manager'], [])
            transaction.commit()
        except BaseException:
            self.stack.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *exc_info):
        self._exits.close()
        self.connection.close()
        self.db.close()
        self.stack.__exit__(*exc_info)

    @functools.cached_property
    def mail_server(self):
        """A mail server with an account of alice's."""
        return self._exits.enter_context(PyPIServer())


class Ground(Farm, Fate):
    """One scenario: a dispatcher, `zad`, with managers that nobody serves.

    number -- of the crash point. directory -- for files.
    """

    def __init__(self, theatre, number, directory):
        self.theatre, self.stack, self.db = theatre, theatre.stack, theatre.db
        theatre.grounds += 1
        self.name = f'zad{theatre.grounds}'
        self.number, self.directory = number, directory
        self.clock = ManualClock(SYSTEM.now() + 1)
        self._workers, self._effects, self._made = [], {}, 0
        self.connection = self.db.open()
        self.root = self.connection.root()
        newSecurityManager(None, system)
        self.lay_out(self.name)
        self.zad.max_idle_time = 1.0
        transaction.commit()

    def close(self):
        """Leave."""
        for worker in self._workers:
            worker._pool.stop()
        noSecurityManager()
        transaction.abort()
        self.connection.close()

    # calls

    def effect(self, job=jobs.effect, id='zam1', callbacks=(), **options):
        """Put a call whose effects `effects` counts; → its Deferred."""
        effect = self.new_effect()
        transaction.begin()
        deferred = self.zad[id].putCallWith(Options(**options), 'zope_call', job, *effect)
        for callback in callbacks:
            deferred.addCallbacks(callback)
        transaction.commit()
        self._effects[deferred.id] = effect
        return deferred

    def effects_together(self, *together, id='zam1'):
        """Put calls that do these jobs in one transaction; → their Deferreds."""
        effects = [self.new_effect() for _ in together]
        transaction.begin()
        calls = [self.zad[id].putCall('zope_call', job, *effect)
                 for job, effect in zip(together, effects, strict=True)]
        transaction.commit()
        self._effects.update((call.id, effect)
                             for call, effect in zip(calls, effects, strict=True))
        return calls

    def new_effect(self):
        """(name, path) of an effect that can be counted, as one of a callback can."""
        self._made += 1
        name = f'{self.name}-{self._made}'
        transaction.begin()
        self.root['effects'].update({name: Counter(), name + '-callback': Counter()})
        transaction.commit()
        return name, str(self.directory / name)

    def effects(self, deferred, kind=''):
        """How often the effect of a call was done: (in the database, outside)."""
        name, path = self._effects[deferred.id]
        return self.count(name + kind, path + kind)

    def count(self, name, path):
        """The same by name and path."""
        self.look()
        lines = 0
        with contextlib.suppress(FileNotFoundError), open(path, encoding='ascii') as file:
            lines = len(file.readlines())
        return self.root['effects'][name].n, lines

    def open_gate(self, deferred):
        """Let go on a call that waits; see jobs.effect_at_gate."""
        with open(self._effects[deferred.id][1] + '-gate', 'w', encoding='ascii'):
            pass

    def is_at_gate(self, deferred):
        """Whether that call waits."""
        return os.path.exists(self._effects[deferred.id][1] + '-gate.running')

    def look(self):
        """See what others have committed."""
        self.db.storage.ping()
        transaction.begin()

    def outcomes(self, deferred):
        """The attempts of a call, in a word each."""
        self.look()
        return [attempt.outcome for attempt in deferred.attempts]

    # who dies

    def doomed(self, id='zam1', times=1, threads=2, settings='', program='zasync_client'):
        """Start a worker that dies when it comes to the crash point; → its Process."""
        config = self.stack.worker_config(f'{self.name}-{id}', f'/{self.name}/{id}', threads,
                                          settings)
        return self._start(id, times, program, '-C', config)

    def request(self, act, *args, times=1):
        """Have that request made by a process that dies there; see `acts`."""
        self.dies(self._start(act, times, 'tests.faults.acts', act, *self.stack.zeo_address,
                              self.name, *args))

    def page(self, path, times=1):
        """Have that page asked for of a Zope that dies there."""
        port = free_port()
        zope = self._start('zope', times, 'Zope2.Startup.serve',
                           self.stack.zope_config(HOST, port))
        self.wait(lambda: answers(HOST, port))
        connection = http.client.HTTPConnection(HOST, port, timeout=LIMIT)
        with contextlib.closing(connection):
            connection.request('GET', path, headers={
                'Authorization': 'Basic ' + b64encode(':'.join(ADMIN).encode()).decode()})
            try:
                answer = connection.getresponse()
            except (http.client.HTTPException, OSError):
                self.dies(zope)
            else:
                raise AssertionError(f'{answer.status}: {zope.log_tail(40)}')

    def _start(self, what, times, *argv):
        return self.stack.start(
            f'{self.name}-{what}',
            [sys.executable, '-m', 'tests.faults.killer', f'{self.number}:{times}', '-m', *argv],
            is_ready=lambda process: True)

    def dies(self, process):
        """Wait for the death of that process, and see that it was at the crash point."""
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            code = None
        assert code == -signal.SIGKILL and process.output().endswith(
            f'crash point {self.number}\n'), (code, process.log_tail(40))
        self.look()

    def stops(self, process):
        """Tell it to stop, on which way it dies."""
        os.kill(process.pid, signal.SIGTERM)
        self.dies(process)

    # who comes next

    def apart(self, action, *args, **kwargs):
        """As Bench does; the connection of the thread goes back to the pool."""
        def done():
            try:
                return action(*args, **kwargs)
            finally:
                action.__self__._database.close()

        self.db.storage.ping()  # what others have committed has come
        return super().apart(done)

    def next_life(self, id='zam1', **options):
        """The worker of that manager is started again, and does what it finds; → it."""
        worker = self.serve(id, threads=2, **options)
        self.run(worker)
        return worker

    def sibling(self, id='zam3'):
        """A sibling's worker lives for a minute and does what it finds; → it."""
        worker = self.serve(id, threads=2)
        self.let_pass(70, worker)
        self.run(worker)
        return worker

    def abandon(self, id='zam1', **options):
        """A worker that takes its desk, and of which nobody hears again; → it.

        Its process is one that has gone: ours lives.
        """
        worker = self.serve(id, start=False, threads=2, **options)
        self.step(worker)
        gone = subprocess.Popen([sys.executable, '-S', '-c', ''])
        gone.wait()
        self.look()
        self.zad[id].queue.card.pid = gone.pid
        transaction.commit()
        return worker
