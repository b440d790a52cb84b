"""The pages and forms of all products, and made-up requests for them.

Imports: hypothesis, tests.zopeapp.
"""

import contextlib
from typing import NamedTuple
from urllib.parse import urlencode

import transaction
import webtest
from hypothesis import strategies as st
from Testing.makerequest import makerequest
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage

from Products.CPSMailAccess import mailtool
from Products.CPSMailAccess.values import RemoteFolder
from Products.CPSMailAccess.values import RemoteMessage
from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher


class Form(NamedTuple):
    """method and path of a page or form; fields -- {name: what a person would choose}."""

    method: str
    path: str
    fields: dict


#: In each text @call@ is the id of a call that waits.
ZAM, ZAD, TOOL = '/zad/zam1', '/zad', '/portal_webmail'
BOX = TOOL + '/box_alice'
ADD = '/manage_addProduct/'
PERIODIC = {'id': 'nightly', 'title': 'Night', 'expression': '0 3 * * *', 'zone': 'UTC',
            'kind': 'plugin', 'path': '/', 'tales': 'nothing', 'plugin': 'echo',
            'arguments': '(1, 2)', 'keywords': '{}', 'priority': '1', 'timeout': '5',
            'expires': '60', 'attempts': '2', 'series': 's', 'adding': ''}
SETTINGS = {'HOST': 'mail.example', 'PORT': '143', 'SSL': '0', 'login': 'alice',
            'password': 'secret', 'connection_type': 'IMAP', 'CONNECT_SECONDS': '10',
            'READ_SECONDS': '30', 'CA_FILE': ''}
MESSAGE = {'manage_tabs_message': 'Done.'}

FORMS = (
    Form('POST', f'{ZAM}/manage_changeSettings', {'poll_interval': '9', 'rotation_period': '99'}),
    Form('POST', f'{ZAM}/manage_ping', {}),
    Form('GET', f'{ZAM}/manage_main', MESSAGE),
    Form('GET', f'{ZAM}/manage_calls', {'state': 'failed', 'plugin': 'echo', 'user': 'admin',
                                        'start': '@call@', **MESSAGE}),
    Form('GET', f'{ZAM}/manage_call', {'id': '@call@', **MESSAGE}),
    Form('POST', f'{ZAM}/manage_cancelCall', {'id': '@call@'}),
    Form('POST', f'{ZAM}/manage_retryCall', {'id': '@call@'}),
    Form('POST', f'{ZAM}/manage_retryAll', {}),
    Form('POST', f'{ZAM}/manage_purge', {'state': 'failed', 'hours': '0'}),
    Form('POST', f'{ZAM}/manage_pause', {}),
    Form('POST', f'{ZAM}/manage_resume', {}),
    Form('GET', f'{ZAM}/manage_periodic', MESSAGE),
    Form('GET', f'{ZAM}/manage_periodicCall', {'id': 'nightly', **MESSAGE}),
    Form('POST', f'{ZAM}/manage_savePeriodicCall', PERIODIC),
    Form('POST', f'{ZAM}/manage_savePeriodicCall', {**PERIODIC, 'id': 'new', 'adding': '1'}),
    Form('POST', f'{ZAM}/manage_savePeriodicCall', {**PERIODIC, 'kind': 'zope_exec'}),
    *(Form('POST', f'{ZAM}/manage_{action}PeriodicCall', {'id': 'nightly'})
      for action in ('pause', 'resume', 'run', 'drop')),
    Form('GET', f'{ZAD}/manage_overview', {'test': 'zam1:@call@', **MESSAGE}),
    Form('GET', f'{ZAD}/manage_overview_data', {'test': 'zam1:@call@'}),
    Form('POST', f'{ZAD}/manage_test', {}),
    Form('POST', f'{ZAD}/manage_addManagers', {'managers': '2'}),
    Form('GET', f'{ZAD}/manage_removal', {'id': 'zam1', 'how': 'move', 'going': '1'}),
    Form('POST', f'{ZAD}/manage_removeManager', {'id': 'zam2', 'how': 'move', 'going': ''}),
    Form('POST', f'{ZAD}/manage_keepManager', {'id': 'zam1'}),
    Form('POST', f'{ZAD}/manage_editProperties', {
        'title': 'T', 'max_idle_time:float': '60', 'no_worker': 'run', 'balance': 'load'}),
    Form('POST', f'{ZAD}/manage_changeProperties', {'max_idle_time': '60', 'no_worker': 'run'}),
    Form('GET', f'{ADD}zasync/constructAsynchronousCallManagerForm', {}),
    Form('POST', f'{ADD}zasync/constructAsynchronousCallManager', {
        'id': 'zam', 'poll_interval': '5', 'rotation_period': '86400'}),
    Form('GET', f'{ADD}zasyncdispatcher/constructZAsyncDispatcherForm', {}),
    Form('POST', f'{ADD}zasyncdispatcher/constructZAsyncDispatcher', {'id': 'zad2'}),
    Form('POST', f'{ADD}zasyncdispatcher/constructZAsyncDispatcherWithManagers', {
        'id': 'zad2', 'managers': '1'}),
    Form('GET', f'{ADD}CPSMailAccess/addMailToolForm', {}),
    Form('POST', f'{ADD}CPSMailAccess/addMailTool', {'title': 'T'}),
    Form('GET', f'{TOOL}{ADD}CPSMailAccess/addMailBoxForm', {}),
    Form('POST', f'{TOOL}{ADD}CPSMailAccess/addMailBox', {'user': 'eve', **SETTINGS}),
    Form('POST', f'{ADD}CPSMailAccess/addMailBox', {'user': 'eve', **SETTINGS}),
    Form('GET', f'{TOOL}/manage_main', {'start': '0', **MESSAGE}),
    Form('GET', f'{TOOL}/manage_defaultsForm', {}),
    Form('POST', f'{TOOL}/manage_changeDefaults', {
        **{name: text for name, text in SETTINGS.items() if name not in ('login', 'password')},
        'HOST_flag': '1', 'PORT_flag': '0', 'CA_FILE_flag': '-1'}),
    Form('POST', f'{TOOL}/manage_sealPasswords', {}),
    Form('POST', f'{TOOL}/manage_delObjects', {'ids': 'box_alice'}),
    Form('GET', f'{BOX}/manage_main', {'folder': 'INBOX', 'start': '0', 'outcome': 'done'}),
    Form('GET', f'{BOX}/manage_syncStatus', {}),
    Form('GET', f'{BOX}/manage_settingsForm', {}),
    Form('POST', f'{BOX}/manage_changeSettings', SETTINGS),
    Form('POST', f'{BOX}/manage_getMessages', {}),
    Form('POST', f'{BOX}/manage_synchronizeAll', {}),
    Form('POST', f'{BOX}/manage_clearSynchro', {}),
    Form('GET', f'{BOX}/INBOX/.7/manage_main', {}),
    Form('GET', f'{BOX}/INBOX/manage_main', {}),
)

#: What may follow the name of a field: Zope makes other values of it.
CONVERTERS = ('list', 'tuple', 'tokens', 'utokens', 'lines', 'ulines', 'text', 'string', 'ustring',
              'int', 'float', 'long', 'date', 'boolean', 'bytes', 'required', 'ignore_empty',
              'default', 'record', 'records', 'int:list', 'float:tuple', 'method', 'action',
              'nothing', 'utf8:text', 'json', 'list:record')

TEXTS = ('', ' ', '0', '-1', '1', '5', '99999999999', '9' * 400, '9' * 5000, '1e308', 'inf', 'nan',
         '1_0', '\u0663', '1.5', '0x1', '@call@', 'nightly', 'zam1', 'zam2', 'box_alice',
         'box_eve', 'failed', 'resolved', 'new', 'cancelled', 'move', 'refuse', 'keep', 'plugin',
         'zope_exec', 'IMAP', '2', '<script>alert(1)</script>', '"><b>', "'",
         '\r\nSet-Cookie: a=b', 'a\x00b', '\x1b[31m', '/', '..', '/../..', '\u202e', '\udcff',
         'a\udc80b', '\U0001f600', 'x' * 100_000, '%00', '%', '@hourly', '* * * * *',
         '99 99 * * *', '0 0 30 2 *', 'Europe/Berlin', '../../etc/passwd', '(' * 3000,
         '[' * 150 + ']' * 150, '{1: 2}', '{"a": [1]}', '(1).real', '-' * 3000 + '1', "('x' * 9,)",
         'python: 1', 'python: (', 'python: ' + '(' * 500, 'string:$', 'nocall:', 'acl_users',
         'manage_main', '_x', 'aq_parent', 'a b')


def _sendable(text):
    return text.encode('utf-8', 'replace').decode('utf-8')


def _name(field):
    return st.one_of(st.just(field), st.just(field), st.sampled_from(CONVERTERS).map(
        lambda converter: f'{field}:{converter}'), st.just(f'{field}.part:record'),
        st.just(f'{field}.part:records'))


@st.composite
def requests(draw):
    """(Form, [(name, text or upload)], names and texts of the query)."""
    form = draw(st.sampled_from(FORMS))
    value = st.one_of(
        st.sampled_from(TEXTS), st.text(max_size=8).map(_sendable),
        st.just(webtest.Upload('a.txt', b'content', 'text/plain')),
        st.just(webtest.Upload('', b'')))
    sent = []
    spoilt = draw(st.sets(st.sampled_from(sorted(form.fields) or ['id']), max_size=3))
    for field, text in form.fields.items():
        if field not in spoilt:
            sent.append((field, text))
            continue
        for _ in range(draw(st.integers(0, 2))):
            sent.append((draw(_name(field)), draw(value)))
    for _ in range(draw(st.integers(0, 1))):
        field = draw(st.sampled_from(sorted(form.fields) or ['REQUEST', 'self']))
        sent.append((draw(_name(field)), draw(value)))
    return form, sent


class World:
    """A site with one of everything; each request finds it as it was made."""

    def __init__(self, site):
        self.site = site
        app = site.app
        app._setObject('zad', ZAsyncDispatcher('zad'))
        for id in ('zam1', 'zam2'):
            app.zad._setObject(id, AsynchronousCallManager(id))
        mailtool.addMailTool(app.manage_addProduct['CPSMailAccess'])
        box = mailtool.add_mail_box(app.portal_webmail, 'alice', host='127.0.0.1', port=1,
                                    password='stored')
        folder = box.create_folder(RemoteFolder('INBOX', ('INBOX',)))
        folder.add(RemoteMessage(7))
        transaction.commit()
        site.login('admin')
        manager = app.zad.zam1
        manager.setPeriodicCall('nightly', '0 3 * * *', 'UTC', 'echo')
        waits = manager.putCall('echo', 1)
        manager.putCall('zope_exec', '/', {}, 'nothing')
        self.call = waits.id
        transaction.commit()
        site.logout()
        self.browser = site.browser('admin')
        self.db = None

    @contextlib.contextmanager
    def anew(self):
        """The site as it was made, for one request or some; gives its root."""
        wrapper = self.site._wrapper
        transaction.abort()
        self.db = DB(DemoStorage(base=self.site.db.storage, close_base_on_close=False),
                     database_name='fuzz', class_factory=self.site.db.classFactory)
        connection = self.db.open()
        old, wrapper._db = wrapper._db, self.db
        try:
            app = makerequest(connection.root()['Application'])
            yield app
            app.REQUEST.close()
        finally:
            transaction.abort()
            wrapper._db = old
            connection.close()
            self.db.close()

    def send(self, form, sent):
        """The answer to that request."""
        sent = [(name, value.replace('@call@', self.call) if isinstance(value, str) else value)
                for name, value in sent]
        if any(not isinstance(value, str) for _, value in sent) and form.method == 'POST':
            return self.browser.post(form.path, sent, content_type='multipart/form-data')
        # Half pairs stand for bytes that are no UTF-8, as a browser would not send them.
        query = urlencode([item for item in sent if isinstance(item[1], str)],
                          errors='surrogateescape')
        if form.method == 'GET':
            return self.browser.get(f'{form.path}?{query}')
        return self.browser.post(form.path, query)


def state_of(app):
    """What forms may change, as plain values."""
    dispatcher, tool = app.zad, app.portal_webmail
    managers = {}
    for manager in dispatcher.managers():
        managers[manager.getId()] = (
            manager.poll_interval, manager.rotation_period, manager.paused, manager.leaving,
            {id: (each.title, each.timetable, each.paused, each.asked, each.call.plugin,
                  each.call.arguments, each.call.priority, each.call.timeout_seconds)
             for id, each in manager.periodic.items()},
            [(each.id, each.state) for each in manager.calls()])
    return {
        'root': sorted(app.objectIds()), 'managers': managers,
        'dispatcher': (dispatcher.title, dispatcher.max_idle_time, dispatcher.no_worker,
                       dispatcher.balance),
        'tool': (tool.title, tool.parameter_pairs()),
        'boxes': {box.getId(): (box.title, dict(box._own), box.message_count())
                  for box in tool.mail_boxes()}}
