"""The tab "Periodic" of a manager: calls that are made again and again.

A form that is refused comes back with what was typed and a sentence a field; nothing is
half-written. Who saves a form is the caller of all runs from then on, so that person must
be allowed to put calls. What changes something is a POST.

Imports: periodicvalues, callpages, scheduling, builtin, cron, permissions, forgery, options,
errors, clock.
"""

from urllib.parse import urlencode

from AccessControl import getSecurityManager
from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from zExceptions import NotFound
from zExceptions import Unauthorized
from ZPublisher import zpublish

from .. import builtin
from .. import clock
from .. import cron
from .. import permissions
from .. import scheduling
from ..errors import BadCall
from ..errors import UnknownPlugin
from ..forgery import action
from ..forgery import Page
from ..options import bare
from .callpages import BADGES
from .periodicvalues import called_by
from .periodicvalues import DEFAULTS
from .periodicvalues import EXEC
from .periodicvalues import KEEP
from .periodicvalues import PARTS
from .periodicvalues import PLUGIN
from .periodicvalues import read_call
from .periodicvalues import read_options
from .periodicvalues import Reader
from .periodicvalues import row_of
from .periodicvalues import shown_ticks
from .periodicvalues import values_of


#: Ticks that the form shows.
PREVIEW = 5


class PeriodicPages(scheduling.PeriodicCalls):
    """The pages; a part of the manager."""

    security = ClassSecurityInfo()

    _periodic_page = Page('../www/periodic', globals(), __name__='periodic')
    _periodic_form = Page('../www/periodicCall', globals(), __name__='periodicCall')

    @zpublish
    @security.protected(permissions.ViewManagementScreens)
    def manage_periodic(self, REQUEST, manage_tabs_message=None):
        """All periodic calls."""
        now = clock.SYSTEM.now()
        return self._periodic_page(
            rows=[row_of(each, self.queue, now) for each in self.periodic.values()],
            badges=BADGES, manage_tabs_message=manage_tabs_message)

    @zpublish
    @security.protected(permissions.ViewManagementScreens)
    def manage_periodicCall(self, REQUEST, id='', manage_tabs_message=None):
        """The form of one periodic call; without an id, of a new one."""
        values = values_of(self._shown_periodic(id)) if id else DEFAULTS
        found = Reader(values)
        found.read('zone', cron.check_zone)  # whoever set it knew more time zones, it may be
        return self._show_form(values, found.errors, not id, manage_tabs_message)

    def _show_form(self, values, errors, adding, message=None):
        periodic = None if adding else self._shown_periodic(values['id'])
        kinds = [(EXEC, 'an expression on an object'), (PLUGIN, 'a plugin with arguments')]
        if periodic is not None:
            kinds.append((KEEP, 'what it calls already, as its caller'))
        now = clock.SYSTEM.now()
        return self._periodic_form(
            values=values, errors=errors, adding=adding, kinds=kinds, parts=PARTS,
            row=None if periodic is None else row_of(periodic, self.queue, now),
            calls=None if periodic is None else called_by(periodic.call),
            ticks=() if periodic is None else shown_ticks(periodic.timetable, now, PREVIEW),
            zones=sorted(cron.zones()), badges=BADGES,
            plugins=sorted({*builtin.NAMES, *self.offered()}),
            manage_tabs_message=message)

    def _shown_periodic(self, id):
        found = self.periodic.get(id) if isinstance(id, str) else None
        if found is None:  # without the id: Zope shows errors unescaped
            raise NotFound('There is no such periodic call.')
        return found

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_savePeriodicCall(self, REQUEST, adding=''):
        """Add or change a periodic call, or say what is wrong with it."""
        if not getSecurityManager().checkPermission(
                permissions.MakeAsynchronousApplicationCalls, self):
            raise Unauthorized('A periodic call runs as whoever saves it, and you may not put '
                               'calls.')
        values = {name: bare(str(REQUEST.form.get(name, ''))) for name in DEFAULTS}
        for name in ('id', 'expression', 'zone', 'plugin'):
            values[name] = values[name].strip()
        adding = bool(adding)
        periodic = None if adding else self._shown_periodic(values['id'])
        errors = self._save(values, periodic)
        if errors:
            REQUEST.RESPONSE.setStatus(400)
            return self._show_form(values, errors, adding)
        return self._back_to_periodic(REQUEST, 'Saved.', values['id'])

    def _save(self, values, periodic):
        """Take what was typed; → {field: sentence} of what is wrong, and then nothing is."""
        found = Reader(values)
        if periodic is None and values['id'] in self.periodic:
            found.errors['id'] = 'There is a periodic call of this id already.'
        else:
            found.read('id', scheduling.check_id)
        found.read('title', scheduling.check_title)
        found.read('expression', cron.check_expression)
        found.read('zone', cron.check_zone)
        if values['kind'] == KEEP and periodic is not None:
            if not found.errors:
                self.reschedulePeriodicCall(values['id'], values['expression'], values['zone'],
                                            values['title'])
            return found.errors
        plugin, args, kwargs = read_call(found)
        options = read_options(found, periodic)
        if not found.errors:
            try:
                self.setPeriodicCall(values['id'], values['expression'], values['zone'], plugin,
                                     args, kwargs, options, values['title'])
            except UnknownPlugin as reason:
                found.errors['plugin'] = str(reason)
            except BadCall as reason:
                found.errors['kind' if plugin == EXEC else 'arguments'] = str(reason)
        return found.errors

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_pausePeriodicCall(self, REQUEST, id=''):
        """Let the ticks of a periodic call go by."""
        self._shown_periodic(id)
        self.pausePeriodicCall(id)
        return self._back_to_periodic(REQUEST, f'{id} is paused: its times go by.')

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_resumePeriodicCall(self, REQUEST, id=''):
        """End the pause of a periodic call."""
        self._shown_periodic(id)
        self.resumePeriodicCall(id)
        return self._back_to_periodic(REQUEST, f'{id} runs again, from its next time on.')

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_runPeriodicCall(self, REQUEST, id=''):
        """Have a periodic call run now."""
        self._shown_periodic(id)
        self.runPeriodicCall(id)
        return self._back_to_periodic(REQUEST, f'{id} runs as soon as the worker has seen this.')

    @action
    @security.protected(permissions.ViewManagementScreens)
    def manage_dropPeriodicCall(self, REQUEST, id=''):
        """Delete a periodic call."""
        self._shown_periodic(id)
        self.dropPeriodicCall(id)
        return self._back_to_periodic(REQUEST, f'{id} is deleted. A call of it that runs goes on.')

    def _back_to_periodic(self, REQUEST, message, id=None):
        page, query = 'manage_periodic', {'manage_tabs_message': message}
        if id is not None:
            page, query['id'] = 'manage_periodicCall', id
        REQUEST.RESPONSE.redirect(f'{self.absolute_url()}/{page}?{urlencode(query)}')


InitializeClass(PeriodicPages)
