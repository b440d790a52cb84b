"""A PostgreSQL server with an empty database, on a free port, for a test or a benchmark.

    with Postgres() as server:
        server.dsn            for libpq and RelStorage
        server.stop()         as `pg_ctl stop -m fast`: it ends all connections
        server.start()
        server.start_as_standby(), server.promote()

The packaged server and its clusters are left alone: programs alone are used. It refuses to run as
root, so then it runs as the user that Debian's package made for it.

Imports: processes.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg2

from bench.processes import free_port
from bench.processes import Process


HOST = '127.0.0.1'
USER = 'postgres'

#: Of a server that keeps nothing when the machine stops.
CARELESS = {'fsync': 'off', 'full_page_writes': 'off', 'shared_buffers': '16MB'}


class PostgresMissing(Exception):
    """The server is not installed; says what to do."""


def program(name):
    """The path of one of PostgreSQL's programs; Debian keeps them out of PATH."""
    found = sorted(Path('/usr/lib/postgresql').glob(f'*/bin/{name}'))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise PostgresMissing('PostgreSQL is not installed (Debian: apt-get install postgresql)')
    return path


class Postgres:
    """One server, with a database and a superuser that are both called as USER.

    settings -- {name: value} that are not as PostgreSQL has them.
    """

    def __init__(self, settings=CARELESS):
        self._settings = {'listen_addresses': HOST, **settings}

    def __enter__(self):
        initdb, server = program('initdb'), program('postgres')
        self.base_dir = Path(tempfile.mkdtemp(prefix='zp-'))
        try:
            self._make(initdb, server)
            self.start()
            return self
        except BaseException:
            self.__exit__()
            raise

    def start(self):
        """Start it, and wait until it takes connections."""
        self.process.start()

    def stop(self):
        """End it, and the connections there are with it."""
        os.kill(self.process.pid, signal.SIGINT)
        self.process.wait(30)

    def start_as_standby(self):
        """Start it, read-only until it is promoted; wait until it can be read."""
        (self.base_dir / 'data' / 'standby.signal').touch()
        self.process.is_ready = lambda process: 'accept read-only connections' in process.output()
        self.start()

    def promote(self):
        """Make a primary of a standby, and wait until it is one."""
        connection = psycopg2.connect(self.dsn)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute('select pg_promote()')
        connection.close()

    def _make(self, initdb, server):
        as_user = []
        if os.geteuid() == 0:
            try:
                entry = pwd.getpwnam(USER)
            except KeyError:
                raise PostgresMissing(f'there is no user {USER}') from None
            os.chown(self.base_dir, entry.pw_uid, entry.pw_gid)
            as_user = ['setpriv', f'--reuid={USER}', f'--regid={USER}', '--clear-groups']
        data = self.base_dir / 'data'
        subprocess.run([*as_user, initdb, '-D', data, '-U', USER, '-A', 'trust', '-E', 'UTF8',
                        '--locale=C', '--no-sync'], check=True, capture_output=True, timeout=60,
                       cwd=self.base_dir)
        self.port = free_port()
        options = [part for item in self._settings.items() for part in ('-c', '%s=%s' % item)]
        self.process = Process(
            'postgres', [*as_user, server, '-D', data, '-p', self.port, '-k', self.base_dir,
                         *options], self.base_dir / 'log', ready_seconds=30, cwd=self.base_dir,
            is_ready=lambda process: 'ready to accept connections' in process.output(),
            death_signal=signal.SIGINT)
        self.dsn = f'host={HOST} port={self.port} user={USER} dbname={USER}'

    def __exit__(self, *exc_info):
        process = getattr(self, 'process', None)
        if process is not None and process.running:
            self.stop()
        shutil.rmtree(self.base_dir, ignore_errors=True)
