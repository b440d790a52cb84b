"""Keys: a second put joins the call that waits, and no change of its caller is missed."""

import itertools

import pytest
import transaction
from ZODB.POSException import ConflictError
from ZODB.POSException import POSKeyError
from ZODB.serialize import referencesf

from Products.zasync import lanes
from Products.zasync import putting
from Products.zasync.call import Caller
from Products.zasync.failure import Failure
from Products.zasync.interfaces import NEW
from tests.fakes import BOB
from tests.fakes import make_call
from tests.fakes import NOW


LATE = NOW + 10_000


@pytest.fixture(autouse=True)
def lane_by_lane(monkeypatch):
    """Each put goes to a lane of its own, as if each came from another thread."""
    turn = itertools.cycle(range(lanes.LANES))
    monkeypatch.setattr(lanes, 'current', lambda: next(turn))
    yield
    transaction.abort()


def put(client, call):
    """As a manager that stands alone does; → its Deferred, not committed."""
    queue = client.queue
    joined = putting.find_joined(queue.names, lambda id: queue, call)
    return joined[1] if joined else putting.put(queue, queue.names, call, 'zam')


def put_now(client, call):
    """Put in a transaction of its own; → its id."""
    client.begin()
    id = put(client, call).id
    client.commit()
    return id


def last_commit(client):
    client.begin()  # hears of all commits before it
    return client.connection.db().lastTransaction()


def keyed(number=0, key='sync', **changes):
    return make_call(number, key=key, **changes)


def other(**changes):
    """Bob's caller with changes."""
    return BOB._replace(**changes)


# joining

def test_a_second_put_joins_the_call_that_waits_and_writes_nothing(store):
    one, two = store.client(), store.client()
    first = put_now(one, keyed(1))
    before = last_commit(two)
    assert put_now(two, keyed(2)) == first
    assert last_commit(two) == before
    queue = one.begin()
    assert queue.length_new() == 1
    assert queue.find(first).arguments() == ((1,), {})


def test_calls_of_different_keys_or_of_none_do_not_join(store):
    client = store.client()
    calls = [keyed(1), keyed(2, 'other'), make_call(3), make_call(4), keyed(5, 'sync ')]
    assert len({put_now(client, call) for call in calls}) == 5


def test_two_puts_of_one_transaction_join(store):
    client = store.client()
    client.begin()
    deferred = put(client, keyed(1))
    assert put(client, keyed(2)) is deferred
    client.tm.savepoint()
    assert put(client, keyed(3)) is deferred
    client.commit()
    assert client.begin().length_new() == 1


WAITING = {
    'ready': lambda client: client.beat(LATE, 0),
    'given back': lambda client: give_back(client, 0.0),
    'given back for later': lambda client: give_back(client, LATE + 60),
    'claimed and not begun': lambda client: unclaim(client),
    'failed, and to run once more': lambda client: run_again(client),
}


def give_back(client, until):
    [id] = client.beat(LATE, 1)
    client.begin().give_back(id, LATE, 'interrupted', until)
    client.commit()


def unclaim(client):
    [id] = client.beat(LATE, 1)
    client.begin().unclaim(id, LATE)
    client.commit()


def run_again(client):
    [id] = client.beat(LATE, 1)
    client.begin().fail(id, Failure('ValueError', 'no'), LATE, 86_400)
    client.commit()
    queue = client.begin()
    queue.put_again(queue.find(id), lanes.current())
    client.commit()


@pytest.mark.parametrize('how', WAITING)
def test_a_call_is_joined_wherever_it_waits(store, how):
    client = store.client()
    first = put_now(client, keyed(1))
    WAITING[how](client)
    assert put_now(client, keyed(2)) == first
    assert client.begin().find(first).state == NEW


def test_a_call_that_waits_for_its_time_its_series_or_for_others_is_joined(store):
    client = store.client()
    put_now(client, make_call(0, series='s'))
    client.beat(LATE, 1)
    member = make_call(1, not_before=LATE + 60)
    calls = [keyed(2, 'later', not_before=LATE + 60), keyed(3, 'blocked', series='s'),
             keyed(4, 'parked', members=(member,))]
    ids = [put_now(client, call) for call in calls]
    assert client.beat(LATE, 10) == []
    assert [put_now(client, keyed(9, key)) for key in ('later', 'blocked', 'parked')] == ids
    assert client.begin().length_new() == 4


def test_a_call_with_members_that_joins_puts_no_members(store):
    client = store.client()
    first = put_now(client, keyed(1, members=(make_call(2),)))
    assert client.begin().length_new() == 2
    assert put_now(client, keyed(3, members=(make_call(4),))) == first
    assert client.begin().length_new() == 2


# not joining

def succeed(client, id):
    client.beat(LATE, 1)
    client.begin().find(id).succeed(None, LATE)
    client.commit()


def fail(client, id):
    client.beat(LATE, 1)
    client.begin().fail(id, Failure('ValueError', 'no'), LATE, 86_400)
    client.commit()


def cancel(client, id):
    client.begin().find(id).cancel()
    client.commit()


ENDS = {
    'runs': lambda client, id: client.beat(LATE, 1),
    'has ended well': succeed,
    'has failed': fail,
    'was cancelled in its lane': cancel,
    'was cancelled where it waited': lambda client, id: (client.beat(LATE, 0), cancel(client, id)),
    'was cancelled while it ran': lambda client, id: (client.beat(LATE, 1), cancel(client, id)),
}


@pytest.mark.parametrize('how', ENDS)
def test_a_call_that_does_not_wait_any_more_is_not_joined_and_the_next_one_is(store, how):
    client = store.client()
    first = put_now(client, keyed(1))
    ENDS[how](client, first)
    second = put_now(client, keyed(2))
    assert second != first
    assert put_now(client, keyed(3)) == second


def retry(client, id):
    queue = client.begin()
    putting.put_again(queue, queue.find(id), queue.names, 'zam', lambda id: queue)
    client.commit()


@pytest.mark.parametrize('how', ENDS)
def test_a_call_that_is_run_again_is_joined_though_another_was_put_since(store, how):
    client = store.client()
    first = put_now(client, keyed(1))
    fail(client, first)
    ENDS[how](client, put_now(client, keyed(2)))
    retry(client, first)
    assert put_now(client, keyed(3)) == first


def test_a_call_that_is_run_again_leaves_its_key_to_one_that_waits(store):
    client = store.client()
    first = put_now(client, keyed(1))
    fail(client, first)
    second = put_now(client, keyed(2))
    retry(client, first)
    assert put_now(client, keyed(3)) == second


def test_a_put_that_overlaps_with_another_being_run_again_is_refused_and_then_joins(store):
    one, two = store.client(), store.client()
    first = put_now(one, keyed(1))
    fail(one, first)
    succeed(one, put_now(one, keyed(2)))
    two.begin()
    put(two, keyed(3))
    retry(one, first)
    with pytest.raises(ConflictError):
        two.commit()
    assert put_now(two, keyed(3)) == first


@pytest.mark.parametrize('seen', [False, True])
def test_a_call_that_has_expired_is_not_joined_whether_a_worker_saw_it_or_not(store, seen):
    client = store.client()
    first = put_now(client, keyed(0, expires_at=NOW + 60))
    assert put_now(client, keyed(59)) == first
    if seen:
        client.beat(NOW + 60, 0)
    assert put_now(client, keyed(60)) != first


@pytest.mark.parametrize('changes', [
    {'caller': other(user_id='eve')},
    {'caller': other(folder=('', 'sub', 'acl_users'))},
    {'caller': Caller(None, None, 'system')},
    {'caller': Caller(None, None, 'nobody')},
    {'caller': other(owner=(('', 'acl_users'), 'author'))},
    {'session': 'the id of a browser'},
])
def test_a_key_is_the_callers_own(store, changes):
    client = store.client()
    mine = put_now(client, keyed(1))
    theirs = put_now(client, keyed(2, **changes))
    assert theirs != mine
    assert put_now(client, keyed(3)) == mine
    assert put_now(client, keyed(4, **changes)) == theirs


def test_keys_of_two_browsers_and_of_two_owners_of_scripts_are_apart(store):
    client = store.client()
    changes = [{'session': 'one'}, {'session': 'two'},
               {'caller': other(owner=(('', 'acl_users'), 'one'))},
               {'caller': other(owner=(('', 'acl_users'), 'two'))}]
    assert len({put_now(client, keyed(number, **change))
                for number, change in enumerate(changes)}) == 4


def test_no_text_of_a_key_reaches_into_anothers_keys(store):
    client = store.client()
    mine = put_now(client, keyed(1, 'a'))
    forged = repr(('a', 'bob', ('', 'acl_users'), '', None, None))
    for text in (forged, "a', 'bob", '\ud800', '\x00', "'"):
        assert put_now(client, keyed(2, text, caller=other(user_id='eve'))) != mine
    assert put_now(client, keyed(3, 'a')) == mine


@pytest.mark.parametrize('changes', [
    {'site': ('', 'portal')}, {'server_url': 'http://b'}, {'languages': 'fr'},
    {'virtual_root': ('', 'b')}])
def test_the_same_user_joins_from_whatever_address_and_in_whatever_language(store, changes):
    client = store.client()
    first = put_now(client, keyed(1))
    assert put_now(client, keyed(2, caller=other(**changes))) == first


# races

def effect(client, value):
    client.connection.root()['effect'] = value


def test_a_join_that_overlaps_with_the_claim_before_it_is_refused_and_puts_a_new_call(store):
    """Else the run, which began before the caller's change was there, would miss it."""
    caller, worker = store.client(), store.client()
    first = put_now(caller, keyed(1))
    caller.begin()
    effect(caller, 'the change the second call is about')
    assert put(caller, keyed(2)).id == first
    assert worker.beat(LATE, 1) == [first]
    with pytest.raises(ConflictError):
        caller.commit()
    assert caller.begin().length_new() == 0
    second = put_now(caller, keyed(2))
    assert second != first
    assert worker.beat(LATE, 1) == [second]


def test_a_join_that_commits_before_an_overlapping_claim_is_seen_by_the_run(store):
    caller, worker, thread = store.client(), store.client(), store.client()
    first = put_now(caller, keyed(1))
    caller.begin()
    effect(caller, 'changed')
    assert put(caller, keyed(2)).id == first
    [claimed] = worker.begin().take_in_and_claim('boot', LATE, 1, 86_400)
    caller.commit()
    worker.commit()
    assert claimed.id == first
    # A run begins after the commit of its claim.
    thread.begin()
    assert thread.connection.root()['effect'] == 'changed'


def test_a_join_after_a_savepoint_is_refused_likewise(store):
    caller, worker = store.client(), store.client()
    put_now(caller, keyed(1))
    caller.begin()
    put(caller, keyed(2))
    effect(caller, 'change')
    caller.tm.savepoint()
    effect(caller, 'another')
    worker.beat(LATE, 1)
    with pytest.raises(ConflictError):
        caller.commit()


@pytest.mark.parametrize('before', ['a new key', 'a key whose call has ended'])
def test_of_two_overlapping_puts_with_one_key_the_second_is_refused_and_then_joins(store, before):
    one, two = store.client(), store.client()
    if before != 'a new key':
        succeed(one, put_now(one, keyed(0)))
    for client in (one, two):
        client.begin()
    first = put(one, keyed(1)).id
    put(two, keyed(2))
    one.commit()
    with pytest.raises(ConflictError):
        two.commit()
    assert put_now(two, keyed(2)) == first
    assert two.begin().length_new() == 1


def test_two_overlapping_joins_do_not_meet(store):
    one, two = store.client(), store.client()
    first = put_now(one, keyed(0))
    for client in (one, two):
        client.begin()
        assert put(client, keyed(1)).id == first
        put(client, make_call(2))
    one.commit()
    two.commit()
    assert one.begin().length_new() == 3


def test_different_keys_never_meet_in_150_overlapping_pairs(store):
    one, two = store.client(), store.client()
    for pair in range(150):
        for client in (one, two):
            client.begin()
        put(one, keyed(pair, f'left {pair}'))
        put(two, keyed(pair, f'right {pair}'))
        one.commit()
        two.commit()
    assert one.begin().length_new() == 300


def test_a_claim_of_another_call_does_not_meet_a_join(store):
    caller, worker = store.client(), store.client()
    first = put_now(caller, keyed(1))
    second = put_now(caller, make_call(0, priority=1))
    caller.begin()
    effect(caller, 'change')
    assert put(caller, keyed(2)).id == first
    assert worker.beat(LATE, 1) == [second]
    caller.commit()


# what is left of a key

@pytest.mark.parametrize('filled', [0, 1])
def test_a_put_that_is_rolled_back_to_a_savepoint_is_not_joined(store, filled):
    client = store.client()
    client.begin()
    if filled:
        put(client, keyed(0, 'another key of this tree'))
    savepoint = client.tm.savepoint()
    lost = put(client, keyed(1)).id
    savepoint.rollback()
    again = put(client, keyed(2)).id
    client.commit()
    assert again != lost
    assert put_now(client, keyed(3)) == again
    assert client.begin().length_new() == 1 + filled


def test_a_put_that_was_aborted_is_not_joined(store):
    client = store.client()
    client.begin()
    lost = put(client, keyed(1)).id
    client.abort()
    assert put_now(client, keyed(2)) != lost


def test_a_look_for_a_key_that_is_not_there_leaves_nothing(store):
    client = store.client()
    before = last_commit(client)
    queue = client.begin()
    assert putting.find_joined(queue.names, lambda id: queue, keyed(1)) is None
    client.commit()
    assert last_commit(client) == before
    assert client.begin().names.find_key(putting._own_key(keyed(1))) is None


def test_a_call_without_a_key_reads_no_name(store):
    client = store.client()
    queue = client.begin()
    client.connection.cacheMinimize()
    assert putting.find_joined(queue.names, None, make_call(1)) is None
    putting.put(queue, queue.names, make_call(1), 'zam')
    assert queue.names._p_state == -1  # a ghost: nobody looked


def test_a_put_that_was_undone_is_not_joined(file_store):
    client = file_store.client()
    put_now(client, keyed(0, 'before'))
    lost = put_now(client, keyed(1))
    client.beat(LATE, 0)
    [beat, put_of_it] = file_store.databases[0].undoLog(0, 2)
    client.begin()
    file_store.databases[0].undoMultiple([beat['id'], put_of_it['id']], client.tm.get())
    client.commit()
    assert put_now(client, keyed(2)) != lost


def test_a_key_does_not_keep_the_result_of_its_call(file_store):
    client = file_store.client()
    client.connection.cacheMinimize()
    id = put_now(client, keyed(1))
    client.beat(LATE, 1)
    deferred = client.begin().find(id)
    oid = deferred._p_oid
    deferred.succeed(None, LATE)
    client.queue.archive_ended(id, 86_400)
    client.commit()
    # It leaves the archive, and its lane when others are put.
    lane = int(id.split('-')[0], 16)
    for number in range(2, 65):
        client.put(make_call(number), lane)
    client.beat(LATE, 100)
    for number in range(65, 129):
        client.put(make_call(number), lane)
    assert client.begin().drop_old(LATE + 200_000, 86_400)
    client.commit()
    key = client.begin().names.find_key(putting._own_key(keyed(1)))
    data, _ = file_store.databases[0].storage.load(key._p_oid)
    assert referencesf(data) == []
    file_store.databases[0].pack()
    with pytest.raises(POSKeyError):
        file_store.databases[0].storage.load(oid)
    # And the key is as good as new, for who has the old call in memory too.
    for each in (client, file_store.client()):
        assert put_now(each, keyed(200)) != id
