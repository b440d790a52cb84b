"""Values: what arguments, results and memos may be made of.

A value is data. It is made of plain Python values, of the value classes of the standard
library and of Zope, of classes that say what they are (enumerations, named tuples,
dataclasses), and of what an add-on has declared by `allow_value`. The same is asked when a
value is pickled and when it is made again: nothing else is made or called by a pickle.

Imports: errors.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import pathlib
import sys
import uuid
import zoneinfo
from collections.abc import Callable
from types import BuiltinFunctionType
from types import FunctionType
from types import MethodType
from typing import Any
from typing import TypeVar

import pytz
from DateTime.DateTime import DateTime
from pytz.tzinfo import BaseTzInfo
from zope.i18nmessageid import Message

from .errors import ForeignValue


#: Classes that values may be of, and functions that make values again. Instances of
#: subclasses are not: they have pickling code of their own, or may have.
_known: set[object] = {
    type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set,
    frozenset, range, slice,
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone,
    zoneinfo.ZoneInfo, decimal.Decimal, fractions.Fraction, uuid.UUID,
    pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath,
    ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network,
    ipaddress.IPv4Interface, ipaddress.IPv6Interface,
    collections.OrderedDict, collections.deque, collections.Counter, collections.defaultdict,
    DateTime, Message,
    # DateTime gives time zones of pytz: one class each, made again by these.
    pytz._p, pytz._UTC, pytz._FixedOffset, pytz.FixedOffset}

_FUNCTIONS = FunctionType, BuiltinFunctionType

#: What a class has of these is how its instances are pickled, or runs when they go.
_PICKLING = ('__reduce__', '__reduce_ex__', '__getstate__', '__setstate__', '__getnewargs__',
             '__getnewargs_ex__', '__copyreg__', '__del__')

#: What frozen dataclasses with slots are given by the standard library.
_OF_DATACLASSES = {name: getattr(dataclasses, f'_dataclass_{name.strip("_")}', None)
                   for name in ('__getstate__', '__setstate__')}

#: All named tuples have that code, and no other class has.
_NAMED_TUPLE = vars(collections.namedtuple('_NAMED_TUPLE', ()))['__getnewargs__'].__code__

_HOW = 'give a dataclass, a named tuple or an enumeration, or declare it by allow_value'
_CHOOSE = 'pass data, and have the code that runs choose by it'

#: What to do instead, for what is passed by mistake most often: dotted class name → advice.
_ADVICE = {
    'Products.zasync.deferred.Deferred': 'pass its id instead',
    'ZPublisher.HTTPRequest.FileUpload': 'pass its bytes, or the path of a file they are in',
    'ZPublisher.HTTPRequest.record': 'pass dict(it.items())',
    'ZPublisher.HTTPRequest.HTTPRequest': 'pass what the call needs of it',
    'ZPublisher.HTTPRequest.ZopeFieldStorage': 'pass what the call needs of it'}

Declared = TypeVar('Declared', bound=Callable[..., Any])


class Refused(Exception):
    """A value may not be made of that; its text says of what, and what to do."""


def allow_value(thing: Declared) -> Declared:
    """Let arguments, results and memos hold instances of a class; returns it, as a decorator.

    thing -- the class, itself and no subclass of it; or a function of a module that the
    pickles of such instances call. What it does on unpickling is yours to answer for.
    Raises TypeError for what can't be declared.
    """
    if not isinstance(thing, (type, *_FUNCTIONS)):
        raise TypeError(f'allow_value takes a class or a function of a module, not {thing!r:.200}')
    name = _dotted(thing)
    if thing.__module__ in (None, '__main__') or '<' in thing.__qualname__:
        raise TypeError(f'{name} can not be found again by its name: define it in a module')
    if isinstance(thing, type) and _is_persistent(thing):
        raise TypeError(f'{name} is persistent: pass the path of an object instead')
    _known.add(thing)
    return thing


def reduction(thing: Any) -> Any:
    """What `pickle.Pickler.reducer_override` returns for `thing`; raises Refused.

    It is not asked for the instances of the plain classes.
    """
    kind = type(thing)
    if is_allowed(kind):
        if issubclass(kind, enum.Enum):
            return kind, (thing._value_,)
        return _reduced_zone(thing) if kind is zoneinfo.ZoneInfo else NotImplemented
    if issubclass(kind, type) or kind in _FUNCTIONS:
        # A class comes here for its instances, too, and for the factory of a defaultdict.
        if is_allowed(thing):
            return NotImplemented
        raise Refused(f'{"a class" if issubclass(kind, type) else "a function"}, '
                      f'{_dotted(thing)}; {_CHOOSE}')
    if issubclass(kind, BaseTzInfo):
        return NotImplemented
    raise Refused(_refusal(thing))


def check_found(thing: object) -> Any:
    """What a pickle names, if it may be used to make a value; raises ForeignValue."""
    if not is_allowed(thing):
        raise ForeignValue(f'the stored value needs {_dotted(thing)}, of which values may not be '
                           f'made: {_HOW}')
    return thing


def is_allowed(thing: object) -> bool:
    """Whether values may be made of that class, or by that function."""
    if not isinstance(thing, (type, *_FUNCTIONS)):
        return False
    if thing not in _known:
        if (thing is type or not isinstance(thing, type)  # that of classes is asked for most
                or not _says_what_it_is(thing) or not _is_found(thing)):
            return False
        _known.add(thing)
    return True


def find_member(kind: object, name: object) -> Any:
    """Stands in for getattr, which pickles of the standard library call.

    Those of its time zones do, and up to Python 3.11.3 those of members of enumerations.
    """
    if kind is zoneinfo.ZoneInfo and name == '_unpickle':
        return lambda key, from_cache: zoneinfo.ZoneInfo(key)
    if isinstance(kind, enum.EnumMeta) and isinstance(name, str) and name in kind.__members__:
        return kind.__members__[name]
    raise ForeignValue(f'the stored value looks for {name!r:.100}, and values may not')


def _reduced_zone(zone: zoneinfo.ZoneInfo) -> Any:
    # By its name, and not as it would: by a getattr that could get hold of anything.
    if zone.key is None:
        raise Refused('a time zone without a name')
    return zoneinfo.ZoneInfo, (zone.key,)


def _says_what_it_is(kind: type) -> bool:
    if isinstance(kind, enum.EnumMeta):
        return bool(kind.__members__)
    own = {name for name in _PICKLING if _is_own(kind, name)}
    if issubclass(kind, tuple):
        code = getattr(getattr(kind, '__getnewargs__', None), '__code__', None)
        return code is _NAMED_TUPLE and not own - {'__getnewargs__'}
    return '__dataclass_fields__' in vars(kind) and not own and kind.__new__ is object.__new__


def _is_own(kind: type, name: str) -> bool:
    found = getattr(kind, name, None)
    return (found is not getattr(object, name, None)
            and (found is None or found is not _OF_DATACLASSES.get(name)))


def _is_found(kind: type) -> bool:
    """Whether the class is where its name says."""
    found: object = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split('.'):
        found = getattr(found, part, None)
    return found is kind and kind.__module__ != '__main__'


def _is_persistent(kind: type) -> bool:
    return any(base.__module__ == 'persistent' and base.__name__ == 'Persistent'
               for base in kind.__mro__)


def _refusal(thing: Any) -> str:
    kind = type(thing)
    seen = getattr(thing, '__class__', kind)  # an object in an acquisition wrapper says its own
    if isinstance(seen, type) and _is_persistent(seen):
        advice = _ADVICE.get(_dotted(seen), 'pass its path instead')
        return f'a persistent object ({seen.__name__}); {advice}'
    if kind is MethodType:
        return f'a method, {_dotted(thing)}; {_CHOOSE}'
    name = _dotted(seen if isinstance(seen, type) else kind)
    if issubclass(kind, BaseException):
        return f'an exception, {name}; pass its text'
    return f'an object of the class {name}; {_ADVICE.get(name, _HOW)}'


def _dotted(thing: Any) -> str:
    module = getattr(thing, '__module__', None)
    name = getattr(thing, '__qualname__', None) or repr(type(thing))
    return f'{name}' if module in (None, 'builtins') else f'{module}.{name}'
