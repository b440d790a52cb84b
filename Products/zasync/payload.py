"""Payload: arguments and results as bytes, pickled where they arise and written once.

Pickling at the door answers at once: what is no value (see values), can't be pickled
or is too big is refused where it was passed, not at the commit. So a persistent object
is. A web page can list calls whose classes it lacks, and copying a manager copies no
document.

Imports: values, failure, errors.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import TYPE_CHECKING

from . import values
from .errors import BadCall
from .errors import BadResult
from .errors import told
from .failure import Failure
from .failure import text_of


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


class _Pickler(pickle.Pickler):

    def reducer_override(self, obj: object) -> Any:
        return values.reduction(obj)


class _Unpickler(pickle.Unpickler):

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('builtins', 'getattr'):
            return values.find_member
        return values.check_found(super().find_class(module, name))


def dumps(value: object, error: Callable[[str], Exception] = BadCall, what: str = 'the value',
          largest: int = LARGEST_BYTES) -> bytes:
    """The pickle of `value`, bytes.

    Raises `error` with a sentence that starts with `what` if it holds what is no value,
    can't be pickled or is larger than `largest` bytes.
    """
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, protocol=4).dump(value)
    except values.Refused as refused:
        raise error(f'{what} holds {refused}') from None
    except Exception as reason:  # pickling runs foreign code, which may raise anything
        raise error(f'{what} can not be pickled: {text_of(reason)}') from reason
    data = buffer.getvalue()
    if len(data) > largest:
        raise error(f'{what} takes {len(data):,} bytes; the limit is {largest:,}')
    return data


def dump_result(result: object, largest: int = LARGEST_BYTES) -> bytes | Failure | None:
    """What is kept of what a call or a callback has returned: its pickle, or None for None.

    A Failure is one, as in Twisted, and of it no more is kept than of an exception. Raises
    BadResult.
    """
    if isinstance(result, Failure):
        dumps(result, BadResult, 'the failure', largest)
        for name in ('type_name', 'traceback_text'):  # a list of calls could not show it
            value = getattr(result, name)
            if not isinstance(value, str):
                raise BadResult(f'the {name} of the failure is no text but {told(value)}')
        return result.cut()
    return None if result is None else dumps(result, BadResult, 'the result', largest)


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
    """The value of what `stored` returned.

    Raises ForeignValue if it needs what values may not be made of, here and now.
    """
    return _Unpickler(io.BytesIO(pickled(kept))).load()
