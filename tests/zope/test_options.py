"""Options through managers and dispatchers: what is refused, who joins whom, who runs what."""

import datetime

import pytest
import transaction
from AccessControl import Unauthorized
from AccessControl.ZopeGuards import guarded_getattr
from zExceptions import BadRequest

from Products.zasync import clock
from Products.zasync.errors import BadCall
from Products.zasync.errors import NotYours
from Products.zasync.errors import NoWorker
from Products.zasync.errors import UnknownPlugin
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasync.options import Retry
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.zope import jobs
from tests.zope.test_dispatcher import beat


CALL = ('zope_exec', '/', {}, 'nothing', {})
MINUTE = datetime.timedelta(minutes=1)


@pytest.fixture
def zad(site, app):
    """A dispatcher with two managers, both alive and idle; admin is logged in."""
    app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
    dispatcher = app.asynchronous_call_dispatcher
    for id in ('zam1', 'zam2'):
        dispatcher._setObject(id, AsynchronousCallManager(id))
        beat(dispatcher[id])
    transaction.commit()
    site.login('admin')
    return dispatcher


@pytest.fixture
def alone(site, manager):
    """A manager that stands alone; admin is logged in."""
    transaction.commit()
    site.login('admin')
    return manager


def silence(zad):
    """No worker lives any more."""
    for manager in zad.managers():
        beat(manager, accepting=0)
    transaction.commit()


def claim(manager, slots=10):
    claimed = manager.queue.take_in_and_claim('boot', clock.SYSTEM.now() + 1, slots, 86_400)
    transaction.commit()
    return claimed


# what is refused

@pytest.mark.parametrize('options', [
    None, {}, {'priority': 5}, 5, 'zope_exec', (), Retry(), Options, object()])
@pytest.mark.parametrize('place', ['alone', 'zad'])
def test_options_that_are_no_options_are_refused_and_nothing_is_stored(request, place, options):
    where = request.getfixturevalue(place)
    with pytest.raises(BadCall, match='first argument of putCallWith is an Options'):
        where.putCallWith(options, *CALL)
    assert where._p_jar._registered_objects == []


def test_a_forgotten_options_is_told_in_a_line_though_the_first_argument_is_huge(alone):
    with pytest.raises(BadCall) as caught:
        alone.putCallWith('x' * 10_000, *CALL)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize('options, reason', [
    (Options(expires=datetime.timedelta(0)), 'would expire before it may begin'),
    (Options(not_before=MINUTE, expires=MINUTE), 'would expire before it may begin'),
    (Options(expires=datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)),
     'would expire before it may begin'),
    (Options(not_before=datetime.timedelta.max), 'after the year 9999'),
    (Options(expires=datetime.timedelta.max), 'after the year 9999')])
@pytest.mark.parametrize('place', ['alone', 'zad'])
def test_times_that_make_no_sense_are_refused_and_nothing_is_stored(
        request, place, options, reason):
    where = request.getfixturevalue(place)
    with pytest.raises(BadCall, match=reason):
        where.putCallWith(options, *CALL)
    assert where._p_jar._registered_objects == []


def test_a_schedule_that_begins_after_the_expiry_is_refused(alone):
    with pytest.raises(BadCall, match='would expire before it may begin'):
        alone.putCallWith(Options(expires=MINUTE), 'schedule', 60, *CALL)
    with pytest.raises(BadCall, match='after the year 9999'):
        alone.putCallWith(Options(not_before=datetime.timedelta.max), 'schedule', 60, *CALL)


@pytest.mark.parametrize('place', ['alone', 'zad'])
@pytest.mark.parametrize('name, error', [('nonsense', UnknownPlugin), (5, UnknownPlugin)])
def test_a_refused_call_leaves_neither_key_nor_series(request, place, name, error):
    where = request.getfixturevalue(place)
    with pytest.raises(error):
        where.putCallWith(Options(key='k', series='s'), name)
    assert where._p_jar._registered_objects == []


def test_a_call_that_nobody_takes_leaves_neither_key_nor_series(zad):
    silence(zad)
    zad.no_worker = 'refuse'
    transaction.commit()
    with pytest.raises(NoWorker):
        zad.putCallWith(Options(key='k', series='s'), *CALL)
    assert zad._p_jar._registered_objects == []


@pytest.mark.parametrize('place', ['alone', 'zad'])
def test_restricted_code_needs_the_permission_for_putCallWith_and_gets_at_no_names(
        site, request, place):
    where = request.getfixturevalue(place)
    site.login('bob')
    for name in ('putCallWith', 'call_names', 'names', 'queue_of', 'queue'):
        if hasattr(where, name):
            with pytest.raises(Unauthorized):
                guarded_getattr(where, name)


# what is stored

@pytest.mark.parametrize('place', ['alone', 'zad'])
def test_a_call_tells_its_options(request, place, now):
    where = request.getfixturevalue(place)
    put = where.putCallWith(
        Options(priority=3, not_before=MINUTE, expires=2 * MINUTE, timeout=30,
                retry=Retry(2, delay=1), key='k', series='s'), *CALL)
    deferred = put[1] if isinstance(put, tuple) else put
    assert deferred.put_at == now.time
    assert (deferred.priority, deferred.not_before, deferred.expires_at) == (
        3, now.time + 60, now.time + 120)
    assert (deferred.timeout_seconds, deferred.retry) == (30.0, (2, 1.0, 2.0, 3600.0, ()))
    assert (deferred.key, deferred.series) == ('k', 's')


def test_plain_options_are_as_none(alone):
    bare = alone.putCall(*CALL)
    plain = alone.putCallWith(Options(), *CALL)
    assert set(plain.__dict__) == set(bare.__dict__)


def test_the_members_of_an_aggregate_begin_when_it_may_and_as_urgently(alone, now):
    deferred = alone.putCallWith(
        Options(priority=2, not_before=MINUTE, expires=2 * MINUTE, timeout=5, retry=3, key='k',
                series='s'), 'aggregate', [('zope_exec', CALL[1:]), ('zope_exec', CALL[1:])])
    for member in deferred.after:
        assert (member.priority, member.not_before) == (2, now.time + 60)
        assert (member.expires_at, member.timeout_seconds, member.retry, member.key,
                member.series) == (None, None, None, None, None)


def test_a_schedule_begins_its_seconds_after_its_not_before(alone, now):
    deferred = alone.putCallWith(Options(not_before=MINUTE, priority=1), 'schedule', 30, *CALL)
    assert (deferred.not_before, deferred.priority) == (now.time + 90, 1)


# keys

def test_a_put_with_a_key_joins_in_a_manager_that_stands_alone(alone):
    first = alone.putCallWith(Options(key='k'), *CALL)
    assert alone.putCallWith(Options(key='k'), *CALL) is first
    transaction.commit()
    assert alone.putCallWith(Options(key='k'), *CALL) is first
    assert alone.lenNewCalls() == 1


def test_a_dispatcher_joins_the_call_wherever_it_waits_and_asks_for_no_load(zad, monkeypatch):
    id, first = zad.putCallWith(Options(key='k'), *CALL)
    transaction.commit()
    for manager in zad.managers():
        beat(manager, new=1_000 if manager.getId() == id else 0)
    transaction.commit()
    monkeypatch.setattr(ZAsyncDispatcher, 'load_of', None)
    assert zad.putCallWith(Options(key='k'), *CALL) == (id, first)
    assert zad[id].getDeferred(first.id) is first
    assert sum(manager.lenNewCalls() for manager in zad.managers()) == 1


def test_a_call_joins_though_no_worker_lives(zad):
    pair = zad.putCallWith(Options(key='k'), *CALL)
    silence(zad)
    for choice in zad.no_worker_choices:
        zad.no_worker = choice
        assert zad.putCallWith(Options(key='k'), *CALL) == pair


def test_a_call_put_to_a_manager_itself_joins_one_put_through_its_dispatcher(zad):
    id, first = zad.putCallWith(Options(key='k'), *CALL)
    for manager in zad.managers():
        assert manager.putCallWith(Options(key='k'), *CALL) is first


def test_the_managers_of_two_dispatchers_have_keys_of_their_own(app, zad, alone):
    app._setObject('zad2', ZAsyncDispatcher('zad2'))
    app.zad2._setObject('zam1', AsynchronousCallManager('zam1'))
    places = (zad.zam1, app.zad2.zam1, alone)
    assert len({place.putCallWith(Options(key='k'), *CALL).id for place in places}) == 3


def test_a_key_is_no_way_to_the_call_of_another_user(site, zad):
    site.login('bob')
    id, mine = zad.putCallWith(Options(key='k'), *CALL)
    site.login('eve')
    other, theirs = zad.putCallWith(Options(key='k'), *CALL)
    assert theirs is not mine
    with pytest.raises(NotYours):
        zad[id].getDeferred(mine.id)
    site.login('bob')
    assert zad.putCallWith(Options(key='k'), *CALL) == (id, mine)


def test_users_of_one_name_in_two_folders_have_keys_of_their_own(site, app, zad):
    from OFS.userfolder import UserFolder
    app.manage_addFolder('sub')
    app.sub._setObject('acl_users', UserFolder())
    site.add_user('bob', 'Member', folder=app.sub)
    site.login('bob')
    mine = zad.putCallWith(Options(key='k'), *CALL)
    site.login('bob', folder=app.sub)
    assert zad.putCallWith(Options(key='k'), *CALL)[1] is not mine[1]


def test_visitors_who_are_not_logged_in_are_one_caller(site, zad):
    site.logout()
    pair = zad.putCallWith(Options(key='k'), *CALL)
    assert zad.putCallWith(Options(key='k'), *CALL) == pair
    with pytest.raises(NotYours):
        zad[pair[0]].getDeferred(pair[1].id)


def test_a_renamed_manager_is_not_mistaken_for_another(site, zad):
    id, first = zad.putCallWith(Options(key='k'), *CALL)
    transaction.commit()
    zad.manage_renameObject(id, 'renamed')
    zad._setObject(id, AsynchronousCallManager(id))
    transaction.commit()
    other, second = zad.putCallWith(Options(key='k'), *CALL)
    assert zad[other].getDeferred(second.id) is second
    assert zad.putCallWith(Options(key='k'), *CALL) == (other, second)


def test_a_call_that_has_ended_is_not_joined(zad):
    id, first = zad.putCallWith(Options(key='k'), *CALL)
    [claimed] = claim(zad[id])
    assert claimed is first
    assert zad.putCallWith(Options(key='k'), *CALL)[1] is not first


# series

def test_the_managers_of_a_dispatcher_share_its_series(zad):
    ones = [manager.putCallWith(Options(series='s'), *CALL) for manager in zad.managers()]
    transaction.commit()
    assert claim(zad.zam1) == ones[:1]
    assert claim(zad.zam2) == []
    ones[0].succeed(None, clock.SYSTEM.now())
    transaction.commit()
    assert claim(zad.zam2) == ones[1:]


def test_a_manager_that_stands_alone_has_its_own_series(zad, alone):
    assert alone.names() is alone.queue.names
    there = zad.zam1.putCallWith(Options(series='s'), *CALL)
    ones = [alone.putCallWith(Options(series='s'), *CALL) for _ in range(2)]
    transaction.commit()
    assert claim(zad.zam1) == [there]
    assert claim(alone) == ones[:1]
    assert claim(alone) == []
    ones[0].succeed(None, clock.SYSTEM.now())
    assert claim(alone) == ones[1:]


# direct runs

def test_a_direct_run_takes_the_series_while_it_runs_and_leaves_it_free(app, zad):
    silence(zad)
    id, deferred = zad.putCallWith(Options(series='s'), 'zope_call', jobs.put_in_series, 's')
    assert (id, deferred.state) == (None, 'resolved')
    # What the call itself put of its series had to wait.
    inner_id, inner = deferred.result
    assert inner_id in ('zam1', 'zam2')
    assert zad[inner_id].getDeferred(inner).state == 'new'
    assert zad.call_names.is_free('s', None)
    transaction.commit()
    assert zad.putCallWith(Options(series='s'), *CALL)[0] is None


@pytest.mark.parametrize('again', [False, True])
def test_a_direct_run_that_fails_leaves_the_series_free(zad, again):
    silence(zad)
    if again:
        zad.putCallWith(Options(series='s'), *CALL)
        transaction.commit()
    _, deferred = zad.putCallWith(Options(series='s'), 'zope_call', jobs.mark_and_fail, 'x',
                                  'ValueError', 'no')
    assert deferred.state == 'failed'
    assert zad.call_names.is_free('s', None)
    transaction.commit()
    assert zad.call_names.is_free('s', None)


def test_a_call_whose_series_is_busy_is_left_with_a_manager(zad):
    running = zad.zam1.putCallWith(Options(series='s'), *CALL)
    transaction.commit()
    assert claim(zad.zam1) == [running]
    silence(zad)
    id, deferred = zad.putCallWith(Options(series='s'), *CALL)
    assert id in ('zam1', 'zam2') and deferred.state == 'new'
    assert zad.putCallWith(Options(series='other'), *CALL)[0] is None


def test_a_direct_run_and_an_overlapping_claim_of_its_series_do_not_both_commit(site, zad):
    waiting = zad.zam1.putCallWith(Options(series='s'), *CALL)
    transaction.commit()
    silence(zad)
    rival = transaction.TransactionManager()
    other = site.db.open(rival)
    try:
        queue = other.root()['Application'][zad.getId()].zam1.queue
        [claimed] = queue.take_in_and_claim('boot', clock.SYSTEM.now() + 1, 9, 86_400)
        assert claimed.id == waiting.id
        assert zad.putCallWith(Options(series='s'), *CALL)[0] is None
        rival.commit()
        with pytest.raises(transaction.interfaces.TransientError):
            transaction.commit()
    finally:
        transaction.abort()
        rival.abort()
        other.close()


@pytest.mark.parametrize('options, runs', [
    (Options(not_before=datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)), True),
    (Options(not_before=datetime.timedelta(0)), True),
    (Options(not_before=MINUTE), False),
    (Options(expires=MINUTE), True),
    (Options(priority=5, timeout=5, retry=3, key='k'), True)])
def test_what_is_not_delayed_runs_in_the_request_when_nobody_lives(zad, options, runs):
    silence(zad)
    id, deferred = zad.putCallWith(options, *CALL)
    assert (id is None, deferred.ended) == (runs, runs)


def test_a_call_that_ran_in_the_request_is_not_joined(zad):
    silence(zad)
    first = zad.putCallWith(Options(key='k'), *CALL)
    second = zad.putCallWith(Options(key='k'), *CALL)
    assert first[1].ended and second[1].ended
    assert first[1] is not second[1]
    assert zad._p_jar._registered_objects == []


# moving and copying

def with_names(zad):
    """A call of the series s runs, one with the key k waits."""
    running = zad.zam1.putCallWith(Options(series='s'), *CALL)
    transaction.commit()
    claim(zad.zam1)
    waiting = zad.zam2.putCallWith(Options(key='k'), *CALL)
    transaction.commit()
    return running, waiting


def copied(site, app, how, tmp_path):
    if how == 'copy':
        app.manage_pasteObjects(app.manage_copyObjects(['asynchronous_call_dispatcher']))
        return app.copy_of_asynchronous_call_dispatcher
    path = tmp_path / 'zad.zexp'
    with path.open('wb') as file:
        app._p_jar.exportFile(app.asynchronous_call_dispatcher._p_oid, file)
    app.manage_addFolder('sub')
    app.sub._importObjectFromFile(str(path))
    return app.sub.asynchronous_call_dispatcher


@pytest.mark.parametrize('how', ['copy', 'export'])
def test_a_copy_of_a_dispatcher_has_keys_and_series_of_its_own(site, app, zad, how, tmp_path):
    running, waiting = with_names(zad)
    copy = copied(site, app, how, tmp_path)
    transaction.commit()
    assert copy.call_names.is_free('s', None)
    assert not zad.call_names.is_free('s', None)
    beat(copy.zam1)
    transaction.commit()
    id, deferred = copy.putCallWith(Options(key='k', series='s'), *CALL)
    assert deferred is not waiting
    transaction.commit()
    assert claim(copy[id]) == [deferred]
    assert zad.putCallWith(Options(key='k'), *CALL) == ('zam2', waiting)


@pytest.mark.parametrize('how', ['copy', 'export'])
def test_a_copy_of_a_lone_manager_has_keys_and_series_of_its_own(site, app, alone, how, tmp_path):
    alone.putCallWith(Options(series='s'), *CALL)
    transaction.commit()
    claim(alone)
    waiting = alone.putCallWith(Options(key='k'), *CALL)
    transaction.commit()
    if how == 'copy':
        app.manage_pasteObjects(app.manage_copyObjects(['zam']))
        copy = app.copy_of_zam
    else:
        path = tmp_path / 'zam.zexp'
        with path.open('wb') as file:
            app._p_jar.exportFile(alone._p_oid, file)
        app.manage_addFolder('sub')
        app.sub._importObjectFromFile(str(path))
        copy = app.sub.zam
    transaction.commit()
    deferred = copy.putCallWith(Options(key='k', series='s'), *CALL)
    assert deferred is not waiting
    transaction.commit()
    assert claim(copy) == [deferred]


@pytest.mark.parametrize('way', ['out of a dispatcher', 'into a dispatcher',
                                 'from one dispatcher to another'])
def test_a_manager_with_open_calls_does_not_leave_its_series_behind(site, app, zad, way):
    """Its waiting calls would not see which calls of their series run at the new place."""
    app._setObject('zad2', ZAsyncDispatcher('zad2'))
    app._setObject('zam9', AsynchronousCallManager('zam9'))
    source, target, id = {'out of a dispatcher': (zad, app, 'zam1'),
                          'into a dispatcher': (app, zad, 'zam9'),
                          'from one dispatcher to another': (zad, app.zad2, 'zam1')}[way]
    deferred = source[id].putCallWith(Options(series='s'), *CALL)
    transaction.commit()
    with pytest.raises(BadRequest, match='1 calls that have not ended'):
        target.manage_pasteObjects(source.manage_cutObjects([id]))
    transaction.abort()
    assert id in source.objectIds() and id not in target.objectIds()
    claim(source[id])
    deferred.succeed(None, clock.SYSTEM.now())
    source[id].queue.archive_ended(deferred.id, 86_400)
    transaction.commit()
    target.manage_pasteObjects(source.manage_cutObjects([id]))
    transaction.commit()
    moved = target[id]
    assert (moved.names() is moved.queue.names) is (target is app)
    ones = [moved.putCallWith(Options(series='s'), *CALL) for _ in range(2)]
    transaction.commit()
    assert claim(moved) == ones[:1]
    assert claim(moved) == []


def test_a_dispatcher_is_moved_and_renamed_with_its_calls(site, app, zad):
    running, waiting = with_names(zad)
    app.manage_addFolder('sub')
    transaction.commit()
    app.sub.manage_pasteObjects(app.manage_cutObjects([zad.getId()]))
    transaction.commit()
    app.sub.manage_renameObject(zad.getId(), 'zad')
    transaction.commit()
    moved = app.sub.zad
    assert not moved.call_names.is_free('s', None)
    assert moved.putCallWith(Options(key='k'), *CALL) == ('zam2', waiting)


def test_a_manager_of_a_dispatcher_is_renamed_with_its_calls(site, zad):
    running, waiting = with_names(zad)
    zad.manage_renameObject('zam1', 'zam9')
    transaction.commit()
    blocked = zad.zam9.putCallWith(Options(series='s'), *CALL)
    transaction.commit()
    assert claim(zad.zam9) == []
    running.succeed(None, clock.SYSTEM.now())
    transaction.commit()
    assert claim(zad.zam9) == [blocked]
