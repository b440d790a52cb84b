"""defer: one call to queue a callable, wherever the nearest dispatcher or manager is."""

import datetime

import pytest
import transaction
from zope.component.hooks import setSite
from zope.globalrequest import clearRequest
from zope.globalrequest import setRequest

from Products.zasync import defer
from Products.zasync.deferring import find_place
from Products.zasync.errors import BadCall
from Products.zasync.errors import NoManager
from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.fakes import NOW
from tests.zope import jobs
from tests.zope.test_dispatcher import beat


@pytest.fixture
def shop(site, app):
    """A folder with a manager in it, inside an application with a dispatcher."""
    app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
    zad = app.asynchronous_call_dispatcher
    zad._setObject('zam1', AsynchronousCallManager('zam1'))
    beat(zad.zam1)
    app.manage_addFolder('shop')
    app.shop._setObject('asynchronous_call_manager', AsynchronousCallManager())
    transaction.commit()
    site.login('admin')
    yield app.shop
    setSite(None)
    clearRequest()


def lengths(app):
    return (app.asynchronous_call_dispatcher.zam1.lenNewCalls(),
            app.shop.asynchronous_call_manager.lenNewCalls())


def test_a_method_is_put_to_the_nearest_place_of_its_object(app, shop):
    deferred = defer(shop.objectIds)
    assert lengths(app) == (0, 1)
    assert deferred.plugin == 'zope_call'
    assert shop.asynchronous_call_manager.getDeferred(deferred.id) is deferred
    defer(app.objectIds)
    assert lengths(app) == (1, 1)


def test_arguments_go_with_it(shop):
    args, kwargs = defer(shop.objectValues, spec='Folder').arguments()
    assert args[0].where == ('', 'shop') and args[0].name == 'objectValues'
    assert (args[1:], kwargs) == ((), {'spec': 'Folder'})


def test_keywords_may_have_the_names_that_a_put_has(app, shop):
    names = dict.fromkeys(('self', 'plugin', 'options', 'session', 'callable'), 1)
    assert defer(shop.objectIds, **names).arguments()[1] == names
    assert defer(app.objectIds, **names).arguments()[1] == names


def test_a_function_is_put_where_the_site_says(app, shop):
    from Products.Five.component.interfaces import IObjectManagerSite
    from zope.component.persistentregistry import PersistentComponents
    from zope.interface import alsoProvides
    shop.setSiteManager(PersistentComponents())
    alsoProvides(shop, IObjectManagerSite)
    setSite(shop)
    defer(jobs.add, 1, 2)
    assert lengths(app) == (0, 1)


def test_without_a_site_a_function_is_put_at_the_root_of_the_request(app, shop):
    setRequest(app.REQUEST)
    defer(jobs.add, 1, 2)
    assert lengths(app) == (1, 0)


def test_where_there_is_no_place_the_error_says_what_to_add(shop):
    with pytest.raises(NoManager) as refusal:
        defer(jobs.add, 1, 2)
    assert 'asynchronous_call_manager' in str(refusal.value)


def test_the_place_is_the_one_in_its_folder_and_knows_its_path(app, shop):
    for folder, id in ((shop, 'asynchronous_call_manager'), (app, 'asynchronous_call_dispatcher')):
        path = (*folder.getPhysicalPath(), id)
        assert find_place(folder.objectIds).getPhysicalPath() == path


def test_something_else_of_that_id_is_passed_over(app, shop):
    shop._delObject('asynchronous_call_manager')
    shop.manage_addFolder('asynchronous_call_manager')
    defer(shop.objectIds)
    assert app.asynchronous_call_dispatcher.zam1.lenNewCalls() == 1


def test_options_go_with_it(now, shop):
    later = defer.options(priority=5, key='once', not_before=datetime.timedelta(hours=1))
    deferred = later(shop.objectIds)
    assert (deferred.priority, deferred.not_before, deferred.key) == (5, NOW + 3600, 'once')
    assert later(shop.objectIds) is deferred
    assert defer(shop.objectIds).priority == 0


def test_options_are_added_to_those_that_were_given_before(shop):
    often = defer.options(priority=5, retry=4)
    deferred = often.options(series='mail').options(priority=7)(shop.objectIds)
    assert (deferred.priority, deferred.retry[0], deferred.series) == (7, 4, 'mail')
    deferred = often(shop.objectIds)
    assert (deferred.priority, deferred.series) == (5, None)


def test_an_option_that_is_none_is_refused_with_those_there_are(shop):
    with pytest.raises(BadCall) as refusal:
        defer.options(prio=5)
    assert 'prio' in str(refusal.value) and 'priority' in str(refusal.value)


def test_what_can_not_be_found_again_is_refused(app, shop):
    for target in (lambda: None, 'shop', 5):
        with pytest.raises(BadCall):
            setRequest(app.REQUEST)
            defer(target)
    assert lengths(app) == (0, 0)
