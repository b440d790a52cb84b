"""Fixtures of the mail tests: servers, and a small site with one mailbox in a ZODB.

Dovecot's tests are skipped where it is not installed; with ZASYNC_NO_SKIPS=1 a skip
is a failure (tests/noskips.py).
"""

from contextlib import contextmanager

import pytest
import transaction
from OFS.Application import Application
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage

from bench.imapservers import deliver
from Products.CPSMailAccess import mailtool
from Products.CPSMailAccess import parameters
from Products.zasync.running import running
from tests.secretkeys import secret_key

from .servers import dovecot_is_installed
from .servers import DovecotServer
from .servers import PASSWORD
from .servers import PyPIServer
from .servers import USER


needs_dovecot = pytest.mark.skipif(not dovecot_is_installed(),
                                   reason='Dovecot is not installed')


def pytest_collection_modifyitems(items):
    """Who uses a Dovecot fixture needs Dovecot."""
    for item in items:
        if {'dovecot', 'fresh_dovecot'} & set(getattr(item, 'fixturenames', ())):
            item.add_marker(needs_dovecot)


@pytest.fixture(autouse=True)
def key_file(tmp_path):
    """The secret key of this process during a test, which may replace it."""
    with secret_key(tmp_path / 'secret.key') as made:
        yield made


@pytest.fixture(scope='session')
def shared_dovecot():
    with DovecotServer() as server:
        yield server


@pytest.fixture
def dovecot(request):
    """A Dovecot whose account is empty."""
    server = request.getfixturevalue('shared_dovecot')
    empty(server)
    return server


@pytest.fixture
def fresh_dovecot():
    """A Dovecot of its own for a test that restarts or breaks it."""
    with DovecotServer() as server:
        with server.client() as client:
            client.select_folder('INBOX')
        yield server


@pytest.fixture(scope='session')
def pymap():
    with PyPIServer() as server:
        yield server


@pytest.fixture(params=[pytest.param('dovecot', marks=needs_dovecot), 'pymap'])
def server(request):
    """Each real server in turn, its account empty."""
    server = request.getfixturevalue(
        'shared_dovecot' if request.param == 'dovecot' else 'pymap')
    empty(server)
    return server


def empty(server):
    """Take all mail and folders out of the account."""
    with server.client() as client:
        names = [name for flags, _delimiter, name in client.list_folders()]
        for name in sorted(names, key=len, reverse=True):
            if name != 'INBOX':
                client.delete_folder(name)
        client.select_folder('INBOX')
        uids = client.search()
        if uids:
            client.delete_messages(uids)
            client.expunge()


class Site:
    """An application root with users, the tool and alice's mailbox, in its own ZODB."""

    def __init__(self, database):
        self.database = database
        self.connection = database.open()
        root = self.connection.root()
        if 'Application' not in root:
            self._build(root)
        self.app = root['Application']

    def _build(self, root):
        app = root['Application'] = Application()
        app.acl_users._doAddUser('admin', 'x', ['Manager'], [])
        app.acl_users._doAddUser(USER, 'x', [], [])
        app.acl_users._doAddUser('mallory', 'x', [], [])
        mailtool.addMailTool(AddsTo(app))
        transaction.commit()

    @property
    def tool(self):
        return self.app.portal_webmail

    @property
    def box(self):
        return self.tool.box_alice

    def add_box(self, port, **more):
        values = {'host': '127.0.0.1', 'port': port, 'login': USER, 'password': PASSWORD,
                  'CONNECT_SECONDS': 5, 'READ_SECONDS': 10, **more}
        box = mailtool.add_mail_box(self.tool, USER, **values)
        transaction.commit()
        return box

    def set_for_all(self, **values):
        pairs = {name: (value, parameters.PORTAL_WIDE) for name, value in values.items()}
        self.tool.set_parameter_pairs(pairs)
        transaction.commit()

    def close(self):
        transaction.abort()
        self.connection.close()


class AddsTo:
    """What a constructor gets of Zope: a dispatcher with the container behind `this`."""

    def __init__(self, container):
        self._container = container

    def this(self):
        return self._container


@pytest.fixture
def database():
    database = DB(DemoStorage())
    yield database
    database.close()


@pytest.fixture
def site(database):
    site = Site(database)
    yield site
    site.close()


@pytest.fixture
def box(site, server):
    """Alice's mailbox on the server of the test."""
    return site.add_box(server.port)


class Call:
    """A running call as a worker shows it; `commits` counts its checkpoints.

    before, after -- functions called with that number around each commit.
    """

    attempt = 1

    def __init__(self, id='call-1', before=None, after=None):
        self.id = id
        self.memo = {}
        self.commits = 0
        self.before, self.after = before, after

    def checkpoint(self, **memo):
        self.commits += 1
        if self.before is not None:
            self.before(self.commits)
        transaction.commit()
        if self.after is not None:
            self.after(self.commits)


@contextmanager
def in_call(id='call-1', **hooks):
    """Run the body as a worker runs a call: checkpoints commit, and so does its end."""
    call = Call(id, **hooks)
    try:
        with running(call):
            yield call
        transaction.commit()
    except BaseException:
        transaction.abort()
        raise


def message(subject='Hello', message_id=None, body='Text.\r\n', more=''):
    """Bytes of a plain message."""
    lines = ['From: Bob <bob@example.org>', 'To: alice@example.org',
             'Date: Mon, 11 Jul 2005 14:05:00 +0200', 'Subject: %s' % subject]
    if message_id:
        lines.append('Message-ID: %s' % message_id)
    return ('\r\n'.join(lines) + '\r\n' + more + '\r\n' + body).encode('utf-8')


def fill(server, count, folder='INBOX', start=1):
    """Deliver `count` messages with subjects and Message-IDs by number."""
    for number in range(start, start + count):
        deliver(server, USER, folder, message('Mail %d' % number, '<%d@example.org>' % number))


def subjects(folder):
    """The subjects stored in a folder, sorted."""
    return sorted(one.subject for one in folder.messages(0, 10_000))
