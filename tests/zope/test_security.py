"""Who runs a call: captured as names when it is put, looked up again when it runs."""

import pytest
import transaction
from AccessControl import getSecurityManager
from AccessControl import SpecialUsers
from AccessControl import Unauthorized
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from Acquisition import aq_base
from Acquisition import aq_parent
from Acquisition import Implicit
from zope.component import adapter
from zope.component import getGlobalSiteManager
from zope.component import getSiteManager
from zope.component.hooks import getSite
from zope.component.hooks import setSite
from zope.component.interfaces import ISite
from zope.event import notify
from zope.globalrequest import clearRequest
from zope.globalrequest import getRequest
from zope.globalrequest import setRequest
from zope.i18n.interfaces import IUserPreferredLanguages
from zope.interface import alsoProvides
from zope.interface import Interface
from zope.interface.registry import Components as PersistentComponents
from zope.publisher.browser import BrowserLanguages
from zope.publisher.interfaces.http import IHTTPRequest
from zope.security.management import endInteraction
from zope.security.management import newInteraction
from zope.security.management import queryInteraction
from zope.traversing.interfaces import BeforeTraverseEvent
from zope.traversing.interfaces import IBeforeTraverseEvent

from Products.zasync import lanes
from Products.zasync.call import Caller
from Products.zasync.errors import BadCall
from Products.zasync.errors import CallerGone
from Products.zasync.security import capture
from Products.zasync.security import restored


@pytest.fixture
def bare(app):
    """The application root as a worker has it: without a request."""
    return aq_base(app)


@pytest.fixture
def sub(site, app):
    """A folder with a user folder of its own: carol is a Manager there."""
    app.manage_addFolder('sub')
    app.sub.manage_addUserFolder()
    site.add_user('carol', 'Manager', folder=app.sub)
    app.sub.manage_addFolder('inner')
    return app.sub


@pytest.fixture
def emergency(monkeypatch):
    """An emergency user, as an access file makes one."""
    from AccessControl.users import UnrestrictedUser
    user = UnrestrictedUser('root', 'root', ('manage',), [])
    monkeypatch.setattr(SpecialUsers, 'emergency_user', user)
    return user


# capture

def test_a_user_of_the_root_is_recorded_by_id_and_folder(site):
    site.login('bob')
    caller = capture()
    assert (caller.user_id, caller.folder, caller.special) == ('bob', ('', 'acl_users'), '')
    assert str(caller) == 'bob of /acl_users'


def test_a_user_of_a_subfolder_is_recorded_with_that_folder(site, sub):
    site.login('carol', sub)
    assert capture()[:3] == ('carol', ('', 'sub', 'acl_users'), '')


def test_nobody_and_system_are_recorded_by_name(site):
    noSecurityManager()
    assert capture()[:3] == (None, None, 'nobody')
    newSecurityManager(None, SpecialUsers.system)
    assert capture()[:3] == (None, None, 'system')
    assert str(capture()) == 'system'


def test_an_anonymous_visitor_wrapped_in_a_user_folder_is_nobody(app):
    newSecurityManager(None, SpecialUsers.nobody.__of__(app.acl_users))
    assert capture()[:3] == (None, None, 'nobody')


def test_the_emergency_user_is_recorded_by_name_with_its_folder(app, emergency):
    newSecurityManager(None, emergency.__of__(app.acl_users))
    assert capture()[:3] == (None, ('', 'acl_users'), 'emergency')


def test_what_the_request_looked_like_is_recorded(site, app):
    request = app.REQUEST
    request.setServerURL('https', 'www.example.org')
    request['VirtualRootPhysicalPath'] = ('', 'sub')
    request.environ['HTTP_ACCEPT_LANGUAGE'] = 'fr,en;q=0.5'
    setRequest(request)
    try:
        caller = capture()
    finally:
        clearRequest()
    assert caller.server_url == 'https://www.example.org'
    assert caller.virtual_root == ('', 'sub')
    assert caller.languages == 'fr,en;q=0.5'


def test_the_languages_are_those_of_the_site_where_the_site_decides(bare, app):
    """As in Plone, which does not ask the browser unless it is told to."""
    class Decided:
        def __init__(self, request):
            """See IUserPreferredLanguages."""

        def getPreferredLanguages(self):
            return ['de-at', 'de', 'de', None, 'fr']

    app.REQUEST.environ['HTTP_ACCEPT_LANGUAGE'] = 'en'
    setRequest(app.REQUEST)
    components = getGlobalSiteManager()
    components.registerAdapter(Decided, (IHTTPRequest,), IUserPreferredLanguages, event=False)
    try:
        caller = capture()
    finally:
        components.registerAdapter(BrowserLanguages, (IHTTPRequest,), IUserPreferredLanguages,
                                   event=False)
        clearRequest()
    assert caller.languages == 'de-at,de,fr'
    with restored(caller, bare) as root:
        assert IUserPreferredLanguages(root.REQUEST).getPreferredLanguages() == [
            'de-at', 'de', 'fr']


def test_without_a_request_nothing_of_it_is_recorded(site):
    clearRequest()
    assert set(capture()[3:]) == {None}


def test_a_caller_is_plain_data(site):
    import pickle
    site.login('bob')
    data = pickle.dumps(tuple(capture()), 4)
    assert Caller(*pickle.loads(data)) == capture()
    assert b'AccessControl' not in data


# restored

def test_the_user_is_looked_up_again_and_wrapped_in_its_folder(site, bare):
    site.login('bob')
    caller = capture()
    noSecurityManager()
    with restored(caller, bare) as app:
        user = getSecurityManager().getUser()
        assert (user.getId(), user.getRoles()) == ('bob', ('Member', 'Authenticated'))
        assert aq_base(aq_parent(user)) is aq_base(app.acl_users)
        assert app.REQUEST['AUTHENTICATED_USER'] is user


def test_a_user_has_the_roles_it_has_when_the_call_runs(site, app, bare):
    site.login('bob')
    caller = capture()
    app.acl_users.userFolderEditUser('bob', None, ['Manager'], [])
    with restored(caller, bare):
        assert 'Manager' in getSecurityManager().getUser().getRoles()
    app.acl_users.userFolderEditUser('bob', None, [], [])
    with restored(caller, bare):
        assert getSecurityManager().getUser().getRoles() == ('Authenticated',)


def test_a_user_of_a_subfolder_can_not_act_above_it(site, sub, bare):
    site.login('carol', sub)
    caller = capture()
    noSecurityManager()
    with restored(caller, bare) as app:
        app.restrictedTraverse('sub/manage_addFolder')
        app.restrictedTraverse('sub/inner/manage_addFolder')
        for path in ('manage_addFolder', 'manage_delObjects', 'acl_users/userFolderAddUser'):
            with pytest.raises(Unauthorized):
                app.restrictedTraverse(path)


def test_the_user_of_the_root_is_not_the_one_of_the_same_name_in_a_subfolder(site, sub, bare):
    site.add_user('bob', 'Manager', folder=sub)
    site.login('bob')
    with restored(capture(), bare):
        assert 'Manager' not in getSecurityManager().getUser().getRoles()


@pytest.mark.parametrize('special', ['nobody', 'system'])
def test_nobody_and_system_are_restored_by_name(bare, special):
    with restored(Caller(None, None, special), bare):
        assert getSecurityManager().getUser() is getattr(SpecialUsers, special)


def test_the_emergency_user_is_restored_wrapped(bare, emergency):
    with restored(Caller(None, ('', 'acl_users'), 'emergency'), bare) as app:
        user = getSecurityManager().getUser()
        assert aq_base(user) is emergency
        assert aq_base(aq_parent(user)) is aq_base(app.acl_users)


def test_an_emergency_user_that_is_gone_is_gone(bare):
    with pytest.raises(CallerGone), restored(Caller(None, ('', 'acl_users'), 'emergency'), bare):
        raise AssertionError('the body must not run')


@pytest.mark.parametrize('caller, words', [
    (Caller('zoe', ('', 'acl_users')), ["'zoe'", '/acl_users']),
    (Caller('bob', ('', 'gone', 'acl_users')), ['/gone/acl_users']),
    (Caller('bob', ('', 'index_html')), ['/index_html']),
    (Caller('bob', None), ['/']),
    (Caller('bob', ('',)), ['/']),
])
def test_a_caller_that_is_gone_fails_the_call_with_a_sentence(bare, caller, words):
    with pytest.raises(CallerGone) as refusal, restored(caller, bare):
        raise AssertionError('the body must not run')
    assert all(word in str(refusal.value) for word in words)


def test_a_user_that_is_deleted_after_the_put_is_gone(site, app, bare):
    site.login('eve')
    caller = capture()
    app.acl_users.userFolderDelUsers(['eve'])
    with pytest.raises(CallerGone), restored(caller, bare):
        raise AssertionError('the body must not run')


def test_a_user_folder_that_is_deleted_after_the_put_is_gone(site, sub, bare, app):
    site.login('carol', sub)
    caller = capture()
    noSecurityManager()
    app._delObject('sub')
    with pytest.raises(CallerGone), restored(caller, bare):
        raise AssertionError('the body must not run')


def test_urls_are_what_they_were_when_the_call_was_put(bare, sub):
    caller = Caller(None, None, 'nobody', server_url='https://www.example.org',
                    virtual_root=('', 'sub'), languages='fr')
    with restored(caller, bare) as app:
        assert app.sub.inner.absolute_url() == 'https://www.example.org/inner'
        assert app.REQUEST.get('HTTP_ACCEPT_LANGUAGE') == 'fr'


@pytest.mark.parametrize('url, expected', [
    ('http://localhost:8080', 'http://localhost:8080/sub'),
    ('https://example.org:8443', 'https://example.org:8443/sub'),
    ('http://example.org', 'http://example.org/sub'),
    ('http://[::1]:8080', 'http://[::1]:8080/sub'),
    ('http://[::1]', 'http://[::1]/sub')])
def test_a_server_url_comes_back_as_it_was(bare, sub, url, expected):
    with restored(Caller(None, None, 'nobody', server_url=url), bare) as app:
        assert app.sub.absolute_url() == expected


def test_urls_of_a_virtual_host_are_the_same_in_the_call_as_in_the_page(site, app, sub, bare):
    """End to end: captured in a real request with a VirtualHostMonster path."""
    from Products.zasync.manager import AsynchronousCallManager
    app._setObject('zam', AsynchronousCallManager('zam'))
    app.zam.manage_permission('Make Asynchronous Application Calls', ['Anonymous'], 0)
    if 'virtual_hosting' not in app.objectIds():
        from Products.SiteAccess.VirtualHostMonster import manage_addVirtualHostMonster
        manage_addVirtualHostMonster(app)
    from OFS.DTMLMethod import addDTMLMethod
    addDTMLMethod(sub, 'page', file=(
        """<dtml-call "zam.putCall('zope_exec', '/', {}, 'nothing')">"""
        '<dtml-var "inner.absolute_url()">'))
    page = site.browser().get(
        '/VirtualHostBase/https/www.example.org:443/sub/VirtualHostRoot/page')
    assert page.status_int == 200, page.text
    [lane] = [lane for lane in app.zam.queue.lanes if len(lane)]
    caller = lanes.get(lane, 1).deferred.caller
    with restored(caller, bare) as root:
        assert root.sub.inner.absolute_url() == page.text.strip()


def test_the_component_site_of_the_caller_is_restored_and_the_old_one_put_back(sub, bare):
    registry = PersistentComponents(bases=(getGlobalSiteManager(),))
    sub.setSiteManager(registry)
    alsoProvides(sub, ISite)
    setSite(sub)
    try:
        caller = capture()
        assert caller.site == ('', 'sub')
        setSite(None)
        with restored(caller, bare):
            assert aq_base(getSite()) is aq_base(sub)
            assert aq_base(getSiteManager()) is registry
        assert getSite() is None
    finally:
        setSite(None)


def test_the_request_of_a_call_is_prepared_by_the_site_when_the_call_asks_for_it(sub, bare):
    """As Plone marks it with the layers of add-ons: docs/plugins.rst has these lines."""
    class ILayer(Interface):
        pass

    @adapter(ISite, IBeforeTraverseEvent)
    def mark(site, event):
        alsoProvides(event.request, ILayer)

    sub.setSiteManager(PersistentComponents(bases=(getGlobalSiteManager(),)))
    alsoProvides(sub, ISite)
    caller = Caller('bob', ('', 'acl_users'), site=('', 'sub'))
    getGlobalSiteManager().registerHandler(mark)
    try:
        with restored(caller, bare):
            assert not ILayer.providedBy(getRequest())
            notify(BeforeTraverseEvent(getSite(), getRequest()))
            assert ILayer.providedBy(getRequest())
    finally:
        getGlobalSiteManager().unregisterHandler(mark)


@pytest.mark.parametrize('path', [('', 'gone'), ('', 'sub')])
def test_a_component_site_that_is_gone_or_none_any_more_fails_the_call(bare, sub, path):
    """Without its site the call would find other utilities than its caller did."""
    with pytest.raises(CallerGone) as refusal:
        with restored(Caller(None, None, 'nobody', site=path), bare):
            raise AssertionError('the body must not run')
    assert '/'.join(path) in str(refusal.value)
    assert getSite() is None


# the owner of the script that put the call

class Script(Implicit):
    """An executable somebody owns, as a PythonScript is."""

    def __init__(self, owner):
        self._owner = owner

    def getOwnerTuple(self):
        """(path of the user folder, id)."""
        return self._owner

    def getWrappedOwner(self):
        """The user."""
        folder = self.aq_parent.acl_users
        return folder.getUserById(self._owner[1]).__of__(folder)

    def getOwner(self, info=0):
        """The user."""
        return self.getWrappedOwner()


@pytest.fixture
def put_by_script(site, app):
    """A function: owner's id → the Caller of a put in a script of that owner, run by admin."""
    def put(owner):
        site.login('admin')
        script = Script((['acl_users'], owner)).__of__(app)
        manager = getSecurityManager()
        manager.addContext(script)
        try:
            return capture()
        finally:
            manager.removeContext(script)
            site.logout()
    return put


def test_a_script_of_a_weaker_owner_can_do_no_more_when_its_call_runs(bare, put_by_script):
    """Else the trojan horse protection ends where a call begins."""
    with restored(put_by_script('bob'), bare) as app:
        assert getSecurityManager().getUser().getId() == 'admin'
        with pytest.raises(Unauthorized):
            app.restrictedTraverse('manage_addFolder')
    with restored(put_by_script('admin'), bare) as app:
        app.restrictedTraverse('manage_addFolder')


def test_a_script_whose_owner_is_gone_fails_the_call(bare, app, put_by_script):
    caller = put_by_script('eve')
    app.acl_users.userFolderDelUsers(['eve'])
    with pytest.raises(CallerGone) as refusal, restored(caller, bare):
        raise AssertionError('the body must not run')
    assert "'eve'" in str(refusal.value)


def test_a_user_in_no_user_folder_can_put_no_call(app):
    """Nobody could find it again when the call runs."""
    from AccessControl.users import SimpleUser
    newSecurityManager(None, SimpleUser('stray', 'x', ('Manager',), []))
    with pytest.raises(BadCall):
        capture()


def test_a_user_without_an_id_can_put_no_call(app, manager):
    """As code makes one that lends somebody a role; it was refused when the call ran."""
    from AccessControl.users import UnrestrictedUser
    for name in ('bob', None):
        made = UnrestrictedUser(name, '', ['Manager'], '').__of__(app.acl_users)
        newSecurityManager(None, made)
        with pytest.raises(BadCall, match=f'the user {name!r} has no id'):
            manager.putCall('echo', 1)
    assert manager.lenNewCalls() == 0


def test_what_the_form_of_the_request_says_is_not_taken_for_the_server(site, app):
    request = app.REQUEST
    request.form.update(SERVER_URL='http://evil.example.org', VirtualRootPhysicalPath=('', 'x'),
                        HTTP_ACCEPT_LANGUAGE='xx')
    setRequest(request)
    try:
        caller = capture()
    finally:
        clearRequest()
    assert 'evil' not in str(caller.server_url)
    assert caller.virtual_root is None and caller.languages is None


def test_the_request_is_bare(site, app, bare):
    request = app.REQUEST
    request.form['secret'] = 1
    request.cookies['__ac'] = 'password'
    setRequest(request)
    try:
        site.login('bob')
        with restored(capture(), bare) as wrapped:
            inner = wrapped.REQUEST
            assert inner is getRequest()
            assert inner is not request
            assert dict(inner.form) == {} and dict(inner.cookies) == {}
            assert not inner.get('secret')
            inner.RESPONSE.redirect('http://evil.example.org')
            inner.RESPONSE.expireCookie('__ac')
            assert inner['PARENTS'] == [wrapped]
        assert request.RESPONSE.getStatus() == 200
        assert request.RESPONSE.cookies == {}
    finally:
        clearRequest()


class Boom(BaseException):
    """Not even an Exception."""


@pytest.mark.parametrize('error', [None, ValueError, Boom, KeyboardInterrupt])
def test_what_the_thread_had_before_is_put_back_also_after_errors(site, app, bare, sub, error):
    site.login('admin')
    setRequest(app.REQUEST)
    setSite(None)
    before = getSecurityManager()
    newInteraction()
    interaction = queryInteraction()
    closed = []
    try:
        with restored(Caller('bob', ('', 'acl_users')), bare) as wrapped:
            inner = wrapped.REQUEST
            inner._hold(OnClose(closed))
            newSecurityManager(None, SpecialUsers.system)
            clearRequest()
            assert queryInteraction() not in (None, interaction)
            endInteraction()
            newInteraction()
            if error is not None:
                raise error()
    except (ValueError, Boom, KeyboardInterrupt) as caught:
        assert type(caught) is error
    try:
        assert getSecurityManager() is before
        assert getRequest() is app.REQUEST
        assert getSite() is None
        assert queryInteraction() is interaction
        assert closed == [True]
        assert app.REQUEST.get('PARENTS')
    finally:
        clearRequest()
        endInteraction()


class OnClose:
    """Held by a request; tells when the request lets go of it."""

    def __init__(self, told):
        self._told = told

    def __del__(self):
        self._told.append(True)


def test_what_the_thread_had_before_is_put_back_if_the_caller_is_gone(site, app, bare):
    site.login('admin')
    setRequest(app.REQUEST)
    before = getSecurityManager()
    try:
        with pytest.raises(CallerGone), restored(Caller('zoe', ('', 'acl_users')), bare):
            raise AssertionError('the body must not run')
        assert getSecurityManager() is before
        assert getRequest() is app.REQUEST
    finally:
        clearRequest()


def test_a_call_leaves_no_interaction_to_a_thread_that_had_none(site, bare):
    with restored(Caller('bob', ('', 'acl_users')), bare):
        assert queryInteraction() is not None
    assert queryInteraction() is None


def test_a_run_inside_a_run_restores_the_outer_one(site, bare):
    with restored(Caller('bob', ('', 'acl_users')), bare) as outer:
        with restored(Caller('eve', ('', 'acl_users')), bare):
            assert getSecurityManager().getUser().getId() == 'eve'
        assert getSecurityManager().getUser().getId() == 'bob'
        assert getRequest() is outer.REQUEST


def test_restoring_writes_nothing(site, bare, sub):
    transaction.commit()
    last = site.db.lastTransaction()
    with restored(Caller('bob', ('', 'acl_users')), bare) as app:
        app.sub.inner.absolute_url()
    transaction.commit()
    assert site.db.lastTransaction() == last


# what is gone is not found higher up

def test_a_user_folder_that_is_gone_is_not_replaced_by_the_one_above(app, bare):
    """Traversal acquires: /sub/acl_users would be answered by /acl_users, with its users."""
    sub = app.sub if 'sub' in app.objectIds() else None
    if sub is None:
        from OFS.Folder import Folder
        app._setObject('sub', Folder('sub'))
        sub = app.sub
    from AccessControl.userfolder import UserFolder
    if 'acl_users' not in sub.objectIds():
        sub._setObject('acl_users', UserFolder())
    sub.acl_users._doAddUser('admin', 'secret', [], [])
    caller = Caller('admin', ('', 'sub', 'acl_users'))
    sub._delObject('acl_users')
    with pytest.raises(CallerGone), restored(caller, bare):
        raise AssertionError('the body must not run')


def test_an_object_that_is_gone_is_not_replaced_by_one_of_that_id_above(app, bare):
    from OFS.Folder import Folder

    from Products.zasync.builtin import traverse
    app._setObject('above', Folder('above'))
    app._setObject('under', Folder('under'))
    assert traverse(bare, ('', 'above')).getId() == 'above'
    with pytest.raises(LookupError):
        traverse(bare, ('', 'under', 'above'))
