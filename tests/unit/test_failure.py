"""Failure: an account of an exception, without anything alive in it."""

import gc
import pickle
import traceback
import weakref

import pytest

from Products.zasync import failure
from Products.zasync.failure import Failure


def raised(exception):
    try:
        raise exception
    except type(exception) as caught:
        return caught


class Nested(Exception):
    """A class with a dotted name of ours."""

    class Inner(Exception):
        """And one inside it."""


#: Its code was executed where there is no name of a module.
Bare = eval("type('Bare', (Exception,), {})", {})


@pytest.mark.parametrize('exception, name, text', [
    (Bare('x'), 'Bare', 'x'),
    (ValueError('no'), 'ValueError', 'no'),
    (KeyError('id'), 'KeyError', "'id'"),
    (Nested('x'), f'{__name__}.Nested', 'x'),
    (Nested.Inner(), f'{__name__}.Nested.Inner', ''),
    (ValueError('ünïcode\n<b>'), 'ValueError', 'ünïcode\n<b>'),
    (SystemExit(3), 'SystemExit', '3'),
])
def test_a_failure_tells_class_and_text(exception, name, text):
    kept = Failure.from_exception(exception)
    assert (kept.type_name, kept.text) == (name, text)
    assert str(kept) == (f'{name}: {text}' if text else name)


def test_a_failure_tells_the_traceback_with_its_causes():
    try:
        try:
            raise KeyError('the cause')
        except KeyError as cause:
            raise ValueError('the effect') from cause
    except ValueError as error:
        kept = Failure.from_exception(error)
    assert 'the cause' in kept.traceback_text
    assert kept.traceback_text.rstrip().endswith('ValueError: the effect')
    assert 'test_failure.py' in kept.traceback_text


class Mute(Exception):
    """Its text can't be made."""

    def __str__(self):
        raise RuntimeError('broken')


class Exit(Exception):
    """What makes its text wants to end the process."""

    def __str__(self):
        raise SystemExit(3)


class Liar(Exception):
    """Its text is no text."""

    def __str__(self):
        return 7


@pytest.mark.parametrize('kind', [Mute, Exit, Liar])
def test_an_exception_whose_text_can_not_be_made_does_not_hide_the_failure(kind):
    kept = Failure.from_exception(raised(kind()))
    assert kept.type_name.endswith(kind.__name__)
    assert 'can not be shown' in kept.text


class Notes(list):
    """What can't be read."""

    def __iter__(self):
        raise KeyError('a note')


def odd(kind):
    if kind is Notes:
        exception = ValueError('said')
        exception.__notes__ = Notes(['x'])
        return exception
    return SyntaxError('said', ('f', 1, *kind))


ODD = [(2, b'bytes'), (2, 5), ('2', 'text'), (1, 'text', 1, 'end'), Notes]


@pytest.mark.parametrize('kind', ODD)
def test_an_exception_that_the_standard_library_can_not_write_is_told_as_far_as_can_be(kind):
    with pytest.raises((AttributeError, TypeError, KeyError)):
        traceback.format_exception(odd(kind))
    exception = raised(odd(kind))
    kept = Failure.from_exception(exception)
    assert kept.text.startswith('said')
    assert 'raise exception' in kept.traceback_text
    assert f'{kept.type_name}: said' in kept.traceback_text
    assert 'the rest can not be shown' in kept.traceback_text
    try:
        raise RuntimeError('the effect') from exception
    except RuntimeError as error:
        assert 'RuntimeError: the effect' in Failure.from_exception(error).traceback_text


def test_a_huge_text_and_a_huge_traceback_are_cut():
    kept = Failure.from_exception(raised(ValueError('x' * 5_000_000)))
    assert len(kept.text) == failure.TEXT_LIMIT
    assert len(kept.traceback_text) <= failure.TRACEBACK_LIMIT
    assert len(pickle.dumps(kept)) < 30_000


def test_the_end_of_a_long_traceback_is_kept_for_it_tells_most():
    def deep(level):
        if level:
            return deep(level - 1) + len(str(level))
        return {}['the reason at the bottom ' + 'y' * 400]

    error = None
    try:
        deep(300)
    except KeyError as caught:
        error = Failure.from_exception(caught)
    assert 'the reason at the bottom' in error.traceback_text[-1_000:]


class Request:
    """Stands for what must not be kept."""


def test_a_failure_keeps_no_frame_and_no_local_alive():
    def fail():
        request = Request()
        watch.append(weakref.ref(request))
        raise ValueError(request)

    watch = []
    try:
        fail()
    except ValueError as error:
        kept = Failure.from_exception(error)
    gc.collect()
    assert watch[0]() is None
    assert kept.type_name == 'ValueError'


def test_a_failure_pickles_to_texts_alone_whatever_the_exception_held():
    class Local(Exception):
        """A class nobody could import again."""

    kept = Failure.from_exception(raised(Local(lambda: None, open)))
    copy = pickle.loads(pickle.dumps(kept))
    assert copy == kept
    assert {type(value) for value in vars(kept).values()} == {str}


def test_a_failure_is_frozen():
    kept = Failure('ValueError', 'no')
    with pytest.raises(AttributeError):
        kept.text = 'yes'
