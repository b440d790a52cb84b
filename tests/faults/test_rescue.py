"""A worker is killed with calls running and a thousand waiting: its sibling ends them all."""

import time

import pytest
import transaction

from bench.jobs import apply_effect
from bench.jobs import Effects
from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.client import jobs
from tests.client.conftest import site  # noqa: F401 (the fixture)


WAITING = 1_000
RUNNING = 20
#: The shortest that a dispatcher takes, in seconds.
MAX_IDLE = 25.0


@pytest.mark.slow
@pytest.mark.faults
def test_all_calls_of_a_worker_that_was_killed_have_ended_within_max_idle_time_and_ten_seconds(
        site, tmp_path):  # noqa: F811
    site.root['effects'] = Effects(WAITING)
    site.app._setObject('zad', ZAsyncDispatcher('zad'))
    site.app.zad.manage_changeProperties(max_idle_time=MAX_IDLE)
    for id in ('zam1', 'zam2'):
        site.app.zad._setObject(id, AsynchronousCallManager(id))
    transaction.commit()
    doomed = site.stack.start_worker('doomed', '/zad/zam1', threads=RUNNING)
    gates = [tmp_path / f'gate{number}' for number in range(RUNNING)]
    running = put(site, [(jobs.append_then_wait, str(tmp_path / f'ran{number}'), str(gate))
                         for number, gate in enumerate(gates)])
    site.wait(lambda: all((tmp_path / f'ran{number}').exists() for number in range(RUNNING)),
              what='twenty calls that run')
    # At once: those that run do not wait for ever.
    waiting = put(site, [(apply_effect, number) for number in range(WAITING)])
    site.stack.start_worker('heir', '/zad/zam2', threads=4)
    for gate in gates:  # whoever runs them next does not wait
        gate.touch()
    doomed.kill()
    killed_at = time.monotonic()
    limit = MAX_IDLE + 10
    site.wait(lambda: site.app.zad.zam1.open_calls() == 0, limit=limit + 5,
              what='the end of all calls')
    assert time.monotonic() - killed_at <= limit
    transaction.begin()
    assert {deferred.state for deferred in running + waiting} == {'resolved'}
    assert {counter.n for counter in site.root['effects'].counters} == {1}


def put(site, calls):  # noqa: F811
    transaction.begin()
    deferreds = [site.app.zad.zam1.putCall('zope_call', *call) for call in calls]
    transaction.commit()
    return deferreds
