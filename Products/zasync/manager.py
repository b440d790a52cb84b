"""AsynchronousCallManager, the ZAM: the object in the ZODB that calls are put to.

Here is security, publication and the door; the queue behind it is `queue`.

Imports: zmi, door, queue, security, lanes, clock, permissions.
"""

import transaction
from AccessControl import getSecurityManager
from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from OFS.SimpleItem import SimpleItem
from zExceptions import BadRequest
from zope.interface import implementer
from ZPublisher import zpublish

from . import clock
from . import lanes
from . import permissions
from .door import make_call
from .errors import NotYours
from .interfaces import IAsynchronousCallManager
from .queue import parse_id
from .queue import Queue
from .security import identity
from .zmi.managerforms import constructAsynchronousCallManager  # noqa: F401 (historic place)
from .zmi.managerforms import constructAsynchronousCallManagerForm  # noqa: F401
from .zmi.managerforms import ManagerPages


#: Seconds under which a call nobody finds is "not yet" rather than "not": another
#: process sees a commit a moment after it returned.
NOT_YET_SECONDS = 5.0


@implementer(IAsynchronousCallManager)
class AsynchronousCallManager(ManagerPages, SimpleItem):
    """See IAsynchronousCallManager.

    poll_interval -- seconds between two looks of the worker when nothing wakes
    it; under 2 becomes 2. rotation_period -- seconds that results are kept.
    """

    meta_type = 'Asynchronous Call Manager'
    zmi_icon = 'fas fa-tasks'
    title = ''
    security = ClassSecurityInfo()
    security.declarePrivate('queue')

    def __init__(self, id='asynchronous_call_manager', poll_interval=5, rotation_period=86400):
        self.id = id
        self.queue = Queue()
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
    def putCall(self, plugin, *args, **kwargs):
        """See IAsynchronousCallManager."""
        return self._put(None, plugin, args, kwargs)

    @zpublish(False)
    @security.private
    def _putCall(self, session, plugin, *args, **kwargs):
        """See IAsynchronousCallManager."""
        return self._put(session, plugin, args, kwargs)

    def _put(self, session, plugin, args, kwargs):
        return self.put(make_call(self.queue.card.plugins, session, plugin, args, kwargs))

    @zpublish(False)
    @security.private
    def put(self, call):
        """Queue a Call in the current transaction; → its Deferred."""
        queue = self.queue
        deferred = queue.put(call, lanes.current())
        _watch_commit(deferred)
        return deferred

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
        me, caller = identity(), deferred.caller
        if me[2] != 'nobody' and me == (caller.user_id, caller.folder, caller.special):
            return True
        return bool(getSecurityManager().checkPermission(permissions.ViewManagementScreens, self))

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
    """A manager that is added, pasted or imported has no calls: each call runs once."""
    manager.queue = Queue()


def refuse_to_go_with_open_calls(manager, event):
    """Before a manager is deleted: raises BadRequest if it has open calls, which would be lost.

    A put that overlaps with the deletion is refused, or the deletion is.
    """
    if manager.queue.closed:
        return
    calls = manager.open_calls()
    if calls:
        raise BadRequest(
            f'{"/".join(manager.getPhysicalPath())} has {calls} calls that have not ended; they '
            'would be lost with it. Let its worker finish them first.')
    manager.queue.close()


def _watch_commit(deferred):
    """Have the end of this transaction tell us of our lane and of the storage's clock; once."""
    current = transaction.get()
    try:
        current.data(_watch_commit)
    except KeyError:
        current.set_data(_watch_commit, True)
        current.addAfterCommitHook(_after_commit, (deferred,))


def _after_commit(committed, deferred):
    if not committed:
        lanes.move()
    elif deferred._p_jar is not None:
        name = deferred._p_jar.db().database_name
        clock.storage_clock(name).observe(deferred._p_serial, clock.SYSTEM.monotonic())


def _not_found(id):
    try:
        age = clock.SYSTEM.now() - parse_id(id)[2]
    except (ValueError, AttributeError, OverflowError, TypeError):
        return f'{id!r} is no id of a call'
    if age < NOT_YET_SECONDS:
        return f'the call {id} is not to be seen yet: ask again in a moment'
    return f'there is no call {id}; results are dropped after the rotation period'
