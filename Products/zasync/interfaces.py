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
life. So effects outside the ZODB may happen twice.

Imports: nothing of ours.
"""

from zope.interface import Attribute
from zope.interface import Interface


#: Waits in its manager for a worker, or for its time.
NEW = 'new'
#: A worker has claimed it and runs it.
ACCEPTED = 'accepted'
#: Its result is stored, its callbacks run.
CALLBACK = 'callback'
#: Ended well; the result is stored.
RESOLVED = 'resolved'
#: Ended badly; the failure is stored.
FAILED = 'failed'
#: Somebody cancelled it before it ended.
CANCELLED = 'cancelled'
#: No worker took it in time.
EXPIRED = 'expired'

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


class IAsynchronousCallManager(Interface):
    """A queue of calls in the ZODB, served by one worker (historic contract A.2-A.4)."""

    def putCall(plugin, *args, **kwargs):
        """Queue a call in the current transaction and return its IDeferred.

        plugin -- name of a plugin the worker offers ('zope_exec', 'zope_call'…);
        all other arguments go to it and must be picklable without dragging
        persistent objects along.

        Raises UnknownPlugin or BadCall, both ValueErrors; then nothing is
        stored. Historic contract A.4.
        """

    def _putCall(session, plugin, *args, **kwargs):
        """As putCall; `session` is None or ``(browser_id,)``. Historic contract A.4."""

    def lenNewCalls():
        """Number of calls that wait for a worker or for their time, exact in this snapshot."""

    def lenAcceptedCalls():
        """Number of calls a worker has claimed and not ended, exact in this snapshot."""

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
        NotYours unless asked by the caller, or a Manager.
        """


class IPlugin(Interface):
    """What a plugin's handler is: a callable."""

    def __call__(run, *args, **kwargs):
        """Do the work of one call and return its result.

        run -- an IRun.
        The arguments are those of putCall. The handler neither commits nor
        aborts; ``run.checkpoint(**memo)`` commits what was done so far.
        A TransientError makes the worker start the call again, any other
        exception is stored as the call's failure.
        """


class IRun(Interface):
    """One run of one call, as the code it runs may see it."""

    id = Attribute('id of the call; the same when the call is run again')
    attempt = Attribute('number of this attempt, 1 at first')
    memo = Attribute('mapping given to the last checkpoint, {} at first')
    app = Attribute('the application root, wrapped in the bare request of this run')

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
