"""Failure: what is kept of an exception.

Imports: nothing of ours.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from dataclasses import replace
from typing import Any
from typing import cast


#: Longest text and traceback that are kept, in characters. A call that fails
#: with a megabyte of repr should not put it into the database.
TEXT_LIMIT = 2_000
TRACEBACK_LIMIT = 20_000


@dataclass(frozen=True)
class Failure:
    """Frozen, picklable account of an exception: no live exception, frame or request.

    type_name -- dotted name of the exception's class.
    text -- its message. traceback_text -- formatted traceback, '' if there is none.
    """

    # Restricted Python may read all three.
    __allow_access_to_unprotected_subobjects__ = 1

    type_name: str
    text: str
    traceback_text: str = ''

    @classmethod
    def from_exception(cls, exception: BaseException) -> Failure:
        """The account of `exception`, its traceback and its causes."""
        if issubclass(type(exception), Relayed):  # its own __class__ may raise
            return cast(Relayed, exception).failure
        return cls(type_name=dotted_name(type(exception)), text=text_of(exception),
                   traceback_text=''.join(lines_of(exception))[-TRACEBACK_LIMIT:])

    def cut(self) -> Failure:
        """The same with no more than is kept of an exception, and a text that is one."""
        return replace(self, text=text_of(self.text) if self.text is not None else '',
                       traceback_text=self.traceback_text[-TRACEBACK_LIMIT:])

    def __str__(self) -> str:
        return f'{self.type_name}: {self.text}' if self.text else self.type_name


def dotted_name(kind: type) -> str:
    """The dotted name of a class; one of Python's own has no module in it."""
    try:
        module = _told('__module__', kind)
    except Exception:  # there is none, or it is a property of something else
        module = None
    # None is in code that was executed in a bare namespace.
    bare = not isinstance(module, str) or module == 'builtins'
    name = _text(_told('__qualname__', kind))
    return name if bare else f'{_text(module)}.{name}'


def name_of(kind: type) -> str:
    """The name of a class."""
    return _text(_told('__name__', kind))


def bases_of(kind: type) -> tuple[type, ...]:
    """The class and all it inherits from."""
    return cast('tuple[type, ...]', _told('__mro__', kind))


def _told(attribute: str, kind: type) -> Any:
    """What Python itself knows of a class: its metaclass may answer anything, or raise."""
    return vars(type)[attribute].__get__(kind)


def _text(text: str) -> str:
    """As plain text, for it may have a class of its own."""
    return str.__getitem__(text, slice(None))


def text_of(exception: object) -> str:
    """str() of an exception of whatever class; a failing __str__ must not hide the failure.

    Of what stands for its message, too. As plain text, for str() may return what has a class of
    its own; no more than is kept.
    """
    try:
        return str.__getitem__(str(exception), slice(TEXT_LIMIT))
    except BaseException as broken:  # SystemExit too: a call must not stop its worker
        return f'(its text can not be shown: {name_of(type(broken))})'


def one_line(thing: object) -> str:
    """Its text in one line, for a log: what is not printable is escaped.

    Whoever has a call fail chooses what its failure says, and could write lines that we did not.
    """
    return ''.join(char if char.isprintable() else char.encode('unicode_escape').decode()
                   for char in str(thing))


def lines_of(exception: BaseException, frames: bool = True) -> list[str]:
    """The lines of its traceback and of those of its causes; without `frames` of what it says.

    Of one that the standard library can't write, as a SyntaxError that quotes what is no text,
    there is less.
    """
    try:
        if frames:
            return traceback.format_exception(exception)
        return traceback.format_exception_only(exception)
    except BaseException as broken:  # as above
        # Of a class that raises for whatever it is asked, too.
        tb = vars(BaseException)['__traceback__'].__get__(exception)
        before = ['Traceback (most recent call last):\n',
                  *traceback.format_tb(tb)] if frames else []
        return [*before, f'{dotted_name(type(exception))}: {text_of(exception)}\n',
                f'(the rest can not be shown: {name_of(type(broken))})\n']


class Relayed(Exception):
    """Raised by a call that ends as another one did, with that one's Failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure
