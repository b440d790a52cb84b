"""imap: every trouble becomes one of `errors`, in time and without secrets."""

import base64
import contextlib
import logging
import socket
import time
import traceback

import pytest

from Products.CPSMailAccess import errors
from Products.CPSMailAccess import imap
from Products.CPSMailAccess import imaptrouble
from Products.CPSMailAccess.imap import ImapSession
from Products.CPSMailAccess.imapanswers import uid_set
from Products.CPSMailAccess.imapanswers import uid_sets
from Products.CPSMailAccess.values import Account
from Products.CPSMailAccess.values import FolderState
from Products.CPSMailAccess.values import TLS_IMAPS
from Products.CPSMailAccess.values import TLS_NONE
from Products.CPSMailAccess.values import TLS_STARTTLS

from .conftest import message
from .conftest import needs_dovecot
from .servers import DovecotServer
from .servers import drip
from .servers import free_port
from .servers import PASSWORD
from .servers import Proxy
from .servers import ScriptedServer
from .servers import USER


LISTED = (rb'LIST', b'* LIST () "/" INBOX\r\n%(tag)s OK done\r\n')
EXAMINED = (rb'EXAMINE', (
    b'* FLAGS ()\r\n* 3 EXISTS\r\n* 0 RECENT\r\n'
    b'* OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT 10] ok\r\n%(tag)s OK done\r\n'))
STATE = FolderState(7, 10, 3)


def account(port, **more):
    values = {'login': USER, 'password': PASSWORD, 'connect_seconds': 5, 'read_seconds': 5,
              **more}
    return Account('127.0.0.1', port, **values)


def session(port, **more):
    return ImapSession(account(port, **more))


def test_refused_connection():
    with pytest.raises(errors.ConnectionRefused, match='refuses connections'):
        session(free_port()).__enter__()


def test_server_to_which_no_way_leads_is_not_said_to_have_been_lost():
    # No kernel makes a connection to all hosts.
    with pytest.raises(errors.ConnectionRefused, match='can not be reached: Network is unreach'):
        ImapSession(Account('255.255.255.255', login='a')).__enter__()


def test_unknown_host():
    with pytest.raises(errors.ServerNotFound):
        ImapSession(Account('no-such-host.invalid', login='a')).__enter__()


@pytest.mark.parametrize('number, sentence', [
    (socket.EAI_NONAME, 'There is no host named imap.example.org'),
    (socket.EAI_AGAIN, 'The address of the host imap.example.org could not be looked up: words')])
def test_host_is_unknown_only_when_a_name_server_says_so(number, sentence, monkeypatch):
    def fail(host, port):
        raise socket.gaierror(number, 'words')

    monkeypatch.setattr(imaptrouble, 'addresses', fail)
    with pytest.raises(errors.ServerNotFound, match=sentence):
        ImapSession(Account('imap.example.org', login='a')).__enter__()


def test_server_that_accepts_and_says_nothing_is_given_up_in_time():
    with ScriptedServer(greeting=None) as server:
        begin = time.monotonic()
        with pytest.raises(errors.TimedOut, match=r'within 0\.5 seconds'):
            session(server.port, connect_seconds=0.5).__enter__()
        assert time.monotonic() - begin < 5


def test_server_that_hangs_later_is_given_up_in_time():
    with ScriptedServer([(rb'LIST', b'* LIST () "/" INBOX\r\n')]) as server:
        begin = time.monotonic()
        with pytest.raises(errors.TimedOut, match=r'within 0\.5 seconds \(to list the folders'), \
                session(server.port, read_seconds=0.5) as opened:
            opened.folders()
        # Nor does the goodbye wait for an answer.
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize('action', ['greeting', 'TLS'])
def test_connecting_is_bounded_as_a_whole(action):
    # Each byte comes in time, the last one never.
    greeting = drip() if action == 'greeting' else None
    with ScriptedServer(greeting=greeting) as server:
        begin = time.monotonic()
        with pytest.raises(errors.TimedOut, match=r'within 0\.5 seconds'):
            session(server.port, connect_seconds=0.5,
                    ssl=TLS_IMAPS if action == 'TLS' else 0).__enter__()
        assert time.monotonic() - begin < 3


@contextlib.contextmanager
def silent_address():
    """An address where nobody answers, as behind a firewall: its queue is full."""
    with socket.create_server(('127.0.0.1', 0), backlog=0) as listener, \
            socket.create_connection(listener.getsockname()):
        yield listener.getsockname()


def test_address_that_can_not_be_reached_keeps_nobody_from_the_next(monkeypatch):
    with silent_address() as silent, ScriptedServer([LISTED]) as server:
        # No kernel has the first one's family, as some have no IPv6.
        places = [(250, silent), (socket.AF_INET, silent), (socket.AF_INET, silent),
                  (socket.AF_INET, ('127.0.0.1', server.port))]
        monkeypatch.setattr(imaptrouble, 'addresses', lambda host, port: [
            (family, socket.SOCK_STREAM, 0, '', place) for family, place in places])
        with session(server.port, connect_seconds=1.5) as opened:
            assert len(opened.folders()) == 1
        places[:] = places[1:3]
        begin = time.monotonic()
        with pytest.raises(errors.TimedOut, match=r'did not answer within 0\.5 seconds'):
            session(server.port, connect_seconds=0.5).__enter__()
        assert time.monotonic() - begin < 1.5


@pytest.mark.parametrize('beginning, drop', [
    (b'', b'x'), (b'* LIST () "/" {1000}\r\n', b'x'), (b'', b'* LIST () "/" INBOX\r\n')],
    ids=['line', 'literal', 'lines'])
def test_answer_that_drips_is_given_up_in_time(beginning, drop, monkeypatch):
    monkeypatch.setattr(imaptrouble, 'COMMAND_SECONDS', 0.5)
    with ScriptedServer([(rb'LIST', drip(beginning, drop))]) as server:
        begin = time.monotonic()
        with pytest.raises(errors.TimedOut, match=r'did not end its answer within 0\.5'), \
                session(server.port) as opened:
            opened.folders()
        assert time.monotonic() - begin < 3


def test_server_that_asks_for_the_password_without_end_is_given_up_in_time(monkeypatch):
    # Each time it is told more, so it is never waited for.
    monkeypatch.setattr(imaptrouble, 'COMMAND_SECONDS', 0.5)
    with ScriptedServer([(rb'AUTHENTICATE', drip(drop=b'+ \r\n'))]) as server:
        begin = time.monotonic()
        with pytest.raises(errors.TimedOut, match=r'did not end its answer within 0\.5'):
            session(server.port).__enter__()
        assert time.monotonic() - begin < 3


def test_every_command_has_its_own_time(monkeypatch):
    monkeypatch.setattr(imaptrouble, 'COMMAND_SECONDS', 0.6)

    def slow(connection):
        time.sleep(0.25)
        connection.sendall(LISTED[1].replace(b'%(tag)s', server.tag))

    with ScriptedServer([(rb'LIST', slow)]) as server, session(server.port) as opened:
        for _ in range(4):
            assert len(opened.folders()) == 1


@pytest.mark.parametrize('limit, drop', [
    ('LINE_BYTES', b'x' * 1000), ('ANSWER_BYTES', b'* LIST () "/" INBOX\r\n' * 50)])
def test_answer_without_end_is_given_up_before_it_fills_the_memory(limit, drop, monkeypatch):
    monkeypatch.setattr(imaptrouble, limit, 100_000)
    with ScriptedServer([(rb'LIST', drip(b'', drop, 0))]) as server, \
            pytest.raises(errors.ProtocolGarbage, match='too long'), \
            session(server.port) as opened:
        opened.folders()


@pytest.mark.parametrize('greeting, error', [
    (b'HTTP/1.1 400 Bad Request\r\n\r\n', errors.ProtocolGarbage),
    (b'* BYE too many connections\r\n', errors.ConnectionRefused),
    (b'\x00\xff\x00\r\n', errors.ProtocolGarbage),
])
def test_greetings_that_are_none(greeting, error):
    with ScriptedServer(greeting=greeting) as server, pytest.raises(error):
        session(server.port).__enter__()


@pytest.mark.parametrize('greeting, answer, sentence', [
    (b'* BYE too many', b'', r'refused to connect: \* BYE too many'),
    (b'* OK hello', b'%(tag)s NO it\'s [busy]', r"refused to list the messages: NO it's \[busy\]"),
    (b'* OK hello', b'%(tag)s BAD "what"?', r'refused to list the messages: .*: BAD "what"\?'),
])
def test_what_a_server_says_is_told_as_it_says_it(greeting, answer, sentence):
    server = ScriptedServer([EXAMINED, (rb'UID SEARCH', answer + b'\r\n')], greeting + b'\r\n')
    with server, pytest.raises(errors.MailError, match=sentence + '$'), \
            session(server.port) as opened:
        opened.list_messages(opened.examine('INBOX'))


@pytest.mark.parametrize('answer, error', [
    (b'garbage\r\n', errors.ProtocolGarbage),
    (b'* LIST (((\r\n%(tag)s OK done\r\n', errors.ProtocolGarbage),
    (b'* LIST () "/"\r\n%(tag)s OK done\r\n', errors.ProtocolGarbage),
    (b'%(tag)s NO not now\r\n', errors.CommandRefused),
    (b'%(tag)s BAD what\r\n', errors.CommandRefused),
    (b'* BYE going down\r\n', errors.ConnectionLost),
    (None, errors.ConnectionLost),
    (b'* LIST () "/" {3}\r\n', errors.TimedOut),
    # Python would set that much memory aside at once.
    (b'* LIST () "/" {99999999999}\r\n', errors.ProtocolGarbage),
    (b'* LIST ' + b'(' * 100_000 + b'\r\n%(tag)s OK done\r\n', errors.ProtocolGarbage),
])
def test_answers_to_list(answer, error):
    with ScriptedServer([(rb'LIST', answer)]) as server, \
            pytest.raises(error), session(server.port, read_seconds=1) as opened:
        opened.folders()


@pytest.mark.parametrize('line, name, path, parents', [
    (b'() "/" "A/B"', 'A/B', ('A', 'B'), ('A',)),
    (b'() "." "INBOX.Sent"', 'INBOX.Sent', ('INBOX', 'Sent'), ('INBOX',)),
    (b'() "." inbox', 'INBOX', ('INBOX',), ()),
    (b'() NIL "A/B"', 'A/B', ('A/B',), ()),
    (b'() "\\\\" "A\\\\B"', 'A\\B', ('A', 'B'), ('A',)),
    (b'() "/" 2005', '2005', ('2005',), ()),
    (b'() "/" NIL', 'NIL', ('NIL',), ()),
    (b'() "/" a[b', 'a[b', ('a[b',), ()),
    (b'() "/" [a]/b', '[a]/b', ('[a]', 'b'), ('[a]',)),
    (b'() "/" "[a] b[c"', '[a] b[c', ('[a] b[c',), ()),
    (b'() "/" "&AOk-t&AOk-"', '&AOk-t&AOk-', ('\xe9t\xe9',), ()),
    (b'() "/" "broken &"', 'broken &', ('broken &',), ()),
    (b'() "/" "/odd//"', '/odd//', ('/odd//',), ()),
    (b'() "/" {5}\r\na "b"', 'a "b"', ('a "b"',), ()),
])
def test_folder_names(line, name, path, parents):
    with ScriptedServer([(rb'LIST', b'* LIST ' + line + b'\r\n%(tag)s OK done\r\n')]) as server, \
            session(server.port) as opened:
        folder, = opened.folders()
    assert (folder.server_name, folder.path, folder.parents) == (name, path, parents)


@pytest.mark.parametrize('flags', [(b'\\HasNoChildren', b'\\Noselect'),
                                   (b'\\Noselect', b'\\HasNoChildren')])
def test_folder_listed_twice_can_be_opened_if_one_answer_says_so(flags):
    answer = b''.join(b'* LIST (' + flag + b') "/" Work\r\n' for flag in flags)
    with ScriptedServer([(rb'LIST', answer + b'%(tag)s OK done\r\n')]) as server, \
            session(server.port) as opened:
        folder, = opened.folders()
    assert folder.server_name == 'Work' and folder.selectable


def test_folder_name_with_a_line_break_is_left_out():
    answer = b'* LIST () "/" {9}\r\na\r\nLOGOUT\r\n' + LISTED[1]
    with ScriptedServer([(rb'LIST', answer)]) as server, session(server.port) as opened:
        assert [folder.server_name for folder in opened.folders()] == ['INBOX']


def test_folder_that_can_not_be_opened_is_its_own_error():
    with ScriptedServer([(rb'EXAMINE', b'%(tag)s NO no rights\r\n')]) as server, \
            pytest.raises(errors.FolderUnreadable, match='no rights'), \
            session(server.port) as opened:
        opened.examine('Secret')


@pytest.mark.parametrize('refusal, error', [
    (b'NO [NONEXISTENT] gone', errors.FolderGone), (b'NO [nonexistent] gone', errors.FolderGone),
    # Dovecot 2.3.
    (b"NO Mailbox doesn't exist: Work (0.001 + 0.000 secs).", errors.FolderGone),
    (b"NO [SERVERBUG] Mailbox doesn't exist: not now", errors.FolderUnreadable),
    (b"BAD Mailbox doesn't exist: what", errors.FolderUnreadable),
    (b'NO [UNAVAILABLE] later', errors.FolderUnreadable)])
def test_only_a_folder_that_the_server_says_is_none_is_gone(refusal, error):
    script = [(rb'EXAMINE', b'%(tag)s ' + refusal + b'\r\n')]
    with ScriptedServer(script) as server, pytest.raises(errors.FolderUnreadable) as caught, \
            session(server.port) as opened:
        opened.examine('Work')
    assert type(caught.value) is error


def test_folder_opened_without_uidvalidity_is_left_alone():
    # Taken for another UIDVALIDITY it would be emptied and fetched anew.
    with ScriptedServer([(rb'EXAMINE', b'* 3 EXISTS\r\n%(tag)s OK done\r\n')]) as server, \
            pytest.raises(errors.FolderUnreadable, match='UIDVALIDITY'), \
            session(server.port) as opened:
        opened.examine('INBOX')


@pytest.mark.parametrize('answer', [
    b'* FLAGS ()\r\n* OK [UIDVALIDITY 7] ok\r\n%(tag)s OK done\r\n', b'%(tag)s OK done\r\n'])
def test_folder_opened_without_a_count_is_garbage_and_no_empty_folder(answer):
    with ScriptedServer([(rb'EXAMINE', answer)]) as server, \
            pytest.raises(errors.ProtocolGarbage), session(server.port) as opened:
        opened.examine('INBOX')


def listing(search):
    with ScriptedServer([EXAMINED, (rb'UID SEARCH', search)]) as server, \
            session(server.port) as opened:
        return opened.list_messages(opened.examine('INBOX'))


def test_complete_listing():
    found = listing(b'* SEARCH 1 5 9\r\n%(tag)s OK done\r\n')
    assert found.uids == {1, 5, 9} and found.complete


@pytest.mark.parametrize('search', [
    b'%(tag)s OK done\r\n', b'* SEARCH\r\n%(tag)s OK done\r\n',
    b'* SEARCH 1 5\r\n%(tag)s OK done\r\n'])
def test_listing_with_less_than_announced_is_incomplete(search):
    assert not listing(search).complete


def test_listing_short_by_what_was_expunged_meanwhile_is_complete():
    assert listing(b'* SEARCH 1 5\r\n* 3 EXPUNGE\r\n%(tag)s OK done\r\n').complete


def test_listing_without_one_of_those_announced_meanwhile_is_incomplete():
    assert not listing(b'* 4 EXISTS\r\n* SEARCH 1 5 9\r\n%(tag)s OK done\r\n').complete
    assert listing(b'* 4 EXISTS\r\n* SEARCH 1 5 9 10\r\n%(tag)s OK done\r\n').complete


@pytest.mark.parametrize('search', [
    b'* SEARCH 1 5\r\n* SEARCH 9\r\n', b'* SEARCH 1 5 (MODSEQ 7)\r\n* SEARCH 9 (MODSEQ 8)\r\n',
    b'* SEARCH 1 5 9\r\n* SEARCH\r\n'])
def test_listing_in_several_lines(search):
    found = listing(search + b'%(tag)s OK done\r\n')
    assert found.uids == {1, 5, 9} and found.complete


def test_listing_of_a_very_large_folder():
    # Python's imaplib gives up at lines of 1,000,000 bytes.
    uids = range(1_000_000, 1_200_000)
    found = listing(b'* 200000 EXISTS\r\n* SEARCH %s\r\n%%(tag)s OK done\r\n'
                    % b' '.join(b'%d' % uid for uid in uids))
    assert found.uids == set(uids) and found.complete


@pytest.mark.parametrize('search, error', [
    (b'%(tag)s NO server busy\r\n', errors.FolderUnreadable), (None, errors.ConnectionLost),
    (b'* SEARCH one two\r\n%(tag)s OK done\r\n', errors.ProtocolGarbage)])
def test_failed_search_is_an_error_and_no_empty_folder(search, error):
    # Historic defect D.9 no. 5.
    with pytest.raises(error):
        listing(search)


def test_refusal_to_tell_the_flags_is_about_one_folder():
    with ScriptedServer([EXAMINED, (rb'UID FETCH', b'%(tag)s NO no flags\r\n')]) as server, \
            session(server.port) as opened:
        opened.examine('INBOX')
        with pytest.raises(errors.FolderUnreadable, match='refused to read the flags'):
            opened.flags([1])


def item(sequence, uid, size=10, more=b''):
    return (b'* %d FETCH (UID %d FLAGS (\\Seen) RFC822.SIZE %d INTERNALDATE '
            b'"11-Jul-2005 14:05:00 +0200" BODY[HEADER.FIELDS (SUBJECT)] {14}\r\n'
            b'Subject: %03d\r\n%s)\r\n' % (sequence, uid, size, uid, more))


def fetched(answer, uids=(1, 5, 9)):
    with ScriptedServer([EXAMINED, (rb'UID FETCH', answer)]) as server, \
            session(server.port) as opened:
        opened.examine('INBOX')
        return opened.headers(uids)


def test_answers_are_matched_by_uid_whatever_their_order():
    # Historic defect D.9 no. 9.
    found = fetched(item(3, 9) + item(1, 1) + item(2, 5) + b'%(tag)s OK done\r\n')
    assert {uid: one.envelope.subject for uid, one in found.items()} == {
        1: '001', 5: '005', 9: '009'}


def test_missing_uids_are_missing():
    assert set(fetched(item(2, 5) + b'%(tag)s OK done\r\n')) == {5}


def test_unsolicited_answers_are_not_taken_for_messages():
    # A sequence number that is also a UID must not lend its flags.
    found = fetched(b'* 5 FETCH (FLAGS (\\Deleted))\r\n* 9 FETCH (UID 77 FLAGS ())\r\n'
                    b'* 1 FETCH (UID 1 FLAGS (\\Draft))\r\n' + item(2, 5) + b'%(tag)s OK done\r\n')
    assert set(found) == {5} and found[5].flags == {'\\Seen'}


@pytest.mark.parametrize('name', [
    b'BODY[HEADER.FIELDS (DATE SUBJECT)]<0>', b'BODY[HEADER.FIELDS  ( "DATE" SUBJECT )]',
    b'body[header.fields (date)]'])
def test_servers_write_the_header_item_in_their_own_way(name):
    answer = item(1, 1).replace(b'BODY[HEADER.FIELDS (SUBJECT)]', name) + b'%(tag)s OK done\r\n'
    assert fetched(answer)[1].envelope.subject == '001'


@pytest.mark.parametrize('value', [b'NIL', b'""', b'"Subject: quoted"', b'{0}\r\n', b'123'])
def test_odd_header_values_do_no_harm(value):
    answer = (b'* 1 FETCH (UID 1 FLAGS () RFC822.SIZE 0 INTERNALDATE "nonsense" '
              b'BODY[HEADER.FIELDS (SUBJECT)] ' + value + b')\r\n%(tag)s OK done\r\n')
    found = fetched(answer)
    assert found[1].size == 0 and found[1].internal_at is None


def test_sets_are_explicit_and_bounded():
    with ScriptedServer([EXAMINED, (rb'UID FETCH', b'%(tag)s OK done\r\n')]) as server, \
            session(server.port) as opened:
        opened.examine('INBOX')
        opened.flags(range(1, 1000, 2))
        commands = [one for one in server.commands if one.startswith(b'UID FETCH')]
    assert len(commands) == 3 and not any(b'*' in one for one in commands)


def test_changed_flags_of_a_large_folder_are_asked_for_at_once():
    with ScriptedServer([EXAMINED, (rb'UID FETCH', b'%(tag)s OK done\r\n')]) as server, \
            session(server.port) as opened:
        opened.examine('INBOX')
        assert opened.flags(range(1, 20_001), since=7) == {}
        commands = [one for one in server.commands if one.startswith(b'UID FETCH')]
    assert commands == [b'UID FETCH 1:20000 (UID FLAGS) (CHANGEDSINCE 7)']


def test_sets_are_as_long_as_lines_may_be():
    uids = range(4_000_000_000, 4_000_002_000, 2)
    sets = uid_sets(uids)
    assert len(sets) == 3 and max(map(len, sets)) < 8000
    assert [int(uid) for text in sets for uid in text.split(',')] == list(uids)


@pytest.mark.parametrize('uids, text', [
    ([1], '1'), ([3, 1, 2], '1:3'), ([1, 2, 3, 7, 9, 10], '1:3,7,9:10'),
    ([4294967295], '4294967295')])
def test_uid_sets(uids, text):
    assert uid_set(uids) == text


@pytest.mark.parametrize('field', ['host', 'login', 'password'])
def test_line_breaks_in_an_account_never_reach_the_wire(field):
    values = {'host': '127.0.0.1', 'login': 'a', 'password': 'b'}
    values[field] += '\r\nA1 LOGOUT'
    with pytest.raises(errors.BadSettings):
        ImapSession(Account(port=free_port(), **values)).__enter__()


def test_password_is_in_no_repr_error_or_traceback():
    secret = 'very-s3cret'
    script = [(rb'LIST', b'%(tag)s NO you said very-s3cret\r\n')]
    with ScriptedServer(script) as server:
        opened = session(server.port, password=secret)
        assert secret not in repr(opened.account)
        with pytest.raises(errors.CommandRefused) as caught, opened:
            opened.folders()
    assert secret not in str(caught.value)
    assert secret not in ''.join(traceback.format_exception(caught.value))


@pytest.mark.parametrize('capability', [b'AUTH=PLAIN', b'X'])
def test_password_is_in_no_log(caplog, capability):
    caplog.set_level(logging.DEBUG)
    secret = 'very-s3cret'
    server = ScriptedServer([(rb'LOGIN', b'%(tag)s NO no\r\n')])
    server.script = [(rb'CAPABILITY', b'* CAPABILITY IMAP4rev1 %s\r\n%%(tag)s OK done\r\n'
                      % capability), *server.script]
    with server, contextlib.suppress(errors.LoginRefused), session(server.port, password=secret):
        pass
    assert secret not in caplog.text
    assert base64.b64encode(b'\0alice\0very-s3cret').decode() not in caplog.text


@pytest.mark.parametrize('ssl', [TLS_NONE, TLS_STARTTLS])
def test_server_that_lets_in_whoever_connects_is_not_taken_for_one_that_refuses_a_password(ssl):
    script = [(rb'CAPABILITY', b'* CAPABILITY IMAP4rev1 STARTTLS\r\n%(tag)s OK done\r\n')]
    server = ScriptedServer(greeting=b'* PREAUTH hello root\r\n')
    server.script = script + server.script
    with server, pytest.raises(errors.LoginRefused, match='takes no login'):
        session(server.port, ssl=ssl).__enter__()
    # No mail of whoever that is is taken for alice's, and nothing is told in the clear.
    assert server.commands == [b'CAPABILITY']


@needs_dovecot
def test_server_that_takes_no_password_is_not_said_to_want_encryption_that_there_is(tls_dovecot):
    config = tls_dovecot.base_dir / 'dovecot.conf'
    before = config.read_text('utf-8')
    config.write_text(before.replace('auth_mechanisms = plain login',
                                     'auth_mechanisms = cram-md5'), 'utf-8')
    tls_dovecot.stop(), tls_dovecot.start()
    try:
        with pytest.raises(errors.LoginRefused, match='takes no login by password'):
            ImapSession(Account('localhost', tls_dovecot.tls_port, TLS_IMAPS, USER, PASSWORD,
                                tls_dovecot.ca_file)).__enter__()
    finally:
        config.write_text(before, 'utf-8')
        tls_dovecot.stop(), tls_dovecot.start()


def test_login_without_encryption_refused_by_the_server():
    script = [(rb'CAPABILITY', b'* CAPABILITY IMAP4rev1 LOGINDISABLED\r\n%(tag)s OK done\r\n')]
    server = ScriptedServer()
    server.script = script + server.script
    with server, pytest.raises(errors.LoginRefused, match='without encryption'):
        session(server.port).__enter__()


@pytest.mark.parametrize('answer, error', [
    (b'%(tag)s NO [AUTHENTICATIONFAILED] no\r\n', errors.LoginRefused),
    (b'%(tag)s NO Say [LIMIT] and no password\r\n', errors.LoginRefused),
    (b'%(tag)s NO [UNAVAILABLE] later\r\n', errors.CommandRefused),
    (b'* BYE bye\r\n', errors.ConnectionLost), (None, errors.ConnectionLost)])
def test_answers_to_a_login(answer, error):
    server = ScriptedServer([(rb'LOGIN', answer)])
    server.script = [(rb'CAPABILITY', b'* CAPABILITY IMAP4rev1\r\n%(tag)s OK done\r\n'),
                     *server.script]
    with server, pytest.raises(error):
        session(server.port).__enter__()


@pytest.mark.parametrize('capability, command', [(b'AUTH=PLAIN', rb'AUTHENTICATE'),
                                                 (b'X', rb'LOGIN')])
@pytest.mark.parametrize('code, sentence', [
    (b'[AUTHENTICATIONFAILED]', 'does not accept the login alice with this password'),
    (b'[CONTACTADMIN]', 'does not let alice in, and says that its administrator'),
    (b'[AuthorizationFailed]', 'does not let alice in, though it accepts the password'),
    (b'[EXPIRED]', 'does not let alice in: the password has expired'),
    (b'[PRIVACYREQUIRED]', 'does not let alice in without encryption'),
    (b'[SERVERBUG]', 'can not let alice in for now'), (b'[LIMIT]', 'can not let alice in for now'),
    (b"It's no use", 'does not accept the login alice with this password')])
def test_refused_login_is_told_by_its_response_code(capability, command, code, sentence):
    server = ScriptedServer([(command, b'%(tag)s NO ' + code + b' no\r\n')])
    server.script = [(rb'CAPABILITY', b'* CAPABILITY IMAP4rev1 %s\r\n%%(tag)s OK done\r\n'
                      % capability), *server.script]
    with server, pytest.raises(errors.MailError, match=sentence):
        session(server.port).__enter__()


@needs_dovecot
def test_user_whose_login_is_disabled_is_not_told_of_a_wrong_password():
    with DovecotServer() as server:
        users = server.base_dir / 'users'
        users.write_text('%s:{PLAIN}%s::::::nologin=y\n' % (USER, PASSWORD), 'utf-8')
        server.own(users)
        with pytest.raises(errors.LoginRefused, match='administrator is to be asked'):
            session(server.port).__enter__()


def test_login_command_quotes_both_arguments():
    server = ScriptedServer([(rb'LOGIN', b'%(tag)s OK done\r\n')])
    server.script = [(rb'CAPABILITY', b'* CAPABILITY IMAP4rev1\r\n%(tag)s OK done\r\n'),
                     *server.script]
    with server, session(server.port, login='a "b', password='c\\d'):
        pass
    assert rb'LOGIN "a \"b" "c\\d"' in server.commands


def test_starttls_that_is_not_offered():
    with ScriptedServer() as server, pytest.raises(errors.TlsFailed, match='STARTTLS'):
        session(server.port, ssl=TLS_STARTTLS).__enter__()


def test_tls_spoken_to_a_plain_server():
    with ScriptedServer() as server, pytest.raises(errors.TlsFailed):
        session(server.port, ssl=TLS_IMAPS).__enter__()


@pytest.fixture(scope='module')
def tls_dovecot():
    with DovecotServer(tls=True) as server:
        yield server


@needs_dovecot
@pytest.mark.parametrize('ssl', [TLS_IMAPS, TLS_STARTTLS])
def test_certificate_is_verified(tls_dovecot, ssl):
    port = tls_dovecot.tls_port if ssl == TLS_IMAPS else tls_dovecot.port
    with pytest.raises(errors.TlsFailed, match='not trusted'):
        session(port, ssl=ssl).__enter__()
    with session(port, ssl=ssl, ca_file=tls_dovecot.ca_file) as opened:
        assert [folder.server_name for folder in opened.folders()] == ['INBOX']


@needs_dovecot
@pytest.mark.parametrize('ssl', [TLS_IMAPS, TLS_STARTTLS])
def test_certificate_of_another_name_is_refused(tls_dovecot, ssl):
    # 127.0.0.2 is this machine as well, and not in the certificate.
    port = tls_dovecot.tls_port if ssl == TLS_IMAPS else tls_dovecot.port
    with Proxy(port, host='127.0.0.2') as proxy:
        other = Account('127.0.0.2', proxy.port, ssl, USER, PASSWORD, tls_dovecot.ca_file)
        with pytest.raises(errors.TlsFailed, match='not trusted'):
            ImapSession(other).__enter__()


@pytest.mark.parametrize('host', ['a..b', 'x' * 64 + '.example.org'])
def test_host_that_is_no_name(host):
    with pytest.raises(errors.ServerNotFound):
        ImapSession(Account(host, login='a')).__enter__()


def test_file_of_certificates_that_is_not_there():
    with pytest.raises(errors.TlsFailed, match='nowhere'):
        session(1, ssl=TLS_IMAPS, ca_file='/nowhere/ca.pem').__enter__()


def test_wrong_password(server):
    with pytest.raises(errors.LoginRefused, match='does not accept the login alice'):
        session(server.port, password='wrong').__enter__()


def test_body_beyond_the_limit_is_cut_and_said_to_be(server, monkeypatch):
    with server.client() as client:
        client.append('INBOX', message(body='x' * 5000))
    with session(server.port) as opened:
        opened.examine('INBOX')
        uid, = opened.list_messages(opened.examine('INBOX')).uids
        raw, whole = opened.body(uid)
        assert len(raw) > 5000 and whole
        monkeypatch.setattr(imap, 'BODY_BYTES', 1000)
        raw, whole = opened.body(uid)
        assert len(raw) == 1000 and not whole
