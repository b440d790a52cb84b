"""Keys and series of calls whose manager got another id, or another dispatcher."""

from urllib.parse import unquote

import pytest
import transaction

from Products.zasync import clock
from Products.zasync import moving
from Products.zasync.failure import Failure
from Products.zasync.interfaces import FAILED
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasyncdispatcher import leaving
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.zope.test_options import CALL
from tests.zope.test_options import claim
from tests.zope.test_options import zad  # noqa: F401 (the fixture)


def put(place, **options):
    found = place.putCallWith(Options(**options), *CALL)
    transaction.commit()
    return found


@pytest.mark.parametrize('by', ['dispatcher', 'manager'])
@pytest.mark.parametrize('taken', [False, True])
def test_a_key_joins_the_call_of_a_manager_that_was_renamed(zad, by, taken):  # noqa: F811
    id, first = put(zad, key='k')
    zad.manage_renameObject(id, 'renamed')
    if taken:
        zad._setObject(id, AsynchronousCallManager(id))
    transaction.commit()
    if by == 'dispatcher':
        assert put(zad, key='k') == ('renamed', first)
    else:
        assert put(zad.managers()[0], key='k') is first


def test_a_key_joins_a_call_that_was_put_when_its_manager_was_added(zad):  # noqa: F811
    zad._setObject('zam3', AsynchronousCallManager('zam3'))
    first = put(zad.zam3, key='k')
    assert put(zad, key='k') == ('zam3', first)


def test_a_key_joins_no_call_that_has_ended_at_a_renamed_manager(zad):  # noqa: F811
    id, first = put(zad, key='k')
    assert claim(zad[id]) == [first]
    zad.manage_renameObject(id, 'renamed')
    assert put(zad, key='k')[1] is not first


def test_a_key_joins_a_call_that_was_running_when_its_manager_was_removed(zad):  # noqa: F811
    """It went to another with what waited; there nobody runs it."""
    first = put(zad.zam1, key='k')
    assert claim(zad.zam1) == [first]
    zad.zam1.queue.desk.boot = None
    leaving.start(zad, zad.zam1)
    assert leaving.go_on(zad, zad.zam1, clock.SYSTEM.now())
    zad.zam2.queue.give_back(first.id, clock.SYSTEM.now(), 'interrupted')
    transaction.commit()
    assert put(zad, key='k') == ('zam2', first)


# series

def failed(manager, **options):
    deferred = put(manager, **options)
    assert claim(manager) == [deferred]
    deferred.fail(Failure('ValueError', 'no'), clock.SYSTEM.now())
    manager.queue.archive_ended(deferred.id, 86_400)
    transaction.commit()
    return deferred


def cut_and_pasted(source, id, target):
    target.manage_pasteObjects(source.manage_cutObjects([id]))
    transaction.commit()
    return target[id]


@pytest.mark.parametrize('how', ['by its id', 'with all'])
def test_a_failed_call_that_came_along_waits_for_its_series_at_the_new_place(
        app, zad, how):  # noqa: F811
    app._setObject('zad2', ZAsyncDispatcher('zad2'))
    app.zad2._setObject('zam9', AsynchronousCallManager('zam9'))
    call = failed(zad.zam1, series='s')
    moved = cut_and_pasted(zad, 'zam1', app.zad2)
    running = put(app.zad2.zam9, series='s')
    assert claim(app.zad2.zam9) == [running]
    assert moved.retry(*([call.id] if how == 'by its id' else [])) == 1
    transaction.commit()
    assert claim(moved) == []
    running.succeed(None, clock.SYSTEM.now())
    transaction.commit()
    assert claim(moved) == [call]
    assert zad.call_names.is_free('s', None)
    assert not app.zad2.call_names.is_free('s', None)


def gone_to(zad, id, deferred):  # noqa: F811
    """zam1 is left, the call goes to the manager of that id, and zam1 stays all the same."""
    target = moving.Target(id, zad[id].queue, zad[id].periodic)
    assert moving.move_some(zad.zam1.queue, [target], zad.call_names, clock.SYSTEM.now(),
                            86_400) == 1
    transaction.commit()


def test_a_failed_call_that_went_to_a_sibling_is_run_again_there(app, zad):  # noqa: F811
    call = failed(zad.zam1, series='s')
    gone_to(zad, 'zam2', call)
    assert zad.zam1.retry(call.id) == 1
    transaction.commit()
    assert claim(zad.zam2) == [call]
    assert not zad.call_names.is_free('s', None)


def test_a_key_joins_a_failed_call_that_came_along_and_is_run_again(app, zad):  # noqa: F811
    app._setObject('zad2', ZAsyncDispatcher('zad2'))
    call = failed(zad.zam1, key='k')
    moved = cut_and_pasted(zad, 'zam1', app.zad2)
    assert moved.retry(call.id) == 1
    transaction.commit()
    assert put(app.zad2, key='k') == ('zam1', call)


def test_a_key_joins_a_failed_call_that_is_run_again_where_it_has_gone(app, zad):  # noqa: F811
    """Also when the manager that it was put to stays, and tells of it no more."""
    call = failed(zad.zam1, key='k')
    gone_to(zad, 'zam2', call)
    zad.zam1.queue.drop_old(clock.SYSTEM.now() + 10 * 86_400, 86_400)
    transaction.commit()
    assert zad.zam2.retry(call.id) == 1
    transaction.commit()
    assert put(zad, key='k') == ('zam2', call)


def test_a_key_stays_with_the_newer_call_when_an_older_one_is_run_again(app, zad):  # noqa: F811
    call = failed(zad.zam1, key='k')
    newer = put(zad.zam2, key='k')
    assert zad.zam1.retry(call.id) == 1
    transaction.commit()
    assert put(zad, key='k') == ('zam2', newer)


@pytest.mark.parametrize('fate', ['moved', 'deleted'])
def test_a_failed_call_whose_manager_is_elsewhere_by_now_is_not_run_again_from_here(
        site, app, zad, fate):  # noqa: F811
    app._setObject('zad2', ZAsyncDispatcher('zad2'))
    call = failed(zad.zam1, series='s')
    gone_to(zad, 'zam2', call)
    if fate == 'moved':
        cut_and_pasted(zad, 'zam2', app.zad2)
    else:
        zad._delObject('zam2')
        transaction.commit()
    with pytest.raises(KeyError, match='is not here'):
        zad.zam1.retry(call.id)
    answer = site.browser('admin').post(f'/{zad.getId()}/zam1/manage_retryCall', {'id': call.id})
    assert 'is not here' in unquote(answer.location)
    assert call.state == FAILED
    if fate == 'moved':
        assert app.zad2.zam2.retry(call.id) == 1
