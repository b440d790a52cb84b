"""Every race over one call meets on its deferred: one wins, the other is refused (I5)."""

import pytest
from ZODB.POSException import ConflictError

from Products.zasync.failure import Failure
from tests.fakes import make_call
from tests.fakes import NOW


LATE = NOW + 10_000

#: What two processes may want of one running call: from the queue, and the call's id.
EVENTS = {
    'result': lambda queue, id: queue.find(id).succeed(b'\x80\x04N.', LATE + 1),
    'failure': lambda queue, id: queue.find(id).fail(Failure('ValueError', 'no'), LATE + 2),
    'checkpoint': lambda queue, id: queue.find(id).checkpoint(b'\x80\x04}.'),
    'give back': lambda queue, id: queue.give_back(id, LATE + 3, 'interrupted'),
    'fence': lambda queue, id: setattr(queue.find(id), '_p_changed', True),
}


@pytest.mark.parametrize('winner', EVENTS)
@pytest.mark.parametrize('loser', EVENTS)
def test_of_two_events_of_one_running_call_the_second_is_refused(store, winner, loser):
    one, two, reader = store.client(), store.client(), store.client()
    id = one.put(make_call())
    one.beat(LATE, 1)
    EVENTS[winner](one.begin(), id)
    EVENTS[loser](two.begin(), id)
    two.connection.root()['effect'] = loser
    one.commit()
    seen = reader.begin().find(id)
    before = seen.state, seen.ended_at, seen.attempts
    with pytest.raises(ConflictError):
        two.commit()
    seen = reader.begin().find(id)
    assert (seen.state, seen.ended_at, seen.attempts) == before
    # The effects of the second are refused with it.
    assert reader.connection.root().get('effect') != loser


def test_of_two_beats_that_claim_the_same_call_the_second_is_refused(store):
    one, two, caller = store.client(), store.client(), store.client()
    id = caller.put(make_call())
    for client, boot in ((one, 'first'), (two, 'second')):
        [deferred] = client.begin().take_in_and_claim(boot, LATE, 1, 86_400)
        assert deferred.id == id
    one.commit()
    with pytest.raises(ConflictError):
        two.commit()
    assert caller.begin().find(id).owner == 'first'
    assert two.beat(LATE, 1, boot='second') == []


def test_a_beat_meets_whoever_takes_the_desk(store):
    """So a worker that was taken for dead claims nothing after a rescue."""
    zombie, rescuer, caller = store.client(), store.client(), store.client()
    id = caller.put(make_call())
    rescuer.begin().desk.boot = 'rescuer'
    zombie.begin().take_in_and_claim('zombie', LATE, 1, 86_400)
    rescuer.commit()
    with pytest.raises(ConflictError):
        zombie.commit()
    assert rescuer.beat(LATE, 1, boot='rescuer') == [id]


def test_results_of_different_calls_do_not_meet_each_other_nor_a_beat(store):
    one, two, worker, caller = (store.client() for _ in range(4))
    ids = [caller.put(make_call(number)) for number in range(3)]
    worker.beat(LATE, 2)
    one.begin().find(ids[0]).succeed(None, LATE + 1)
    two.begin().find(ids[1]).succeed(None, LATE + 1)
    worker.begin().take_in_and_claim('boot', LATE, 1, 86_400)
    for client in (worker, one, two):
        client.commit()
    assert caller.begin().length_accepted() == 1


def test_a_ping_meets_neither_a_put_nor_a_beat(store):
    one, two, worker = store.client(), store.client(), store.client()
    one.put(make_call())
    one.begin().ping.asked_at = NOW
    two.begin().put(make_call(1), 0)
    queue = worker.begin()
    queue.take_in_and_claim('boot', LATE, 1, 86_400)
    queue.pulse.write(1, 1, 0.0, 1, 1, 0)
    for client in (worker, one, two):
        client.commit()
    assert one.begin().length_new() == 1
