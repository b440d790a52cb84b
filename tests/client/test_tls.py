"""The three hosts of docs/hosts.rst, on one: a worker is let in by its certificate or not."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import transaction
import Zope2.utilities
from persistent.mapping import PersistentMapping
from Zope2.Startup.options import ZopeWSGIOptions

from bench.processes import accepts
from bench.processes import free_port
from bench.processes import wait_until
from bench.stack import our_environment
from bench.stack import Stack
from bench.stack import zeo_python
from tests import certificates
from tests.client import jobs


class Estate:
    """A ZEO server run from etc/hosts, the database as Zope's zope.conf opens it, two managers."""

    def __init__(self, stack, made):
        self.stack, self.made = stack, made
        self.instance = stack.instance
        for name in ('etc', 'var'):
            (self.instance / name).mkdir()
        skeleton = Path(Zope2.utilities.__file__).parent / 'skel' / 'etc' / 'site.zcml'
        shutil.copy(skeleton, self.instance / 'etc')
        port = free_port()
        certificates.place_samples(self.instance, made, f'127.0.0.1:{port}')
        env = our_environment()
        del env['PYTHONPATH']
        stack.start('zeo', [zeo_python(), '-m', 'ZEO.runzeo', '-C', self.conf('zeo')], env=env,
                    is_ready=lambda process: accepts('127.0.0.1', port))
        [database] = ZopeWSGIOptions(str(self.conf('zope')))().configroot.databases
        self.db = database.open('main', {})
        self.connection = self.db.open()
        self._fill(self.connection.root())

    def _fill(self, root):
        from OFS.Application import Application

        from Products.zasync.manager import AsynchronousCallManager
        from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
        app = root['Application'] = Application()
        root['marks'] = PersistentMapping()
        app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
        self.dispatcher = app.asynchronous_call_dispatcher
        for id in ('zam1', 'zam2'):
            self.dispatcher._setObject(id, AsynchronousCallManager(id))
        transaction.commit()

    def conf(self, name):
        return self.instance / 'etc' / f'{name}.conf'

    def start_worker(self, manager, words):
        """A worker of host 3, started as the unit does; waits until its log has these words."""
        return self.stack.start(
            f'zasync-{manager}',
            [sys.executable, '-m', 'zasync_client', '-C', self.conf(f'zasync-{manager}')],
            is_ready=lambda process: words in process.output())

    def asks(self, command):
        """(exit code, standard error) of a command of zam1's worker."""
        done = subprocess.run(
            [sys.executable, '-m', 'zasync_client', '-C', self.conf('zasync-zam1'), command],
            capture_output=True, text=True, env=our_environment(), timeout=60)
        return done.returncode, done.stderr

    def give_up_tls(self):
        """Have the workers connect without."""
        conf = self.conf('workers')
        before, rest = conf.read_text('utf-8').split('    <ssl>\n')
        conf.write_text(before + rest.split('    </ssl>\n')[1], 'utf-8')

    def close(self):
        transaction.abort()
        self.connection.close()
        self.db.close()


@pytest.fixture(scope='module')
def authority(tmp_path_factory):
    """Certificates as docs/hosts.rst makes them."""
    certificates.skip_without_openssl()
    return certificates.make(tmp_path_factory.mktemp('ca'))


@pytest.fixture
def estate(authority):
    with Stack() as stack:
        estate = Estate(stack, authority)
        try:
            yield estate
        finally:
            estate.close()


def one_line_a_try(worker):
    """Whether what this worker says is for people: no flood, no traceback."""
    log = worker.output()
    return 'Traceback' not in log and log.count('\n') < 12


def test_a_worker_with_a_certificate_of_our_authority_runs_calls(estate):
    estate.start_worker('zam2', ' serves /asynchronous_call_dispatcher/zam2 ')
    transaction.begin()
    deferred = estate.dispatcher.zam2.putCall('zope_call', jobs.set_mark, 'over TLS', 7)
    transaction.commit()

    def ended():
        transaction.begin()
        return deferred.ended
    assert wait_until(ended, 30)
    assert deferred.result == 7
    assert estate.connection.root()['marks']['over TLS'] == 7


def test_a_worker_with_a_certificate_of_another_authority_is_refused(estate, tmp_path):
    certificates.place(estate.instance, certificates.make(tmp_path), 'workers')
    worker = estate.start_worker('zam1', 'does not accept the certificate of this worker')
    assert 'trying again in' in worker.output()
    assert worker.running
    assert one_line_a_try(worker)


def test_the_commands_tell_why_the_server_lets_nobody_in(estate, tmp_path):
    certificates.place(estate.instance, certificates.make(tmp_path), 'workers')
    for command in ('list', 'ping'):
        code, errors = estate.asks(command)
        assert code == 1
        assert re.fullmatch(r'zasync_client: the database can not be opened: the ZEO server at '
                            r'127\.0\.0\.1:\d+ does not accept the certificate of this worker: it '
                            r'closes the connection\n', errors)
    code, errors = estate.asks('check')
    assert code == 1
    assert re.fullmatch(r'error: the database main at 127\.0\.0\.1:\d+ can not be opened: the ZEO '
                        r'server at 127\.0\.0\.1:\d+ does not accept the certificate of this '
                        r'worker: it closes the connection\n', errors)
    estate.give_up_tls()
    code, errors = estate.asks('check')
    assert code == 1 and 'says nothing; if it wants TLS, this worker needs an <ssl>' in errors


def test_a_worker_without_a_certificate_is_refused(estate):
    estate.give_up_tls()
    worker = estate.start_worker('zam1', 'if it wants TLS, this worker needs an <ssl> section')
    assert worker.running
    assert one_line_a_try(worker)


def test_a_worker_does_not_trust_a_server_of_another_authority(estate, tmp_path):
    certificates.place(estate.instance, certificates.make(tmp_path), 'workers', 'ca')
    worker = estate.start_worker('zam1', 'has a certificate that this worker does not trust')
    assert one_line_a_try(worker)


def test_a_worker_with_tls_and_a_server_without_do_not_agree(estate, tmp_path):
    plain = Stack(tmp_path / 'plain')
    with plain:
        host, port = plain.start_zeo()
        certificates.place_samples(estate.instance, estate.made, f'{host}:{port}')
        worker = estate.start_worker('zam1', 'do not agree about TLS: WRONG_VERSION_NUMBER')
        assert one_line_a_try(worker)
