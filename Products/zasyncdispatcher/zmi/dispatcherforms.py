"""Add form and overview of the dispatcher.

Imports: zasync.zmi.managerforms, zasync.manager.
"""

from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from Products.PageTemplates.PageTemplateFile import PageTemplateFile
from ZPublisher import zpublish

from Products.zasync.permissions import ViewManagementScreens
from Products.zasync.zmi.managerforms import check_id


DEFAULT_ID = 'asynchronous_call_dispatcher'

#: Most managers made in one step. Each is served by a worker process of its own.
MOST_MANAGERS = 64

_add_form = PageTemplateFile('../www/dispatcherAdd', globals(), __name__='dispatcherAdd')


@zpublish
def constructZAsyncDispatcherForm(self, REQUEST):
    """The add form; it offers to make the managers in the same step."""
    return _render(self, {'id': DEFAULT_ID, 'managers': '2'}, {})


def _render(dispatcher, values, errors):
    return _add_form.__of__(dispatcher)(values=values, errors=errors)


@zpublish(methods='POST')
def constructZAsyncDispatcher(context, id=DEFAULT_ID, RESPONSE=None):
    """Add an empty dispatcher to the container (historic contract C.1)."""
    return constructZAsyncDispatcherWithManagers(context, id, 0, RESPONSE)


@zpublish(methods='POST')
def constructZAsyncDispatcherWithManagers(context, id=DEFAULT_ID, managers=2, RESPONSE=None):
    """Add a dispatcher with that many managers zam1, zam2…; the add form's action.

    Raises ValueError with a sentence a field when called from Python; through the
    web the form comes back with them.
    """
    from Products.zasync.manager import AsynchronousCallManager

    from ..zasyncdispatcher import ZAsyncDispatcher
    container = context.this()
    errors = {}
    problem = check_id(container, id)
    if problem:
        errors['id'] = problem
    number = str(managers).strip()
    if not number.isdecimal() or len(number) > 4 or int(number) > MOST_MANAGERS:
        errors['managers'] = (
            f'The number of managers lies between 0 and {MOST_MANAGERS}, it is not {number!r}.')
    if errors:
        if RESPONSE is None:
            raise ValueError(' '.join(errors.values()))
        RESPONSE.setStatus(400)
        return _render(context, {'id': id, 'managers': managers}, errors)
    container._setObject(id, ZAsyncDispatcher(id))
    dispatcher = container._getOb(id)
    for position in range(1, int(number) + 1):
        dispatcher._setObject(f'zam{position}', AsynchronousCallManager(f'zam{position}'))
    if RESPONSE is not None:
        RESPONSE.redirect(container.absolute_url() + '/manage_main')
    return None


class DispatcherPages:
    """The tabs of a dispatcher that a folder has not."""

    security = ClassSecurityInfo()

    manage_options = ({'label': 'Overview', 'action': 'manage_overview'},)

    _overview_page = PageTemplateFile('../www/dispatcherOverview', globals(),
                                      __name__='dispatcherOverview')

    @zpublish
    @security.protected(ViewManagementScreens)
    def manage_overview(self, REQUEST):
        """How the managers stand."""
        rows = []
        for manager in self.managers():
            load = self.load_of(manager)
            card = manager.queue.card
            rows.append({'id': load.id, 'url': manager.absolute_url(),
                         'new': manager.lenNewCalls(), 'accepted': manager.lenAcceptedCalls(),
                         'alive': load.alive,
                         'worker': (f'process {card.pid} on {card.host}' if card.boot
                                    else 'none yet')})
        return self._overview_page(rows=rows)


InitializeClass(DispatcherPages)
