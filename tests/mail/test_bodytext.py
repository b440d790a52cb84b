"""bodytext: what there is to read in a message, whatever its bytes, and soon."""

import re
import time

import pytest

from Products.CPSMailAccess import bodytext


#: The header of a message of several parts.
MIXED = b'Content-Type: multipart/mixed; boundary=x\r\n\r\n'

#: Processor seconds; what fails takes minutes, and what does not a tenth of this.
SECONDS_MOST = 5


def reads_soon(raw):
    """What readable_text says, in no time."""
    begin = time.process_time()
    found = bodytext.readable_text(raw)
    assert time.process_time() - begin < SECONDS_MOST
    return found


def test_text_of_a_multipart_message_and_its_attachments():
    raw = (b'Content-Type: multipart/mixed; boundary=x\r\n\r\n'
           b'--x\r\nContent-Type: text/plain; charset=iso-8859-1\r\n'
           b'Content-Transfer-Encoding: quoted-printable\r\n\r\ncaf=E9\r\n'
           b'--x\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment;\r\n'
           b" filename*=utf-8''r%C3%A9sum%C3%A9.pdf\r\n\r\n%PDF\r\n--x--\r\n")
    text, names = bodytext.readable_text(raw)
    assert text.strip() == 'caf\xe9'
    assert names == ['r\xe9sum\xe9.pdf']


def test_html_alone_is_shown_without_tags_and_scripts():
    raw = (b'Content-Type: text/html\r\n\r\n<p>Hello <b>you</b></p>'
           b'<script>alert(1)</script><p>bye &amp; go</p>')
    text, _names = bodytext.readable_text(raw)
    assert 'Hello you' in text and 'bye & go' in text and 'alert' not in text


@pytest.mark.parametrize('meta, raw, text', [
    ('<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">',
     '\u043f\u0440\u0438'.encode('cp1251'), '\u043f\u0440\u0438'),
    ("<META CHARSET='ISO-8859-2'/>", b'\xb3', '\u0142'),
    # What is UTF-8, or can not be in the charset that it names, was written anew since.
    ('<meta charset=koi8-r>', b'\xc3\xa9', '\xe9'), ('<meta charset=utf-8>', b'\xe9', '\xe9'),
    ('<meta charset=utf-16>', b'\xe9', '\xe9'), ('<meta charset=none-such>', b'\xe9', '\xe9')])
def test_markup_says_its_charset_where_its_header_does_not(meta, raw, text):
    markup = b'<html><head>' + meta.encode() + b'</head><p>' + raw
    assert bodytext.readable_text(b'Content-Type: text/html\r\n\r\n' + markup)[0] == text
    said = b'Content-Type: text/html; charset=latin-1\r\n\r\n' + markup
    assert bodytext.readable_text(said)[0] == raw.decode('cp1252')


def mixed(*parts):
    """A message of those parts, each with a header of its own."""
    return MIXED + b''.join(b'--x\r\n%s\r\n' % part for part in parts) + b'--x--\r\n'


ATTACHED = (b'Content-Type: message/rfc822\r\nContent-Disposition: attachment; filename=a.eml\r\n'
            b'\r\nSubject: theirs\r\n\r\nTheir words.')


def test_what_an_attached_message_says_is_not_taken_for_what_this_one_says():
    raw = mixed(ATTACHED, b'Content-Type: text/html\r\n\r\n<p>My words.</p>')
    assert bodytext.readable_text(raw) == ('My words.', ['a.eml'])


def test_an_attached_message_is_read_where_there_is_nothing_else():
    inner = mixed(b'\r\nHello.', b'Content-Type: image/png; name=b.png\r\n\r\nx')
    for raw in (mixed(ATTACHED), ATTACHED):
        assert bodytext.readable_text(raw)[0].strip() == 'Their words.'
    text, names = bodytext.readable_text(mixed(b'Content-Type: message/rfc822\r\n\r\n' + inner))
    assert (text.strip(), names) == ('Hello.', ['message/rfc822', 'b.png'])


@pytest.mark.parametrize('header', [
    b'Content-Type: text/plain; name="note.txt"',
    b'Content-Disposition: inline; filename=note.txt'])
def test_a_message_that_is_a_text_is_read_though_it_has_the_name_of_a_file(header):
    assert bodytext.readable_text(header + b'\r\n\r\nHello.')[0] == 'Hello.'
    assert bodytext.readable_text(mixed(header + b'\r\n\r\nHello.')) == ('', ['note.txt'])


def test_a_message_that_is_a_file_is_named():
    raw = b'Content-Type: application/pdf; name=a.pdf\r\n\r\n%PDF'
    assert bodytext.readable_text(raw) == ('', ['a.pdf'])


def test_markup_is_read_where_the_plain_text_is_empty():
    raw = mixed(b'Content-Type: text/plain\r\n\r\n \r\n',
                b'Content-Type: text/html\r\n\r\n<p>Hello.</p>')
    assert bodytext.readable_text(raw)[0] == 'Hello.'


@pytest.mark.parametrize('header, raw', [
    (b'', 'na\xefve'.encode('latin-1')), (b'', 'na\xefve'.encode()),
    (b'Content-Type: text/plain; charset=us-ascii', 'na\xefve'.encode('latin-1')),
    (b'Content-Type: text/plain; charset=iso-8859-1', 'na\xefve \u201cx\u201d'.encode('cp1252')),
    (b'Content-Type: text/plain; charset=GB2312', '\u9555\u57fa'.encode('gbk'))])
def test_a_text_whose_charset_is_not_said_or_too_small_is_read(header, raw):
    text, _names = bodytext.readable_text(header + b'\r\n\r\n' + raw)
    assert text.strip() in ('na\xefve', 'na\xefve \u201cx\u201d', '\u9555\u57fa')


@pytest.mark.parametrize('said', [
    b' quoted-printable ', b'\r\n quoted-printable', b' Quoted-Printable'])
def test_the_encoding_of_a_text_is_known_whatever_is_around_its_name(said):
    text, _names = bodytext.readable_text(
        b'Content-Transfer-Encoding:' + said + b'\r\n\r\nna=C3=AFve')
    assert text == 'na\xefve'


def test_a_long_text_is_not_cut_in_the_middle_of_a_character():
    line = ('\xe9' * 35 + '\r\n').encode()
    for spaces in range(2):
        text, _names = bodytext.readable_text(
            b'\r\n' + b' ' * spaces + line * (bodytext.PART_BYTES // len(line) + 1))
        assert text.startswith(' ' * spaces + '\xe9' * 35 + '\n') and text.endswith(bodytext.REST)


LETTER = b'Content-Type: text/html\r\n\r\n<p>The letter.</p>'
FOOTER = b'Content-Type: text/plain\r\nContent-Disposition: inline\r\n\r\nThe list.'


@pytest.mark.parametrize('parts, text', [
    ((LETTER, FOOTER), 'The letter.\nThe list.'),
    ((FOOTER, b'Content-Type: image/png; name=a.png\r\n\r\nx', b'\r\nThe rest.'),
     'The list.\nThe rest.'),
    ((b'Content-Type: multipart/alternative; boundary=y\r\n\r\n--y\r\n\r\nIn short.\r\n--y\r\n'
      + LETTER + b'\r\n--y--', FOOTER), 'In short.\nThe list.'),
    ((b'Content-Type: multipart/alternative; boundary=y\r\n\r\n--y\r\n\r\n \r\n--y\r\n'
      + LETTER + b'\r\n--y--', FOOTER), 'The letter.\nThe list.'),
    ((b'\r\n \r\n', ATTACHED), 'Their words.'),
], ids=['markup', 'picture', 'plain alternative', 'empty alternative', 'attached message'])
def test_all_texts_of_a_message_are_read(parts, text):
    # A mailing list puts its text behind that of the letter, a mail program some behind a picture.
    assert bodytext.readable_text(mixed(*parts))[0].strip() == text


def test_a_file_without_a_name_is_named_by_its_kind():
    raw = mixed(FOOTER, b'Content-Type: application/pdf\r\n\r\n%PDF',
                b'Content-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR',
                b'Content-Type: a/b\0\x1b[c' + b'd' * 999 + b'\r\n\r\nx')
    text, names = bodytext.readable_text(raw)
    assert (text, names[:2]) == ('The list.', ['application/pdf', 'text/calendar'])
    assert names[2].startswith('a/b [cd') and len(names[2]) == bodytext.NAME_LENGTH


@pytest.mark.parametrize('charset', ['utf-8', 'latin-1'])
@pytest.mark.parametrize('header', [
    'Content-Type: application/pdf; name="r\xe9sum\xe9.pdf"',
    'Content-Disposition: attachment;\r\n filename="r\xe9sum\xe9.pdf"'])
def test_a_name_of_a_file_whose_charset_is_not_said_is_read(header, charset):
    raw = mixed(FOOTER, header.encode(charset) + b'\r\n\r\n%PDF')
    assert bodytext.readable_text(raw) == ('The list.', ['r\xe9sum\xe9.pdf'])


def test_an_alternative_that_is_not_shown_is_no_file():
    raw = mixed(FOOTER, b'Content-Type: text/x-amp-html\r\n\r\nx', LETTER)
    assert bodytext.readable_text(raw.replace(b'/mixed', b'/alternative')) == ('The list.', [])


@pytest.mark.parametrize('header', [
    b'Content-Type: multipart/mixed', b'Content-Type: multipart/mixed; boundary=y'])
def test_parts_that_can_not_be_told_apart_are_read_as_they_came(header):
    text, names = bodytext.readable_text(header + b'\r\n\r\n--x\r\n\r\nHello.\r\n--x--\r\n')
    assert 'Hello.' in text and names == []


@pytest.mark.parametrize('markup, words', [
    ('a<br>b<div>c</div>', 'a\nb\nc'), ('a < b <3 c>', 'a < b <3 c>'), ('a<', 'a<'),
    ('<!DOCTYPE html><html><head><title>no</title></head><body>yes</body>', 'yes'),
    ('a<!-- <b>no --> b<!-->c', 'a bc'), ('a<!-- b', 'a<!-- b'),
    ('<STYLE>no</Style >yes', 'yes'), ('<script>a<b</script', '</script'), ('</p>x', 'x'),
    ('<?xml?>x', 'x'), ('&lt;b&gt; &eacute; &#233;', '<b> \xe9 \xe9'),
    ('<a href="x">y</a', 'y</a'),
    ('&#%s;' % ('9' * 5000), '&#%s;' % ('9' * 5000)), ('a\n \n\n\nb', 'a\n\nb'), ('', '')])
def test_words_of_markup(markup, words):
    assert bodytext.strip_tags(markup) == words


@pytest.mark.parametrize('markup, words', [
    ('<tr><td>Total</td><td>25</td></tr><tr><th>a<th>b', 'Total 25\na b'),
    ('<tr> <td> a </td>\n<td>b</td>', 'a \nb'), ('<td></td><td>a', 'a'),
    ('<h4>Title</h4>Text<hr/>more', 'Title\nText\nmore'), ('<pre>a\n  b</pre>c', 'a\n  b\nc'),
    ('a<blockquote>b</blockquote>c<dl><dt>d<dd>e</dl>f', 'a\nb\nc\nd\ne\nf'),
    ('<section>a</section><center>b</center>c', 'a\nb\nc'), ('a<b>b</b><small>c</small>', 'abc')])
def test_words_of_markup_that_stand_apart_are_not_joined(markup, words):
    assert re.sub('\n+', '\n', bodytext.strip_tags(markup)) == words


@pytest.mark.parametrize('markup, words', [
    ('<img alt="a > b">c', 'c'), ("<a title = 'x>y' href=z>c</a>", 'c'),
    ("<p class=don't>it's</p>", "it's"), ('<a b="c>d</a>', 'd'), ('<i a=b"c>d"', 'd"')])
def test_a_value_of_an_attribute_is_no_word_of_markup(markup, words):
    assert bodytext.strip_tags(markup) == words


@pytest.mark.parametrize('drop', [
    '<', '<!--', '<a ', '<![', '<!', '&#', '</', '<a b="', '<script>', '<?', '<script></',
    '<head>', '<style></styl', '\n ', '<td>', '<a =">" ="', '<a =\'"', '<a =   '])
def test_markup_without_end_takes_no_time(drop):
    # html.parser took minutes over some of these, in a web thread.
    reads_soon(b'Content-Type: text/html\r\n\r\n' + drop.encode() * (1_000_000 // len(drop)))


def test_texts_that_decode_slowly_and_thousands_of_parts_take_no_time():
    reads_soon(b'Content-Type: text/plain; charset=punycode\r\n\r\na-' + b'b9' * 400_000)
    part = b'--x\r\nContent-Disposition: attachment\r\n\r\n\r\n'
    _text, names = reads_soon(MIXED + part * 5000)
    assert len(names) == bodytext.NAMES_MOST


def levels(kind, count):
    """The beginning of a message with so many parts in each other."""
    if kind == 'message':
        return b'Content-Type: message/rfc822\r\n\r\n' * count
    return b''.join(b'Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n'
                    % (number, number) for number in range(count))


@pytest.mark.parametrize('raw', [
    b'Content-Type: text/plain; a="' + b';' * 1_000_000 + b'\r\n\r\nHi',
    b'Content-Type: multipart/mixed; a="' + b';' * 1_000_000 + b'"; boundary=x\r\n\r\n--x\r\n',
    b'Content-Type: text/plain; a="' + b';\r\n ' * 250_000 + b'\r\n\r\nHi',
    b'Content-Disposition: inline; a="' + b'\\";' * 300_000 + b'\r\n\r\nHi',
    b'Content-Type: text/plain' + b''.join(b';\r\n a*%d=b' % number for number in range(90_000)),
    b'Content-Type: multipart/mixed; boundary=x\r\n\r\n'
    + (b'--x\r\nContent-Type: text/x; a="' + b';' * 20_000 + b'\r\n\r\n\r\n') * 500,
    b'Content-Type: multipart/mixed; boundary=x\r\n\r\n' + b'--x\n\n' * 400_000,
    b'a: b\r\n' * 150_000 + b'Content-Type: multipart/mixed; boundary=x\r\n\r\n'
    + b'--x\n\n' * 200_000,
    levels('multipart', 400) + b'--\n' * 3_000_000, levels('message', 300_000),
    MIXED + (b'--x\r\nContent-Type: text/plain; charset=punycode\r\n\r\na-' + b'b9' * 10_000
             + b'\r\n') * 490,
    MIXED + (b'--x\r\nContent-Type: text/html\r\n\r\n' + b'<!--' * 5000 + b'\r\n') * 490,
    levels('multipart', 20) + b'--\n' * 3_000_000, levels('multipart', 200_000),
    b'\r\n' + b'\n' * 10_000_000, b'\r\n' + b'\r' * 10_000_000, b'a:\n' * 3_000_000,
])
def test_a_message_made_to_be_slow_takes_no_time(raw):
    # The first takes the parser of the standard library twenty minutes by itself.
    reads_soon(raw)


def test_a_header_made_to_be_slow_hides_no_text_and_no_other_attachment():
    text, names = reads_soon(
        MIXED + b'--x\r\nContent-Type: text/plain; a="' + b';' * 1_000_000 + b'\r\n\r\nHello\r\n'
        b'--x\r\nContent-Disposition: attachment; filename=y.pdf\r\n\r\n\r\n--x--\r\n')
    assert text.strip() == 'Hello' and names == ['y.pdf']


def test_a_long_name_of_a_file_in_pieces_is_read():
    pieces = ''.join('; filename*%d*=%s%s' % (number, '' if number else "utf-8''", '%C3%A9' * 9)
                     for number in range(28))
    _text, names = reads_soon(
        b'Content-Disposition: attachment' + pieces.encode() + b'\r\n\r\nx')
    assert names == ['\xe9' * 252]


def test_ten_megabytes_of_attachments_are_looked_into_as_a_whole():
    line = b'QUJD' * 19 + b'\r\n'
    part = b'--x\r\nContent-Disposition: attachment; filename=%d.bin\r\n\r\n'
    text, names = reads_soon(
        MIXED + b'--x\r\n\r\nHello\r\n' + part % 1 + line * 63_000 + part % 2 + line * 63_000
        + part % 3 + b'\r\n--x--\r\n')
    assert text.strip() == 'Hello' and names == ['1.bin', '2.bin', '3.bin']


@pytest.mark.parametrize('raw', [
    b'\r\n' + b'x\n' * bodytext.LINES_MOST, b'\r\n' + b'x' * (bodytext.TEXT_LENGTH + 1),
    b'Content-Type: text/html\r\n\r\nx' + b'<b></b>' * bodytext.PART_BYTES,
    MIXED + b'--x\r\n\r\nx\r\n' + b'--x\r\n\r\n\r\n' * (2000 + bodytext.PARTS_MOST),
    levels('multipart', 2000 + bodytext.LEVELS_MOST)])
def test_a_text_that_is_not_all_says_so(raw):
    text, _names = bodytext.readable_text(raw)
    assert text.endswith(bodytext.REST) and len(text) <= bodytext.TEXT_LENGTH
    assert text.startswith('x') or raw.startswith(b'Content-Type: multipart')


@pytest.mark.parametrize('raw', [b'\r\n' + b'x' * bodytext.TEXT_LENGTH, b'', b'\r\n',
                                 MIXED + b'--x\r\n\r\nx\r\n' * 400])
def test_a_text_that_is_all_says_nothing_of_a_rest(raw):
    text, _names = bodytext.readable_text(raw)
    assert bodytext.REST not in text
