"""zasync: background calls for Zope, kept in the ZODB, run by a worker process.

Light on purpose: ZConfig's ``%import`` loads this package before Zope is
configured, so the helpers are looked up when they are first used.

Imports: manager, running, deferring, options, sealing, values, when used.
"""

from importlib import import_module
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .deferring import defer as defer
    from .options import groupable as groupable
    from .options import Options as Options
    from .options import Retry as Retry
    from .running import checkpoint as checkpoint
    from .running import progress as progress
    from .values import allow_value as allow_value

#: What is looked up when it is first used: name → module.
_HELPERS = {'checkpoint': 'running', 'progress': 'running', 'defer': 'deferring',
            'Options': 'options', 'Retry': 'options', 'allow_value': 'values',
            'groupable': 'options'}


if not TYPE_CHECKING:  # a type checker would take any name for one that is here
    def __getattr__(name):
        if name in _HELPERS:
            return getattr(import_module(f'.{_HELPERS[name]}', __name__), name)
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def initialize(context: Any) -> None:
    """Register the manager with Zope."""
    from . import permissions
    from . import sealing
    from .manager import AsynchronousCallManager
    from .zmi import managerforms
    context.registerClass(
        AsynchronousCallManager,
        permission=permissions.AddAsynchronousCallManagers,
        constructors=(managerforms.constructAsynchronousCallManagerForm,
                      managerforms.constructAsynchronousCallManager))
    sealing.report()
