"""Objects by their physical path, and nothing that is only acquired there.

Traversal acquires: asked for /sub/acl_users it hands out /acl_users when /sub has
none. A call put by a user of the one must not run as a namesake of the other.

Nor does it tell what is not there from what can't be loaded now, if it is given a default: a
call whose object is on a server that is away would fail for good.

Imports: nothing of ours.
"""

from Acquisition import aq_base
from ZConfig import ConfigurationError
from zExceptions import NotFound
from zExceptions import Unauthorized


#: What traversal raises where nothing is, or what is there has nothing of that name; the last one
#: where a mount point is that has no database in this process.
NOWHERE = (AttributeError, LookupError, TypeError, ValueError, NotFound, Unauthorized,
           ConfigurationError)


def at(app, path):
    """The object at `path` (tuple of ids, with or without the leading ''), or None.

    app -- the application root. Unchecked: what is done with the object is.
    Raises what loading it raises, such as ClientDisconnected.
    """
    ids = tuple(path[1:] if path[:1] == ('',) else path)
    if not ids:
        return app
    try:
        found = app.unrestrictedTraverse(ids)
    except NOWHERE:
        found = None
    physical = getattr(found, 'getPhysicalPath', tuple)
    if tuple(physical()) == ('', *ids) and not _is_mount_point(found):
        return found
    _check_mounts(app, ids)
    return None


def _check_mounts(app, ids):
    """Raise what kept the database from being mounted that is the first on this way, if one is.

    Its mount point keeps that to itself, and stands where the mounted object would.
    """
    step = app
    for id in ids:
        # Not by traversal, which would wait for its server once more.
        child = getattr(aq_base(step), '__dict__', {}).get(id)
        error = child.mount_error_() if _is_mount_point(child) else None
        if error is None:
            try:
                step = step.unrestrictedTraverse((id,))
            except NOWHERE:
                return
            error = step.mount_error_() if _is_mount_point(step) else None
        if error is not None:
            if isinstance(error[1], NOWHERE):
                return
            raise error[1]


def _is_mount_point(found):
    return getattr(aq_base(found), '_isMountedObject', False)
