"""The two functions other code calls (historic contract C.5).

Imports: interfaces.
"""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

from Acquisition import aq_get

from .interfaces import IAsynchronousCallDispatcher


if TYPE_CHECKING:
    from Products.zasync.deferred import Deferred


DISPATCHER_ID = 'asynchronous_call_dispatcher'


def find_dispatcher(context: Any) -> Any:
    """The dispatcher that is acquired from `context`, or None."""
    found = aq_get(context, DISPATCHER_ID, None, 1)
    return found if IAsynchronousCallDispatcher.providedBy(found) else None


def canAsync(context: Any) -> bool:
    """Whether a dispatcher can be acquired from `context`; says nothing of its workers."""
    return find_dispatcher(context) is not None


def asyncedCall(context: Any, expression: str) -> tuple[str | None, Deferred | None]:
    """Put a TALES expression, with the application root as `home`; → (manager id, IDeferred).

    ``(None, None)``, and nothing else, means that no dispatcher can be acquired.
    Raises what IAsynchronousCallDispatcher.putCall raises.
    """
    dispatcher = find_dispatcher(context)
    if dispatcher is None:
        return None, None
    put: tuple[str | None, Deferred] = dispatcher.putCall('zope_exec', '/', {}, expression, {})
    return put
