"""Who holds a PID file: the kernel's answer, not the file's."""

import socket
import subprocess
import sys

import pytest

from zasync_client import pidfile
from zasync_client.errors import AlreadyRunning
from zasync_client.errors import ConfigurationError
from zasync_client.errors import NotSo
from zasync_client.pidfile import Holder


HOLD = '''
import sys
from zasync_client.pidfile import PidFile
file = PidFile(sys.argv[1])
file.take(target='/zam1', host='here')
print('held', flush=True)
for line in sys.stdin:
    {'serve': lambda: file.tell(serving=True), 'clear': file.clear}[line.strip()]()
    print('done', flush=True)
'''


class Holding:
    """A process that holds a PID file."""

    def __init__(self, path):
        self.process = subprocess.Popen([sys.executable, '-c', HOLD, path], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == 'held\n'

    def do(self, what):
        self.process.stdin.write(what + '\n')
        self.process.stdin.flush()
        assert self.process.stdout.readline() == 'done\n'

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / 'var' / 'zasync.pid')


@pytest.fixture
def holding(path):
    holding = Holding(path)
    yield holding
    holding.kill()


def test_the_holder_is_told_by_the_lock_and_goes_with_its_process(path, holding):
    found = pidfile.holder(path)
    assert (found.pid, found.is_here, found.serving) == (holding.process.pid, True, False)
    assert found.told['target'] == '/zam1'
    holding.do('serve')
    assert pidfile.holder(path).serving
    holding.kill()
    assert pidfile.holder(path) is None


def test_while_it_ends_the_holder_still_holds_it(path, holding):
    holding.do('clear')
    found = pidfile.holder(path)
    assert (found.pid, found.told) == (holding.process.pid, {})


def test_whatever_the_file_says_the_lock_tells_who_holds_it(path, holding):
    for content in (b'', b'1\n', b'999999\n{"pid": 1}\n', b'\xff\n\xff\n', b'1\n[]\n', b'\0' * 99):
        with open(path, 'wb') as file:
            file.write(content)
        assert pidfile.holder(path).pid == holding.process.pid


def test_a_second_one_is_refused_and_told_who_holds_it(path, holding):
    with pytest.raises(AlreadyRunning) as caught:
        pidfile.PidFile(path).take()
    assert str(caught.value) == (f'a worker runs already: process {holding.process.pid} on here '
                                 f'starts to serve /zam1 (PID file {path})')


READ = '''
import fcntl, sys
file = open(sys.argv[1])
fcntl.lockf(file, fcntl.LOCK_SH)
print('held', flush=True)
sys.stdin.read()
'''


def test_who_can_only_read_it_is_taken_for_no_worker(path, holding):
    """Nor killed in place of one: anybody may have a lock for reading, a backup for example."""
    reader = subprocess.Popen([sys.executable, '-c', READ, path], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        holding.kill()
        assert reader.stdout.readline() == 'held\n'
        assert pidfile.holder(path) is None
        with pytest.raises(NotSo, match=f'process {reader.pid}, which is no worker'):
            pidfile.PidFile(path).take()
    finally:
        reader.communicate('')
    pidfile.PidFile(path).take()


def test_nobody_holds_what_is_not_there_or_is_left_over(path, tmp_path):
    assert pidfile.holder(path) is None
    (tmp_path / 'var').write_text('a file')
    assert pidfile.holder(path) is None
    (tmp_path / 'var').unlink()
    (tmp_path / 'var').mkdir()
    with open(path, 'w', encoding='ascii') as file:
        file.write('1\n{"pid": 1, "host": "elsewhere", "serving": true}\n')
    assert pidfile.holder(path) is None


def test_where_it_can_not_be_written_a_sentence_says_so(tmp_path):
    (tmp_path / 'file').write_text('')
    for path in (tmp_path / 'file' / 'zasync.pid', '/proc/zasync.pid'):
        with pytest.raises(ConfigurationError, match='the PID file .* can not be written: '):
            pidfile.PidFile(str(path)).take()


def test_a_holder_in_another_container_is_named_by_what_it_told():
    """The kernel counts it as process 0 here; a signal to that would go to ourselves."""
    found = Holder(0, {'pid': 7, 'host': 'box', 'target': '/zam1', 'serving': True})
    assert not found.is_here
    assert str(pidfile.already_running('/x.pid', found)) == (
        'a worker runs already: process 7 on box serves /zam1 (PID file /x.pid)')
    assert str(Holder(0, {})) == 'process unknown on an unknown host'


@pytest.mark.parametrize('told, is_it', [
    ({'configuration': '/a.conf', 'target': '/zam1'}, True),
    ({'configuration': '/a.conf', 'target': '/zam2'}, True),  # the file was changed since
    ({'configuration': '/b.conf', 'target': '/zam1'}, True),  # moved, or seen from a container
    ({'configuration': '/b.conf', 'target': '/zam2'}, False),
    ({}, True), ({'target': '/zam2'}, True)])
def test_a_holder_with_another_file_and_another_target_is_another_worker(told, is_it):
    assert Holder(1, told).may_be_of('/a.conf', '/zam1') == is_it


def test_one_that_went_meanwhile_is_no_reason_to_name_nobody():
    assert str(pidfile.already_running('/x.pid', None)).endswith('just now: try again')


def test_the_host_is_what_the_worker_says(path, holding):
    assert str(pidfile.holder(path)) == f'process {holding.process.pid} on here'
    assert socket.gethostname()
