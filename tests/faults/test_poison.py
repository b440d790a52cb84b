"""Calls that kill their workers, hang in them or eat their memory; real processes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import transaction

from bench.processes import wait_until
from bench.stack import our_environment
from tests.client import jobs
from tests.client.conftest import gate  # noqa: F401 (the fixture)
from tests.client.conftest import operator  # noqa: F401 (the fixture)
from tests.client.conftest import site  # noqa: F401 (the fixture)
from zasync_client import pidfile


INTERRUPTED = 'Products.zasync.errors.Interrupted'

SETTINGS = '''
max-interruptions 2
max-memory 400MB
'''

#: The command, with lives that may be short: nobody wants to wait minutes.
COMMAND = '''
import sys
from zasync_client import cli
from zasync_client import replacing
replacing.HUNG_SECONDS = replacing.SHORTEST_LIFE_SECONDS = 0.5
sys.exit(cli.main(sys.argv[1:]))
'''


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_calls_that_end_their_worker_fail_for_good_and_a_harmless_one_beside_them_ends(
        site):  # noqa: F811
    worker = site.stack.start_worker('zam1', '/zam1', threads=4, settings=SETTINGS)
    poison = [site.put('zope_call', jobs.end_at_once), site.put('zope_call', jobs.break_memory),
              site.put('zope_call', jobs.keep_memory, 2 * 1024 ** 3)]
    harmless = site.put('zope_call', jobs.take_time, 0.5)
    lives = 1

    def supervise():
        nonlocal lives
        if not worker.running:
            lives += 1
            worker.start()
        return all(call.ended for call in (*poison, harmless))

    site.wait(supervise, limit=90, what='the end of all four')
    assert [call.state for call in poison] == ['failed'] * 3
    assert {call.failure.type_name for call in poison} == {INTERRUPTED}
    assert {len(call.attempts) for call in poison} == {2}
    assert (harmless.state, harmless.result) == ('resolved', 'done')
    # One death for all of them, one for each alone; that by memory begins anew by itself.
    assert lives <= 4
    assert f'it was running: {poison[2].id}' in worker.log_path.read_text('utf-8')
    assert worker.running or worker.start()
    site.ended(site.put('zope_call', jobs.add, 1, 1))


class Hardy:
    """A worker that begins anew, started as `zasync_client start` does, with a pipe for a word."""

    def __init__(self, site, operator):  # noqa: F811
        operator.configure(drain=30, more='max-memory 300MB\n')
        self.pid_path = str(operator.pid_path)
        self.log_path = operator.home / 'log' / 'hardy.log'
        reader, writer = os.pipe()
        with open(self.log_path, 'ab') as log:
            self.process = subprocess.Popen(
                [sys.executable, '-c', COMMAND, '-C', 'etc/zasync.conf', 'run', '--report',
                 str(writer)], pass_fds=(writer,), cwd=operator.home, env=our_environment(),
                stdout=log, stderr=log)
        os.close(writer)
        with open(reader, 'rb') as pipe:
            assert pipe.readline() == b'serving\n'
            # It does not keep the pipe, nor is it handed on: this ends.
            assert pipe.read() == b''

    def told(self):
        return pidfile.holder(self.pid_path).told

    def log(self):
        return self.log_path.read_text('utf-8')

    def open_files(self):
        """What it has open, but for numbers that are new each time."""
        found = []
        for fd in os.listdir(f'/proc/{self.process.pid}/fd'):
            with contextlib.suppress(OSError):  # closed meanwhile
                found.append(os.readlink(f'/proc/{self.process.pid}/fd/{fd}'))
        return sorted(re.split('[:#]', name)[0] for name in found)

    def begins_anew(self, times, worry):
        """Wait until it serves in its next life; it is always the one that holds the PID file."""
        until = time.monotonic() + 60
        while True:
            holder = pidfile.holder(self.pid_path)
            assert self.process.poll() is None, self.log()
            assert holder is not None and holder.pid == self.process.pid
            if holder.told.get('replaced') == times and holder.serving:
                return
            assert time.monotonic() < until, self.log()
            worry()
            time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_worker_begins_anew_as_the_same_process(site, operator, gate):  # noqa: F811
    """It has threads that hang, and then too much memory."""
    operator.configure(more='max-memory 10MB\n')
    code, sentence = operator.refused('start')
    assert code == 2 and sentence.startswith('max-memory is 10 MB, and the worker has '), sentence
    worker = Hardy(site, operator)
    try:
        files = worker.open_files()
        site.app.zam1.poll_interval = 2  # how soon it looks at its threads when nothing happens
        transaction.commit()
        harmless = site.put('zope_call', jobs.take_time, 0.2)
        site.ended(harmless)
        hung = site.put_with({'timeout': 0.1}, 'zope_call', jobs.wait_for_file, gate, 100.0)
        site.ended(hung)
        assert hung.failure.type_name == 'Products.zasync.errors.TimedOut'
        # A signal that comes while it has no handlers must not end it.
        worker.begins_anew(1, lambda: os.kill(worker.process.pid, signal.SIGHUP))
        assert f'1 of its 2 threads hang in calls that are not theirs any more: {hung.id}' in (
            worker.told()['replaced_because'])
        assert wait_until(lambda: worker.open_files() == files, 10)
        patient = site.put('zope_call', jobs.wait_for_file, gate, 100.0)
        site.wait(lambda: patient.state == 'accepted')
        fed = site.put('zope_call', jobs.keep_memory, 300 * 1024 ** 2)
        site.ended(fed)
        assert fed.state == 'resolved'
        # It drains: what runs may end.
        site.wait(lambda: not site.app.zam1.queue.pulse.accepting)
        with open(gate, 'w', encoding='ascii'):
            pass
        worker.begins_anew(2, lambda: os.kill(worker.process.pid, signal.SIGHUP))
        site.ended(patient)
        assert [each.outcome for each in patient.attempts] == ['resolved']
        assert worker.log().count('is to be replaced') == 2
        assert 'more than max-memory, 300 MB' in operator.gets('status')
        assert operator.json('status')['replaced'] == 2
        site.ended(site.put('zope_call', jobs.add, 1, 1))
        assert wait_until(lambda: worker.open_files() == files, 10)
        os.kill(worker.process.pid, signal.SIGTERM)
        assert worker.process.wait(30) == 0
        transaction.begin()
        assert site.app.zam1.queue.desk.boot is None
    finally:
        worker.process.kill()
        worker.process.wait()


@pytest.mark.slow
@pytest.mark.faults
def test_a_worker_that_was_told_to_stop_does_not_begin_anew_for_its_memory(
        site, operator, gate):  # noqa: F811
    operator.configure(drain=30, more='max-memory 300MB\n')
    operator.gets('start')
    pid = operator.pid()
    fed = site.put('zope_call', jobs.wait_then_keep_memory, gate, 2 * 1024 ** 3)
    site.wait(lambda: os.path.exists(gate + '.running'))
    stop = operator.begin('stop')
    site.wait(lambda: not site.app.zam1.queue.pulse.accepting)
    with open(gate, 'w', encoding='ascii'):
        pass
    assert stop.communicate(timeout=100) == (f'stopped: process {pid}\n', '')
    log = (operator.home / 'log' / 'zasync_output.log').read_text('utf-8')
    assert 'the worker ends at once, as after a kill: it had ' in log
    assert f'it was running: {fed.id}' in log
    transaction.begin()
    assert len(fed.attempts) == 1
