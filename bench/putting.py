"""Lines about puts: what they cost a caller, beside raw commits of as many clients.

Imports: rows, site, jobs.
"""

import statistics
import time

import transaction

from bench.jobs import nothing
from bench.rows import Row
from bench.rows import row
from bench.site import duration
from bench.site import Site


#: Of one producer.
PUTS = 1_000
RUNS = 3

#: Many producers: processes, threads of each, puts of each thread.
PROCESSES, THREADS, EACH = 8, 4, 50

#: The conflict line: so many puts, in requests of so many seconds.
CONFLICT_PUTS = 10_000
CONFLICT_REQUEST_SECONDS = 0.1

#: Calls that wait already.
WAITING = (0, 100_000, 1_000_000)
WAITING_PUTS = 400
#: So many of them are put in a transaction, and in one lane.
FILL = 2_000
#: How long a worker takes in, and runs, what waits. Seconds.
WORKER_SECONDS = 20


def puts():
    """One producer as fast as it can, beside raw commits of one client."""
    ratios, rates = [], []
    with Site() as site:
        site.clients('put', 1, number=200)
        for _ in range(RUNS):
            raw = site.raw_seconds(PUTS)
            seconds = duration(site.clients('put', 1, number=PUTS)) / PUTS
            ratios.append(round(raw / seconds, 2))
            rates.append(round(1 / seconds))
    return [row('puts, 1 producer ÷ raw', ratios, 'ratio', least=0.85),
            row('  puts', rates, '1/s')]


def crowd():
    """32 producers while one worker drains, beside as many raw committers."""
    ratios, rates = [], []
    for _ in range(RUNS):
        with Site() as site:
            raw = site.raw_seconds(EACH, PROCESSES, THREADS)
            site.start_worker()
            number = PROCESSES * THREADS * EACH
            seconds = duration(site.clients('put', PROCESSES, threads=THREADS,
                                            number=EACH)) / number
            site.wait_until_done(120)
        ratios.append(round(raw / seconds, 2))
        rates.append(round(1 / seconds))
    return [row('puts, 8 processes × 4 threads, a worker draining ÷ raw', ratios, 'ratio',
                least=0.75),
            row('  puts', rates, '1/s')]


def conflicts():
    """32 producers in requests of 0.1 s while one worker drains: conflicts callers see."""
    with Site() as site:
        site.start_worker()
        share = CONFLICT_PUTS // (PROCESSES * THREADS)
        # What comes first is not counted: threads look for lanes of their own.
        results = site.clients('put', PROCESSES, threads=THREADS, number=share + 20,
                               request_seconds=CONFLICT_REQUEST_SECONDS)
        site.wait_until_done(60)
        seen = [index for result in results for index in result['conflicts']]
        settled = sum(1 for index in seen if index >= 20)
        seconds = duration(results)
        puts = (share + 20) * PROCESSES * THREADS
    return [Row('  requests of 0.1 s: conflicts after settling', settled,
                f'in {CONFLICT_PUTS:,} puts', '<= 0', settled == 0, [settled]),
            Row('  and before', len(seen) - settled, 'conflicts', '', None, []),
            Row('  puts', round(puts / seconds, 1), '1/s', '', None, [])]


def waiting():
    """A put when many calls wait already, beside one when none does; then a worker's memory."""
    took = {number: [] for number in WAITING}
    with Site(prepare=_have_many_wait) as site:
        managers = {number: site.app[f'waiting{number}'] for number in WAITING}
        for _ in range(RUNS):
            site.connection.cacheMinimize()
            seconds = _seconds_of_puts(managers.values())
            for number, manager in managers.items():
                took[number].append(statistics.median(seconds[manager.getId()]))
        worker = site.start_worker(id=managers[WAITING[-1]].getId())
        time.sleep(WORKER_SECONDS)
        memory = _peak_megabytes(worker.pid)
    alone = took[0]
    rows = [row(f'puts with {number:,} waiting ÷ with none',
                [round(first / later, 2) for first, later in zip(alone, took[number],
                                                                 strict=True)],
                'ratio', least=0.9)
            for number in WAITING[1:]]
    return [*rows, Row(f'a worker with {WAITING[-1]:,} waiting: memory', memory, 'MB', '<= 300',
                       memory <= 300, [])]


def _peak_megabytes(pid):
    with open(f'/proc/{pid}/status', encoding='ascii') as file:
        kilobytes = next(line.split()[1] for line in file if line.startswith('VmHWM'))
    return round(int(kilobytes) / 1024)


def _have_many_wait(root):
    """A manager for each of the numbers of calls that wait, in all lanes."""
    from OFS.Application import Application

    from Products.zasync import lanes
    from Products.zasync.manager import AsynchronousCallManager
    app = root['Application'] = Application()
    for number in WAITING:
        app._setObject(f'waiting{number}', AsynchronousCallManager(f'waiting{number}'))
        transaction.commit()
        for first in range(0, number, FILL):
            lanes.move()
            for _ in range(min(FILL, number - first)):
                app[f'waiting{number}'].putCall('zope_call', nothing)
            transaction.commit()
            root._p_jar.cacheMinimize()


def _seconds_of_puts(managers):
    """{id: seconds of each put}, into one after the other: all have the same bad moments."""
    took = {manager.getId(): [] for manager in managers}
    for number in range(20 + WAITING_PUTS):
        for manager in managers:
            began = time.perf_counter()
            _put(manager)
            if number >= 20:  # the first ones load what the manager has
                took[manager.getId()].append(time.perf_counter() - began)
    return took


def _put(manager):
    transaction.begin()
    manager.putCall('zope_call', nothing)
    transaction.commit()
