"""start, stop, restart, status: one worker, whatever was there before."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys

import pytest
from zc.lockfile import LockFile
from ZODB.FileStorage import FileStorage

from bench.processes import free_port
from bench.processes import wait_until
from bench.stack import our_environment
from Products.zasync.manager import AsynchronousCallManager
from tests.client import jobs
from tests.storm.disk import Disk
from zasync_client import pidfile


def runs(gate):
    """Whether a call waits at the gate."""
    return os.path.exists(gate + '.running')


def read(path):
    return path.read_text('utf-8', 'replace')


def test_start_status_restart_stop(site, operator):
    """The whole round, also from nothing: restart starts, and it restarts."""
    code, output, _ = operator.does('status')
    assert (code, output) == (1, 'not running; 0 waiting, 0 running\n')
    assert operator.refused('stop') == (
        1, f'no worker runs (nobody holds the PID file {operator.pid_path})')

    assert re.fullmatch(r'started: process \d+ serves /zam1\n', operator.gets('restart'))
    first = operator.pid()
    assert read(operator.pid_path).splitlines()[0] == str(first)
    assert ' serves /zam1 ' in read(operator.home / 'log' / 'zasync_output.log')
    deferred = site.put('zope_call', jobs.add, 1, 1)
    site.ended(deferred)
    assert re.fullmatch(
        rf'running, process {first} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC, serving /zam1; '
        r'0 waiting, 0 running\n', operator.gets('status'))
    facts = operator.json('status')
    assert facts['running'] and facts['serving'] and facts['pid'] == first
    assert (facts['target'], facts['waiting'], facts['paused']) == ('/zam1', 0, False)

    stopped, started = operator.gets('restart').splitlines()
    second = operator.pid()
    assert stopped == f'stopped: process {first}'
    assert started == f'started: process {second} serves /zam1'
    assert second != first

    assert operator.gets('stop') == f'stopped: process {second}\n'
    assert operator.pid() is None
    assert read(operator.pid_path) == ''
    code, output, _ = operator.does('status', '--json')
    assert (code, json.loads(output)['running']) == (1, False)


def test_a_worker_whose_target_is_gone_does_not_say_that_it_serves(site, operator):
    operator.gets('start')
    first = operator.pid()
    site.change(lambda: site.app._delObject('zam1'))
    found = wait_until(lambda: (held := pidfile.holder(str(operator.pid_path))).lost and held, 30)
    assert not found.serving
    code, output, _ = operator.does('status')
    assert code == 0
    assert output.endswith(' UTC, not serving /zam1 any more; there is nothing at /zam1\n')
    assert not operator.json('status')['serving']
    assert f'process {first} on {socket.gethostname()} waits for /zam1 ' in (
        operator.refused('start')[1])
    site.change(lambda: site.app._setObject('zam1', AsynchronousCallManager('zam1')))
    assert wait_until(lambda: pidfile.holder(str(operator.pid_path)).serving, 30)
    assert ', serving /zam1; 0 waiting' in operator.gets('status')


def test_a_worker_that_start_starts_has_the_environment_of_one_that_runs(
        site, operator, monkeypatch):
    """The file is read by the command and by the worker, and sets what it says once."""
    monkeypatch.setenv('WORD', 'given')
    path = operator.home / 'etc' / 'zope.conf'
    path.write_text(path.read_text('utf-8').replace(
        '<environment>', '<environment>\n  WORD $(WORD), more', 1), 'utf-8')
    operator.gets('start')
    deferred = site.put('zope_call', os.getenv, 'WORD')
    site.ended(deferred)
    assert deferred.result == 'given, more'
    operator.gets('restart')
    deferred = site.put('zope_call', os.getenv, 'WORD')
    site.ended(deferred)
    assert deferred.result == 'given, more'


def test_a_second_start_refuses_and_names_the_first(site, operator):
    operator.gets('start')
    sentence = (f'a worker runs already: process {operator.pid()} on {socket.gethostname()} '
                f'serves /zam1 (PID file {operator.pid_path})')
    assert operator.refused('start') == (1, sentence)
    code, _, errors = operator.does('run')
    assert (code, errors) == (1, f'zasync_client: {sentence}\n')
    site.ended(site.put('zope_call', jobs.add, 1, 1))


def test_of_two_starts_at_once_one_wins_and_the_other_names_it(site, operator):
    starts = [operator.begin('start') for _ in range(3)]
    ends = [(*process.communicate(timeout=100), process.returncode) for process in starts]
    won = [output for output, errors, code in ends if code == 0]
    lost = [errors for output, errors, code in ends if code == 1]
    assert (len(won), len(lost)) == (1, 2), ends
    assert won == [f'started: process {operator.pid()} serves /zam1\n']
    for errors in lost:
        assert f'a worker runs already: process {operator.pid()} on ' in errors
    site.ended(site.put('zope_call', jobs.add, 1, 1))


@pytest.mark.slow
def test_a_second_worker_of_the_target_with_another_configuration_names_the_first(site, operator):
    first = site.start_worker()
    code, sentence = operator.refused('start')
    assert code == 1
    assert sentence == ('the target /zam1 is served by another worker already: process '
                        f'{first.pid} on {socket.gethostname()}')
    code, output, _ = operator.does('status')
    assert code == 1
    assert output == (f'not running; process {first.pid} on {socket.gethostname()} has not signed '
                      'off from /zam1; 0 waiting, 0 running\n')


def test_a_PID_file_that_names_a_dead_or_a_foreign_process_stops_nobody(site, operator):
    """The number is somebody else's by now: that one is neither taken for a worker nor killed."""
    foreign = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
    try:
        operator.pid_path.write_text(f'{foreign.pid}\n{{"host": "elsewhere", "serving": true}}\n')
        assert operator.refused('stop')[0] == 1
        assert operator.does('status')[0] == 1
        operator.gets('start')
        assert operator.pid() != foreign.pid
        operator.gets('stop')
        assert foreign.poll() is None
    finally:
        foreign.communicate(b'\n')


def test_a_killed_worker_leaves_nothing_that_hinders_the_next(site, operator):
    operator.gets('start')
    first = operator.pid()
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: operator.pid() is None, 10)
    assert read(operator.pid_path).startswith(f'{first}\n')
    assert operator.does('status')[0] == 1
    operator.gets('start')
    assert operator.pid() not in (None, first)


def test_stop_waits_for_the_call_that_runs(site, operator, gate):
    operator.configure(drain=60)
    operator.gets('start')
    deferred = site.put('zope_call', jobs.wait_for_file, gate)
    site.wait(lambda: runs(gate))
    stop = operator.begin('stop')
    site.wait(lambda: not site.app.zam1.queue.pulse.accepting)
    assert stop.poll() is None
    with open(gate, 'w', encoding='ascii'):
        pass
    output, errors = stop.communicate(timeout=60)
    assert (stop.returncode, errors) == (0, '')
    assert output.startswith('stopped: process ')
    site.ended(deferred)
    assert deferred.state == 'resolved'


@pytest.mark.slow
def test_stop_kills_what_does_not_end_and_says_so(site, operator):
    operator.configure(drain=0)
    operator.gets('start')
    pid = operator.pid()
    os.kill(pid, signal.SIGSTOP)
    assert operator.gets('stop') == (
        f'killed: process {pid} had not ended 10 s after TERM; what it ran, if anything, runs '
        'again at the next start\n')
    assert operator.pid() is None


def test_a_second_TERM_stops_at_once(site, operator, gate):
    operator.configure(drain=60)
    operator.gets('start')
    site.put('zope_call', jobs.wait_for_file, gate)
    site.wait(lambda: runs(gate))
    pid = operator.pid()
    os.kill(pid, signal.SIGTERM)
    site.wait(lambda: not site.app.zam1.queue.pulse.accepting)
    os.kill(pid, signal.SIGTERM)
    assert wait_until(lambda: operator.pid() is None, 10)
    assert read(operator.pid_path) == ''


def test_start_says_why_the_worker_does_not_start(site, operator):
    operator.configure(target='/acl_users')
    assert operator.refused('start') == (
        2, "the target /acl_users is no asynchronous call manager but 'User Folder'")
    operator.configure(more='<eventlog>\n<logfile>\npath /no/such/directory/log\n</logfile>\n'
                            '</eventlog>')
    code, sentence = operator.refused('start')
    assert code == 2
    assert sentence.startswith('a log can not be opened: ')


def test_start_shows_the_output_of_a_worker_that_ends_without_a_word(site, operator):
    (operator.home / 'fatal.py').write_text(
        'import os, sys\n'
        'def handler(run):\n    pass\n'
        'if "run" in sys.argv:\n    print("no way\\x1b[2J", flush=True)\n    os._exit(7)\n')
    operator.configure(more='<plugin fatal>\n  handler fatal.handler\n</plugin>')
    output = operator.home / 'log' / 'zasync_output.log'
    sentence = f'the worker ended with code 7 before it served. The end of {output}:\n'
    assert operator.refused('start') == (1, sentence + '    no way\\x1b[2J')


def test_the_file_of_the_database_is_open_in_another_process(site, operator):
    path = operator.use_file_storage()
    storage = FileStorage(str(path))
    try:
        code, output, errors = operator.does('run')
        sentence = f'{path} is open in another process, and only one may have it open: use a ZEO '
        assert code == 2
        assert errors.startswith(f'zasync_client: {sentence}')
        assert sentence in output and 'Traceback' not in output
        code, told = operator.refused('start')
        assert code == 2 and told.startswith(sentence)
    finally:
        storage.close()


def test_the_cache_of_a_zeo_client_is_open_in_another_process(site, operator):
    path = operator.use_client_cache(site.address)
    lock = LockFile(f'{path}.lock')
    try:
        sentence = (f'{path}, the cache of a ZEO client, is open in another process, and only one '
                    'may have it open: give one of the two another client or cache-path in its '
                    'file, or none')
        assert operator.refused('start') == (2, sentence)
        assert operator.does('check') == (2, '', f'error: the database main: {sentence}\n')
    finally:
        lock.close()
    assert operator.does('check')[0] == 0
    assert operator.gets('start').endswith(' serves /zam1\n')


def test_a_handler_that_is_gone_is_in_nobody_s_way_but_that_of_a_start(site, operator):
    module = operator.home / 'going.py'
    module.write_text('def handler():\n    pass\n', 'utf-8')
    operator.configure(more='<plugin going>\n  handler going.handler\n</plugin>')
    operator.gets('start')
    first = operator.pid()
    module.unlink()
    assert operator.gets('status').startswith(f'running, process {first} ')
    assert operator.gets('list') == 'no such calls\n'
    for command in ('restart', 'start', 'run'):
        code, sentence = operator.refused(command)
        assert code == 2 and "the handler 'going.handler' can not be imported" in sentence
    assert operator.pid() == first
    assert operator.gets('stop') == f'stopped: process {first}\n'


@pytest.mark.slow
def test_start_tells_that_the_worker_waits_for_its_server(site, operator):
    conf = operator.home / 'etc' / 'zope.conf'
    conf.write_text(re.sub(r'server .*', f'server 127.0.0.1:{free_port()}', read(conf)))
    output = operator.gets('start', '--wait', '1')
    pid = wait_until(operator.pid, 30)  # one with much to do is slower than a second
    assert output == (f'started: process {pid} runs, but does not serve /zam1 after 1 s; it goes '
                      f'on trying. Its log tells why: zasync_client -C {operator.conf} logtail\n')
    output = operator.gets('status')
    assert re.match(rf'running, process {pid} since .* UTC, not serving /zam1 yet; '
                    'the database can not be ', output)
    assert re.match(rf'(stopped|killed): process {pid}', operator.gets('stop'))


def test_two_files_of_one_name_do_not_take_each_other_s_worker_for_their_own(site, operator):
    operator.gets('start')
    first, theirs = operator.pid(), str(operator.conf)
    (operator.home / 'etc' / 'other').mkdir()
    operator.conf = operator.home / 'etc' / 'other' / 'zasync.conf'
    operator.configure(target='/zam2')
    operator.conf.write_text(read(operator.conf).replace('zope.conf', '../zope.conf'), 'utf-8')
    sentence = (f'the PID file {operator.pid_path} is held by the worker of another '
                f'configuration: process {first} on {socket.gethostname()} serves /zam1, as '
                f'{theirs} says. Give one of the two files another name, which is that of its '
                'PID file too, or a line worker-pid-filename')
    for command in ('status', 'stop', 'restart', 'start'):
        assert operator.refused(command) == (2, sentence)
    code, _, errors = operator.does('run')
    assert (code, errors) == (2, f'zasync_client: {sentence}\n')
    assert operator.pid() == first


def test_a_file_that_names_another_target_now_still_stops_its_worker(site, operator):
    operator.gets('start')
    first = operator.pid()
    operator.configure(target='/zam2')
    assert operator.gets('stop') == f'stopped: process {first}\n'


def test_a_PID_file_that_can_not_be_written_is_refused(site, operator):
    operator.pid_path.mkdir()
    for command in ('run', 'start'):
        code, _, errors = operator.does(command)
        assert code == 2
        assert f'the PID file {operator.pid_path} can not be written: Is a directory' in errors


def test_a_worker_waits_for_a_full_disk_to_take_its_PID_file(site, operator, tmp_path):
    with Disk(tmp_path / 'disk', 1) as disk:
        disk.fill()
        operator.configure(more=f'worker-pid-filename {disk.path}/zasync.pid')
        argv = disk.command(operator.argv('run'), operator.home, our_environment())
        with open(tmp_path / 'log', 'wb') as log:
            worker = subprocess.Popen([str(word) for word in argv], stdout=log, stderr=log)
        try:
            assert wait_until(lambda: worker.poll() is not None or read(tmp_path / 'log'), 30)
            assert (f'the disk with the PID file {disk.path}/zasync.pid is out of reach (No space '
                    'left on device); trying again in 0 s') in read(tmp_path / 'log')
            assert not pidfile.holder(str(disk.here / 'zasync.pid')).serving
            disk.free()
            assert wait_until(lambda: pidfile.holder(str(disk.here / 'zasync.pid')).serving, 30)
            worker.terminate()
            assert worker.wait(30) == 0
        finally:
            worker.kill()
            worker.wait()


def test_a_start_whose_standard_streams_are_closed_is_told_that_the_worker_serves(site, operator):
    """Init scripts close them; then the pipe to the worker must not get one of their numbers."""
    code = shell(operator, 'start', '<&- >&- 2>&-').returncode
    pid = operator.pid()
    assert code == 0 and pid is not None
    assert 'serving\n' not in read(operator.home / 'log' / 'zasync_output.log').splitlines(True)
    code = shell(operator, 'restart', '<&- >&- 2>&-').returncode
    assert code == 0 and operator.pid() not in (None, pid)


def test_a_restart_whose_output_nobody_can_read_starts_the_worker(site, operator):
    operator.gets('start')
    first = operator.pid()
    done = shell(operator, 'restart', '>/dev/full')
    second = operator.pid()
    assert second not in (None, first)
    assert (done.returncode, done.stderr) == (
        1, 'zasync_client: the output can not be written: No space left on device\n')
    done = shell(operator, 'restart', '| true')
    assert done.stderr == ''
    assert wait_until(lambda: operator.pid() not in (None, second), 30)
    assert wait_until(lambda: pidfile.holder(str(operator.pid_path)).serving, 30)


@pytest.mark.parametrize('words', [
    ['-C', 'etc/zasync.conf', 'status'], ['run'], ['start'], ['key', 'secret.key']])
def test_a_directory_that_is_gone_is_told_of_in_a_sentence(operator, tmp_path, words):
    """A shell stays in it when a deployment has put another one into its place."""
    gone = tmp_path / 'gone'
    gone.mkdir()
    done = subprocess.run(
        ['sh', '-c', 'rmdir "$0" && exec "$@"', gone, *operator.argv(*words)], cwd=gone, text=True,
        env=our_environment(), capture_output=True, timeout=60)
    sentence = 'the directory that it was started in is gone: start it in one that is there'
    assert (done.returncode, done.stderr) == (2, f'zasync_client: {sentence}\n')


def test_a_proxy_of_the_web_server_whose_name_is_unknown_here_hinders_no_worker(site, operator):
    """It comes in with the zope.conf of a host that knows the name."""
    operator.configure(more='trusted-proxy proxy.invalid')
    assert operator.gets('check').endswith(': no errors\n')
    assert operator.gets('start').startswith('started: process ')


@pytest.mark.parametrize('command', ['start', 'restart', 'check', 'drain', 'ping'])
def test_a_wait_of_centuries_is_wrong_use_and_nothing_is_done(operator, command):
    """The system would refuse it, when the worker has been stopped or started already."""
    code, output, errors = operator.does(command, '--wait', '99999999999d')
    assert (code, output) == (2, '')
    assert errors.endswith("argument --wait: is ten years at most, not '99999999999d'\n")
    assert operator.pid() is None


def shell(operator, command, redirection):
    """A command whose output goes where a shell sends it, at once and not at its end."""
    return subprocess.run(
        f'{shlex.join(operator.argv(command))} {redirection}', shell=True, text=True, timeout=60,
        env={**our_environment(), 'PYTHONUNBUFFERED': '1'}, stderr=subprocess.PIPE,
        cwd=operator.home)
