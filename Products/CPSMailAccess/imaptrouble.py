"""What goes wrong on the wire: limits that no server can stretch, and sentences for people.

A server that says a byte now and then is never silent, so a limit of silence alone would let it
hold a thread for ever. `Wire` bounds each answer as a whole, in time and in bytes.

Imports: imaplib, imapclient's errors, clock, errors, headers, imapanswers.
"""

import base64
import contextlib
import errno
import imaplib
import io
import logging
import re
import socket
import ssl
import traceback

from imapclient.exceptions import IMAPClientAbortError
from imapclient.exceptions import IMAPClientError
from imapclient.exceptions import ProtocolError

from . import clock
from . import errors
from .headers import clean
from .imapanswers import parsable


#: The server is told the password here, and may say it again: see zasync_client.tracebacks.
__hide_values__ = True

logger = logging.getLogger('CPSMailAccess.imap')

#: The answer to a command is given up after so long, however it drips. Less than
#: syncstatus.LEASE_SECONDS, or a run would lose its lease while it waits; enough for a body of
#: 10 MB at 100 kB/s. Seconds.
COMMAND_SECONDS = 120.0

#: Longest line and literal read at all: a SEARCH of a million messages is a line of 11 MB, and
#: a literal is set aside in memory as long as the server says it will be. Bytes.
LINE_BYTES = LITERAL_BYTES = 20_000_000

#: Most bytes of an answer. A batch of headers has up to 4 MB, a list of a million UIDs 11 MB.
ANSWER_BYTES = 60_000_000


#: There never was a connection, for want of a way to the server.
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN,
                errno.EADDRNOTAVAIL}

#: The response code of a refused login in the text of IMAPClient's error, which may be of bytes.
_CODE = re.compile(r"""(?:b["'])?\[([A-Z]+)""", re.IGNORECASE)

_WRONG_PASSWORD = errors.LoginRefused, 'does not accept the login %s with this password'
_LATER = errors.CommandRefused, 'can not let %s in for now'

#: What that code says, where it is not the password (RFC 5530 3).
_REFUSALS = {
    'UNAVAILABLE': _LATER, 'LIMIT': _LATER, 'INUSE': _LATER, 'SERVERBUG': _LATER,
    'CONTACTADMIN': (errors.LoginRefused,
                     'does not let %s in, and says that its administrator is to be asked'),
    'AUTHORIZATIONFAILED': (errors.LoginRefused,
                            'does not let %s in, though it accepts the password'),
    'EXPIRED': (errors.LoginRefused, 'does not let %s in: the password has expired'),
    'PRIVACYREQUIRED': (errors.LoginRefused, 'does not let %s in without encryption'),
}


class Wire(imaplib.IMAP4):
    """The connection below IMAPClient's: who waits for it waits for a bounded time.

    trouble -- the Trouble of the account. context -- for TLS from the start, or None.
    connected -- false: everything so far has to happen within `connect_seconds`; true: each
    command and its answer have `COMMAND_SECONDS`.
    """

    connected = False

    def __init__(self, trouble, context=None):
        self._trouble = trouble
        self._context = context
        self._allow(trouble.account.connect_seconds)
        super().__init__(trouble.account.host, trouble.account.port)

    # What imaplib asks for

    def open(self, host='', port=imaplib.IMAP4_PORT, timeout=None):
        self.host, self.port = host, port
        self.sock = self._reached()
        try:
            if self._context is not None:
                self.wrap(self._context)
        except BaseException:
            self.sock.close()
            raise
        self.listen()

    def read(self, size):
        if size > LITERAL_BYTES:
            raise self._too_much()
        return self._reader.read(size)

    def readline(self):
        line = self._reader.readline(LINE_BYTES + 1)
        if len(line) > LINE_BYTES:
            raise self._too_much()
        return line

    def _command(self, name, *args):
        # What was told before is of no use to who begins with this one (which an ENABLE does not);
        # kept, what nobody asks for would fill the memory.
        self.untagged_responses.clear()
        return super()._command(name, *args)

    def _append_untagged(self, typ, dat):
        if isinstance(dat, tuple):
            line, literal = dat
            dat = parsable(typ, line), literal
        elif dat:
            dat = parsable(typ, dat)
        super()._append_untagged(typ, dat)

    def shutdown(self):
        self.sock.close()

    def _log(self, line):
        """imaplib's memory of the last lines, which the login is one of: none is kept."""

    def _new_tag(self):
        # Each command begins so. Not with `send`: an AUTHENTICATE is told more as often as the
        # server asks for it.
        if self.connected:
            self._allow(COMMAND_SECONDS)
        return super()._new_tag()

    def send(self, data):
        self.sock.settimeout(self._patience())
        self.sock.sendall(data)

    # Ours

    def wrap(self, context):
        """Begin TLS; a handshake lasts as long as one wait may."""
        self.sock.settimeout(self._patience())
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)

    def listen(self):
        """Read from the present socket; what an earlier one had left over is forgotten."""
        self._reader = io.BufferedReader(_Stream(self))

    def receive(self, buffer):
        """Bytes from the socket into `buffer`; their number, 0 at the end."""
        self.sock.settimeout(self._patience())
        try:
            count = self.sock.recv_into(buffer)
        except TimeoutError:
            self._patience()  # says so if it was the answer's whole time that ended
            raise
        self._received += count
        if self._received > ANSWER_BYTES:
            raise self._too_much()
        return count

    def _reached(self):
        """A socket that is connected to one of the host's addresses."""
        places = addresses(self.host, self.port)
        for left, (family, kind, protocol, _name, address) in zip(
                range(len(places), 0, -1), places, strict=True):
            # One that does not answer, as behind a firewall, leaves time for those after it.
            seconds = self._patience() / left
            try:
                return _connected(socket.socket(family, kind, protocol), address, seconds)
            except OSError:
                if left == 1:
                    raise

    def _allow(self, seconds):
        self._seconds, self._end_at = seconds, clock.monotonic() + seconds
        self._received = 0

    def _patience(self):
        """Seconds that the next byte may take."""
        left = self._end_at - clock.monotonic()
        if left <= 0:
            raise errors.TimedOut('%s did not end its answer within %g seconds.'
                                  % (self._trouble.server, self._seconds))
        return min(left, self._trouble.account.read_seconds) if self.connected else left

    def _too_much(self):
        return errors.ProtocolGarbage('%s sent an answer that is too long.'
                                      % self._trouble.server)


def addresses(host, port):
    """The addresses of a host, as socket.getaddrinfo gives them; tests have others."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # no name a resolver could be asked for
        raise socket.gaierror() from None


def _connected(sock, address, seconds):
    try:
        sock.settimeout(seconds)
        sock.connect(address)
        # What imaplib sends in two pieces would else wait 40 ms for the first's receipt.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


class _Stream(io.RawIOBase):
    """A Wire as a file to read."""

    def __init__(self, wire):
        self._wire = wire

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._wire.receive(buffer)


class Trouble:
    """Speaks of the server of one account, and never of its password."""

    def __init__(self, account):
        self.account = account

    @property
    def server(self):
        """How sentences call the server."""
        return 'The mail server %s:%d' % (clean(self.account.host), self.account.port)

    def login_error(self, error):
        """IMAPClient says LoginError for whatever happens during a login: look behind it."""
        cause = error.__context__
        if isinstance(cause, IMAPClientAbortError):
            return self.abort_error(cause, 'log in')
        found = _CODE.match(str(error))
        kind, words = _REFUSALS.get(found and found[1].upper(), _WRONG_PASSWORD)
        return kind('%s %s.' % (self.server, words % account_name(self.account)))

    @contextlib.contextmanager
    def translated(self, action, refused=errors.CommandRefused):
        """Turn whatever happens inside into one of `errors`.

        `from None`: the sentence has it all, and what the libraries say may quote commands.
        """
        try:
            yield
        except errors.MailError:
            raise
        except TimeoutError:
            raise self.timed_out(action) from None
        except ConnectionRefusedError:
            raise errors.ConnectionRefused('%s refuses connections.' % self.server) from None
        except socket.gaierror as error:
            raise self.not_found(error) from None
        except ssl.SSLCertVerificationError as error:
            raise errors.TlsFailed('The certificate of %s is not trusted: %s.' % (
                self.account.host, clean(error.verify_message or ''))) from None
        except ssl.SSLError as error:
            if action != 'connect' and isinstance(error, (ssl.SSLEOFError,
                                                          ssl.SSLZeroReturnError)):
                raise self.lost(action) from None
            raise errors.TlsFailed('%s could not be spoken to with TLS (%s).' % (
                self.server, clean(str(error.reason or 'protocol error')))) from None
        except IMAPClientAbortError as error:
            raise self.abort_error(error, action) from None
        except ProtocolError:
            raise self.garbage(action) from None
        except IMAPClientError as error:
            raise refused('%s refused to %s: %s' % (
                self.server, action,
                clean(_said(self.without_password(str(error))))[:200])) from None
        except OSError as error:
            if action == 'connect' and error.errno in _UNREACHABLE:
                raise errors.ConnectionRefused('%s can not be reached: %s.' % (
                    self.server, clean(error.strerror or type(error).__name__))) from None
            raise errors.ConnectionLost('The connection to %s:%d was lost (to %s): %s.' % (
                self.account.host, self.account.port, action,
                clean(error.strerror or type(error).__name__))) from None
        except (ValueError, TypeError, LookupError, AttributeError, AssertionError,
                ArithmeticError, RuntimeError):
            # The parsers of imaplib and IMAPClient fall over garbage in all these ways.
            logger.debug('garbage from %s: %s', self.server,
                         self.without_password(traceback.format_exc()))
            raise self.garbage(action) from None

    def abort_error(self, error, action):
        """imaplib's `abort` is a lost connection, or an answer that makes no sense."""
        text = str(error)
        if 'unexpected' in text:
            return self.garbage(action)
        if 'timed out' in text:
            return self.timed_out(action)
        return self.lost(action)

    def not_found(self, error):
        """No address was found, of a gaierror."""
        host = clean(self.account.host)
        # Not every system has the second one.
        if error.errno in (None, socket.EAI_NONAME, getattr(socket, 'EAI_NODATA', None)):
            return errors.ServerNotFound('There is no host named %s.' % host)
        # The name servers did not answer, or some such.
        return errors.ServerNotFound('The address of the host %s could not be looked up: %s.' % (
            host, clean(error.strerror or 'no answer')))

    def lost(self, action):
        return errors.ConnectionLost('%s closed the connection (to %s).'
                                     % (self.server, action))

    def timed_out(self, action):
        account = self.account
        seconds = account.connect_seconds if action == 'connect' else account.read_seconds
        return errors.TimedOut('%s did not answer within %g seconds (to %s).'
                               % (self.server, seconds, action))

    def garbage(self, action):
        return errors.ProtocolGarbage('%s sent an answer that makes no sense (to %s).'
                                      % (self.server, action))

    def without_password(self, text):
        """What a library or a server says; nothing of it if the password is in there."""
        if any(form in text.casefold() for form in self._forms()):
            return '(not shown, the password is in it)'
        return text

    def _forms(self):
        """The ways in which the password may be quoted, casefolded."""
        login, password = self.account.login, self.account.password
        if not password:
            return
        quoted = password.replace('\\', '\\\\').replace('"', '\\"')
        for form in (password, quoted):
            raw = form.encode('utf-8', 'surrogatepass')
            for written in (form, repr(form)[1:-1], repr(raw)[2:-1], raw.decode('latin-1')):
                yield written.casefold()
        for before in ('', '\0%s\0' % login):
            # RFC 4616: what is sent in AUTHENTICATE PLAIN.
            sent = (before + password).encode('utf-8', 'surrogatepass')
            yield base64.b64encode(sent).decode('ascii').rstrip('=').casefold()


def _said(text):
    """What the server said, where imaplib wrote its bytes, in a list perhaps, as Python does."""
    return re.sub(r"""\[?\bb(['"])(.*)\1\]?$""", lambda found: found[2], text)


def account_name(account):
    """The login, fit for a sentence."""
    return clean(account.login)[:100]
