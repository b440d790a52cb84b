"""Keys and series of calls whose manager got another id, or another dispatcher."""

import pytest
import transaction

from Products.zasync import clock
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasyncdispatcher import leaving
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
