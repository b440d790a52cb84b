"""Results are kept for the rotation period, and dropped slice by slice."""

import transaction

from tests.client import chains
from tests.client.test_callbacks import run
from zasync_client import beat as module


def test_an_idle_worker_drops_old_slices_one_after_the_other(fate):
    worker = fate.worker()
    period = fate.manager.rotation_period
    calls = []
    for _ in range(3):
        calls.append(fate.put('zope_call', chains.value))
        run(fate, worker, calls[-1])
        fate.step(worker, hurry=True)
        fate.clock.advance(period / 4)
    fate.clock.advance(period * 2)
    left = []
    for _ in range(4):
        fate.clock.advance(module.BEAT_SECONDS)
        assert fate.step(worker) is True
        transaction.begin()
        left.append(len(fate.manager.queue.archive))
    assert left == [2, 1, 0, 0]
    assert all(fate.manager.queue.find(call.id) is None for call in calls)


def test_a_result_is_kept_for_the_rotation_period(fate):
    worker = fate.worker()
    deferred = fate.put('zope_call', chains.value)
    run(fate, worker, deferred)
    fate.step(worker, hurry=True)
    fate.clock.advance(fate.manager.rotation_period - 1)
    fate.step(worker)
    transaction.begin()
    assert fate.manager.getDeferred(deferred.id).result == 1
