"""The line about growth: bytes that a call leaves in Data.fs, and what packing gives back.

Imports: rows, site, jobs.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import transaction

from bench.jobs import ignore
from bench.rows import row
from bench.site import Site


RUNS = 3
CALLS = 600
BIG_CALLS = 100
BIG_BYTES = 20_000


def growth():
    """Calls that do nothing, put one by one, from the put until they are in the archive."""
    # At the same time, each at a site of its own: bytes are counted here, no time is taken.
    with ThreadPoolExecutor(2 * RUNS) as runs:
        small = runs.map(_bytes_a_call, [CALLS] * RUNS)
        big = runs.map(_bytes_a_call, [BIG_CALLS] * RUNS, ['x' * BIG_BYTES] * RUNS)
        small, big = list(small), list(big)
    archived, packed, purged = (list(each) for each in zip(*small, strict=True))
    return [row('bytes in Data.fs a call, put to archived', archived, 'bytes', most=2_500),
            row('  after a pack', packed, 'bytes'),
            row('  with a 20 kB argument', [each[0] for each in big], 'bytes', most=25_000),
            row('  after a purge and a pack', purged, 'bytes', most=100)]


def _bytes_a_call(number, *args):
    """(bytes until archived, bytes after a pack, bytes after a purge and a pack) of each call."""
    with Site() as site:
        site.start_worker()
        path = site.stack.base_dir / 'Data.fs'
        _run(site, 100, args)
        site.db.storage.pack(time.time(), wait=True)
        before = os.path.getsize(path)
        _run(site, number, args)
        archived = os.path.getsize(path)
        site.db.storage.pack(time.time(), wait=True)
        packed = os.path.getsize(path)
        _purge(site)
        site.db.storage.pack(time.time(), wait=True)
        purged = os.path.getsize(path)
    return tuple(round((size - before) / number) for size in (archived, packed, purged))


def _run(site, number, args):
    """Put so many calls, one a transaction, and wait until they are in the archive."""
    for _ in range(number):
        transaction.begin()
        site.manager.putCall('zope_call', ignore, *args)
        transaction.commit()
    until = time.monotonic() + 120
    while True:
        transaction.begin()
        if not site.manager.open_calls() and not site.manager.queue.desk.running:
            return
        if time.monotonic() > until:
            raise RuntimeError('the calls are not archived')
        time.sleep(0.1)


def _purge(site):
    while True:
        transaction.begin()
        if not site.manager.purge('resolved', 0):
            return
        transaction.commit()
