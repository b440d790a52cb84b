"""zasyncdispatcher: a folder of asynchronous call managers that spreads the calls.

``asyncedCall`` and ``canAsync`` are at their historic place here. They are looked
up when first used: ZConfig's ``%import`` loads this package early.

Imports: api, zasyncdispatcher, when used.
"""


def __getattr__(name):
    if name in ('asyncedCall', 'canAsync'):
        from . import api
        return getattr(api, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def initialize(context):
    """Register the dispatcher with Zope."""
    from .zasyncdispatcher import ZAsyncDispatcher
    from .zmi import dispatcherforms
    context.registerClass(
        ZAsyncDispatcher,
        permission='Add Asynchronous Call Dispatchers',
        constructors=(dispatcherforms.constructZAsyncDispatcherForm,
                      dispatcherforms.constructZAsyncDispatcher,
                      dispatcherforms.constructZAsyncDispatcherWithManagers))
