"""The contract of the dispatcher.

Imports: zasync.
"""

from zope.interface import Attribute

from Products.zasync.interfaces import ITakesCalls


#: What to do with a call when no worker lives: run it in the request, leave it
#: with a manager for later, or refuse it with NoWorker.
RUN = 'run'
QUEUE = 'queue'
REFUSE = 'refuse'
NO_WORKER_CHOICES = (RUN, QUEUE, REFUSE)

#: How managers are compared: by the number of their calls, or by when one more call
#: would have ended, at the pace of their workers of late.
BY_LOAD = 'load'
BY_PACE = 'pace'
BALANCE_CHOICES = (BY_LOAD, BY_PACE)


class IAsynchronousCallDispatcher(ITakesCalls):
    """A folder of managers that gives each call to the least loaded one whose worker lives.

    Historic contract C.
    """

    max_idle_time = Attribute('seconds without a sign of life after which a worker gets no calls')
    no_worker = Attribute('one of NO_WORKER_CHOICES')
    balance = Attribute('one of BALANCE_CHOICES')

    def putCall(plugin, /, *args, **kwargs):
        """Put a call to the least loaded live manager; → ``(manager id, IDeferred)``.

        When no worker lives, `no_worker` decides: 'run' runs the call here and now,
        as the worker would, and returns ``(None, IDeferred)``, ended; 'queue' leaves
        it with a manager; 'refuse' raises NoWorker.

        Raises what IAsynchronousCallManager.putCall raises. Never waits, never
        sleeps, never asks a worker. Historic contract C.4.
        """

    def putCallWith(options, plugin, /, *args, **kwargs):
        """As putCall, with Options. A call that joins a waiting one by its key gets that one's
        manager id and deferred; a delayed one, or one whose series is busy, is left with a
        manager when no worker lives, whatever `no_worker` says, but for 'refuse'.
        """

    def putSessionCall(plugin, /, *args, **kwargs):
        """As putCall, for the browser of this request, see
        IAsynchronousCallManager.putSessionCall. Left with a manager when no worker lives.
        """
