"""Frozen values that travel between the wire, the plan and the ZODB.

A folder is known by its *server name*: the name as the server wrote it (modified UTF-7,
RFC 3501 section 5.1.3, any separator), as text. A message is known by (server name of its
folder, UIDVALIDITY, UID), RFC 3501 section 2.3.1.1.

Imports: the standard library.
"""

from dataclasses import dataclass
from dataclasses import field


#: How the connection is protected (parameter SSL).
TLS_NONE, TLS_IMAPS, TLS_STARTTLS = 0, 1, 2


@dataclass(frozen=True)
class Account:
    """Where and how to log in. `repr` shows no password.

    connect_seconds -- longest wait for the connection, TLS and the greeting.
    read_seconds -- longest silence of the server afterwards.
    """

    host: str
    port: int = 143
    ssl: int = TLS_NONE
    login: str = ''
    password: str = field(default='', repr=False)
    ca_file: str = ''
    connect_seconds: float = 10.0
    read_seconds: float = 30.0

    @property
    def whose(self):
        """Whose mail it is; the same over another port."""
        return '%s@%s' % (self.login, self.host.lower())


@dataclass(frozen=True)
class RemoteFolder:
    """A folder as listed by the server.

    server_name -- as on the wire; '' is never a folder.
    path -- the decoded names from the top down, for people.
    parents -- the server names of the folders above it, from the top down.
    """

    server_name: str
    path: tuple
    parents: tuple = ()
    selectable: bool = True


@dataclass(frozen=True)
class Envelope:
    """The header fields that are kept, as text ready to show.

    date_at -- POSIX seconds of the Date field, None when it makes no sense.
    """

    subject: str = ''
    sender: str = ''
    to: str = ''
    cc: str = ''
    date: str = ''
    date_at: float | None = None
    message_id: str = ''


@dataclass(frozen=True)
class RemoteMessage:
    """A message as fetched: everything but its body.

    internal_at -- when the server got it, POSIX seconds, or None.
    """

    uid: int
    flags: frozenset = frozenset()
    size: int = 0
    internal_at: float | None = None
    envelope: Envelope = Envelope()


@dataclass(frozen=True)
class FolderState:
    """What EXAMINE says of a folder (RFC 3501 6.3.2; HIGHESTMODSEQ: RFC 7162 3.1.2).

    modseq -- None: the server keeps no modification sequences here.
    whose -- the account that the folder is of, as text; None when an earlier version stored it.
    """

    uidvalidity: int | None
    uidnext: int | None = None
    exists: int = 0
    modseq: int | None = None
    whose: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """The messages of one folder at one moment, on one side.

    complete -- whether `uids` is known to be all of them. Only then does an absent UID mean
    a deleted message.
    refused -- on our side: UIDs that the server refused to read, see reading.
    """

    state: FolderState
    uids: frozenset = frozenset()
    complete: bool = True
    refused: tuple = ()
