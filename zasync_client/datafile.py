"""The files of FileStorages: only one process may have such a file open, as Zope may.

Imports: errors.
"""

import fcntl
import os

from ZODB.config import FileStorage

from .errors import FileTaken


def inside(storage):
    """What a storage is made of: the sections of a configuration that are inside its own."""
    section = storage.config
    found = [getattr(section, name, None) for name in ('storage', 'base')]
    return [each for each in [*found, *getattr(section, 'factories', ())]
            if hasattr(each, 'config')]


def paths(storage):
    """The files that a storage opens for itself alone."""
    if isinstance(storage, FileStorage):
        return [] if storage.config.read_only else [storage.config.path]
    return [path for each in inside(storage) for path in paths(each)]


def is_taken(path):
    """Whether a process has that file open for itself."""
    try:
        fd = os.open(f'{path}.lock', os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # nobody ever had
        return False
    try:
        # For an instant this is a lock of ours. The system tells of such locks in no other way.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def taken(storage):
    """The FileTaken about a file of the storage that another process has open, or None."""
    for path in paths(storage):
        if is_taken(path):
            return refusal(path)
    return None


def refusal(path):
    """The FileTaken about that file."""
    return FileTaken(f'{path} is open in another process, and only one may have it open: use a '
                     'ZEO server, or have that Zope run the worker, by a section <zasync-worker> '
                     'in its zope.conf')
