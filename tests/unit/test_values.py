"""What arguments and results may be made of, at the door and on the way back."""

import collections
import datetime
import decimal
import enum
import fractions
import importlib
import io
import ipaddress
import os
import pathlib
import pickle
import threading
import types
import uuid
import zoneinfo

import pytest
import pytz
import tzdata
from DateTime import DateTime
from persistent import Persistent
from zope.i18nmessageid import MessageFactory
from ZPublisher.HTTPRequest import FileUpload
from ZPublisher.HTTPRequest import HTTPRequest
from ZPublisher.HTTPRequest import record
from ZPublisher.HTTPRequest import ZopeFieldStorage
from ZPublisher.HTTPResponse import HTTPResponse

from Products.zasync import allow_value
from Products.zasync import payload
from Products.zasync.builtin import reference
from Products.zasync.deferred import Attempt
from Products.zasync.deferred import Deferred
from Products.zasync.errors import BadCall
from Products.zasync.errors import ForeignValue
from Products.zasync.failure import Failure
from Products.zasync.options import Options
from Products.zasync.options import Retry
from tests.fakes import make_call
from tests.unit import samples


_ = MessageFactory('zasync')
NOW = datetime.datetime(2024, 2, 29, 23, 59, 59, 999_999, datetime.UTC).replace(tzinfo=None)
ORDER = samples.Order(7, [samples.Order.Line('a'), samples.Order.Line('b')])


def with_attributes(thing, **attributes):
    vars(thing).update(attributes)
    return thing


ALLOWED = {
    'plain': [None, True, 0, -1, 2 ** 20_000, 1.5, float('inf'), 1j, 'text', '\0', b'', b'\xff',
              bytearray(b'x'), [], (), {}, set(), frozenset({1}), range(1, 9, 2)],
    'nested': [[1, (2, {'three': [{4: frozenset({5})}]})], {(1, 2): None}, [[]] * 3],
    'times': [NOW, NOW.date(), NOW.time(), NOW.replace(tzinfo=datetime.UTC, fold=1),
              datetime.timedelta(-1, 2, 3), datetime.timezone(datetime.timedelta(hours=1), 'x'),
              NOW.replace(tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')),
              zoneinfo.ZoneInfo('UTC'), DateTime('2024/02/29 12:00:00 GMT+1'),
              pytz.timezone('Europe/Berlin').localize(NOW), pytz.utc.localize(NOW),
              pytz.timezone('Etc/GMT+5').localize(NOW), pytz.FixedOffset(90).localize(NOW),
              DateTime('2024/02/29 12:00:00 Europe/Berlin').asdatetime()],
    'numbers': [decimal.Decimal('1.10'), fractions.Fraction(1, 3)],
    'names': [uuid.UUID(int=7), pathlib.PurePosixPath('/a/b'), pathlib.Path('/a'),
              pathlib.PureWindowsPath('c:/a'), ipaddress.ip_address('::1'),
              ipaddress.ip_network('10.0.0.0/8'), ipaddress.ip_interface('10.1.1.1/8')],
    'containers': [collections.OrderedDict(b=1, a=2), collections.deque([1, 2], 3),
                   collections.Counter('aab'), collections.defaultdict(list, a=[1]),
                   collections.defaultdict(None, a=1)],
    'messages': [_('title', default='Title ${n}', mapping={'n': 1})],
    'of ours': [Failure('ValueError', 'no', 'traceback'), Options(priority=1, retry=Retry(2)),
                Attempt(1, 1.0, None, None), reference(os.getcwd)],
    'enumerations': [*samples.Colour, samples.Rights.READ | samples.Rights.WRITE,
                     samples.Rights(0), samples.Size.BIG],
    'named tuples': [samples.Point(1), samples.Point(1, samples.Point(2)), samples.Place('/')],
    'dataclasses': [ORDER, samples.Order.Line('x'), samples.Price(3),
                    samples.BigOrder(1, of=ORDER)],
    'declared': [samples.Ticket(3), samples.Wallet(a=1), samples.Measure('3', 'm')],
    'classes of values': [int, list, samples.Point, samples.Ticket],
}


@pytest.mark.parametrize('value', [
    pytest.param(value, id=f'{kind}-{number}') for kind, values in ALLOWED.items()
    for number, value in enumerate(values)])
def test_what_is_data_comes_back_equal_and_of_its_class(value):
    found = payload.loads(payload.dumps(value))
    assert found == value
    assert type(found) is type(value)
    ((nested,),), keywords = payload.loads(payload.dump_arguments(([{'deep': (value,)}],),
                                                               {'also': value}))
    assert nested == {'deep': (value,)} and keywords == {'also': value}


def test_slices_come_back_where_they_can_be_compared():
    assert payload.loads(payload.dumps(slice(1, None, 2))) == slice(1, None, 2)


def test_a_message_keeps_its_domain_default_and_mapping():
    found = payload.loads(payload.dumps(_('title', default='Title ${n}', mapping={'n': 1})))
    assert (found.domain, found.default, found.mapping) == ('zasync', 'Title ${n}', {'n': 1})


def test_attributes_of_dataclasses_and_named_tuples_come_back_and_are_looked_at():
    place = with_attributes(samples.Place('/a'), note=[1])
    assert payload.loads(payload.dumps(place)).note == [1]
    place.note.append(samples.Plain())
    with pytest.raises(BadCall, match='samples.Plain'):
        payload.dumps(place)
    with pytest.raises(BadCall, match='samples.Plain'):
        payload.dumps(with_attributes(samples.Order(1), extra=samples.Plain()))


def test_one_object_at_two_places_is_one_object_again():
    first, second = payload.loads(payload.dumps([ORDER, ORDER]))
    assert first is second


def upload():
    storage = ZopeFieldStorage.__new__(ZopeFieldStorage)
    made = FileUpload.__new__(FileUpload)
    made.headers, made.filename, made.storage = {}, 'x.txt', storage
    return made


def nameless_zone():
    with open(pathlib.Path(tzdata.__file__).parent / 'zoneinfo' / 'UTC', 'rb') as file:
        return zoneinfo.ZoneInfo.from_file(file)


def request():
    return HTTPRequest(None, {'SERVER_NAME': 'x', 'SERVER_PORT': '1'}, None)


def nested_function():
    """Gives a class that can't be found by its name."""
    class Local(enum.Enum):
        ONE = 1
    return Local


def misplaced():
    """A dataclass that says it is where another is."""
    import dataclasses
    made = dataclasses.make_dataclass('Order', ['number'])
    made.__module__ = samples.__name__
    return made


REFUSED = {
    'a class': (samples.Plain(), (
        'an object of the class tests.unit.samples.Plain; give a dataclass, a named tuple or an '
        'enumeration, or declare it by allow_value')),
    'dict subclass': (samples.Basket(a=1), 'samples.Basket'),
    'list subclass': (samples.Row([1]), 'samples.Row'),
    'str subclass': (samples.Name('x'), 'samples.Name'),
    'tuple subclass': (samples.Tuple((1,)), 'samples.Tuple'),
    'subclass of a declared one': (samples.LaterTicket(1), 'samples.LaterTicket'),
    'dataclass with __reduce__': (samples.Reduced(1), 'samples.Reduced'),
    'dataclass with __setstate__': (samples.Restored(1), 'samples.Restored'),
    'dataclass with __del__': (samples.Goodbye(1), 'samples.Goodbye'),
    'child of a dataclass': (samples.Extended(1), 'samples.Extended'),
    'named tuple with __getnewargs__': (samples.OddPoint(1), 'samples.OddPoint'),
    'exception': (ValueError('no'), 'an exception, ValueError; pass its text'),
    'exception that is a dataclass': (samples.Trouble(), 'an exception, tests.unit.samples'),
    'local class': (nested_function().ONE, '<locals>.Local'),
    'misplaced class': (misplaced()(1), 'samples.Order;'),
    'function': (len, 'a function, len; pass data'),
    'function of a module': (os.system, 'a function, '),
    'lambda': (lambda: None, '<lambda>'),
    'method': (ORDER.__init__, 'a method, '),
    'bound built-in method': ([].append, 'a function, list.append'),
    'class method': (dict.fromkeys, 'a function, '),
    'class of no value': (samples.Plain, 'a class, tests.unit.samples.Plain; pass data'),
    'enumeration without members': (enum.Enum, 'a class, enum.Enum'),
    'module': (os, 'an object of the class module'),
    'lock': (threading.Lock(), 'class _thread.lock'),
    'generator': ((each for each in ()), 'class generator'),
    'file': (io.BytesIO(), 'class _io.BytesIO'),
    'memoryview': (memoryview(b'x'), 'class memoryview'),
    'namespace': (types.SimpleNamespace(a=1), 'class types.SimpleNamespace'),
    'mapping proxy': (types.MappingProxyType({}), 'class mappingproxy'),
    'keys': ({}.keys(), 'class dict_keys'),
    'persistent': (Persistent(), 'a persistent object (Persistent); pass its path instead'),
    'deferred': (Deferred('0-1-1-1', make_call()),
                 'a persistent object (Deferred); pass its id instead'),
    'uploaded file': (upload(), 'pass its bytes, or the path of a file they are in'),
    'form record': (record(), 'pass dict(it.items())'),
    'request': (request(), 'pass what the call needs of it'),
    'response': (HTTPResponse(), 'HTTPResponse'),
    'time zone from a file': (nameless_zone(), 'a time zone without a name'),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_what_is_no_data_is_refused_by_name_however_deep(kind):
    value, words = REFUSED[kind]
    for arguments, keywords, where in (((1, value), {}, 'argument 2'),
                                       ((), {'a': {'b': [(value,)]}}, "argument 'a'"),
                                       ((samples.Point(value),), {}, 'argument 1')):
        with pytest.raises(BadCall) as refusal:
            payload.dump_arguments(arguments, keywords)
        assert str(refusal.value).startswith(f'{where} holds ')
        assert words in str(refusal.value)


def test_a_value_too_deep_is_refused_and_not_half_pickled():
    deep = []
    for _number in range(100_000):
        deep = [deep]
    with pytest.raises(BadCall, match='argument 1 can not be pickled: maximum recursion depth'):
        payload.dump_arguments((deep,), {})
    while deep:  # or its end would need as deep a stack
        deep = deep.pop()


def test_a_value_may_hold_itself():
    value = [1]
    value.append(value)
    found = payload.loads(payload.dumps(value))
    assert found[1] is found


# declared

@pytest.mark.parametrize('thing, words', [
    (samples.Plain(), 'takes a class or a function'), ('x', 'takes a class or a function'),
    (lambda: None, 'define it in a module'), (nested_function(), 'define it in a module'),
    ([].append, 'define it in a module'), (Persistent, 'pass the path of an object instead')])
def test_what_could_not_be_found_again_can_not_be_declared(thing, words):
    with pytest.raises(TypeError, match=words):
        allow_value(thing)


# on the way back

class Gadget:
    """Has a pickle call what it likes."""

    def __init__(self, *reduced):
        self._reduced = reduced

    def __reduce__(self):
        return self._reduced


def by_hand(thing, protocol=4):
    """The pickle of what the door would have refused."""
    return pickle.dumps((('x', [thing]), {}), protocol)


@pytest.mark.parametrize('protocol', [0, 1, 2, 4])
@pytest.mark.parametrize('gadget, named', [
    (Gadget(os.mkdir, ('trap',)), 'posix.mkdir'),
    (Gadget(eval, ("__import__('os').mkdir('trap')",)), 'eval'),
    (Gadget(getattr, (int, 'from_bytes')), 'from_bytes|getattr'),
    (Gadget(__import__, ('this',)), '__import__'),
    (Gadget(pickle.loads, (pickle.dumps(Gadget(os.mkdir, ('trap',))),)), 'loads'),
    (os.mkdir, 'posix.mkdir'), (Gadget(importlib.import_module, ('this',)), 'import_module')])
def test_nothing_else_is_called_by_a_pickle(tmp_path, monkeypatch, gadget, named, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ForeignValue, match=named) as refusal:
        payload.loads(by_hand(gadget, protocol))
    assert isinstance(refusal.value, LookupError)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('value', [
    samples.Plain(), samples.Basket(a=1), samples.LaterTicket(1), ValueError('no'), Persistent,
    samples.Restored(1), os.path.join])
def test_a_stored_value_that_the_door_would_refuse_now_is_not_made(value):
    with pytest.raises(ForeignValue, match='of which values may not be made'):
        payload.loads(pickle.dumps(value, 4))


@pytest.mark.parametrize('module, name', [
    ('tests.unit.test_values', 'os.system'), ('tests.unit.samples', 'Order.__init__'),
    ('tests.unit.samples', 'Order.__init__.__globals__'), ('builtins', 'int.from_bytes')])
def test_a_dotted_name_leads_to_nothing_else(module, name):
    data = b''.join(b'\x8c' + bytes([len(text)]) + text.encode() for text in (module, name))
    with pytest.raises(ForeignValue):
        payload.loads(b'\x80\x04' + data + b'\x93.')


@pytest.mark.parametrize('value', [
    NOW.replace(tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')), samples.Colour.RED, ORDER])
def test_what_an_earlier_version_pickled_in_its_own_way_is_read(value):
    assert payload.loads(pickle.dumps(value, 4)) == value


class Got:
    """Pickled as what getattr gets."""

    def __init__(self, thing, name):
        self.args = thing, name

    def __reduce__(self):
        return getattr, self.args


def test_a_member_that_python_3_11_3_pickled_by_its_name_is_read():
    assert payload.loads(pickle.dumps(Got(samples.Colour, 'RED'), 4)) is samples.Colour.RED


@pytest.mark.parametrize('thing, name', [
    (samples.Colour, 'mro'), (samples.Colour, '__members__'), (samples.Colour, []),
    (samples.Order, '__init__'), (zoneinfo.ZoneInfo, 'clear_cache'), ('text', 'format')])
def test_nothing_else_is_got_by_a_name(thing, name):
    with pytest.raises(ForeignValue):
        payload.loads(pickle.dumps(Got(thing, name), 4))


def test_a_class_that_is_not_there_fails_as_ever():
    with pytest.raises(ModuleNotFoundError):
        payload.loads(b'cno_such_module\nThing\n.')
    with pytest.raises(AttributeError):
        payload.loads(b'ctests.unit.samples\nNothing\n.')
