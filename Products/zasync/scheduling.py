"""Scheduling: what a manager offers for its periodic calls.

Imports: periodic, door, options, cron, interfaces, errors, permissions, clock.
"""

import datetime
import re

from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from zope.interface import implementer
from ZPublisher import zpublish

from . import clock
from . import permissions
from .cron import Timetable
from .door import make_call
from .errors import BadCall
from .errors import told
from .interfaces import IPeriodicCalls
from .options import Options
from .periodic import ID_MOST
from .periodic import PeriodicCall


#: Longest title, in characters.
TITLE_MOST = 200

_ID = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]*')


@implementer(IPeriodicCalls)
class PeriodicCalls:
    """See IPeriodicCalls; a part of the manager."""

    security = ClassSecurityInfo()
    security.declarePrivate('periodic')

    @zpublish(False)
    @security.private
    def setPeriodicCall(self, id, expression, zone, plugin, args=(), kwargs=None,
                        options=None, title=''):
        """See IPeriodicCalls."""
        check_id(id)
        check_title(title)
        timetable = Timetable(expression, zone)
        call = self._periodic_call(plugin, args, kwargs, options)
        now = clock.SYSTEM.now()
        if id in self.periodic:
            self.periodic[id].change(title, timetable, call, now)
        else:
            self.periodic[id] = PeriodicCall(id, title, timetable, call, now)

    def _periodic_call(self, plugin, args, kwargs, options):
        """The Call to be made at each tick. Raises BadCall."""
        if not isinstance(args, (list, tuple)):
            raise BadCall(f'the arguments are a tuple, not {told(args, 300)}')
        if not isinstance(kwargs or {}, dict) or not all(
                isinstance(name, str) for name in kwargs or {}):
            raise BadCall(f'the keywords are a mapping of names, not {told(kwargs, 300)}')
        options = Options() if options is None else options
        call = make_call(self.offered(), None, plugin, tuple(args), kwargs or {}, options)
        if options.key is not None:
            raise BadCall('a periodic call has no key: it has one call at a time anyway')
        if options.not_before is not None:
            raise BadCall('a periodic call has no not_before: its expression gives the times')
        if isinstance(options.expires, datetime.datetime):
            raise BadCall('expires of a periodic call is a timedelta, counted from the moment at '
                          'which the worker makes a call')
        return call

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def reschedulePeriodicCall(self, id, expression, zone, title=None):
        """See IPeriodicCalls."""
        periodic = self._periodic(id)
        if title is None:
            title = periodic.title
        check_title(title)
        periodic.change(title, Timetable(expression, zone), periodic.call, clock.SYSTEM.now())

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def dropPeriodicCall(self, id):
        """See IPeriodicCalls."""
        self._periodic(id)
        del self.periodic[id]
        return 1

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def pausePeriodicCall(self, id):
        """See IPeriodicCalls."""
        return int(self._periodic(id).pause())

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def resumePeriodicCall(self, id):
        """See IPeriodicCalls."""
        return int(self._periodic(id).resume(clock.SYSTEM.now()))

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def runPeriodicCall(self, id):
        """See IPeriodicCalls."""
        self._periodic(id).ask_to_run()
        return 1

    def _periodic(self, id):
        found = self.periodic.get(id) if isinstance(id, str) else None
        if found is None:
            raise KeyError('there is no such periodic call')
        return found


InitializeClass(PeriodicCalls)


def check_id(id):
    """Raise BadCall if that can't be the id of a periodic call."""
    if not isinstance(id, str) or len(id) > ID_MOST or not _ID.fullmatch(id):
        raise BadCall(f'the id of a periodic call has 1 to {ID_MOST} letters of a to z, digits, '
                      'dots, dashes and underscores, and begins with a letter or a digit; not '
                      f'{told(id, 150)}')


def check_title(title):
    """Raise BadCall if that can't be the title of a periodic call."""
    if not isinstance(title, str) or len(title) > TITLE_MOST:
        raise BadCall(f'the title is a text of at most {TITLE_MOST} characters, not '
                      f'{told(title, 300)}')
