"""A connection to a server, in the clear or by TLS, handed to a C library as a plain socket.

libldap could connect by itself. But the one of Debian 12 spins for ever, whatever time-outs it
is given, when a server accepts a connection and then says nothing in the TLS handshake; and it
says of a certificate only that it did not like it. So Python connects and does the TLS, with its
own time-outs, and libldap gets one end of a pair of sockets, which a thread joins to the server.

Imports: nothing of ours.
"""

import select
import socket
import ssl
import threading

from Products.zasync import clock


#: Most bytes that a server may answer. More would not fit into a result anyway.
MOST_BYTES = 100_000_000

#: Bytes moved in one go.
CHUNK = 65_536

#: Longest answer to StartTLS, in bytes.
STARTTLS_MOST = 10_000

# RFC 4511, 4.14.1: an extended request, number 1, of this name.
_STARTTLS = bytes.fromhex('301d 020101 7718 8016') + b'1.3.6.1.4.1.1466.20037'


class Trouble(Exception):
    """No connection, or none that can be trusted; its text is a part of a sentence.

    passing -- it may be gone at the next try.
    """

    def __init__(self, text, passing=False):
        super().__init__(text)
        self.passing = passing


class Deadline:
    """A moment, so many seconds from now."""

    def __init__(self, seconds):
        self.seconds = seconds
        self._at = clock.SYSTEM.monotonic() + seconds

    def remaining(self):
        """Seconds that are left; raises TimeoutError when none are."""
        left = self._at - clock.SYSTEM.monotonic()
        if left <= 0:
            raise TimeoutError(f'no answer within {self.seconds:g} s')
        return left


def connect(address, deadline):
    """A socket connected to (host, port). Raises OSError, TimeoutError among them."""
    trouble = OSError('the name has no address')
    try:
        places = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except UnicodeError:  # two dots in a row, or a part that is too long
        raise OSError(f'{address[0]!r} is no name of a host') from None
    for family, kind, protocol, _, place in places:
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(deadline.remaining())
            made.connect(place)
            return made
        except OSError as error:
            made.close()
            trouble = error
    raise trouble


def start_tls(plain, deadline):
    """Ask the server to go on with TLS (RFC 4511, 4.14), and read its answer, to the byte.

    Nothing that came after the answer in the clear is ever taken for a part of what is protected:
    it stays in the socket and breaks the handshake. Raises Trouble, OSError.
    """
    plain.settimeout(deadline.remaining())
    plain.sendall(_STARTTLS)
    head = _exactly(plain, 2, deadline)
    length = head[1]
    if length & 0x80:
        length = int.from_bytes(_exactly(plain, min(length & 0x7f, 4), deadline), 'big')
    if head[0] != 0x30 or length > STARTTLS_MOST:
        raise Trouble('the server does not speak LDAP')
    code = _result_code(_exactly(plain, length, deadline))
    if code is None:
        raise Trouble('the server does not speak LDAP')
    if code != 0:
        raise Trouble(f'the server does not offer StartTLS (its result code is {code})')


def _exactly(plain, count, deadline):
    data = b''
    while len(data) < count:
        plain.settimeout(deadline.remaining())
        more = plain.recv(count - len(data))
        if not more:
            raise Trouble('the server closed the connection when it was asked for TLS',
                          passing=True)
        data += more
    return data


def _result_code(message):
    """The code in an extended response, or None: [number, [code, …]] without the outer tag."""
    try:
        number, _, rest = _element(message)
        response, content, _ = _element(rest)
        enumerated, code, _ = _element(content)
    except IndexError:
        return None
    if (number, response, enumerated) != (0x02, 0x78, 0x0a):
        return None
    return int.from_bytes(code, 'big')


def _element(data):
    """(tag, content, what follows) of BER; raises IndexError for less."""
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        start += length & 0x7f
        length = int.from_bytes(data[2:start], 'big')
    return tag, data[start:start + length], data[start + length:]


def encrypt(plain, host, ca_file, deadline):
    """That connection with TLS; the server has proved that it is `host`.

    ca_file -- path of the authorities to trust; None: those of the system. Raises Trouble,
    OSError.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise Trouble(f'the authorities to trust can not be read from {ca_file}: '
                      f'{error.strerror or error}') from None
    try:
        wrapped = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    except ValueError as error:
        raise Trouble(f'{host!r} can not stand in a certificate: {error}') from None
    try:
        _shake_hands(wrapped, deadline)
        return wrapped
    except OSError as error:
        wrapped.close()  # it has taken the descriptor from `plain`
        raise _told(error) from None


def _told(error):
    """The Trouble that an error of a handshake is; another error stays as it is."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Trouble(f'its certificate is not trusted: {error.verify_message}')
    if isinstance(error, ssl.SSLError):
        return Trouble(f'no TLS came about: {error.reason or error}')
    return error


def _shake_hands(wrapped, deadline):
    """The handshake, in no more time than is left for all of it."""
    wrapped.settimeout(0)
    while True:
        try:
            return wrapped.do_handshake()
        except ssl.SSLWantReadError:
            _ready({wrapped: select.POLLIN}, deadline)
        except ssl.SSLWantWriteError:
            _ready({wrapped: select.POLLOUT}, deadline)


def _ready(sockets, deadline):
    """Wait for any of {socket: event}; → the descriptors that are ready. Raises TimeoutError."""
    poll = select.poll()  # select.select takes no descriptor over 1023
    for one, event in sockets.items():
        poll.register(one, event)
    found = poll.poll(1000 * deadline.remaining())
    if not found:
        deadline.remaining()
    return {descriptor for descriptor, _ in found}


class Tunnel:
    """Joins a connection to a pair of sockets, until one side closes or the deadline has come.

    descriptor -- of our caller's end, who owns and closes it. trouble -- why it ended early, as
    a part of a sentence; '' if it did not.
    """

    def __init__(self, outer, deadline):
        self._outer = outer
        self._deadline = deadline
        self._inner, end = socket.socketpair()
        self.descriptor = end.detach()
        self.trouble = ''
        self._thread = threading.Thread(target=self._run, name='zasync-tunnel', daemon=True)
        self._thread.start()

    def close(self):
        """Wait until it has ended: our caller's end must be closed."""
        self._thread.join()

    def _run(self):
        try:
            self._move()
        except OSError as error:
            self.trouble = str(error)
        finally:
            self._inner.close()
            self._outer.close()

    def _move(self):
        received = 0
        while True:
            ready = _ready({self._inner: select.POLLIN, self._outer: select.POLLIN},
                           self._deadline)
            if self._inner.fileno() in ready:
                data = self._inner.recv(CHUNK)
                if not data:
                    return
                self._outer.settimeout(self._deadline.remaining())
                self._outer.sendall(data)
            if self._outer.fileno() in ready:
                for data in self._received():
                    if not data:
                        self.trouble = 'the server closed the connection'
                        return
                    received += len(data)
                    if received > MOST_BYTES:
                        self.trouble = f'the server answered more than {MOST_BYTES:,} bytes'
                        return
                    self._inner.settimeout(self._deadline.remaining())
                    self._inner.sendall(data)

    def _received(self):
        """What the server has sent, piece by piece, without waiting; b'' at its end.

        TLS keeps bytes of its own, which select does not see, and has messages of its own,
        after which there is nothing for us.
        """
        self._outer.settimeout(0)
        try:
            while True:
                data = self._outer.recv(CHUNK)
                yield data
                self._outer.settimeout(0)
                if not data:
                    return
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
