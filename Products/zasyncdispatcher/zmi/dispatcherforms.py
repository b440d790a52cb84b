"""Add form and overview of the dispatcher.

Imports: managersforms, balancing, zasync.
"""

import json
from urllib.parse import urlencode

from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from ZPublisher import zpublish

from Products.zasync import clock
from Products.zasync.forgery import action
from Products.zasync.forgery import Page
from Products.zasync.permissions import ViewManagementScreens
from Products.zasync.zmi.callpages import moment
from Products.zasync.zmi.managerforms import check_id

from ..balancing import least
from ..interfaces import BY_LOAD
from ..interfaces import BY_PACE
from ..interfaces import QUEUE
from ..interfaces import REFUSE
from ..interfaces import RUN
from . import managersforms
from .managersforms import add_managers
from .managersforms import ManagersPages
from .managersforms import MOST_MANAGERS
from .managersforms import read_number


DEFAULT_ID = 'asynchronous_call_dispatcher'

#: How a manager is chosen, by `balance`.
HOW = {BY_LOAD: 'A call goes to the least loaded of those that take calls.',
       BY_PACE: 'A call goes to the one, of those that take calls, where it would end first, by '
                'load and pace.'}
#: What becomes of a call when none can be, by `no_worker`.
OTHERWISE = {RUN: 'run in the request that puts it, if it can be', QUEUE: 'left with one of them',
             REFUSE: 'refused'}

_add_form = Page('../www/dispatcherAdd', globals(), __name__='dispatcherAdd')


@zpublish
def constructZAsyncDispatcherForm(self, REQUEST):
    """The add form; it offers to make the managers in the same step."""
    return _render(self, {'id': DEFAULT_ID, 'managers': '2'}, {})


def _render(dispatcher, values, errors):
    return _add_form.__of__(dispatcher)(values=values, errors=errors)


@action
def constructZAsyncDispatcher(context, id=DEFAULT_ID, RESPONSE=None, REQUEST=None):
    """Add an empty dispatcher to the container (historic contract C.1)."""
    return constructZAsyncDispatcherWithManagers(context, id, 0, RESPONSE)


@action
def constructZAsyncDispatcherWithManagers(context, id=DEFAULT_ID, managers=2, RESPONSE=None,
                                          REQUEST=None):
    """Add a dispatcher with that many managers zam1, zam2…; the add form's action.

    Raises ValueError with a sentence a field when called from Python; through the
    web the form comes back with them.
    """
    from ..zasyncdispatcher import ZAsyncDispatcher
    container = context.this()
    errors = {}
    problem = check_id(container, id)
    if problem:
        errors['id'] = problem
    number, problem = read_number(managers, 0)
    if problem:
        errors['managers'] = problem
    if errors:
        if RESPONSE is None:
            raise ValueError(' '.join(errors.values()))
        RESPONSE.setStatus(400)
        return _render(context, {'id': id, 'managers': managers}, errors)
    container._setObject(id, ZAsyncDispatcher(id))
    add_managers(container._getOb(id), number)
    if RESPONSE is not None:
        RESPONSE.redirect(container.absolute_url() + '/manage_main')
    return None


class DispatcherPages(ManagersPages):
    """The tabs of a dispatcher that a folder has not."""

    security = ClassSecurityInfo()

    manage_options = ({'label': 'Overview', 'action': 'manage_overview'},)

    _overview_page = Page('../www/dispatcherOverview', globals(), __name__='dispatcherOverview')

    @zpublish
    @security.protected(ViewManagementScreens)
    def manage_overview(self, REQUEST, manage_tabs_message=None):
        """How the managers stand; the page asks for news itself."""
        return self._show_overview(REQUEST, {}, {}, manage_tabs_message)

    def _show_overview(self, REQUEST, values, errors, message=None):
        rows = self._rows()
        return self._overview_page(
            rows=rows, how=self._how(rows), tests=self._tests(REQUEST), errors=errors,
            leaving=[{'id': row['id'], 'query': urlencode({'id': row['id']})}
                     for row in rows if row['leaving']],
            values={'managers': '1', 'how': managersforms.REFUSE, **values},
            manage_tabs_message=message)

    @zpublish
    @security.protected(ViewManagementScreens)
    def manage_overview_data(self, REQUEST):
        """The same as JSON, for the page."""
        REQUEST.RESPONSE.setHeader('Content-Type', 'application/json')
        REQUEST.RESPONSE.setHeader('Cache-Control', 'no-store')
        rows = self._rows()
        return json.dumps({'rows': rows, 'how': self._how(rows), 'tests': self._tests(REQUEST)})

    @action
    @security.protected(ViewManagementScreens)
    def manage_test(self, REQUEST):
        """Put a call that does nothing to each manager that has a worker, and watch them."""
        ids = [f'{manager.getId()}:{manager.putCall("echo", clock.SYSTEM.now()).id}'
               for manager in self.managers() if manager.queue.pulse.beat]
        REQUEST.RESPONSE.redirect(
            f'{self.absolute_url()}/manage_overview?{urlencode({"test": ids}, doseq=True)}')

    def _rows(self):
        """What the overview shows of each manager: {name: text or number}."""
        rows = []
        for manager in self.managers():
            load, card, pulse = self.load_of(manager), manager.queue.card, manager.queue.pulse
            rows.append({
                'id': load.id, 'url': manager.absolute_url(), 'new': manager.lenNewCalls(),
                'accepted': manager.lenAcceptedCalls(), 'load': load.calls, 'alive': load.alive,
                'why': load.why, 'leaving': manager.leaving,
                'pace': f'{load.pace:g}' if load.pace else '',
                'beat_at': moment(clock.serial_seconds(pulse._p_serial) if pulse.beat else None),
                'worker': f'process {card.pid} on {card.host}' if card.boot else 'none yet'})
        next_ones = least([self.load_of(manager) for manager in self.managers()], self.balance)
        chosen = {load.id for load in next_ones}
        for row in rows:
            row['chosen'] = row['id'] in chosen
        return rows

    def _how(self, rows):
        """A sentence: how the next call finds its manager."""
        if not any(row['chosen'] for row in rows):
            return f'None takes calls, so a call is {OTHERWISE[self.no_worker]}.'
        return HOW[self.balance]

    def _tests(self, REQUEST):
        """{manager id: what became of its test call}, of the tests the request names."""
        found = {}
        asked = REQUEST.form.get('test', [])
        for item in (asked if isinstance(asked, list) else [asked])[:MOST_MANAGERS]:
            manager_id, _, id = str(item).rpartition(':')
            for manager in self.managers():
                if manager.getId() == manager_id:
                    found[manager_id] = _outcome(manager.queue.find(id))
        return found


def _outcome(deferred):
    """What became of a test call, in words."""
    if deferred is None:
        return 'gone'
    if not deferred.ended:
        return 'waits' if deferred.started_at is None else 'runs'
    if deferred.failure is not None:
        return f'failed: {deferred.failure}'[:200]
    return f'answered after {1000 * _seconds_to_end(deferred):.0f} ms'


def _seconds_to_end(deferred):
    """From the put to the end, of which the worker's clock tells one and ours the other: the
    storage's tells both, as soon as this process knows it."""
    ahead = clock.storage_clock(deferred._p_jar.db().database_name).ahead_of(clock.SYSTEM)
    if ahead is None:
        return deferred.ended_at - deferred.put_at
    return max(0.0, clock.serial_seconds(deferred._p_serial) - (deferred.put_at + ahead))


InitializeClass(DispatcherPages)
