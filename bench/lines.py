"""The lines of the benchmark: each a function that measures and returns rows.

Every figure of ours stands beside the same work done by the raw database, in the
same run, by the same number of clients, through the same ZEO server.

Imports: stack, clients, jobs.
"""

import statistics
import time
from typing import NamedTuple

import transaction

from .clients import Clients
from .clients import open_database
from .clients import Record
from .stack import our_environment
from .stack import Stack


class Row(NamedTuple):
    """A measured figure. bar -- text, '' for none. holds -- bool or None. runs -- of each run."""

    name: str
    value: float
    unit: str
    bar: str
    holds: bool | None
    runs: list


TARGET = '/asynchronous_call_manager'

#: Puts of the latency line, and seconds between two of them.
LATENCY_PUTS = 200
LATENCY_GAP_SECONDS = 0.05

#: The conflict line: so many processes put so often, in requests of so many seconds.
CONFLICT_PROCESSES = 8
CONFLICT_PUTS = 10_000
CONFLICT_REQUEST_SECONDS = 0.1

#: The dispatch line.
DISPATCH_MANAGERS = 8
DISPATCH_WAITING = 100_000
DISPATCH_PUTS = 200

#: The pace line: calls of so many seconds, in workers of so many threads, slower by factors.
PACE_CALLS = 3_000
PACE_SECONDS = 0.1
PACE_THREADS = 4
PACE_SLOWNESS = (1, 1, 3)


class Site:
    """A ZEO server, a manager in it, and a worker for it when started."""

    def __init__(self):
        self.stack = Stack()

    def __enter__(self):
        self.stack.__enter__()
        self.address = self.stack.start_zeo()
        self.db, self.connection, root = open_database(self.address)
        from OFS.Application import Application

        from Products.zasync.manager import AsynchronousCallManager
        if 'Application' not in root:
            root['Application'] = Application()
        root['raw'] = [Record() for _ in range(64)]
        self.manager_id = TARGET[1:]
        root['Application']._setObject(self.manager_id, AsynchronousCallManager(self.manager_id))
        transaction.commit()
        self.manager = root['Application'][self.manager_id]
        return self

    def __exit__(self, *error):
        transaction.abort()
        self.connection.close()
        self.db.close()
        return self.stack.__exit__(*error)

    def start_worker(self, threads=4):
        """A worker process for the manager, up when this returns."""
        return self.stack.start_worker('bench', TARGET, threads=threads)

    def clients(self, mode, processes, **task):
        """Results of that many processes that do the same task at once."""
        tasks = [{'mode': mode, 'address': self.address, 'client': client, 'target': TARGET,
                  'first': 0, 'function': 'nothing', 'request_seconds': 0, **task}
                 for client in range(processes)]
        clients = Clients(tasks)
        clients.start()
        return clients.results()

    def wait_until_done(self, limit_seconds):
        """Wait until no call is open."""
        until = time.monotonic() + limit_seconds
        while True:
            transaction.begin()
            if not self.manager.open_calls():
                return
            if time.monotonic() > until:
                raise RuntimeError(f'{self.manager.open_calls()} calls are still open after '
                                   f'{limit_seconds} s')
            time.sleep(0.02)


def milliseconds(seconds):
    """Seconds as milliseconds with two decimals."""
    return round(seconds * 1000, 2)


def percentile(values, share):
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latency():
    """Idle system: from the put to the start of its job, beside one raw commit."""
    medians, worst, raws = [], [], []
    for _ in range(3):
        with Site() as site:
            site.start_worker()
            raw = site.clients('raw', 1, number=LATENCY_PUTS)[0]['took']
            began = []
            from .jobs import stamp
            put = []
            for _ in range(LATENCY_PUTS):
                time.sleep(LATENCY_GAP_SECONDS)
                transaction.begin()
                at = time.time()
                deferred = site.manager.putCall('zope_call', stamp)
                transaction.commit()
                put.append(at)
                began.append(deferred)
            site.wait_until_done(30)
            transaction.begin()
            took = [deferred.result - at for deferred, at in zip(began, put, strict=True)]
            medians.append(milliseconds(statistics.median(took)))
            worst.append(milliseconds(percentile(took, 0.99)))
            raws.append(milliseconds(statistics.median(raw)))
    median, p99, raw = (statistics.median(v) for v in (medians, worst, raws))
    return [Row('idle: raw commit, median', raw, 'ms', '', None, raws),
            Row('idle: put to start of the job, median', median, 'ms', '<= 10', median <= 10,
                medians),
            Row('idle: put to start of the job, p99', p99, 'ms', '<= 50', p99 <= 50, worst)]


def conflicts():
    """Processes that put in requests of 0.1 s while one worker drains: conflicts callers see."""
    with Site() as site:
        site.start_worker()
        share = CONFLICT_PUTS // CONFLICT_PROCESSES
        results = site.clients('put', CONFLICT_PROCESSES, number=share,
                               request_seconds=CONFLICT_REQUEST_SECONDS)
        site.wait_until_done(60)
        seen = sum(len(result['conflicts']) for result in results)
        late = sum(1 for result in results for index in result['conflicts'] if index >= share // 2)
        seconds = max(r['ended'] for r in results) - min(r['started'] for r in results)
    return [Row(f'{CONFLICT_PROCESSES} processes, requests of 0.1 s: conflicts', seen,
                f'in {CONFLICT_PUTS:,} puts', '<= 5', seen <= 5, [seen]),
            Row('  of these in the second half', late, 'conflicts', '', None, [late]),
            Row('  puts', round(CONFLICT_PUTS / seconds, 1), '1/s', '', None, [])]


def puts():
    """One producer as fast as it can, while one worker drains, beside raw commits."""
    ratios, rates = [], []
    for _ in range(3):
        with Site() as site:
            site.start_worker()
            number = 1_000
            raw = site.clients('raw', 1, number=number)[0]
            ours = site.clients('put', 1, number=number)[0]
            site.wait_until_done(60)
        rates.append(round(number / (ours['ended'] - ours['started'])))
        ratios.append(round((raw['ended'] - raw['started']) / (ours['ended'] - ours['started']),
                            2))
    return [Row('puts of 1 producer, a worker draining, ÷ raw', statistics.median(ratios),
                'ratio', '', None, ratios),
            Row('  puts', statistics.median(rates), '1/s', '', None, rates)]


def drain():
    """How fast one worker runs calls that wait, beside raw commits of one client."""
    ratios, rates = [], []
    for _ in range(3):
        with Site() as site:
            number = 2_000
            raw = site.clients('raw', 1, number=number)[0]
            site.clients('put', 1, number=number)
            site.start_worker()
            transaction.begin()
            began = time.monotonic()
            left = site.manager.open_calls()
            site.wait_until_done(120)
            took = time.monotonic() - began
        rates.append(round(left / took))
        ratios.append(round((raw['ended'] - raw['started']) / number * left / took, 2))
    return [Row('drain by 1 worker ÷ raw', statistics.median(ratios), 'ratio', '', None, ratios),
            Row('  calls', statistics.median(rates), '1/s', '', None, rates)]


def dispatch():
    """What a dispatcher with 8 managers and 100,000 waiting calls adds to a put."""
    from Products.zasync.manager import AsynchronousCallManager
    from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher

    from .jobs import nothing
    extras, alone = [], []
    with Site() as site:
        app = site.connection.root()['Application']
        app._setObject('zad', ZAsyncDispatcher('zad'))
        managers = []
        for number in range(DISPATCH_MANAGERS):
            app.zad._setObject(f'zam{number}', AsynchronousCallManager(f'zam{number}'))
            managers.append(app.zad[f'zam{number}'])
        transaction.commit()
        for manager in managers:
            for _ in range(DISPATCH_WAITING // DISPATCH_MANAGERS):
                manager.putCall('zope_call', nothing)
            transaction.commit()
        for _ in range(3):
            for manager in managers:  # as their workers do
                new = manager.queue.length_new()
                manager.queue.pulse.write(new, 0, 0.0, manager.queue.pulse.beat + 1, 1, 0)
            transaction.commit()
            plain, dispatched = [], []
            for number in range(DISPATCH_PUTS):
                for put, took in ((managers[number % 8].putCall, plain),
                                  (app.zad.putCall, dispatched)):
                    transaction.begin()
                    at = time.perf_counter()
                    put('zope_call', nothing)
                    took.append(time.perf_counter() - at)
                    transaction.commit()
            alone.append(milliseconds(statistics.median(plain)))
            extras.append(milliseconds(statistics.median(dispatched) - statistics.median(plain)))
    extra = statistics.median(extras)
    return [Row(f'put without a dispatcher, {DISPATCH_WAITING:,} waiting',
                statistics.median(alone), 'ms', '', None, alone),
            Row('  more by a dispatch to one of 8', extra, 'ms', '< 0.5', extra < 0.5, extras)]


def pace():
    """Three workers, one three times slower, calls placed by pace: the time to the last end."""
    from Products.zasync.manager import AsynchronousCallManager
    from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher

    from .jobs import equal_work
    with Site() as site:
        app = site.connection.root()['Application']
        app._setObject('zad', ZAsyncDispatcher('zad'))
        app.zad.manage_changeProperties(balance='pace')
        for number, slowness in enumerate(PACE_SLOWNESS):
            app.zad._setObject(f'zam{number}', AsynchronousCallManager(f'zam{number}'))
            transaction.commit()
            site.stack.start_worker(
                f'pace{number}', f'/zad/zam{number}', threads=PACE_THREADS,
                env={**our_environment(), 'BENCH_SLOWNESS': str(slowness)})
        site.manager = _All(app.zad)
        for number in range(8 * len(PACE_SLOWNESS)):  # so that their paces are known
            transaction.begin()
            app.zad[f'zam{number % len(PACE_SLOWNESS)}'].putCall(
                'zope_call', equal_work, PACE_SECONDS)
            transaction.commit()
        site.wait_until_done(60)
        began = time.monotonic()
        for _ in range(PACE_CALLS):
            transaction.begin()
            app.zad.putCall('zope_call', equal_work, PACE_SECONDS)
            transaction.commit()
        site.wait_until_done(180)
        took = time.monotonic() - began
    ideal = PACE_CALLS * PACE_SECONDS / sum(PACE_THREADS / slow for slow in PACE_SLOWNESS)
    ratio = round(took / ideal, 2)
    return [Row(f'{PACE_CALLS:,} calls by pace, one worker slower, ÷ ideal', ratio, 'ratio',
                '<= 1.25', ratio <= 1.25, [ratio])]


class _All:
    """The managers of a dispatcher, as one that tells of its open calls."""

    def __init__(self, dispatcher):
        self._dispatcher = dispatcher

    def open_calls(self):
        """Of all together."""
        return sum(manager.open_calls() for manager in self._dispatcher.managers())


LINES = {'latency': latency, 'puts': puts, 'drain': drain, 'conflicts': conflicts,
         'dispatch': dispatch, 'pace': pace}
