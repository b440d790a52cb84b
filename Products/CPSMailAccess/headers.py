"""Header bytes to text. Pure, and never raises: mail is written by strangers.

Decodes RFC 2047 encoded words, RFC 2231 parameters (in file names), raw UTF-8 and Latin-1,
and dates however broken. What can't be understood is shown as it came; control characters
are dropped, lengths bounded. Nothing here escapes for HTML: the page templates do.

Imports: the standard library's email package, and values.
"""

import calendar
import codecs
import email.errors
import email.header
import email.message
import email.parser
import email.policy
import email.utils
import hashlib
import html
import re

from .values import Envelope


#: Header fields asked for: what lists show and what recognises a moved message.
FIELDS = ('DATE', 'SUBJECT', 'FROM', 'TO', 'CC', 'MESSAGE-ID')

#: Longest text kept of one field, in characters. A longer one is spam or an attack, and every
#: message list would carry it.
FIELD_LENGTH = 1000

#: Longest body text given to a page, in characters. More makes browsers crawl.
TEXT_LENGTH = 200_000

#: So many bytes of a part are decoded and stripped of tags; a few bytes make a character, and
#: there are texts for which either takes time in the square of their length.
PART_BYTES = 4 * TEXT_LENGTH

#: Most attachments named on a page.
NAMES_MOST = 100

#: Python knows these as character sets. No mail is written in them, and they decode slowly.
_SLOW_CHARSETS = ('idna', 'punycode')

_FIELD = re.compile(rb'^([!-9;-~]+)[ \t]*:(.*)$', re.DOTALL)
_CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+')
#: Characters that turn the reading direction of what follows: a sender could fake a name.
_DIRECTION = re.compile('[\u200e\u200f\u202a-\u202e\u2066-\u2069]')
_WORD = re.compile(r'=\?[^?\s]+\?[bBqQ]\?[^?]*\?=')
_BETWEEN_WORDS = re.compile(r'(\?=)\s+(?==\?[^?\s]+\?[bBqQ]\?)')


def parse_envelope(header):
    """The Envelope in a block of header bytes, whatever they are."""
    fields = split_fields(header or b'')

    def text(name, length=FIELD_LENGTH):
        return decode_text(fields.get(name, b''))[:length]

    date = text('date', 100)
    return Envelope(
        subject=text('subject'),
        sender=text('from'),
        to=text('to'),
        cc=text('cc'),
        date=date,
        date_at=parse_date(date),
        message_id=text('message-id').strip().replace(' ', ''),
    )


def split_fields(header):
    """{lower-case name: unfolded value bytes}; the first of several equal names wins.

    Lines may end with CRLF, LF or CR. What is no field and no continuation is skipped.
    """
    fields = {}
    name = None
    for line in re.split(rb'\r\n|\n|\r', bytes(header)):
        if line[:1] in (b' ', b'\t') and name is not None:
            if len(fields[name]) < 4 * FIELD_LENGTH:
                fields[name] += b' ' + line.strip()
            continue
        match = _FIELD.match(line)
        if match is None:
            name = None
            continue
        name = match.group(1).decode('ascii').lower()
        if name in fields:
            name = None
        else:
            fields[name] = match.group(2).strip()
    return fields


def decode_text(raw):
    """Text of a header value: encoded words, else UTF-8, else Latin-1; tidy white space."""
    text = _decode_bytes(raw)
    if '=?' in text:
        text = _BETWEEN_WORDS.sub(r'\1', text)
        text = _WORD.sub(lambda match: _decode_word(match.group(0)), text)
    return clean(text)


def clean(text):
    """`text` in one line, without control and direction characters."""
    text = _DIRECTION.sub('', _CONTROL.sub(' ', text))
    return ' '.join(text.split())


def _decode_bytes(raw):
    if isinstance(raw, str):
        return raw
    try:
        return bytes(raw).decode('utf-8')
    except UnicodeDecodeError:
        return bytes(raw).decode('latin-1')


def _decode_word(word):
    try:
        (raw, charset), = email.header.decode_header(word)
    except (email.errors.HeaderParseError, ValueError):
        return word
    if isinstance(raw, str):
        return raw
    text = decode_charset(raw, charset)
    # Broken base64 decodes to nothing; what came says more.
    return text if text or not word.split('?')[3] else word


def decode_charset(raw, charset):
    """Bytes to text by a charset that may be unknown, absent or a lie."""
    try:
        if charset and codecs.lookup(charset).name in _SLOW_CHARSETS:
            return _decode_bytes(raw)
        return raw.decode(charset or 'utf-8', 'replace')
    except (LookupError, ValueError, TypeError):
        # An unknown name, a name with NUL in it, or a codec that makes no text (`hex`).
        return _decode_bytes(raw)


def parse_date(text):
    """POSIX seconds of an RFC 5322 date, or None. A date without zone counts as UTC."""
    try:
        parsed = email.utils.parsedate_tz(text)
        if parsed is None:
            return None
        year, month, day, hour, minute, second = parsed[:6]
        if not (1 <= month <= 12 and 1 <= day <= 31 and 1970 <= year <= 9999):
            return None
        if hour > 24 or minute > 59 or second > 60:
            return None
        seconds = calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))
        zone = parsed[9] or 0
        # No zone is further than 14 hours away; a wilder one is garbage.
        return float(seconds - zone if abs(zone) <= 14 * 3600 else seconds)
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError):
        return None


def identity(envelope, size, internal_at):
    """A key by which a moved or copied message is known again, or None.

    Message-ID, size, arrival time and the shown fields together: a Message-ID alone is
    chosen by the sender, and wrong bodies must never be shown.
    """
    if not envelope.message_id or internal_at is None:
        return None
    parts = (envelope.message_id, str(size), repr(float(internal_at)), envelope.date,
             envelope.subject, envelope.sender, envelope.to, envelope.cc)
    joined = '\0'.join(parts).encode('utf-8', 'replace')
    return hashlib.sha256(joined).hexdigest()[:32]


def readable_text(raw):
    """(text, names of attachments) of a whole message, for showing.

    The first text/plain part; else the first text/html part without its tags; else ''.
    """
    try:
        message = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(raw)
        plain, markup, names = _parts(message)
    except (ValueError, TypeError, LookupError, AttributeError, IndexError, RecursionError,
            email.errors.MessageError):
        # The parser forgives nearly everything; what is left is shown as it came.
        return _tidy(_decode_bytes(raw)), []
    if plain is None and markup is not None:
        plain = strip_tags(markup)
    return _tidy(plain or ''), names


def _parts(message):
    plain = markup = None
    names = []
    for part in message.walk():
        if part.is_multipart():
            continue
        name = _file_name(part)
        if name or part.get_content_disposition() == 'attachment':
            if len(names) < NAMES_MOST:
                names.append(name or part.get_content_type())
        elif part.get_content_type() == 'text/plain' and plain is None:
            plain = _part_text(part)
        elif part.get_content_type() == 'text/html' and markup is None:
            markup = _part_text(part)
    return plain, markup, names


def _part_text(part):
    raw = (part.get_payload(decode=True) or b'')[:PART_BYTES]
    charset = part.get_param('charset')
    if isinstance(charset, tuple):
        charset = charset[2]
    return decode_charset(raw, clean(str(charset)) if charset else None)


def _file_name(part):
    name = part.get_filename() or ''
    if isinstance(name, tuple):
        name = email.utils.collapse_rfc2231_value(name)
    return decode_text(str(name))[:255]


def _tidy(text):
    text = text.replace('\r\n', '\n').replace('\r', '\n')
    return _DIRECTION.sub('', _CONTROL.sub('\ufffd', text))[:TEXT_LENGTH]


#: Elements whose content is not for reading, and those that begin a line.
_HIDDEN = {'script', 'style', 'title', 'head'}
_LINES = {'p', 'br', 'div', 'tr', 'li', 'h1', 'h2', 'h3', 'table'}
_TAG_NAME = re.compile('/?([a-z][a-z0-9]*)|[!?]', re.IGNORECASE)
_ENDS = {name: re.compile('</%s' % name, re.IGNORECASE) for name in _HIDDEN}
_ENDS['!--'] = re.compile('-->')


def strip_tags(markup):
    """The words of an HTML text. Not a sanitiser: its result is escaped like any text.

    Not by html.parser: what never ends, as in '<!--<!--<!--', takes it minutes. Here each
    kind of end is looked for once when there is none.
    """
    words, place, endless = [], 0, set()

    def after(end, start):
        found = None if end in endless else _ENDS[end].search(markup, start)
        if found is None:
            endless.add(end)
        return found

    while True:
        start = markup.find('<', place)
        name = _TAG_NAME.match(markup, start + 1) if start >= 0 else None
        if name is None:
            words.append(markup[place:start + 1] if start >= 0 else markup[place:])
            if start < 0:
                break
            place = start + 1
            continue
        words.append(markup[place:start])
        element = (name[1] or '').lower()
        comment = after('!--', start + 4) if markup.startswith('<!--', start) else None
        hidden = after(element, name.end()) if element in _HIDDEN and markup[start + 1] != '/' \
            else None
        end = markup.find('>', start)
        if comment is not None:
            place = comment.end()
        elif hidden is not None:
            place = hidden.start()
        elif end >= 0:
            place = end + 1
        else:
            words.append(markup[start:])
            break
        if element in _LINES:
            words.append('\n')
    try:
        text = html.unescape(''.join(words))
    except ValueError:
        # A number of thousands of digits that calls itself a character.
        text = ''.join(words)
    return re.sub(r'\n\s*\n+', '\n\n', text).strip()
