"""ZEO server, Zope and workers as real processes, started and stopped by Python.

    with Stack() as stack:
        stack.start_zeo()
        url = stack.start_zope()
        worker = stack.start_worker('worker1', '/asynchronous_call_dispatcher/zam1')
        stack.kill(worker)
        worker.start()

All files are in one directory, which is removed at the end; all ports are free ones on the
loopback; what was started is stopped in reverse, also on KeyboardInterrupt or SystemExit. Start
things in the main thread (processes.Process says why). Zope comes before the workers where the
database is empty: its first start writes.

Each process may be put on a host of its own (bench.hosts), with a clock that is wrong.

Imports: processes; hosts where it is given one.
"""

import contextlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.processes import accepts
from bench.processes import free_port
from bench.processes import Process


ROOT = Path(__file__).resolve().parents[1]
HOST = '127.0.0.1'

#: A server that has not answered by then has failed. Seconds; on two slow cores Zope takes 3.
READY_SECONDS = 60.0

#: The same for a worker. Seconds; longer because one that follows a killed worker first watches
#: whether that one really is dead.
WORKER_READY_SECONDS = 150.0

ADMIN = ('admin', 'admin')

_ZEO_CONF = '''\
<zeo>
  address {host}:{port}
</zeo>
<filestorage 1>
  path {data}/Data.fs
  blob-dir {data}/blobs
</filestorage>
<eventlog>
  level INFO
  <logfile>
    path STDOUT
  </logfile>
</eventlog>
'''

_ZOPE_CONF = '''\
%define INSTANCE {instance}
instancehome $INSTANCE
debug-mode off
<zodb_db main>
  mount-point /
  cache-size 20000
  pool-size 12
{storage}</zodb_db>
<environment>
  CHAMELEON_CACHE $INSTANCE/var/cache
</environment>
<product-config zasync-secrets>
  secret-key-file $INSTANCE/etc/secret.key
</product-config>
'''

_ZEO_CLIENT = '''\
  <zeoclient>
    server {host}:{port}
    storage 1
    cache-size 50MB
    blob-dir {base}/blobs
    shared-blob-dir on
    wait on
  </zeoclient>
'''

_FILE_STORAGE = '''\
  <filestorage>
    path {base}/Data.fs
    blob-dir {base}/blobs
  </filestorage>
'''

# Standard output is the log file, so what is printed before logging starts is in it too.
_ZOPE_INI = '''\
[app:zope]
use = egg:Zope#main
zope_conf = %(here)s/zope.conf

[server:main]
use = egg:waitress#main
host = {host}
port = {port}
threads = {threads}

[pipeline:main]
pipeline =
    egg:Zope#httpexceptions
    zope

[loggers]
keys = root, queue

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = INFO
handlers = console

# "Task queue depth is 7" for each request that waits: they are meant to.
[logger_queue]
qualname = waitress.queue
level = ERROR
handlers =

[handler_console]
class = StreamHandler
args = (sys.stdout,)
formatter = generic

[formatter_generic]
format = %(asctime)s %(levelname)s [%(name)s:%(lineno)s][%(threadName)s] %(message)s
'''

_ZASYNC_CONF = '''\
%include zope.conf
target {target}
threads {threads}
'''


_ZEO_QUESTION = '''
import importlib.util, sys
import ZEO.runzeo
for name in ('zasync_client', 'Products.zasync'):
    try:
        found = importlib.util.find_spec(name)
    except ImportError:
        continue
    if found:
        sys.exit(3)
'''


class StackError(Exception):
    """The stack cannot be built here; says what is missing."""


class Stack:
    """The processes of one site.

    base_dir -- an empty directory that stays; None: a temporary one that is removed.
    hosts -- the Hosts on which processes can be put; only needed for that.
    instance -- Zope's instance home, below. Logs are in its `log`, one file a process.
    zope_settings -- more lines for zope.conf, to be set before it is needed.
    zeo_address, zope_url -- None until they run. processes -- in the order of their start.
    """

    def __init__(self, base_dir=None, hosts=None):
        self.base_dir = Path(base_dir) if base_dir is not None else None
        self.zope_settings = ''
        self.hosts = hosts
        self.zeo_address = None
        self.zope_url = None
        self.processes = []
        self._exits = contextlib.ExitStack()

    def __enter__(self):
        if self.base_dir is None:
            self.base_dir = Path(tempfile.mkdtemp(prefix='zasync-'))
            self._exits.callback(shutil.rmtree, self.base_dir, ignore_errors=True)
        self.instance = self.base_dir / 'instance'
        self.log_dir = self.instance / 'log'
        self.log_dir.mkdir(parents=True)
        return self

    def __exit__(self, *exc_info):
        self._exits.close()

    # -- what can be started, in this order -----------------------------------------------------
    #
    # place -- nothing for this machine, or host=a Host and clock_shift=seconds its clock is wrong.

    def start_zeo(self, data=None, **place):
        """A ZEO server in an environment without our packages; -> its (host, port).

        data -- where its database is, if not in base_dir.
        """
        python = zeo_python()
        self.zeo_address = address_of(**place), free_port()
        config = self.base_dir / 'zeo.conf'
        config.write_text(_ZEO_CONF.format(host=self.zeo_address[0], port=self.zeo_address[1],
                                           data=data or self.base_dir), 'utf-8')
        env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        self.zeo = self.start('zeo', [python, '-m', 'ZEO.runzeo', '-C', config], env=env,
                              is_ready=lambda process: accepts(*self.zeo_address), **place)
        return self.zeo_address

    def make_instance(self):
        """Zope's instance home, with ADMIN as the first user; -> its path.

        What mkwsgiinstance makes, with the database of the ZEO server; with a file of its own
        if no server was started. And a file with a secret key.
        """
        etc = self.instance / 'etc'
        if etc.is_dir():
            return self.instance
        import Zope2.utilities
        from AuthEncoding import pw_encrypt
        from cryptography.fernet import Fernet
        for directory in (etc, self.instance / 'var' / 'cache'):
            directory.mkdir(parents=True)
        skeleton = Path(Zope2.utilities.__file__).parent / 'skel'
        shutil.copy(skeleton / 'etc' / 'site.zcml', etc)
        storage = _FILE_STORAGE.format(base=self.base_dir)
        if self.zeo_address is not None:
            storage = _ZEO_CLIENT.format(base=self.base_dir, host=self.zeo_address[0],
                                         port=self.zeo_address[1])
        (etc / 'zope.conf').write_text(_ZOPE_CONF.format(
            instance=self.instance, base=self.base_dir, storage=storage) + self.zope_settings,
            'utf-8')
        secret_key = etc / 'secret.key'
        secret_key.touch(0o600)
        secret_key.write_bytes(Fernet.generate_key())
        name, password = ADMIN
        (self.instance / 'inituser').write_bytes(
            b'%s:%s\n' % (name.encode('utf-8'), pw_encrypt(password, 'SHA256')))
        return self.instance

    def start_zope(self, threads=4, **place):
        """Zope under waitress; -> its URL, without a slash at the end."""
        host, port = address_of(**place), free_port()
        self.zope = self.start('zope', [sys.executable, '-m', 'Zope2.Startup.serve',
                                        self.zope_config(host, port, threads)],
                               is_ready=lambda process: answers(host, port), **place)
        self.zope_url = 'http://%s:%d' % (host, port)
        return self.zope_url

    def zope_config(self, host, port, threads=4):
        """Write the configuration of a Zope that listens there; -> its path."""
        config = self.make_instance() / 'etc' / 'zope.ini'
        config.write_text(self.zope_ini(host, port, threads), 'utf-8')
        return config

    def zope_ini(self, host, port, threads):
        """The text of a zope.ini, of a Zope that listens there."""
        return (_ZOPE_INI.replace('{host}', host).replace('{port}', str(port))
                .replace('{threads}', str(threads)))

    def start_worker(self, name, target, threads=2, settings='', **place):
        """A worker that serves the manager at `target`; -> its Process.

        settings -- more lines for its configuration.
        """
        config = self.worker_config(name, target, threads, settings)
        return self.start(
            name, [sys.executable, '-m', 'zasync_client', '-C', config],
            is_ready=lambda process: ' serves %s ' % target in process.output(),
            ready_seconds=WORKER_READY_SECONDS, **place)

    def worker_config(self, name, target, threads=2, settings=''):
        """Write the configuration of such a worker; -> its path."""
        config = self.make_instance() / 'etc' / ('%s.conf' % name)
        config.write_text(_ZASYNC_CONF.format(target=target, threads=threads) + settings, 'utf-8')
        return config

    def start(self, name, argv, *, is_ready, ready_seconds=READY_SECONDS, env=None, host=None,
              clock_shift=0):
        """Any other process, stopped with the rest; its log is log_dir/NAME.log; -> Process."""
        if host is not None:
            clock = self.hosts.wrong_clock(clock_shift) if clock_shift else {}
            argv = host.command(argv, cwd=self.base_dir, env=clock)
        process = Process(name, argv, self.log_dir / ('%s.log' % name), cwd=self.base_dir,
                          env=our_environment() if env is None else env,
                          is_ready=is_ready, ready_seconds=ready_seconds)
        self.processes.append(process)
        self._exits.callback(self.stop, process)
        return process.start()

    # -- how they end ---------------------------------------------------------------------------

    def kill(self, process):
        """SIGKILL, as a crash would be; process.start() starts it again."""
        process.kill()

    def stop(self, process):
        """TERM, and KILL for one that does not end; says so when that was needed."""
        remark = process.stop()
        if remark:
            print(remark, file=sys.stderr)


def address_of(host=None, clock_shift=0):
    """Where a process that is put there listens."""
    return HOST if host is None else host.address


def our_environment():
    """The environment for processes that import our packages, installed or not."""
    paths = [str(ROOT)] + [path for path in [os.environ.get('PYTHONPATH')] if path]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONUNBUFFERED='1')


def zeo_python():
    """The Python of the ZEO server's own environment.

    ZASYNC_ZEO_PYTHON in the environment names another. StackError when there is none, or when
    our packages can be imported there: a ZEO server needs none of our code, and this proves it.
    """
    python = os.environ.get('ZASYNC_ZEO_PYTHON') or ROOT / '.venv-zeo' / 'bin' / 'python'
    env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    try:
        code = subprocess.run([python, '-c', _ZEO_QUESTION], env=env, cwd=tempfile.gettempdir(),
                              capture_output=True).returncode
    except OSError:
        code = None
    if code == 3:
        raise StackError('%s can import our packages; the ZEO server is to run where they are '
                         'missing (make .venv-zeo makes such an environment)' % python)
    if code != 0:
        raise StackError('%s is no Python with ZEO in it: run "make .venv-zeo", or set '
                         'ZASYNC_ZEO_PYTHON' % python)
    return python


def answers(host, port):
    """True when an HTTP server there answers at all."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request('GET', '/')
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
