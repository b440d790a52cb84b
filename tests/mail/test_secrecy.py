"""Where the plain text of a stored password is not: one site on which everything fails that may,
and every place that a text of it could have got to.

The processes are real, their log has all levels and values with the tracebacks, and the servers
say back what they were told at the login.
"""

import base64
import contextlib
import json

import pytest
import requests
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager

from bench.clients import open_database
from bench.mailsite import MailSite
from bench.processes import free_port
from bench.stack import ADMIN
from bench.stack import Stack
from Products.zasync import payload
from Products.zasync.sealed import Sealed
from Products.zasync.sealing import DIRECTIVE
from tests.client.commands import Operator
from tests.secretkeys import configured

from .servers import ScriptedServer
from .servers import wait_until


#: What is looked for: it looks the same however the password around it is quoted.
CORE = 'N33dleInTheHay'
PASSWORD = f'a "{CORE}\\" <&>'

LOGIN = 'haystacks'

#: Longest wait for anything, in seconds.
LIMIT = 40

WORKER = '''\
verbose-traceback on
<eventlog>
  level all
  <logfile>
    path STDOUT
  </logfile>
</eventlog>
<plugin break_off>
  handler tests.mail.jobs.break_off
  zope-aware on
</plugin>
'''


def leaks(text):
    """The lines in which the password is, plain or in base64."""
    data = text.encode('utf-8') if isinstance(text, str) else text
    core = CORE.encode('ascii')
    # The three ways in which the letters may lie in groups of three; the ends belong to others.
    looks = [core, *(base64.b64encode(b'\0' * shift + core)[4:16] for shift in range(3))]
    return [line for line in data.lower().split(b'\n')
            if any(look.lower() in line for look in looks)]


def test_a_leak_would_be_found():
    for text in (PASSWORD, repr(PASSWORD), repr(PASSWORD.encode()), json.dumps(PASSWORD),
                 *(base64.b64encode(('\0' + 'x' * length + '\0' + PASSWORD).encode()).decode()
                   for length in range(3))):
        assert leaks(f'before{text}after')
    assert not leaks('before' + 'x' * 1000)


class Echo(ScriptedServer):
    """Says what it was told at the login wherever `answers` has %(said)s.

    answers -- {command: bytes}; all else is answered with OK. logins -- what it was told.
    """

    def __init__(self, answers, capability=b'AUTH=PLAIN'):
        super().__init__()
        self.answers = {b'CAPABILITY': b'* CAPABILITY IMAP4rev1 ' + capability
                        + b'\r\n%(tag)s OK done\r\n',
                        b'LOGOUT': b'* BYE\r\n%(tag)s OK done\r\n', **answers}
        self.logins = []

    def _talk(self, connection):
        connection.sendall(b'* OK hello\r\n')
        said = b''
        with connection.makefile('rb') as lines:
            for line in lines:
                tag, _space, command = line.strip().partition(b' ')
                verb = command.partition(b' ')[0].upper()
                if verb == b'AUTHENTICATE':
                    connection.sendall(b'+ \r\n')
                    said = lines.readline().strip()
                elif verb == b'LOGIN':
                    said = command
                if verb in (b'AUTHENTICATE', b'LOGIN'):
                    self.logins.append(said)
                answer = self.answers.get(verb, b'%(tag)s OK done\r\n')
                connection.sendall(answer.replace(b'%(tag)s', tag).replace(b'%(said)s', said))
                if b'%(tag)s' not in answer:
                    connection.close()
                    return


#: name of the mailbox → (what its server does, other parameters of the mailbox)
WAYS = {
    'auth_no': (Echo({b'AUTHENTICATE': b'%(tag)s NO not %(said)s\r\n'}), {}),
    'auth_bad': (Echo({b'AUTHENTICATE': b'%(tag)s BAD not %(said)s\r\n'}), {}),
    'login_no': (Echo({b'LOGIN': b'%(tag)s NO not %(said)s\r\n'}, b'X'), {}),
    'login_bad': (Echo({b'LOGIN': b'%(tag)s BAD not %(said)s\r\n'}, b'X'), {}),
    'login_bye': (Echo({b'LOGIN': b'* BYE %(said)s\r\n'}, b'X'), {}),
    'login_garbage': (Echo({b'LOGIN': b'%(said)s %(said)s\r\n%(tag)s what\r\n'}, b'X'), {}),
    'login_unavailable': (Echo({b'LOGIN': b'%(tag)s NO [UNAVAILABLE] %(said)s\r\n'}, b'X'), {}),
    'list_no': (Echo({b'LIST': b'%(tag)s NO you said %(said)s\r\n'}, b'X'), {}),
    'list_bad': (Echo({b'LIST': b'%(tag)s BAD you said %(said)s\r\n'}), {}),
    'list_garbage': (Echo({b'LIST': b'* LIST (%(said)s\r\n%(tag)s OK done\r\n'}, b'X'), {}),
    'examine_no': (Echo({b'LIST': b'* LIST () "/" INBOX\r\n%(tag)s OK done\r\n',
                         b'EXAMINE': b'* OK %(said)s\r\n* FLAGS %(said)s\r\n%(tag)s OK done\r\n'},
                        b'X'), {}),
    'tls': (Echo({}), {'SSL': '1'}),
    'starttls': (Echo({b'STARTTLS': b'%(tag)s OK done\r\n'}, b'STARTTLS'), {'SSL': '2'}),
}

#: The one that `break_off` takes: its server lets it in.
MIDDLE = 'middle'


class Scene:
    """A site with a mailbox for each way, all of which were synchronised by a worker.

    calls -- {name: Deferred} of what was put besides.
    """

    def __init__(self, stack, servers):
        self.stack = stack
        self.address = stack.start_zeo()
        self.url = stack.start_zope()
        site = MailSite(self.url, ADMIN)
        site.add_folder('f')
        site.add_dispatcher('f', 1)
        site.add_mail_boxes('f', {}, '', 0)
        self.http = requests.Session()
        self.http.auth = ADMIN
        for name, (server, more) in {**WAYS, MIDDLE: (servers[MIDDLE], {})}.items():
            answer = self.post(
                'portal_webmail/manage_addProduct/CPSMailAccess/addMailBox', user=name,
                **{'HOST': '127.0.0.1', 'PORT': server.port, 'SSL': '0', 'login': LOGIN,
                   'password': PASSWORD, **more})
            assert answer.status_code == 200, answer.text
        self.db, self.connection, root = open_database(self.address)
        self.f = root['Application'].f
        (self.manager,) = self.f.asynchronous_call_dispatcher.objectValues()
        self.target = f'/f/asynchronous_call_dispatcher/{self.manager.getId()}'
        self.worker = stack.start_worker('zam1', self.target, settings=WORKER)
        self._run(servers)

    def _run(self, servers):
        for name in WAYS:
            self.post(f'portal_webmail/box_{name}/manage_synchronizeAll')
        users = self.connection.root()['Application'].acl_users
        newSecurityManager(None, users.getUserById(ADMIN[0]).__of__(users))
        ldap = '127.0.0.1:%d' % servers['silent'].port
        self.calls = {
            'break_off': self.put('break_off', f'/f/portal_webmail/box_{MIDDLE}'),
            'bind': self.put('unprotected_ldap', ldap, 'dc=org', user='cn=' + LOGIN,
                             password=PASSWORD, timeout=1),
            'away': self.put('protected_ldap', f'127.0.0.1:{free_port()}', 'dc=org',
                             user='cn=' + LOGIN, password=PASSWORD),
        }
        wait_until(lambda: self.begin() or all(call.ended for call in self.all_calls()),
                   LIMIT, 'the end of all calls')

    def begin(self):
        transaction.begin()

    def put(self, plugin, *args, **kwargs):
        transaction.begin()
        call = self.manager.putCall(plugin, *args, **kwargs)
        transaction.commit()
        return call

    def boxes(self):
        return self.f.portal_webmail.mail_boxes()

    def all_calls(self):
        return [*self.calls.values(), *(box.sync_requests.call for box in self.boxes()
                                        if box.getId() != 'box_' + MIDDLE)]

    def get(self, path, **query):
        return self.http.get(f'{self.url}/f/{path}', params=query, timeout=60)

    def post(self, path, **form):
        return self.http.post(f'{self.url}/f/{path}', data=form, timeout=60)

    def close(self):
        noSecurityManager()
        transaction.abort()
        self.connection.close()
        self.db.close()


def key_file_of(stack):
    return stack.instance / 'etc' / 'secret.key'


@pytest.fixture(scope='module')
def scene():
    with contextlib.ExitStack() as exits:
        servers = {name: exits.enter_context(server) for name, (server, _more) in WAYS.items()}
        servers[MIDDLE] = exits.enter_context(Echo({}))
        servers['silent'] = exits.enter_context(ScriptedServer(greeting=None))
        stack = exits.enter_context(Stack())
        exits.enter_context(configured({DIRECTIVE: key_file_of(stack)}))
        made = Scene(stack, servers)
        exits.callback(made.close)
        yield made


def test_everything_failed_and_the_servers_were_told_the_password(scene):
    scene.begin()
    reports = {box.getId(): box.sync_report() for box in scene.boxes()}
    del reports['box_' + MIDDLE]
    assert {report['state'] for report in reports.values()} == {'failed'}, reports
    assert {call.state for call in scene.all_calls()} == {'failed'}
    assert 'in the middle' in scene.calls['break_off'].failure.text
    told = {name for name, (server, _more) in WAYS.items() if any(map(leaks, server.logins))}
    assert told == set(WAYS) - {'tls', 'starttls'}


def test_a_directory_that_says_nothing_was_asked(scene):
    pytest.importorskip('ldap', reason='python-ldap is not installed')
    scene.begin()
    assert 'let nobody in within 1 s' in scene.calls['bind'].failure.text


def test_no_log_has_it(scene):
    text = scene.worker.output()
    assert 'break_off' in text and LOGIN in text and 'garbage from' in text
    # Values are shown, and not where a password is.
    assert "      path = '/f/portal_webmail/box_middle'" in text
    assert '      (values not shown: a password is about)' in text
    for log in scene.stack.log_dir.iterdir():
        assert leaks(log.read_bytes()) == [], log


def test_no_deferred_has_it(scene):
    scene.begin()
    for call in scene.all_calls():
        failure = call.failure
        assert failure.text and failure.traceback_text
        assert not leaks(f'{failure} {failure.traceback_text} {call!r} {vars(call)!r}')
        assert not leaks(payload.pickled(call._arguments))
    _args, kwargs = payload.loads(scene.calls['bind']._arguments)
    assert isinstance(kwargs['password'], Sealed)


def test_no_page_and_no_status_has_it(scene):
    manager = scene.target.removeprefix('/f/')
    pages = [scene.get('portal_webmail/manage_main'), scene.get(manager + '/manage_calls')]
    for box in WAYS:
        url = f'portal_webmail/box_{box}'
        pages += [scene.get(f'{url}/{page}') for page in (
            'manage_main', 'manage_settingsForm', 'manage_syncStatus')]
    # What is typed comes back with what is wrong, but for the password.
    wrong = scene.post('portal_webmail/box_tls/manage_changeSettings', HOST='a b', PORT='x',
                       login=LOGIN, password=PASSWORD)
    assert wrong.status_code == 400 and LOGIN in wrong.text and not leaks(wrong.text)
    pages += [scene.get(manager + '/manage_call', id=call.id) for call in scene.all_calls()]
    for page in pages:
        assert page.status_code == 200 and not leaks(page.text), page.url
    assert any('(hidden)' in page.text for page in pages)


def test_no_command_prints_it(scene):
    operator = Operator(scene.stack)
    operator.configure(target=scene.target)
    text = operator.gets('show', scene.calls['bind'].id)
    assert "'password': (hidden)" in text and not leaks(text)


def test_no_export_has_it(scene):
    answer = scene.get('manage_exportObject', id='portal_webmail', download='1')
    assert answer.status_code == 200 and b'box_login_no' in answer.content
    assert LOGIN.encode('ascii') in answer.content and not leaks(answer.content)


def test_no_database_file_has_it_before_and_after_a_pack(scene):
    path = scene.stack.base_dir / 'Data.fs'
    scene.begin()
    before = path.read_bytes()
    assert before.count(LOGIN.encode('ascii')) > len(WAYS) and not leaks(before)
    scene.db.pack()
    after = path.read_bytes()
    assert len(after) < len(before) and LOGIN.encode('ascii') in after and not leaks(after)
    with configured({DIRECTIVE: key_file_of(scene.stack)}):
        assert scene.f.portal_webmail.box_tls._account().password == PASSWORD
