"""Lines about a dispatcher: what it adds to a put, and how well it spreads calls.

Imports: rows, site, jobs.
"""

import statistics
import time

import transaction

from bench.jobs import equal_work
from bench.jobs import nothing
from bench.rows import milliseconds
from bench.rows import row
from bench.site import Site
from bench.stack import our_environment


RUNS = 3

#: The dispatch line.
MANAGERS = 8
WAITING = 100_000
PUTS = 200

#: The pace line: calls of so many seconds, in workers of so many threads, slower by factors.
PACE_CALLS = 3_000
PACE_SECONDS = 0.1
PACE_THREADS = 4
PACE_SLOWNESS = (1, 1, 3)


def dispatch():
    """What a dispatcher with 8 managers and 100,000 waiting calls adds to a put."""
    extras, alone = [], []
    with Site() as site:
        zad, managers = _dispatcher(site, MANAGERS)
        for manager in managers:
            site.fill(WAITING // MANAGERS, nothing, manager=manager)
        for _ in range(RUNS):
            for manager in managers:  # as their workers do
                new = manager.queue.length_new()
                manager.queue.pulse.write(new, 0, 0.0, manager.queue.pulse.beat + 1, 1, 0)
            transaction.commit()
            plain, dispatched = [], []
            for number in range(PUTS):
                for put, took in ((managers[number % MANAGERS].putCall, plain),
                                  (zad.putCall, dispatched)):
                    transaction.begin()
                    at = time.perf_counter()
                    put('zope_call', nothing)
                    took.append(time.perf_counter() - at)
                    transaction.commit()
            alone.append(milliseconds(statistics.median(plain)))
            extras.append(milliseconds(statistics.median(dispatched) - statistics.median(plain)))
    return [row(f'put without a dispatcher, {WAITING:,} waiting', alone, 'ms'),
            row(f'  more by a dispatch to one of {MANAGERS}', extras, 'ms', most=0.5)]


def pace():
    """Three workers, one three times slower, calls placed by pace: the time to the last end."""
    with Site() as site:
        zad, managers = _dispatcher(site, len(PACE_SLOWNESS))
        zad.manage_changeProperties(balance='pace')
        transaction.commit()
        for manager, slowness in zip(managers, PACE_SLOWNESS, strict=True):
            site.start_worker(PACE_THREADS, f'zad/{manager.getId()}', env={
                **our_environment(), 'BENCH_SLOWNESS': str(slowness)})
        for number in range(8 * len(PACE_SLOWNESS)):  # so that their paces are known
            transaction.begin()
            managers[number % len(PACE_SLOWNESS)].putCall('zope_call', equal_work, PACE_SECONDS)
            transaction.commit()
        site.wait_until_done(60, *managers)
        began = time.monotonic()
        for _ in range(PACE_CALLS):
            transaction.begin()
            zad.putCall('zope_call', equal_work, PACE_SECONDS)
            transaction.commit()
        site.wait_until_done(180, *managers)
        took = time.monotonic() - began
    ideal = PACE_CALLS * PACE_SECONDS / sum(PACE_THREADS / slow for slow in PACE_SLOWNESS)
    return [row(f'{PACE_CALLS:,} calls by pace, one worker slower, ÷ ideal',
                [round(took / ideal, 2)], 'ratio', most=1.25)]


def _dispatcher(site, number):
    """A dispatcher with so many managers, committed; → (it, the managers)."""
    from Products.zasync.manager import AsynchronousCallManager
    from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
    site.app._setObject('zad', ZAsyncDispatcher('zad'))
    zad = site.app.zad
    for index in range(number):
        zad._setObject(f'zam{index}', AsynchronousCallManager(f'zam{index}'))
    transaction.commit()
    return zad, [zad[f'zam{index}'] for index in range(number)]
