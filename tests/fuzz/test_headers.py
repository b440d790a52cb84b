"""Mail of strangers: whatever the bytes, text that is fit for a page, and soon."""

import re
import time
from dataclasses import asdict

from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from Products.CPSMailAccess import bodytext
from Products.CPSMailAccess import headers
from Products.CPSMailAccess import presentation
from Products.CPSMailAccess.imapanswers import decode_name
from Products.CPSMailAccess.syncplan import folder_id
from tests.fuzz import examples


#: What must not be in a text for a page: controls, turns of the reading direction, half pairs.
UNFIT = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]')

#: An example that takes longer hangs, or will with more bytes. Processor seconds.
SECONDS_MOST = 3.0

CHARSETS = ('utf-8', 'utf-7', 'utf-16', 'idna', 'punycode', 'unicode_escape', 'hex', 'rot13',
            'zlib', 'undefined', 'mbcs', 'x' * 300, 'a\x00b', '', '..', 'iso-2022-jp', 'charmap')

WORDS = st.builds('=?{}?{}?{}?='.format, st.sampled_from(CHARSETS), st.sampled_from('bBqQx'),
                  st.one_of(st.text('=AZaz09+/_', max_size=12), st.text(max_size=6)))

DATES = st.builds(
    '{}, {} {} {} {}:{}:{} {}'.format, st.sampled_from(('Mon', 'Foo', '')), st.integers(-1, 99),
    st.sampled_from(('Jan', 'Dec', 'Foo', '13')),
    st.sampled_from((0, 69, 99, 1969, 1970, 2005, 9999, 10000, -1, '9' * 400)),
    st.integers(-1, 99), st.integers(-1, 99), st.integers(-1, 99),
    st.sampled_from(('+0000', '-1200', '+9999', '+99999999', 'GMT', 'XYZ', '', '-' + '9' * 400)))


def part():
    """A part of a header or a message."""
    return st.one_of(
        st.binary(max_size=20), WORDS.map(lambda text: text.encode('utf-8', 'surrogatepass')),
        DATES.map(lambda text: text.encode('ascii')),
        st.sampled_from((
            b'\r\n', b'\n', b'\r', b'\r\n ', b'\n\t', b'\r\n\r\n', b': ', b'Subject: ', b'Date: ',
            b'From: ', b'Message-ID: ', b'MIME-Version: 1.0\r\n', b'\xe2\x80\xae', b'\xed\xa0\x80',
            b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\n', b'--x--\r\n',
            b'Content-Type: text/html; charset="utf-7"\r\n\r\n', b'<!--', b'<script>',
            b'&#9999999999;', b'Content-Type: message/rfc822\r\n\r\n',
            b'Content-Transfer-Encoding: base64\r\n',
            b'Content-Transfer-Encoding: x-uuencode\r\n', b'begin 666 \xff\n',
            b"Content-Disposition: attachment; filename*=x''%ff%00\r\n",
            b"Content-Disposition: attachment; filename*0*=a'b'c; filename*99999999=d\r\n")))


MESSAGES = st.lists(part(), max_size=12).map(b''.join)


@given(raw=MESSAGES, times=st.sampled_from((1, 1, 1, 300)))
@example(raw=b'Date: Fri, 31 Dec 9999 23:59:59 -1200\r\n', times=1)
@example(raw=b'=?a?q?', times=100_000)
@example(raw=b'--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n', times=2000)
@examples(60)
def test_a_message_becomes_text(raw, times):
    raw, begin = raw * times, time.process_time()
    envelope = headers.parse_envelope(raw[:16_384])
    text, names = bodytext.readable_text(raw)
    assert time.process_time() - begin < SECONDS_MOST
    shown = [value for value in asdict(envelope).values() if isinstance(value, str)]
    shown += [presentation.moment(envelope.date_at), presentation.name_of(envelope.sender),
              presentation.shortened(envelope.subject), *names]
    for each in [text, *shown]:
        assert type(each) is str and not UNFIT.search(each)
    for each in shown:
        assert len(each) <= headers.FIELD_LENGTH and '\n' not in each
    assert len(text) <= bodytext.TEXT_LENGTH and len(names) <= bodytext.NAMES_MOST
    assert type(headers.identity(envelope, 5, 1.0)) in (str, type(None))


@given(name=st.one_of(
    st.text('&-,+AZaz09/=\x7f\xe9\xff', max_size=20), st.text(max_size=20).map(
        lambda text: '&' + text.encode('utf-16-be', 'surrogatepass').decode('latin-1') + '-')))
@examples(50)
def test_a_folder_name_becomes_text_and_an_id(name):
    shown = decode_name(name)
    assert shown == '' or not re.search('[\ud800-\udfff]', shown) and shown.encode('utf-8')
    id = folder_id(shown, {'folder'}.__contains__)
    assert re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_.-]*', id) and len(id) <= 90
