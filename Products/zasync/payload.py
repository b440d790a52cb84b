"""Payload: arguments and results as bytes, pickled where they arise and written once.

Pickling at the door answers at once: what can't be pickled, is too big or would
drag persistent objects along is refused where it was passed, not at the commit.
A web page can list calls whose classes it lacks, and copying a manager copies
no document.

Imports: errors.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import TYPE_CHECKING

from .errors import BadCall


if TYPE_CHECKING:
    class Persistent:
        """Persistent itself has no types, and a base without any would hide mistakes."""
else:
    from persistent import Persistent


#: Bytes up to which a payload is kept inside its deferred. Each transition
#: writes the deferred again, so anything bigger has an object of its own.
SMALL_BYTES = 1_000

#: Largest payload, in bytes. Big data belongs into a blob or a file of its own,
#: of which the call is told the path.
LARGEST_BYTES = 10_000_000


class Payload(Persistent):
    """Bytes too big to be written at each transition; never changed."""

    __zpublishable__ = False

    def __init__(self, data: bytes) -> None:
        self.data = data


class _RefusedObject(Exception):
    """A persistent object was met while pickling; its text says which."""


class _Pickler(pickle.Pickler):

    def persistent_id(self, obj: object) -> None:
        if isinstance(obj, Persistent):
            raise _RefusedObject(
                f'a persistent object ({type(obj).__name__}); pass its path instead')
        return None


def dumps(value: object, error: Callable[[str], Exception] = BadCall, what: str = 'the value',
          largest: int = LARGEST_BYTES) -> bytes:
    """The pickle of `value`, bytes.

    Raises `error` with a sentence that starts with `what` if it can't be
    pickled, holds a persistent object or is larger than `largest` bytes.
    """
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, protocol=4).dump(value)
    except _RefusedObject as refused:
        raise error(f'{what} holds {refused}') from None
    except Exception as reason:  # pickling runs foreign code, which may raise anything
        raise error(f'{what} can not be pickled: {reason}') from reason
    data = buffer.getvalue()
    if len(data) > largest:
        raise error(f'{what} takes {len(data):,} bytes; the limit is {largest:,}')
    return data


def dump_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """The pickle of (args, kwargs), bytes; raises BadCall naming the argument at fault."""
    try:
        return dumps((args, kwargs), what='the arguments together')
    except BadCall:
        for number, value in enumerate(args, 1):
            dumps(value, what=f'argument {number}')
        for name, value in kwargs.items():
            dumps(value, what=f'argument {name!r}')
        raise


def stored(data: bytes) -> bytes | Payload:
    """What to keep of pickled `data` on a deferred: the bytes, or a Payload."""
    return data if len(data) <= SMALL_BYTES else Payload(data)


def pickled(kept: bytes | Payload) -> bytes:
    """The bytes of what `stored` returned."""
    return kept.data if isinstance(kept, Payload) else kept


def loads(kept: bytes | Payload) -> Any:
    """The value of what `stored` returned."""
    return pickle.loads(pickled(kept))
