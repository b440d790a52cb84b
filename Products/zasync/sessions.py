"""Which browser sent the request, by the browser id manager of Products.Sessions.

Only the id is needed, never the session's data: a worker has no session, and none need
be shared with it.

Imports: options, errors.
"""

from Acquisition import aq_get

from .errors import BadCall
from .options import bare


#: Products.Sessions calls it BROWSERID_MANAGER_NAME; that product is optional here.
BROWSER_ID_MANAGER = 'browser_id_manager'


def browser_id(context):
    """The id of the browser, made and set as a cookie when it has none; raises BadCall."""
    manager = _manager(context)
    if manager is None:
        raise BadCall(f'no {BROWSER_ID_MANAGER} is reached from here, so the browser can not be '
                      'told from others: install Products.Sessions (the extra "sessions")')
    try:
        found = _text(manager.getBrowserId())
    except AttributeError as reason:  # it acquires the request
        raise BadCall('a session call is put in a request of a browser, and there is none: '
                      f'{reason}') from reason
    if found is None:
        raise BadCall('the id of the browser is no text')
    return found


def known_browser_id(context):
    """The id that the browser sent, or None; nothing is made."""
    manager = _manager(context)
    if manager is None or aq_get(manager, 'REQUEST', None, 1) is None:
        return None
    has_one = getattr(manager, 'hasBrowserId', None)
    return None if has_one is not None and not has_one() else _text(manager.getBrowserId())


def _text(id):
    """What that id says, if it is a text: a script may have put one into the request that is equal
    to all others.
    """
    return bare(id) if isinstance(id, str) else None


def _manager(context):
    return aq_get(context, BROWSER_ID_MANAGER, None, 1)
