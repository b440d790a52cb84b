"""Payload: what can't be kept is refused where it was passed, by name."""

import pickle

import pytest
from Acquisition import Implicit
from persistent import Persistent
from persistent.mapping import PersistentMapping

from Products.zasync import allow_value
from Products.zasync import payload
from Products.zasync.errors import BadCall
from Products.zasync.errors import BadResult
from Products.zasync.payload import Payload


class Document(Persistent):
    """A persistent object."""


class Page(Implicit, Persistent):
    """A persistent object that acquires."""


class Thing(Implicit):
    """An object that acquires and is not persistent."""


@allow_value
class Evil:
    """Raises what it likes while it is pickled."""

    def __reduce__(self):
        raise ZeroDivisionError('ha')


class Parent(Implicit, Persistent):
    """What the wrapped ones are in."""


def wrapped():
    return Page().__of__(Parent())


@pytest.mark.parametrize('value', [
    None, 0, 'text', b'bytes', (1, 2), [1], {'a': {'b': [1]}}, {1, 2}, 1.5, True,
    frozenset({1}), 2 ** 200, ('/', 'x')])
def test_plain_values_pass(value):
    assert payload.loads(payload.dumps(value)) == value


@pytest.mark.parametrize('value, word', [
    (lambda: None, 'a function, tests.unit.test_payload.<lambda>'),
    (Document(), 'persistent object (Document)'),
    (Page(), 'persistent object (Page)'),
    (wrapped(), 'persistent object'),
    (PersistentMapping(), 'persistent object (PersistentMapping)'),
    ([1, {'deep': Document()}], 'persistent object (Document)'),
    ([wrapped()], 'persistent object'),
    ({Document(): 1}, 'persistent object (Document)'),
    (Document().__getstate__, 'a function, Document.__getstate__'),
    (Evil().__reduce__, 'a method, tests.unit.test_payload.Evil.__reduce__'),
    (Evil(), 'ha'),
    ((number for number in ()), 'an object of the class generator'),
])
def test_what_can_not_be_kept_is_refused_with_its_reason(value, word):
    with pytest.raises(BadCall) as refusal:
        payload.dumps(value, what='the thing')
    assert str(refusal.value).startswith('the thing ')
    assert word in str(refusal.value)
    assert isinstance(refusal.value, ValueError)


def test_an_acquisition_wrapped_object_is_refused_even_if_it_is_not_persistent():
    """A wrapper comes back without its context, so without its security."""
    with pytest.raises(BadCall):
        payload.dumps([Thing().__of__(Parent())])


@pytest.mark.parametrize('args, kwargs, named', [
    ((1, lambda: None), {}, 'argument 2'),
    ((wrapped(),), {}, 'argument 1'),
    ((1,), {'doc': Document()}, "argument 'doc'"),
    ((), {'a': 1, 'page': [Page()]}, "argument 'page'"),
    (('x' * 10_000_001,), {}, 'argument 1'),
    ((1, 2, Evil()), {}, 'argument 3'),
])
def test_the_argument_at_fault_is_named(args, kwargs, named):
    with pytest.raises(BadCall) as refusal:
        payload.dump_arguments(args, kwargs)
    assert str(refusal.value).startswith(named + ' ')


def test_arguments_too_big_together_are_refused_as_such():
    half = 'x' * 6_000_000
    with pytest.raises(BadCall) as refusal:
        payload.dump_arguments((half, half + 'y'), {})
    assert str(refusal.value).startswith('the arguments together take')


@pytest.mark.parametrize('extra, refused', [(0, False), (1, True)])
def test_the_limit_is_the_last_size_that_passes(extra, refused):
    empty = len(pickle.dumps(b'x' * 1_000, 4)) - 1_000
    value = b'x' * (1_000 - empty + extra)
    if refused:
        with pytest.raises(BadResult) as refusal:
            payload.dumps(value, BadResult, 'the result', 1_000)
        assert str(refusal.value) == 'the result takes 1,001 bytes; the limit is 1,000'
    else:
        assert payload.loads(payload.dumps(value, BadResult, 'the result', 1_000)) == value


@pytest.mark.parametrize('size, apart', [(0, False), (payload.SMALL_BYTES, False),
                                         (payload.SMALL_BYTES + 1, True), (100_000, True)])
def test_what_is_bigger_than_a_kilobyte_has_an_object_of_its_own(size, apart):
    kept = payload.stored(b'x' * size)
    assert isinstance(kept, Payload) is apart
    assert (kept.data if apart else kept) == b'x' * size


def test_what_was_stored_is_loaded_again_small_or_big():
    for value in ('small', 'x' * 50_000):
        assert payload.loads(payload.stored(payload.dumps(value))) == value


def test_the_caller_may_go_on_to_change_what_it_passed():
    value = {'list': [1]}
    kept = payload.dump_arguments((value,), {})
    value['list'].append(2)
    assert payload.loads(kept) == (({'list': [1]},), {})
