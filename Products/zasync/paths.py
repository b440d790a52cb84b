"""Objects by their physical path, and nothing that is only acquired there.

Traversal acquires: asked for /sub/acl_users it hands out /acl_users when /sub has
none. A call put by a user of the one must not run as a namesake of the other.

Imports: nothing of ours.
"""


def at(app, path):
    """The object at `path` (tuple of ids, with or without the leading ''), or None.

    app -- the application root. Unchecked: what is done with the object is.
    """
    ids = tuple(path[1:] if path[:1] == ('',) else path)
    if not ids:
        return app
    found = app.unrestrictedTraverse(ids, None)
    physical = getattr(found, 'getPhysicalPath', None)
    return found if physical is not None and tuple(physical()) == ('', *ids) else None
