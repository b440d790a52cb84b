"""Mail servers for the tests: real ones (bench.imapservers), and servers that misbehave.

Every server listens on a free port of 127.0.0.1 and is gone when its `with` block ends.
"""

import contextlib
import re
import socket
import threading
import time

from imapclient import IMAPClient

from bench import imapservers
from bench.dovecotconf import dovecot_program
from bench.processes import free_port


__all__ = ['DovecotServer', 'PyPIServer', 'Proxy', 'ScriptedServer', 'dovecot_is_installed',
           'free_port', 'wait_until', 'USER', 'PASSWORD']

#: A server that takes longer to start or stop is broken. Seconds.
START_SECONDS = STOP_SECONDS = 20

#: The password holds what IMAP must quote.
USER, PASSWORD = 'alice', 'sec ret"\\1'


def dovecot_is_installed():
    """Whether there is a Dovecot."""
    return dovecot_program() is not None


def wait_until(condition, seconds=START_SECONDS, what='it'):
    """Wait for `condition()` to be true, for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError('%s did not happen within %d s' % (what, seconds))
        time.sleep(0.02)


class AnotherProgram:
    """Another mail program at work on the same account; mixed into the servers."""

    def client(self):
        """A client that is logged in."""
        client = IMAPClient(self.host, self.port, ssl=False, timeout=30)
        client.plain_login(USER, PASSWORD)
        return client

    @contextlib.contextmanager
    def folder(self, name='INBOX'):
        """A client with a folder selected for writing."""
        with self.client() as client:
            client.select_folder(name)
            yield client


class DovecotServer(AnotherProgram, imapservers.DovecotServer):
    """Dovecot with alice's account."""

    def __init__(self, **options):
        super().__init__({USER: PASSWORD}, **options)

    def deliver_raw(self, raw, name):
        """Put bytes into INBOX as the file system sees it: an APPEND of 0 bytes is refused."""
        path = self.maildir(USER) / 'cur' / name
        path.write_bytes(raw)
        self.own(path)

    def change_uidvalidity(self):
        """Make INBOX another one to clients: lose what Dovecot knows of its UIDs."""
        for path in self.maildir(USER).iterdir():
            if path.name.startswith(('dovecot-uid', 'dovecot.index')):
                path.unlink()


class PyPIServer(AnotherProgram, imapservers.PyPIServer):
    """pymap with alice's account: no CONDSTORE, nothing but pip needed."""

    def __init__(self):
        super().__init__({USER: PASSWORD})


class Proxy:
    """A relay in front of a server that can cut the line.

    cut_after -- function of everything the server sent on this connection so far: true cuts.
    host -- the address it listens at.
    """

    def __init__(self, port, cut_after=lambda sent: False, host='127.0.0.1'):
        self.target = port
        self.host = host
        self.cut_after = cut_after
        self.cuts = 0

    def __enter__(self):
        self._listener = socket.create_server((self.host, 0))
        self.port = self._listener.getsockname()[1]
        self._threads = []
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info):
        # A shutdown wakes the accepting thread; close alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(STOP_SECONDS)

    def _start(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(('127.0.0.1', self.target))
            self._start(self._relay, client, server, None)
            self._start(self._relay, server, client, bytearray())

    def _relay(self, source, target, sent):
        try:
            while True:
                block = source.recv(4096)
                if not block:
                    break
                if sent is not None:
                    sent += block
                    if self.cut_after(bytes(sent)):
                        self.cuts += 1
                        break
                target.sendall(block)
        except OSError:
            pass  # the other direction has closed both
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class ScriptedServer:
    """Says what a test wrote, to whatever is asked: for servers no real one can play.

    script -- list of (regular expression of a command without its tag, bytes to answer with);
    `%(tag)s` in an answer is the command's tag. greeting -- bytes, or None for silence. In place
    of bytes a function of the connection may do the talking, see `drip`.
    """

    def __init__(self, script=(), greeting=b'* OK hello\r\n'):
        self.script = [
            (rb'CAPABILITY', b'* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\n%(tag)s OK done\r\n'),
            *script,
            (rb'LOGOUT', b'* BYE\r\n%(tag)s OK done\r\n'),
        ]
        self.greeting = greeting
        self.commands = []

    def __enter__(self):
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port = self._listener.getsockname()[1]
        self._open = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        for end in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._thread.join(STOP_SECONDS)

    def _serve(self):
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            with contextlib.suppress(OSError, ValueError):
                self._talk(connection)

    def _talk(self, connection):
        if callable(self.greeting):
            self.greeting(connection)
        elif self.greeting is not None:
            connection.sendall(self.greeting)
        with connection.makefile('rb') as lines:
            for line in lines:
                tag, _space, command = line.strip().partition(b' ')
                if command.upper().startswith(b'AUTHENTICATE'):
                    connection.sendall(b'+ \r\n')
                    lines.readline()
                    self._answer(connection, tag, command, b'%(tag)s OK done\r\n')
                    continue
                self.commands.append(command)
                self._answer(connection, tag, command, b'%(tag)s BAD what?\r\n')

    def _answer(self, connection, tag, command, otherwise):
        answers = [answer for pattern, answer in self.script
                   if re.match(pattern, command, re.IGNORECASE)]
        answer = answers[0] if answers else otherwise
        self.tag = tag
        if callable(answer):
            answer(connection)
            return
        if answer is None:
            connection.shutdown(socket.SHUT_RDWR)
            return
        connection.sendall(answer.replace(b'%(tag)s', tag))


def drip(beginning=b'', drop=b'x', seconds=0.05):
    """What to say, in a script: `beginning`, then a drop now and then and never an end."""
    def talk(connection):
        connection.sendall(beginning)
        while True:
            connection.sendall(drop)
            time.sleep(seconds)
    return talk
