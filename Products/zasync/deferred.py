"""Deferred: the one record of a call, where every race over it meets.

It is written only by events that are meant to defeat a running call: claim,
checkpoint, give back, result, cancel, time-out, rescue. So whoever changes a
call's fate while another does too loses at the commit, with a ConflictError (I5).

Imports: interfaces, lifecycle, payload, call.
"""

from typing import NamedTuple

from persistent import Persistent
from zope.interface import implementer

from . import lifecycle
from . import payload
from .call import Caller
from .interfaces import IDeferred
from .interfaces import NEW


#: Ended attempts that a deferred remembers; it is written at each transition.
HISTORY_MOST = 10


class Attempt(NamedTuple):
    """One run of a call: number, times in POSIX seconds, outcome a word or two; None: runs now."""

    # Restricted Python may read all four.
    __allow_access_to_unprotected_subobjects__ = 1

    number: int
    started_at: float
    ended_at: float | None
    outcome: str | None


@implementer(IDeferred)
class Deferred(Persistent):
    """See IDeferred. What a fresh call has is a class attribute: its pickle stays small."""

    # Restricted Python may read these and nothing else.
    __allow_access_to_unprotected_subobjects__ = {
        name: 1 for name in ('id', 'state', 'ended', 'plugin', 'put_at', 'started_at', 'ended_at',
                             'attempts', 'result', 'failure', 'memo')}
    __roles__ = None
    __zpublishable__ = False

    state = NEW
    session = None
    owner = None
    attempt = 0
    started_at = None
    ended_at = None
    _result = None
    _failure = None
    _memo = None
    _history = ()
    _priority = 0

    def __init__(self, id, call):
        self.id = id
        self.plugin = call.plugin
        self.put_at = call.put_at
        self._caller = tuple(call.caller)
        self._arguments = payload.stored(call.arguments)
        if call.session is not None:
            self.session = call.session
        if call.priority:
            self._priority = call.priority

    # reading

    @property
    def ended(self):
        """See IDeferred."""
        return lifecycle.is_final(self.state)

    @property
    def caller(self):
        """The Caller who put it."""
        return Caller(*self._caller)

    @property
    def priority(self):
        """Higher first."""
        return self._priority

    @property
    def result(self):
        """See IDeferred."""
        return None if self._result is None else payload.loads(self._result)

    @property
    def failure(self):
        """See IDeferred."""
        return None if self._failure is None else payload.loads(self._failure)

    @property
    def memo(self):
        """See IDeferred."""
        return {} if self._memo is None else payload.loads(self._memo)

    @property
    def attempts(self):
        """See IDeferred."""
        past = tuple(Attempt(*item) for item in self._history)
        if self.attempt == 0 or (past and past[-1].number == self.attempt):
            return past
        outcome = self.state if self.ended else None
        return (*past, Attempt(self.attempt, self.started_at, self.ended_at, outcome))

    def arguments(self):
        """(args, kwargs) of the call; raises what unpickling raises."""
        return payload.loads(self._arguments)

    def is_owned_by(self, boot, attempt):
        """Whether that attempt of that worker life still runs this call."""
        return self.owner == boot and self.attempt == attempt and not self.ended

    # events

    def accept(self, boot, now):
        """A worker life claims it."""
        self._advance(lifecycle.CLAIM)
        self.owner = boot
        self.attempt += 1
        self.started_at = now

    def give_back(self, now, outcome):
        """It goes back to the queue; `outcome` says why its attempt ended, in a word or two."""
        self._advance(lifecycle.GIVE_BACK)
        attempt = (self.attempt, self.started_at, now, outcome)
        self._history = (*self._history, attempt)[-HISTORY_MOST:]
        self.owner = None

    def unclaim(self):
        """It goes back to the queue as if it had not been claimed: no thread had begun it."""
        self._advance(lifecycle.GIVE_BACK)
        self.attempt -= 1
        self.owner = None

    def checkpoint(self, memo):
        """Keep the pickled `memo` for a later start."""
        self._advance(lifecycle.CHECKPOINT)
        self._memo = payload.stored(memo)

    def succeed(self, result, now):
        """It ended well; `result` is pickled, or None for None."""
        self._advance(lifecycle.SUCCEED)
        self._result = None if result is None else payload.stored(result)
        self._end(now)

    def fail(self, failure, now):
        """It ended badly, with that Failure."""
        self._advance(lifecycle.FAIL)
        self._failure = payload.stored(payload.dumps(failure))
        self._end(now)

    def _end(self, now):
        self.owner = None
        self.ended_at = now

    def _advance(self, event):
        self.state = lifecycle.advance(self.state, event)

    def __repr__(self):
        return f'<call {self.id} {self.plugin} {self.state}>'
