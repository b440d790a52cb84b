"""A small disk that can be full: a file system in memory, in a mount namespace of its own.

Imports: bench.processes.
"""

import errno
import os
from pathlib import Path

from bench.processes import Process


#: Written at once to fill it. Bytes.
PIECE = 1 << 20

_KEEP = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && echo up && exec sleep inf'


class Disk:
    """Like a Host of bench.hosts: what is to see the disk is run by `command`.

    path -- where it is mounted, for those. here -- the same directory for us.
    """

    address = '127.0.0.1'

    def __init__(self, path, megabytes):
        self.path = Path(path)
        self.path.mkdir()
        as_root = [] if os.geteuid() == 0 else ['--user', '--map-root-user']
        self._enter = ['--user', '--preserve-credentials'] if as_root else []
        self._keeper = Process(
            'disk', ['unshare', *as_root, '--mount', '--', 'sh', '-c', _KEEP, 'disk',
                     f'{megabytes}m', path], self.path.parent / 'disk.log', ready_seconds=10,
            is_ready=lambda process: 'up\n' in process.output())

    def __enter__(self):
        self._keeper.start()
        self.here = Path(f'/proc/{self._keeper.pid}/root{self.path}')
        return self

    def __exit__(self, *exc_info):
        self._keeper.kill()

    def command(self, argv, cwd=None, env=()):
        """What has to be run so that `argv` sees the disk."""
        return ['nsenter', '--target', self._keeper.pid, *self._enter, '--mount', '--',
                'env', f'--chdir={cwd}', *(f'{name}={value}' for name, value in dict(env).items()),
                *argv]

    def fill(self):
        """Leave no byte free."""
        with open(self.here / 'filler', 'ab', buffering=0) as file:
            for size in (PIECE, 4096, 1):
                try:
                    while file.write(b'x' * size) == size:
                        pass
                except OSError as reason:
                    if reason.errno != errno.ENOSPC:
                        raise

    def free(self):
        """Give back what `fill` took."""
        (self.here / 'filler').unlink(missing_ok=True)
