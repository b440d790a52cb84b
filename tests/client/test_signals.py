"""HUP opens the logs anew, USR1 tells what the threads do; a worker that is stuck does it too."""

import os
import signal
import subprocess
import sys

import pytest

from bench.processes import wait_until
from tests.client import jobs


LOGS = '''
<eventlog>
  <logfile>
    path $INSTANCE/log/event.log
  </logfile>
</eventlog>
<logger zasync>
  name zasync
  <logfile>
    path $INSTANCE/log/calls.log
  </logfile>
</logger>
'''

#: A process that has all it may log by locked, the logging module's own lock included.
STUCK = '''
import logging, sys, threading
logging.basicConfig(filename=sys.argv[1])
from zasync_client.threaddump import ThreadDump
dump = ThreadDump()
dump.install()
handler = logging.getLogger().handlers[0]
logging._acquireLock() if hasattr(logging, '_acquireLock') else logging._lock.acquire()
handler.acquire()

def stuck_for_ever():
    begun.set()
    with handler.lock:
        pass

begun = threading.Event()
threading.Thread(target=stuck_for_ever, daemon=True).start()
begun.wait()
lock = threading.Lock()
lock.acquire()
print('stuck', flush=True)
lock.acquire()
'''


def text(path):
    return path.read_text('utf-8', 'replace') if path.exists() else ''


@pytest.fixture
def worker(site, operator):
    """The process id of a worker that logs into files."""
    operator.configure(more=LOGS)
    operator.gets('start')
    return operator.pid()


def test_USR1_tells_what_all_threads_do_and_the_worker_goes_on(site, operator, worker, gate):
    deferred = site.put('zope_call', jobs.wait_for_file, gate)
    site.wait(lambda: os.path.exists(gate + '.running'))
    log = operator.home / 'log' / 'calls.log'
    for _ in range(2):
        before = text(log)
        os.kill(worker, signal.SIGUSR1)
        assert wait_until(lambda before=before: 'USR1: what all threads did is in' in
                          text(log)[len(before):], 10)
        dump = text(log)[len(before):]
        assert 'in wait_for_file' in dump and 'in run' in dump
        assert dump.count('Thread 0x') >= 3
    with open(gate, 'w', encoding='ascii'):
        pass
    site.ended(deferred)
    assert deferred.state == 'resolved'


def test_USR1_works_while_every_lock_is_held(tmp_path):
    log = tmp_path / 'log'
    process = subprocess.Popen([sys.executable, '-c', STUCK, str(log)], text=True,
                               stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == 'stuck\n'
        # One that comes while another is written may be lost: ask until there are two.
        assert wait_until(lambda: process.send_signal(signal.SIGUSR1) or
                          text(log).count('in stuck_for_ever') >= 2, 10, look_seconds=0.2)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_HUP_opens_all_files_anew_that_of_the_thread_dump_and_the_output_too(
        site, operator, worker):
    logs = operator.home / 'log'
    names = ('event.log', 'calls.log', 'zasync_output.log')
    for name in names:
        (logs / name).rename(logs / f'{name}.1')
    os.kill(worker, signal.SIGHUP)
    assert wait_until(lambda: all((logs / name).exists() for name in names), 10)
    deferred = site.put('zope_call', jobs.print_word, 'spoken')
    site.ended(deferred)
    # The log line comes after the commit that we have seen.
    assert wait_until(lambda: f'call {deferred.id} resolved' in text(logs / 'calls.log'), 10)
    assert wait_until(lambda: 'spoken' in text(logs / 'zasync_output.log'), 10)
    assert deferred.id not in text(logs / 'calls.log.1')
    os.kill(worker, signal.SIGUSR1)
    assert wait_until(lambda: 'Current thread' in text(logs / 'calls.log')
                      or 'Thread 0x' in text(logs / 'calls.log'), 10)
    assert 'Thread 0x' not in text(logs / 'calls.log.1')


def test_HUP_that_can_not_open_one_file_opens_the_others(site, operator, worker):
    logs = operator.home / 'log'
    for name in ('zasync_output.log', 'event.log', 'calls.log'):
        (logs / name).rename(logs / f'{name}.1')
    for name in ('zasync_output.log', 'event.log'):
        (logs / name).mkdir()
    os.kill(worker, signal.SIGHUP)
    for name in ('zasync_output.log', 'event.log'):
        told = f"a log can not be opened anew: [Errno 21] Is a directory: '{logs / name}'"
        assert wait_until(lambda told=told: told in text(logs / 'calls.log'), 10)
        # What goes nowhere else goes on where the file is now.
        assert wait_until(lambda told=told: told in text(logs / 'event.log.1'), 10)
    assert 'Logging error' not in text(logs / 'zasync_output.log.1')
    site.ended(site.put('zope_call', jobs.add, 1, 1))
