"""A child process as the demonstration, the benchmarks and the tests need it.

A child gets a session of its own (a Ctrl-C in the terminal reaches only us, and we stop the
children in the right order), a log file for all it prints, and dies with us whatever happens.

Imports: nothing of ours.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


#: Between two looks at a sign of readiness. Seconds. Longer: starts take longer than needed.
LOOK_SECONDS = 0.02

#: A child that has not ended this long after TERM is killed. Seconds. Shorter: a worker that
#: drains is cut off in the middle of a call.
STOP_SECONDS = 15.0

#: What a child does before it becomes its program: ask the kernel to be killed when its parent
#: is gone (PR_SET_PDEATHSIG, 1). A program of its own because code between fork and exec is not
#: safe in a process with threads; the parent may have died before the question was asked.
_LAUNCHER = '''
import ctypes, os, sys
parent, number, *argv = sys.argv[1:]
try:
    ctypes.CDLL(None).prctl(1, int(number), 0, 0, 0)
except (AttributeError, OSError):
    pass  # not Linux: then only our own teardown ends this child
if os.getppid() != int(parent):
    sys.exit('the parent was gone before the start')
os.execvp(argv[0], argv)
'''


class ProcessError(Exception):
    """A child did not start, or ended when it should not."""


class Process:
    """One child process, which can be started again after its end.

    name -- for messages.
    argv -- what is run, no shell.
    log_path -- its standard output and error are appended here.
    is_ready -- called with this Process until it returns true; the child is then up.
    ready_seconds -- a child that is not up by then has failed.
    death_signal -- what it gets when we are gone. The kernel sends it when the *thread* that
        started the child ends, so start children in the main thread.
    """

    def __init__(self, name, argv, log_path, *, is_ready, ready_seconds, env=None, cwd=None,
                 death_signal=signal.SIGKILL):
        self.name = name
        self.argv = [str(arg) for arg in argv]
        self.log_path = Path(log_path)
        self.is_ready = is_ready
        self.ready_seconds = ready_seconds
        self.env = env
        self.cwd = cwd
        self.death_signal = death_signal
        self._popen = None
        self._log_start = 0

    def start(self):
        """Start it and wait until it is ready; -> self.

        ProcessError, with the end of its log, when it ends before or is not ready in time; it is
        then killed.
        """
        if self.running:
            raise ProcessError('%s runs already (process %d)' % (self.name, self.pid))
        launcher = [sys.executable, '-I', '-S', '-c', _LAUNCHER,
                    str(os.getpid()), str(int(self.death_signal))]
        with open(self.log_path, 'ab') as log:
            self._log_start = log.tell()
            self._popen = subprocess.Popen(
                launcher + self.argv, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, env=self.env, cwd=self.cwd, start_new_session=True)
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    @property
    def pid(self):
        return self._popen.pid if self._popen is not None else None

    @property
    def running(self):
        return self._popen is not None and self._popen.poll() is None

    def stop(self, seconds=STOP_SECONDS):
        """TERM, wait, and KILL when it has not ended after `seconds`; -> a remark or None."""
        if not self.running:
            return None
        self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return '%s did not end %g s after TERM and was killed' % (self.name, seconds)
        self._kill_group()
        return None

    def kill(self):
        """SIGKILL for it and its children, and wait for its end."""
        if self._popen is not None:
            self._kill_group()
            self._popen.wait()

    def wait(self, seconds):
        """Wait for its own end; -> exit code. subprocess.TimeoutExpired after `seconds`."""
        return self._popen.wait(seconds)

    def output(self):
        """What it printed since its last start."""
        with open(self.log_path, 'rb') as log:
            log.seek(self._log_start)
            return log.read().decode('utf-8', 'replace')

    def log_tail(self, lines=15):
        return tail(self.log_path, lines)

    def _wait_ready(self):
        deadline = time.monotonic() + self.ready_seconds
        while not self.is_ready(self):
            if not self.running:
                raise ProcessError(self._account('ended with code %s before it was ready'
                                                 % self._popen.returncode))
            if time.monotonic() > deadline:
                raise ProcessError(self._account('was not ready after %g s'
                                                 % self.ready_seconds))
            time.sleep(LOOK_SECONDS)

    def _kill_group(self):
        try:
            os.killpg(self._popen.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return  # nobody is left in it

    def _account(self, what):
        return '%s %s. The end of %s:\n%s' % (self.name, what, self.log_path, self.log_tail())


def tail(path, lines=15):
    """The last lines of a text file, indented; a remark when there are none."""
    try:
        text = Path(path).read_bytes()[-20000:].decode('utf-8', 'replace')
    except FileNotFoundError:
        text = ''
    found = text.splitlines()[-lines:]
    return '\n'.join('    ' + line for line in found or ['(empty)'])


def accepts(host, port):
    """True when something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def free_port(host='127.0.0.1'):
    """A TCP port nobody listens on.

    Below the range the kernel takes for outgoing connections (32768 up on Linux), or a client's
    connection may sit on it before, or while, our server is down.
    """
    for _ in range(200):
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ProcessError('no free port on %s in 200 tries' % host)


def wait_until(is_so, seconds, look_seconds=0.05):
    """Wait until `is_so()` is true; -> its last value, false after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := is_so()) and time.monotonic() < deadline:
        time.sleep(look_seconds)
    return value


def keep_on(pid, processor):
    """Have all threads that a process has now, and those that they start, run on one processor."""
    for thread in os.listdir(f'/proc/{pid}/task'):
        os.sched_setaffinity(int(thread), {processor})


def processor_seconds(pid, thread=None):
    """Processor time that a process, or one thread of it, has used so far; seconds."""
    path = f'/proc/{pid}/stat' if thread is None else f'/proc/{pid}/task/{thread}/stat'
    with open(path, encoding='ascii') as file:
        fields = file.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
