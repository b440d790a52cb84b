"""zasyncdispatcher: a folder of asynchronous call managers that spreads the calls.

``asyncedCall`` and ``canAsync`` are at their historic place here. They are looked
up when first used: ZConfig's ``%import`` loads this package early.

Imports: api, zasyncdispatcher, when used.
"""

from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .api import asyncedCall as asyncedCall
    from .api import canAsync as canAsync

if not TYPE_CHECKING:  # a type checker would take any name for one that is here
    def __getattr__(name):
        if name in ('asyncedCall', 'canAsync'):
            from . import api
            return getattr(api, name)
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def initialize(context: Any) -> None:
    """Register the dispatcher with Zope."""
    from .zasyncdispatcher import ZAsyncDispatcher
    from .zmi import dispatcherforms
    context.registerClass(
        ZAsyncDispatcher,
        permission='Add Asynchronous Call Dispatchers',
        constructors=(dispatcherforms.constructZAsyncDispatcherForm,
                      dispatcherforms.constructZAsyncDispatcher,
                      dispatcherforms.constructZAsyncDispatcherWithManagers))
