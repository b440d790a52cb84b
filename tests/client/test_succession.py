"""A process begins anew: what its next life has of it, and what not."""

import json
import os
import signal
import subprocess
import sys

import pytest

from bench.stack import our_environment
from zasync_client import pidfile
from zasync_client.pidfile import PidFile
from zasync_client.succession import SIGNALS
from zasync_client.succession import Succession


SCRIPT = '''
import json, os, signal, sys, threading
from zasync_client import affinity
from zasync_client.signals import Signals
from zasync_client.succession import Succession, VARIABLE

lives = Succession()
if lives.times < 2:
    os.environ['CHANGED'] = 'by the configuration'
    stray = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(stray, True)
    lock = lives.lock_fd or os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    os.chdir('/')
    lives.processors = affinity.keep_to({min(os.sched_getaffinity(0))})

    def ask():
        if lives.times == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    lives.begin_anew('reason %d' % lives.times, lock, ask)
told = threading.Event()
Signals(told, lambda: None, lambda: None).install()
open_files = [os.readlink('/proc/self/fd/%s' % fd) for fd in os.listdir('/proc/self/fd')
              if int(fd) > 2 and os.path.exists('/proc/self/fd/%s' % fd)]
print(json.dumps({
    'pid': os.getpid(), 'times': lives.times, 'reason': lives.reason, 'argv': sys.argv[1:],
    'files': sorted(open_files), 'directory': os.getcwd(), 'told': told.wait(10),
    'processors': sorted(os.sched_getaffinity(0)),
    'environment': [os.environ.get(name) for name in ('CHANGED', 'KEPT', VARIABLE)]}))
'''


def test_the_next_life_has_what_the_first_was_given_and_the_lock_and_nothing_else(tmp_path):
    given = tmp_path / 'given by a supervisor'
    fd = os.open(given, os.O_RDWR | os.O_CREAT)
    try:
        process = subprocess.Popen(
            [sys.executable, '-c', SCRIPT, 'lock', 'a word'], pass_fds=(fd,), cwd=tmp_path,
            env={**our_environment(), 'KEPT': 'yes'}, stdout=subprocess.PIPE, text=True)
    finally:
        os.close(fd)
    output, _ = process.communicate(timeout=30)
    assert json.loads(output) == {
        'pid': process.pid, 'times': 2, 'reason': 'reason 1', 'argv': ['lock', 'a word'],
        'files': [str(given), str(tmp_path / 'lock')], 'directory': str(tmp_path),
        'processors': sorted(os.sched_getaffinity(0)),
        # The signal came when nobody could take it.
        'told': True, 'environment': [None, 'yes', None]}


#: Has something to say that nobody reads, and writes into a file how often it has begun anew.
SPEAKS = '''
import os, sys
from zasync_client.succession import Succession

lives = Succession()
if lives.times == 0:
    lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    print('out')
    print('err', end='', file=sys.stderr)
    lives.begin_anew('it must', lock)
with open(sys.argv[1], 'w') as file:
    file.write(str(lives.times))
'''


@pytest.mark.parametrize('shell', ['exec "$@"', 'exec "$@" >&-', 'exec "$@" 2>&-',
                                   'exec "$@" >&- 2>&-', 'exec "$@" >/dev/full'])
def test_it_begins_anew_though_nobody_reads_what_it_says(tmp_path, shell):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, 'wb') as gone:
        process = subprocess.Popen(
            ['sh', '-c', shell, 'sh', sys.executable, '-c', SPEAKS, tmp_path / 'times'],
            env={**our_environment(), 'PYTHONUNBUFFERED': ''}, stdout=gone, stderr=gone)
    process.wait(timeout=30)
    assert (tmp_path / 'times').read_text('ascii') == '1'


def test_who_was_asked_to_end_does_not_begin_anew():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    held_back = []

    def asked():
        held_back.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return True

    assert Succession().begin_anew('it must', 0, asked) is None
    assert held_back[0] >= set(SIGNALS)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


#: Is told to end while it gets ready to begin anew; a thread that hangs gets the signal.
TOLD_LATE = '''
import os, signal, sys, threading, time
from zasync_client.signals import Signals
from zasync_client.succession import Succession

class Output:
    def flush(self):
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + 10
        while not signals.asked and time.monotonic() < until:
            time.sleep(0.001)

lives, told = Succession(), threading.Event()
signals = Signals(told, lambda: None, lambda: None)
signals.install()
if lives.times == 0:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    sys.stdout, stdout = Output(), sys.stdout
    lives.begin_anew('it must', os.open(os.devnull, os.O_RDWR), lambda: signals.asked)
    sys.stdout = stdout
print(lives.times, told.wait(2))
'''


def test_who_is_asked_to_end_while_it_gets_ready_does_not_begin_anew():
    done = subprocess.run([sys.executable, '-c', TOLD_LATE], env=our_environment(), timeout=60,
                          stdout=subprocess.PIPE, text=True)
    assert done.stdout == '0 True\n'


def test_a_lock_that_was_handed_on_is_kept_unless_the_file_is_another_now(tmp_path):
    for path, same in ((tmp_path / 'first', True), (tmp_path / 'second', False)):
        fd = os.open(tmp_path / 'first', os.O_RDWR | os.O_CREAT)
        os.set_inheritable(fd, True)
        pid_file = PidFile(str(path), fd)
        pid_file.take(target='/zam')
        assert os.path.samefile(f'/proc/self/fd/{pid_file.fd}', path)
        assert not os.get_inheritable(pid_file.fd)
        assert path.read_text('utf-8').startswith(f'{os.getpid()}\n')
        names = [os.path.realpath(f'/proc/self/fd/{each}') for each in os.listdir('/proc/self/fd')]
        assert names.count(str(tmp_path / 'first')) == same
        os.close(pid_file.fd)
    assert pidfile.holder(str(tmp_path / 'first')) is None
