"""The PID file: which process serves with this configuration, told by a lock.

A number in a file proves nothing: its process may be gone, the number may be
somebody else's by now, or count in another container. So a worker holds a lock on
the file as long as it lives, and whoever asks, asks the kernel who holds it. The
file's first line is the process id; its second one, JSON, is what the worker tells.

The file is never removed, only emptied: of two processes that open one path, one
that may be removed at any moment, each could lock a file of its own.

Imports: errors.
"""

import errno
import fcntl
import json
import os
import struct
import sys
from typing import NamedTuple

from .errors import AlreadyRunning
from .errors import ConfigurationError
from .errors import NotSo


#: C's struct flock: type, whence, start, length, process id; elsewhere in another order.
_FLOCK = 'hhqqi0q' if sys.platform == 'linux' else 'qqihhi'
_PID = 4 if sys.platform == 'linux' else 2

#: Longest PID file that is read, in bytes.
LONGEST_BYTES = 10_000

#: What says that the disk is full: a matter of time.
FULL = (errno.ENOSPC, errno.EDQUOT)


class Holder(NamedTuple):
    """Who holds a PID file.

    pid -- as counted here, from the kernel; 0 if the process is in another container
    or on another machine. told -- what the worker wrote: pid (as counted there), host,
    started_at, configuration, target, serving, lost, drain_seconds; a key may be missing.
    """

    pid: int
    told: dict

    @property
    def is_here(self):
        """Whether a signal can reach it from here."""
        return self.pid > 0

    @property
    def serving(self):
        """Whether it has its target; before that it starts."""
        return bool(self.told.get('serving')) and not self.lost

    @property
    def lost(self):
        """Whether the target it had is gone; it waits until there is one again."""
        return bool(self.told.get('lost'))

    def may_be_of(self, configuration, target):
        """Whether it is the worker of that file, with another target before, or of that target.

        One that has not told either may be anybody's.
        """
        return (self.told.get('configuration') in (None, configuration)
                or self.told.get('target') in (None, target))

    def __str__(self):
        pid = self.pid if self.is_here else self.told.get('pid', 'unknown')
        return f"process {pid} on {self.told.get('host', 'an unknown host')}"


class PidFile:
    """The PID file of this process.

    fd -- a file descriptor that holds it, from an earlier life of this process, or None.
    It must not be opened by anything else in this process: closing it once would
    drop the lock.
    """

    def __init__(self, path, fd=None):
        self.path = path
        self.fd = None
        self._told = {}
        self._inherited_fd = fd

    def take(self, **told):
        """Hold it until this process ends, and tell that in it.

        Raises AlreadyRunning naming another holder, ConfigurationError if the file can't
        be written, or is that of another configuration's worker, NotSo if what has a lock on it
        is no worker. Raises OSError if the disk is full, to be called again.
        """
        if self.fd is None:
            self._lock(told)
        self.tell(pid=os.getpid(), **told)

    def _lock(self, told):
        """Have `fd` hold an empty file; see take."""
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            fd = self._inherited() or os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
                                              0o644)
        except OSError as reason:
            if reason.errno in FULL:
                raise
            raise ConfigurationError(
                f'the PID file {self.path} can not be written: {reason.strerror}; give the '
                'worker a place for it where it may write') from reason
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as reason:
            found, reader = _holder(fd), _locked_by(fd, fcntl.F_WRLCK)
            os.close(fd)
            if reason.errno not in (errno.EACCES, errno.EAGAIN):
                raise ConfigurationError(f'the PID file {self.path} can not be locked: '
                                         f'{reason.strerror}') from reason
            if found is None and reader is not None:
                raise NotSo(f'the PID file {self.path} can not be locked: process {reader}, which '
                            'is no worker, has a lock on it, as who may read it can. End that '
                            'process; who else is to read the file, its mode says') from None
            _refuse_foreign(self.path, found, told.get('configuration'), told.get('target'))
            raise already_running(self.path, found) from None
        self.fd = fd
        os.ftruncate(fd, 0)  # what is told in there is of a process that is gone

    def _inherited(self):
        """The file descriptor of the life before, if it is of this file; None."""
        fd, self._inherited_fd = self._inherited_fd, None
        if fd is None:
            return None
        os.set_inheritable(fd, False)
        if os.path.exists(self.path) and os.path.samestat(os.fstat(fd), os.stat(self.path)):
            return fd
        os.close(fd)  # the configuration names another file now
        return None

    def tell(self, **told):
        """Tell that as well."""
        self._told.update(told)
        text = f'{os.getpid()}\n{json.dumps(self._told)}\n'.encode()
        os.pwrite(self.fd, text, 0)
        os.ftruncate(self.fd, len(text))

    def clear(self):
        """Tell nothing any more. The lock stays until the process ends: it is not over yet."""
        os.ftruncate(self.fd, 0)


def holder(path):
    """The Holder of the PID file at `path`, or None; raises NotSo if that can't be found out."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as reason:
        raise NotSo(f'the PID file {path} can not be read: {reason.strerror}') from reason
    try:
        return _holder(fd)
    except OSError as reason:
        raise NotSo(f'the PID file {path} can not be read: {reason.strerror}') from reason
    finally:
        os.close(fd)


def worker_of(config):
    """The Holder of the PID file of a Config, or None.

    Raises NotSo if that can't be found out, ConfigurationError if it is another configuration's.
    """
    found = holder(config.pid_path)
    _refuse_foreign(config.pid_path, found, config.path, '/'.join(config.target))
    return found


def _refuse_foreign(path, found, configuration, target):
    if found is not None and not found.may_be_of(configuration, target):
        raise ConfigurationError(
            f'the PID file {path} is held by the worker of another configuration: {found} serves '
            f"{found.told['target']}, as {found.told['configuration']} says. Give one of the two "
            'files another name, which is that of its PID file too, or a line worker-pid-filename')


def already_running(path, found):
    """The AlreadyRunning that names that Holder; None if it has gone meanwhile."""
    if found is None:
        return AlreadyRunning(f'another worker held the PID file {path} just now: try again')
    what = 'serves' if found.serving else 'waits for' if found.lost else 'starts to serve'
    return AlreadyRunning(f"a worker runs already: {found} {what} "
                          f"{found.told.get('target', 'a target')} (PID file {path})")


def _holder(fd):
    # A lock for reading is no worker's: whoever may read the file can have one.
    pid = _locked_by(fd, fcntl.F_RDLCK)
    return None if pid is None else Holder(pid, _told(os.pread(fd, LONGEST_BYTES, 0)))


def _locked_by(fd, kind):
    """The id of the process with a lock that is in the way of one of this kind, or None."""
    question = ((kind, os.SEEK_SET, 0, 0, 0) if sys.platform == 'linux'
                else (0, 0, 0, kind, os.SEEK_SET, 0))
    answer = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(_FLOCK, *question)))
    if (answer[0] if sys.platform == 'linux' else answer[3]) == fcntl.F_UNLCK:
        return None
    # The lock of another pid namespace has process id 0, that of another machine a negative one.
    return max(0, answer[_PID])


def _told(content):
    """What a worker told in the file; {} if it is about to, or if that is no PID file of ours."""
    try:
        told = json.loads(content.split(b'\n')[1])
    except (IndexError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
