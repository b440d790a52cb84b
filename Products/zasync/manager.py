"""AsynchronousCallManager, the ZAM: the object in the ZODB that calls are put to.

Here is security, publication and the door; the queue behind it is `queue`.

Imports: zmi, scheduling, callbacks, door, putting, listing, queue, security, sessions, clock,
permissions, errors.
"""

import logging
import math
from html import escape

from AccessControl import getSecurityManager
from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from Acquisition import aq_base
from Acquisition import aq_inner
from Acquisition import aq_parent
from BTrees.OOBTree import OOBTree
from OFS.SimpleItem import SimpleItem
from zExceptions import BadRequest
from zope.interface import implementer
from ZPublisher import zpublish

from . import callbacks  # noqa: F401 (deferreds find it)
from . import clock
from . import listing
from . import permissions
from . import putting
from . import sessions
from .door import make_call
from .errors import NotYours
from .errors import told
from .interfaces import FAILED
from .interfaces import IAsynchronousCallManager
from .places import parse_id
from .queue import Queue
from .security import identity
from .security import may_act_as
from .zmi.callpages import CallPages
from .zmi.managerforms import constructAsynchronousCallManager  # noqa: F401 (historic place)
from .zmi.managerforms import constructAsynchronousCallManagerForm  # noqa: F401
from .zmi.managerforms import ManagerPages
from .zmi.periodicforms import PeriodicPages


log = logging.getLogger('zasync')

#: Seconds under which a call nobody finds is "not yet" rather than "not": another
#: process sees a commit a moment after it returned.
NOT_YET_SECONDS = 5.0


@implementer(IAsynchronousCallManager)
class AsynchronousCallManager(ManagerPages, CallPages, PeriodicPages, SimpleItem):
    """See IAsynchronousCallManager.

    poll_interval -- seconds between two looks of the worker when nothing wakes
    it; under 2 becomes 2. rotation_period -- seconds that results are kept.
    """

    meta_type = 'Asynchronous Call Manager'
    zmi_icon = 'fas fa-tasks'
    title = ''
    #: While it is true the worker claims nothing.
    paused = False
    #: It is being removed from its dispatcher.
    leaving = False
    security = ClassSecurityInfo()
    security.declarePrivate('queue')

    def __init__(self, id='asynchronous_call_manager', poll_interval=5, rotation_period=86400):
        self.id = id
        self.queue = Queue()
        self.periodic = OOBTree()
        self.set_times(poll_interval, rotation_period)

    @zpublish(False)
    @security.private
    def set_times(self, poll_interval, rotation_period):
        """Set both periods, in seconds."""
        self.poll_interval = max(2, int(poll_interval))
        self.rotation_period = int(rotation_period)

    # putting

    @zpublish(False)
    @security.protected(permissions.MakeAsynchronousApplicationCalls)
    def putCall(self, plugin, /, *args, **kwargs):
        """See IAsynchronousCallManager."""
        return self._put(None, plugin, args, kwargs)

    @zpublish(False)
    @security.protected(permissions.MakeAsynchronousApplicationCalls)
    def putCallWith(self, options, plugin, /, *args, **kwargs):
        """See IAsynchronousCallManager."""
        return self._put(None, plugin, args, kwargs, options)

    @zpublish(False)
    @security.protected(permissions.MakeAsynchronousSessionCalls)
    def putSessionCall(self, plugin, /, *args, **kwargs):
        """See IAsynchronousCallManager."""
        return self._put((self._getBrowserId(),), plugin, args, kwargs)

    @zpublish(False)
    @security.private
    def _putCall(self, session, plugin, /, *args, **kwargs):
        """See IAsynchronousCallManager."""
        return self._put(session, plugin, args, kwargs)

    @zpublish(False)
    @security.private
    def _getBrowserId(self):
        """See IAsynchronousCallManager."""
        return sessions.browser_id(self)

    def _put(self, session, plugin, args, kwargs, *options):
        return self.put(make_call(self.offered(), session, plugin, args, kwargs,
                                  *options))

    @zpublish(False)
    @security.private
    def put(self, call):
        """Queue a Call in the current transaction; → its Deferred, or the one it joins."""
        joined = putting.find_joined(self.names(), self.queue_of, call, self.queues)
        if joined is not None:
            return joined[1]
        deferred = putting.put(self.queue, self.names(), call, self.id)
        putting.after_put(self.queue, self)
        return deferred

    @zpublish(False)
    @security.private
    def offered(self):
        """Names of the plugins that its worker has told of."""
        return (*self.queue.card.plugins, *putting.StandIn.plugins)

    @zpublish(False)
    @security.private
    def names(self):
        """The Names of our calls: those of the dispatcher we lie in, else our own."""
        shared = getattr(aq_base(aq_parent(aq_inner(self))), 'call_names', None)
        return self.queue.names if shared is None else shared

    @zpublish(False)
    @security.private
    def queue_of(self, manager_id):
        """The Queue of that manager, if its calls have the names that ours have; or None."""
        if self.names() is self.queue.names:
            return self.queue
        return aq_parent(aq_inner(self)).queue_of(manager_id)

    @zpublish(False)
    @security.private
    def queues(self):
        """{manager id: Queue} of all managers whose calls have the names that ours have."""
        if self.names() is self.queue.names:
            return {self.id: self.queue}
        return aq_parent(aq_inner(self)).queues()

    # asking

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def lenNewCalls(self):
        """See IAsynchronousCallManager."""
        return self.queue.length_new()

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def lenAcceptedCalls(self):
        """See IAsynchronousCallManager."""
        return self.queue.length_accepted()

    @zpublish(False)
    @security.public
    def getDeferred(self, id):
        """See IAsynchronousCallManager."""
        deferred = self.queue.find(id) if isinstance(id, str) else None
        if deferred is None:
            raise KeyError(_not_found(id))
        if not self._may_see(deferred):
            raise NotYours(f'the call {id} was put by somebody else')
        return deferred

    def _may_see(self, deferred):
        if getSecurityManager().checkPermission(permissions.ViewManagementScreens, self):
            return True
        if deferred.session is not None:
            return deferred.session == sessions.known_browser_id(self)
        me, caller = identity(), deferred.caller
        return me[2] != 'nobody' and me == (caller.user_id, caller.folder, caller.special)

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def calls(self, state=None, plugin=None, user=None, start=None, limit=100):
        """See IAsynchronousCallManager."""
        return listing.page(self.queue, state, plugin, user, start, limit)

    # managing

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def cancel(self, id):
        """See IAsynchronousCallManager."""
        return int(self.getDeferred(id).cancel())

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def retry(self, id=None):
        """See IAsynchronousCallManager."""
        if id is not None:
            chosen = [self.getDeferred(id)]
        else:
            chosen = self.calls(FAILED, limit=listing.at_once())
        failed = [deferred for deferred in chosen if deferred.state == FAILED]
        for deferred in failed:
            queue = deferred.queue
            # It may have come along from another dispatcher, with the names of that one.
            putting.put_again(queue, deferred, self.names(), self._manager_id_of(deferred),
                              self.queue_of, self.queues)
            putting.after_put(queue, self if queue is self.queue else None)
        if id is None:
            listing.note_at_once(len(failed))
        return len(failed)

    def _manager_id_of(self, deferred):
        """The id of the manager that has it. Raises KeyError if that has other names than ours."""
        if deferred.is_in(self.queue):
            return self.id
        for id, queue in self.queues().items():
            if deferred.is_in(queue):
                return id
        raise KeyError(f'the call {deferred.id} was moved to a manager that is not here any more: '
                       'only there it can be run again')

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def pause(self):
        """See IAsynchronousCallManager."""
        return self._set_paused(True)

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def resume(self):
        """See IAsynchronousCallManager."""
        return self._set_paused(False)

    def _set_paused(self, paused):
        changed = self.paused != paused
        if changed:
            self.paused = paused
            if not paused:
                putting.after_put(self.queue, self)
        return int(changed)

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def purge(self, state, older_than):
        """See IAsynchronousCallManager."""
        if not isinstance(older_than, (int, float)) or not 0 <= older_than < math.inf:
            raise ValueError('older_than is a number of seconds, 0 or more, not '
                             f'{told(older_than)}')
        dropped = listing.purge(self.queue, state, older_than, clock.SYSTEM.now(),
                                listing.at_once())
        listing.note_at_once(dropped)
        return dropped

    # signs of life

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def ping(self):
        """See IAsynchronousCallManager."""
        self.queue.ping.asked_at = clock.SYSTEM.now()

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def getLastPing(self):
        """See IAsynchronousCallManager."""
        return clock.as_datetime(self.queue.ping.asked_at)

    @zpublish(False)
    @security.protected(permissions.ViewManagementScreens)
    def getLastPong(self):
        """See IAsynchronousCallManager."""
        return clock.as_datetime(self.queue.pulse.pong_at or None)

    # coming and going

    @zpublish(False)
    @security.private
    def open_calls(self):
        """Number of calls that have not ended."""
        return self.queue.length_new() + self.queue.length_accepted()


InitializeClass(AsynchronousCallManager)


def start_empty(manager, event):
    """A manager that is added, pasted or imported has no calls: each call runs once.

    Its periodic calls are paused: those of the original go on. Left out are those of others: Zope
    asks only about the topmost object that is copied, and who manages the copy can read their
    arguments and have them run.
    """
    manager.queue = Queue()
    manager.leaving = False
    for id, periodic in list(manager.periodic.items()):
        if may_act_as(periodic.call.caller, manager):
            periodic.start_over()
        else:
            del manager.periodic[id]
            log.warning('%s is a copy without the periodic call %s: whoever made the copy may not '
                        'act as %s', '/'.join(manager.getPhysicalPath()), id,
                        periodic.call.caller)


def refuse_to_go_with_open_calls(manager, event):
    """Before a manager is deleted: raises BadRequest if it has open calls, which would be lost."""
    calls = manager.open_calls()
    if calls:
        number = '1 call' if calls == 1 else f'{calls} calls'
        raise BadRequest(
            f'{"/".join(manager.getPhysicalPath())} has {number} still to end, which would be '
            'lost with it. Let its worker finish them first, or have them moved to others on '
            'the tab Overview of its dispatcher.')


def close(manager, event):
    """A manager was deleted: a put that overlaps with that is refused, or the deletion is.

    Not before: what lies in the same folder may refuse, and somebody may go on after that.
    """
    if not manager.queue.closed:
        refuse_to_go_with_open_calls(manager, event)  # somebody else told of it may have put one
        manager.queue.close()


def refuse_to_change_names_with_open_calls(manager, event):
    """Before a manager is moved into a dispatcher, or out of one: BadRequest if it has open calls.

    Their series are those of where they were put: elsewhere they would run beside others.
    """
    places = event.oldParent, event.newParent
    if event.object is not manager or None in places or not any(
            hasattr(aq_base(place), 'call_names') for place in places):
        return
    if aq_base(places[0]) is aq_base(places[1]):  # it gets another id
        return
    calls = manager.open_calls()
    if calls:
        raise BadRequest(
            f'{"/".join(manager.getPhysicalPath())} has {calls} calls that have not ended; they '
            'may have to wait for others of its dispatcher. Let its worker finish them first.')


def _not_found(id):
    # Escaped: somebody's page may show it as it is. Zope does.
    shown = escape(id if isinstance(id, str) else told(id, 100), quote=False)[:100]
    try:
        age = clock.SYSTEM.now() - parse_id(id)[2]
    except (ValueError, AttributeError, OverflowError, TypeError):
        return f'{shown!r} is no id of a call'
    if age < NOT_YET_SECONDS:
        return f'the call {shown} is not to be seen yet: ask again in a moment'
    return f'there is no call {shown}; results are dropped after the rotation period'
