"""What of a message's bytes there is to read, as text. Pure, and never raises.

The standard library's parser finds the parts, and is kept from all that takes it minutes in a
message made for that: it gets so many lines, parts and levels of them, and the parameters of a
header are cut before it looks for any, which it does in the square of their number.

Imports: the standard library's email package, and headers.
"""

import email.errors
import email.feedparser
import email.message
import email.policy
import email.utils
import html
import re

from .headers import clean
from .headers import clean_lines
from .headers import decode_bytes
from .headers import decode_charset
from .headers import decode_text


#: Longest body text given to a page, in characters. More makes browsers crawl.
TEXT_LENGTH = 200_000

#: So many bytes of all parts are decoded and stripped of tags; a few bytes make a character, and
#: there are texts for which either takes time in the square of their length.
PART_BYTES = 4 * TEXT_LENGTH

#: Most attachments named on a page, and most characters of a name.
NAMES_MOST, NAME_LENGTH = 100, 255

#: A message is parsed up to so many lines, parts, and levels of parts in parts: each line is
#: compared with the boundaries of all levels. 10 MB of attachments have 130,000 lines.
LINES_MOST, PARTS_MOST, LEVELS_MOST = 200_000, 500, 30

#: Most characters and parameters of a header. The name of a file takes up to thirty parameters, if
#: each has a few characters of it (RFC 2231 3).
HEADER_LENGTH, PARAMETERS_MOST = 4000, 100

#: The parser gets so many bytes at once; between them it is seen whether there is too much.
_CHUNK_BYTES = 4096

#: The last line of a text that is not all.
REST = '\n\n[The rest of this message is not shown: it is too long, or has too many parts.]'


class _Part(email.message.Message):
    """A message or a part of one. It knows only the headers that say how it is to be read."""

    level = 0

    def set_raw(self, name, value):
        """The parser found a header; the first of a name counts."""
        if name.lower() in ('content-type', 'content-disposition',
                            'content-transfer-encoding') and name not in self:
            # Of other bytes than ASCII the parser makes what it takes for no text.
            value = decode_bytes(value[:HEADER_LENGTH].encode('ascii', 'surrogateescape'))
            parameters = value.split(';')[:PARAMETERS_MOST]
            # The parser leaves spaces and folds around it, and knows no encoding by such a name.
            super().set_raw(name, ';'.join(parameters).strip())

    def attach(self, payload):
        payload.level = self.level + 1
        super().attach(payload)


def readable_text(raw):
    """(text, names of attachments) of a whole message, for showing.

    All its texts, one after the other: plain ones as they are, text/html without its tags. Of
    alternatives the plain one, if there is anything in it. A message without any text has that of
    the first one attached; else it is ''. It ends with `REST` if there is more.
    """
    try:
        message, is_all = _parsed(raw)
        parts, names = _chosen(message)
        text, parts_are_all = _joined(parts)
    except (ValueError, TypeError, LookupError, AttributeError, IndexError, RecursionError,
            email.errors.MessageError):
        # The parser forgives nearly everything; what is left is shown as it came.
        text, names = decode_bytes(raw[:PART_BYTES]), []
        is_all, parts_are_all = True, len(raw) <= PART_BYTES
    text = clean_lines(text)
    if is_all and parts_are_all and len(text) <= TEXT_LENGTH:
        return text, names
    return text[:TEXT_LENGTH - len(REST)] + REST, names


def _parsed(raw):
    """(the message as a _Part, whether that is all of it)"""
    parts, lines = [], 0

    def make(policy):
        parts.append(_Part(policy))
        return parts[-1]

    parser = email.feedparser.BytesFeedParser(make, policy=email.policy.compat32)
    for start in range(0, len(raw), _CHUNK_BYTES):
        chunk = raw[start:start + _CHUNK_BYTES]
        lines += len(chunk.splitlines())
        if (lines > LINES_MOST or len(parts) > PARTS_MOST
                or any(part.level > LEVELS_MOST for part in parts)):
            return parser.close(), False
        parser.feed(chunk)
    return parser.close(), True


def _chosen(message):
    """(the _Parts to read, the names of attachments)

    What is in an attached message is that one's, not this one's.
    """
    attached, names = None, []
    for part, above in _own_parts(message):
        name, kind = _file_name(part), part.get_content_type()
        if attached is None and part.is_multipart() and kind == 'message/rfc822':
            attached = part.get_payload(0)
        is_choice = above == 'multipart/alternative' and kind.startswith('text/') \
            and not name and part.get_content_disposition() != 'attachment'
        if not is_choice and not _is_text(part, message):
            names.append(name or clean(kind)[:NAME_LENGTH])
    texts = _texts(message, message)
    if not texts and attached is not None:
        texts, more = _chosen(attached)
        names += more
    return texts, names[:NAMES_MOST]


def _own_parts(part, above=''):
    """(each part of a message that is no `multipart`, the kind of what it is in); a message in it
    is one of them."""
    if _has_parts(part):
        for each in part.get_payload():
            yield from _own_parts(each, part.get_content_type())
    else:
        yield part, above


def _has_parts(part):
    return part.is_multipart() and part.get_content_maintype() != 'message'


def _is_text(part, message):
    """Whether that part is for reading, and not a file. A multipart in which no part was found is
    read as it came."""
    return (not part.is_multipart()
            and (part.get_content_type() in ('text/plain', 'text/html')
                 or part.get_content_maintype() == 'multipart')
            and part.get_content_disposition() != 'attachment'
            and (part is message or not _file_name(part)))


def _texts(part, message):
    """What there is to read in a part of a message, in its order."""
    if not _has_parts(part):
        return [part] if _is_text(part, message) and _payload(part).strip() else []
    found = [texts for texts in (_texts(each, message) for each in part.get_payload()) if texts]
    if part.get_content_subtype() == 'alternative':
        plain = [texts for texts in found
                 if not any(text.get_content_type() == 'text/html' for text in texts)]
        found = (plain or found)[:1]
    return [text for texts in found for text in texts]


def _payload(part):
    return part.get_payload(decode=True) or b''


def _joined(parts):
    """(the texts of the parts, one after the other; whether that is all of them)"""
    texts, left, is_all = [], PART_BYTES, True
    for part in parts:
        raw = _payload(part)
        if len(raw) > left:
            is_all = False
            # At the end of a line: half a character would make others of all the rest.
            raw = raw[:left].rpartition(b'\n')[0] or raw[:left]
        texts.append(_part_text(part, raw))
        left -= len(raw)
    return '\n'.join(texts), is_all


def _part_text(part, raw):
    charset = part.get_param('charset')
    if isinstance(charset, tuple):
        charset = charset[2]
    is_html = part.get_content_type() == 'text/html'
    if charset:
        charset = clean(str(charset))
    elif is_html:
        charset = _said_within(raw)
    text = decode_charset(raw, charset)
    return strip_tags(text) if is_html else text


def _said_within(markup):
    """The charset that an HTML text names, unless it is UTF-8 all the same; or None."""
    found = _META.search(markup, 0, _META_BYTES)
    if found is None or found[1].lower().startswith(b'utf'):
        return None
    try:
        markup.decode('utf-8')
    except UnicodeDecodeError:
        return found[1].decode('ascii')
    return None


def _file_name(part):
    name = part.get_filename() or ''
    if isinstance(name, tuple):
        name = email.utils.collapse_rfc2231_value(name)
    return decode_text(str(name))[:NAME_LENGTH]


#: Where an HTML text names its charset, in so many bytes from its beginning.
_META = re.compile(rb'<meta\b[^>]*?\bcharset\s*=\s*["\']?([a-z0-9._:-]+)', re.IGNORECASE)
_META_BYTES = 4096

#: Elements whose content is not for reading, those that begin a line, and those in one line that
#: stand apart.
_HIDDEN = {'script', 'style', 'title', 'head'}
_LINES = set('''
    address article aside blockquote br caption center dd details div dl dt fieldset figcaption
    figure footer form h1 h2 h3 h4 h5 h6 header hr legend li main nav ol option p pre section
    summary table tbody tfoot thead tr ul
'''.split())
_CELLS = {'td', 'th'}
_TAG_NAME = re.compile('/?([a-z][a-z0-9]*)|[!?]', re.IGNORECASE)
_ENDS = {name: re.compile('</%s' % name, re.IGNORECASE) for name in _HIDDEN}
_ENDS['!--'] = re.compile('-->')
#: What is between the name of an element and its end; a value in quotes may have that sign in it.
_ATTRIBUTES = re.compile(r"""(?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')?+)*+""")


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

    def after_values(name):
        place = len(markup)
        if '"' not in endless:
            place = _ATTRIBUTES.match(markup, name.end()).end()
        if place < len(markup):
            return place
        # Some quote is alone: from here on they count no more.
        endless.add('"')
        return markup.find('>', name.end())

    while True:
        start = markup.find('<', place)
        name = _TAG_NAME.match(markup, start + 1) if start >= 0 else None
        if name is None:
            words.append(markup[place:start + 1] if start >= 0 else markup[place:])
            if start < 0:
                break
            place = start + 1
            continue
        if start > place:
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
            place = (after_values(name) if element else end) + 1
        else:
            words.append(markup[start:])
            break
        if element in _LINES:
            words.append('\n')
        elif element in _CELLS and markup[start + 1] != '/' and words \
                and not words[-1][-1].isspace():
            words.append(' ')
    try:
        text = html.unescape(''.join(words))
    except ValueError:
        # A number of thousands of digits that calls itself a character.
        text = ''.join(words)
    return re.sub(r'\n\s*\n+', '\n\n', text).strip()
