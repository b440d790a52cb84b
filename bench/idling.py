"""Lines about a system with nothing to do: how soon it begins, and what it costs meanwhile.

Imports: rows, site, jobs, clients, processes.
"""

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
from bench.rows import Row
from bench.rows import row
from bench.site import Site


RUNS = 3

#: Puts, and raw commits, of the latency line, and seconds between two of them.
PUTS = 120
GAP_SECONDS = 0.05

#: Median of Procrastinate on such a machine, from put to start; see docs/performance.rst.
PROCRASTINATE_MS = 3.9

#: How long an idle worker is looked at; real minutes. Seconds.
IDLE_SECONDS = 120
#: Between two signs of life. Seconds.
BEAT_SECONDS = 10
DAY_SECONDS = 86_400


def latency():
    """From the put to the start of its job, beside a raw commit that another client has read."""
    ratios, medians, worst, raws = [], [], [], []
    with Site() as site:
        site.start_worker()
        _put_one_by_one(site, 20)
        for _ in range(RUNS):
            raw = _raw_news(site)
            took = _put_one_by_one(site, PUTS)
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


def _put_one_by_one(site, number):
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
    """A worker with nothing to do, for two minutes: commits, growth, processor time."""
    with Site() as site:
        worker = site.start_worker()
        time.sleep(BEAT_SECONDS + 2)  # it has filed what a start leaves
        path = site.stack.base_dir / 'Data.fs'
        began, size, cpu = time.time(), os.path.getsize(path), processor_seconds(worker.pid)
        time.sleep(IDLE_SECONDS)
        ended, grown = time.time(), os.path.getsize(path) - size
        busy = processor_seconds(worker.pid) - cpu
        site.stack.zeo.stop()
        commits = _commits(path, began, ended)
    more = commits - round(IDLE_SECONDS / BEAT_SECONDS)
    growth = round(grown * DAY_SECONDS / IDLE_SECONDS / 1e6, 2)
    share = round(100 * busy / IDLE_SECONDS, 2)
    return [Row('idle worker: commits beyond signs of life', more, 'in 2 min', '<= 0', more <= 0,
                [commits]),
            Row('  growth', growth, 'MB/day', '<= 1.5', growth <= 1.5, []),
            Row('  processor', share, '% of a core', '<= 0.5', share <= 0.5, [])]


def _commits(path, began, ended):
    storage = FileStorage(str(path), read_only=True)
    try:
        return sum(began <= TimeStamp(each.tid).timeTime() <= ended
                   for each in storage.iterator())
    finally:
        storage.close()
