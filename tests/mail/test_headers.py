"""headers: bytes of strangers become text, and nothing raises."""

import random

import pytest

from Products.CPSMailAccess import bodytext
from Products.CPSMailAccess import headers
from Products.CPSMailAccess.values import Envelope


@pytest.mark.parametrize('raw, text', [
    (b'plain', 'plain'),
    (b'', ''),
    (b'=?utf-8?b?w6k=?= tude', '\xe9 tude'),
    (b'=?iso-8859-1?Q?caf=E9?=', 'caf\xe9'),
    (b'=?utf-8?q?a?= =?utf-8?q?b?=', 'ab'),
    (b'=?utf-8?q?a?=\r\n =?utf-8?q?b?=', 'ab'),
    (b'x =?utf-8?q?a?= y', 'x a y'),
    (b'=?utf-8?b?w?= =?utf-8?q?a?=', '=?utf-8?b?w?=a'),
    (b'=?utf-8?q?caf=C3?= =?UTF-8?b?qQ==?=', 'caf\xe9'),
    (b'=?utf-8?q?=C3?= =?iso-8859-1?q?=E9?=', '\ufffd\xe9'),
    (b'=?iso-2022-jp?b?GyRCRnwbKEI=?= =?iso-2022-jp?b?GyRCS1wbKEI=?=', '\u65e5\u672c'),
    (b'=?utf-8?q?=C3?= x =?utf-8?q?=A9?=', '\ufffd x \ufffd'),
    (b'=?no-such-charset?q?caf=C3=A9?=', 'caf\xe9'),
    (b'=?iso-8859-2*pl?q?=B3?=', '\u0142'),
    (b'=?ISO-8859-8-I?q?=F9=EC=E5=ED?=', '\u05e9\u05dc\u05d5\u05dd'),
    (b'=?windows-874?q?=A1?= =?x-sjis?b?k/qWew==?=', '\u0e01\u65e5\u672c'),
    (b'=?us-ascii?q?caf=C3=A9?= or =?us-ascii?q?caf=E9?= ', 'caf\xe9 or caf\xe9'),
    (b'=?iso-8859-1?q?=93x=94_=80?=', '\u201cx\u201d \u20ac'),
    (b'\x93x\x94 \x80 \x81', '\u201cx\u201d \u20ac \ufffd'),
    ('=?gb2312?q?\u9555\u57fa?='.encode('gb18030'), '\u9555\u57fa'),
    (b'=?iso-8859-9?q?=93=DEi=94?=', '\u201c\u015ei\u201d'),
    (b'=?tis-620?q?=A1=85?= =?iso-8859-11?q?=85?=', '\u0e01\u2026\u2026'),
    (b'=?big5?b?nfar1w==?= =?euc-jp?b?raE=?=', '\u55ba\u5ea6\u2460'),
    (b'=?gbk?q?=819=EE9?=', '\u3400'),
    (b'=?utf-8?b?!!!?=', '=?utf-8?b?!!!?='),
    (b'=?utf-8?q?broken', '=?utf-8?q?broken'),
    (b'=?hex?q?abc?=', 'abc'),
    (b'=?utf-8?q?What_now??= =?utf-8?q?_a?b?=', 'What now? a?b'),
    (b'=?utf-8?q?_a =?utf-8?q?b?=', '=?utf-8?q?_a b'),
    (b'caf\xc3\xa9', 'caf\xe9'),
    (b'caf\xe9', 'caf\xe9'),
    (b'a\x00b\x07c\x1b[31m', 'a b c [31m'),
    (b'=?utf-8?q?a=0D=0ABcc:_x?=', 'a Bcc: x'),
    ('evil \u202egpj.exe'.encode(), 'evil gpj.exe'),
    (b'a  \t b', 'a b'),
    (b'=?utf-8?q?' + b'x' * 500 + b'?=', 'x' * 500),
])
def test_header_values_become_one_line_of_text(raw, text):
    assert headers.decode_text(raw) == text


@pytest.mark.parametrize('text, seconds', [
    ('Mon, 11 Jul 2005 14:05:00 +0200', 1121083500.0),
    ('Mon, 11 Jul 2005 14:05:00 GMT', 1121090700.0),
    ('11 Jul 2005 14:05:00', 1121090700.0),
    ('Mon, 11 Jul 05 14:05:00 +0000', 1121090700.0),
    ('Mon, 11 Jul 2005 14:05:00 +9999', 1121090700.0),
    ('', None),
    ('yesterday', None),
    ('Mon, 99 Jul 2005 14:05:00 +0200', None),
    ('Mon, 11 Foo 2005 14:05:00 +0200', None),
    ('Mon, 11 Jul 99999 14:05:00 +0200', None),
    ('Mon, 11 Jul 2005 77:05:00 +0200', None),
    ('Thu, 01 Jan 1970 00:00:00 +0000', 0.0),
    ('0000-00-00', None),
])
def test_dates_however_broken(text, seconds):
    assert headers.parse_date(text) == seconds


def test_fields_are_unfolded_and_the_first_of_a_name_wins():
    raw = b'Subject: one\r\n two\r\nsubject: other\r\nX garbage\r\n no field\r\nFrom: a@b\r\n\r\n'
    assert headers.split_fields(raw) == {'subject': b'one two', 'from': b'a@b'}


@pytest.mark.parametrize('end', [b'\r\n', b'\n', b'\r'])
def test_any_line_end_will_do(end):
    assert headers.parse_envelope(b'Subject: a' + end + b'From: b' + end).sender == 'b'


@pytest.mark.parametrize('raw', [
    b'', b'\r\n', b'\x00' * 50, b':', b': :\r\n', b'\xff\xfe\xfd', b'Subject', b'Subject:',
    b'Date: \xff\r\nMessage-ID: \x00\x00\r\n', b' continuation of nothing\r\n',
    b'Subject: ' + b'=?utf-8?b?' * 200,
])
def test_garbage_gives_an_envelope(raw):
    assert isinstance(headers.parse_envelope(raw), Envelope)


def test_no_bytes_at_all_make_it_raise():
    chance = random.Random(20050711)
    pieces = [b'Subject', b'Date', b':', b' ', b'\r\n', b'\n', b'=?', b'?=', b'?b?', b'?q?',
              b'utf-8', b'\x00', b'\xff', b'=', b'(', b'"', b'Content-Type: text/plain',
              b'; charset=', b"*0*=utf-8''", b'%ff', b'multipart/mixed; boundary=x', b'--x',
              b'Content-Transfer-Encoding: base64', b'Content-Disposition: attachment',
              b'; filename', b'1', b'<!', b'[', b'<![']
    for _ in range(3000):
        raw = b''.join(chance.choices(pieces, k=chance.randrange(25)))
        headers.parse_envelope(raw)
        text, names = bodytext.readable_text(raw)
        assert isinstance(text, str) and all(isinstance(name, str) for name in names)


def test_lengths_are_bounded():
    envelope = headers.parse_envelope(
        b'Subject: ' + b'x' * 100_000 + b'\r\nTo: ' + b'a@b,\r\n ' * 50_000)
    assert len(envelope.subject) == headers.FIELD_LENGTH
    assert len(envelope.to) <= headers.FIELD_LENGTH


def test_identity_needs_a_message_id_and_tells_differences():
    envelope = headers.parse_envelope(b'Message-ID: <1@x>\r\nSubject: a\r\n')
    other = headers.parse_envelope(b'Message-ID: <1@x>\r\nSubject: b\r\n')
    assert headers.identity(envelope, 10, 5.0) == headers.identity(envelope, 10, 5.0)
    assert headers.identity(envelope, 10, 5.0) != headers.identity(envelope, 11, 5.0)
    assert headers.identity(envelope, 10, 5.0) != headers.identity(envelope, 10, 6.0)
    assert headers.identity(envelope, 10, 5.0) != headers.identity(other, 10, 5.0)
    assert headers.identity(headers.parse_envelope(b'Subject: a\r\n'), 10, 5.0) is None
    assert headers.identity(envelope, 10, None) is None
