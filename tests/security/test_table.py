"""The table of what is published: user × permission × every method and URL, over HTTP.

Everything in reach of a URL is walked. What is not in the table is for nobody.
"""

import importlib
import inspect
import pkgutil
import re
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode

import pytest
import transaction
from Acquisition import aq_base
from App.config import getConfiguration
from OFS.Folder import Folder
from OFS.SimpleItem import SimpleItem
from persistent import Persistent
from webtest import TestApp
from ZPublisher import zpublish_mark
from ZPublisher import zpublish_marked
from ZPublisher.httpexceptions import HTTPExceptionHandler

from tests.security.town import ALICE
from tests.security.town import ANONYMOUS
from tests.security.town import CAROL
from tests.security.town import name_of
from tests.security.town import NOBODY
from tests.security.town import Town


DOCS = Path(__file__).parents[2] / 'docs' / 'security.rst'

PUT = 'Make Asynchronous Application Calls'
PUT_SESSION = 'Make Asynchronous Session Calls'
VIEW = 'View management screens'
DELETE = 'Delete objects'
PROPERTIES = 'Manage properties'
ADD_MANAGERS = 'Add Asynchronous Call Managers'
ADD_DISPATCHERS = 'Add Asynchronous Call Dispatchers'
ADD_TOOLS, ADD_BOXES = 'Add Mail Tools', 'Add Mail Boxes'
VIEW_MAIL, SYNCHRONIZE = 'View mailbox', 'Synchronize mailbox'
CHANGE_MAIL = 'Change mailbox settings'

PERMISSIONS = (PUT, PUT_SESSION, VIEW, DELETE, PROPERTIES, ADD_MANAGERS, ADD_DISPATCHERS,
               ADD_TOOLS, ADD_BOXES, VIEW_MAIL, SYNCHRONIZE, CHANGE_MAIL)
#: What the owner of a mailbox may do with it.
OWNERS = (VIEW_MAIL, SYNCHRONIZE, CHANGE_MAIL)

#: A page or JSON answers to GET and POST and writes nothing; an action answers to POST alone.
PAGE, JSON, ACTION = 'page', 'json', 'action'

BOX = 'portal_webmail/box_alice'
FOLDER, MESSAGE = f'{BOX}/Work', f'{BOX}/Work/.7'
ZASYNC, DISPATCHER = 'manage_addProduct/zasync', 'manage_addProduct/zasyncdispatcher'
MAIL, BOXES = 'manage_addProduct/CPSMailAccess', 'portal_webmail/manage_addProduct/CPSMailAccess'

#: All that is published: object, kind, permission, names.
TABLE = (
    ('zam', PAGE, VIEW, 'manage_main manage_workspace manage_calls manage_call'),
    ('zam', PAGE, VIEW, 'manage_periodic manage_periodicCall'),
    ('zam', ACTION, VIEW, 'manage_changeSettings manage_ping manage_pause manage_resume'),
    ('zam', ACTION, VIEW, 'manage_cancelCall manage_retryCall manage_retryAll manage_purge'),
    ('zam', ACTION, VIEW, 'manage_pausePeriodicCall manage_resumePeriodicCall'),
    ('zam', ACTION, VIEW, 'manage_runPeriodicCall manage_dropPeriodicCall'),
    ('zam', ACTION, (VIEW, PUT), 'manage_savePeriodicCall'),
    ('zad', PAGE, VIEW, 'manage_overview manage_removal'),
    ('zad', JSON, VIEW, 'manage_overview_data'),
    ('zad', ACTION, VIEW, 'manage_test'),
    ('zad', ACTION, ADD_MANAGERS, 'manage_addManagers'),
    ('zad', ACTION, DELETE, 'manage_removeManager manage_keepManager'),
    ('zad', ACTION, PROPERTIES, 'manage_changeProperties manage_editProperties'),
    ('zad', ACTION, PROPERTIES, 'manage_addProperty manage_delProperties'),
    ('zad', ACTION, PROPERTIES, 'manage_changePropertyTypes'),
    ('portal_webmail', PAGE, VIEW, 'manage_main manage_workspace index_html'),
    ('portal_webmail', PAGE, PROPERTIES, 'manage_defaultsForm'),
    ('portal_webmail', ACTION, PROPERTIES, 'manage_changeDefaults'),
    ('portal_webmail', ACTION, DELETE, 'manage_delObjects'),
    ('portal_webmail', ACTION, (VIEW, PROPERTIES), 'manage_sealPasswords'),
    (BOX, PAGE, VIEW_MAIL, 'manage_main manage_workspace index_html'),
    (BOX, PAGE, CHANGE_MAIL, 'manage_settingsForm'),
    (BOX, JSON, VIEW_MAIL, 'manage_syncStatus'),
    (BOX, ACTION, SYNCHRONIZE, 'manage_getMessages manage_synchronizeAll'),
    (BOX, ACTION, CHANGE_MAIL, 'manage_clearSynchro manage_changeSettings'),
    (FOLDER, PAGE, VIEW_MAIL, 'manage_main index_html'),
    (MESSAGE, PAGE, VIEW_MAIL, 'manage_main index_html'),
    (MESSAGE, ACTION, VIEW_MAIL, 'manage_fetchBody'),
    (ZASYNC, PAGE, (ADD_MANAGERS, VIEW), 'constructAsynchronousCallManagerForm'),
    (ZASYNC, ACTION, ADD_MANAGERS, 'constructAsynchronousCallManager'),
    (DISPATCHER, PAGE, (ADD_DISPATCHERS, VIEW), 'constructZAsyncDispatcherForm'),
    (DISPATCHER, ACTION, ADD_DISPATCHERS,
     'constructZAsyncDispatcher constructZAsyncDispatcherWithManagers'),
    (MAIL, PAGE, ADD_TOOLS, 'addMailToolForm'),
    (MAIL, ACTION, ADD_TOOLS, 'addMailTool'),
    (BOXES, PAGE, ADD_BOXES, 'addMailBoxForm'),
    (BOXES, ACTION, ADD_BOXES, 'addMailBox'),
)

#: What to send, where nothing would be refused for another reason.
VALUES = {
    'manage_changeSettings': {'poll_interval': '5', 'rotation_period': '86400'},
    'manage_call': {'id': '{failed}'}, 'manage_cancelCall': {'id': '{failed}'},
    'manage_retryCall': {'id': '{resolved}'},
    'manage_purge': {'state': 'expired', 'hours': '1'},
    **{name: {'id': 'nightly'} for name in (
        'manage_periodicCall', 'manage_pausePeriodicCall', 'manage_resumePeriodicCall',
        'manage_runPeriodicCall', 'manage_dropPeriodicCall')},
    'manage_savePeriodicCall': {
        'id': 'nightly', 'expression': '0 3 * * *', 'zone': 'UTC', 'kind': 'zope_exec',
        'path': '/', 'tales': 'nothing', 'priority': '0'},
    'manage_addManagers': {'managers': '1'},
    **{name: {'id': 'zam2'} for name in (
        'manage_removal', 'manage_removeManager', 'manage_keepManager')},
    'manage_changeProperties': {'no_worker': 'run'},
    'manage_addProperty': {'id': 'more', 'value': 'x', 'type': 'string'},
    'manage_delProperties': {'ids:list': 'extra'},
    'manage_changePropertyTypes': {
        'old_ids:list': 'extra', 'props.new_id:records': 'extra',
        'props.new_value:records': 'x', 'props.new_type:records': 'string'},
    'manage_editProperties': {'title': 'x', 'max_idle_time:float': '60', 'no_worker': 'run',
                              'balance': 'load'},
    'manage_delObjects': {'ids': 'box_alice'},
    'constructAsynchronousCallManager': {'id': 'new1'},
    'constructZAsyncDispatcher': {'id': 'new2'},
    'constructZAsyncDispatcherWithManagers': {'id': 'new3'},
    'addMailBox': {'user': 'bob', 'HOST': '127.0.0.1', 'PORT': '143', 'SSL': '0', 'login': 'x',
                   'password': 'x'},
}

#: What Zope publishes of every object to everybody: its names and its place, the properties of a
#: folder, the frame of a management page without tabs. And what besides to who is logged in.
ZOPES = {
    'absolute_url', 'absolute_url_path', 'virtual_url_path', 'getId', 'title_or_id',
    'title_and_id', 'getParentNode', 'propertyIds', 'propertyItems', 'propertyMap',
    'propertyValues', 'valid_roles', 'validRoles', 'manage_tabs',
    'zope_copyright', 'HEAD', 'OPTIONS'}
ZOPES_LOGGED_IN = {'PROPFIND', 'manage_DAVget', 'manage_workspace'}

REFUSED, ABSENT, ALLOWED = 'refused', 'absent', 'allowed'


def rows():
    """(place, name, kind, permissions) of each published name."""
    return [(place, name, kind, permission if isinstance(permission, tuple) else (permission,))
            for place, kind, permission, names in TABLE for name in names.split()]


def meaning(answer):
    """What an answer means."""
    return {401: REFUSED, 404: ABSENT, 403: ABSENT}.get(answer.status_int, ALLOWED)


@pytest.fixture(scope='module')
def town():
    made = Town(PERMISSIONS)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def clean(town):
    transaction.begin()
    yield
    transaction.abort()


def classes(found):
    """The classes of ours that an object is of, in the order in which names are looked up."""
    return [cls for cls in aq_base(found).__class__.__mro__
            if cls.__module__.startswith(('Products.zasync', 'Products.CPSMailAccess'))]


def own_methods(town):
    """(class, name, function) of each method of ours that a name in a URL could mean."""
    return {(cls, name, value) for found in town.objects().values() for cls in classes(found)
            for name, value in vars(cls).items()
            if inspect.isfunction(value) and not name.startswith('_')}


# marks

def test_every_method_in_reach_of_a_url_says_whether_it_is_published(town):
    methods = own_methods(town)
    assert len(methods) > 120
    unmarked = [f'{cls.__name__}.{name}' for cls, name, value in methods
                if not zpublish_marked(value)]
    assert unmarked == []


def test_every_method_in_reach_of_a_url_says_who_may_call_it(town):
    undeclared = [f'{cls.__name__}.{name}' for cls, name, _ in own_methods(town)
                  if not hasattr(cls, f'{name}__roles__')]
    assert undeclared == []


def test_what_is_published_is_what_the_table_says(town):
    marked = {}
    for path, found in town.objects().items():
        for cls in reversed(classes(found)):
            marked.update({(path, name): zpublish_mark(value) for name, value in vars(cls).items()
                           if inspect.isfunction(value) and not name.startswith('_')})
    marked = {place: mark for place, mark in marked.items() if mark}
    expected = {(place, name): ('POST',) if kind == ACTION else True
                for place, name, kind, _ in rows() if 'manage_addProduct' not in place}
    assert marked == expected


def test_of_the_products_only_the_add_forms_and_their_actions_can_be_reached():
    by_table = {}
    for place, name, _, _ in rows():
        if 'manage_addProduct' in place:
            by_table.setdefault(place.rpartition('/')[2], set()).add(name)
    for product, names in by_table.items():
        reached = vars(importlib.import_module(f'Products.{product}').__FactoryDispatcher__)
        assert {name for name in reached if not name.startswith('_') and name not in
                ('security', 'inheritedAttribute') and not name.endswith('__roles__')} == names
        for name in names:
            assert zpublish_mark(reached[name]) == (True if name.endswith('Form') else ('POST',))


# the documents

def section(title):
    """The text of a section of docs/security.rst."""
    text = DOCS.read_text('utf-8')
    start = text.index(f'\n{title}\n' + '-' * len(title))
    end = re.search(r'\n\n\n[A-Z]', text[start + 1:])
    return text[start:None if end is None else start + 1 + end.start()]


def test_the_documents_list_the_actions_and_the_data_that_the_table_has():
    told = set(re.findall(r'``(manage_\w+)``', section('What is published')))
    assert told == {name for place, name, kind, _ in rows()
                    if kind != PAGE and 'manage_addProduct' not in place}


def test_the_documents_list_the_permissions_that_the_table_has():
    table = section('Permissions').split('=\n')[1]
    told = set(re.findall(r'^([A-Z][^\n]*?)(?:  |$)', table, re.MULTILINE))
    told = {name.strip() for each in told for name in each.split(',')}
    assert told == set(PERMISSIONS)


# by HTTP

class Visitor:
    """Somebody at a browser. Counts what became of the requests, and remembers each."""

    def __init__(self, town, name):
        self._browser = TestApp(HTTPExceptionHandler(town.wsgi), lint=False)
        if name is not None:
            self._browser.authorization = ('Basic', (name, name))

    def ask(self, method, path, values=()):
        """→ the answer, whatever its status."""
        params = urlencode(dict(values))
        transaction.commit()
        try:
            if method in ('POST', 'PUT'):
                return self._browser.request(
                    path, method=method, body=params.encode(), status='*', expect_errors=True,
                    headers={'Content-Type': 'application/x-www-form-urlencoded'})
            return self._browser.request(f'{path}?{params}', method=method, status='*',
                                         expect_errors=True)
        finally:
            transaction.begin()


def url_of(place, name):
    return f'/{place}/{name}'


def values_of(town, name):
    """What to send to a published name, the ids of calls filled in."""
    return {key: value.format(**town.calls) for key, value in VALUES.get(name, {}).items()}


def may(user, permission, place, needed):
    """Whether that user, or who has that one permission, has all the needed ones there."""
    if user == ALICE:
        return place.startswith(BOX) and set(needed) <= set(OWNERS)
    return user == 'admin' or needed == (permission,)


USERS = (ANONYMOUS, NOBODY, 'bob', CAROL, ALICE)


def test_nobody_but_who_has_its_permission_gets_what_is_published(town):
    """And nothing is written for those who are refused, nor by a GET."""
    wrong, counted = [], Counter()
    for user in ('admin', *USERS, *town.holders):
        visitor = Visitor(town, user)
        for place, name, kind, needed in rows():
            allowed = may(user, town.holders.get(user), place, needed)
            # The mark does not ask who it is: a GET of the others tells no more.
            for method in ('POST',) if user in town.holders else ('GET', 'POST'):
                if allowed and method == 'POST' and kind == ACTION:
                    continue  # the next test does that
                expected = ABSENT if kind == ACTION and method == 'GET' else (
                    ALLOWED if allowed else REFUSED)
                before = town.db.lastTransaction()
                answer = visitor.ask(method, url_of(place, name), values_of(town, name))
                counted[expected] += 1
                got = meaning(answer)
                if expected == REFUSED and len(needed) > 1 and got == ABSENT:
                    got = REFUSED  # of a page that some part is missing for
                if got != expected or town.db.lastTransaction() != before:
                    wrong.append((user, method, place, name, answer.status, expected))
    assert wrong == []
    assert counted[ALLOWED] > 80 and counted[REFUSED] > 700 and counted[ABSENT] > 150


def test_a_manager_of_a_subfolder_gets_nothing_by_acquiring_it_there(town):
    visitor = Visitor(town, CAROL)
    assert visitor.ask('GET', '/sub/manage_main').status_int == 200
    # Not the root's add forms: /sub/manage_addProduct adds to its own folder, as it may.
    asked = [row for row in rows() if row[0] not in (ZASYNC, DISPATCHER, MAIL)]
    asked += [('zad/' + row[0], *row[1:]) for row in rows() if row[0] == ZASYNC]
    got = [(place, name, answer.status) for place, name, _, _ in asked
           for answer in [visitor.ask('POST', '/sub' + url_of(place, name),
                                      values_of(town, name))]
           if meaning(answer) != REFUSED]
    assert len(asked) > 50 and got == []


def test_who_has_the_permission_may_do_it_by_post():
    wrong, asked = [], 0
    holders = [(None, 'admin'), (None, ALICE), *((each, None) for each in PERMISSIONS)]
    for place, name, kind, needed in rows():
        for permission, user in holders if kind == ACTION else ():
            if not may(user, permission, place, needed):
                continue
            town = Town([permission] if permission else [])
            try:
                if place == MAIL:
                    town.app._delObject('portal_webmail')
                answer = Visitor(town, user or name_of(permission)).ask(
                    'POST', url_of(place, name), values_of(town, name))
            finally:
                town.close()
            asked += 1
            if answer.status_int not in (200, 302):
                wrong.append((user or permission, place, name, answer.status))
    assert wrong == [] and asked > 60


# what is not in the table

def names_of(found):
    """(ours, Zope's): all names that an object has, by who has given them to it."""
    bare = aq_base(found)
    ours = set(vars(bare)) | {name for cls in classes(found) for name in vars(cls)}
    return ours, set(dir(bare)) - ours


@pytest.mark.parametrize('user', ['admin', ALICE, ANONYMOUS])
def test_nothing_else_of_ours_has_a_url(town, user):
    """Neither methods nor what they work with; for the Manager no more than for others."""
    visitor, published = Visitor(town, user), {(place, name) for place, name, _, _ in rows()}
    before, got, asked = town.db.lastTransaction(), [], 0
    for place, found in town.objects().items():
        for name in sorted(names_of(found)[0]):
            if (place, name) in published:
                continue
            for method in ('GET', 'POST'):
                answer = visitor.ask(method, url_of(place, name))
                asked += 1
                if meaning(answer) != ABSENT:
                    got.append((method, place, name, answer.status))
    assert got == [] and asked > 500
    assert town.db.lastTransaction() == before


@pytest.mark.parametrize('user', [ANONYMOUS, NOBODY, CAROL])
def test_of_what_zope_gives_to_every_object_who_has_no_rights_gets_names_and_addresses(town, user):
    visitor, seen = Visitor(town, user), set()
    before, got, asked = town.db.lastTransaction(), set(), 0
    for place, found in town.objects().items():
        for name in sorted(names_of(found)[1]):
            method = getattr(aq_base(found).__class__, name, None)
            roles = getattr(found, f'{name}__roles__', None)
            what = (name, getattr(method, '__func__', method), str(roles))
            if name.startswith('_') or what in seen:
                continue
            seen.add(what)
            answer = visitor.ask('POST', url_of(place, name))
            asked += 1
            if answer.status_int < 400:
                got.add(name)
                assert 'secret' not in answer.text
    assert got == (ZOPES | ZOPES_LOGGED_IN if user == NOBODY else ZOPES) and asked > 150
    assert town.db.lastTransaction() == before


PATHS = ('zam/queue/lanes', 'zam/queue/desk/running', 'zam/queue/find', 'zam/queue/failed',
         'zam/queue/card/plugins', 'zam/queue/names', 'zam/queue/board', 'zam/queue/waiting',
         'zam/periodic/nightly', 'zam/periodic/nightly/call', 'zad/call_names/key',
         'zam/__class__', 'zam/_p_jar', 'zam/_status', 'zam/queue/_p_jar/root',
         'zam/aq_base/queue', 'zam/aq_parent/zam/queue', 'zam/aq_inner/putCall',
         'zad/zam/putCall', 'zad/zam1/zam/queue', 'zam/manage_main/__func__',
         'zam/manage_calls/im_func/func_globals', 'zam/manage_main/im_self/queue',
         'zam/++attribute++queue', 'zam/++attribute++putCall', 'zam/++item++queue',
         'zam/@@queue', 'zam/++view++putCall', 'zam/putCall/__call__', 'zam/putCall/index_html',
         'zam/_calls_page', 'zam/_call_page/macros',
         'portal_webmail/_boxes/box_alice', 'portal_webmail/box_alice/_own',
         'portal_webmail/box_alice/_own/password', 'portal_webmail/box_alice/sync_status',
         'portal_webmail/box_alice/body_index', 'portal_webmail/box_alice/.7',
         'portal_webmail/box_alice/Work/7', 'portal_webmail/box_alice/Work/_messages/7',
         'portal_webmail/box_alice/Work/.7/_body', 'portal_webmail/box_alice/Work/.7/subject',
         'portal_webmail/box_alice/Work/..7', 'portal_webmail/objectMap',
         'manage_addProduct/zasync/manager', 'manage_addProduct/zasync/initialize',
         'manage_addProduct/zasyncdispatcher/api', 'manage_addProduct/CPSMailAccess/mailtool',
         'zam/manage_addProduct/zasync/putCall')


@pytest.mark.parametrize('user', ['admin', ANONYMOUS])
def test_no_path_leads_into_what_our_objects_are_made_of(town, user):
    visitor = Visitor(town, user)
    calls = [f'zam/{way}{id}' for id in town.calls.values()
             for way in ('', 'getDeferred/', 'queue/', 'queue/find/', 'queue/failed/', 'calls/')]
    got = [(method, path, answer.status) for path in (*PATHS, *calls)
           for method in ('GET', 'POST', 'PROPFIND', 'HEAD')
           for answer in [visitor.ask(method, f'/{path}')] if meaning(answer) == ALLOWED]
    assert got == []


DAV = ('PUT', 'DELETE', 'PROPFIND', 'PROPPATCH', 'MKCOL', 'COPY', 'MOVE', 'LOCK', 'UNLOCK',
       'TRACE', 'OPTIONS', 'HEAD', 'PATCH', 'manage_ping')


def test_an_action_answers_to_no_other_verb_than_post(town):
    visitor = Visitor(town, 'admin')
    before, wrong = town.db.lastTransaction(), []
    for place, name, kind, _ in rows():
        for method in DAV if kind == ACTION else ():
            answer = visitor.ask(method, url_of(place, name), values_of(town, name))
            if answer.status_int < 400:
                wrong.append((method, place, name, answer.status))
    assert wrong == []
    assert town.db.lastTransaction() == before


@pytest.mark.parametrize('user', [ANONYMOUS, NOBODY, CAROL])
def test_webdav_tells_who_has_no_rights_ids_and_titles_and_lets_nobody_change_a_thing(town, user):
    visitor = Visitor(town, user)
    before = town.db.lastTransaction()
    for place in town.objects():
        for method in DAV:
            text = visitor.ask(method, f'/{place}').text
            assert 'secret' not in text, (method, place)
    assert town.db.lastTransaction() == before
    assert meaning(Visitor(town, ANONYMOUS).ask('PROPFIND', '/portal_webmail')) == REFUSED


def test_who_has_no_webdav_access_is_told_nothing_by_webdav():
    town = Town()
    try:
        visitor = Visitor(town, NOBODY)
        assert 'box_alice' in visitor.ask('PROPFIND', '/portal_webmail').text
        town.app.manage_permission('WebDAV access', ['Manager'], 0)
        assert meaning(visitor.ask('PROPFIND', '/portal_webmail')) == REFUSED
    finally:
        town.close()


XMLRPC = ("<?xml version='1.0'?><methodCall><methodName>%s</methodName><params><param><value>"
          '<string>echo</string></value></param></params></methodCall>')


@pytest.mark.parametrize('name', ['putCall', 'put', 'ping', 'pause', 'queue.find', 'calls',
                                  'getDeferred', '_put', 'setPeriodicCall'])
@pytest.mark.parametrize('is_on', [False, True])
def test_what_is_not_published_is_not_called_by_xml_rpc_either(town, monkeypatch, name, is_on):
    monkeypatch.setattr(getConfiguration(), 'enable_xmlrpc', is_on)
    before = town.db.lastTransaction()
    answer = town.browser('admin').post('/zam', XMLRPC % name, content_type='text/xml')
    assert answer.status_int == (404 if is_on else 400)
    assert town.db.lastTransaction() == before


def test_no_persistent_part_of_our_objects_is_published():
    """Where a path led to one some day: it has neither a page nor methods."""
    for package in ('Products.zasync', 'Products.zasyncdispatcher', 'Products.CPSMailAccess',
                    'zasync_client'):
        found = importlib.import_module(package)
        for module in pkgutil.walk_packages(found.__path__, f'{package}.'):
            if module.name != 'zasync_client.__main__':
                importlib.import_module(module.name)
    parts, waiting = set(), [Persistent]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            waiting.append(cls)
            if cls.__module__.startswith(('Products.zasync', 'Products.CPSMail', 'zasync_client')):
                parts.add(cls)
    parts = {cls for cls in parts if not issubclass(cls, (SimpleItem, Folder))}
    assert len(parts) > 15
    assert [cls.__name__ for cls in parts if zpublish_mark(cls) is not False] == []
