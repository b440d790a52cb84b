"""Lines about a system with nothing to do: how soon it begins, and what it costs meanwhile.

Imports: rows, site, jobs, clients, processes.
"""

import contextlib
import os
import statistics
import time

import transaction
from ZODB.FileStorage import FileStorage
from ZODB.TimeStamp import TimeStamp

from bench.clients import Clients
from bench.jobs import stamp
from bench.processes import processor_seconds
from bench.rows import milliseconds
from bench.rows import percentile
from bench.rows import row
from bench.site import Site


RUNS = 3

#: Puts, and raw commits, of the latency line, and seconds between two of them.
PUTS = 120
GAP_SECONDS = 0.05

#: Median of Procrastinate on such a machine, from put to start; see docs/performance.rst.
PROCRASTINATE_MS = 3.9

#: How long idle workers are looked at; real minutes. Seconds.
IDLE_SECONDS = 120
#: Between two signs of life. Seconds.
BEAT_SECONDS = 10
DAY_SECONDS = 86_400


def latency():
    """From the put to the start of its job, beside a raw commit that another client has read."""
    ratios, medians, worst, raws = [], [], [], []
    with Site() as site:
        site.start_worker()
        put_one_by_one(site, 20)
        for _ in range(RUNS):
            raw = _raw_news(site)
            took = put_one_by_one(site, PUTS)
            median = statistics.median(took)
            ratios.append(round(median / raw, 2))
            raws.append(milliseconds(raw))
            medians.append(milliseconds(median))
            worst.append(milliseconds(percentile(took, 0.99)))
    return [row('idle: raw commit → another client has read it', raws, 'ms'),
            row('idle: put → job starts, median', medians, 'ms', most=1.5 * PROCRASTINATE_MS),
            row('  ÷ raw', ratios, 'ratio', most=2.5),
            row('  p99', worst, 'ms', most=30)]


def _raw_news(site):
    """Median seconds from a commit's begin to another client having read it."""
    transaction.begin()
    site.connection.root()['raw'][0].n = 0
    transaction.commit()
    common = {'address': site.address, 'client': 0, 'number': PUTS}
    clients = Clients([{**common, 'mode': 'listen'},
                       {**common, 'mode': 'raw', 'gap_seconds': GAP_SECONDS}])
    clients.start()
    listened, _ = clients.results()
    return statistics.median(listened['took'])


def put_one_by_one(site, number):
    """Seconds from each put to the start of its job."""
    began, put = [], []
    for _ in range(number):
        time.sleep(GAP_SECONDS)
        transaction.begin()
        at = time.time()
        deferred = site.manager.putCall('zope_call', stamp)
        transaction.commit()
        put.append(at)
        began.append(deferred)
    site.wait_until_done(30)
    transaction.begin()
    return [deferred.result - at for deferred, at in zip(began, put, strict=True)]


def idle():
    """Workers with nothing to do, for two minutes: commits, growth, processor time.

    One at each of several sites, at the same time: what does nothing disturbs nobody.
    """
    with contextlib.ExitStack() as stack:
        sites = [stack.enter_context(Site()) for _ in range(RUNS)]
        workers = [site.start_worker() for site in sites]
        time.sleep(BEAT_SECONDS + 2)  # they have filed what a start leaves
        paths = [site.stack.base_dir / 'Data.fs' for site in sites]
        began = time.time()
        sizes = [os.path.getsize(path) for path in paths]
        spent = [processor_seconds(worker.pid) for worker in workers]
        time.sleep(IDLE_SECONDS)
        ended = time.time()
        grown = [os.path.getsize(path) - size for path, size in zip(paths, sizes, strict=True)]
        busy = [processor_seconds(worker.pid) - before
                for worker, before in zip(workers, spent, strict=True)]
        for site in sites:
            site.stack.zeo.stop()
        more = [_commits(path, began, ended) - round(IDLE_SECONDS / BEAT_SECONDS)
                for path in paths]
    return [row('idle worker: commits beyond signs of life', more, 'in 2 min', most=0),
            row('  growth', [round(each * DAY_SECONDS / IDLE_SECONDS / 1e6, 2) for each in grown],
                'MB/day', most=1.5),
            row('  processor', [round(100 * each / IDLE_SECONDS, 2) for each in busy],
                '% of a core', most=0.5)]


def _commits(path, began, ended):
    storage = FileStorage(str(path), read_only=True)
    try:
        return sum(began <= TimeStamp(each.tid).timeTime() <= ended
                   for each in storage.iterator())
    finally:
        storage.close()
