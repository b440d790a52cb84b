"""Classes of an add-on, whose instances tests pass as values or try to."""

import dataclasses
import enum
from collections import namedtuple
from typing import Generic
from typing import NamedTuple
from typing import TypeVar

from Products.zasync import allow_value


Kind = TypeVar('Kind')


# those that say what they are

class Colour(enum.Enum):
    """An enumeration."""

    RED = 1
    BLUE = ('a', 'tuple')


class Rights(enum.IntFlag):
    """One whose members are combined."""

    READ = 1
    WRITE = 2


class Size(enum.StrEnum):
    """One that is a text, too, and says how it is pickled: nobody asks."""

    BIG = 'big'

    def __reduce_ex__(self, protocol):
        raise AssertionError('asked')


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: object = 0


class Place(namedtuple('_Place', 'path')):
    """One with attributes besides its fields."""


@dataclasses.dataclass
class Order:
    """A dataclass."""

    number: int
    lines: list = dataclasses.field(default_factory=list)

    @dataclasses.dataclass
    class Line:
        """A nested one."""

        text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Price:
    """Frozen and with slots: the standard library gives it pickling code."""

    amount: int
    currency: str = 'EUR'


@dataclasses.dataclass
class BigOrder(Order, Generic[Kind]):
    """One that inherits, and has a parameter."""

    of: Kind | None = None


# those that do not

class Plain:
    """Just a class."""

    def __eq__(self, other):
        return type(other) is Plain

    __hash__ = None


class Basket(dict):
    """More than a dict."""


class Row(list):
    """More than a list."""


class Name(str):
    """More than a text."""


class Tuple(tuple):
    """A tuple that only looks named."""

    _fields = ('x',)


@dataclasses.dataclass
class Reduced:
    """A dataclass with pickling code."""

    number: int

    def __reduce__(self):
        return print, (self.number,)


@dataclasses.dataclass
class Restored:
    """The same, for the way back."""

    number: int

    def __setstate__(self, state):
        raise AssertionError('run')


@dataclasses.dataclass
class Goodbye:
    """One that does something when it goes."""

    number: int = 0

    def __del__(self):
        pass


class Extended(Order):
    """It inherits from a dataclass, and is none."""


@dataclasses.dataclass
class Trouble(Exception):
    """An exception."""

    number: int = 0


class OddPoint(Point):
    """A named tuple with pickling code."""

    def __getnewargs__(self):
        return 1, 2


# those that were declared

@allow_value
class Ticket:
    """With state."""

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return type(other) is type(self) and other.number == self.number

    __hash__ = None


class LaterTicket(Ticket):
    """A subclass of what was declared."""


@allow_value
class Wallet(dict):
    """More than a dict."""


@allow_value
def measure(text):
    """What makes a Measure."""
    return Measure(*text.split())


@allow_value
class Measure:
    """Pickled by a call of a function."""

    def __init__(self, number, unit):
        self.number, self.unit = number, unit

    def __reduce__(self):
        return measure, (f'{self.number} {self.unit}',)

    def __eq__(self, other):
        return (self.number, self.unit) == (other.number, other.unit)

    __hash__ = None
