"""logtail: the worker's log as it grows, across rotations.

Imports: plaintext, process, errors.
"""

import os
import signal
import sys
import threading

from .errors import NotSo
from .plaintext import safe_lines
from .process import output_path


#: Between two looks at the file. Seconds.
LOOK_SECONDS = 0.25

#: How far back the last lines are looked for, at first. Bytes.
BACK_BYTES = 100_000


def logtail(config, lines, clock):
    """Print the last `lines` of the log, and what comes, until INT or TERM; → 0.

    Raises NotSo if there is no log file.
    """
    path = log_path(config)
    try:
        # Raised in the main thread, wherever it waits or writes.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with Follower(path) as follower:
            _show(follower.last(lines))
            nobody = threading.Event()
            while True:
                _show(follower.more())
                clock.wait(nobody, LOOK_SECONDS)
    except KeyboardInterrupt:
        return 0


def log_path(config):
    """The file of the logger zasync, else of the event log, else log/zasync.log.

    If that is not there either, the output of a worker that `start` has started. Raises
    NotSo if there is none, or none that is a file.
    """
    configured = [logger for logger in config.zope.loggers if logger.name == 'zasync']
    if config.zope.eventlog is not None:
        configured.append(config.zope.eventlog)
    for logger in configured:
        for factory in logger.handler_factories:
            path = getattr(factory.section, 'path', None)
            if path is not None and path not in ('STDOUT', 'STDERR'):
                return os.path.abspath(path)
    plain = os.path.join(config.zope.instancehome, 'log', 'zasync.log')
    for path in (plain, output_path(config)):
        if os.path.isfile(path):
            return path
    raise NotSo('the worker writes no log file: the configuration names none, and there is '
                f'neither {plain} nor {output_path(config)}')


class Follower:
    """Reads the file that has a name, whichever that is from time to time."""

    def __init__(self, path):
        self._path = path
        self._rest = b''
        try:
            self._file = open(path, 'rb')
        except OSError as reason:
            raise NotSo(f'there is no log {path} to be read: {reason.strerror}') from reason

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._file.close()

    def last(self, lines):
        """The last `lines` there are, and from now on `more`."""
        start = size = os.fstat(self._file.fileno()).st_size
        found, back = [], BACK_BYTES
        while start > 0 and len(found) <= lines:  # the first one may be the end of a line
            start, back = max(0, size - back), 2 * back
            self._file.seek(start)
            self._rest = b''
            found = self._read()
        return found[len(found) - min(lines, len(found)):]

    def more(self):
        """The lines that have come since."""
        found = self._read()
        there = self._there()
        if there is None:  # moved away, and nobody has made a new one
            return found
        ours = os.fstat(self._file.fileno())
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            found += self._read() + self._take_rest()
            self._open_new()
            found += self._read()
        elif ours.st_size < self._file.tell():  # emptied in its place
            self._file.seek(0)
            found += self._take_rest() + self._read()
        return found

    def _there(self):
        try:
            return os.stat(self._path)
        except OSError:
            return None

    def _open_new(self):
        try:
            new = open(self._path, 'rb')
        except OSError:
            return
        self._file.close()
        self._file = new

    def _read(self):
        *whole, self._rest = (self._rest + self._file.read()).split(b'\n')
        return whole

    def _take_rest(self):
        rest, self._rest = self._rest, b''
        return [rest] if rest else []


def _show(lines):
    for line in lines:
        print(*safe_lines(line.decode('utf-8', 'replace')) or [''], sep='\n')
    if lines:
        sys.stdout.flush()
