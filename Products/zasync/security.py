"""Who runs this: `capture` the caller when a call is put, `restored` when it runs.

A caller is kept as names and paths. Nothing is trusted from the time of the put:
the user is looked up again, and has the roles it has then. A call put by a
script with proxy roles runs with the rights of the user alone.

Imports: call, options, paths, errors.
"""

import io
import logging
from contextlib import contextmanager

from AccessControl import SpecialUsers
from AccessControl.Permissions import manage_users
from AccessControl.SecurityManagement import getSecurityManager
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.SecurityManagement import setSecurityManager
from AccessControl.users import NullUnrestrictedUser
from Acquisition import aq_base
from Acquisition import aq_inner
from Acquisition import aq_parent
from zope.component.hooks import getSite
from zope.component.hooks import setSite
from zope.component.interfaces import ISite
from zope.globalrequest import clearRequest
from zope.globalrequest import getRequest
from zope.globalrequest import setRequest
from zope.i18n.interfaces import IUserPreferredLanguages
from zope.publisher.browser import BrowserLanguages
from zope.publisher.browser import setDefaultSkin
from zope.security.management import endInteraction
from zope.security.management import newInteraction
from zope.security.management import queryInteraction
from zope.security.management import thread_local
from ZPublisher.BaseRequest import RequestContainer
from ZPublisher.HTTPRequest import HTTPRequest
from ZPublisher.HTTPResponse import HTTPResponse

from .call import Caller
from .errors import BadCall
from .errors import CallerGone
from .errors import told
from .options import bare
from .paths import at


log = logging.getLogger('zasync')

#: Characters that are kept with a call: of the languages, and of each part of a URL.
LANGUAGES_MOST = 200
URL_MOST = 2_000


def capture():
    """The Caller of the code that runs now: its user, site and what URLs look like.

    Raises BadCall if the user is in no user folder, or has no id: nobody could find it again.
    """
    user_id, folder, special = identity()
    if folder is None and special in ('', 'emergency'):
        raise BadCall(f'the user {user_id!r} is in no user folder, so the call could not be run '
                      'as that user')
    if user_id is None and not special:
        name = getSecurityManager().getUser().getUserName()
        raise BadCall(f'the user {told(name)} has no id, as an UnrestrictedUser has none, so the '
                      'call could not be run as that user')
    site = getSite()
    environment = _url_facts(getRequest())
    if site is not None and getattr(site, 'getPhysicalPath', None) is not None:
        environment['site'] = site.getPhysicalPath()
    environment['owner'] = _executable_owner()
    return Caller(user_id, folder, special, **environment)


def identity():
    """(user id, path of the user folder, special name) of the user this code runs as."""
    user = getSecurityManager().getUser()
    special = _special_name(user)
    if special in ('nobody', 'system'):
        return None, None, special
    folder = aq_parent(aq_inner(user))
    path = folder.getPhysicalPath() if hasattr(folder, 'getPhysicalPath') else None
    return None if special else user.getId(), path, special


def may_act_as(caller, context):
    """Whether the user this code runs as is that Caller, or manages the users of its folder.

    context -- any object of the site.
    """
    if identity() == (caller.user_id, caller.folder, caller.special):
        return True
    root = getattr(context, 'getPhysicalRoot', lambda: context)()
    place = at(root, caller.folder[:-1]) if caller.folder else None
    return bool(getSecurityManager().checkPermission(manage_users,
                                                     root if place is None else place))


def _url_facts(request):
    """What absolute URLs are made of in that request, and its languages; never what its form says.
    """
    if request is None:
        return {}
    return {'server_url': _text(request.other.get('SERVER_URL'), URL_MOST),
            'script': _texts(request._script),
            'virtual_root': _texts(request.other.get('VirtualRootPhysicalPath')),
            'languages': _text(_languages(request), LANGUAGES_MOST)}


def _text(value, most):
    """The first characters of that text, or None.

    Scripts may put what they like into a request, and of what they put an object may say how it is
    pickled: stored with the call, it would have things called by whoever loads that.
    """
    return bare(value)[:most] or None if isinstance(value, str) else None


def _texts(values):
    """The texts of a list or tuple of nothing else, or None."""
    if not isinstance(values, (list, tuple)) or not all(isinstance(each, str) for each in values):
        return None
    texts = tuple(bare(each) for each in values)
    return texts or None if sum(map(len, texts)) <= URL_MOST else None


def _languages(request):
    """The languages that texts are translated to in that request, as a browser asks for them.

    In Zope they are the browser's; in Plone the site, a cookie or the URL may decide.
    """
    preferred = IUserPreferredLanguages(request, None)
    if preferred is None or isinstance(preferred, BrowserLanguages):
        return request.environ.get('HTTP_ACCEPT_LANGUAGE') or ''
    return ','.join(dict.fromkeys(filter(None, preferred.getPreferredLanguages())))


def _executable_owner():
    """(path, id) of the owner of the script or template that puts, if its owner limits it."""
    stack = getSecurityManager()._context.stack
    owned = getattr(stack[-1], 'getOwnerTuple', None) if stack else None
    owner = owned() if owned is not None else None
    return None if not owner else (tuple(owner[0]), owner[1])


def _special_name(user):
    bare = aq_base(user)
    if bare is None or bare is SpecialUsers.nobody or bare.getUserName() == 'Anonymous User':
        return 'nobody'
    if bare is SpecialUsers.system:
        return 'system'
    if bare is SpecialUsers.emergency_user:
        return 'emergency'
    return ''


class _Owned:
    """Stands for the script that put the call: the security policy asks who owns it.

    So does `capture`: what a call puts is limited as the call is.
    """

    def __init__(self, owner, names):
        self._owner = owner
        self._names = names

    def getOwner(self):
        """The user who owns it, wrapped."""
        return self._owner

    getWrappedOwner = getOwner

    def getOwnerTuple(self):
        """(path of the user folder, id) of that user."""
        return self._names


@contextmanager
def restored(caller, app):
    """Run the body as `caller`; yields `app` wrapped in a bare request of its own.

    caller -- a Caller. app -- the application root, without a request.

    What the thread had before (user, request, site, interaction) is put back at the end, so
    this serves the worker and a run inside somebody's request alike.
    Raises CallerGone, before the body, if the user or its folder is gone.
    """
    request = make_request(caller)
    with _put_back():
        try:
            wrapped = app.__of__(RequestContainer(REQUEST=request))
            request['PARENTS'] = [wrapped]
            if caller.virtual_root:
                request['VirtualRootPhysicalPath'] = caller.virtual_root
            user = find_user(caller, wrapped)
            newSecurityManager(request, user)
            if caller.owner is not None:
                getSecurityManager().addContext(
                    _Owned(_find_owner(caller.owner, wrapped), caller.owner))
            request['AUTHENTICATED_USER'] = user
            setRequest(request)
            setSite(_find_site(caller, wrapped))
            # What asks zope.security what the user may is told whom this code runs as.
            newInteraction()
            yield wrapped
        finally:
            # Closing first: somebody may listen to it, and clear the request of the thread.
            try:
                request.close()
            except Exception:  # what the body did is committed, it may be, and its end is known
                log.exception('what listens to the end of requests has failed')


@contextmanager
def apart():
    """Run the body as what knows nothing of Zope: without a user, a request and a site."""
    with _put_back():
        noSecurityManager()
        clearRequest()
        setSite(None)
        yield


@contextmanager
def _put_back():
    """At the end of the body the thread has the user, request and site that it had before, and its
    interaction, of which there is none in between.
    """
    manager, request, site = getSecurityManager(), getRequest(), getSite()
    interaction = queryInteraction()
    endInteraction()
    try:
        yield
    finally:
        endInteraction()
        if interaction is not None:
            thread_local.interaction = interaction
        setSecurityManager(manager)
        setSite(site)
        if request is None:
            clearRequest()
        else:
            setRequest(request)


def make_request(caller):
    """A request with nothing in it but what `caller` recorded."""
    environ = {'SERVER_NAME': 'localhost', 'SERVER_PORT': '80', 'REQUEST_METHOD': 'GET'}
    if caller.languages:
        environ['HTTP_ACCEPT_LANGUAGE'] = caller.languages
    request = HTTPRequest(io.BytesIO(), environ, HTTPResponse(stdout=io.BytesIO()), clean=True)
    request['ACTUAL_URL'] = request.get('URL')
    if caller.server_url:
        protocol, _, host = caller.server_url.partition('://')
        name, _, port = host.rpartition(':') if ':' in host else (host, '', '')
        request.setServerURL(protocol, name, port or None)
    if caller.script:
        request._script = list(caller.script)
        request._resetURLS()
    setDefaultSkin(request)
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
    folder = _user_folder(caller.folder, app) if caller.folder else None
    path = '/'.join(caller.folder or ()) or '/'
    if folder is None:
        raise CallerGone(f'the user folder {path} of the caller does not exist any more')
    if caller.special == 'emergency':
        user = SpecialUsers.emergency_user
        if isinstance(user, NullUnrestrictedUser):  # there is no file `access` here
            user = None
    else:
        user = folder.getUserById(caller.user_id)
    if user is None:
        raise CallerGone(f'the user {caller.user_id or "emergency"!r} of {path} does not exist '
                         'any more')
    return aq_base(user).__of__(folder) if aq_parent(user) is None else user


def _user_folder(path, app):
    """The user folder at that path, or None.

    Only one that Zope itself asks who somebody is. Whoever may add a folder can call it
    acl_users, and put a script getUserById into it, whose user may do anything.
    """
    found = at(app, path)
    asked = getattr(aq_base(aq_parent(aq_inner(found))), '__allow_groups__', None)
    return found if found is not None and aq_base(asked) is aq_base(found) else None


def _find_owner(owner, app):
    """The user who owns the script that put the call; raises CallerGone."""
    path, user_id = owner
    folder = _user_folder(path, app)
    user = None if folder is None else folder.getUserById(user_id)
    if user is None:
        raise CallerGone(f"the user {user_id!r} of {'/'.join(path)}, who owned the script that "
                         'put the call, does not exist any more')
    return aq_base(user).__of__(folder) if aq_parent(user) is None else user


def _find_site(caller, app):
    """The component site of the caller, or None; raises CallerGone if it is none any more."""
    if caller.site is None:
        return None
    site = at(app, caller.site)
    if not ISite.providedBy(site):
        raise CallerGone(f"the site {'/'.join(caller.site)} of the caller does not exist any more")
    return site
