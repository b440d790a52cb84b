"""USR1: what every thread does, into the log that the operator reads.

Python itself is not asked: faulthandler writes from the signal handler, straight to
a file descriptor, so it works while each lock of the process is held and nothing
else moves. That descriptor is ours alone, and stays the same number for ever: it
can't have become a socket by the time it is written to.

Imports: nothing of ours.
"""

import _thread
import faulthandler
import logging
import logging.handlers
import os
import signal


log = logging.getLogger('zasync')


class ThreadDump:
    """Where USR1 writes to: the first file that the worker logs to, else standard error.

    A file that its handler moves away by itself, at a size or a time, is not taken:
    nobody would tell us.
    """

    def __init__(self):
        self._path = _log_path()
        self._fd = None

    def install(self):
        """Become the handler of USR1."""
        self._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self.reopen()
        # faulthandler calls this handler after its own work.
        signal.signal(signal.SIGUSR1, self._say)
        faulthandler.register(signal.SIGUSR1, file=self._fd, all_threads=True, chain=True)

    def reopen(self):
        """Write to the file that has the name now: logrotate has moved the old one."""
        try:
            fd = os.dup(2) if self._path is None else os.open(
                self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as reason:
            log.error('USR1 has nowhere to tell of the threads: %s', reason)
            return
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)

    def _say(self, number, frame):
        _thread.start_new_thread(
            log.info, ('USR1: what all threads did is in %s', self._path or 'standard error'))


def _log_path():
    """The file of the logger zasync, else of the event log; None if neither has one."""
    for name in ('zasync', None):
        for handler in logging.getLogger(name).handlers:
            if (isinstance(handler, logging.FileHandler)
                    and not isinstance(handler, logging.handlers.BaseRotatingHandler)):
                return handler.baseFilename
    return None
