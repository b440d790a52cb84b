"""Options and Retry: what a caller may ask of the way its call is run; and `groupable`.

Both are checked when they are made: a call with an option that makes no sense is
refused where it was written, not when it runs.

Imports: failure, errors.
"""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import TypedDict
from typing import TypeGuard
from typing import TypeVar

from .errors import BadCall
from .errors import told
from .failure import bases_of
from .failure import dotted_name


#: Longest key or series, in characters.
NAME_MOST = 200

#: Most attempts; a priority is as far from 0 at most.
WHOLE_MOST = 2 ** 31

#: The last moment that calendars, and so the pages, can show; POSIX seconds.
LAST_MOMENT = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp()


AnyCallable = TypeVar('AnyCallable', bound=Callable[..., Any])

_MARK = '_zasync_groupable'


def groupable(function: AnyCallable) -> AnyCallable:
    """Mark a function or method whose calls may share a transaction with others; → the same.

    It must be short, and must do nothing but change objects in the ZODB: what it does is rolled
    back alone when it fails, and done again when another call of the transaction is in the way.
    Raises TypeError.
    """
    if isinstance(function, (classmethod, staticmethod)) or not callable(function):
        raise TypeError(f'groupable marks a function, not {function!r}: write it below '
                        '@classmethod and @staticmethod')
    setattr(function, _MARK, True)
    return function


def is_groupable(target: object) -> bool:
    """Whether that callable, or the function of that bound method, is marked."""
    return getattr(getattr(target, '__func__', target), _MARK, False) is True


@dataclass(frozen=True)
class Retry:
    """How often a call that raises an exception is run, and when again.

    attempts -- in all, 1 or more. delay -- seconds before the second. growth --
    factor from each wait to the next, 1 or more. longest -- most seconds of a wait.
    on -- exception classes, or their dotted names, that are worth another attempt, with
    all that inherit from them; () for any.

    Conflicts, lost connections and interruptions have rules of their own and do not
    count. Raises BadCall.
    """

    attempts: int = 3
    delay: float = 5.0
    growth: float = 2.0
    longest: float = 3600.0
    on: Sequence[type[BaseException] | str] | type[BaseException] = ()

    def __post_init__(self) -> None:
        if not _is_whole(self.attempts) or self.attempts < 1:
            raise BadCall(f'attempts is a whole number, 1 or more, not {told(self.attempts)}')
        _keep(self, 'attempts', int)
        for name, least in (('delay', 0), ('growth', 1), ('longest', 0)):
            value = getattr(self, name)
            if not _is_number(value) or value < least:
                raise BadCall(f'{name} of a retry is a number, {least} or more, not '
                              f'{told(value)}')
            _keep(self, name, float)
        on = (self.on,) if isinstance(self.on, (str, type)) else self.on
        if not isinstance(on, (tuple, list)):
            raise BadCall(f'the exceptions to retry on are a tuple, not {told(self.on)}')
        object.__setattr__(self, 'on', tuple(_exception_name(kind) for kind in on))

    def as_tuple(self) -> tuple[Any, ...]:
        """What is stored with a call, and what policy.next_try takes."""
        return self.attempts, self.delay, self.growth, self.longest, self.on


@dataclass(frozen=True)
class Options:
    """See api: putCallWith(Options(priority=5), 'zope_exec', …).

    priority -- whole number, higher first. not_before -- aware datetime, or timedelta from
    the put. expires -- the same: a call that nobody has begun by then is not run.
    timeout -- seconds that one run may take. retry -- a Retry, a number of attempts, False
    for a call that must never run twice, None for what its plugin says.
    key -- text: while the caller has a call with this key that waits, a second put returns
    that one. series -- text: calls of one series never run at the same time.

    Raises BadCall.
    """

    priority: int = 0
    not_before: datetime.datetime | datetime.timedelta | None = None
    expires: datetime.datetime | datetime.timedelta | None = None
    timeout: float | None = None
    retry: Retry | int | bool | None = None
    key: str | None = None
    series: str | None = None

    def __post_init__(self) -> None:
        if not _is_whole(self.priority):
            raise BadCall(f'the priority is a whole number, not {told(self.priority)}')
        _keep(self, 'priority', int)
        for name in ('not_before', 'expires'):
            _check_moment(name, getattr(self, name))
        if self.timeout is not None and not (_is_number(self.timeout) and self.timeout > 0):
            raise BadCall('the timeout is a number of seconds, more than 0, not '
                          f'{told(self.timeout)}')
        _keep(self, 'timeout', float)
        if _is_whole(self.retry):
            object.__setattr__(self, 'retry', Retry(self.retry))
        elif not (self.retry is None or self.retry is False or isinstance(self.retry, Retry)):
            raise BadCall('retry is a Retry, a number of attempts, False or None, not '
                          f'{told(self.retry)}')
        for name in ('key', 'series'):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and 0 < len(value) <= NAME_MOST):
                raise BadCall(f'the {name} is a text of 1 to {NAME_MOST} characters, '
                              f'not {told(value)}')
            _keep(self, name, str)

    def times(self, put_at: float) -> tuple[float, float | None]:
        """(not_before, expires_at) in POSIX seconds; 0.0 for at once, None for never.

        Raises BadCall if the call would expire before it may begin.
        """
        not_before = _seconds('not_before', self.not_before, put_at)
        if not_before is None or not_before <= put_at:
            not_before = 0.0
        expires_at = _seconds('expires', self.expires, put_at)
        if expires_at is not None and expires_at <= max(not_before, put_at):
            raise BadCall('the call would expire before it may begin')
        return not_before, expires_at

    def stored_retry(self) -> tuple[Any, ...] | None:
        """What is stored with a call: None, () for never twice, or Retry.as_tuple()."""
        if isinstance(self.retry, Retry):
            return self.retry.as_tuple()
        return None if self.retry is None else ()


class OptionNames(TypedDict, total=False):
    """The arguments of Options, for type checkers: what `defer.options` takes."""

    priority: int
    not_before: datetime.datetime | datetime.timedelta | None
    expires: datetime.datetime | datetime.timedelta | None
    timeout: float | None
    retry: Retry | int | bool | None
    key: str | None
    series: str | None


def _keep(options: Retry | Options, name: str, kind: type) -> None:
    """Keep the bare value: a record must not need the classes of whoever put the call."""
    value = getattr(options, name)
    if value is not None and type(value) is not kind:
        object.__setattr__(options, name, bare(value) if kind is str else kind(value))


def bare(text: str) -> str:
    """The same text, of no class of whoever gave it: not what that makes of it."""
    return str.__str__(text)


def _is_whole(value: object) -> TypeGuard[int]:
    return (isinstance(value, int) and not isinstance(value, bool)
            and abs(value) <= WHOLE_MOST)


def _is_number(value: object) -> TypeGuard[float]:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can be
        return False


def _check_moment(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, datetime.timedelta):
        if value < datetime.timedelta(0):
            raise BadCall(f'{name} is a negative delay: {value}')
    elif not isinstance(value, datetime.datetime):
        raise BadCall(f'{name} is an aware datetime or a timedelta, not {told(value)}')
    elif value.tzinfo is None or value.utcoffset() is None:
        raise BadCall(f'{name} is a datetime without a time zone: {told(value)}')


def _seconds(name: str, value: datetime.datetime | datetime.timedelta | None,
             put_at: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, datetime.timedelta):
        seconds = put_at + value.total_seconds()
    else:
        seconds = value.timestamp()
    if seconds > LAST_MOMENT:
        raise BadCall(f'{name} is after the year 9999: {value}')
    return seconds


def _exception_name(kind: object) -> str:
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return dotted_name(kind)
    if isinstance(kind, str) and kind:
        return bare(kind).removeprefix('builtins.')
    raise BadCall(f'{told(kind)} is no exception class and no dotted name of one')


def first_name(dotted: str) -> str:
    """The name by which `class_names` tells of the class of that dotted name.

    Modules give classes further names: socket.timeout is TimeoutError. A name that no module
    imported here has stays as it is: nobody here raises what it names.
    """
    module, _, name = dotted.rpartition('.')
    found = vars(sys.modules.get(module or 'builtins') or object).get(name)
    return dotted_name(found) if isinstance(found, type) else dotted


def class_names(kind: type) -> tuple[str, ...]:
    """The dotted names of a class and of all it inherits from."""
    return tuple(dotted_name(base) for base in bases_of(kind))
