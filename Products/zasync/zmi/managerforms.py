"""Add form and settings of the manager.

A form that is refused comes back with what was typed and one sentence a field;
nothing is half-written.

Imports: permissions, forgery.
"""

import html
from urllib.parse import quote

from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from Acquisition import aq_get
from OFS.ObjectManager import checkValidId
from ZPublisher import zpublish

from .. import clock
from .. import permissions
from ..forgery import action
from ..forgery import Page


#: Defaults of the add form. Historic contract A.3.
DEFAULTS = {'id': 'asynchronous_call_manager', 'poll_interval': '5', 'rotation_period': '86400'}

#: Longest rotation period, in seconds: ten years.
LONGEST_ROTATION = 10 * 365 * 86400
#: Longest poll interval, in seconds. Only a storage that pushes no news waits so long.
LONGEST_POLL = 3600

_add_form = Page('../www/managerAdd', globals(), __name__='managerAdd')


@zpublish
def constructAsynchronousCallManagerForm(self, REQUEST):
    """The add form."""
    return _render(self, DEFAULTS, {})


def _render(dispatcher, values, errors):
    acquired = aq_get(dispatcher.this(), DEFAULTS['id'], None, 1) is not None
    return _add_form.__of__(dispatcher)(values=values, errors=errors, acquired=acquired)


@action
def constructAsynchronousCallManager(container, id=DEFAULTS['id'], poll_interval=5,
                                     rotation_period=86400, RESPONSE=None, REQUEST=None):
    """Add a manager to the container; the add form's action (historic contract A.2).

    Raises ValueError with a sentence a field when called from Python; through the
    web the form comes back with them.
    """
    from ..manager import AsynchronousCallManager
    dispatcher, container = container, container.this()
    errors = check_times(poll_interval, rotation_period)
    problem = check_id(container, id)
    if problem:
        errors['id'] = problem
    if errors:
        if RESPONSE is None:
            raise ValueError(' '.join(errors.values()))
        RESPONSE.setStatus(400)
        return _render(dispatcher, {'id': id, 'poll_interval': poll_interval,
                              'rotation_period': rotation_period}, errors)
    container._setObject(id, AsynchronousCallManager(id, poll_interval, rotation_period))
    if RESPONSE is not None:
        RESPONSE.redirect(container.absolute_url() + '/manage_main')
    return None


def check_id(container, id):
    """A sentence saying why `id` can't be added to the container, or None."""
    if not id:
        return 'Give an id.'
    try:
        checkValidId(container, id)
    except Exception as reason:  # BadRequest, or the string exceptions of old containers
        return f'This id can not be used: {_plain(reason)}'
    return None


def _plain(reason):
    """Zope's sentence as text: it has the id in it as HTML."""
    return html.unescape(' '.join(map(str, reason.args))) or type(reason).__name__


def check_times(poll_interval, rotation_period):
    """{field: sentence} of what is wrong with these values, {} if nothing is."""
    errors = {}
    for name, label, value, longest in (
            ('poll_interval', 'poll interval', poll_interval, LONGEST_POLL),
            ('rotation_period', 'rotation period', rotation_period, LONGEST_ROTATION)):
        try:
            number = int(str(value).strip())
        except ValueError:
            errors[name] = f'The {label} is a whole number of seconds, not {str(value)!r}.'
            continue
        if not 1 <= number <= longest:
            errors[name] = f'The {label} lies between 1 and {longest} seconds.'
    return errors


class ManagerPages:
    """The tabs of a manager."""

    security = ClassSecurityInfo()

    manage_options = (
        {'label': 'Settings', 'action': 'manage_main'},
        {'label': 'Calls', 'action': 'manage_calls'},
        {'label': 'Periodic', 'action': 'manage_periodic'},
        {'label': 'Security', 'action': 'manage_access'},
    )

    _settings_page = Page('../www/managerSettings', globals(), __name__='managerSettings')

    @zpublish
    @security.protected(permissions.ViewManagementScreens)
    def manage_main(self, REQUEST, manage_tabs_message=None):
        """The settings, and how the queue stands."""
        return self._show_settings(
            {'poll_interval': self.poll_interval, 'rotation_period': self.rotation_period}, {},
            manage_tabs_message)

    @zpublish
    @security.protected(permissions.ViewManagementScreens)
    def manage_workspace(self, REQUEST):
        """The first tab."""
        REQUEST.RESPONSE.redirect(self.absolute_url() + '/manage_main')

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_changeSettings(self, REQUEST, poll_interval='', rotation_period=''):
        """Change both periods, or say what is wrong with them."""
        errors = check_times(poll_interval, rotation_period)
        if errors:
            REQUEST.RESPONSE.setStatus(400)
            return self._show_settings(
                {'poll_interval': poll_interval, 'rotation_period': rotation_period}, errors, None)
        self.set_times(poll_interval, rotation_period)
        return self._back(REQUEST, 'Settings changed.')

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_ping(self, REQUEST):
        """Ask the worker to prove that it lives."""
        self.ping()
        return self._back(REQUEST, 'The worker was asked. Reload this page to see its answer.')

    def _back(self, REQUEST, message):
        """To the settings, with a message; so that a reload does not do it again."""
        REQUEST.RESPONSE.redirect(
            f'{self.absolute_url()}/manage_main?manage_tabs_message={quote(message)}')

    def _show_settings(self, values, errors, message):
        return self._settings_page(values=values, errors=errors, status=self._status(),
                                   manage_tabs_message=message)

    def _status(self):
        """What the page shows of queue and worker: labels and texts."""
        card, pulse = self.queue.card, self.queue.pulse
        worker = 'none yet'
        if card.boot is not None:
            worker = (f'process {card.pid} on {card.host}, since '
                      f'{_shown(clock.as_datetime(card.started_at))}'
                      + ('' if pulse.accepting else '; takes no calls now'))
        return (
            ('Calls waiting', str(self.lenNewCalls())),
            ('Calls running', str(self.lenAcceptedCalls())),
            ('Worker', worker),
            ('Last sign of life', _shown(clock.as_datetime(
                clock.serial_seconds(pulse._p_serial) if pulse.beat else None))),
            ('Last ping', _shown(self.getLastPing())),
            ('Last pong', _shown(self.getLastPong())),
        )


def _shown(moment):
    return 'never' if moment is None else moment.strftime('%Y-%m-%d %H:%M:%S UTC')


InitializeClass(ManagerPages)
