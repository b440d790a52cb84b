"""The two functions other code calls (historic contract C.5).

Imports: interfaces.
"""

from Acquisition import aq_get

from .interfaces import IAsynchronousCallDispatcher


DISPATCHER_ID = 'asynchronous_call_dispatcher'


def find_dispatcher(context):
    """The dispatcher that is acquired from `context`, or None."""
    found = aq_get(context, DISPATCHER_ID, None, 1)
    return found if IAsynchronousCallDispatcher.providedBy(found) else None


def canAsync(context):
    """Whether a dispatcher can be acquired from `context`; says nothing of its workers."""
    return find_dispatcher(context) is not None


def asyncedCall(context, expression):
    """Put a TALES expression, with the application root as `home`; → (manager id, IDeferred).

    ``(None, None)``, and nothing else, means that no dispatcher can be acquired.
    Raises what IAsynchronousCallDispatcher.putCall raises.
    """
    dispatcher = find_dispatcher(context)
    if dispatcher is None:
        return None, None
    return dispatcher.putCall('zope_exec', '/', {}, expression, {})
