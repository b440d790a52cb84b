"""zasync: background calls for Zope, kept in the ZODB, run by a worker process.

Light on purpose: ZConfig's ``%import`` loads this package before Zope is
configured, so the helpers are looked up when they are first used.

Imports: manager, running, deferring, options, when used.
"""

from importlib import import_module


#: What is looked up when it is first used: name → module.
_HELPERS = {'checkpoint': 'running', 'progress': 'running', 'defer': 'deferring',
            'Options': 'options', 'Retry': 'options'}


def __getattr__(name):
    if name in _HELPERS:
        return getattr(import_module(f'.{_HELPERS[name]}', __name__), name)
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
