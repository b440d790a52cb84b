"""zasync: background calls for Zope, kept in the ZODB, run by a worker process.

Light on purpose: ZConfig's ``%import`` loads this package before Zope is
configured, so the helpers are looked up when they are first used.

Imports: manager, running, when used.
"""


def __getattr__(name):
    if name == 'checkpoint':
        from .running import checkpoint
        return checkpoint
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def initialize(context):
    """Register the manager with Zope."""
    from . import permissions
    from .manager import AsynchronousCallManager
    from .zmi import managerforms
    context.registerClass(
        AsynchronousCallManager,
        permission=permissions.AddAsynchronousCallManagers,
        constructors=(managerforms.constructAsynchronousCallManagerForm,
                      managerforms.constructAsynchronousCallManager))
