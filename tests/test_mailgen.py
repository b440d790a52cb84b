"""The mail generator: the same bytes for a seed, and every feature really there."""

import email
import email.policy
import hashlib
import re
from email.header import decode_header

import pytest

from bench.mailgen import FEATURES
from bench.mailgen import FOLDERS
from bench.mailgen import messages


@pytest.fixture(scope='module')
def mails():
    return list(messages(seed=1, user='alice', count=100))


@pytest.fixture(scope='module')
def heads(mails):
    """The header part of each message, bytes, unfolded."""
    return [re.sub(rb'\r\n[ \t]+', b' ', mail.message.partition(b'\r\n\r\n')[0])
            for mail in mails]


def values(heads, name):
    """All values of a header field, over all messages."""
    pattern = re.compile(rb'(?im)^%s: ?([^\r\n]*)' % re.escape(name))
    return [value for head in heads for value in pattern.findall(head)]


def digest(mails):
    return hashlib.sha256(repr([tuple(mail) for mail in mails]).encode('utf-8')).hexdigest()


def test_same_seed_gives_the_same_bytes(mails):
    assert list(messages(seed=1, user='alice', count=100)) == mails


def test_the_bytes_do_not_depend_on_the_python_version(mails):
    assert digest(mails) == (
        '9c4804211873161c72e762179678776be2b86acf6508d39f877f2640a15d4829')


@pytest.mark.parametrize(('seed', 'user'), [(2, 'alice'), (1, 'bob')])
def test_another_seed_or_user_gives_other_mail(mails, seed, user):
    others = {mail.message for mail in messages(seed, user, 100)}
    assert not others & {mail.message for mail in mails}


def test_a_shorter_run_is_the_beginning_of_a_longer_one(mails):
    assert list(messages(seed=1, user='alice', count=30)) == mails[:30]


def test_count_is_exact_down_to_none():
    assert [len(list(messages(1, 'carol', count))) for count in (0, 1, 19)] == [0, 1, 19]


def test_all_folders_are_used_and_inbox_most(mails):
    counts = {name: sum(mail.folder == name for mail in mails) for name in set(FOLDERS)}
    assert counts == {'INBOX': 40, 'Lists/zope-dev': 20, 'Archive/2005': 15, 'Sent': 15,
                      'Entwürfe': 10}


def test_internal_dates_grow_and_are_aware(mails):
    dates = [mail.date for mail in mails]
    assert dates == sorted(dates)
    assert all(date.utcoffset() is not None for date in dates)


def test_flags_are_system_flags_and_drafts_are_marked(mails):
    assert {flag for mail in mails for flag in mail.flags} == {
        r'\Seen', r'\Answered', r'\Flagged', r'\Draft'}
    assert any(not mail.flags for mail in mails)
    assert all((r'\Draft' in mail.flags) == (mail.folder == 'Entwürfe') for mail in mails)


def test_lines_end_with_crlf(mails):
    for mail in mails:
        assert not re.search(rb'(?<!\r)\n|\r(?!\n)', mail.message)


def test_threads_refer_to_messages_that_exist(heads):
    known = set(values(heads, b'Message-ID'))
    answered = [value for value in values(heads, b'In-Reply-To') if value in known]
    assert len(answered) >= 10
    assert len(values(heads, b'References')) >= len(answered)


@pytest.mark.parametrize('charset', ['utf-8', 'iso-8859-1', 'iso-2022-jp'])
def test_encoded_words_of_each_charset_can_be_read(heads, charset):
    marked = [value for value in values(heads, b'Subject')
              if b'=?%s?' % charset.encode('ascii') in value.lower()]
    assert marked
    for value in marked:
        for data, name in decode_header(value.decode('ascii')):
            assert (data if isinstance(data, str) else data.decode(name or 'ascii'))


def test_raw_8bit_headers_in_two_encodings():
    subjects = values([mail.message.partition(b'\r\n\r\n')[0]
                       for user in ('alice', 'bob') for mail in messages(1, user, 100)],
                      b'Subject')
    raw = [value for value in subjects if re.search(rb'[\x80-\xff]', value)]
    utf8 = [value for value in raw if value.decode('utf-8', 'ignore').encode('utf-8') == value]
    assert utf8
    assert len(raw) > len(utf8)


def test_attachments_have_rfc_2231_names(mails):
    names = set()
    for mail in mails:
        parsed = email.message_from_bytes(mail.message, policy=email.policy.default)
        names |= {part.get_filename() for part in parsed.walk() if part.get_filename()}
    assert names
    assert all(not name.isascii() for name in names)
    assert any(b'filename*0*=' in mail.message for mail in mails)
    assert any(b'filename*=' in mail.message for mail in mails)


def test_multipart_alternative_has_text_and_html(mails):
    kinds = [[part.get_content_type() for part in email.message_from_bytes(mail.message).walk()]
             for mail in mails]
    assert ['multipart/alternative', 'text/plain', 'text/html'] in kinds


def test_some_dates_are_broken_and_some_missing(heads):
    dates = values(heads, b'Date')
    good = [value for value in dates
            if re.fullmatch(rb'\w{3}, \d\d \w{3} 200\d \d\d:\d\d:\d\d [+-]\d{4}', value)]
    assert 0 < len(dates) - len(good) < 15
    assert len(dates) < len(heads)


def test_some_message_ids_are_missing_and_some_are_duplicates(heads):
    ids = values(heads, b'Message-ID')
    assert len(ids) < len(heads)
    assert len(set(ids)) < len(ids)


def test_some_header_lines_are_longer_than_allowed(heads):
    assert max(len(value) for value in values(heads, b'Subject')) > 998
    assert max(len(value) for value in values(heads, b'References')) > 998


def test_some_bodies_are_empty(mails):
    assert any(mail.message.endswith(b'\r\n\r\n') and mail.message.count(b'\r\n\r\n') == 1
               for mail in mails)


def test_some_headers_are_garbage(heads):
    assert any(b'this line has no name' in head for head in heads)


def test_every_block_of_messages_has_each_feature():
    """So that a small run has them all, whatever the seed."""
    for seed in range(5):
        block = [mail.message for mail in messages(seed, 'dora', len(FEATURES))]
        for mark in (b'?utf-8?', b'?iso-8859-1?', b'?iso-2022-jp?', b'filename*',
                     b'multipart/alternative', b'this line has no name'):
            assert any(mark in message.lower() for message in block), mark
