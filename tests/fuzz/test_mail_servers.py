"""A mail server that does one thing wrong: a sentence, no hang, and no mail is lost."""

import ssl
import time
from dataclasses import replace

import pytest
import transaction
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from bench.dovecotconf import make_certificate
from Products.CPSMailAccess import errors
from Products.CPSMailAccess import imap
from Products.CPSMailAccess import imaptrouble
from Products.CPSMailAccess import mailtool
from Products.CPSMailAccess.imap import ImapSession
from Products.CPSMailAccess.synchronizer import Synchronizer
from Products.CPSMailAccess.values import Account as Where
from Products.CPSMailAccess.values import FolderState
from Products.CPSMailAccess.values import TLS_STARTTLS
from tests.certificates import skip_without_openssl
from tests.fuzz import examples
from tests.fuzz.distortions import distort_by
from tests.fuzz.distortions import Distortion
from tests.fuzz.distortions import distortions
from tests.fuzz.mailserver import Account
from tests.fuzz.mailserver import Folder
from tests.fuzz.mailserver import MailServer
from tests.fuzz.mailserver import Message
from tests.fuzz.mailserver import Say
from tests.mail.fakes import FakeRun
from tests.mail.servers import PASSWORD
from tests.mail.servers import ScriptedServer
from tests.mail.servers import USER
from tests.zopeapp import Site


#: The limits of the client towards a server that does wrong. Seconds, bytes, folders.
READ_SECONDS, COMMAND_SECONDS, BYTES, FOLDERS = 0.25, 0.5, 400_000, 100

#: About so many bytes a whole conversation of these tests has.
LENGTH = 2500

#: A run that takes longer hangs: each limit may be met in a few commands.
SECONDS_MOST = 20


class Box:
    """A mailbox in a Zope, and the server whose account it follows."""

    def __init__(self, site, server, patch):
        self.site, self.server, self._patch = site, server, patch
        mailtool.addMailTool(site.app.manage_addProduct['CPSMailAccess'])
        self.box = mailtool.add_mail_box(site.app.portal_webmail, USER)
        self.browser = site.browser('admin')
        transaction.commit()

    def connect(self):
        hurried = self.server.distort is not None
        self._patch.setattr(imaptrouble, 'COMMAND_SECONDS', COMMAND_SECONDS if hurried else 30.0)
        return ImapSession(Where('127.0.0.1', self.server.port, login=USER, password=PASSWORD,
                                 connect_seconds=1 if hurried else 30,
                                 read_seconds=READ_SECONDS if hurried else 30))

    def synchronize(self, distort=None):
        """One full run against the server that does so; → the MailError, or None."""
        self.server.distort = distort
        begin = time.monotonic()
        run = Synchronizer(self.box, self.connect, FakeRun('call', transaction), time.time)
        try:
            assert run.synchronize(0) is True
        except errors.MailError as error:
            return error
        finally:
            assert time.monotonic() - begin < SECONDS_MOST
            transaction.commit()
            self.server.distort = None
        return None

    def stored(self):
        """{server name of a folder: {uid: (subject, flags)}} of the box."""
        return {folder.server_name: {
            uid: (folder.message(uid).subject, folder.message(uid).flags())
            for uid in folder.uids()} for folder in self.box.folders()
            if folder.selectable or folder.uids()}

    def on_server(self):
        """The same of the server."""
        return {name.decode(): {
            uid: (message.subject.decode(), frozenset(flag.decode() for flag in message.flags))
            for uid, message in folder.messages.items()}
            for name, folder in self.server.account.folders.items()}

    def start_even(self):
        """Have the box as the server is; an example may have failed, or told what is wrong."""
        if self.stored() != self.on_server():
            for folder in self.box.folders():
                folder.drop_all()
                folder.begin(FolderState(None))
            assert self.synchronize() is None
            self.check_even()

    def something_happens(self):
        """Mail comes and goes and is read, so that all is asked for; → the UID that goes."""
        inbox, modseq = self.server.account.folders[b'INBOX'].messages, \
            self.server.account.modseq + 1
        oldest, *_, gone = sorted(inbox)
        del inbox[gone]
        inbox[gone + 1] = Message(b'new %d' % (gone + 1), modseq=modseq)
        inbox[oldest].flags = () if inbox[oldest].flags else (b'\\Flagged',)
        inbox[oldest].modseq = modseq
        return gone

    def check_even(self, but_forged=False):
        """The box has what the server has; but_forged -- what was told of messages aside."""
        stored, there = self.stored(), self.on_server()
        if but_forged:
            stored, there = [{name: set(uids) for name, uids in each.items()}
                             for each in (stored, there)]
        assert stored == there

    def look(self):
        """All pages of the box work, and tell of the last run; → the status."""
        url = self.box.absolute_url(1)
        status = self.browser.get(f'/{url}/manage_syncStatus')
        assert status.status_code == 200
        folders = self.box.folders()
        pages = [(f'/{url}/manage_main', {'folder': folder.server_name})
                 for folder in (folders[0], folders[-1])]
        pages += [(f'/{message.absolute_url(1)}/manage_main', {})
                  for message in self.box.folder('INBOX').messages(0, 2)]
        for page in pages:
            answer = self.browser.get(*page)
            assert answer.status_code == 200, answer.text
        return status.json


@pytest.fixture(scope='module')
def box():
    account = Account(INBOX=Folder({1: Message(b'one'), 5: Message(b'five'),
                                    9: Message(b'nine', ())}),
                      Work=Folder({2: Message(b'two'), 3: Message(b'three')}, 8))
    # Two that are below a folder which is not listed.
    for name in (b'Shared/one', b'Shared/two'):
        account.folders[name] = Folder({1: Message(b'of ' + name)}, 10)
    account.folders[b'Work/Deep'] = Folder({4: Message(b'four', (b'\\Flagged',))}, 9)
    patch = pytest.MonkeyPatch()
    patch.setattr(imap, 'FOLDERS_MOST', FOLDERS)
    for name in ('LINE_BYTES', 'LITERAL_BYTES', 'ANSWER_BYTES'):
        patch.setattr(imaptrouble, name, BYTES)
    site = Site()
    with MailServer(account) as server:
        yield Box(site, server, patch)
    site.close()
    patch.undo()


def survived(box, *wrong):
    """A run against a server that does these things wrong, then one that does well."""
    box.start_even()
    before = box.stored()
    gone = box.something_happens()
    error = box.synchronize(distort_by(wrong))
    check_end(box, error)
    if all(each.answer == 'LOGOUT' for each in wrong):
        assert error is None  # its work was done
    if not any(each.may_lie for each in wrong):
        kept = box.stored()
        for name, messages in before.items():
            missing = set(messages) - set(kept.get(name, ())) - {gone}
            assert not missing, f'{missing} of {name} were deleted'
    error = box.synchronize()
    assert error is None, error
    box.check_even(any(each.may_forge for each in wrong))


def check_end(box, error):
    status = box.look()
    if error is None:
        assert status['state'] == 'done'
        return
    text = str(error)
    assert status['state'] == 'failed' and status['reason'] == text[:500]
    assert text.endswith(('.', '%')) or ': ' in text
    assert PASSWORD not in text and '\n' not in text and len(text) < 500


def put(answer, line, which=0):
    """That line before the answer."""
    return Distortion(answer, which, 'put', (0, line))


def number(answer, place, text):
    """Another number in the answer."""
    return Distortion(answer, 0, 'number', (place, text))


def headers_of(uid):
    """A message of that UID besides those that were asked for."""
    return put('HEADERS', b'* 9 FETCH (UID ' + uid + b' FLAGS () RFC822.SIZE 5)\r\n')


@given(wrong=st.lists(distortions(), min_size=1, max_size=3))
@example(wrong=[put('LIST', b'* LIST () "/" "%s"\r\n' % (b'a/' * 20_000 + b'b'))])
@example(wrong=[put('LIST', b'* LIST () "/" NIL\r\n')])
@example(wrong=[Distortion('LIST', 0, 'delimiter', b'NIL')])
@example(wrong=[number('SEARCH', 1, b''), put('SEARCH', b'* 77777 EXPUNGE\r\n' * 3)])
@example(wrong=[number('SEARCH', 1, b''), put('SEARCH', b'* 2 EXPUNGE\r\n')])
@example(wrong=[number('SEARCH', 2, b'9' * 40), headers_of(b'9' * 40)])
@example(wrong=[number('SEARCH', 2, b'4294967296'), headers_of(b'4294967296')])
@example(wrong=[number('SEARCH', 2, b'0'), headers_of(b'0')])
@example(wrong=[number('HEADERS', 2, b'9' * 400)])
@example(wrong=[put('EXAMINE', b'* OK [HIGHESTMODSEQ -5] ok\r\n')])
@example(wrong=[put('EXAMINE', b'* OK [UIDVALIDITY 0] ok\r\n', 1)])
@example(wrong=[put('FLAGS', b'* 1 FETCH (UID 1 FLAGS abc)\r\n')])
@example(wrong=[put('LOGOUT', b'* X' + b'y' * 500_000 + b'\r\n')])
@examples(30)
def test_the_mail_server_answers_nonsense(box, wrong):
    survived(box, *wrong)


def test_two_counts_that_contradict_each_other_delete_nothing(box):
    box.start_even()
    box.something_happens()
    before = box.stored()
    box.synchronize(distort_by([put('EXAMINE', b'* 0 EXISTS\r\n', number)
                                for number in range(9)]))
    assert {name: len(messages) for name, messages in box.stored().items()} == {
        name: len(messages) for name, messages in before.items()}


def test_folders_beyond_counting_are_refused_with_their_number(box):
    box.start_even()
    names = b''.join(b'* LIST () "/" "f%d"\r\n' % each for each in range(FOLDERS))
    before = box.stored()
    assert f' lists {FOLDERS + 5} folders; {FOLDERS} are the most' in str(
        box.synchronize(distort_by([put('LIST', names)])))
    assert box.stored() == before


@given(share=st.floats(0, 1))
@example(share=1.0)
@examples(12)
def test_a_connection_may_end_after_any_byte(box, share):
    box.start_even()
    before = box.stored()
    gone = box.something_happens()
    left = [round(share * LENGTH)]

    def distort(name, raw):
        part, left[0] = raw[:left[0]], max(0, left[0] - len(raw))
        return Say(part, close=len(part) < len(raw))

    error = box.synchronize(distort)
    check_end(box, error)
    assert error is None or isinstance(error, (errors.ConnectionLost, errors.ProtocolGarbage,
                                               errors.ConnectionRefused))
    for name, messages in before.items():
        assert not set(messages) - set(box.stored()[name]) - {gone}
    assert box.synchronize() is None
    box.check_even()


@given(wrong=distortions())
@examples(12)
def test_a_body_is_fetched_or_the_page_says_why_not(box, wrong):
    box.start_even()
    box.server.distort = distort_by([replace(wrong, answer='BODY', which=0)])
    message = box.box.folder('Work').messages(0, 1)[0]
    before = box.stored()
    try:
        with box.connect() as session:
            session.examine('Work')
            raw, whole = session.body(message.uid)
            assert type(raw) is bytes and type(whole) is bool and len(raw) <= BYTES
    except errors.MailError as error:
        assert str(error) and PASSWORD not in str(error)
    finally:
        box.server.distort = None
    assert box.stored() == before


def test_what_was_said_before_starttls_counts_no_more(tmp_path):
    certificate, key = tmp_path / 'cert.pem', tmp_path / 'key.pem'
    skip_without_openssl()
    make_certificate(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    asked = []

    def serve(connection):
        connection.sendall(b'* OK hello\r\n')
        plain = connection.makefile('rb')
        while True:
            tag, _, command = plain.readline().strip().partition(b' ')
            if command == b'STARTTLS':
                break
            connection.sendall(b'* CAPABILITY IMAP4rev1 STARTTLS\r\n' + tag + b' OK done\r\n')
        # In one piece: what follows is there before the handshake begins.
        following = b'%s%d' % (tag[:4], int(tag[4:]) + 1)
        connection.sendall(tag + b' OK begin\r\n* CAPABILITY IMAP4rev1 AUTH=EVIL\r\n'
                           + following + b' OK done\r\n')
        with context.wrap_socket(connection, server_side=True) as secret:
            for line in secret.makefile('rb'):
                tag, _, command = line.strip().partition(b' ')
                asked.append(command.split(b' ')[0])
                told = {b'CAPABILITY': b'* CAPABILITY IMAP4rev1\r\n',
                        b'LIST': b'* LIST () "/" "INBOX"\r\n'}.get(command.split(b' ')[0], b'')
                secret.sendall(told + tag + b' OK done\r\n')

    with ScriptedServer(greeting=serve) as server:
        where = Where('127.0.0.1', server.port, TLS_STARTTLS, USER, PASSWORD, str(certificate))
        with ImapSession(where) as session:
            assert [folder.server_name for folder in session.folders()] == ['INBOX']
            assert not session._client.has_capability('AUTH=EVIL')
    assert asked[0] == b'CAPABILITY' and asked.count(b'LOGIN') == 1
