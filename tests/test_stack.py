"""What starts and stops processes for the tests, the benchmarks and the demonstration."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from bench import demo
from bench import processes
from bench import stack
from bench.processes import free_port
from bench.processes import Process
from bench.processes import ProcessError
from bench.processes import wait_until
from bench.terminal import Progress
from bench.terminal import table


SLEEPER = [sys.executable, '-c', 'import time; print("up", flush=True); time.sleep(60)']
STUBBORN = [sys.executable, '-c', '''
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
''']


def is_up(process):
    return 'up' in process.output()


def exists(pid):
    """Whether a process of that number runs; one that nobody waited for has ended."""
    try:
        with open('/proc/%d/stat' % pid) as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.fixture
def child(tmp_path):
    """Make a Process of an argv; it is killed in the end."""
    made = []

    def make(argv, seconds=20):
        made.append(Process('child', argv, tmp_path / 'log', is_ready=is_up,
                            ready_seconds=seconds))
        return made[-1]
    yield make
    for process in made:
        process.kill()


def test_a_process_is_up_when_start_returns_and_gone_after_stop(child):
    process = child(SLEEPER).start()
    pid = process.pid
    assert exists(pid)
    assert process.stop() is None
    assert not exists(pid)


def test_a_killed_process_can_be_started_again(child):
    process = child(SLEEPER).start()
    first = process.pid
    process.kill()
    process.start()
    assert process.pid != first
    assert process.output().count('up') == 1


def test_a_process_that_ignores_term_is_killed_and_it_is_said(child):
    process = child(STUBBORN).start()
    assert 'was killed' in process.stop(seconds=0.2)
    assert not process.running


def test_a_process_that_ends_at_once_is_quoted(child):
    with pytest.raises(ProcessError, match='(?s)ended with code 1.*no such thing'):
        child([sys.executable, '-c', 'raise SystemExit("no such thing")']).start()


def test_a_process_that_is_never_ready_is_killed(child):
    process = child([sys.executable, '-c', 'import time; time.sleep(60)'], seconds=0.3)
    with pytest.raises(ProcessError, match='not ready after 0.3 s'):
        process.start()
    assert not process.running


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='asks the Linux kernel')
def test_children_die_with_us_whatever_happens(tmp_path):
    parent = subprocess.Popen([sys.executable, '-c', '''
import sys, time
from bench.processes import Process
child = Process('child', sys.argv[2:], sys.argv[1], is_ready=lambda p: 'up' in p.output(),
                ready_seconds=20).start()
print(child.pid, flush=True)
time.sleep(60)
''', str(tmp_path / 'log'), *SLEEPER], stdout=subprocess.PIPE, text=True,
                              env=stack.our_environment())
    with parent:
        pid = int(parent.stdout.readline())
        assert exists(pid)
        parent.kill()
    assert wait_until(lambda: not exists(pid), 10)


def test_the_stack_runs_zope_and_leaves_nothing(tmp_path):
    with stack.Stack() as running:
        running.start_zeo()
        url = running.start_zope(threads=1)
        base, pids = running.base_dir, [process.pid for process in running.processes]
        assert stack.answers(*url.removeprefix('http://').split(':'))
        assert all(map(exists, pids))
    assert not base.exists()
    assert not any(map(exists, pids))


def test_a_zeo_environment_that_has_our_packages_is_refused(monkeypatch, tmp_path):
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nPYTHONPATH="%s" exec "%s" "$@"\n'
                      % (stack.ROOT, sys.executable), 'utf-8')
    python.chmod(0o755)
    monkeypatch.setenv('ZASYNC_ZEO_PYTHON', str(python))
    with pytest.raises(stack.StackError, match='can import our packages'):
        stack.zeo_python()


def test_without_a_zeo_environment_it_is_said_how_to_make_one(monkeypatch):
    monkeypatch.setenv('ZASYNC_ZEO_PYTHON', '/nonexistent/python')
    with pytest.raises(stack.StackError, match='make .venv-zeo'):
        stack.zeo_python()


@pytest.mark.parametrize('name', ['.venv', '.venv-zeo', '.venv-plone', '.venv-peers'])
def test_an_environment_that_was_moved_with_its_checkout_is_made_anew(tmp_path, name):
    old, new = tmp_path / 'a checkout', tmp_path / 'moved'
    old.mkdir()
    for file in ('Makefile', 'setup.py', 'constraints.txt', 'pyproject.toml'):
        shutil.copy(stack.ROOT / file, old)
    shutil.copytree(stack.ROOT / '.ci', old / '.ci')
    for each in dict.fromkeys(('.venv', name)):
        (old / each).mkdir()
        (old / each / '.complete').write_text(f'{old.resolve()}\n', 'utf-8')

    def planned(place):
        return subprocess.run(['make', '-n', name], cwd=place, capture_output=True, text=True,
                              check=True, stdin=subprocess.DEVNULL, timeout=60).stdout
    assert 'make-venv' not in planned(old)
    old.rename(new)
    assert f'.ci/make-venv {name}\n' in planned(new)


def test_make_clean_leaves_no_cache():
    said = subprocess.run(['make', '-n', 'clean'], cwd=stack.ROOT, capture_output=True, text=True,
                          check=True, stdin=subprocess.DEVNULL, timeout=60).stdout.split()
    assert {path.name for path in stack.ROOT.glob('.*_cache')} <= set(said)


def test_the_slow_link_adds_time_and_keeps_the_bytes(child):
    echo = socket.create_server(('127.0.0.1', 0))
    port = free_port()

    def serve():
        connection, _address = echo.accept()
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)
    server = threading.Thread(target=serve, daemon=True)
    server.start()
    process = child([sys.executable, '-m', 'bench.slowlink', '--listen', port, '--to',
                     '127.0.0.1:%d' % echo.getsockname()[1], '--round-trip-ms', 100])
    process.env, process.cwd = stack.our_environment(), stack.ROOT
    process.is_ready = lambda _process: is_listening(port)
    process.start()
    data = os.urandom(300_000)
    with echo, socket.create_connection(('127.0.0.1', port), timeout=10) as client:
        started = time.monotonic()
        client.sendall(data)
        received = b''
        while len(received) < len(data):
            received += client.recv(65536)
        assert time.monotonic() - started >= 0.1
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b''
    assert received == data
    server.join(10)


def is_listening(port):
    """Whether the port is taken, without connecting: the far side takes one connection only."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('127.0.0.1', port))
        except OSError:
            return True
    return False


def test_progress_without_a_terminal_does_not_flood():
    stream = io.StringIO()
    progress = Progress('fetching', 1000, 'messages', stream)
    for done in range(1000):
        progress.show(done)
    progress.end(1000)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert '1,000 of 1,000 messages' in lines[0]


def test_progress_on_a_terminal_stays_in_its_line():
    class Terminal(io.StringIO):
        def isatty(self):
            return True
    stream = Terminal()
    progress = Progress('fetching', 10, 'messages', stream)
    for done in range(10):
        progress.show(done)
    progress.end(10)
    assert stream.getvalue().count('\n') == 1
    assert stream.getvalue().count('\r') == 11


def test_a_table_has_its_cells_under_their_heads():
    assert table(('with', 'without'), [('mailboxes', 20, 1234567), ('calls', 3, None)]) == [
        '           with    without',
        'mailboxes    20  1,234,567',
        'calls         3          -']


@pytest.mark.parametrize(('in_zodb', 'told'), [
    ({'amy': {'INBOX': 3, 'Sent': 2}}, []),
    ({'amy': {'INBOX': 3}}, ['Sent: 2 on the server, 0 in the ZODB']),
    ({'amy': {'INBOX': 4, 'Sent': 2}}, ['INBOX: 3 on the server, 4 in the ZODB']),
    ({'amy': {'INBOX': 3, 'Sent': 2, 'Old': 1}}, ['Old: 0 on the server, 1 in the ZODB']),
    ({}, ['INBOX: 3 on the server, 0', 'Sent: 2 on the server, 0']),
])
def test_the_demonstration_names_each_folder_that_disagrees(in_zodb, told):
    on_server = {'amy': {'INBOX': 3, 'Sent': 2}}
    found = list(demo.differences('folder', on_server, in_zodb))
    assert len(found) == len(told)
    for text, part in zip(found, told, strict=True):
        assert text.startswith('folder/box_amy, ')
        assert part in text


def test_ports_are_below_those_of_outgoing_connections():
    assert all(20000 <= free_port() < 32000 for _ in range(20))
    assert processes.tail('/nonexistent') == '    (empty)'


def test_term_ends_the_demonstration_as_ctrl_c_does():
    old = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGHUP)}
    try:
        demo.stop_on_signals()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        for name, handler in old.items():
            signal.signal(name, handler)
