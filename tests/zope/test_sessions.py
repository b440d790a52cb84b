"""Session calls: put by a browser, and its result got by the same browser only."""

import pytest
import transaction
from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from OFS.SimpleItem import SimpleItem
from Products.Transience.Transience import TransientObjectContainer
from ZPublisher import zpublish

from Products.zasync import permissions
from Products.zasync.errors import BadCall
from Products.zasync.errors import NotYours
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.testing import make_worker
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.zope.test_dispatcher import beat


CALL = ('zope_exec', '/', {}, 'python:1')


class Counter(SimpleItem):
    """A page that puts a session call, and one that tells how it is."""

    id = 'counter'
    security = ClassSecurityInfo()

    @zpublish
    @security.public
    def put(self):
        """Put a call; → its id."""
        put = self.zam.putSessionCall(*CALL)
        return put.id

    @zpublish
    @security.public
    def ask(self, id):
        """State of the call, or what refuses it."""
        try:
            return self.zam.getDeferred(id).state
        except NotYours as reason:
            return f'not yours: {reason}'


    @zpublish
    @security.public
    def put_and_remember(self, REQUEST):
        """Put something into the session, and a call that looks for it; → its id."""
        REQUEST['SESSION']['remembered'] = 'yes'
        return self.zam.putSessionCall(
            'zope_exec', '/', {}, "python:request.get('SESSION', 'no session')").id


InitializeClass(Counter)


@pytest.fixture
def counter(app, manager):
    """The pages, beside the manager and the browser id manager that Products.Sessions made."""
    app._setObject('counter', Counter())
    assert app.browser_id_manager is not None
    transaction.commit()
    return app.counter


def test_only_the_browser_that_put_it_can_get_it(site, counter):
    mine, other = site.browser(), site.browser()
    id = mine.get('/counter/put').text
    assert mine.get('/counter/ask', params={'id': id}).text == 'new'
    assert other.get('/counter/ask', params={'id': id}).text.startswith('not yours')
    # It has got an id of its own meanwhile, as a browser does.
    other.get('/counter/put')
    assert other.get('/counter/ask', params={'id': id}).text.startswith('not yours')


def test_the_same_user_in_another_browser_can_not_get_it(site, counter):
    id = site.browser('bob').get('/counter/put').text
    assert site.browser('bob').get('/counter/ask', params={'id': id}).text.startswith('not yours')


def test_a_manager_can_get_it(site, counter):
    id = site.browser().get('/counter/put').text
    assert site.browser('admin').get('/counter/ask', params={'id': id}).text == 'new'


def test_an_application_call_of_anonymous_is_nobodys_whatever_the_browser(site, app, counter):
    id = app.zam.putCall(*CALL).id
    transaction.commit()
    browser = site.browser()
    browser.get('/counter/put')
    assert browser.get('/counter/ask', params={'id': id}).text.startswith('not yours')


def test_a_session_call_looks_for_its_session(site, app, counter):
    app._setObject('store', TransientObjectContainer('store'))
    app.session_data_manager.setContainerPath('/store')
    transaction.commit()
    browser = site.browser()
    with make_worker(app.zam) as worker:
        answer = browser.get('/counter/put_and_remember')
        assert app.store.keys(), answer.text
        transaction.abort()  # who looks into it may make it forget what is old
        deferred = app.zam.queue.find(answer.text)
        worker.run_until_idle()
    assert (deferred.state, deferred.result) == ('resolved', 'no session')


def test_the_id_is_enough_where_there_is_no_store_of_session_data(app, manager):
    assert app.unrestrictedTraverse('temp_folder', None) is None
    deferred = manager.putSessionCall(*CALL)
    assert deferred.session == app.browser_id_manager.getBrowserId()


def test_a_put_by_id_is_a_put_by_whoever_has_it(manager):
    deferred = manager._putCall(('a browser',), *CALL)
    assert deferred.session == 'a browser'
    assert manager._putCall(None, *CALL).session is None


def test_without_a_browser_id_manager_the_refusal_says_what_to_install(app, manager):
    app._delObject('browser_id_manager')
    with pytest.raises(BadCall) as refusal:
        manager.putSessionCall(*CALL)
    assert 'Products.Sessions' in str(refusal.value)
    assert manager.lenNewCalls() == 0


def test_outside_a_request_a_session_call_is_refused(site, app, manager):
    bare = site.connection.root()['Application'].zam
    with pytest.raises(BadCall) as refusal:
        bare.putSessionCall(*CALL)
    assert 'request' in str(refusal.value)


def test_its_permission_is_one_of_its_own(site, app, counter):
    from AccessControl import getSecurityManager
    app.zam.manage_permission(permissions.MakeAsynchronousSessionCalls, ['Member'])
    app.zam.manage_permission(permissions.MakeAsynchronousApplicationCalls, ['Manager'])
    site.login('bob')
    allowed = {name: bool(getSecurityManager().checkPermission(name, app.zam)) for name in (
        permissions.MakeAsynchronousSessionCalls, permissions.MakeAsynchronousApplicationCalls)}
    assert allowed == {permissions.MakeAsynchronousSessionCalls: True,
                       permissions.MakeAsynchronousApplicationCalls: False}
    assert app.zam.restrictedTraverse('putSessionCall')(*CALL).session
    with pytest.raises(Exception, match='putCall'):
        app.zam.restrictedTraverse('putCall')


@pytest.fixture
def zad(app):
    """A dispatcher with a manager, which nobody serves."""
    app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
    zad = app.asynchronous_call_dispatcher
    zad._setObject('zam1', AsynchronousCallManager('zam1'))
    transaction.commit()
    return zad


def test_through_the_dispatcher_the_pair_comes_back(app, zad):
    beat(zad.zam1)
    transaction.commit()
    id, deferred = zad.putSessionCall(*CALL)
    assert id == 'zam1'
    assert deferred.session == app.browser_id_manager.getBrowserId()


def test_when_nobody_lives_a_session_call_waits_for_a_worker(zad):
    # It is to be got later, so it has to be in a manager.
    assert zad.no_worker == 'run'
    id, deferred = zad.putSessionCall(*CALL)
    assert (id, deferred.state) == ('zam1', 'new')
    assert zad.zam1.getDeferred(deferred.id) is deferred
