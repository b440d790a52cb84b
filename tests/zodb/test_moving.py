"""Moving calls from one queue to others, against puts, beats and everything else at once."""

import random

import pytest
import transaction
from ZODB.POSException import ConflictError

from Products.zasync import moving
from Products.zasync import putting
from Products.zasync.failure import Failure
from Products.zasync.interfaces import ACCEPTED
from Products.zasync.interfaces import CALLBACK
from Products.zasync.interfaces import CANCELLED
from Products.zasync.interfaces import EXPIRED
from Products.zasync.interfaces import FAILED
from Products.zasync.interfaces import NEW
from Products.zasync.interfaces import RESOLVED
from Products.zasync.names import Names
from Products.zasync.queue import Queue
from tests.fakes import make_call
from tests.fakes import NOW
from tests.zodb.movingsite import LATE
from tests.zodb.movingsite import PERIOD
from tests.zodb.movingsite import Site


# what is where afterwards

def test_calls_that_wait_go_to_the_others_evenly_and_are_found_there_by_their_ids(site):
    ids = site.put(*(make_call(number) for number in range(10)))
    ids += site.put(*(make_call(10 + number) for number in range(10)), lane=3)
    site.beat('old')
    ids += site.put(make_call(20), make_call(21))
    assert site.move_all() == 22
    assert site.lengths() == {'old': (0, 0), 'one': (11, 0), 'two': (11, 0)}
    assert all(site.find(id, 'old') is site.find(id) for id in ids)
    assert not _calls(site['old'])
    assert all(site.find(id, 'one', 'two').state == NEW for id in ids)


def test_the_one_that_has_more_to_do_gets_less(site):
    site.put(*(make_call(number) for number in range(8)), queue='one')
    site.put(*(make_call(number) for number in range(4)))
    site.move_all()
    assert site.lengths()['two'] == (4, 0)


def test_a_call_goes_where_its_plugin_is_offered_and_where_a_worker_lives(site):
    site.begin()
    site['one'].card.plugins = {'echo': ''}
    site['two'].card.plugins = {'echo': '', 'resize': ''}
    ids = [site['old'].put(make_call(number, plugin='resize'), 0).id for number in range(3)]
    other = site['old'].put(make_call(9), 0).id
    site.commit()
    site.begin()
    targets = site.targets()
    moving.move_some(site['old'], [targets[0], targets[1]._replace(lives=False)], site.names,
                     LATE, PERIOD)
    assert {site.place(id) for id in ids} == {'two'}
    assert site.place(other) == 'one'


def test_a_deferred_that_somebody_holds_stays_true(sites):
    site, caller = sites(), sites()
    caller.begin()
    deferred = caller['old'].put(make_call(), 0)
    caller.commit()
    site.move_all()
    caller.begin()
    queue = caller.place(deferred.id)
    assert caller.find(deferred.id) is deferred
    assert caller[queue].take_in_and_claim('boot', LATE, 1, PERIOD) == [deferred]
    deferred.succeed(None, LATE)
    caller[queue].archive_ended(deferred.id, PERIOD)
    caller.commit()
    caller.begin()
    assert caller.find(deferred.id).state == RESOLVED
    assert not caller[queue].intakes


def test_calls_run_in_the_order_they_were_put_and_by_priority_also_among_those_of_the_target(site):
    site.begin()
    targets = site.targets()[:1]
    native = [site['one'].put(make_call(number), 0).id for number in (1, 3, 5)]
    old = [site['old'].put(make_call(number), 0).id for number in (0, 2, 4)]
    urgent = site['old'].put(make_call(6, priority=1), 0).id
    site.commit()
    site.begin()
    moving.move_some(site['old'], targets, site.names, LATE, PERIOD)
    site.commit()
    assert site.beat('one', slots=10) == [urgent, old[0], native[0], old[1], native[1], old[2],
                                          native[2]]


def test_calls_of_the_same_lane_number_and_time_are_kept_apart(site):
    """Ids name lanes of the queue they were put to; the others have such lanes as well."""
    kinds = [{}, {'not_before': LATE + 50}, {'expires_at': LATE + 50}, {'series': 's'}]
    calls = [make_call(0, **kind) for kind in kinds]
    ids = [id for queue in ('old', 'one', 'two') for id in site.put(*calls, queue=queue)]
    assert len({id.rpartition('-')[0] for id in ids}) == len(calls)
    for queue in ('one', 'two', 'old'):
        site.beat(queue)
    site.move_all()
    assert [site.find(id).id for id in ids] == ids
    for queue in ('one', 'two'):
        site.beat(queue)
    assert [site.find(id).id for id in ids] == ids
    site.begin()
    listed = [deferred.id for queue in ('one', 'two') for deferred in _calls(site[queue])]
    assert sorted(listed) == sorted(ids)
    # What expires is taken out, each where it is.
    for queue in ('one', 'two'):
        site.beat(queue, LATE + 60)
    expired = [id for id in ids if site.find(id).state == EXPIRED]
    assert len(expired) == 3
    assert sum(new for new, _ in site.lengths().values()) == 9


def _calls(queue, **asked):
    from Products.zasync import listing
    return listing.page(queue, **asked)


def test_a_list_of_calls_is_paged_over_moved_and_other_ones(site):
    ids = site.put(*(make_call(number) for number in range(4)))
    for id in ids[:2]:
        _fail(site, 'old', id)
    site.put(*(make_call(number) for number in range(4)), queue='one')
    site.begin()
    moving.move_some(site['old'], site.targets()[:1], site.names, LATE, PERIOD)
    site.commit()
    site.begin()
    every = [deferred.id for deferred in _calls(site['one'])]
    assert len(every) == len(set(every)) == 8
    assert set(ids) <= set(every)
    pages, start = [], None
    while page := [deferred.id for deferred in _calls(site['one'], start=start, limit=3)]:
        pages += page
        start = page[-1]
    assert pages == every


def _fail(site, queue, id):
    site.begin()
    [deferred] = [each for each in site[queue].take_in_and_claim('boot', LATE, 99, PERIOD)
                  if each.id == id] or [site[queue].desk.running[id]]
    deferred.fail(Failure('ValueError', 'no'), LATE)
    site[queue].archive_ended(id, PERIOD)
    for other in list(site[queue].desk.running):
        site[queue].unclaim(other, LATE)
    site.commit()


# each kind of waiting

def test_a_delayed_call_waits_as_long_at_its_new_place(site):
    id, = site.put(make_call(not_before=LATE + 100))
    site.beat('old')
    in_lane, = site.put(make_call(1, not_before=LATE + 100))
    site.move_all()
    for queue in ('one', 'two'):
        assert site.beat(queue, LATE + 99, 9) == []
    assert sorted(site.beat('one', LATE + 100, 9) + site.beat('two', LATE + 100, 9)) == sorted(
        [id, in_lane])


def test_what_was_given_back_for_a_while_waits_as_long_at_its_new_place(site):
    id, = site.put(make_call(expires_at=LATE + 5))
    site.beat('old', slots=1)
    site.begin()['old'].give_back(id, LATE, 'conflicts', LATE + 30)
    site.commit()
    site.move_all()
    queue = site.place(id)
    assert site.beat(queue, LATE + 29, 1) == []
    # It has been begun, so it does not expire any more.
    assert site.beat(queue, LATE + 30, 1) == [id]
    assert site.find(id).attempt == 2
    assert len(site.find(id).attempts) == 2


@pytest.mark.parametrize('taken_in', [False, True])
def test_a_call_expires_at_its_new_place(site, taken_in):
    id, = site.put(make_call(expires_at=LATE + 5))
    if taken_in:
        site.beat('old')
    site.move_all()
    queue = site.place(id)
    site.beat(queue, LATE)
    assert site.find(id).state == NEW
    site.beat(queue, LATE + 5)
    assert site.find(id).state == EXPIRED
    assert site.lengths()[queue] == (0, 0)


@pytest.mark.parametrize('taken_in', [False, True])
def test_a_series_goes_on_one_at_a_time_over_all_places(site, taken_in):
    ids = site.put(*(make_call(number, series='s') for number in range(4)))
    first, = site.put(make_call(series='s'), queue='one')
    assert site.beat('one', slots=1) == [first]
    if taken_in:
        site.beat('old', slots=9)
        assert len(site['old'].waiting.blocked) == 4
    site.move_all()
    assert site.beat('one', slots=9) == site.beat('two', slots=9) == []
    site.begin()
    site.find(first).succeed(None, LATE)
    site['one'].archive_ended(first, PERIOD)
    site.commit()
    ran = 0
    for _ in range(4):
        claimed = [(queue, id) for queue in ('one', 'two') for id in site.beat(queue, slots=9)]
        assert len(claimed) == 1
        (queue, id), = claimed
        ran += 1
        site.begin()
        site.find(id).succeed(None, LATE)
        site[queue].archive_ended(id, PERIOD)
        site.commit()
    assert ran == len(ids)
    assert site.lengths() == dict.fromkeys(('old', 'one', 'two'), (0, 0))


def test_a_call_joins_another_by_its_key_at_the_new_place_of_that_one(site):
    call = make_call(key='k')
    site.begin()
    id = site.put_all(call)
    site.commit()
    site.move_all()
    site.begin()
    place = site.place(id)
    manager_id, joined = putting.find_joined(site.names, site.__getitem__, call)
    assert (manager_id, joined.id) == (place, id)


def test_a_newer_call_of_the_same_key_keeps_the_key(site):
    call = make_call(key='k')
    site.begin()
    old = site.put_all(call)
    site.commit()
    site.beat('old', slots=1)
    site.begin()
    new = site.put_all(call._replace(put_at=NOW + 1), 'one')
    site['old'].give_back(old, LATE, 'conflicts')
    site.commit()
    assert new != old
    site.move_all()
    site.begin()
    manager_id, joined = putting.find_joined(site.names, site.__getitem__, call)
    assert (manager_id, joined.id) == ('one', new)


def aggregate(*numbers, **changes):
    return make_call(max(numbers) + 1, plugin='aggregate',
                     members=tuple(make_call(number) for number in numbers), **changes)


def run_all(site, now=LATE):
    """Let both targets run what they have until there is nothing; → ids in that order."""
    ran, idle = [], 0
    while idle < 2:
        idle += 1
        for queue in ('one', 'two'):
            for id in site.beat(queue, now, 50):
                site.begin()
                site.find(id).succeed(None, now)
                site[queue].archive_ended(id, PERIOD)
                site.commit()
                ran.append(id)
                idle = 0
    return ran


@pytest.mark.parametrize('most', [1, 2, 3, 100])
@pytest.mark.parametrize('taken_in', [False, True])
def test_an_aggregate_is_woken_by_its_members_at_the_new_place(site, most, taken_in):
    site.begin()
    ids = [site.put_all(aggregate(*range(number, number + 3))) for number in range(0, 20, 4)]
    site.commit()
    if taken_in:
        site.beat('old')
    site.move_all(most=most)
    ran = run_all(site)
    assert len(ran) == len(set(ran)) == 20
    for id in ids:
        assert all(ran.index(member.id) < ran.index(id) for member in site.find(id).after)
    assert {site.place(id) for id in ids} == {'one', 'two'}
    assert site.lengths() == dict.fromkeys(('old', 'one', 'two'), (0, 0))


@pytest.mark.parametrize('most', [1, 2, 5])
@pytest.mark.parametrize('seed', range(3))
def test_calls_connected_by_waiting_go_to_one_place_also_when_they_run_meanwhile(
        site, most, seed):
    """Late callbacks, of members of an aggregate, put before the move and while it goes on."""
    chance = random.Random(seed)
    site.begin()
    whole = site.put_all(aggregate(0, 1, 2, 3))
    members = [deferred.id for deferred in site.find(whole).after]
    site.commit()
    followers = []

    def follow():
        """As callbacks.add does: where the call is that is followed."""
        site.begin()
        awaited = site.find(chance.choice([*members, whole]))
        followers.append(awaited._queue.put(make_call(50 + len(followers)), 0,
                                            after=[awaited]).id)
        site.commit()

    for _ in range(4):
        follow()
    ran = []
    while True:
        site.begin()
        site.move(most=most)
        done = not moving.left(site['old'])
        site.commit()
        if done:
            break
        if chance.random() < 0.5 and len(followers) < 12:
            follow()
        if chance.random() < 0.3:
            ran += run_all(site)
    ran += run_all(site)
    assert sorted(ran) == sorted([whole, *members, *followers])
    assert site.lengths() == dict.fromkeys(('old', 'one', 'two'), (0, 0))


def test_a_call_waits_for_one_that_failed_and_is_run_again_at_another_place(site):
    """It was ready to run, so nothing kept the two together."""
    site.begin()
    whole = site.put_all(aggregate(0))
    member, = [deferred.id for deferred in site.find(whole).after]
    site.commit()
    _fail(site, 'old', member)
    for target in reversed(site.begin().targets()):
        moving.move_some(site['old'], [target], site.names, LATE, PERIOD, most=1)
    site.commit()
    assert (site.place(whole), site.place(member)) == ('two', 'one')
    site.begin()
    site['one'].put_again(site.find(member), 0)
    site.commit()
    assert site.beat('two', slots=9) == []
    assert member in run_all(site) and site.find(whole).state == NEW
    site.begin()['two'].recheck_held_up(LATE)
    site.commit()
    assert run_all(site) == [whole]


def test_a_call_whose_callbacks_lost_their_worker_goes_on_with_them(site):
    site.begin()
    deferred = site['old'].put(make_call(), 0)
    deferred.append_callback('nothing', None, None)
    id = deferred.id
    site.commit()
    site.beat('old', slots=1)
    site.begin()
    site.find(id).succeed(None, LATE)
    site['old'].give_back(id, LATE, 'interrupted')
    site.commit()
    site.move_all()
    assert site.find(id).state == CALLBACK
    assert site.beat(site.place(id), slots=1) == [id]


# failed, cancelled, running and ended ones

def test_what_failed_for_good_goes_along_and_runs_again_there(site):
    ids = site.put(make_call(0), make_call(1))
    _fail(site, 'old', ids[0])
    site.put(make_call(0), make_call(1), queue='one')
    site.put(make_call(0), make_call(1), queue='two')
    site.move_all()
    place = site.place(ids[0])
    site.begin()
    deferred = site.find(ids[0])
    assert (deferred.state, deferred.failure.text) == (FAILED, 'no')
    assert ids[0] in site[place].failed
    site[place].put_again(deferred, 0)
    site.commit()
    site.begin()
    assert site.find(ids[0]).state == NEW
    site.abort()
    site.beat(place)
    assert site.find(ids[0]).state == NEW
    assert ids[0] not in site[place].failed
    assert ids[0] in run_all(site)
    assert site.find(ids[0]).state == RESOLVED
    assert site.lengths() == dict.fromkeys(('old', 'one', 'two'), (0, 0))


def test_what_has_come_and_has_ended_has_nobody_look_for_what_is_elsewhere(site):
    """A worker looks each minute at all that waits for others, as long as there is an intake."""
    ids = site.put(make_call(0), make_call(1))
    _fail(site, 'old', ids[0])
    _fail(site, 'old', ids[1])
    site.move_all()
    site.begin()
    assert [len(site[place].intakes) for place in ('one', 'two')] == [0, 0]
    site[site.place(ids[0])].put_again(site.find(ids[0]), 0)
    site.commit()
    assert run_all(site) == [ids[0]]
    site.begin()
    assert [len(site[place].intakes) for place in ('one', 'two')] == [0, 0]
    site.abort()


def test_a_failed_call_is_retried_and_moved_before_a_beat_sees_the_retry(site):
    id, = site.put(make_call())
    _fail(site, 'old', id)
    site.begin()
    site['old'].put_again(site.find(id), 5)
    site.commit()
    assert site.move_all() == 1
    assert run_all(site) == [id]
    assert not site['old'].failed


def test_what_failed_and_is_on_the_desk_still_goes_along(site):
    id, = site.put(make_call())
    site.beat('old', slots=1)
    site.begin()
    site.find(id).fail(Failure('ValueError', 'no'), LATE)
    site.commit()
    site.move_all()
    assert site.place(id) in ('one', 'two')
    assert site.find(id).state == FAILED


@pytest.mark.parametrize('kind', [{}, {'not_before': LATE + 50}, {'expires_at': LATE + 50}])
@pytest.mark.parametrize('taken_in', [False, True])
def test_a_moved_call_is_cancelled_at_its_new_place(site, kind, taken_in):
    id, = site.put(make_call(**kind))
    site.put(*(make_call(number) for number in range(3)), queue='one')
    site.move_all()
    queue = site.place(id)
    if taken_in:
        site.beat(queue)
    site.begin()
    assert site.find(id).cancel()
    site.commit()
    for _ in range(3):
        site.beat(queue)
    assert site.find(id).state == CANCELLED
    assert not site[queue].cancelled and not site[queue].intakes
    assert site.lengths()[queue][0] == (3 if queue == 'one' else 0)


def test_a_call_that_was_cancelled_where_it_waited_stays_behind(site):
    id, other = site.put(make_call(), make_call(1))
    site.begin()
    site.find(id).cancel()
    site.commit()
    assert site.move_all() == 1
    assert (site.place(id), site.find(id).state) == ('old', CANCELLED)


def test_nothing_is_moved_while_calls_run(site):
    first, second = site.put(make_call(), make_call(1))
    site.beat('old', slots=1)
    site.begin()
    assert site.move() == 0
    site.commit()
    assert site.lengths()['old'] == (1, 1)
    site.begin()
    site.find(first).succeed(None, LATE)
    site.commit()
    assert site.move_all() == 1
    assert site.find(first, 'old').state == RESOLVED


def test_calls_whose_worker_is_gone_are_taken_for_running_nowhere_at_their_new_place(site):
    """Its worker finds that nobody runs them, and gives them out again, or has them fail."""
    site.begin()
    whole = site.put_all(aggregate(0, 1))
    site.commit()
    running = site.beat('old', slots=1)
    assert site.move_all(served=False) == 3
    queue = site.place(running[0])
    assert site.place(whole) == queue
    assert site.find(running[0]).state == ACCEPTED
    assert site.lengths()[queue] == (2, 1)
    assert site['old'].desk.running == {}
    site.begin()[queue].give_back(running[0], LATE, 'nobody ran it')
    site.commit()
    assert len(run_all(site)) == 3


def test_a_late_result_of_a_call_that_was_moved_while_it_ran_meets_the_move(sites):
    site, thread = sites(), sites()
    id, = site.put(make_call())
    site.beat('old', slots=1)
    thread.begin()
    thread.find(id).succeed(None, LATE)
    site.begin()
    site.move(served=False)
    site.commit()
    with pytest.raises(ConflictError):
        thread.commit()
    thread.begin()
    thread.find(id).succeed(None, LATE)  # it is still its own, so this may come
    thread.commit()
    site.begin()
    assert site.find(id, 'one', 'two').state == RESOLVED


def test_what_has_an_undone_put_is_left_out(file_store):
    """The desk counts it; nobody can run it."""
    client = file_store.client()
    client.begin()
    client.connection.root()['moving'] = {'old': Queue(), 'one': Queue(), 'two': Queue(),
                                          'names': Names()}
    client.commit()
    site = Site(client, 'moving')
    id, = site.put(make_call(not_before=LATE + 50))
    last = client.connection.db().storage.undoLog(0, 1)[0]['id']
    site.beat('old')
    client.connection.db().undoMultiple([last], client.tm.get())
    client.commit()
    other, = site.put(make_call(1), lane=1)
    assert site.move_all() == 1
    assert site.lengths()['old'] == (0, 0)
    assert run_all(site) == [other]


# at the same time

RIVALS = {
    'put': lambda site, id: site['old'].put(make_call(77), 0),
    'claim': lambda site, id: site['old'].take_in_and_claim('boot', LATE, 1, PERIOD),
    'cancel': lambda site, id: site.find(id).cancel(),
    'follower': lambda site, id: site['old'].put(make_call(78), 3, after=[site.find(id)]),
}


@pytest.mark.parametrize('taken_in', [False, True])
@pytest.mark.parametrize('first', ['rival', 'move'])
@pytest.mark.parametrize('rival', RIVALS)
def test_nothing_is_lost_and_nothing_is_twice_when_others_work_at_the_old_place(
        sites, rival, first, taken_in):
    site, other, reader = sites(), sites(), sites()
    id, second = site.put(make_call(), make_call(1))
    if taken_in:
        site.beat('old')
    other.begin()
    RIVALS[rival](other, id)
    site.begin()
    site.move()
    commits = [other.commit, site.commit]
    if first == 'move':
        commits.reverse()
    commits[0]()
    refused = False
    try:
        commits[1]()
    except ConflictError:
        refused = True
    assert refused or rival in ('put', 'follower')
    reader.begin()
    if refused and first == 'move':
        assert reader.lengths()['old'] == (0, 0)
    expected = {id, second}
    if rival == 'cancel' and first == 'rival':
        expected.remove(id)
    if rival in ('put', 'follower') and not (refused and first == 'move'):
        expected |= {deferred.id for deferred in _calls(reader['old'])
                     if deferred.put_at > NOW + 70}
        assert len(expected) == 3
    if rival == 'claim' and first == 'rival':
        reader.begin()['old'].give_back(id, LATE, 'interrupted')
        reader.commit()
    site.move_all()
    ran = run_all(reader)
    assert sorted(ran) == sorted(expected)


@pytest.mark.parametrize('first', ['rival', 'move'])
@pytest.mark.parametrize('rival', ['put', 'same lane', 'beat', 'archive'])
def test_nothing_is_lost_and_nothing_is_twice_when_others_work_at_the_new_place(
        sites, rival, first):
    from Products.zasync import lanes
    site, other, reader = sites(), sites(), sites()
    ids = [*site.put(make_call()), *site.put(make_call(1), make_call(2), queue='one')]
    [running] = site.beat('one', slots=1)
    other.begin()
    if rival == 'beat':
        other['one'].take_in_and_claim('boot', LATE, 1, PERIOD)
    elif rival == 'archive':
        other.find(running).succeed(None, LATE)
        other['one'].archive_ended(running, PERIOD)
    else:
        lane = lanes.current() if rival == 'same lane' else (lanes.current() + 1) % lanes.LANES
        ids.append(other['one'].put(make_call(9), lane).id)
    site.begin()
    moving.move_some(site['old'], site.targets()[:1], site.names, LATE, PERIOD)
    commits = [other.commit, site.commit]
    if first == 'move':
        commits.reverse()
    commits[0]()
    if rival == 'same lane':
        with pytest.raises(ConflictError):
            commits[1]()
        if first == 'rival':
            site.begin()
            moving.move_some(site['old'], site.targets()[:1], site.names, LATE, PERIOD)
            site.commit()
        else:
            ids.pop()
    else:
        commits[1]()
    done = [running] if rival == 'archive' else []
    for id in reader.begin()['one'].desk.running:
        done.append(id)
    reader.begin()
    for id in list(reader['one'].desk.running):
        reader.find(id).succeed(None, LATE)
        reader['one'].archive_ended(id, PERIOD)
    reader.commit()
    ran = done + run_all(reader)
    assert sorted(ran) == sorted(ids)


def test_a_second_part_of_a_move_does_not_meet_the_end_of_calls_of_the_first(sites):
    """Else a fast worker would defeat a slow mover each time."""
    site, worker = sites(), sites()
    site.put(*(make_call(number) for number in range(60)))
    targets = [target for target in site.begin().targets() if target.id == 'one']
    moving.move_some(site['old'], targets, site.names, LATE, PERIOD, most=30)
    site.commit()
    claimed = worker.beat('one', slots=15)
    site.begin()
    moving.move_some(site['old'], targets, site.names, LATE, PERIOD, most=30)
    worker.begin()
    for id in claimed:
        worker.find(id).succeed(None, LATE)
        worker['one'].archive_ended(id, PERIOD)
    worker.commit()
    site.commit()
    assert site.lengths()['one'] == (45, 0)


# the last transaction

@pytest.mark.parametrize('first', ['beat', 'deletion'])
def test_of_a_deletion_and_a_call_that_an_overlapping_beat_makes_one_is_refused(sites, first):
    """A beat makes calls of periodic ones, at its desk."""
    site, worker = sites(), sites()
    worker.begin()['old'].born(make_call(), LATE)
    site.begin()['old'].close()
    commits = [worker.commit, site.commit]
    if first == 'deletion':
        commits.reverse()
    commits[0]()
    with pytest.raises(ConflictError):
        commits[1]()


def test_what_a_worker_has_made_itself_goes_along(site):
    site.begin()
    ids = [site[queue].born(make_call(), LATE).id for queue in ('old', 'one', 'two')]
    site.commit()
    site.move_all()
    assert sorted(run_all(site)) == sorted(ids)


def test_ten_thousand_calls_are_moved_in_parts(sites):
    site = sites()
    for lane in range(10):
        site.put(*(make_call(number) for number in range(1_000)), lane=lane)
    site.put(*(make_call(number, not_before=LATE + 9) for number in range(500)))
    assert site.move_all() == 10_500
    assert site.lengths() == {'old': (0, 0), 'one': (5_250, 0), 'two': (5_250, 0)}


def test_what_has_come_to_a_group_between_two_parts_of_a_move_by_two_processes_goes_along(sites):
    """What one of them has kept of the groups is not what the other has moved since."""
    one, other = sites(), sites()
    one.begin()
    whole = one.put_all(aggregate(*range(6)))
    members = [deferred.id for deferred in one.find(whole).after]
    one.commit()
    one.put(*(make_call(50 + number) for number in range(9)), queue='one')
    assert one.begin().move(most=1) == 1
    one.commit()
    assert other.begin().move(most=1) == 1
    other.commit()
    follower, = one.put(make_call(90), after=[members[-1]])
    last, = one.put(make_call(91), after=[follower])
    for site in (other, one, other):
        assert site.begin().move(most=1) == 1
        site.commit()
    one.move_all(most=2)
    assert {one.begin().place(id) for id in (whole, *members, follower, last)} == {'two'}


def test_a_part_of_a_move_that_was_refused_tells_nothing_of_where_calls_have_gone(sites):
    one, other = sites(), sites()
    one.begin()
    whole = one.put_all(aggregate(*range(6)))
    members = [deferred.id for deferred in one.find(whole).after]
    one.commit()
    one.beat('old')
    one.begin()
    other.begin()
    assert moving.move_some(one['old'], one.targets()[:1], one.names, LATE, PERIOD, most=1) == 1
    assert moving.move_some(other['old'], other.targets()[1:], other.names, LATE, PERIOD,
                            most=1) == 1
    other.commit()
    with pytest.raises(ConflictError):
        one.commit()
    one.move_all(most=2)
    assert {one.begin().place(id) for id in (whole, *members)} == {'two'}


def test_what_waits_for_others_is_loaded_a_few_times_however_many_parts_a_move_has(site):
    connection, loads = site.client.connection, []
    connection._cache.cache_size = 2_000  # calls do not stay in it, what is asked for often does
    for waiting in (1_000, 3_000):
        members = site.put(*(make_call(number, priority=-1) for number in range(waiting // 10)))
        for member in members:
            site.put(*(make_call(1_000 + number) for number in range(9)), lane=1, after=[member])
        while site.begin()['old'].news():
            site.beat('old')
        connection.cacheMinimize()
        connection.getTransferCounts(clear=True)
        assert site.move_all(most=100) == waiting
        loads.append(connection.getTransferCounts()[0] / waiting)
    # When it is looked for what is connected, and when it goes; and nodes of trees.
    assert max(loads) < 3, loads


def test_the_transaction_of_this_thread_is_left_alone(site):
    site.put(make_call())
    site.move_all()
    assert not transaction.get()._resources
