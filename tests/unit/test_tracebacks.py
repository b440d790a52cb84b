"""Tracebacks with values: what they show, and what they keep to themselves."""

import logging
import sys

import pytest

from zasync_client import logs
from zasync_client.tracebacks import text_of


LIMIT = 7


class Odd:
    """Can't be shown."""

    def __repr__(self):
        raise RuntimeError('no')


class Undecided:
    """Can't be asked whether it is true."""

    def __bool__(self):
        raise RuntimeError('no')


class Empty(Exception):
    """Is not true."""

    def __len__(self):
        return 0


class Names(dict):
    """Local variables that can't be listed."""

    def items(self):
        raise RuntimeError('no')


def fails(amount, password, odd, options):
    """Raises, with values around."""
    if amount > LIMIT:
        raise ValueError('too much')


def caught(**options):
    """The text of a failure."""
    try:
        fails(9, 'hush', Odd(), {'bind_password': 'hush', 'x': 'y' * 1000})
    except ValueError:
        return text_of(sys.exc_info())


def test_an_exception_that_the_standard_library_can_not_write_is_told_as_far_as_can_be():
    error = SyntaxError('said', ('file', 1, 1, b'bytes'))
    for cause in (None, SyntaxError('why', ('file', 1, 1, 5))):
        try:
            raise error from cause
        except SyntaxError:
            text = text_of(sys.exc_info())
        assert 'SyntaxError: said (file, line 1)' in text
        assert ('SyntaxError: why (file, line 1)' in text) == (cause is not None)


def test_values_of_locals_and_of_the_globals_that_are_used_are_shown():
    lines = caught().splitlines()
    assert lines[-1] == 'ValueError: too much'
    assert '      amount = 9' in lines
    assert '      global LIMIT = 7' in lines
    assert not any('global Odd' in line for line in lines[lines.index('      amount = 9'):])


def test_secrets_are_not_shown_nor_what_is_long():
    text = caught()
    assert 'hush' not in text.replace("fails(9, 'hush'", '').replace("'bind_password': 'hush'", '')
    assert '      password = (not shown)' in text
    assert "{'bind_password': (not shown), 'x': 'yyy" in text
    assert 'y' * 300 not in text


def logs_in(account, password):
    """Hands a password on."""
    return sends('LOGIN', account, password)


def sends(*words):
    """Raises, far from where the password was called so."""
    before = KeyError(' '.join(words))
    shown = 17
    raise ValueError(f'no {before!r:.5} {shown}')


def test_what_is_called_with_a_password_shows_no_values():
    word = 'h' + 'ush'
    try:
        logs_in('zoe', word)
    except ValueError:
        lines = text_of(sys.exc_info()).splitlines()
    assert "      account = 'zoe'" in lines
    assert '      password = (not shown)' in lines
    assert lines.count('      (values not shown: a password is about)') == 1
    # In the test itself nothing says that it is a password.
    assert [line for line in lines if word in line] == ["      word = 'hush'"]


def test_where_no_password_is_given_values_are_shown_below():
    try:
        logs_in('zoe', '')
    except ValueError:
        text = text_of(sys.exc_info())
    assert "      words = ('LOGIN', 'zoe', '')" in text and '      shown = 17' in text
    # An exception may quote what it likes.
    assert '      before = (KeyError)' in text


def test_a_module_may_have_its_values_hidden():
    module = {'__name__': 'somewhere', '__hide_values__': True, 'sends': sends}
    exec('def asks(text):\n    sends(text)\n', module)
    try:
        module['asks']('hu' + 'sh')
    except ValueError:
        text = text_of(sys.exc_info())
    assert 'hush' not in text and text.count('(values not shown') == 2


def test_a_value_that_can_not_be_shown_does_no_harm():
    assert '      odd = ' in caught()
    assert "<Odd instance at" in caught() or 'which can not be shown' in caught()


def test_what_does_not_say_whether_it_is_a_password_counts_as_one():
    def opens(password):
        sends('any')

    try:
        opens(Undecided())
    except ValueError:
        lines = text_of(sys.exc_info()).splitlines()
    assert '      password = (not shown)' in lines
    assert lines.count('      (values not shown: a password is about)') == 1


@pytest.mark.parametrize('names', [Names(), {7: 'seven'}])
def test_a_frame_whose_names_are_none_does_no_harm(names):
    try:
        exec('sends("hu" "sh")', globals(), names)
    except ValueError:
        text = text_of(sys.exc_info())
    assert 'hush' not in text
    assert '      (which values there are can not be told: ' in text
    assert text.count('(values not shown: a password is about)') == 1


def test_an_exception_that_led_to_it_is_shown_whether_it_is_true_or_not():
    try:
        raise ValueError('second') from Empty('first')
    except ValueError:
        text = text_of(sys.exc_info())
    assert text.index('Empty: first') < text.index('led to:') < text.index('second')


def test_the_exception_that_led_to_it_comes_first():
    try:
        try:
            raise KeyError('first')
        except KeyError as reason:
            raise ValueError('second') from reason
    except ValueError:
        text = text_of(sys.exc_info())
    assert text.index("KeyError: 'first'") < text.index('led to:') < text.index('second')


def test_levels_of_zope_have_names():
    class Section:
        level = 5
        handlers = ()
        name = 'zasync_test_levels'
        propagate = False

    from ZConfig.components.logger.logger import LoggerFactory
    logs.set_up(LoggerFactory(Section), [])
    assert logging.getLevelName(5) == 'TRACE'
    assert logging.getLogger('zasync_test_levels').level == 5
