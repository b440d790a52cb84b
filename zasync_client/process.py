"""The process of a worker from outside: start, stop, restart.

`start` runs the same command anew, in the background: nothing that is open here, no
database above all, is shared with the worker. The two are joined by a pipe, in which
the worker tells that it serves, or why it does not.

Imports: pidfile, plaintext, errors.
"""

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
import threading

from . import pidfile
from .errors import ConfigurationError
from .errors import NotSo
from .plaintext import safe_lines


#: What a worker gets to end beyond its drain-seconds, before it is killed. Seconds.
STOP_MARGIN_SECONDS = 10.0

#: A killed process that is there for longer hangs in the kernel. Seconds.
KILL_SECONDS = 10.0

#: Between two looks whether a process has gone. Seconds.
LOOK_SECONDS = 0.05

#: What is shown of the output of a worker that ended without a word. Lines, bytes.
TAIL_LINES = 10
TAIL_BYTES = 10_000


class Report:
    """The worker's end of the pipe to `start`; fd None: nobody waits."""

    def __init__(self, fd):
        self._fd = fd
        if fd is not None:
            os.set_inheritable(fd, False)

    def serving(self):
        """The worker has its target."""
        self._send('serving')

    def failed(self, reason):
        """It ends before that; reason -- a sentence."""
        self._send(f'failed {reason}')

    def _send(self, text):
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            os.write(fd, (text.replace('\n', ' ')[:select.PIPE_BUF // 4] + '\n').encode())
        except OSError:  # whoever waited has gone, which is no concern of a worker's
            pass
        finally:
            os.close(fd)


def output_path(config):
    """Where standard output and error of a worker go that `start` has started."""
    name, _ = os.path.splitext(os.path.basename(config.path))
    return os.path.join(config.zope.instancehome, 'log', f'{name}_output.log')


def start(config, environment, wait_seconds, clock):
    """Start a worker in the background and wait until it serves, at most `wait_seconds`; → 0.

    environment -- for the worker: ours as it was before the configuration was read, which sets
    variables in it. It does the same there, and a value may refer to the one before.
    Raises AlreadyRunning, ConfigurationError, NotSo: the worker ended at once.
    """
    found = pidfile.worker_of(config)
    if found is not None:
        raise pidfile.already_running(config.pid_path, found)
    output = output_path(config)
    try:
        os.makedirs(os.path.dirname(output), exist_ok=True)
        log = open(output, 'ab')
    except OSError as reason:
        raise ConfigurationError(f'the output of the worker can not be written to {output}: '
                                 f'{reason.strerror}') from reason
    with log:
        begin = log.tell()
        process, reader = _launch(config, output, log, environment)
    try:
        report = _wait_for_report(reader, wait_seconds, clock)
    finally:
        os.close(reader)
    target = '/'.join(config.target)
    if report == 'serving':
        print(f'started: process {process.pid} serves {target}')
    elif report is None:
        print(f'started: process {process.pid} runs, but does not serve {target} after '
              f'{wait_seconds:g} s; it goes on trying. Its log tells why: zasync_client -C '
              f'{shlex.quote(config.path)} logtail')
    else:
        raise _why_not(process, report, output, begin)
    process.returncode = 0  # it goes on without us, which Popen would remark upon
    return 0


def _launch(config, output, log, environment):
    """Run the worker; → (its Popen, our end of the pipe)."""
    reader, writer = os.pipe()
    # Python puts the working directory before all paths, unless it is told not to.
    safe_path = [] if os.getcwd() in sys.path else ['-P']
    argv = [sys.executable, *safe_path, '-m', 'zasync_client', '-C', config.path, 'run',
            '--output', output, '--report', str(writer)]
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   start_new_session=True, pass_fds=(writer,),
                                   env=environment)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return process, reader


def _wait_for_report(reader, seconds, clock):
    """What the worker says: 'serving' or 'failed …'; '' if it ended silently, None if it waits."""
    until, said = clock.monotonic() + seconds, b''
    while not said.endswith(b'\n'):
        ready, _, _ = select.select([reader], [], [], max(0, until - clock.monotonic()))
        if not ready:
            return None
        piece = os.read(reader, select.PIPE_BUF)
        if not piece:
            break
        said += piece
    return said.decode('utf-8', 'replace').strip()


def _why_not(process, report, output, begin):
    """What to raise about a worker that ended before it served."""
    code = process.wait()
    if report:
        reason = NotSo(report.removeprefix('failed '))
    elif code == 0:
        reason = NotSo('the worker was told to stop before it served')
    else:
        how = f'with code {code}' if code > 0 else f'by signal {-code}'
        reason = NotSo(f'the worker ended {how} before it served. The end of {output}:\n'
                       + '\n'.join(f'    {line}' for line in _tail(output, begin)))
    reason.exit_code = 2 if code == 2 else 1
    return reason


def _tail(path, begin):
    with open(path, 'rb') as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - TAIL_BYTES))
        return safe_lines(file.read().decode('utf-8', 'replace'))[-TAIL_LINES:] or ['(nothing)']


def stop(config, clock):
    """Have the worker drain and end, and wait for that; → 0.

    Raises NotSo: none runs here, ConfigurationError: that is another's.
    """
    print(_end(config, clock))
    return 0


def _end(config, clock):
    """End the worker, see `stop`; → a sentence on how it ended."""
    found = pidfile.worker_of(config)
    if found is None:
        raise NotSo(f'no worker runs (nobody holds the PID file {config.pid_path})')
    if not found.is_here:
        raise NotSo(f'the worker is {found}, in another container or on another machine: '
                    'stop it there')
    _send(found, signal.SIGTERM)
    seconds = STOP_MARGIN_SECONDS
    if found.serving or found.lost:  # else nothing runs in it
        seconds += max(config.drain_seconds, _number(found.told.get('drain_seconds')))
    if _has_gone(config.pid_path, found.pid, seconds, clock):
        return f'stopped: process {found.pid}'
    _send(found, signal.SIGKILL)
    if not _has_gone(config.pid_path, found.pid, KILL_SECONDS, clock):
        raise NotSo(f'process {found.pid} is still there after KILL: the kernel holds it')
    return (f'killed: process {found.pid} had not ended {seconds:g} s after TERM; what it ran, if '
            'anything, runs again at the next start')


def restart(config, environment, wait_seconds, clock):
    """Stop the worker if one runs, and start one, see there; → 0."""
    if pidfile.worker_of(config) is not None:
        ended = _end(config, clock)
        with contextlib.suppress(OSError):  # nobody reads it any more, or the disk is full
            print(ended, flush=True)
    return start(config, environment, wait_seconds, clock)


def _send(found, number):
    """Send a signal to who holds the PID file, as the kernel said a moment ago."""
    try:
        os.kill(found.pid, number)
    except ProcessLookupError:
        pass  # it has just gone
    except PermissionError as reason:
        raise NotSo(f'{found} belongs to another user: only that user, or root, may stop '
                    'it') from reason


def _has_gone(path, pid, seconds, clock):
    """Whether that process lets go of the PID file, which it does when it ends, in time."""
    until, nobody = clock.monotonic() + seconds, threading.Event()
    while True:
        found = pidfile.holder(path)
        if found is None or found.pid != pid:
            return True
        if clock.monotonic() >= until:
            return False
        clock.wait(nobody, LOOK_SECONDS)


def _number(value):
    return value if isinstance(value, (int, float)) else 0
