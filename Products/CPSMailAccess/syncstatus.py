"""One synchronisation at a time per mailbox, in all processes; requests join, none is lost.

Three small persistent objects per mailbox, each with one kind of writer:

`SyncStatus` is written when a run begins and ends (and by `clear`, which is meant to defeat a
run). It holds the lease and the result.

`SyncProgress` is written by every batch's commit, and by whoever gives or takes the lease. So if
two runs both believe they hold it, the second one's commit is refused by the ZODB: that is the
fence. It is apart from the status because those who press the button rely on the status: batches
must not have their requests refused.

`SyncRequests` is written by those who ask. A request is a number. Asking while a call waits
or a run is going on only raises the number; the run serves numbers, and before it ends looks
whether a higher one was asked meanwhile.

The sides never write the same object, so they never conflict by accident; where one decides
by what it read of the other's, it says so with `readCurrent`, and the one who commits second
is refused and tries again:

    asker: "a run is going on, it will serve me"    readCurrent(status)
    asker: "a call waits, it will serve me"         readCurrent(status), readCurrent(call)
    run:   "nobody asked for more, I am done"       readCurrent(requests)

No clock has a part in what is correct: a run of the worker belongs to a call, and when the
call is run again after a crash it takes its own lease over; when the call ended, its lease is
free. Clocks only say when nobody need wait any longer for an owner that shows no sign: too
early, and work is done twice by runs of which the second is refused.

Imports: persistent.
"""

from persistent import Persistent


IDLE, QUEUED, RUNNING, DONE, FAILED = 'idle', 'queued', 'running', 'done', 'failed'

#: A lease not renewed for longer is given to whoever asks, and a call without a sign for longer
#: is not counted upon: the next request puts another. A run renews its lease with each batch
#: and each `RENEW_SECONDS` while it surveys folders; its longest silence is one command on a
#: slow server (imaptrouble.COMMAND_SECONDS). Too small: a slow run is superseded and its work
#: is done again (nothing breaks, its next commit is refused). Too large: after a crash that
#: zasync knows nothing of, people wait. Clocks of two hosts may differ by part of it. Seconds.
LEASE_SECONDS = 300.0

#: A survey of many unchanged folders renews the lease this often. Smaller: more commits with
#: nothing but the progress in them. Seconds.
RENEW_SECONDS = 10.0

#: Longest sentence kept as a message or reason, in characters.
TEXT_LENGTH = 500

#: So many stopped runs are remembered: more can't wait to be run again at the same time.
STOPPED_MOST = 10

COUNTS = ('folders', 'fetched', 'deleted', 'flags')


class SyncProgress(Persistent):
    """How far the last or present run is; written by every batch's commit, and with whatever
    changes the lease."""

    __zpublishable__ = False

    renewed_at = None
    done = total = 0
    message = ''
    counts = ()

    def reset(self, now):
        """A run begins or ends."""
        self.renewed_at = now
        self.done = self.total = 0
        self.message = ''
        self.counts = dict.fromkeys(COUNTS, 0)


class SyncStatus(Persistent):
    """What the last or present run did. See the module's text for who writes it."""

    __zpublishable__ = False

    state = IDLE
    #: Call id or token of the run that holds or held the lease; None: nobody did.
    owner = None
    started_at = ended_at = None
    reason = ''
    #: Number of the last request that was served, and of the last full one.
    served = 0
    #: Owners that were told to stop: they get no lease any more, however often they are run.
    stopped = ()

    def __init__(self):
        self.progress = SyncProgress()

    def may_take(self, owner, now, requests):
        """Whether `owner` may have the lease: it is free, its own, or forsaken."""
        if owner in self.stopped:
            return False
        return self.owner == owner or not self.is_held(now, requests)

    def is_held(self, now, requests):
        """Whether a run holds the lease and has not been left for dead."""
        if self.state != RUNNING or requests.knows_ended(self.owner):
            return False
        return not is_over(self.progress.renewed_at, now)

    def take(self, owner, now):
        """Begin a run. Whoever takes it at the same time is refused at commit."""
        self.state = RUNNING
        self.owner = owner
        self.started_at = now
        self.ended_at = None
        self.reason = ''
        self.progress.reset(now)

    def is_mine(self, owner):
        """Whether the lease is still `owner`'s."""
        return self.state == RUNNING and self.owner == owner

    def renew(self, now, done, total, message, counts):
        """Progress of the run; written by every batch's commit, which is refused when the
        lease has changed meanwhile."""
        progress = self.progress
        progress.renewed_at = now
        progress.done, progress.total = done, total
        progress.message = message[:TEXT_LENGTH]
        progress.counts = dict(counts)

    def finish(self, now, served, message):
        """The run ended well and served all requests up to `served`."""
        self._end(DONE, now, served)
        self.progress.message = message[:TEXT_LENGTH]

    def fail(self, now, served, reason):
        """The run gave up; `reason` is a sentence for people."""
        self._end(FAILED, now, served)
        self.progress.message = ''
        self.reason = reason[:TEXT_LENGTH]

    def clear(self, now, requests):
        """Take the lease from whoever has it, and forget the call that waits or runs: what
        they commit next is refused, and they do not begin anew."""
        told = [self.owner] if self.state == RUNNING else []
        if requests.is_open() and requests.call_id not in told:
            told.append(requests.call_id)
        self.stopped = (*told, *self.stopped)[:STOPPED_MOST]
        self._end(IDLE, now, requests.wanted)
        self.owner = None
        self.reason = ''
        self.progress.reset(now)
        requests.forget()

    def _end(self, state, now, served):
        self.state = state
        self.progress.renewed_at = self.ended_at = now
        self.served = max(self.served, served)


class SyncRequests(Persistent):
    """What was asked for. Written by those who ask, never by a run."""

    __zpublishable__ = False

    #: Number of the last request, and of the last one for all folders.
    wanted = wanted_full = 0
    #: The ids of the last call put into the queue and of its manager, or None.
    call_id = manager_id = None
    #: See _place_of.
    _call = None
    #: Owner of the call before, which had ended; its lease is free.
    ended_owner = None
    #: Why the last request could not be put anywhere; '' if it could.
    problem = ''

    @property
    def call(self):
        """The Deferred of the last call put into the queue, or None.

        None too if it was dropped and packed away: nothing here keeps it.
        """
        call = self._call
        try:
            if isinstance(call, tuple):
                database_name, oid = call
                jar = self._p_jar
                if database_name is not None:
                    jar = jar.get_connection(database_name)
                call = jar.get(oid)
            # Once it is packed away something else may get its oid.
            return call if getattr(call, 'id', None) == self.call_id else None
        except KeyError:
            return None

    def is_gone(self):
        """Whether there is no call any more where one was put; it had ended."""
        return self.call_id is not None and self.call is None

    def ask(self, light):
        """Count one request; its number."""
        self.wanted += 1
        if not light:
            self.wanted_full = self.wanted
        self.problem = ''
        return self.wanted

    def put(self, call, manager_id=None):
        """`call` was put for the last request, to that manager."""
        if self.knows_ended(self.call_id):
            self.ended_owner = self.call_id
        self._call, self.call_id, self.manager_id = self._place_of(call), call.id, manager_id

    def _place_of(self, call):
        """(name of its database or None for ours, oid): no reference to it.

        A copy or an export has all that is referred to, which would be all calls of its manager.
        While one of the two is not stored there is nothing but the call itself.
        """
        jar = getattr(call, '_p_jar', None)
        if jar is None or self._p_jar is None:
            return call
        return None if jar is self._p_jar else jar.db().database_name, call._p_oid

    def forget(self):
        """No call is counted upon any more."""
        self._call = self.call_id = self.manager_id = None

    def knows_ended(self, owner):
        """Whether `owner` is a call that failed, was cancelled or timed out, or ended: then
        its commits are refused from now on, whatever it still believes."""
        if owner is None or owner == self.ended_owner:
            return owner is not None
        call = self.call
        return owner == self.call_id and (call is None or call.ended)

    def is_open(self):
        """Whether the last call put waits or is running. It serves every request up to its
        end, so one that comes before may join it; callbacks after its end serve nobody."""
        call = self.call
        return call is not None and call.state in ('new', 'accepted')

    def is_silent(self, status, now):
        """Whether the open call has given no sign for long: nobody has claimed it, or its
        worker is gone. It may still run, and then does no harm."""
        signs = [self.call.put_at, self.call.started_at]
        if status.owner == self.call_id:
            signs.append(status.progress.renewed_at)
        return is_over(max((sign for sign in signs if sign is not None), default=None), now)

    def light(self, served):
        """1 or 0: what satisfies every request after number `served`."""
        return 0 if self.wanted_full > served else 1


def is_over(sign_at, now):
    """Whether an owner whose last sign was at `sign_at` need not be waited for."""
    return sign_at is None or now - sign_at > LEASE_SECONDS


def read_current(persistent):
    """Refuse this transaction at commit if `persistent` changes before."""
    jar = getattr(persistent, '_p_jar', None)
    if jar is not None and getattr(persistent, '_p_serial', None):
        jar.readCurrent(persistent)


def report(status, requests, now, lost=False):
    """What to tell people, as a mapping of plain values (it becomes JSON).

    lost -- whether no manager knows the call that was put.
    """
    lost = lost or requests.is_gone()
    state, message, reason = _state(status, requests, now, lost)
    started_at, ended_at = _times(state, status, requests)
    progress = status.progress
    return {
        'state': state,
        'done': 0 if state == QUEUED else progress.done,
        'total': 0 if state == QUEUED else progress.total,
        'message': message,
        'counts': {name: dict(progress.counts).get(name, 0) for name in COUNTS},
        'reason': reason[:TEXT_LENGTH],
        'started_at': started_at,
        'ended_at': ended_at,
    }


def _times(state, status, requests):
    """When what `state` is about began and ended."""
    unserved = requests.wanted > status.served
    if state == QUEUED or (state == FAILED and unserved and requests.problem):
        return None, None
    if state == FAILED and (unserved or status.state == RUNNING):
        # A call has failed, and not the last run by itself.
        call = requests.call
        return getattr(call, 'started_at', None), getattr(call, 'ended_at', None)
    return status.started_at, None if state == RUNNING else status.ended_at


def _state(status, requests, now, lost):
    """(state, message, reason)"""
    call, message = requests.call, status.progress.message
    counts = requests.is_open() and not lost
    if status.is_held(now, requests):
        return RUNNING, message, ''
    if status.state == RUNNING and counts and call.id == status.owner:
        # An open call whose worker is gone is run again, and takes its lease over.
        return RUNNING, 'No news from its worker. ' + SILENT, ''
    if requests.wanted > status.served:
        if counts:
            silent = requests.is_silent(status, now)
            return QUEUED, 'Waiting for a worker. ' + SILENT if silent \
                else 'Waiting for a worker.', ''
        reason = requests.problem or (LOST if lost else _why_ended(call))
        if reason:
            return FAILED, '', reason
    if status.state == RUNNING:
        return FAILED, '', (LOST if lost else _why_ended(call)) or STOPPED_EARLY
    return status.state, message, status.reason


#: How the names of errors begin whose text is a sentence for people.
ERRORS = 'Products.CPSMailAccess.errors.', 'Products.zasync.errors.'

SILENT = 'It goes on when the worker is back; asked again, another one is looked for.'
LOST = 'The manager that the call was put to does not know it any more.'
STOPPED_EARLY = 'The synchronisation stopped before its end.'


def _why_ended(call):
    """Why a call that ended served nobody; '' if it is not known to have failed."""
    if call is None:
        return ''
    failure = getattr(call, 'failure', None)
    if failure is not None:
        if failure.type_name.startswith(ERRORS):
            # A sentence needs no class name.
            return failure.text
        return '%s: %s' % (failure.type_name, failure.text)
    return ''
