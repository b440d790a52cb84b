"""What the server's answers say, as values; and how UIDs and strings are written. Pure.

Imports: imapclient's parsers, values, headers.
"""

import re

from imapclient.datetime_util import parse_to_datetime
from imapclient.exceptions import ProtocolError
from imapclient.imap_utf7 import decode as decode_utf7
from imapclient.imap_utf7 import encode as encode_utf7
from imapclient.response_parser import parse_response

from .headers import clean
from .headers import parse_envelope
from .values import RemoteFolder
from .values import RemoteMessage


_UNSELECTABLE = {b'\\noselect', b'\\nonexistent'}


#: Longest name of a folder, in bytes, and most levels of a tree. No person makes longer ones, and
#: the names above a folder take room in the square of its depth.
NAME_MOST, DEPTH_MOST = 1000, 50

#: Most flags of a message, and longest flag, that are kept.
FLAGS_MOST, FLAG_LENGTH = 100, 100

#: UIDs and UIDVALIDITY end here (RFC 3501 9: nz-number), modification sequences there (RFC 7162).
NUMBER_MOST, MODSEQ_MOST = 2 ** 32 - 1, 2 ** 63 - 1

#: Most runs of UIDs in one command: its line has at most 8 kB, which servers take (RFC 7162 4).
RUNS_MOST = 350


def uid_set(uids):
    """UIDs as an RFC 3501 sequence-set with runs as ranges: 1,2,3,7 is 1:3,7.

    Explicit numbers only; a range holds exactly the UIDs given.
    """
    return _written(_runs(uids))


def uid_sets(uids):
    """The same in as few sets as command lines allow, however many UIDs there are."""
    runs = _runs(uids)
    return [_written(runs[start:start + RUNS_MOST]) for start in range(0, len(runs), RUNS_MOST)]


def _runs(uids):
    runs = []
    for uid in sorted(uids):
        if runs and uid == runs[-1][1] + 1:
            runs[-1][1] = uid
        else:
            runs.append([uid, uid])
    return runs


def _written(runs):
    return ','.join(str(first) if first == last else '%d:%d' % (first, last)
                    for first, last in runs)


def parsable(kind, line):
    """A line of an untagged answer as IMAPClient's parser takes it.

    It looks for the end of each bracket, also in the name of a folder or in a keyword, where one
    may be alone (RFC 3501 9: atom). Those atoms are put into quotes.
    """
    if b'[' not in line:
        return line
    if kind == 'LIST':
        return _LAST_ATOM.sub(_in_quotes, line)
    if kind in ('FLAGS', 'PERMANENTFLAGS'):
        return _ATOM.sub(_in_quotes, line)
    return _FLAGS_ITEM.sub(lambda item: item[1] + _ATOM.sub(_in_quotes, item[2]), line)


#: Atoms, whether there is a bracket or not, which takes no time to find; the flags among the items
#: of a FETCH.
_ATOM = re.compile(rb'[^ ()"]+')
_LAST_ATOM = re.compile(rb'(?<= )[^ ()"]+$')
_FLAGS_ITEM = re.compile(rb'(\bFLAGS )(\([^()"]*\))', re.IGNORECASE)


def _in_quotes(atom):
    if b'[' not in atom[0]:
        return atom[0]
    return b'"%s"' % atom[0].replace(b'\\', b'\\\\')


def by_uid(data):
    """{uid: {ITEM: value}} of the data of FETCH answers; answers without UID are dropped."""
    found = {}
    parsed = iter(parse_response([item for item in data if item is not None]))
    for _sequence, values in zip(parsed, parsed, strict=False):
        if not isinstance(values, tuple) or len(values) % 2:
            raise ProtocolError('bad FETCH answer')
        items = {bytes(key).upper(): value
                 for key, value in zip(values[::2], values[1::2], strict=True)}
        uid = items.get(b'UID')
        if isinstance(uid, int):
            found.setdefault(uid, {}).update(items)
    return found


def remote_message(uid, items, most_bytes):
    """The RemoteMessage; most_bytes -- of its header, whatever the server sent."""
    return RemoteMessage(
        uid=uid,
        flags=flags_in(items),
        size=within(number(items[b'RFC822.SIZE']), MODSEQ_MOST) or 0,
        internal_at=internal_at(items.get(b'INTERNALDATE')),
        envelope=parse_envelope((section(items, b'BODY[HEADER') or b'')[:most_bytes]))


def flags_in(items):
    """The flags as text, without \\Recent: it is about sessions, not messages."""
    flags = items[b'FLAGS'] or ()
    if not isinstance(flags, tuple):
        raise ProtocolError('bad FLAGS')
    # RFC 3501 9: a flag is an atom, so one that looks like a nil is of that name.
    texts = (as_text(b'NIL' if flag is None else flag) for flag in flags[:FLAGS_MOST])
    return frozenset(text[:FLAG_LENGTH] for text in texts if text.lower() != '\\recent')


def section(items, prefix):
    """The value of the BODY[...] item; servers write its name with their own spacing."""
    for key, value in items.items():
        if key.replace(b' ', b'').startswith(prefix):
            if value is None:
                return b''
            return value if isinstance(value, bytes) else str(value).encode('ascii', 'replace')
    return None


def internal_at(value):
    try:
        return parse_to_datetime(value, normalise=False).timestamp()
    except (ValueError, TypeError, AttributeError, OverflowError, IndexError):
        return None


def remote_folder(flags, delimiter, name):
    """The RemoteFolder of an answer to LIST; None for a name that can't be used."""
    if name is None:
        # RFC 3501 9: a mailbox is an astring, so this is one of that name, and not a nil.
        name = b'NIL'
    if not isinstance(name, (bytes, str)) or not isinstance(flags, tuple):
        raise ProtocolError('bad LIST answer')
    raw = name if isinstance(name, bytes) else str(name).encode('utf-8')
    server_name = raw.decode('latin-1')
    if not 0 < len(raw) <= NAME_MOST or any(ord(character) < 32 for character in server_name):
        # A line break in a name would end our next command in the middle.
        return None
    if server_name.upper() == 'INBOX':
        server_name = 'INBOX'
    separator = as_text(delimiter) if delimiter else None
    parts = server_name.split(separator) if separator else [server_name]
    if not all(parts) or len(parts) > DEPTH_MOST:
        # A leading, trailing or double separator makes no tree, and so many make none.
        parts = [server_name]
    if parts[0].upper() == 'INBOX':
        parts[0] = 'INBOX'
    parents = tuple(separator.join(parts[:depth]) for depth in range(1, len(parts)))
    path = tuple(decode_name(part) for part in parts)
    selectable = not _UNSELECTABLE & {bytes(flag).lower() for flag in flags}
    return RemoteFolder(server_name, path, parents, selectable)


def tells_of_no_folder(refusal):
    """Whether a folder was not opened because there is none: that is the response code NONEXISTENT
    (RFC 5530 3, RFC 9051 7.1), and what Dovecot 2.3 says, which has no code there."""
    return _NO_FOLDER.match(refusal) is not None


#: `refusal` begins with what IMAPClient says of any command.
_NO_FOLDER = re.compile(r"[a-z]+ failed: (\[NONEXISTENT\]|Mailbox doesn't exist:)", re.IGNORECASE)


def decode_name(text):
    """A folder's name for people: modified UTF-7 decoded, RFC 3501 5.1.3.

    What does not come back when encoded again is no modified UTF-7, and shown as it is.
    """
    raw = text.encode('latin-1')
    try:
        decoded = decode_utf7(raw)
        if encode_utf7(decoded) == raw:
            return clean(decoded) or text
    except (ValueError, LookupError, AssertionError):
        pass  # neither: as it is
    return clean(text) or text


def as_text(value):
    if isinstance(value, bytes):
        return value.decode('ascii', 'replace')
    return str(value)


def number(value):
    """An int of what IMAPClient makes of a number: 5, b'5', [b'5'], or None."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return int(value) if value is not None else None


def within(value, most):
    """That number, or None if it is none from 1 to `most`."""
    return value if value is not None and 1 <= value <= most else None


def agreed(told):
    """The one value that a server told, however often: it can't mean two. None if it told none."""
    if len(set(told)) > 1:
        raise ProtocolError('contradicts itself')
    return number(list(told))


def quoted(text):
    """An IMAP quoted string (RFC 3501 4.3); imaplib quotes only the password."""
    return '"%s"' % text.replace('\\', '\\\\').replace('"', '\\"')
