"""A mail server of ours that does well, but for one place where it does not.

It keeps mail in memory and answers what a synchronisation asks, over a real socket. What it says
passes `distort` before it is sent: a function of (what is answered, bytes) giving what to send
instead, a `Say`. What is answered is the name of the command, or GREETING, CONTINUE, and of FETCH
one of FLAGS, HEADERS and BODY.

Imports: tests.mail.servers.
"""

import re
import socket
import time
from dataclasses import dataclass
from dataclasses import field

from tests.mail.servers import ScriptedServer


@dataclass
class Message:
    """A message as this server has it."""

    subject: bytes
    flags: tuple = (b'\\Seen',)
    modseq: int = 1

    @property
    def header(self):
        return (b'Date: Mon, 11 Jul 2005 14:05:00 +0200\r\nFrom: Bob <bob@example.org>\r\n'
                b'Subject: ' + self.subject + b'\r\nMessage-ID: <' + self.subject + b'@x>\r\n\r\n')


@dataclass
class Folder:
    """messages -- {uid: Message}."""

    messages: dict = field(default_factory=dict)
    uidvalidity: int = 7
    attributes: bytes = b''


@dataclass
class Say:
    """What to send: first `begin`; then, where it is given, `drop` over and over."""

    begin: bytes
    drop: bytes = b''
    pause: float = 0.02
    close: bool = False

    @property
    def plain(self):
        """Whether `begin` is all."""
        return not self.drop and not self.close


class Account:
    """The mail: folders, {server name: Folder}."""

    def __init__(self, **folders):
        self.folders = {name.encode('ascii'): folder for name, folder in folders.items()}
        self.delimiter = b'"/"'
        self.condstore = True

    @property
    def modseq(self):
        return max((message.modseq for folder in self.folders.values()
                    for message in folder.messages.values()), default=1)


class MailServer(ScriptedServer):
    """Serves an Account; `distort` may be set anew between connections."""

    def __init__(self, account):
        super().__init__()
        self.account = account
        self.distort = None
        #: Bytes sent in the last connection.
        self.sent = 0

    def _talk(self, connection):
        try:
            self._converse(connection)
        finally:
            connection.close()

    def _converse(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = 0
        chosen = None
        lines = connection.makefile('rb')
        self._say(connection, 'GREETING', b'* OK hello\r\n')
        for line in lines:
            tag, _, rest = line.strip().partition(b' ')
            words = rest.split(b' ')
            name = words[0].upper().decode('ascii', 'replace')
            if name == 'UID':
                name = words[1].upper().decode('ascii', 'replace')
            if name == 'AUTHENTICATE':
                self._say(connection, 'CONTINUE', b'+ \r\n')
                lines.readline()
            if name == 'EXAMINE':
                chosen = self.account.folders.get(
                    rest.partition(b' ')[2].strip(b'"').replace(b'\\\\', b'\\'))
            made = getattr(self, '_' + name.lower(), lambda *_: None)(chosen, rest)
            if made is None:
                self._say(connection, name, tag + b' BAD what?\r\n')
            else:
                if name == 'FETCH':
                    name = 'HEADERS' if b'HEADER' in rest else \
                        'BODY' if b'BODY.PEEK[]' in rest else 'FLAGS'
                self._say(connection, name, made + tag + b' OK done\r\n')
            if name == 'LOGOUT':
                return

    def _say(self, connection, name, raw):
        say = Say(raw) if self.distort is None else self.distort(name, raw)
        self.sent += len(say.begin)
        connection.sendall(say.begin)
        if say.close:
            connection.shutdown(socket.SHUT_RDWR)
            raise OSError('closed, as told')
        while say.drop:
            connection.sendall(say.drop)
            time.sleep(say.pause)

    # Answers without their last line

    def _capability(self, chosen, rest):
        more = b' ENABLE CONDSTORE' if self.account.condstore else b''
        return b'* CAPABILITY IMAP4rev1 AUTH=PLAIN' + more + b'\r\n'

    def _authenticate(self, chosen, rest):
        return b''

    def _enable(self, chosen, rest):
        return b'* ENABLED CONDSTORE\r\n'

    def _list(self, chosen, rest):
        return b''.join(
            b'* LIST (%s) %s "%s"\r\n' % (folder.attributes, self.account.delimiter,
                                          name.replace(b'\\', b'\\\\'))
            for name, folder in self.account.folders.items())

    def _examine(self, chosen, rest):
        if chosen is None:
            return None
        uidnext = max(chosen.messages, default=0) + 1
        modseq = b'* OK [HIGHESTMODSEQ %d] ok\r\n' % self.account.modseq \
            if self.account.condstore else b''
        return (b'* FLAGS (\\Seen \\Flagged)\r\n* %d EXISTS\r\n* 0 RECENT\r\n'
                b'* OK [UIDVALIDITY %d] ok\r\n* OK [UIDNEXT %d] ok\r\n%s' % (
                    len(chosen.messages), chosen.uidvalidity, uidnext, modseq))

    def _search(self, chosen, rest):
        return b'* SEARCH' + b''.join(b' %d' % uid for uid in sorted(chosen.messages)) + b'\r\n'

    def _fetch(self, chosen, rest):
        asked = set()
        since = re.search(rb'CHANGEDSINCE ([^)]*)', rest)
        if since and not since[1].isdigit():
            return None
        for part in rest.split(b' ')[2].split(b','):
            first, _, last = part.partition(b':')
            asked.update(range(int(first), int(last or first) + 1))
        made = []
        for sequence, uid in enumerate(sorted(chosen.messages), 1):
            message = chosen.messages[uid]
            if uid not in asked or since and message.modseq <= int(since[1]):
                continue
            items = b'UID %d FLAGS (%s)' % (uid, b' '.join(message.flags))
            if b'RFC822.SIZE' in rest:
                header = message.header
                items += (b' RFC822.SIZE %d INTERNALDATE "11-Jul-2005 14:05:00 +0200" '
                          b'BODY[HEADER.FIELDS (DATE SUBJECT)] {%d}\r\n%s' % (
                              len(header), len(header), header))
            if b'BODY.PEEK[]' in rest:
                body = message.header + b'Text.\r\n'
                items += b' BODY[]<0> {%d}\r\n%s' % (len(body), body)
            made.append(b'* %d FETCH (%s)\r\n' % (sequence, items))
        return b''.join(made)

    def _logout(self, chosen, rest):
        return b'* BYE\r\n'
