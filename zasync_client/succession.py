"""Succession: a worker's process begins anew, as the same process with the same id.

It executes its own command line, which rids it of threads that can't be stopped and of memory
that was never given back; whoever supervises it sees nothing of that. The next life is told
by a variable of the environment how many there were, why, and which file descriptor holds the
lock on the PID file: a moment without the lock would let another worker in.

Imports: affinity.
"""

import contextlib
import json
import os
import signal
import sys

from . import affinity


#: What the next life is told, as JSON; taken out at once, so no child inherits it.
VARIABLE = 'ZASYNC_SUCCESSION'

#: What could end a process that has no handlers yet. They wait until it has.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Succession:
    """The lives of this process. To be made before anything changes the environment.

    times -- how often it has begun anew. reason -- why, the last time. lock_fd -- of the PID
    file, from the life before; None in the first life.
    report_fd -- of the pipe to whoever started the first life; no other life gets it.
    processors -- those that the next life is to have again, see affinity.keep_to.
    """

    def __init__(self, report_fd=None):
        told = json.loads(os.environ.pop(VARIABLE, '{}'))
        self.times = told.get('times', 0)
        self.reason = told.get('reason')
        self.lock_fd = told.get('lock_fd')
        self._environment = dict(os.environ)
        self._directory = os.getcwd()
        self.processors = None
        # What a supervisor has given to this process is for all its lives.
        self._handed_on = _inheritable_fds() - {self.lock_fd, report_fd}

    def begin_anew(self, reason, lock_fd, asked=lambda: False):
        """Become the next life; returns only if a signal has asked for an end before.

        lock_fd -- of the PID file. asked -- callable() → whether such a signal has come.
        Raises OSError if there is nothing to be executed any more.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            for fd in _inheritable_fds() - self._handed_on - {0, 1, 2}:
                with contextlib.suppress(OSError):  # closed meanwhile
                    os.set_inheritable(fd, False)
            os.set_inheritable(lock_fd, True)
            told = {'times': self.times + 1, 'reason': reason, 'lock_fd': lock_fd}
            for stream in (sys.stdout, sys.stderr):
                # None if it was closed at the start; and whoever reads it may be gone.
                with contextlib.suppress(AttributeError, OSError, ValueError):
                    stream.flush()
            os.chdir(self._directory)
            affinity.give_back(self.processors)
            if asked():  # at last: what is held back here other threads have got
                return
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]],
                      {**self._environment, VARIABLE: json.dumps(told)})
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _inheritable_fds():
    found = set()
    for fd in map(int, os.listdir('/dev/fd')):
        try:
            if os.get_inheritable(fd):
                found.add(fd)
        except OSError:  # closed meanwhile, as that of the listing
            pass
    return found
