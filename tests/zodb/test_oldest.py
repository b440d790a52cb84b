"""Which call has waited longest, of those that may run."""

from Products.zasync import listing
from tests.fakes import make_call
from tests.fakes import NOW


LATE = NOW + 1_000


def put(client, number, lane=0, **changes):
    client.begin()
    deferred = client.queue.put(make_call(number, **changes), lane)
    client.commit()
    return deferred


def take_in(worker):
    worker.begin()
    worker.queue.take_in_and_claim('boot', NOW + 500, 0, 86_400)
    worker.commit()


def oldest(client, now=LATE):
    client.begin()
    return listing.oldest_put(client.queue, now)


def test_it_is_found_in_the_lanes_and_among_what_was_taken_in_of_any_priority(store):
    caller, worker = store.client(), store.client()
    assert oldest(caller) is None
    put(caller, 20, lane=3)
    put(caller, 10, lane=1)
    assert oldest(caller) == NOW + 10
    take_in(worker)
    assert oldest(caller) == NOW + 10
    put(caller, 5, lane=2, priority=-7)
    take_in(worker)
    put(caller, 30, lane=2, priority=9)
    take_in(worker)
    assert oldest(caller) == NOW + 5
    put(caller, 1, lane=4)
    assert oldest(caller) == NOW + 1


def test_what_may_not_run_yet_has_not_waited(store):
    caller, worker = store.client(), store.client()
    put(caller, 1, lane=1, not_before=LATE + 500)
    put(caller, 7, lane=1)
    assert oldest(caller) == NOW + 7
    take_in(worker)
    assert oldest(caller) == NOW + 7
    worker.begin()
    assert len(worker.queue.take_in_and_claim('boot', LATE, 5, 86_400)) == 1
    worker.commit()
    assert oldest(caller) is None
