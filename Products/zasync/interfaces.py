"""The contracts of zasync, and all its types and state names.

The story of one call:

A *caller*, somewhere in a request, calls ``putCall(plugin, *args)`` of an
asynchronous call *manager*. The manager checks the call at the door, notes who
puts it, and writes a *deferred* and an entry in one of its *lanes*, all in the
caller's own transaction: if the request aborts nothing was queued, if it
commits the call can't be lost any more.

The commit reaches the *worker* of that manager within milliseconds. In one
transaction, the *beat*, it *takes in* the new entries, *claims* as many as it
has free threads (they are *accepted*) and writes its *pulse*. A pool thread
then runs the *plugin* as the caller, and stores the *result* or the *failure*
in the same transaction as the effects of the call: the call is *resolved*, or
*failed*. A later beat moves the deferred to the *archive*, whence it is
dropped after the manager's rotation period.

The weak spot: between the end of a call's work and its commit the worker may
die. Then nothing of it happened, and the call runs again, in the worker's next
life or in a *sibling*, the worker of another manager of the same dispatcher. So
effects outside the ZODB may happen twice.

Imports: nothing of ours.
"""

from typing import Final

from zope.interface import Attribute
from zope.interface import Interface


#: Waits in its manager for a worker, or for its time.
NEW: Final = 'new'
#: A worker has claimed it and runs it.
ACCEPTED: Final = 'accepted'
#: Its result is stored, its callbacks run.
CALLBACK: Final = 'callback'
#: Ended well; the result is stored.
RESOLVED: Final = 'resolved'
#: Ended badly; the failure is stored.
FAILED: Final = 'failed'
#: Somebody cancelled it before it ended.
CANCELLED: Final = 'cancelled'
#: No worker took it in time.
EXPIRED: Final = 'expired'

STATES = (NEW, ACCEPTED, CALLBACK, RESOLVED, FAILED, CANCELLED, EXPIRED)
FINAL_STATES = frozenset((RESOLVED, FAILED, CANCELLED, EXPIRED))


class IDeferred(Interface):
    """The one record of a call, where every race over it meets.

    Its attributes can be read by any process that sees the database. All times
    are POSIX seconds, UTC, float.
    """

    id = Attribute('text, unique in its manager: lane-number-milliseconds-random, hexadecimal')
    state = Attribute('one of STATES')
    ended = Attribute('True when the state is final')
    plugin = Attribute('name of the plugin that runs the call')
    put_at = Attribute('when it was put')
    started_at = Attribute('when the last attempt was claimed, or None')
    ended_at = Attribute('when it reached its final state, or None')
    attempts = Attribute('tuple of Attempt(number, started_at, ended_at, outcome), oldest first')
    result = Attribute('what the plugin returned; None before the end and after a failure')
    failure = Attribute('a Failure, or None')
    memo = Attribute('mapping given by the last checkpoint, {} at first')
    progress = Attribute('Progress(done, total, message) of a call that runs, or None')

    def addCallbacks(success=None, failure=None):
        """Have a callback run after the call; → this deferred.

        success, failure -- each None, a TALES expression (in which `result` or `failure`
        is the value) or a callable that takes the value and can be found by name. They
        chain as in Twisted. They run in order, as whoever adds them, each in a
        transaction of its own. Those of the transaction that puts the call are part of
        it: until they have run its state is CALLBACK, and `result` and `failure` are what
        the chain made of them. Those added later begin with the value the call ended
        with, and leave it as it is.

        Raises BadCall. Historic contract A.6.
        """

    def cancel():
        """End the call now, unless it has ended; → whether it did that.

        A running one learns of it when it tells its progress, and can't commit any more. It can't
        be cancelled by its own code, nor by that of its callbacks: False.
        Failure callbacks are given a Failure of Cancelled.
        """


class ITakesCalls(Interface):
    """A manager or a dispatcher: calls can be put to it."""


class IAsynchronousCallManager(ITakesCalls):
    """A queue of calls in the ZODB, served by one worker (historic contract A.2-A.4)."""

    def putCall(plugin, /, *args, **kwargs):
        """Queue a call in the current transaction and return its IDeferred.

        plugin -- name of a plugin the worker offers ('zope_exec', 'zope_call'…);
        all other arguments go to it and must be picklable without dragging
        persistent objects along.

        Raises UnknownPlugin or BadCall, both ValueErrors; then nothing is
        stored. Historic contract A.4.
        """

    def putCallWith(options, plugin, /, *args, **kwargs):
        """As putCall, with Options. With a key that a waiting call of the same caller has,
        that call's deferred is returned and nothing is queued.
        """

    def putSessionCall(plugin, /, *args, **kwargs):
        """As putCall; the deferred can be got from the same browser only (or by a Manager).

        Raises BadCall where the browser can't be told from others: without a browser id
        manager (Products.Sessions), or outside a request. Historic contract A.8.
        """

    def _putCall(session, plugin, /, *args, **kwargs):
        """As putCall; `session` is None or ``(browser_id,)``. Historic contract A.4."""

    def _getBrowserId():
        """Id of the browser that sent the request, by the acquired browser id manager.

        Raises BadCall. Historic contract A.4.
        """

    def lenNewCalls():
        """Number of calls that wait for a worker or for their time, exact in this snapshot."""

    def lenAcceptedCalls():
        """Number of calls a worker has claimed, or reserved, and not ended.

        Exact in this snapshot.
        """

    def ping():
        """Ask the worker to prove that it lives; its answer is seen by getLastPong."""

    def getLastPing():
        """When ping was last called: aware UTC datetime, or None."""

    def getLastPong():
        """When the worker last answered a ping: aware UTC datetime, or None."""

    def getDeferred(id):
        """The IDeferred of that id.

        Raises KeyError with a sentence naming the id ("not yet" for one put less
        than five seconds ago: another process sees a commit a moment later), and
        NotYours unless asked by the caller, for a session call from the same browser,
        or by a Manager.
        """

    def calls(state=None, plugin=None, user=None, start=None, limit=100):
        """A page of calls: list of IDeferreds, running ones first, newest first in a state.

        state -- one of STATES. plugin -- its name. user -- id of the caller. start -- id of
        the last call of the page before. limit -- most calls, 10,000 or less; no others are
        loaded, but to see whether they fit plugin and user. Raises ValueError.
        """

    def cancel(id):
        """Cancel a call; → 1, or 0 if it had ended or is the one that asks. Raises KeyError."""

    def retry(id=None):
        """Have a call that failed for good run once more; without an id all such, 10,000 at most.

        And fewer after a conflict. → how many; 0 for one that has not failed. Raises KeyError,
        also for a call that was moved to a manager which is deleted by now, or in another
        dispatcher.
        """

    def pause():
        """Have the worker claim nothing until resume() is called; → 1, 0 if it was so already.

        What runs goes on; what is put waits, and a dispatcher puts elsewhere.
        """

    def resume():
        """End a pause; → 1, or 0 if there was none."""

    def purge(state, older_than):
        """Drop ended calls of that final state that ended so many seconds ago; → how many.

        10,000 at most, and fewer after a conflict. Raises ValueError.
        """


class IPeriodicCalls(Interface):
    """What a manager offers for its periodic calls, each made again and again by the worker."""

    periodic = Attribute('mapping: id → PeriodicCall')

    def setPeriodicCall(id, expression, zone, plugin, args=(), kwargs=None, options=None,
                        title=''):
        """Add a periodic call, or change the one of that id; it runs as whoever calls this.

        expression -- minute, hour, day of the month, month, day of the week, as cron has them.
        zone -- name of the time zone whose clocks count. options -- an Options without key and
        not_before, with a timedelta as expires if any.
        Raises UnknownPlugin or BadCall, and then nothing is changed.
        """

    def reschedulePeriodicCall(id, expression, zone, title=None):
        """Change its times, and its title if one is given. Raises KeyError or BadCall."""

    def pausePeriodicCall(id):
        """Let its ticks go by; → 1, or 0 if it was paused already. Raises KeyError."""

    def resumePeriodicCall(id):
        """End a pause, from the next tick on; → 1, or 0 if there was none. Raises KeyError."""

    def runPeriodicCall(id):
        """Have it called once besides, as soon as the worker sees this; → 1. Raises KeyError."""

    def dropPeriodicCall(id):
        """Delete it; a call of it that runs goes on. → 1. Raises KeyError."""


class IPlugin(Interface):
    """What a plugin's handler is: a callable.

    One that is zope-aware is called as ``handler(run, *args, **kwargs)``, with an IRun,
    in a transaction and as the caller. It neither commits nor aborts;
    ``run.checkpoint(**memo)`` commits what was done so far. Any other is called as
    ``handler(*args, **kwargs)`` while no connection to the database is open.
    """

    def __call__(*args, **kwargs):
        """Do the work of one call and return its result.

        The arguments are those of putCall.
        A TransientError makes the worker start the call again, any other
        exception is stored as the call's failure.
        """


class IRun(Interface):
    """One run of one call, as the code it runs may see it."""

    id = Attribute('id of the call; the same when the call is run again')
    attempt = Attribute('number of this attempt, 1 at first')
    memo = Attribute('mapping given to the last checkpoint, {} at first')
    app = Attribute('the application root, wrapped in the bare request of this run')
    awaited = Attribute('tuple of the IDeferreds whose ends the call waited for')

    def progress(done, total=None, message=''):
        """Tell how far the call is; every process sees it within a second.

        done, total -- numbers; message -- text for people. Costs no conflict and no
        commit of the call. Raises Cancelled or TimedOut when the call was ended
        meanwhile: let them through.
        """

    def checkpoint(**memo):
        """Make sure of what was done so far, and keep `memo` for a later start.

        In a worker: a commit that succeeds only while the call is still ours.
        In a run inside a request: a savepoint.
        Raises NotOurs or any TransientError; let them through.
        """


class IClock(Interface):
    """The only source of time."""

    def now():
        """POSIX seconds, UTC, float."""

    def monotonic():
        """Seconds that only grow, float; of this process alone."""

    def wait(event, seconds):
        """Wait until `event` (a threading.Event) is set, at most `seconds`; is it set?"""
