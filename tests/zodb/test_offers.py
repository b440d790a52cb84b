"""Claiming for a worker that has no plugin for some of the calls: it reaches those behind them."""

import pytest

from Products.zasync.claiming import Offers
from Products.zasync.claiming import TAKE_IN_MOST
from tests.fakes import make_call
from tests.fakes import NOW


LATE = NOW + 100_000


@pytest.fixture
def caller(file_store):
    return file_store.client()


@pytest.fixture
def guest(file_store):
    return file_store.client()


def put(caller, plugin, *numbers, **options):
    """Put a call of that plugin so many seconds after NOW each, and take it in; → their ids."""
    queue = caller.begin()
    found = [queue.put(make_call(number, plugin=plugin, **options), number % 7).id
             for number in numbers]
    caller.commit()
    while caller.begin().news():
        caller.beat(LATE, 0)
    return found


def look(guest, offers, slots=2):
    """Claim for who can run those; → ids."""
    queue = guest.begin()
    claimed = queue.take_in_and_claim('boot', LATE, slots, 86_400, offers)
    ids = [deferred.id for deferred in claimed]
    guest.commit()
    return ids


def test_what_waits_behind_thousands_that_it_can_not_run_is_run_in_order(caller, guest):
    put(caller, 'odd', *range(2 * TAKE_IN_MOST + 500))
    ids = put(caller, 'echo', *range(5_000, 5_005))
    offers, found, looks = Offers({'echo'}), [], []
    for _ in range(8):
        looks.append(look(guest, offers))
        found += looks[-1]
    assert found == ids
    # Once it has got there, it has something to do at each look.
    assert [len(each) for each in looks if each] == [2, 2, 1]
    assert [len(each) for each in looks].index(2) <= 4
    assert guest.begin().desk.n_ready == 2 * TAKE_IN_MOST + 500


def test_one_look_sees_no_more_calls_than_a_beat_takes_in(caller, guest):
    put(caller, 'odd', *range(3 * TAKE_IN_MOST))
    offers = Offers({'echo'})
    look(guest, offers)
    guest.connection.cacheMinimize()
    guest.connection.getTransferCounts(clear=True)
    look(guest, offers)
    loaded = guest.connection.getTransferCounts()[0]
    assert TAKE_IN_MOST / 2 < loaded < 1.2 * TAKE_IN_MOST


def test_what_comes_to_the_front_meanwhile_is_run_first(caller, guest):
    put(caller, 'odd', *range(2 * TAKE_IN_MOST))
    ids = put(caller, 'echo', *range(5_000, 5_004))
    offers = Offers({'echo'})
    while not (found := look(guest, offers, 1)):
        pass
    urgent = put(caller, 'echo', 6_000, priority=3)
    for _ in range(4):
        found += look(guest, offers, 1)
    assert found == [ids[0], *urgent, *ids[1:]]


def test_from_the_end_it_begins_at_the_front_again(caller, guest):
    put(caller, 'odd', *range(2 * TAKE_IN_MOST))
    last = put(caller, 'echo', 5_000)
    offers = Offers({'echo'})
    while not (found := look(guest, offers)):
        pass
    assert found == last
    between = put(caller, 'echo', TAKE_IN_MOST - 50)  # where it has been
    found = [id for _ in range(4) for id in look(guest, offers)]
    assert found == between


def test_what_it_can_not_claim_as_another_was_quicker_it_finds_at_the_next_look(caller, guest):
    put(caller, 'odd', *range(2 * TAKE_IN_MOST))
    ids = put(caller, 'echo', *range(5_000, 5_002))
    offers = Offers({'echo'})
    claimed = []
    while not claimed:
        claimed = guest.begin().take_in_and_claim('boot', LATE, 2, 86_400, offers)
        if claimed:
            guest.abort()
        else:
            guest.commit()
    assert look(guest, offers, 0) == []
    assert look(guest, offers) == ids
