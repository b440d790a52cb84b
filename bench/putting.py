"""Lines about puts: what they cost a caller, beside raw commits of as many clients.

Imports: rows, site, jobs.
"""

import time

import transaction

from bench.jobs import nothing
from bench.rows import Row
from bench.rows import row
from bench.site import BATCH
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
#: How long a worker takes in, and runs, what waits. Seconds.
WORKER_SECONDS = 30


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
    with Site() as site:
        managers = {}
        for number in WAITING:
            managers[number] = site.add_manager(f'waiting{number}')
            _have_wait(site, managers[number], number)
        for _ in range(RUNS):
            for number, manager in managers.items():
                site.connection.cacheMinimize()
                took[number].append(_seconds_a_put(manager))
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


def _have_wait(site, manager, number):
    """Have so many calls wait, in all lanes, as they would be after puts of many threads."""
    from Products.zasync import lanes
    for first in range(0, number, BATCH * 4):
        lanes.move()
        site.fill(min(BATCH * 4, number - first), nothing, manager=manager)
        site.connection.cacheMinimize()


def _seconds_a_put(manager):
    for _ in range(20):
        _put(manager)
    began = time.monotonic()
    for _ in range(WAITING_PUTS):
        _put(manager)
    return (time.monotonic() - began) / WAITING_PUTS


def _put(manager):
    transaction.begin()
    manager.putCall('zope_call', nothing)
    transaction.commit()
