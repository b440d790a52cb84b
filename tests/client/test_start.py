"""How a worker starts, waits or refuses: one sentence each, and the exit code."""

import signal
import socket
import subprocess
import sys

import pytest
import transaction

from tests.client import jobs


# <zeoclient> knows no wait-timeout; ZEO's own section does.
CONF = """
%import ZEO
instancehome {home}
target {target}
initial-retry-delay 0.2
max-total-retry {patience}
<zodb_db main>
  <clientstorage>
    server {host}:{port}
    wait-timeout {wait}
  </clientstorage>
  mount-point /
</zodb_db>
{more}
"""


@pytest.fixture
def conf(tmp_path):
    """Writes a zasync.conf and returns its path."""
    def write(address=('127.0.0.1', 1), target='/zam1', patience=60, more='', wait=1):
        path = tmp_path / 'zasync.conf'
        path.write_text(CONF.format(home=tmp_path, target=target, patience=patience,
                                    host=address[0], port=address[1], more=more, wait=wait),
                        encoding='utf-8')
        return str(path)
    return write


def start(path):
    """A worker process with its output in pipes."""
    return subprocess.Popen([sys.executable, '-m', 'zasync_client', '-C', path],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def refused(path):
    """(exit code, standard error) of a worker that is expected not to start."""
    process = start(path)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def line_with(process, words):
    """Read the worker's log up to the line that holds these words."""
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f'the log ended without {words!r}: {process.stderr.read()}')


def free_port():
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize(('more', 'words'), [
    ('no-such-key 1', "'no-such-key' is not a known key name"),
    ('threads none', "must be a whole number, 1 or more and 1,000 at most, not 'none'"),
    ('threads 0', 'must be a whole number, 1 or more'),
    ('drain-seconds soon', "must be a number, not 'soon'"),
    ('retry-exponential-backoff 0.9', 'must be 1 (constant) or more'),
    ('<plugin odd>\n handler no.such.thing\n</plugin>',
     "plugin odd: the handler 'no.such.thing' can not be imported"),
    ('<plugin odd>\n handler os.path.sep\n</plugin>',
     "plugin odd: the handler 'os.path.sep' can not be called"),
    ('<plugin odd>\n zope-aware on\n handler tests.client.jobs.nothing_by_position\n</plugin>',
     'takes no argument by position'),
    ('<plugin odd>\n description no handler\n</plugin>', 'the plugin odd needs a handler'),
])
def test_a_wrong_configuration_is_refused_in_one_sentence(conf, more, words):
    code, errors = refused(conf(more=more))
    assert code == 2
    assert words in errors
    assert 'Traceback' not in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_missing_configuration_file_is_named(tmp_path):
    code, errors = refused(str(tmp_path / 'none.conf'))
    assert code == 2
    assert 'there is no configuration file' in errors
    assert 'none.conf' in errors


def test_a_target_that_is_no_manager_is_refused(site, conf):
    code, errors = refused(conf(site.address, target='/acl_users'))
    assert code == 2
    assert errors.strip().endswith(
        "the target /acl_users is no asynchronous call manager but 'User Folder'")


def test_the_target_does_not_exist(site, conf):
    from Products.zasync.manager import AsynchronousCallManager
    process = start(conf(site.address, target='/later'))
    try:
        line_with(process, 'the target /later is out of reach')
        site.change(lambda: site.app._setObject('later', AsynchronousCallManager('later')))
        line_with(process, 'serves /later')
        deferred = site.put('zope_call', jobs.add, 1, 1, manager='later')
        site.ended(deferred)
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors


def test_a_missing_target_is_given_up_after_max_total_retry(site, conf):
    code, errors = refused(conf(site.address, target='/never', patience=0.5))
    assert code == 2
    assert 'the target /never was out of reach' in errors
    assert 'max-total-retry' in errors


def test_the_zeo_server_is_away_when_a_worker_starts(conf):
    process = start(conf(('127.0.0.1', free_port())))
    try:
        assert 'trying again in' in line_with(process, 'the database server is out of reach')
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors


MOUNTED = '''\
<zodb_db other>
  <clientstorage>
    server 127.0.0.1:{port}
    wait-timeout 3600
  </clientstorage>
  mount-point /other
</zodb_db>
'''


@pytest.mark.parametrize('away', ['the root database', 'a mounted one'])
def test_a_worker_that_waits_for_its_server_is_told_to_stop(site, conf, away):
    """The storage's own wait, an hour here, is not cut short; but nobody waits for its end."""
    mounted = away == 'a mounted one'
    address = site.address if mounted else ('127.0.0.1', free_port())
    more = MOUNTED.format(port=free_port()) if mounted else ''
    process = start(conf(address, wait=3_600, more=more))
    try:
        line_with(process, 'retry connecting')
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, '')
    assert 'stopped while waiting for the database server' in output


def test_the_configuration_that_ZOPE_CONFIG_names_is_that_of_another_process(
        site, conf, tmp_path, monkeypatch):
    (tmp_path / 'zope.conf').write_text(
        f'instancehome {tmp_path}\n<zodb_db main>\nmount-point /\n<mappingstorage>\n'
        '</mappingstorage>\n</zodb_db>\n', 'utf-8')
    monkeypatch.setenv('ZOPE_CONFIG', str(tmp_path / 'zope.conf'))
    process = start(conf(site.address, patience=1))
    try:
        line_with(process, 'serves /zam1')
        site.ended(site.put('zope_call', jobs.add, 1, 1))
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors


#: The command, in a Zope that meets a conflict when it starts.
MEETS_CONFLICT = '''
import sys
from OFS import Application
from ZODB.POSException import ConflictError
from zasync_client import cli

def initialize(app, tries=[], real=Application.initialize):
    tries.append(app)
    if len(tries) == 1:
        app.title = 'of the first try'
        raise ConflictError
    app.had_tries = len(tries)
    real(app)

Application.initialize = initialize
sys.exit(cli.main(sys.argv[1:]))
'''


def test_a_zope_that_meets_a_conflict_when_it_starts_does_all_of_it_again(site, conf):
    process = subprocess.Popen([sys.executable, '-c', MEETS_CONFLICT, '-C', conf(site.address)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line_with(process, 'serves /zam1')
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    transaction.begin()
    assert site.app.had_tries == 2
    assert site.app.title == 'Zope'


def test_an_unreachable_server_is_given_up_after_max_total_retry(conf):
    code, errors = refused(conf(('127.0.0.1', free_port()), patience=0.5))
    assert code == 2
    assert 'the database server was out of reach' in errors


@pytest.mark.parametrize('ends', ['told to', 'by itself'])
def test_a_worker_ends_though_a_call_has_left_a_thread(site, conf, ends):
    process = start(conf(site.address))
    try:
        line_with(process, 'serves /zam1')
        site.ended(site.put('zope_call', jobs.leave_thread))
        if ends == 'told to':
            process.send_signal(signal.SIGTERM)
        else:
            site.change(lambda: site.app.zam1.queue.desk.take('another'))
        output, _ = process.communicate(timeout=30)
        assert process.returncode == (0 if ends == 'told to' else 1)
        assert 'threads or processes that calls have left in it go on' in output
    finally:
        process.kill()
        process.communicate()


def test_help_tells_the_options():
    done = subprocess.run([sys.executable, '-m', 'zasync_client', '--help'], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0
    assert '-C FILE' in done.stdout


def test_an_unknown_command_is_a_usage_error():
    done = subprocess.run([sys.executable, '-m', 'zasync_client', 'dance'], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 2
