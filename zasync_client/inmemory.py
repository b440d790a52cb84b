"""The cache of a ZEO client, in memory in place of a file.

A ZEO client keeps what it has loaded and stored in a file without a name, and reads and writes it
in many small steps. At each of them Python lets another thread have the interpreter, and to get it
back costs a worker more than the step does (`make bench ONLY=cache`).

Imports: nothing of ours.
"""

import logging
import mmap


log = logging.getLogger('zasync')

#: The largest cache that is kept in memory, in bytes. The system can only swap such pages out, and
#: just drops those of a file.
MOST = 128 * 1024 ** 2

#: What a cache is made of; ZEO has it for itself.
OF_CACHE = ('_lock', 'f', 'path', 'maxsize')

_CHUNK = 65_536


def keep_in_memory(storage):
    """Have a storage keep its cache in memory, if it is a client of a ZEO server.

    Not a cache that is to outlive the process, nor a larger one than MOST. Of other storages,
    and of a ZEO that does it in another way, nothing changes.
    """
    cache = getattr(storage, '_cache', None)
    if not all(hasattr(cache, name) for name in OF_CACHE):
        return
    if cache.path is not None or cache.f is None or cache.maxsize > MOST:
        return
    with cache._lock:
        try:
            cache.f = _Memory(cache.f, cache.maxsize)
        except (OSError, ValueError) as reason:
            log.info('the cache of the ZEO client stays in a file: %s', reason)


class _Memory(mmap.mmap):
    """What a file has held, and will hold: as much of `file` as `size` bytes."""

    def __new__(cls, file, size):
        return super().__new__(cls, -1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def __init__(self, file, size):
        nothing = bytes(_CHUNK)
        file.seek(0)
        for start in range(0, size, _CHUNK):
            chunk = file.read(min(_CHUNK, size - start))
            if chunk != nothing[:len(chunk)]:  # what is not written to takes no memory
                self[start:start + len(chunk)] = chunk
        self._file = file
        file.truncate(0)

    def fileno(self):
        """Of a file that is empty: who asks wants to have it synchronized."""
        return self._file.fileno()

    def truncate(self, size=None):
        """Nothing to do: its size is the largest that it may have."""

    def flush(self):
        """Nothing to do."""

    def close(self):
        """Give all of it back."""
        super().close()
        self._file.close()
