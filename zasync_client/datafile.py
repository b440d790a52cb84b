"""The files that a storage opens for itself alone: only one process may, and Zope may have.

They are those of FileStorages, and the caches of ZEO clients that are to outlive a process.

Imports: errors.
"""

import fcntl
import os

from ZODB.config import FileStorage

from .errors import FileTaken


TAKEN = ('%s is open in another process, and only one may have it open: use a ZEO server, or have '
         'that Zope run the worker, by a section <zasync-worker> in its zope.conf')
CACHE_TAKEN = ('%s, the cache of a ZEO client, is open in another process, and only one may have '
               'it open: give one of the two another client or cache-path in its file, or none')


def inside(storage):
    """What a storage is made of: the sections of a configuration that are inside its own."""
    section = storage.config
    found = [getattr(section, name, None) for name in ('storage', 'base')]
    return [each for each in [*found, *getattr(section, 'factories', ())]
            if hasattr(each, 'config')]


def taken(storage):
    """The FileTaken about a file of the storage that another process has open, or None."""
    for path, sentence in _files(storage):
        if is_taken(path):
            return FileTaken(sentence)
    return None


def refusal(storage, error):
    """The FileTaken about the file for which the storage was not opened; error -- a LockError."""
    for path, sentence in _files(storage):
        if any(repr(f'{each}.lock') in str(error) for each in (path, os.path.abspath(path))):
            return FileTaken(sentence)
    return FileTaken(f'another process has a file of it open: {error}')


def written(storage):
    """(paths of the files, paths of directories of blobs) that who opens the storage writes to."""
    section = storage.config
    files = [path for path, _sentence in _files(storage)]
    is_ours = getattr(section, 'blob_dir', None) and not getattr(section, 'shared_blob_dir', False)
    blobs = [section.blob_dir] if is_ours else []
    for each in inside(storage):
        blobs += written(each)[1]
    return files, blobs


def without_caches(storage):
    """Have its ZEO clients keep no cache in a file: that of a worker that runs is not needed."""
    for name in ('client', 'cache_path'):
        if hasattr(storage.config, name):
            setattr(storage.config, name, None)
    for each in inside(storage):
        without_caches(each)


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


def _files(storage):
    """[(path, what to say if another process has it open)]"""
    section, found = storage.config, []
    if isinstance(storage, FileStorage) and not section.read_only:
        found.append((section.path, TAKEN % section.path))
    cache = getattr(section, 'cache_path', None)
    if getattr(section, 'client', None):
        cache = os.path.join(section.var or os.getcwd(), f'{section.client}-{section.storage}.zec')
    if cache:
        found.append((cache, CACHE_TAKEN % cache))
    return found + [item for each in inside(storage) for item in _files(each)]
