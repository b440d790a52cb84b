"""The only module that speaks IMAP (RFC 3501, CONDSTORE of RFC 7162), through IMAPClient.

An `ImapSession` is one logged-in connection, used by one thread and closed at the end. It
reads: mailboxes are opened with EXAMINE and bodies fetched with PEEK, so nothing changes on
the server. Every failure leaves it as one of `errors`, with a sentence for people.

Message sets are always explicit UIDs. Answers to FETCH are matched by the UID inside them:
a server may send them in any order, leave some out, or put in FETCH answers of its own.

Imports: imapclient, values, headers, errors.
"""

import contextlib
import logging
import ssl

from imapclient import IMAPClient
from imapclient.exceptions import CapabilityError
from imapclient.exceptions import IMAPClientError
from imapclient.exceptions import LoginError
from imapclient.exceptions import ProtocolError
from imapclient.response_parser import parse_message_list

from . import errors
from .headers import FIELDS
from .imapanswers import agreed
from .imapanswers import by_uid
from .imapanswers import flags_in
from .imapanswers import MODSEQ_MOST
from .imapanswers import number
from .imapanswers import NUMBER_MOST
from .imapanswers import quoted
from .imapanswers import remote_folder
from .imapanswers import remote_message
from .imapanswers import section
from .imapanswers import tells_of_no_folder
from .imapanswers import uid_set
from .imapanswers import uid_sets
from .imapanswers import within
from .imaptrouble import Trouble
from .imaptrouble import Wire
from .syncplan import is_complete
from .syncplan import split
from .values import FolderState
from .values import Snapshot
from .values import TLS_IMAPS
from .values import TLS_NONE
from .values import TLS_STARTTLS


#: The server is told the password here, and may say it again: see zasync_client.tracebacks.
__hide_values__ = True

logger = logging.getLogger('CPSMailAccess.imap')

#: At most so many header bytes of a message cross the wire. A normal header's shown fields
#: have one or two kB; less than this would cut long lists of recipients.
HEADER_BYTES = 16384

#: At most so many bytes of a body are fetched and stored; the page says when there was more.
BODY_BYTES = 10_000_000

#: Most folders that are followed. Each takes a command or two in every full run.
FOLDERS_MOST = 10_000

_HEADER_ITEM = 'BODY.PEEK[HEADER.FIELDS (%s)]<0.%d>' % (' '.join(FIELDS), HEADER_BYTES)


class _Client(IMAPClient):
    """IMAPClient over a Wire."""

    def __init__(self, trouble, context):
        account = trouble.account
        self._wire_arguments = trouble, context if account.ssl == TLS_IMAPS else None
        super().__init__(account.host, port=account.port, use_uid=True,
                         ssl=account.ssl == TLS_IMAPS, ssl_context=context)
        # IMAPClient has imaplib tell each line to a logger; a server may quote the login in any.
        self._imap.debug = 0
        self.folder_encode = False
        self.normalise_times = False

    def _create_IMAP4(self):
        return Wire(*self._wire_arguments)

    def starttls(self, ssl_context=None):
        """RFC 3501 6.2.1. Not IMAPClient's: its socket would be read without our limits."""
        if not self.has_capability('STARTTLS'):
            raise CapabilityError('no STARTTLS')
        self._checkok('starttls', *self._imap._simple_command('STARTTLS'))
        self._starttls_done = True
        self._imap.wrap(ssl_context)
        self._imap.listen()
        # What was told in the clear counts no more; IMAPClient asks for capabilities anew.
        self._imap.untagged_responses.clear()


class ImapSession:
    """A connection to `account`, to be used in a `with` statement.

    Raises errors.MailError children, from `__enter__` and every method.
    """

    def __init__(self, account):
        self.account = account
        self._trouble = Trouble(account)
        self._errors = self._trouble.translated
        self._client = None

    def __enter__(self):
        with self._errors('connect', refused=errors.ConnectionRefused):
            self._client = self._connect()
        try:
            self._login()
        except BaseException:
            self._hang_up()
            raise
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        client, self._client = self._client, None
        if client is None:
            return
        if exc_type is None:
            # The work is done and a rude end of the conversation changes nothing.
            with contextlib.suppress(errors.MailError), self._errors('log out'):
                client.logout()
                return
        self._client = client
        self._hang_up()

    def _hang_up(self):
        client, self._client = self._client, None
        _shut_down(client)

    # Connection

    def _connect(self):
        account = self.account
        for value in (account.host, account.login, account.password):
            if any(ord(character) < 32 or ord(character) == 127 for character in value):
                # CR and LF in a LOGIN would start a second command.
                raise errors.BadSettings('The host, login or password holds a control character.')
        if not account.host or not account.login:
            raise errors.BadSettings('The mailbox has no mail server or no login yet.')
        context = None
        if account.ssl != TLS_NONE:
            context = self._tls_context()
        client = _Client(self._trouble, context)
        try:
            if client._imap.state == 'AUTH':
                # RFC 3501 7.1.4 PREAUTH: as whom is not said, and no TLS can be begun any more.
                raise errors.LoginRefused(
                    '%s takes no login: it lets in whoever connects, as somebody whom it knows '
                    '(PREAUTH).' % self._trouble.server)
            if account.ssl == TLS_STARTTLS:
                client.starttls(context)
        except CapabilityError:
            _shut_down(client)
            raise errors.TlsFailed('%s offers no STARTTLS.' % self._trouble.server) from None
        except BaseException:
            _shut_down(client)
            raise
        client._imap.connected = True
        return client

    def _tls_context(self):
        try:
            return ssl.create_default_context(cafile=self.account.ca_file or None)
        except (OSError, ssl.SSLError):
            raise errors.TlsFailed('The file of trusted certificates can not be read: %s'
                                   % self.account.ca_file) from None

    def _login(self):
        """RFC 3501 6.2.2 AUTHENTICATE (PLAIN: RFC 4616) where offered, else 6.2.3 LOGIN.

        PLAIN takes any character; LOGIN's arguments must be ASCII.
        """
        client, account = self._client, self.account
        with self._errors('log in'):
            try:
                if client.has_capability('AUTH=PLAIN'):
                    client.plain_login(account.login, account.password)
                elif client.has_capability('LOGINDISABLED'):
                    raise errors.LoginRefused('%s takes no login %s.' % (
                        self._trouble.server, 'without encryption'
                        if account.ssl == TLS_NONE else 'by password'))
                else:
                    client.login(quoted(account.login), account.password)
            except LoginError as error:
                raise self._trouble.login_error(error) from None
            except UnicodeEncodeError:
                raise errors.LoginRefused(
                    '%s takes only ASCII logins and passwords.' % self._trouble.server) from None
            if client.has_capability('CONDSTORE') and client.has_capability('ENABLE'):
                # RFC 7162 3.1, RFC 5161: only then do all servers keep the sequence.
                client.enable('CONDSTORE')

    # Reading

    def folders(self):
        """All folders, RFC 3501 6.3.8 LIST; names with control characters are left out."""
        with self._errors('list the folders'):
            listed = self._client.list_folders()
            if len(listed) > FOLDERS_MOST:
                raise errors.ProtocolGarbage('%s lists %d folders; %d are the most that can be '
                                             'followed.' % (self._trouble.server, len(listed),
                                                            FOLDERS_MOST))
            folders = [remote_folder(*item) for item in listed]
        # One that is listed twice, once as what is above others, can be opened.
        known = sorted(filter(None, folders), key=lambda folder: folder.selectable)
        return tuple({folder.server_name: folder for folder in known}.values())

    def examine(self, server_name):
        """Open a folder for reading, RFC 3501 6.3.2; its FolderState.

        Raises FolderUnreadable when the server refuses this folder, or when its messages can't
        be told apart: without UIDVALIDITY (RFC 3501 7.1) UIDs mean nothing. FolderGone when
        the server says that there is no such folder.
        """
        with self._errors('open a folder', refused=errors.FolderUnreadable):
            try:
                answer = self._client.select_folder(server_name, readonly=True)
            except UnicodeEncodeError:
                raise errors.FolderUnreadable(
                    'The folder has a name that can not be sent to the server.') from None
            except IMAPClientError as error:
                if tells_of_no_folder(str(error)):
                    raise errors.FolderGone('%s has no such folder any more.'
                                            % self._trouble.server) from None
                raise
            told = self._client._imap.untagged_responses
            state = FolderState(
                uidvalidity=within(agreed(told.get('UIDVALIDITY', ())), NUMBER_MOST),
                uidnext=number(answer.get(b'UIDNEXT')),
                # Required (RFC 3501 7.3.1): an answer without it is garbage, not an empty folder.
                exists=max(map(int, told['EXISTS'])),
                modseq=within(number(answer.get(b'HIGHESTMODSEQ')), MODSEQ_MOST),
                whose=self.account.whose)
        if state.uidvalidity is None:
            raise errors.FolderUnreadable('The folder came without UIDVALIDITY.')
        return state

    def list_messages(self, state):
        """The Snapshot of the folder opened last: every UID in it.

        RFC 3501 6.4.4 UID SEARCH ALL. `complete` is false when fewer came than EXAMINE
        announced, deletions told of meanwhile aside. Raises FolderUnreadable when the server
        refuses it.
        """
        with self._errors('list the messages', refused=errors.FolderUnreadable):
            if not state.exists:
                return Snapshot(state)
            typ, data = self._client._imap.uid('SEARCH', 'ALL')
            self._check(typ, data)
            # Some servers answer in several lines, which IMAPClient takes for none.
            uids = frozenset(uid for line in data for uid in parse_message_list([line]))
            if not all(1 <= uid <= NUMBER_MOST for uid in uids):
                raise ProtocolError('no UIDs')
            told = self._client._imap.untagged_responses
            # What tells of no message of the folder tells of no deletion.
            expunged = sum(1 <= int(place) <= state.exists for place in told.pop('EXPUNGE', ()))
            # What came since is announced too, and is in the list or the list is not all.
            exists = max([state.exists, *(int(count) for count in told.get('EXISTS', ()))])
        return Snapshot(state, uids, is_complete(len(uids), exists, expunged))

    def flags(self, uids, since=None):
        """{uid: frozenset of flags} of `uids`, RFC 3501 6.4.5.

        since -- a modification sequence: only what changed after it, RFC 7162 3.1.4.1.
        Raises FolderUnreadable when the server refuses it.
        """
        if not uids:
            return {}
        with self._errors('read the flags', refused=errors.FolderUnreadable):
            if since:
                # The answer has only what changed, so the sets need not be small.
                fetched = self._fetch(uids, '(UID FLAGS)', uid_sets(uids),
                                      '(CHANGEDSINCE %d)' % since)
            else:
                fetched = self._fetch(uids, '(UID FLAGS)')
            return {uid: flags_in(items) for uid, items in fetched.items() if b'FLAGS' in items}

    def headers(self, uids):
        """{uid: RemoteMessage} of those of `uids` the server answered for."""
        if not uids:
            return {}
        with self._errors('fetch messages'):
            fetched = self._fetch(
                uids, '(UID FLAGS RFC822.SIZE INTERNALDATE %s)' % _HEADER_ITEM)
            # Unsolicited answers have FLAGS only; a message counts when its size came too.
            return {uid: remote_message(uid, items, HEADER_BYTES)
                    for uid, items in fetched.items()
                    if b'RFC822.SIZE' in items and b'FLAGS' in items}

    def body(self, uid):
        """(bytes, whether all of them) of one message. Raises MessageGone."""
        with self._errors('fetch a message'):
            fetched = self._fetch((uid,), '(UID RFC822.SIZE BODY.PEEK[]<0.%d>)' % BODY_BYTES)
            items = fetched.get(uid, {})
            raw = section(items, b'BODY[]')
            if raw is None:
                raise errors.MessageGone('The message is not on the mail server any more.')
        return raw[:BODY_BYTES], len(raw) < BODY_BYTES

    def _fetch(self, uids, items, sets=None, *modifier):
        """{uid: {ITEM: value}} of what was answered for `uids`, asked for by `sets`."""
        wanted = frozenset(uids)
        if sets is None:
            sets = [uid_set(part) for part in split(sorted(wanted))]
        found = {}
        for text in sets:
            typ, data = self._client._imap.uid('FETCH', text, items, *modifier)
            self._check(typ, data)
            for uid, values in by_uid(data).items():
                if uid in wanted:
                    found.setdefault(uid, {}).update(values)
        return found

    def _check(self, typ, data):
        if typ != 'OK':
            raise IMAPClientError('%s %r' % (typ, data))


def _shut_down(client):
    """Close the connection without a word; that it is closed already is as good."""
    with contextlib.suppress(IMAPClientError, OSError):
        client.shutdown()


def open_session(account):
    """The way the rest of the product gets a session; tests pass another function."""
    return ImapSession(account)
