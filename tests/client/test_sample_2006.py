"""A zasync.conf of 2006 still starts a worker, which says what to write instead."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.processes import wait_until
from bench.stack import our_environment
from Products.zasync.manager import AsynchronousCallManager
from tests.client import jobs
from zasync_client import historic


SAMPLE = Path(__file__).with_name('sample_2006.conf')

ID = 'asynchronous_call_manager'

#: Lines of the sample that the worker has a sentence on, by a word of each.
WORDS = ('ZOPE3_SITE_ZCML', 'skip-authentication-checking', 'skip-ownership-checking',
         'version-pool-size', 'version-cache-size', 'win32-eventlog', *(
             dotted for dotted in historic.HANDLERS
             if dotted.startswith('Products.') == dotted.endswith('ldap')))


def written(home, server, text=None):
    """The sample with its paths and the server's address changed; → its path."""
    for name in ('etc', 'var', 'log', 'Products'):
        (home / name).mkdir(exist_ok=True)
    path = home / 'etc' / 'zasync.conf'
    path.write_text((text or SAMPLE.read_text('utf-8')).replace('@ZOPE@', str(home / 'zope'))
                    .replace('@INSTANCE@', str(home)).replace('@SERVER@', server), 'utf-8')
    return path


@pytest.fixture
def place(site, tmp_path):
    """(directory of an instance, path of the sample in it); the site has its target."""
    site.change(lambda: ID in site.app.objectIds() or site.app._setObject(
        ID, AsynchronousCallManager(ID)))
    return tmp_path, written(tmp_path, '%s:%d' % site.address)


@pytest.fixture
def worker(place):
    """A worker with the sample, and the text of its log."""
    home, path = place
    process = subprocess.Popen([sys.executable, '-m', 'zasync_client', '-C', str(path)],
                               env=our_environment(), cwd=home, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)

    def log():
        file = home / 'log' / 'zasync.log'
        return file.read_text('utf-8') if file.exists() else ''

    try:
        assert wait_until(lambda: f' serves /{ID} ' in log() or process.poll() is not None, 60)
        assert process.poll() is None, process.communicate()[0]
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_the_sample_of_2006_starts_a_worker_that_serves_and_says_what_to_write(site, worker):
    site.become('boss')
    put = [site.put('zope_exec', '/', {'name': 'x'}, 'python: home.getId() + request.name', {},
                    manager=ID),
           # Protected, so that skip-authentication-checking would have it refused.
           site.put('zope_exec', '/', {}, "python: home.manage_addProperty('y', 'z', 'string')",
                    manager=ID),
           site.put('schedule', 0, 'zope_call', jobs.add, 1, 2, manager=ID),
           site.put('aggregate', [('zope_call', (jobs.add, 1, 1))], manager=ID)]
    site.ended(*put)
    assert [deferred.failure for deferred in put] == [None] * len(put)
    assert [deferred.result for deferred in (put[0], *put[2:])] == ['x', 3, [2]]
    assert site.app.getProperty('y') == 'z'
    warnings = [line for line in worker().splitlines() if ' WARNING zasync ' in line]
    for word in WORDS:
        assert any(word in line and re.search(r'zasync\.conf, line \d+: ', line)
                   for line in warnings), word
    # Zope's own directories are gone, wherever the file looks for them.
    assert sum('there is no such directory' in line for line in warnings) == 3
    assert sum('the plugin schedule puts another call' in line for line in warnings) == 1
    assert len(warnings) == len(WORDS) + 4


def test_a_user_without_the_right_stays_refused_though_the_sample_skips_checks(site, worker):
    site.become('bob')
    deferred = site.put('zope_exec', '/', {},
                        "python: home.manage_addProperty('w', 'z', 'string')", manager=ID)
    site.ended(deferred)
    assert deferred.failure.type_name.endswith('Unauthorized')
    # verbose-traceback: values, under the lines of the traceback.
    assert wait_until(lambda: 'raised an exception' in worker(), 10)
    assert re.search(r"^      text = \"python: home.manage_addProperty", worker(), re.M)


def test_check_has_only_warnings_on_the_sample(place):
    home, path = place
    done = subprocess.run([sys.executable, '-m', 'zasync_client', '-C', str(path), 'check'],
                          env=our_environment(), cwd=home, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ''
    for word in WORDS:
        assert re.search(f'^warning: .*{re.escape(word)}', done.stdout, re.M), word
    assert list((home / 'log').iterdir()) == []
    assert list((home / 'var').iterdir()) == []


def test_the_sample_starts_without_the_package_for_temporary_storages(place):
    """It is an extra; the sample has such a database for mounting only."""
    home, path = place
    program = ('import sys; sys.modules["tempstorage"] = None; '
               'from zasync_client.cli import main; sys.exit(main(sys.argv[1:]))')
    done = subprocess.run([sys.executable, '-c', program, '-C', str(path), 'check'],
                          env=our_environment(), cwd=home, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
