"""Who runs this: `capture` the caller when a call is put, `restored` when it runs.

A caller is kept as names and paths. Nothing is trusted from the time of the put:
the user is looked up again, and has the roles it has then. A call put by a
script with proxy roles runs with the rights of the user alone.

Imports: call, errors.
"""

import io
from contextlib import contextmanager

from AccessControl import SpecialUsers
from AccessControl.SecurityManagement import getSecurityManager
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import setSecurityManager
from Acquisition import aq_base
from Acquisition import aq_inner
from Acquisition import aq_parent
from zope.component.hooks import getSite
from zope.component.hooks import setSite
from zope.globalrequest import clearRequest
from zope.globalrequest import getRequest
from zope.globalrequest import setRequest
from zope.publisher.browser import setDefaultSkin
from ZPublisher.BaseRequest import RequestContainer
from ZPublisher.HTTPRequest import HTTPRequest
from ZPublisher.HTTPResponse import HTTPResponse

from .call import Caller
from .errors import CallerGone


def capture():
    """The Caller of the code that runs now: its user, site and what URLs look like."""
    user = getSecurityManager().getUser()
    request = getRequest()
    site = getSite()
    site_path = None
    if site is not None and getattr(site, 'getPhysicalPath', None) is not None:
        site_path = site.getPhysicalPath()
    environment = {'site': site_path}
    if request is not None:
        environment.update(
            server_url=request.get('SERVER_URL'),
            virtual_root=tuple(request.get('VirtualRootPhysicalPath', ()) or ()) or None,
            languages=request.get('HTTP_ACCEPT_LANGUAGE') or None)
    special = _special_name(user)
    if special in ('nobody', 'system'):
        return Caller(None, None, special, **environment)
    folder = aq_parent(aq_inner(user))
    path = folder.getPhysicalPath() if hasattr(folder, 'getPhysicalPath') else None
    return Caller(None if special else user.getId(), path, special, **environment)


def _special_name(user):
    bare = aq_base(user)
    if bare is None or bare is SpecialUsers.nobody or bare.getUserName() == 'Anonymous User':
        return 'nobody'
    if bare is SpecialUsers.system:
        return 'system'
    if SpecialUsers.emergency_user and bare is SpecialUsers.emergency_user:
        return 'emergency'
    return ''


@contextmanager
def restored(caller, app, variables=None):
    """Run the body as `caller`; yields `app` wrapped in a bare request of its own.

    caller -- a Caller. app -- the application root, without a request.
    variables -- mapping of what ``request.name`` answers.

    What the thread had before (user, request, site) is put back at the end, so
    this serves the worker and a run inside somebody's request alike.
    Raises CallerGone, before the body, if the user or its folder is gone.
    """
    before = getSecurityManager(), getRequest(), getSite()
    request = make_request(app, caller, variables or {})
    try:
        wrapped = app.__of__(RequestContainer(REQUEST=request))
        request['PARENTS'] = [wrapped]
        if caller.virtual_root:
            request['VirtualRootPhysicalPath'] = caller.virtual_root
        user = find_user(caller, wrapped)
        newSecurityManager(request, user)
        request['AUTHENTICATED_USER'] = user
        setRequest(request)
        setSite(_find_site(caller, wrapped))
        yield wrapped
    finally:
        manager, old_request, site = before
        setSecurityManager(manager)
        setSite(site)
        if old_request is None:
            clearRequest()
        else:
            setRequest(old_request)
        request.close()


def make_request(app, caller, variables):
    """A request with nothing but what `caller` recorded and the given variables."""
    environ = {'SERVER_NAME': 'localhost', 'SERVER_PORT': '80', 'REQUEST_METHOD': 'GET'}
    if caller.languages:
        environ['HTTP_ACCEPT_LANGUAGE'] = caller.languages
    request = HTTPRequest(io.BytesIO(), environ, HTTPResponse(stdout=io.BytesIO()))
    request['ACTUAL_URL'] = request.get('URL')
    if caller.server_url:
        protocol, _, host = caller.server_url.partition('://')
        name, _, port = host.rpartition(':') if ':' in host else (host, '', '')
        request.setServerURL(protocol, name, port or None)
    setDefaultSkin(request)
    for name, value in variables.items():
        request.set(name, value)
    return request


def find_user(caller, app):
    """The user of `caller` as it is now, wrapped in its folder; raises CallerGone.

    The wrapping is not decoration: an unwrapped user would pass the check that
    keeps the users of a subfolder from acting above it.
    """
    if caller.special == 'nobody':
        return SpecialUsers.nobody
    if caller.special == 'system':
        return SpecialUsers.system
    folder = app.unrestrictedTraverse(caller.folder, None) if caller.folder else None
    path = '/'.join(caller.folder or ()) or '/'
    if folder is None or not hasattr(folder, 'getUserById'):
        raise CallerGone(f'the user folder {path} of the caller does not exist any more')
    if caller.special == 'emergency':
        user = SpecialUsers.emergency_user
    else:
        user = folder.getUserById(caller.user_id)
    if user is None:
        raise CallerGone(f'the user {caller.user_id!r} of {path} does not exist any more')
    return aq_base(user).__of__(folder) if aq_parent(user) is None else user


def _find_site(caller, app):
    if caller.site is None:
        return None
    return app.unrestrictedTraverse(caller.site, None)
