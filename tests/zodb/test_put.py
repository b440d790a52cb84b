"""A put: it shares the fate of its caller's transaction, and costs two small objects."""

import itertools
import pickle

import pytest
import transaction
from ZODB.POSException import ConflictError
from ZODB.utils import get_pickle_metadata

from Products.zasync import lanes
from Products.zasync import payload
from Products.zasync import putting
from Products.zasync.builtin import check_zope_exec
from Products.zasync.call import Caller
from Products.zasync.deferred import Deferred
from Products.zasync.deferred import STORED
from Products.zasync.interfaces import NEW
from Products.zasync.places import parse_id
from tests.fakes import make_call
from tests.fakes import NOW


def entries(queue, id):
    """The Entries of the lane that a call was put into."""
    return [entry for _, entry in lanes.after(queue.lanes[parse_id(id)[0]], 0)]


def numbers_in(lane):
    return [number for number, _ in lanes.after(lane, 0)]


def ids_in(queue, lane=0):
    return [entry.deferred.id for _, entry in lanes.after(queue.lanes[lane], 0)]


# I1: with the caller's transaction

def test_a_put_is_not_seen_by_others_before_its_commit_and_is_after_it(store):
    caller, other = store.client(), store.client()
    id = caller.begin().put(make_call(), 0).id
    assert other.begin().find(id) is None
    assert other.queue.length_new() == 0
    caller.commit()
    queue = other.begin()
    assert queue.find(id).state == NEW
    assert queue.length_new() == 1


@pytest.mark.parametrize('before', [0, 1])
def test_the_request_aborts_after_a_put(store, before):
    caller, other = store.client(), store.client()
    for number in range(before):
        caller.put(make_call(number))
    id = caller.begin().put(make_call(9), 0).id
    caller.abort()
    assert other.begin().find(id) is None
    assert other.queue.length_new() == before
    # And the lane is as good as before.
    next_id = caller.put(make_call(10))
    assert other.begin().find(next_id).id == next_id
    assert other.queue.length_new() == before + 1


@pytest.mark.parametrize('before', [0, 1])
def test_a_savepoint_rollback_undoes_the_puts_after_it_and_no_other(store, before):
    caller, other = store.client(), store.client()
    for number in range(before):
        caller.put(make_call(number))
    queue = caller.begin()
    kept = queue.put(make_call(7), 0).id
    savepoint = caller.tm.savepoint()
    lost = [queue.put(make_call(8), 0).id, queue.put(make_call(9), 1).id]
    savepoint.rollback()
    caller.commit()
    queue = other.begin()
    assert [queue.find(id) for id in lost] == [None, None]
    assert queue.find(kept).id == kept
    assert queue.length_new() == before + 1


def test_a_rollback_to_before_the_first_use_of_a_lane_leaves_a_lane_that_works(store):
    """The trap: an object made after the savepoint is disowned, whoever still holds it."""
    caller, other = store.client(), store.client()
    queue = caller.begin()
    savepoint = caller.tm.savepoint()
    queue.put(make_call(1), 5)
    savepoint.rollback()
    in_same_transaction = queue.put(make_call(2), 5).id
    caller.commit()
    in_next = caller.put(make_call(3), 5)
    assert ids_in(other.begin(), 5) == [in_same_transaction, in_next]
    assert other.queue.length_new() == 2


def test_a_put_after_an_aborted_first_put_of_a_lane_is_reachable(store):
    caller, other = store.client(), store.client()
    caller.begin().put(make_call(1), 5)
    caller.abort()
    id = caller.put(make_call(2), 5)
    assert ids_in(other.begin(), 5) == [id]
    assert other.beat(NOW + 10, 1) == [id]


def test_the_put_and_the_effects_of_its_request_commit_together_or_not_at_all(store):
    caller, rival, other = store.client(), store.client(), store.client()
    caller.begin()
    caller.connection.root()['page'] = 0
    caller.commit()
    id = caller.begin().put(make_call(), 0).id
    caller.connection.root()['page'] = 1
    rival.begin()
    rival.connection.root()['page'] = 2
    rival.commit()
    with pytest.raises(ConflictError):
        caller.commit()
    assert other.begin().find(id) is None


# I7: its cost

def records_of_last_commit(store):
    """(oid, bytes) of what the last commit stored, from the storage's own record of it."""
    storage = store.databases[0].storage
    last = storage.lastTransaction()
    transactions = storage.iterator(last, last)
    found = [(record.oid, record.data) for written in transactions for record in written]
    transactions.close()
    return found


@pytest.mark.parametrize('waiting', [1, 14, 16, 62, 200, 3_000])
def test_a_put_writes_two_objects_whatever_the_length_of_the_queue(file_store, waiting):
    """As many objects, and as many bytes, with one call waiting as with thousands."""
    client = file_store.client()
    client.begin()
    for number in range(waiting):
        client.queue.put(make_call(number), 0)
    client.commit()
    client.put(make_call(waiting))
    sizes = [len(data) for _, data in records_of_last_commit(file_store)]
    assert len(sizes) == 2
    assert sum(sizes) < 850, sizes


def test_a_put_by_a_process_that_saw_nothing_yet_loads_no_more_when_thousands_wait(file_store):
    caller, fresh = file_store.client(), file_store.client()

    def loads(number):
        fresh.abort()
        fresh.connection.cacheMinimize()
        before = fresh.connection.getTransferCounts()[0]
        fresh.put(make_call(number))
        return fresh.connection.getTransferCounts()[0] - before

    caller.put(make_call())
    few = loads(1)
    caller.begin()
    for number in range(3_000):
        caller.queue.put(make_call(number), 0)
    caller.commit()
    # The tree of chunks has leaves of its own now: one more to the last of them.
    assert loads(2) <= few + 1


def test_a_put_with_a_big_argument_writes_a_third_object_and_keeps_the_deferred_small(file_store):
    client = file_store.client()
    client.put(make_call())
    big = payload.dump_arguments(('x' * 20_000,), {})
    id = client.put(make_call(1, arguments=big))
    assert len(records_of_last_commit(file_store)) == 3
    deferred = client.begin().find(id)
    assert deferred.arguments() == (('x' * 20_000,), {})
    assert size_of(file_store, deferred) < 400


def test_a_transition_of_a_call_with_a_big_argument_does_not_write_the_argument_again(file_store):
    client = file_store.client()
    id = client.put(make_call(arguments=payload.dump_arguments(('x' * 20_000,), {})))
    client.beat(NOW, 1)
    sizes = [len(data) for _, data in records_of_last_commit(file_store)]
    assert client.begin().find(id).attempt == 1
    assert max(sizes) < 1_000, sizes


def test_few_puts_write_more_than_two_objects(file_store):
    """Only a put that begins a chunk does, and of these those that split the tree of chunks."""
    client = file_store.client()
    costs = []
    for number in range(256):
        client.put(make_call(number))
        costs.append(len(records_of_last_commit(file_store)))
    assert sum(cost > 2 for cost in costs) <= 256 // lanes.CHUNK + 1, costs
    assert sum(costs) < 2.1 * 256


def size_of(store, deferred):
    data, _ = store.databases[0].storage.load(deferred._p_oid)
    return len(data)


def test_the_record_of_a_typical_zope_exec_call_is_smaller_than_400_bytes(file_store):
    client = file_store.client()
    args, kwargs = check_zope_exec(
        ('/', {}, 'python:home.portal.portal_webmail.box_bob.synchronize(light=1)', {}), {})
    caller = Caller('bob', ('', 'acl_users'), server_url='http://localhost:8080',
                    languages='fr,en;q=0.5')
    id = client.put(make_call(plugin='zope_exec', caller=caller,
                              arguments=payload.dump_arguments(args, kwargs)))
    size = size_of(file_store, client.begin().find(id))
    assert size < 400, f'{size} bytes'


# options cost nothing where there are none

def put_with_names(client, **changes):
    """As a manager does, with all that options may ask for; → its id."""
    queue = client.begin()
    deferred = putting.put(queue, queue.names, make_call(**changes), 'zam')
    client.commit()
    transaction.abort()
    return deferred.id


def classes_of_last_commit(store):
    """The classes of what the last commit stored."""
    return sorted(get_pickle_metadata(data)[1] for _, data in records_of_last_commit(store))


def test_a_plain_put_writes_its_lane_and_its_deferred_and_no_more_than_they_ever_held(file_store):
    client = file_store.client()
    put_with_names(client)
    id = put_with_names(client)
    assert classes_of_last_commit(file_store) == ['Deferred', 'LOBTree']
    queue = client.begin()
    deferred = queue.find(id)
    assert entries(queue, id)[-1] == lanes.Entry(deferred.put_at, deferred)
    assert {STORED[number] for number in deferred.__getstate__()} == {
        'id', 'plugin', '_caller', '_arguments', '_queue'}


def test_all_that_a_deferred_has_can_be_stored():
    whole = {name for name, value in vars(Deferred).items()
             if not (name[:2] == '__' or name[:3] in ('_p_', '_v_') or callable(value)
                     or isinstance(value, property))}
    assert whole > {'state', 'groupable', '_broken'}
    assert whole < set(STORED) and len(STORED) == len(set(STORED))


@pytest.mark.parametrize('option', [
    {'timeout_seconds': 5.0}, {'retry': (3, 5.0, 2.0, 3600.0, ())}, {'retry': ()},
    {'priority': 5}, {'not_before': NOW + 60}, {'series': 's'}], ids=str)
def test_an_option_that_needs_no_object_of_its_own_adds_none(file_store, option):
    client = file_store.client()
    put_with_names(client)
    id = put_with_names(client, **option)
    assert classes_of_last_commit(file_store) == ['Deferred', 'LOBTree']
    queue = client.begin()
    assert {'priority', 'not_before'}.issuperset(option) or not entries(queue, id)[-1].facts
    assert size_of(file_store, queue.find(id)) < 400


def test_an_expiry_is_noted_in_the_lane_too(file_store):
    client = file_store.client()
    put_with_names(client)
    id = put_with_names(client, expires_at=NOW + 60)
    assert classes_of_last_commit(file_store) == ['Deferred', 'LOBTree']
    assert entries(client.begin(), id)[-1].facts == {'expires': NOW + 60}


def test_a_key_costs_one_small_object_and_its_place_the_first_time(file_store):
    client = file_store.client()
    put_with_names(client)
    put_with_names(client, key='k')
    assert classes_of_last_commit(file_store) == ['Deferred', 'Key', 'LOBTree', 'OOBTree']
    put_with_names(client, key='k')
    assert classes_of_last_commit(file_store) == ['Deferred', 'Key', 'LOBTree']
    [size] = [len(data) for _, data in records_of_last_commit(file_store)
              if get_pickle_metadata(data)[1] == 'Key']
    assert size < 150


def test_an_application_that_unpickles_a_deferred_needs_no_class_of_its_arguments(file_store):
    """Arguments are bytes: a page can list calls whose classes it lacks."""
    client = file_store.client()
    id = client.put(make_call(arguments=b'no pickle at all'))
    deferred = client.begin().find(id)
    assert (deferred.id, deferred.plugin, deferred.state) == (id, 'echo', NEW)
    with pytest.raises(pickle.UnpicklingError):
        deferred.arguments()


# I6: puts that meet

def test_two_requests_put_into_the_same_lane(store):
    """Each committed put is there once, in the order of the commits: 50 pairs."""
    one, two, reader = store.client(), store.client(), store.client()
    committed = []
    for pair in range(50):
        first, second = (one, two) if pair % 2 else (two, one)
        ids = {client: client.begin().put(make_call(pair), 0).id for client in (first, second)}
        first.commit()
        committed.append(ids[first])
        with pytest.raises(ConflictError):
            second.commit()
        committed.append(second.put(make_call(pair)))
    assert ids_in(reader.begin()) == committed
    assert reader.queue.length_new() == 100
    assert numbers_in(reader.queue.lanes[0]) == list(range(1, 101))


@pytest.mark.parametrize('filled', [0, 1, 30, 60, 119])
def test_overlapping_puts_in_different_lanes_do_not_meet(store, filled):
    clients = [store.client() for _ in range(4)]
    for client in clients[:1]:
        client.begin()
        for lane in range(4):
            for number in range(filled):
                client.queue.put(make_call(number), lane)
        client.commit()
    ids = [client.begin().put(make_call(200), lane).id for lane, client in enumerate(clients)]
    for client in clients:
        client.commit()
    queue = store.client().begin()
    assert [queue.find(id).id for id in ids] == ids
    assert queue.length_new() == 4 * filled + 4


#: What a lane holds before, how much of that is taken in, and claimed.
LANE_STATES = {
    'a lane nobody used': (0, False, 0),
    'calls nobody looked at': (10, False, 0),
    'calls that were taken in': (10, True, 0),
    'calls that run': (10, True, 10),
    'a put that begins a chunk and trims what was taken in': (63, True, 0),
    'a put that begins a chunk and trims what runs': (63, True, 63),
    'a put that begins a chunk, with nothing to trim': (63, False, 0),
    'a put that begins the second chunk': (15, True, 4),
}


@pytest.mark.parametrize('order', list(itertools.permutations(range(3))))
@pytest.mark.parametrize('state', LANE_STATES)
def test_puts_and_a_beat_do_not_meet_in_any_order_of_commits(store, state, order):
    """Two callers and the worker start from one snapshot; nobody is refused, nothing lost."""
    filled, taken_in, slots = LANE_STATES[state]
    one, two, worker = (store.client() for _ in range(3))
    one.begin()
    before = [one.queue.put(make_call(number), lane).id
              for lane in (0, 1) for number in range(filled)]
    one.commit()
    claimed = worker.beat(NOW + 1_000, 2 * slots) if taken_in else []
    assert len(claimed) == (2 * slots if taken_in else 0)

    ids = [one.begin().put(make_call(300), 0).id, two.begin().put(make_call(301), 1).id]
    claimed += [deferred.id for deferred in
                worker.begin().take_in_and_claim('boot', NOW + 1_000, 3, 86_400)]
    clients = (one, two, worker)
    for index in order:
        clients[index].commit()

    queue = store.client().begin()
    assert [queue.find(id).id for id in ids] == ids
    assert queue.length_new() + queue.length_accepted() == len(before) + 2
    assert queue.length_accepted() == len(claimed)
    # Whoever comes after them takes the rest, each call once.
    last = worker.beat(NOW + 1_000, 500)
    assert sorted(claimed + last) == sorted(before + ids)


@pytest.mark.parametrize('order', list(itertools.permutations(range(3))))
def test_puts_and_a_beat_that_archives_do_not_meet_in_any_order_of_commits(store, order):
    one, two, worker = (store.client() for _ in range(3))
    done = one.put(make_call(1))
    given_back = one.put(make_call(2))
    worker.beat(NOW + 10, 2)
    queue = worker.begin()
    queue.find(done).succeed(None, NOW + 11)
    worker.commit()

    ids = [one.begin().put(make_call(300), 0).id, two.begin().put(make_call(301), 1).id]
    queue = worker.begin()
    queue.archive_ended(done, 86_400)
    queue.give_back(given_back, NOW + 12, 'conflicts', NOW + 60)
    queue.pulse.write(1, 0, 0.0, 2, 1, 0)
    clients = (one, two, worker)
    for index in order:
        clients[index].commit()
    queue = store.client().begin()
    assert queue.length_new() == 3
    assert all(queue.find(id).id == id for id in (*ids, done, given_back))


@pytest.mark.parametrize('order', list(itertools.permutations(range(3))))
def test_a_put_that_splits_the_tree_of_chunks_meets_nobody_either(store, order):
    one, two, worker = (store.client() for _ in range(3))
    one.begin()
    for number in range(60 * lanes.CHUNK - 1, 0, -lanes.CHUNK):
        lanes.store(one.queue.lanes[0], number, lanes.GONE)
    one.commit()
    assert len(one.begin().lanes[0]) == 60
    before = [two.put(make_call(number), 1) for number in range(3)]

    ids = [one.begin().put(make_call(300), 0).id, two.begin().put(make_call(301), 1).id]
    claimed = [deferred.id for deferred in
               worker.begin().take_in_and_claim('boot', NOW + 1_000, 3, 86_400)]
    clients = (one, two, worker)
    for index in order:
        clients[index].commit()
    assert claimed == before
    assert worker.beat(NOW + 1_000, 500) == ids


# trimming

def test_a_put_that_begins_a_chunk_trims_what_the_worker_has_taken_in(store):
    client = store.client()
    for number in range(1, 64):
        client.put(make_call(number))
    taken = client.beat(NOW + 100, 63)
    assert numbers_in(client.begin().lanes[0]) == list(range(1, 64))
    client.put(make_call(64))
    queue = client.begin()
    # The marked entry stays, and its chunk: the mark is compared with it.
    assert numbers_in(queue.lanes[0]) == list(range(48, 65))
    assert all(queue.find(id).id == id for id in taken)


def test_a_put_trims_nothing_that_was_not_taken_in(store):
    client = store.client()
    ids = [client.put(make_call(number)) for number in range(1, 200)]
    assert ids_in(client.begin()) == ids


def test_one_put_removes_no_more_entries_than_a_caller_should_pay_for(store):
    client = store.client()
    client.begin()
    for number in range(1, 512):
        lanes.store(client.queue.lanes[0], number, lanes.GONE)
    client.queue.marks.set(0, 511, None)
    client.commit()
    client.put(make_call(1))
    assert len(client.begin().lanes[0]) == 512 // lanes.CHUNK + 1 - lanes.TRIM_MOST


@pytest.mark.parametrize('mark', [0, 1, 5, 10, 11, 1_000])
@pytest.mark.parametrize('entries', [1, 2, 10, 300])
def test_a_lane_is_never_emptied(entries, mark):
    """An emptied lane would number again from 1, under marks that say 1 was taken in."""
    lane = lanes.make_lanes()[0]
    for number in range(1, entries + 1):
        lanes.store(lane, number, lanes.GONE)
    for _ in range(5):
        lanes.trim(lane, mark)
    assert lanes.highest(lane) == entries
    assert lanes.next_number(lane) == entries + 1


def test_the_last_of_a_lane_is_its_highest_number_and_whose_it_is(store):
    client = store.client()
    assert lanes.last(client.begin().lanes[0]) == (0, None)
    for number in range(1, 2 * lanes.CHUNK + 2):
        id = client.put(make_call(number))
        assert lanes.last(client.begin().lanes[0]) == (number, client.queue.find(id)._p_oid)
    lanes.store(client.queue.lanes[0], number, lanes.GONE)
    assert lanes.last(client.queue.lanes[0]) == (number, None)


def test_the_first_put_of_a_lane_gets_the_number_1():
    assert [lanes.next_number(lane) for lane in lanes.make_lanes()] == [1] * lanes.LANES


def test_a_thread_that_moves_goes_to_any_lane_but_the_one_it_was_in():
    seen = [lanes.current()]
    for _ in range(20 * lanes.LANES):
        lanes.move()
        seen.append(lanes.current())
    assert all(before != after for before, after in itertools.pairwise(seen))
    assert set(seen) == set(range(lanes.LANES))
