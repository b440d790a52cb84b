"""Lines about workers: how fast they run calls that wait, beside raw commits of one client.

Imports: rows, site, jobs.
"""

from bench.jobs import append_record
from bench.jobs import append_record_together
from bench.rows import row
from bench.site import Site


CALLS = 10_000
#: Where the system chooses the processors of server and worker.
CALLS_ANYWHERE = 2_000
#: Of a run with two workers, and of the one beside it: each of two has half of them.
CALLS_OF_TWO = 10_000
#: Before a run, and as many after it.
RAW_COMMITS = 1_000
RUNS = 3

#: Those of other queues that keep their jobs when the machine stops, calls/s with one worker,
#: of jobs that append one small record; measured on such a machine in November 2026, see
#: docs/performance.rst.
PEERS = {'Huey on SQLite, fsync': 3_736, 'Dramatiq on Redis, AOF always': 2_309,
         'Huey on Redis, AOF always': 2_005, 'Celery on Redis, AOF always': 745,
         'Procrastinate on PostgreSQL': 338, 'RQ on Redis, AOF always': 177, 'zc.async': 90}

#: What one by one has to be ahead of.
SLOW_PEERS = ('RQ on Redis, AOF always', 'zc.async')


def drain():
    """One worker, calls that write one object each, a commit for each call."""
    ratios, rates = _drain(append_record)
    return [row('drain by 1 worker, one by one ÷ raw', ratios, 'ratio', least=0.6),
            row('  calls', rates, '1/s', above=max(PEERS[name] for name in SLOW_PEERS))]


def group():
    """The same with calls that may be committed together."""
    ratios, rates = _drain(append_record_together)
    anywhere, _ = _drain(append_record_together, CALLS_ANYWHERE, apart=False)
    return [row('drain by 1 worker, group commit ÷ raw', ratios, 'ratio', least=4),
            row('  calls', rates, '1/s', above=max(PEERS.values())),
            row('  ÷ raw, without cpu-affinity', anywhere, 'ratio')]


def _drain(function, calls=CALLS, apart=True):
    """(ratios to raw, calls/s) of the runs; apart -- see Site."""
    ratios, rates = [], []
    for _ in range(RUNS):
        with Site(apart=apart) as site:
            before = site.raw_seconds(RAW_COMMITS)
            site.fill(calls, function, numbered=True)
            worker = site.start_worker()
            seconds = site.drain(300)
            site.check_effects(calls)
            worker.stop()
            raw = (before + site.raw_seconds(RAW_COMMITS)) / 2
        ratios.append(round(raw / seconds, 2))
        rates.append(round(1 / seconds))
    return ratios, rates


def two():
    """Two workers with a manager each, beside one; calls that may be committed together."""
    ratios = []
    for _ in range(RUNS):
        seconds = []
        for managers in (1, 2):
            with Site() as site:
                found = [site.manager] + [site.add_manager(f'zam{number}')
                                          for number in range(1, managers)]
                share = CALLS_OF_TWO // managers
                for number, manager in enumerate(found):
                    manager.pause()
                    site.fill(share, append_record_together, manager=manager, numbered=True,
                              start=number * share)
                for manager in found:
                    site.start_worker(id=manager.getId())
                site.resume(found)  # all begin at the same moment
                seconds.append(site.drain(300, *found))
                site.check_effects(CALLS_OF_TWO)
        ratios.append(round(seconds[0] / seconds[1], 2))
    return [row('two workers, two managers ÷ one, group commit', ratios, 'ratio', least=1.2)]
