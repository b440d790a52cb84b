"""Text for terminals: aligned, and nothing in it that a terminal would obey."""

import pytest

from zasync_client import plaintext


@pytest.mark.parametrize('text, expected', [
    ('plain é 日本', 'plain é 日本'), ('a\x1b[2Jb', 'a\\x1b[2Jb'), ('one\ntwo\r', 'one\\ntwo\\r'),
    ('\x07\x7f\x9b', '\\x07\\x7f\\x9b'), ('right‮left', 'right\\u202eleft'),
    ('\udc80', '\\udc80'), (7, '7')])
def test_what_a_terminal_would_obey_is_escaped(text, expected):
    assert plaintext.safe(text) == expected


def test_a_long_text_is_cut():
    assert plaintext.safe('abcdef', 6) == 'abcdef'
    assert plaintext.safe('abcdefg', 6) == 'abcde…'


def test_lines_stay_lines_and_tabs_become_spaces():
    assert plaintext.safe_lines('a\tb\n\x1bc') == ['a       b', '\\x1bc']


def test_columns_are_aligned_whatever_is_in_them():
    rows = [('1', '日本', 'x'), ('22', 'e\u0301', ''), ('3', 'a\nb', 'long text')]
    lines = plaintext.table(('ID', 'NAME', 'REMARK'), rows)
    assert lines == ['ID  NAME  REMARK',
                     '1   日本  x',
                     '22  e\u0301',
                     '3   a\\nb  long text']


@pytest.mark.parametrize('text, seconds', [
    ('0', 0), ('90', 90), ('30s', 30), ('15m', 900), ('1h', 3600), ('2d', 172800), ('1.5h', 5400)])
def test_a_span_of_time_is_read(text, seconds):
    assert plaintext.span(text) == seconds


@pytest.mark.parametrize('text', ['', 'h', '-1', '1w', '1 h', 'nan', 'inf', '1e9', '٣', '9' * 400])
def test_what_is_no_span_of_time_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match='span of time'):
        plaintext.span(text)


def test_a_moment_is_told_in_UTC():
    assert plaintext.moment(0.5) == '1970-01-01 00:00:00'
    assert plaintext.moment(None) == '-'
