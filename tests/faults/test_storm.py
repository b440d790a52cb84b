"""Storms: what a checker knows from outside the database holds, whatever is done to the site."""

import time

import pytest
import transaction

from bench.clients import Clients
from bench.jobs import Effects
from Products.zasync.lanes import highest
from tests.client.conftest import site  # noqa: F401 (the fixture)
from tests.storm.__main__ import storm


#: Of the storm that is always the same; `make storm` makes longer and other ones.
SEED, SECONDS = 's4', 30

CALLS = 10_000
#: Each puts so many in a request; of every other one they may share transactions.
PUTTERS = 4
EACH = 5
KILLS = 5


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(400)
def test_nothing_is_violated_in_a_short_storm(tmp_path):
    violations, counts = storm(tmp_path / 'storm', SEED, SECONDS, filing_seconds=0, idle_seconds=0)
    assert violations == []
    # It was one.
    assert counts['kills'] >= 4 and counts['restarts'] >= 3 and counts['calls'] >= 100


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_every_effect_is_there_exactly_once_though_a_worker_is_killed_five_times(site):  # noqa: F811
    site.root['effects'] = Effects(CALLS)
    transaction.commit()
    workers = {name: site.start_worker(name) for name in ('zam1', 'zam2')}
    share = CALLS // PUTTERS
    putters = Clients([
        {'mode': 'put', 'address': site.address, 'client': number, 'number': share,
         'first': number * share, 'numbered': True, 'each': EACH, 'request_seconds': 0,
         'function': 'apply_effect' if number < PUTTERS // 2 else 'apply_effect_together',
         'target': '/zam1' if number % 2 else '/zam2'}
        for number in range(PUTTERS)])
    putters.start()
    for kill in range(1, KILLS + 1):
        # A kill each time so many more calls have had their effect, whatever the pace.
        site.wait(lambda mark=kill * CALLS // (KILLS + 3): ended(site) >= mark, limit=120,
                  what='progress')
        workers['zam1'].kill()
        workers['zam1'].start()
    putters.results()
    site.wait(lambda: not any(site.app[name].open_calls() for name in workers), limit=120,
              what='the end of all calls')
    transaction.begin()
    counts = [counter.n for counter in site.root['effects'].counters]
    assert counts.count(1) == CALLS, sorted(set(counts))
    assert all(worker.running for worker in workers.values())


def ended(site):  # noqa: F811
    """How many calls have ended, in both managers: those put less those open. Cheap to ask."""
    time.sleep(0.1)
    managers = [site.app[name] for name in ('zam1', 'zam2')]
    return sum(highest(lane) for manager in managers for lane in manager.queue.lanes) - sum(
        manager.open_calls() for manager in managers)
