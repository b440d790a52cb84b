"""ZAsyncDispatcher, the ZAD: gives each call to the least loaded manager whose worker lives.

Imports: zmi, direct, loads, balancing, interfaces, zasync.
"""

import contextlib
import random

from AccessControl.class_init import InitializeClass
from AccessControl.Permissions import manage_properties
from AccessControl.SecurityInfo import ClassSecurityInfo
from OFS.Folder import Folder
from OFS.PropertySheets import DefaultPropertySheets
from OFS.PropertySheets import vps
from zExceptions import BadRequest
from zope.interface import implementer
from ZPublisher import zpublish

from Products.zasync.door import make_call
from Products.zasync.door import plugins_wanted
from Products.zasync.errors import NoWorker
from Products.zasync.errors import UnknownPlugin
from Products.zasync.forgery import action
from Products.zasync.interfaces import IAsynchronousCallManager
from Products.zasync.names import Names
from Products.zasync.permissions import MakeAsynchronousApplicationCalls
from Products.zasync.permissions import MakeAsynchronousSessionCalls
from Products.zasync.putting import find_joined
from Products.zasync.putting import StandIn
from Products.zasync.sessions import browser_id

from . import direct
from . import loads
from .balancing import choose
from .interfaces import BALANCE_CHOICES
from .interfaces import BY_LOAD
from .interfaces import IAsynchronousCallDispatcher
from .interfaces import NO_WORKER_CHOICES
from .interfaces import QUEUE
from .interfaces import REFUSE
from .interfaces import RUN
from .zmi.dispatcherforms import constructZAsyncDispatcher  # noqa: F401 (historic place)
from .zmi.dispatcherforms import constructZAsyncDispatcherForm  # noqa: F401
from .zmi.dispatcherforms import DispatcherPages


#: Shortest max_idle_time that a form accepts: two and a half beats of a worker, else
#: a live idle one looks dead.
LEAST_IDLE_SECONDS = 25.0
#: Longest: after a day nobody waits for a worker any more.
MOST_IDLE_SECONDS = 86_400.0


class _Sheets(DefaultPropertySheets):
    """The properties for WebDAV: its methods would be a way around our actions."""

    __zpublishable__ = False


@implementer(IAsynchronousCallDispatcher)
class ZAsyncDispatcher(DispatcherPages, Folder):
    """See IAsynchronousCallDispatcher."""

    id = 'asynchronous_call_dispatcher'
    title = meta_type = 'Asynchronous Call Dispatcher'
    zmi_icon = 'fas fa-random'
    max_idle_time = 60.0
    no_worker = RUN
    no_worker_choices = NO_WORKER_CHOICES
    balance = BY_LOAD
    balance_choices = BALANCE_CHOICES
    security = ClassSecurityInfo()
    security.declarePrivate('call_names')

    manage_options = Folder.manage_options[:1] + DispatcherPages.manage_options + (
        Folder.manage_options[1:])

    _properties = (
        {'id': 'title', 'type': 'string', 'mode': 'w'},
        {'id': 'max_idle_time', 'type': 'float', 'mode': 'w'},
        {'id': 'no_worker', 'type': 'selection', 'mode': 'w',
         'select_variable': 'no_worker_choices'},
        {'id': 'balance', 'type': 'selection', 'mode': 'w', 'select_variable': 'balance_choices'},
    )

    def __init__(self, id='asynchronous_call_dispatcher'):
        super().__init__(id)
        #: Keys and series of the calls of all our managers.
        self.call_names = Names()

    def _setPropValue(self, id, value):
        """Refuse what no dispatcher can work with, before anything is changed."""
        if id == 'title' and not isinstance(value, str):
            raise BadRequest('The title is one text.')
        if id == 'title' and '<' in value:
            raise BadRequest('The title has no less-than sign, which Zope would take for markup.')
        if id == 'no_worker' and value not in NO_WORKER_CHOICES:
            # Not what was typed: Zope shows this sentence unescaped.
            raise BadRequest(f'no_worker is one of {", ".join(NO_WORKER_CHOICES)}.')
        if id == 'balance' and value not in BALANCE_CHOICES:
            raise BadRequest(f'balance is one of {", ".join(BALANCE_CHOICES)}.')
        if id == 'max_idle_time' and not _is_idle_time(value):
            raise BadRequest(f'max_idle_time is a number of seconds, {LEAST_IDLE_SECONDS:.0f} at '
                             'least, for a worker gives a sign of life each 10 seconds, and '
                             f'{MOST_IDLE_SECONDS:.0f} at most.')
        super()._setPropValue(id, value)

    def _updateProperty(self, id, value):
        try:
            super()._updateProperty(id, value)
        except ValueError:  # its sentence is markup, and its status 500
            raise BadRequest('What was typed is not of the type of its property.') from None

    # Zope's own answer to GET as well, and to any page: a link would change our settings.

    propertysheets = vps(_Sheets)

    @action
    @security.protected(manage_properties)
    def manage_addProperty(self, id, value, type, REQUEST=None):
        return super().manage_addProperty(id, value, type, REQUEST)

    @action
    @security.protected(manage_properties)
    def manage_delProperties(self, ids=None, REQUEST=None):
        return super().manage_delProperties(ids, REQUEST)

    @action
    @security.protected(manage_properties)
    def manage_changePropertyTypes(self, old_ids, props, REQUEST=None):
        return super().manage_changePropertyTypes(old_ids, props, REQUEST)

    @action
    @security.protected(manage_properties)
    def manage_changeProperties(self, REQUEST=None, **kw):
        with _no_number_refused():
            return super().manage_changeProperties(REQUEST, **kw)

    @action
    @security.protected(manage_properties)
    def manage_editProperties(self, REQUEST):
        with _no_number_refused():
            return super().manage_editProperties(REQUEST)

    # putting

    @zpublish(False)
    @security.protected(MakeAsynchronousApplicationCalls)
    def putCall(self, plugin, /, *args, **kwargs):
        """See IAsynchronousCallDispatcher."""
        return self._dispatch(None, plugin, args, kwargs)

    @zpublish(False)
    @security.protected(MakeAsynchronousApplicationCalls)
    def putCallWith(self, options, plugin, /, *args, **kwargs):
        """See IAsynchronousCallDispatcher."""
        return self._dispatch(None, plugin, args, kwargs, options)

    @zpublish(False)
    @security.protected(MakeAsynchronousSessionCalls)
    def putSessionCall(self, plugin, /, *args, **kwargs):
        """See IAsynchronousCallDispatcher."""
        return self._dispatch((browser_id(self),), plugin, args, kwargs)

    def _dispatch(self, session, plugin, args, kwargs, *options):
        managers = [each for each in self.managers() if not each.leaving]
        offered = set()
        wanted = plugins_wanted(plugin, args, kwargs)
        if wanted:
            offers = [(manager, set(manager.offered())) for manager in managers]
            managers = [manager for manager, theirs in offers if wanted <= theirs]
            offered = wanted & set().union(*(theirs for _, theirs in offers))
        call = make_call(offered, session, plugin, args, kwargs, *options)
        if wanted and not managers:
            raise UnknownPlugin(f'no worker offers {" and ".join(sorted(wanted))}, and members '
                                'of a call are run by one')
        joined = find_joined(self.call_names, self.queue_of, call, self.queues)
        if joined is not None:
            return joined
        known = [self.load_of(manager) for manager in managers]
        chosen = choose(known, random.random(), self.balance)
        if chosen is None:
            # Where something stands in for workers, the managers are paused, and their calls wait.
            no_worker = QUEUE if managers and StandIn.serve is not None else self.no_worker
            if no_worker == REFUSE or (not managers and no_worker != RUN):
                raise NoWorker(f'no worker of {"/".join(self.getPhysicalPath())} lives')
            if no_worker == RUN and direct.can_run(call, self.call_names):
                return None, direct.run(self.getPhysicalRoot(), call, self.call_names)
            if not managers:
                raise NoWorker(f'no worker lives, the call of {call.plugin} can not run in this '
                               f'request, and {"/".join(self.getPhysicalPath())} has no manager '
                               'for it to wait in')
            # One that is paused is left alone by the workers of the others, too.
            served = [load for load, manager in zip(known, managers, strict=True)
                      if not manager.paused] or known
            chosen = choose([load._replace(alive=True) for load in served], random.random(),
                            self.balance)
        manager = self._getOb(chosen.id)
        deferred = manager.put(call)
        loads.note_put(manager)
        return chosen.id, deferred

    # looking

    @zpublish(False)
    @security.private
    def managers(self):
        """The managers in this folder; whatever else lies there is nobody's business."""
        return [child for child in self.objectValues()
                if IAsynchronousCallManager.providedBy(child)]

    @zpublish(False)
    @security.private
    def queue_of(self, manager_id):
        """The Queue of our manager of that id, or None."""
        found = self._getOb(manager_id, None)
        return found.queue if IAsynchronousCallManager.providedBy(found) else None

    @zpublish(False)
    @security.private
    def queues(self):
        """{manager id: Queue} of our managers."""
        return {each.getId(): each.queue for each in self.managers()}

    @zpublish(False)
    @security.private
    def load_of(self, manager):
        """The Load of one of our managers."""
        return loads.load_of(manager, self.max_idle_time)


InitializeClass(ZAsyncDispatcher)


@contextlib.contextmanager
def _no_number_refused():
    """What Zope can't take for a number, as a field that is missing, is refused in words."""
    try:
        yield
    except ValueError:  # its text shows what was typed, unescaped
        raise BadRequest('max_idle_time is a number of seconds, and not left out.') from None


def _is_idle_time(value):
    try:
        return LEAST_IDLE_SECONDS <= float(value) <= MOST_IDLE_SECONDS
    except (TypeError, ValueError, OverflowError):
        return False


def start_without_names(dispatcher, event):
    """A dispatcher that is added, pasted or imported has no calls: no series of it is held."""
    dispatcher.call_names = Names()
