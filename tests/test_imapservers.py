"""The IMAP servers of the demonstration and the tests do what mail synchronisation builds on."""

import os
import ssl
from collections import Counter
from contextlib import contextmanager
from datetime import datetime
from datetime import UTC

import imapclient
import pytest
from imapclient.exceptions import LoginError

from bench import dovecotconf
from bench import imapservers
from bench import processes
from bench.imapservers import best_server
from bench.imapservers import deliver
from bench.imapservers import DovecotServer
from bench.imapservers import PyPIServer
from bench.imapservers import ServerMissing
from bench.mailgen import messages


USERS = {'alice': 'wonder land', 'bob': 'half a crown'}

needs_dovecot = pytest.mark.skipif(
    imapservers.dovecot_program() is None and not os.environ.get('ZASYNC_NO_SKIPS'),
    reason='Dovecot is not installed (Debian: apt-get install dovecot-imapd)')


@pytest.fixture(scope='module', params=[pytest.param(DovecotServer, marks=needs_dovecot),
                                        PyPIServer])
def server(request):
    with request.param(USERS) as running:
        yield running


@pytest.fixture(scope='module')
def delivered(server):
    """100 messages for alice; -> the Mails."""
    mails = list(messages(seed=3, user='alice', count=100))
    for mail in mails:
        deliver(server, 'alice', *mail)
    return mails


@pytest.fixture
def alice(server, delivered):
    with connected(server, 'alice') as client:
        yield client


@contextmanager
def connected(server, user, password=None, tls=None):
    client = imapclient.IMAPClient(server.host, server.tls_port if tls else server.port,
                                   ssl=tls is not None, ssl_context=tls, timeout=20)
    try:
        client.login(user, password or USERS[user])
        yield client
    finally:
        client.shutdown()


def selectable(client):
    return sorted(name for flags, _separator, name in client.list_folders()
                  if b'\\Noselect' not in flags)


def test_every_user_can_log_in_and_has_an_inbox(server):
    for user in USERS:
        with connected(server, user) as client:
            assert 'INBOX' in selectable(client)


def test_wrong_password_is_refused(server):
    with pytest.raises(LoginError), connected(server, 'alice', password='not this one'):
        pass


def test_unknown_user_is_refused(server):
    with pytest.raises(LoginError), connected(server, 'mallory', password='secret'):
        pass


def test_folders_are_those_of_what_was_delivered(alice, delivered):
    assert selectable(alice) == sorted({mail.folder for mail in delivered})


def test_counts_agree_with_what_was_delivered(alice, delivered):
    counts = {name: alice.folder_status(name, ['MESSAGES'])[b'MESSAGES']
              for name in selectable(alice)}
    assert counts == Counter(mail.folder for mail in delivered)


def test_messages_come_back_as_they_were_delivered(alice, delivered):
    """Bytes, sizes, flags and internal dates, with UIDs in the order of delivery."""
    for folder in selectable(alice):
        alice.select_folder(folder, readonly=True)
        found = alice.fetch(alice.search(), ['BODY.PEEK[]', 'RFC822.SIZE', 'FLAGS',
                                             'INTERNALDATE'])
        wanted = [mail for mail in delivered if mail.folder == folder]
        assert len(found) == len(wanted)
        for uid, mail in zip(sorted(found), wanted, strict=True):
            answer = found[uid]
            assert answer[b'BODY[]'] == mail.message
            assert answer[b'RFC822.SIZE'] == len(mail.message)
            flags = {flag.decode('ascii') for flag in answer[b'FLAGS']} - {r'\Recent'}
            assert flags == set(mail.flags)
            assert answer[b'INTERNALDATE'].timestamp() == mail.date.timestamp()


def test_uidvalidity_and_uids_survive_a_restart_on_the_same_port(server):
    deliver(server, 'bob', 'INBOX', b'Subject: one\r\n\r\n')
    with connected(server, 'bob') as client:
        before = client.select_folder('INBOX'), client.search()
    port = server.port
    server.stop()
    assert not processes.accepts(server.host, port)
    server.start()
    with connected(server, 'bob') as client:
        after = client.select_folder('INBOX'), client.search()
    assert server.port == port
    assert before[1] == after[1]
    assert before[0][b'UIDVALIDITY'] == after[0][b'UIDVALIDITY']


def test_mail_that_arrives_later_gets_higher_uids(server):
    with connected(server, 'bob') as client:
        client.select_folder('INBOX', readonly=True)
        before = client.search()
        deliver(server, 'bob', 'INBOX', b'Subject: later\r\n\r\n', [r'\Seen'],
                datetime(2005, 1, 1, tzinfo=UTC))
        client.select_folder('INBOX', readonly=True)
        after = client.search()
    assert after[:-1] == before
    assert after[-1] > max(before, default=0)


def test_a_message_without_a_byte_can_be_delivered(server):
    deliver(server, 'bob', 'Empty', b'')
    with connected(server, 'bob') as client:
        assert client.folder_status('Empty', ['MESSAGES'])[b'MESSAGES'] == 1


def test_folders_a_maildir_cannot_hold_are_refused(server):
    for folder in ('Lists/zope.dev', 'Lists//x'):
        with pytest.raises(ValueError, match='Maildir'):
            deliver(server, 'bob', folder, b'')


def test_nothing_is_left_behind():
    with PyPIServer() as server:
        directory, pid = server.base_dir, server.process.pid
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_does_not_start_says_what_its_log_says(monkeypatch):
    with PyPIServer() as running:
        second = PyPIServer()
        second.port = running.port
        monkeypatch.setattr(imapservers, 'accepts', lambda host, port: False)
        with pytest.raises(processes.ProcessError, match='(?s)ended with code.*[Aa]ddress'):
            second.__enter__()


@needs_dovecot
def test_dovecot_with_tls_without_condstore_and_with_dots():
    with DovecotServer(USERS, tls=True, condstore=False, separator='.') as server:
        deliver(server, 'alice', 'Lists.zope-dev', b'Subject: x\n\nbare line feeds\n')
        context = ssl.create_default_context(cafile=server.ca_file)
        with connected(server, 'alice', tls=context) as client:
            assert 'Lists.zope-dev' in selectable(client)
            assert not {b'CONDSTORE', b'QRESYNC'} & set(client.capabilities())
            client.select_folder('Lists.zope-dev')
            size = client.fetch([1], ['RFC822.SIZE'])[1][b'RFC822.SIZE']
            assert size == len('Subject: x\r\n\r\nbare line feeds\r\n')


@needs_dovecot
def test_dovecot_offers_condstore():
    with DovecotServer(USERS) as server, connected(server, 'alice') as client:
        assert b'CONDSTORE' in client.capabilities()


@pytest.mark.parametrize(('wanted', 'kind'), [
    pytest.param('dovecot', DovecotServer, marks=needs_dovecot), ('pypi', PyPIServer)])
def test_the_environment_can_force_a_server(monkeypatch, wanted, kind):
    monkeypatch.setenv('ZASYNC_IMAP', wanted)
    assert type(best_server(USERS)) is kind


def test_an_unknown_server_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv('ZASYNC_IMAP', 'courier')
    with pytest.raises(ValueError, match='courier'):
        best_server(USERS)


def test_without_dovecot_the_one_from_pypi_is_taken(monkeypatch):
    monkeypatch.delenv('ZASYNC_IMAP', raising=False)
    monkeypatch.setattr(imapservers, 'dovecot_program', lambda: None)
    assert type(best_server(USERS)) is PyPIServer
    with pytest.raises(ServerMissing):
        DovecotServer(USERS)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be somebody without a name')
def test_who_has_no_name_gets_no_dovecot():
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgid(54321)
            os.setuid(54321)
            code = int(dovecotconf.server_user() is not None)
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_where_dovecot_can_not_run_the_one_from_pypi_is_taken(monkeypatch):
    monkeypatch.delenv('ZASYNC_IMAP', raising=False)
    monkeypatch.setattr(imapservers, 'server_user', lambda: None)
    assert type(best_server(USERS)) is PyPIServer


@pytest.mark.parametrize('version', [(2, 3), (2, 4)])
def test_the_configuration_speaks_the_language_of_the_version(version):
    class Fake:
        base_dir, port, tls_port, separator, condstore = '/tmp/x', 1143, 1993, '/', False

    Fake.version = version
    text = dovecotconf.dovecot_conf(Fake, 'nobody', 'nogroup')
    assert '@' not in text
    assert text.startswith('dovecot_config_version') == (version == (2, 4))
    assert ('mail_location' in text) == (version == (2, 3))
    assert ('ssl_server_cert_file' in text) == (version == (2, 4))


@pytest.mark.parametrize(('name', 'spelt'), [
    ('Sent', 'Sent'), ('Entwürfe', 'Entw&APw-rfe'), ('R & D', 'R &- D'), ('台北', '&U,BTFw-'),
])
def test_folder_names_in_modified_utf7(name, spelt):
    assert imapservers.modified_utf7(name) == spelt
