"""What is written, and loaded, for a call: it must not grow with the queue, nor with the archive.

Counted, not timed: objects and bytes of single transactions, and loads from the storage.
"""

from collections import Counter

import pytest
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage
from ZODB.utils import get_pickle_metadata
from ZODB.utils import p64
from ZODB.utils import u64

from Products.zasync import lanes
from Products.zasync import listing
from Products.zasync import payload
from Products.zasync.claiming import TAKE_IN_MOST
from Products.zasync.failure import Failure
from Products.zasync.waiting import AFTER_MOST
from tests.fakes import make_call
from tests.fakes import NOW
from tests.zodb.conftest import Store


LATE = NOW + 1_000_000
DAY = 86_400
LANES = 8


class Written:
    """What a part of the test has written: objects by class, and bytes."""

    def __init__(self, store):
        self._storage = store.databases[0].storage
        self._since = self._storage.lastTransaction()

    def records(self):
        """Counter of classes, and the bytes of all their pickles."""
        kinds, size = Counter(), 0
        for transaction in self._storage.iterator(p64(u64(self._since) + 1)):
            for record in transaction:
                kinds[get_pickle_metadata(record.data)[1]] += 1
                size += len(record.data)
        return kinds, size

    def bytes(self):
        """The bytes alone."""
        return self.records()[1]


def fill(client, calls, first=0):
    """Put so many, in one transaction, spread over lanes."""
    client.begin()
    for number in range(first, first + calls):
        client.queue.put(make_call(number), number % LANES)
    client.commit()


def take_in(worker):
    while worker.begin().news():
        worker.beat(LATE)


def end_all(client, ids):
    for id in ids:
        client.begin().find(id).succeed(None, LATE)
        client.commit()


def file_all(client, ids):
    queue = client.begin()
    for id in ids:
        queue.archive_ended(id, DAY)
    client.commit()


def test_a_call_writes_less_than_1500_bytes_from_its_put_to_the_archive(file_store):
    caller, worker = file_store.client(), file_store.client()
    fill(caller, 200)
    worker.beat(LATE)
    written = Written(file_store)
    for number in range(200, 220):
        caller.put(make_call(number), number % LANES)
    put = written.bytes()
    ids = worker.beat(LATE, 20)
    claimed = written.bytes() - put
    end_all(worker, ids)
    ended = written.bytes() - put - claimed
    file_all(worker, ids)
    assert put < 20 * 650
    assert claimed < 20 * 500
    assert ended < 20 * 300
    assert written.bytes() < 20 * 1_500, (put, claimed, ended, written.bytes())


def test_big_arguments_are_written_once(file_store):
    client = file_store.client()
    client.put(make_call())
    written = Written(file_store)
    big = payload.dump_arguments(('x' * 20_000,), {})
    client.put(make_call(1, arguments=big))
    ids = client.beat(LATE, 2)
    end_all(client, ids)
    file_all(client, ids)
    assert written.records()[0]['Payload'] == 1
    assert written.bytes() < 23_000


def test_a_result_writes_its_deferred_and_no_more(file_store):
    client = file_store.client()
    client.put(make_call())
    ids = client.beat(LATE, 1)
    written = Written(file_store)
    end_all(client, ids)
    assert written.records()[0] == {'Deferred': 1}


@pytest.mark.parametrize('waiting', [100, 6_000])
def test_a_claim_of_a_batch_writes_and_loads_as_much_whatever_waits(file_store, waiting):
    caller, worker = file_store.client(), file_store.client()
    fill(caller, waiting)
    take_in(worker)
    fill(caller, 1, first=waiting)
    worker.beat(LATE, 1)
    worker.connection.cacheMinimize()
    worker.begin().length_new()
    worker.connection.getTransferCounts(clear=True)
    written = Written(file_store)
    assert len(worker.beat(LATE, 20)) == 20
    kinds, size = written.records()
    assert kinds.pop('Deferred') == 20 and kinds.pop('Desk') == 1
    # One leaf or two of what is ready, and a few nodes above them.
    assert sum(kinds.values()) <= 7, kinds
    assert size < 15_000
    assert worker.connection.getTransferCounts()[0] <= 20 + 12


@pytest.mark.parametrize('filed', [0, 6_000])
def test_filing_a_batch_writes_as_much_whatever_the_archive_holds(file_store, filed):
    """The calls of many lanes lie side by side in it."""
    caller, worker = file_store.client(), file_store.client()
    fill(caller, filed)
    while ids := worker.beat(LATE, 1_000):
        queue = worker.begin()
        for id in ids:
            queue.desk.running[id].succeed(None, LATE)
            queue.archive_ended(id, DAY)
        worker.commit()
    fill(caller, 20, first=filed)
    ids = worker.beat(LATE, 20)
    end_all(worker, ids)
    written = Written(file_store)
    file_all(worker, ids)
    kinds, size = written.records()
    assert kinds.pop('Desk') == 1
    assert sum(kinds.values()) <= 8, kinds
    assert size < 8_000


def test_looking_for_work_loads_as_much_whatever_waits(file_store):
    loads = []
    for waiting in (64, 6_000):
        caller, worker = file_store.client(), file_store.client()
        fill(caller, waiting, first=len(loads) * 10_000)
        worker.begin().length_new()
        worker.connection.cacheMinimize()
        worker.connection.getTransferCounts(clear=True)
        assert worker.begin().has_work(LATE, 4)
        assert worker.queue.length_new() >= waiting
        loads.append(worker.connection.getTransferCounts()[0])
    # The last leaf of a tree of chunks, in each lane.
    assert loads[1] <= loads[0] + LANES


def put_behind(client, awaited, calls, first=1):
    """Put so many that wait for the end of that call."""
    queue = client.begin()
    for number in range(first, first + calls):
        queue.put(make_call(number), number % LANES, after=(queue.find(awaited),))
    client.commit()


def end(client, id):
    client.begin().find(id).succeed(None, LATE)
    client.commit()
    file_all(client, [id])


def loads_of(client, action):
    """How many objects `action` loads with nothing in memory; it gets the queue."""
    client.connection.cacheMinimize()
    client.connection.getTransferCounts(clear=True)
    action(client.begin())
    return client.connection.getTransferCounts()[0]


def test_a_call_that_waits_for_another_writes_as_much_however_many_do(file_store):
    caller, worker = file_store.client(), file_store.client()
    awaited = caller.put(make_call())
    worker.beat(LATE, 1)
    sizes = []
    for calls in (300, 3_000, 300):
        put_behind(caller, awaited, calls, first=1_000_000 * (1 + len(sizes)))
        written = Written(file_store)
        take_in(worker)
        sizes.append(written.bytes())
    assert sizes[2] < 2 * sizes[0], sizes


@pytest.mark.parametrize('waiting', [50, 2_500])
def test_of_those_that_wait_for_a_call_a_beat_looks_at_a_part_and_all_run(store, waiting):
    caller, worker = store.client(), store.client()
    awaited = caller.put(make_call())
    assert worker.beat(LATE, 1) == [awaited]
    put_behind(caller, awaited, waiting)
    take_in(worker)
    worker.begin().find(awaited).succeed(None, LATE)
    worker.commit()
    assert loads_of(worker, lambda queue: queue.archive_ended(awaited, DAY)) < AFTER_MOST + 500
    worker.commit()
    beats = 0
    while worker.begin().has_work(LATE, 0):
        worker.beat(LATE)
        beats += 1
    desk = worker.begin().desk
    assert (beats, desk.n_ready, desk.n_aside) == (waiting // AFTER_MOST, waiting, 0)
    assert not worker.queue.waiting._awaited and not worker.queue.waiting.ended


@pytest.mark.parametrize('waiting', [50, 2_500])
def test_of_those_that_wait_for_a_call_elsewhere_a_beat_looks_at_a_part_and_all_run(
        site, waiting):
    """It was moved, and ended there: nobody tells them of that."""
    first, = site.put(make_call())
    site.put(*(make_call(number) for number in range(1, waiting + 1)), after=[first])
    while site.begin()['old'].news():
        site.beat('old')
    site.begin().move(most=1)
    site.commit()
    place = site.begin().place(first)
    assert site.beat(place, LATE, 1) == [first]
    look_in_parts(site, waiting)
    assert site.begin()['old'].desk.n_aside == waiting and site['old'].waiting.parted
    site.find(first).succeed(None, LATE)
    site[place].archive_ended(first, DAY)
    site.commit()
    look_in_parts(site, waiting)
    desk = site.begin()['old'].desk
    assert (desk.n_ready, desk.n_aside, site['old'].waiting.parted) == (waiting, 0, False)


def look_in_parts(site, waiting):
    """What a worker does each minute, and the beats that follow from it."""
    client = site.client
    client._key = site._key  # as loads_of finds it
    assert loads_of(client, lambda queues: queues['old'].recheck_held_up(LATE)) < AFTER_MOST + 500
    client.commit()
    beats = 0
    while client.begin()['old'].has_work(LATE, 0):
        assert loads_of(client, lambda queues: queues['old'].take_in_and_claim(
            'boot-old', LATE, 0, DAY)) < AFTER_MOST + 500
        client.commit()
        beats += 1
    assert beats == waiting // AFTER_MOST


def test_those_not_looked_at_wait_when_the_call_they_wait_for_runs_once_more(store):
    caller, worker = store.client(), store.client()
    awaited = caller.put(make_call())
    worker.beat(LATE, 1)
    put_behind(caller, awaited, AFTER_MOST + 10)
    take_in(worker)
    worker.begin().find(awaited).fail(Failure('ValueError', 'no', ''), LATE)
    worker.commit()
    file_all(worker, [awaited])
    queue = caller.begin()
    queue.put_again(queue.find(awaited), 3)
    caller.commit()
    ids = worker.beat(LATE, 1)
    assert ids == [awaited] and worker.begin().desk.n_aside >= 10
    assert not worker.queue.has_work(LATE, 0)
    end(worker, awaited)
    worker.beat(LATE)
    assert worker.begin().desk.n_aside == 0


@pytest.mark.parametrize('first_failure', [False, True])
def test_the_end_of_a_member_loads_as_much_however_many_there_are(file_store, first_failure):
    """Members mostly end in order: what waits for the last of them is looked at once."""
    members = 400
    caller, worker = file_store.client(), file_store.client()
    fill(caller, members)
    ids = worker.beat(LATE, members)
    queue = caller.begin()
    queue.put(make_call(members, hurried=first_failure), 0, after=[queue.find(id) for id in ids])
    caller.commit()
    take_in(worker)
    end_all(worker, ids[:300])
    for id in ids[:300]:
        assert loads_of(worker, lambda queue, id=id: queue.archive_ended(id, DAY)) < 30
        worker.commit()
    assert worker.begin().desk.n_aside == 1
    end_all(worker, ids[300:])
    file_all(worker, ids[300:])
    assert (worker.begin().desk.n_aside, worker.queue.desk.n_ready) == (0, 1)


@pytest.mark.parametrize('in_lanes', [False, True])
def test_of_many_that_were_cancelled_a_beat_looks_at_a_part_and_all_are_filed(store, in_lanes):
    calls = 4_000
    caller, worker = store.client(), store.client()
    fill(caller, calls)
    if not in_lanes:
        take_in(worker)
    queue = caller.begin()
    for lane, number in [(number % LANES, number // LANES + 1) for number in range(calls)]:
        lanes.get(queue.lanes[lane], number).deferred.cancel()
    caller.commit()
    assert worker.begin().length_new() == 0
    beats = 0
    while worker.begin().has_work(LATE, 1):
        assert loads_of(worker, lambda queue: queue.take_in_and_claim(
            'boot', LATE, 1, DAY)) < 2 * TAKE_IN_MOST + 600
        worker.commit()
        beats += 1
    assert beats <= 10
    queue = worker.begin()
    assert not queue.cancelled and not queue.desk.n_taken_in() and queue.length_new() == 0
    assert sum(len(calls) for calls in queue.withdrawn.values()) == calls


def pages_of(queue, size):
    """The calls that wait, read page by page."""
    found, last = [], None
    while page := listing.page(queue, 'new', start=last, limit=size):
        found += page
        last = page[-1].id
    return found


@pytest.mark.parametrize('again', [False, True])
def test_a_page_of_calls_that_are_not_taken_in_loads_as_much_however_many_are_not(
        file_store, again):
    """A worker has not been there for long; what ran again, it may be, has old times."""
    client = file_store.client()
    if again:
        for failed in [client.put(make_call(number)) for number in range(100)]:
            assert client.beat(LATE, 1) == [failed]
            client.begin().find(failed).fail(Failure('ValueError', 'no', ''), LATE)
            client.queue.archive_ended(failed, DAY)
            client.commit()
        queue = client.begin()
        for failed in listing.page(queue, 'failed', limit=100):
            queue.put_again(failed, 3)
        client.commit()
    fill(client, 6_000, first=100)
    assert loads_of(client, lambda queue: listing.page(queue, 'new', limit=20)) < 250
    client.begin()
    put_at = [each.put_at - NOW for each in listing.page(client.queue, 'new', limit=10_000)]
    assert put_at == [*range(6_099, 99, -1), *(range(99, -1, -1) if again else ())]


@pytest.mark.parametrize('delay, most', [
    (lambda number: 1_000, 300), (lambda number: number * 7_919 % 6_000, 1_000)])
def test_a_page_of_calls_that_wait_for_their_time_loads_as_much_however_many_do(
        file_store, monkeypatch, delay, most):
    monkeypatch.setattr(listing, 'LATER_MOST', 500)
    client = file_store.client()
    numbers = [number ^ 5 for number in range(6_000)]  # clocks differ
    queue = client.begin()
    for place, number in enumerate(numbers):
        queue.put(make_call(number, not_before=LATE + 1 + number + delay(number)), place % LANES)
    client.commit()
    take_in(client)
    assert client.queue.desk.n_later == 6_000
    assert loads_of(client, lambda queue: listing.page(queue, 'new', limit=20)) < most
    client.begin()
    assert [each.put_at - NOW for each in listing.page(client.queue, 'new', limit=10_000)] == [
        *range(5_999, -1, -1)]


@pytest.mark.parametrize('kind', ['ready', 'of one series', 'behind another'])
def test_a_page_of_calls_that_wait_loads_as_much_however_many_do(file_store, kind):
    caller, worker = file_store.client(), file_store.client()
    first = caller.put(make_call(series='one' if kind == 'of one series' else None))
    worker.beat(LATE, 1)
    queue = caller.begin()
    for number in range(1, 4_000):
        queue.put(make_call(number, priority=number % 3,
                            series='one' if kind == 'of one series' else None),
                  number % LANES, after=[queue.find(first)] if kind == 'behind another' else ())
    caller.commit()
    take_in(worker)
    while kind == 'of one series' and worker.begin().desk.n_ready:
        worker.beat(LATE, 1)
    assert loads_of(worker, lambda queue: listing.page(queue, limit=20)) < 150
    worker.begin()
    assert [each.put_at for each in listing.page(worker.queue, 'new', limit=20)] == [
        NOW + number for number in range(3_999, 3_979, -1)]


def test_pages_of_calls_that_wait_are_newest_first_wherever_they_wait(store):
    caller, worker = store.client(), store.client()
    first = caller.put(make_call(series='one'))
    worker.beat(LATE, 1)
    numbers = [number * 7 % 200 for number in range(1, 200)]  # clocks differ
    for part in (numbers[:150], numbers[150:]):  # what comes last is still in its lane
        queue = caller.begin()
        for number in part:
            queue.put(make_call(number, priority=number % 3 - 1,
                                series={1: 'one', 2: 'two'}.get(number % 5),
                                not_before=LATE + 200 - number if number % 7 == 0 else 0.0),
                      number % LANES,
                      after=[queue.find(first)] if number % 11 == 0 else ())
        caller.commit()
        if part == numbers[:150]:
            worker.beat(LATE)
            worker.beat(LATE, 40)
    queue = worker.begin()
    assert queue.desk.n_ready and queue.desk.n_later and len(queue.waiting.blocked) > 5
    assert len(queue.waiting.parked) > 5 and queue.news()
    running = {each.put_at for each in queue.desk.running.values()}
    expected = sorted({NOW + number for number in numbers} - running, reverse=True)
    for size in (1, 7, 500):
        assert [each.put_at for each in pages_of(queue, size)] == expected


def test_a_lane_by_which_very_many_were_put_at_once_does_not_keep_what_the_archive_has_dropped(
        file_store):
    """Its thread is gone, and nobody trims it: beats do, a part in each."""
    client = file_store.client()
    queue = client.begin()
    for number in range(1_500):
        queue.put(make_call(number), 3)
    client.commit()
    while ids := client.beat(LATE, 1_000):
        queue = client.begin()
        for id in ids:
            queue.desk.running[id].succeed(None, LATE)
            queue.archive_ended(id, DAY)
        client.commit()
    beats = 0
    assert client.begin().drop_old(LATE + 2 * DAY, DAY)
    client.commit()
    while len(list(lanes.after(client.begin().lanes[3], 0))) > 1:
        written = Written(file_store)
        assert not client.queue.drop_old(LATE + 2 * DAY + 10 * beats, DAY)
        client.commit()
        assert sum(written.records()[0].values()) <= 12
        beats += 1
        assert beats < 20
    written = Written(file_store)
    assert not client.begin().drop_old(LATE + 3 * DAY, DAY)
    client.commit()
    assert not written.records()[0]
    for _ in range(2):
        file_store.databases[0].pack()
    assert 'Deferred' not in Counter(
        get_pickle_metadata(file_store.databases[0].storage.load(oid)[0])[1]
        for oid in file_store.databases[0].storage._index)


@pytest.mark.parametrize('state', ['resolved', 'expired', 'cancelled'])
def test_a_page_of_what_has_ended_loads_as_much_however_many_pages_come_before(store, state):
    calls, expires_at = 3_000, LATE - 1 if state == 'expired' else None
    client = store.client()
    client.begin()
    for number in range(calls):  # many at the same time, and those of some slices
        client.queue.put(make_call(number // 7, expires_at=expires_at), number * 5 % LANES)
    client.commit()
    if state == 'expired':
        while client.begin().has_work(LATE, 0):
            client.beat(LATE)
    for part in range(0 if state == 'expired' else 4):
        queue = client.begin()
        deferreds = queue.take_in_and_claim('boot', NOW, calls // 4, DAY)
        for deferred in deferreds:
            if state == 'resolved':
                deferred.succeed(None, NOW + part * DAY)
            else:
                deferred.cancel()
                deferred.ended_at = NOW + part * DAY
            queue.archive_ended(deferred.id, DAY)
        client.commit()
        while client.begin().news():
            client.beat(LATE)
    whole = [each.id for each in listing.page(client.begin(), state, limit=10_000)]
    assert len(set(whole)) == calls
    found = []
    while page := listing.page(client.queue, state, start=found[-1] if found else None, limit=70):
        found += [each.id for each in page]
    assert found == whole
    assert loads_of(client, lambda queue: listing.page(
        queue, state, start=whole[2_500], limit=20)) < 80


def test_what_is_only_looked_at_does_not_stay_in_memory(file_store):
    calls = 3_000
    client = file_store.client()
    fill(client, calls)
    while ids := client.beat(LATE, 1_000):
        queue = client.begin()
        for id in ids:
            queue.desk.running[id].fail(Failure('ValueError', 'no', ''), LATE)
            queue.archive_ended(id, DAY)
        client.commit()
    for look in (lambda queue: listing.page(queue, plugin='none', limit=20),
                 lambda queue: listing.purge(queue, 'failed', 1_000, LATE + 10)):
        assert loads_of(client, look) > calls
        assert client.connection._cache.cache_non_ghost_count < 500


def test_what_was_put_in_the_same_transaction_is_only_looked_at(file_store):
    client = file_store.client()
    put = client.begin().put(make_call(), 3)
    assert listing.page(client.queue, plugin='none') == []
    client.commit()
    client.connection.cacheMinimize()
    client.begin()
    assert listing.page(client.queue) == [put]


class Prefetching(DemoStorage):
    """Notes what is asked for before it is needed."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def prefetch(self, oids, tid):
        """As a ZEO client does, but for the asking."""
        self.asked.append(set(oids))


def test_the_calls_of_a_claim_are_asked_for_together_and_so_are_big_arguments():
    storage = Prefetching()
    database = DB(storage)
    store = Store([database], _NoStack())
    caller, worker = store.client(), store.client()
    big = payload.dump_arguments(('x' * 20_000,), {})
    for number in range(30):
        caller.put(make_call(number, arguments=big), number % LANES)
    worker.beat(LATE)
    worker.connection.cacheMinimize()
    storage.asked.clear()
    ids = worker.beat(LATE, 20)
    deferreds = [worker.begin().find(id) for id in ids]
    assert storage.asked == [{each._p_oid for each in deferreds},
                             {each.big_arguments._p_oid for each in deferreds}]
    for client in (caller, worker):
        client.close()
    database.close()


@pytest.mark.parametrize('kind', ['failed', 'cancelled', 'new'])
def test_what_a_page_has_to_go_through_is_asked_for_together(kind):
    storage = Prefetching()
    database = DB(storage)
    client = Store([database], _NoStack()).client()
    fill(client, 1_000)
    ids = client.beat(LATE, 1_000)
    queue = client.begin()
    for id in ids:
        deferred = queue.desk.running[id]
        if kind == 'failed':
            deferred.fail(Failure('ValueError', 'no', ''), LATE)
            queue.archive_ended(id, DAY)
        else:
            queue.give_back(id, LATE, 'as if', LATE + 1_000)
            if kind == 'cancelled':
                deferred.cancel()
    client.commit()
    looks = [lambda queue: listing.page(queue, kind, limit=10)]
    if kind == 'failed':
        looks.append(lambda queue: queue.length_failed())
    for look in looks:
        client.connection.cacheMinimize()
        storage.asked.clear()
        look(client.begin())
        leaves = _number_of_leaves({'failed': queue.failed, 'cancelled': queue.cancelled,
                                    'new': queue.waiting.later}[kind])
        assert leaves > 20 and leaves in map(len, storage.asked)
    client.close()
    database.close()


def _number_of_leaves(tree):
    number, leaf = 0, tree.__getstate__()[1]
    while leaf is not None:
        number += 1
        leaf = leaf.__getstate__()[1] if len(leaf.__getstate__()) == 2 else None
    return number


class _NoStack:
    """What a Store is given when nobody closes its clients but the test."""

    def callback(self, action):
        """Nothing is kept."""


def test_a_list_after_a_savepoint_leaves_the_connection_able_to_load_ahead(store):
    caller, reader = store.client(), store.client()
    for number in (1, 2):
        caller.put(make_call(number))
    reader.begin()
    reader.connection.root()['changed'] = True
    reader.tm.savepoint()
    assert len(listing.page(reader.queue)) == 2
    reader.abort()
    assert 'prefetch' not in vars(reader.connection)
