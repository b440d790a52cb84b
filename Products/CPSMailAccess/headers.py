"""Header bytes to text. Pure, and never raises: mail is written by strangers.

Decodes RFC 2047 encoded words, raw UTF-8 and Latin-1, and dates however broken. What can't be
understood is shown as it came; control characters are dropped, lengths bounded. Nothing here
escapes for HTML: the page templates do.

Imports: the standard library's email package, and values.
"""

import calendar
import codecs
import email.errors
import email.header
import email.utils
import hashlib
import itertools
import re

from .values import Envelope


#: Header fields asked for: what lists show and what recognises a moved message.
FIELDS = ('DATE', 'SUBJECT', 'FROM', 'TO', 'CC', 'MESSAGE-ID')

#: Longest text kept of one field, in characters. A longer one is spam or an attack, and every
#: message list would carry it.
FIELD_LENGTH = 1000

#: What a text is in that says one of these has to be guessed. The second and third Python knows as
#: character sets; no mail is written in them, and they decode slowly.
_TELL_NOTHING = ('ascii', 'idna', 'punycode')

#: Names of character sets in mail that Python does not know. The first is of Hebrew (RFC 1556).
_OTHER_NAMES = {'iso-8859-8-i': 'iso8859-8', 'windows-874': 'cp874', 'windows-31j': 'cp932',
                'x-sjis': 'cp932', 'x-gbk': 'gbk'}

#: Many programs write the larger of two character sets and name the smaller one.
_REALLY = {'iso8859-1': 'cp1252', 'iso8859-9': 'cp1254', 'iso8859-11': 'cp874', 'tis-620': 'cp874',
           'gb2312': 'gb18030', 'gbk': 'gb18030', 'big5': 'big5hkscs', 'euc_kr': 'cp949',
           'shift_jis': 'cp932', 'euc_jp': 'euc_jis_2004'}

_FIELD = re.compile(rb'^([!-9;-~]+)[ \t]*:(.*)$', re.DOTALL)
_CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+')
#: Characters that turn the reading direction of what follows: a sender could fake a name.
_DIRECTION = re.compile('[\u200e\u200f\u202a-\u202e\u2066-\u2069]')
#: An encoded word. A question mark in one is wrong (RFC 2047 4.2), and often there.
_WORD = re.compile(r'=\?[^?\s]+\?(?:[bB]\?[^?]*|[qQ]\?[^?]*(?:(?<!=)\?(?!=)[^?]*)*)\?=')
_WORDS = re.compile('(?:%s)+' % _WORD.pattern)
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
    text = decode_bytes(raw)
    if '=?' in text:
        text = _BETWEEN_WORDS.sub(r'\1', text)
        text = _WORDS.sub(lambda match: _decode_words(_WORD.findall(match.group(0))), text)
    return clean(text)


def clean(text):
    """`text` in one line, without control and direction characters."""
    text = _DIRECTION.sub('', _CONTROL.sub(' ', text))
    return ' '.join(text.split())


def clean_lines(text):
    """The same in its lines."""
    text = text.replace('\r\n', '\n').replace('\r', '\n')
    return _DIRECTION.sub('', _CONTROL.sub('\ufffd', text))


def decode_bytes(raw):
    """UTF-8, else what programs write that say Latin-1."""
    if isinstance(raw, str):
        return raw
    try:
        return bytes(raw).decode('utf-8')
    except UnicodeDecodeError:
        return bytes(raw).decode(_REALLY['iso8859-1'], 'replace')


def _decode_words(words):
    """The text of encoded words that follow each other.

    The bytes of those in one charset are put together first: many programs cut a character in
    two, which RFC 2047 5 forbids.
    """
    decoded = (_word_bytes(word) for word in words)
    return ''.join(
        decode_charset(b''.join(raw for raw, _charset in group), charset) if charset
        else ''.join(raw for raw, _charset in group)
        for charset, group in itertools.groupby(decoded, lambda item: item[1]))


def _word_bytes(word):
    """(the bytes in an encoded word, their charset), or (the word as it came, None)."""
    try:
        (raw, charset), = email.header.decode_header(word)
    except (email.errors.HeaderParseError, ValueError):
        return word, None
    # Broken base64 decodes to nothing; what came says more.
    if isinstance(raw, str) or not charset or (not raw and word.split('?')[3]):
        return word, None
    return raw, charset


def decode_charset(raw, charset):
    """Bytes to text by a charset that may be unknown, absent or a lie."""
    try:
        # RFC 2231 5: its language may follow.
        said = (charset or 'ascii').partition('*')[0].lower()
        name = codecs.lookup(_OTHER_NAMES.get(said, said)).name
        if name in _TELL_NOTHING:
            return decode_bytes(raw)
        return raw.decode(_REALLY.get(name, name), 'replace')
    except (LookupError, ValueError, TypeError):
        # An unknown name, a name with NUL in it, or a codec that makes no text (`hex`).
        return decode_bytes(raw)


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
