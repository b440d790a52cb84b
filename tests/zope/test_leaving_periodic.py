"""Periodic calls of a manager that leaves its dispatcher."""

import pytest
import transaction
from ZODB.POSException import ConflictError

from Products.zasync import periodic
from Products.zasync.failure import Failure
from Products.zasyncdispatcher import leaving
from tests.zope.test_leaving import admin  # noqa: F401 (the fixture)
from tests.zope.test_leaving import CALL
from tests.zope.test_leaving import claim
from tests.zope.test_leaving import LATE
from tests.zope.test_leaving import put
from tests.zope.test_leaving import remove
from tests.zope.test_leaving import zad  # noqa: F401 (the fixture)


MINUTE = 60.0


def set_one(manager, id='tidy'):
    manager.setPeriodicCall(id, '@daily', 'UTC', CALL[0], CALL[1:])


def places(zad, id='tidy'):  # noqa: F811
    """The managers that have it."""
    return [each.getId() for each in zad.managers() if id in each.periodic]


def test_what_is_set_at_a_manager_that_leaves_goes_along(admin, zad):  # noqa: F811
    put(zad)
    running, = claim(zad.zam2)
    remove(admin)
    assert zad.zam2.leaving
    set_one(zad.zam2)
    running.succeed(None, LATE)
    remove(admin)
    assert 'zam2' not in zad.objectIds()
    assert len(places(zad)) == 1


@pytest.mark.parametrize(('id', 'another'), [('tidy', 'tidy-2'), ('x' * 100, 'x' * 98 + '-2')])
def test_one_whose_id_is_taken_where_it_goes_can_be_set_by_its_new_one(
        site, zad, id, another):  # noqa: F811
    site.login('admin')
    for manager in zad.managers():
        set_one(manager, id)
    leaving.start(zad, zad.zam2)
    goes = [each for each in zad.managers() if another in each.periodic]
    assert len(goes) == 1
    set_one(goes[0], another)
    assert goes[0].periodic[another].id == another


@pytest.mark.parametrize('had', [0, 1, 100])
@pytest.mark.parametrize('first', ['the set', 'the last step'])
def test_what_is_set_during_the_last_step_is_moved_or_refused(
        site, zad, had, first):  # noqa: F811
    """Both write the mapping, which the last step leaves empty: one of the two is repeated."""
    site.login('admin')
    for number in range(had):
        set_one(zad.zam2, f'old{number}')
    transaction.commit()
    rival = transaction.TransactionManager()
    other = site.db.open(rival)
    try:
        set_one(other.root()['Application'].zad.zam2)
        leaving.start(zad, zad.zam2)
        assert leaving.go_on(zad, zad.zam2, LATE)
        sooner, later = (rival, transaction) if first == 'the set' else (transaction, rival)
        sooner.commit()
        with pytest.raises(ConflictError):
            later.commit()
        later.abort()
        if first == 'the set':
            leaving.start(zad, zad.zam2)
            assert leaving.go_on(zad, zad.zam2, LATE)
            transaction.commit()
            assert len(places(zad)) == 1
    finally:
        transaction.abort()
        rival.abort()
        other.close()


# the calls made before


def made(manager, moment, id='tidy'):
    """The beat makes the next call; → it."""
    assert periodic.beat(manager, moment) == 1
    transaction.commit()
    return manager.periodic[id].last


def failed(manager, deferred):
    """It fails where it runs, and is filed."""
    deferred.fail(Failure('ValueError', 'no'), LATE)
    if deferred.id in manager.queue.desk.running:
        manager.queue.archive_ended(deferred.id, 86_400)
    transaction.commit()


def keep_busy(zad, id):  # noqa: F811
    """So that what may go anywhere goes to others."""
    put(zad, 5, id)


def no_failed(zad):  # noqa: F811
    return not any(each.queue.failed for each in zad.managers())


def newer_ones_succeed(zad, id, moment):  # noqa: F811
    for number in (1, 2):
        zad[id].runPeriodicCall('tidy')
        last = made(zad[id], moment + number * MINUTE)
        last.accept('boot', moment)
        last.succeed(None, moment)
        transaction.commit()


@pytest.mark.parametrize('state', ['failed', 'new', 'running'])
def test_a_call_that_a_periodic_call_has_made_goes_where_it_goes(site, zad, state):  # noqa: F811
    """There a newer one lets it age."""
    site.login('admin')
    zad.zam2.setPeriodicCall('tidy', '* * * * *', 'UTC', 'echo', (1,))
    zad.zam2.runPeriodicCall('tidy')
    last = made(zad.zam2, LATE)
    if state != 'new':
        assert claim(zad.zam2) == [last]
    if state == 'failed':
        failed(zad.zam2, last)
    leaving.start(zad, zad.zam2)
    [home] = places(zad)
    keep_busy(zad, home)
    zad.zam2.queue.desk.boot = None
    assert leaving.go_on(zad, zad.zam2, LATE)
    assert last.is_in(zad[home].queue)
    if state == 'new':
        assert last in claim(zad[home], 9)
    if state != 'failed':
        failed(zad[home], last)
    newer_ones_succeed(zad, home, LATE)
    assert no_failed(zad)


@pytest.mark.parametrize('taken_in', ['member', 'both'])
def test_members_of_a_call_that_a_periodic_call_has_made_go_along(
        site, zad, taken_in):  # noqa: F811
    site.login('admin')
    zad.zam2.setPeriodicCall('tidy', '* * * * *', 'UTC', 'aggregate', ([('echo', (1,))],))
    zad.zam2.runPeriodicCall('tidy')
    last = made(zad.zam2, LATE)
    [member] = last.after
    assert claim(zad.zam2) == [member]
    failed(zad.zam2, member)
    if taken_in == 'both':
        assert claim(zad.zam2) == [last]
        failed(zad.zam2, last)
    leaving.start(zad, zad.zam2)
    [home] = places(zad)
    keep_busy(zad, home)
    assert leaving.go_on(zad, zad.zam2, LATE)
    assert last.is_in(zad[home].queue) and member.is_in(zad[home].queue)


def begun_where_it_leaves(zad):  # noqa: F811
    """The call that a periodic call of zam2 made; it runs there, and zam2 is being removed."""
    zad.zam2.setPeriodicCall('tidy', '* * * * *', 'UTC', 'echo', (1,))
    zad.zam2.runPeriodicCall('tidy')
    last = made(zad.zam2, LATE)
    assert claim(zad.zam2) == [last]
    leaving.start(zad, zad.zam2)
    return last


def test_what_fails_in_a_manager_that_leaves_ages_when_it_has_come_after_its_periodic_call(
        site, zad):  # noqa: F811
    site.login('admin')
    last = begun_where_it_leaves(zad)
    [home] = places(zad)
    assert periodic.beat(zad[home], LATE + MINUTE) == 0  # it runs
    failed(zad.zam2, last)
    newer_ones_succeed(zad, home, LATE)
    assert list(zad.zam2.queue.failed) == [last.id]
    keep_busy(zad, home)
    assert leaving.go_on(zad, zad.zam2, LATE)
    assert list(zad[home].queue.failed) == [last.id]
    newer_ones_succeed(zad, home, LATE + 5 * MINUTE)
    assert no_failed(zad)
    assert not zad[home].periodic['tidy'].state.left


def test_what_failed_at_a_manager_that_stays_is_not_waited_for_when_it_was_dropped(
        site, zad):  # noqa: F811
    site.login('admin')
    last = begun_where_it_leaves(zad)
    failed(zad.zam2, last)
    leaving.call_off(zad, zad.zam2)
    [home] = places(zad)
    newer_ones_succeed(zad, home, LATE)
    state = zad[home].periodic['tidy'].state
    assert state.left == (last,)
    del zad.zam2.queue.failed[last.id]
    newer_ones_succeed(zad, home, LATE + 5 * MINUTE)
    assert state.left == ()
