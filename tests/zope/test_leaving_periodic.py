"""Periodic calls of a manager that leaves its dispatcher."""

import pytest
import transaction
from ZODB.POSException import ConflictError

from Products.zasyncdispatcher import leaving
from tests.zope.test_leaving import admin  # noqa: F401 (the fixture)
from tests.zope.test_leaving import CALL
from tests.zope.test_leaving import claim
from tests.zope.test_leaving import LATE
from tests.zope.test_leaving import put
from tests.zope.test_leaving import remove
from tests.zope.test_leaving import zad  # noqa: F401 (the fixture)


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
