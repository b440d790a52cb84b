"""One synchronisation at a time per mailbox, in all processes; requests join, none is lost.

Two small persistent objects per mailbox, each with one kind of writer:

`SyncStatus` is written by the run (and by `clear`, which is meant to defeat a run). It holds
the lease, the progress and the result. Every batch's commit writes it, so if two runs both
believe they hold the lease, the second one's commit is refused by the ZODB: that is the fence.

`SyncRequests` is written by those who ask. A request is a number. Asking while a call waits
or a run is going on only raises the number; the run serves numbers, and before it ends looks
whether a higher one was asked meanwhile.

The two sides never write the same object, so they never conflict by accident; where one
decides by what it read of the other's, it says so with `readCurrent`, and the one who
commits second is refused and tries again:

    asker: "a run is going on, it will serve me"    readCurrent(status), readCurrent(call)
    run:   "nobody asked for more, I am done"       readCurrent(requests)

Nobody's life depends on a clock: a run of the worker belongs to a call, and when the call is
run again after a crash it takes its own lease over; when the call ended, its lease is free.
The age of a lease counts only for owners nobody knows anything of.

Imports: persistent.
"""

from persistent import Persistent


IDLE, QUEUED, RUNNING, DONE, FAILED = 'idle', 'queued', 'running', 'done', 'failed'

#: A lease not renewed for longer is given to whoever asks. A run renews it with each batch
#: and each `RENEW_SECONDS` while it surveys folders; its longest silence is one command on a
#: slow server, a few read time-outs of 30 s. Too small: a slow run is superseded and its work
#: is done again (nothing breaks, its next commit is refused). Too large: after a crash that
#: zasync knows nothing of, people wait. Clocks of two hosts may differ by part of it. Seconds.
LEASE_SECONDS = 300.0

#: A survey of many unchanged folders renews the lease this often. Smaller: more commits with
#: nothing but the progress in them. Seconds.
RENEW_SECONDS = 10.0

#: Longest sentence kept as a message or reason, in characters.
TEXT_LENGTH = 500

COUNTS = ('folders', 'fetched', 'deleted', 'flags')


class SyncStatus(Persistent):
    """What the last or present run did. See the module's text for who writes it."""

    state = IDLE
    #: Call id or token of the run that holds or held the lease; None: nobody did.
    owner = None
    renewed_at = started_at = ended_at = None
    done = total = 0
    message = reason = ''
    counts = ()
    #: Number of the last request that was served, and of the last full one.
    served = 0

    def may_take(self, owner, now, requests):
        """Whether `owner` may have the lease: it is free, its own, or forsaken."""
        return self.owner == owner or not self.is_held(now, requests)

    def is_held(self, now, requests):
        """Whether a run holds the lease and has not been left for dead."""
        if self.state != RUNNING or requests.knows_ended(self.owner):
            return False
        return self.renewed_at is not None and now - self.renewed_at <= LEASE_SECONDS

    def take(self, owner, now):
        """Begin a run. Whoever takes it at the same time is refused at commit."""
        self.state = RUNNING
        self.owner = owner
        self.started_at = self.renewed_at = now
        self.ended_at = None
        self.done = self.total = 0
        self.message = self.reason = ''
        self.counts = dict.fromkeys(COUNTS, 0)

    def is_mine(self, owner):
        """Whether the lease is still `owner`'s."""
        return self.state == RUNNING and self.owner == owner

    def renew(self, now, done, total, message, counts):
        """Progress of the run; written by every batch's commit."""
        self.renewed_at = now
        self.done, self.total = done, total
        self.message = message[:TEXT_LENGTH]
        self.counts = dict(counts)

    def finish(self, now, served, message):
        """The run ended well and served all requests up to `served`."""
        self._end(DONE, now, served)
        self.message = message[:TEXT_LENGTH]

    def fail(self, now, served, reason):
        """The run gave up; `reason` is a sentence for people."""
        self._end(FAILED, now, served)
        self.message = ''
        self.reason = reason[:TEXT_LENGTH]

    def clear(self, now, served):
        """Take the lease from whoever has it: the next commit of that run is refused."""
        self._end(IDLE, now, served)
        self.owner = None
        self.message = self.reason = ''

    def _end(self, state, now, served):
        self.state = state
        self.renewed_at = self.ended_at = now
        self.served = max(self.served, served)


class SyncRequests(Persistent):
    """What was asked for. Written by those who ask, never by a run."""

    #: Number of the last request, and of the last one for all folders.
    wanted = wanted_full = 0
    #: The Deferred of the last call put into the queue, or None.
    call = None
    #: Owner of the call before, which had ended; its lease is free.
    ended_owner = None
    #: Why the last request could not be put anywhere; '' if it could.
    problem = ''

    def ask(self, light):
        """Count one request; its number."""
        self.wanted += 1
        if not light:
            self.wanted_full = self.wanted
        self.problem = ''
        return self.wanted

    def put(self, call):
        """`call` was put for the last request."""
        if self.call is not None and self.call.ended:
            self.ended_owner = self.call.id
        self.call = call

    def knows_ended(self, owner):
        """Whether `owner` is a call that failed, was cancelled or timed out, or ended: then
        its commits are refused from now on, whatever it still believes."""
        call = self.call
        return owner is not None and (
            owner == self.ended_owner
            or call is not None and call.id == owner and call.ended)

    def is_open(self):
        """Whether the last call put waits or is running. It serves every request up to its
        end, so one that comes before may join it; callbacks after its end serve nobody."""
        return self.call is not None and self.call.state in ('new', 'accepted')

    def light(self, served):
        """1 or 0: what satisfies every request after number `served`."""
        return 0 if self.wanted_full > served else 1


def read_current(persistent):
    """Refuse this transaction at commit if `persistent` changes before."""
    jar = getattr(persistent, '_p_jar', None)
    if jar is not None and getattr(persistent, '_p_serial', None):
        jar.readCurrent(persistent)


def report(status, requests, now):
    """What to tell people, as a mapping of plain values (it becomes JSON)."""
    state, reason = _state(status, requests, now)
    running = state == RUNNING
    return {
        'state': state,
        'done': 0 if state == QUEUED else status.done,
        'total': 0 if state == QUEUED else status.total,
        'message': 'Waiting for a worker.' if state == QUEUED else status.message,
        'counts': {name: dict(status.counts).get(name, 0) for name in COUNTS},
        'reason': reason[:TEXT_LENGTH],
        'started_at': status.started_at,
        'ended_at': None if running or state == QUEUED else status.ended_at,
    }


def _state(status, requests, now):
    call = requests.call
    open_call = requests.is_open()
    if status.state == RUNNING and (status.is_held(now, requests)
                                    or open_call and call.id == status.owner):
        # An open call whose worker is gone is run again, and takes its lease over.
        return RUNNING, ''
    if requests.wanted > status.served:
        if open_call:
            return QUEUED, ''
        reason = requests.problem or _why_ended(call)
        if reason:
            return FAILED, reason
    if status.state == RUNNING:
        return FAILED, _why_ended(call) or 'The synchronisation stopped before its end.'
    return status.state, status.reason


def _why_ended(call):
    """Why a call that ended served nobody; '' if it is not known to have failed."""
    if call is None:
        return ''
    failure = getattr(call, 'failure', None)
    if failure is not None:
        return '%s: %s' % (failure.type_name, failure.text)
    if call.state in ('cancelled', 'expired'):
        return 'The call was %s before it could run.' % call.state
    return ''
