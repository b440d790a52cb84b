"""Managers come and go: adding some more, and removing one, with its calls moved or without any.

What a removal does is said on a page of its own before it happens; that page also shows how
far it is.

Imports: leaving, zasync.
"""

from urllib.parse import quote
from urllib.parse import urlencode

import transaction
from AccessControl.class_init import InitializeClass
from AccessControl.Permissions import delete_objects
from AccessControl.SecurityInfo import ClassSecurityInfo
from zExceptions import BadRequest
from ZPublisher import zpublish

from Products.zasync import clock
from Products.zasync.forgery import action
from Products.zasync.forgery import Page
from Products.zasync.permissions import AddAsynchronousCallManagers
from Products.zasync.permissions import ViewManagementScreens

from .. import leaving
from ..leaving import CanNotLeave


#: Most managers made in one step. Each is served by a worker process of its own.
MOST_MANAGERS = 64

#: What to do with open calls: refuse to remove their manager, or move them first.
REFUSE, MOVE = 'refuse', 'move'


def read_number(text, least):
    """(number of managers, sentence saying what is wrong or None) of what was typed."""
    number = str(text).strip()
    if number.isdecimal() and len(number) <= 4 and least <= int(number) <= MOST_MANAGERS:
        return int(number), None
    return None, (f'The number of managers lies between {least} and {MOST_MANAGERS}, it is not '
                  f'{number!r}.')


def add_managers(dispatcher, number):
    """Add so many managers, zam1, zam2…; → their ids. They are higher than those there are.

    The id of one that was removed names another as seldom as can be: somebody may have kept it.
    """
    from Products.zasync.manager import AsynchronousCallManager
    numbers = (id[3:] for id in dispatcher.objectIds() if id.startswith('zam') and len(id) < 13)
    highest = max((int(number) for number in numbers if number.isdecimal()), default=0)
    ids = [f'zam{highest + position}' for position in range(1, number + 1)]
    for id in ids:
        dispatcher._setObject(id, AsynchronousCallManager(id))
    return ids


class ManagersPages:
    """The part of the overview that changes what managers there are; a part of the dispatcher."""

    security = ClassSecurityInfo()

    _removal_page = Page('../www/dispatcherRemoval', globals(), __name__='dispatcherRemoval')

    @action
    @security.protected(AddAsynchronousCallManagers)
    def manage_addManagers(self, REQUEST, managers=''):
        """Add so many managers more, or say what is wrong with the number."""
        number, problem = read_number(managers, 1)
        if problem:
            REQUEST.RESPONSE.setStatus(400)
            return self._show_overview(REQUEST, {'managers': managers}, {'managers': problem})
        ids = add_managers(self, number)
        return self._to_overview(REQUEST, f'Added {", ".join(ids)}: each wants a worker of its '
                                          'own.')

    @zpublish
    @security.protected(ViewManagementScreens)
    def manage_removal(self, REQUEST, id='', how=REFUSE, going=''):
        """What the removal of that manager will do, or how far it is; going -- it goes on itself.
        """
        manager = self._manager_of(id)
        if manager is None:
            return self._choose_again(REQUEST, id, how)
        return self._show_removal(manager, how, going=bool(going))

    @action
    @security.protected(delete_objects)
    def manage_removeManager(self, REQUEST, id='', how=REFUSE, going=''):
        """Remove a manager, or move a part of its calls on the way there.

        going -- a removal goes on that was under way when the form was made.
        """
        manager = self._manager_of(id)
        if manager is None:
            return self._choose_again(REQUEST, id, how)
        if going and not manager.leaving:
            REQUEST.RESPONSE.setStatus(400)
            return self._show_removal(manager, how, 'Its removal was called off meanwhile.')
        savepoint = transaction.savepoint(optimistic=True)
        try:
            if how == MOVE:
                leaving.start(self, manager)
                # Not after a conflict: until the pause is committed the worker writes the desk
                # with each claim, and would meet us again. The page goes on in a second.
                gone = not REQUEST.retry_count and leaving.go_on(self, manager,
                                                                 clock.SYSTEM.now())
            else:
                self._delObject(id)
                gone = True
        except (CanNotLeave, BadRequest) as reason:
            savepoint.rollback()  # the page is one that is committed
            REQUEST.RESPONSE.setStatus(400)
            return self._show_removal(manager, how, str(reason))
        if gone:
            return self._to_overview(REQUEST, f'{id} was removed.')
        return self._to_removal(REQUEST, id)

    @action
    @security.protected(delete_objects)
    def manage_keepManager(self, REQUEST, id=''):
        """Call the removal of a manager off."""
        manager = self._manager_of(id)
        if manager is None:
            return self._choose_again(REQUEST, id, MOVE)
        leaving.call_off(self, manager)
        paused = ' It is paused: resume it on its tab Calls.' if manager.paused else ''
        return self._to_overview(REQUEST, f'{id} stays.{paused}')

    def _manager_of(self, id):
        return next((each for each in self.managers() if each.getId() == id), None)

    def _choose_again(self, REQUEST, id, how):
        REQUEST.RESPONSE.setStatus(400)
        return self._show_overview(REQUEST, {'how': how}, {
            'id': f'There is no manager {id!r} here: choose one.' if id else 'Choose a manager.'})

    def _show_removal(self, manager, how, error=None, going=False):
        census, sentences = leaving.census(self, manager), []
        if manager.leaving:
            how = MOVE
        if error is None and how == MOVE:
            error = _refusal(self, manager)
        if error is None and how != MOVE and census.waiting + census.running:
            error = ('It has open calls and is not removed. Calls that wait: '
                     f'{census.waiting}; that run: {census.running}. Let its worker end them, or '
                     'have them moved.')
        if error is None and how != MOVE and census.visits:
            error = f'It is not removed: its worker {leaving.told_visits(census.visits)}'
        if error is None:
            others = [each.getId() for each in leaving.siblings(self, manager)]
            sentences = list(what_happens(manager, census, how, others))
        return self._removal_page(id=manager.getId(), leaves=manager.leaving, how=how, error=error,
                                  sentences=sentences, census=census._asdict(), going=going)

    def _to_overview(self, REQUEST, message):
        REQUEST.RESPONSE.redirect(
            f'{self.absolute_url()}/manage_overview?manage_tabs_message={quote(message)}')

    def _to_removal(self, REQUEST, id):
        REQUEST.RESPONSE.redirect(
            f'{self.absolute_url()}/manage_removal?{urlencode({"id": id, "going": "1"})}')


def _refusal(dispatcher, manager):
    try:
        leaving.check(dispatcher, manager)
    except CanNotLeave as reason:
        return str(reason)
    return None


# what is said before it happens

def what_happens(manager, census, how, others):
    """Sentences of what the removal will do; others -- ids of the managers that calls go to."""
    if how == MOVE:
        yield from _of_moving(census, ', '.join(others))
    else:
        yield 'It has no open calls, and is deleted at once.'
        if census.failed:
            yield f'Calls that failed and are kept: {census.failed}, deleted with it.'
        if census.periodic:
            yield f'Its periodic calls are deleted with it: {", ".join(census.periodic)}.'
    if census.results:
        number = (census.results if census.results <= leaving.RESULTS_MOST
                  else f'more than {leaving.RESULTS_MOST:,}')
        yield (f'Kept results: {number}, deleted with it. Wait, if somebody has yet to '
               'fetch one.')
    card = manager.queue.card
    who = f', process {card.pid} on {card.host},' if census.served else ''
    yield (f'Its worker{who} has no target any more: it waits for one and says so in its log. '
           'Stop it, and take its configuration file away.')


def _of_moving(census, others):
    yield 'It is paused at once, and the dispatcher gives it no more calls.'
    yield f'Calls that wait: {census.waiting}, moved to {others}.'
    if census.running and census.served:
        yield f'Calls that run: {census.running}, not moved. The removal waits for their end.'
    elif census.running:
        yield (f'Calls that ran in a worker that is gone: {census.running}, moved. They start '
               'again, or fail if they may not run twice.')
    if census.visits:
        yield (f'Calls of other managers that its worker runs: {census.visits}. The removal waits '
               'for their end.')
    if census.failed:
        yield f'Calls that failed and are kept: {census.failed}, moved.'
    if census.periodic:
        yield f'Its periodic calls are moved: {", ".join(census.periodic)}.'
    if census.lacking:
        yield (f'No other worker offers {", ".join(census.lacking)}: calls of such plugins wait '
               'until one does.')
    yield ('A moved call has the same id and is found at its new manager. A deferred that was '
           'kept stays true; a pair of manager id and call id does not.')


InitializeClass(ManagersPages)
