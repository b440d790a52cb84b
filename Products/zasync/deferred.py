"""Deferred: the one record of a call, where every race over it meets.

It is written only by events that are meant to defeat a running call: claim,
checkpoint, give back, result, cancel, time-out, rescue, move. So whoever changes a
call's fate while another does too loses at the commit, with a ConflictError (I5).

Imports: interfaces, lifecycle, policy, payload, call, board, places, failure, clock, errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import cast
from typing import NamedTuple
from typing import TYPE_CHECKING

from ZODB.POSException import POSKeyError
from zope.interface import implementer

from . import clock
from . import lifecycle
from . import payload
from .call import Caller
from .errors import Cancelled
from .failure import Failure
from .interfaces import CALLBACK
from .interfaces import FAILED
from .interfaces import IDeferred
from .interfaces import NEW
from .interfaces import RESOLVED
from .places import parse_id
from .policy import HISTORY_MOST


if TYPE_CHECKING:  # persistent has no types, and a base without any would hide mistakes
    from .board import Progress
    from .call import Call
    Persistent = object
else:
    from persistent import Persistent


#: Under which numbers the attributes of a deferred are stored, names being longer: the first
#: has 0. What is stored counts on the order; new ones come last.
STORED = ('id', 'plugin', 'put_at', '_caller', '_arguments', '_queue', 'state', 'session',
          'owner', 'attempt', 'failures', 'started_at', 'ended_at', 'priority', 'not_before',
          'expires_at', 'timeout_seconds', 'retry', 'key', 'after', 'hurried', 'groupable',
          'series', '_names', 'moved', '_result', '_failure', '_memo', '_history', '_callbacks',
          '_called', '_broken', '_end_event')
_NOTHING = object()
_NUMBERS = {name: number for number, name in enumerate(STORED)}

#: Longest outcome of an attempt, in characters.
OUTCOME_MOST = 200


class Chain:
    """What `callbacks` does for deferreds; it knows who adds a callback, which we must not.

    add -- callable(deferred, success, failure). follow -- callable(deferred), which was
    cancelled: nobody will run the callbacks it has. is_own -- callable(deferred) → whether it
    is the call whose code asks.
    """

    add: Any = None
    follow: Any = staticmethod(lambda deferred: None)
    is_own: Callable[[Deferred], bool] = staticmethod(lambda deferred: False)


class Attempt(NamedTuple):
    """One run of a call: number, times in POSIX seconds, outcome a word or two; None: runs now."""

    number: int
    started_at: float
    ended_at: float | None
    outcome: str | None


# Restricted Python may read all four. Not in the class: type checkers take it for a field there.
setattr(Attempt, '__allow_access_to_unprotected_subobjects__', 1)


@implementer(IDeferred)
class Deferred(Persistent):
    """See IDeferred. What a fresh call has is a class attribute: its pickle stays small."""

    # Restricted Python may use these and nothing else.
    __allow_access_to_unprotected_subobjects__ = {
        name: 1 for name in ('id', 'state', 'ended', 'plugin', 'put_at', 'started_at', 'ended_at',
                             'attempts', 'result', 'failure', 'memo', 'progress', 'addCallbacks',
                             'cancel')}
    __roles__ = None
    __zpublishable__ = False

    state: lifecycle.State = NEW
    session: str | None = None
    owner: str | None = None
    attempt = 0
    #: Attempts that ended with an exception, as retry policies count them.
    failures = 0
    started_at: float | None = None
    ended_at: float | None = None
    priority = 0
    not_before = 0.0
    expires_at: float | None = None
    timeout_seconds: float | None = None
    #: See Options.stored_retry.
    retry: tuple[Any, ...] | None = None
    key: str | None = None
    #: Deferreds whose ends this one waits for; and whether the first failure is enough.
    after: tuple[Deferred, ...] = ()
    hurried = False
    #: Its function is marked so, see options.groupable.
    groupable = False
    series: str | None = None
    _names: Any = None
    #: Of a call that was put to another manager, so that its id does not tell where it waits:
    #: the number of the intake by which it came.
    moved = 0
    _queue: Any = None
    _result: bytes | payload.Payload | None = None
    _failure: bytes | payload.Payload | None = None
    _memo: bytes | payload.Payload | None = None
    _history: tuple[tuple[Any, ...], ...] = ()
    # (success, failure, caller or None for ours), in the order they were added; the number
    # of those that ran; and of the one that failed, if it was a callback that did.
    _callbacks: tuple[tuple[Any, Any, tuple[Any, ...] | None], ...] = ()
    _called = 0
    _broken: int | None = None
    # How the call ends if its callbacks leave it with a failure: a lifecycle event.
    _end_event = lifecycle.FAIL

    def __init__(self, id: str, call: Call, queue: Any = None, names: Any = None) -> None:
        self.id = id
        self.plugin = call.plugin
        self.put_at = call.put_at
        self._caller: tuple[Any, ...] = tuple(call.caller)
        self._arguments = payload.stored(call.arguments)
        if queue is not None:
            self._queue = queue
        for name in ('session', 'priority', 'not_before', 'expires_at', 'timeout_seconds',
                     'retry', 'key', 'series', 'hurried', 'groupable'):
            if getattr(call, name) != getattr(self, name):
                setattr(self, name, getattr(call, name))
        if self.series is not None:
            self._names = names

    # its record

    def __getstate__(self) -> dict[int, Any]:
        """{number of an attribute: value}, without what the class or the id tells."""
        told = _put_at_by(self.id)
        return {_NUMBERS[name]: value for name, value in self.__dict__.items()
                if name[:3] != '_v_' and value is not getattr(Deferred, name, _NOTHING)
                and not (name == 'put_at' and value == told)}

    def __setstate__(self, state: dict[int, Any]) -> None:
        """What __getstate__ returned."""
        attributes = self.__dict__
        attributes.clear()
        for number, value in state.items():
            attributes[STORED[number]] = value
        if 'put_at' not in attributes:
            attributes['put_at'] = _put_at_by(self.id)

    # reading

    @property
    def ended(self) -> bool:
        """See IDeferred."""
        return lifecycle.is_final(self.state)

    @property
    def caller(self) -> Caller:
        """The Caller who put it."""
        return Caller(*self._caller)

    @property
    def result(self) -> Any:
        """See IDeferred."""
        if self._result is None or self._failure is not None:
            return None
        return payload.loads(self._result)

    @property
    def failure(self) -> Failure | None:
        """See IDeferred."""
        return None if self._failure is None else payload.loads(self._failure)

    @property
    def memo(self) -> dict[str, Any]:
        """See IDeferred."""
        return {} if self._memo is None else payload.loads(self._memo)

    @property
    def progress(self) -> Progress | None:
        """See IDeferred."""
        if self._queue is None or (self.owner is None and (self.attempt or self.ended)):
            return None
        told: Progress | None = self._queue.board.get(self.id)
        return told

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """See IDeferred."""
        past = tuple(Attempt(*item) for item in self._history)
        if self.attempt == 0 or (past and past[-1].number == self.attempt):
            return past
        outcome = self.state if self.ended else None
        return (*past, Attempt(self.attempt, cast(float, self.started_at), self.ended_at, outcome))

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) of the call; raises what unpickling raises."""
        args, kwargs = payload.loads(self._arguments)
        return args, kwargs

    @property
    def big_arguments(self) -> payload.Payload | None:
        """What keeps its arguments, if that is an object of its own."""
        kept = self._arguments
        return kept if isinstance(kept, payload.Payload) else None

    def unload(self) -> None:
        """Keep nothing of it in memory that is in the database."""
        for kept in (self._arguments, self._result, self._failure, self._memo):
            if isinstance(kept, payload.Payload):
                cast(Any, kept)._p_deactivate()
        cast(Any, self)._p_deactivate()

    def is_owned_by(self, boot: str, attempt: int) -> bool:
        """Whether that attempt of that worker life still runs this call."""
        return self.owner == boot and self.attempt == attempt and not self.ended

    def is_waiting(self) -> bool:
        """Whether a worker may claim it: it is new, or its callbacks lost their worker."""
        return self.state == NEW or (self.state == CALLBACK and self.owner is None)

    def is_expired(self, now: float) -> bool:
        """Whether nobody has begun it in time."""
        return (self.expires_at is not None and self.state == NEW and self.attempt == 0
                and now >= self.expires_at)

    def is_blocked(self) -> bool:
        """Whether another call of its series runs."""
        return self.series is not None and not self._names.is_free(self.series, self.id)

    def is_rolled_back(self) -> bool:
        """Whether its put was, so that no queue has it: its number in the lane is another call's.

        If it had been stored for a savepoint the database has left it empty.
        """
        if self._queue is None:
            return 'id' not in self.__dict__
        return cast(Any, self)._p_jar is None and self._queue._p_jar is not None

    def is_held_up(self, ended: Deferred | None = None) -> bool:
        """Whether a call it waits for has not ended; with `hurried` a failure is enough.

        One that has begun waits for nobody any more. ended -- the one of those that has ended
        since this was asked last; None: look at all. They mostly end in order: of many, it is the
        last that tells.
        """
        if self.state != NEW or not self.after:
            return False
        if self.hurried and any(has_failed(each)
                                for each in (self.after if ended is None else (ended,))):
            return False
        return any(not has_ended(each) for each in reversed(self.after))

    def step(self) -> int:
        """Which part of the call is to be done: −1 its work, else the number of a callback."""
        return self._called if self.state == CALLBACK else -1

    def next_callback(self) -> tuple[Any, Any, Caller] | None:
        """(success, failure, Caller) of the callback to run now, or None.

        Only in the state CALLBACK; the two are None or what `callbacks` made of them.
        """
        if self._called >= len(self._callbacks):
            return None
        success, failure, caller = self._callbacks[self._called]
        return success, failure, self.caller if caller is None else Caller(*caller)

    # what callers do

    def addCallbacks(self, success: str | Callable[[Any], Any] | None = None,
                     failure: str | Callable[[Failure], Any] | None = None) -> Deferred:
        """See IDeferred."""
        Chain.add(self, success, failure)
        return self

    def cancel(self) -> bool:
        """See IDeferred."""
        # Its own commit, which a call that was cancelled may not make, would have to store that.
        if self.ended or Chain.is_own(self):
            return False
        waited = self.is_waiting()
        self._advance(lifecycle.CANCEL)
        failure = Failure.from_exception(Cancelled('the call was cancelled'))
        self._failure = payload.stored(payload.dumps(failure))
        self._end(clock.SYSTEM.now())
        if self._queue is None or self.is_rolled_back():  # then those it is after are, too
            return True
        self._forget_undone()
        if waited:
            self._queue.note_cancelled(self)
        # crash point 5: the request that cancels is not committed; the call goes on.
        Chain.follow(self)
        return True

    # events

    def accept(self, boot: str, now: float) -> None:
        """A worker life claims it."""
        self._advance(lifecycle.CLAIM)
        self.owner = boot
        self.attempt += 1
        self.started_at = now
        if self.series is not None:
            self._names.hold(self.series, self.id)

    def give_back(self, now: float, outcome: str, failed: bool = False) -> None:
        """It goes back to the queue; `outcome` says why its attempt ended, in a word or two.

        failed -- the attempt counts as one of its retry policy.
        """
        self._advance(lifecycle.GIVE_BACK)
        self._note_attempt(now, outcome)
        if failed:
            self.failures += 1
        self._release()

    def unclaim(self) -> None:
        """It goes back to the queue as if it had not been claimed: no thread had begun it."""
        self._advance(lifecycle.GIVE_BACK)
        self.attempt -= 1
        self._release()

    def checkpoint(self, memo: bytes) -> None:
        """Keep the pickled `memo` for a later start."""
        self._advance(lifecycle.CHECKPOINT)
        self._memo = payload.stored(memo)

    def succeed(self, result: bytes | None, now: float) -> None:
        """Its work, or the callback that runs, is done; `result` is pickled, or None for None."""
        kept = None if result is None else payload.stored(result)
        if self.state == CALLBACK:
            self._result, self._failure = kept, None
            self._next_callback(now)
        else:
            self._end_of_work(lifecycle.SUCCEED, now)
            self._result = kept

    def fail(self, failure: Failure, now: float) -> None:
        """Its work, or the callback that runs, failed for good, with that Failure."""
        if self.state == CALLBACK:
            self._callback_failed(failure, now)
        else:
            self._end_of_work(lifecycle.FAIL, now)
            self._failure = payload.stored(payload.dumps(failure))

    def relay(self, failure: Failure, now: float) -> None:
        """It ends as another call did that failed: what went wrong is told there."""
        self._end_of_work(lifecycle.SUCCEED, now)
        self._failure = payload.stored(payload.dumps(failure))

    def expire(self, failure: Failure, now: float) -> None:
        """Nobody began it in time."""
        self._end_of_work(lifecycle.EXPIRE, now)
        self._failure = payload.stored(payload.dumps(failure))

    def pass_callback(self, now: float) -> None:
        """A callback has nothing for a value of this kind."""
        self._next_callback(now)

    def go_on(self, outcome: Failure | bytes | None, now: float) -> None:
        """A callback was run at once, for a call that was run in a request and had ended.

        outcome -- a Failure, or a pickled result or None.
        """
        if isinstance(outcome, Failure):
            self.state, self._failure = FAILED, payload.stored(payload.dumps(outcome))
        else:
            self.state, self._failure = RESOLVED, None
            self._result = None if outcome is None else payload.stored(outcome)
        self.ended_at = now

    def go_on_with(self, success: Any, failure: Any, caller: Caller) -> None:
        """A callback is added in the transaction in which it has ended; that is to run next."""
        self.append_callback(success, failure, caller)
        self.state, self.ended_at = CALLBACK, None

    def again(self, names: Any = None) -> None:
        """It failed for good and is to run once more; where a callback failed, from there.

        names -- the Names that have its series by now; None for those it had.
        """
        self._advance(lifecycle.RETRY)
        if self.series is not None and names is not None:
            self._names = names
        self._note_failed(self.ended_at)
        self.failures = 0
        self.ended_at = None
        self._failure = None
        if self._broken is not None:
            self._called, self.state = self._broken, CALLBACK
            self._broken = None
        else:
            self._result = None
            self._called = 0

    def append_callback(self, success: Any, failure: Any, caller: Caller | None) -> None:
        """One more callback; caller -- a Caller, or None for ours."""
        self._callbacks = (*self._callbacks,
                           (success, failure, None if caller is None else tuple(caller)))

    def has_callbacks(self) -> bool:
        """Whether callbacks have not run."""
        return self._called < len(self._callbacks)

    def take_callbacks(self) -> tuple[tuple[Any, Any, tuple[Any, ...] | None], ...]:
        """Give away the callbacks that have not run; → as many (success, failure, caller)."""
        left = self._callbacks[self._called:]
        self._callbacks = self._callbacks[:self._called]
        return left

    def _callback_failed(self, failure: Failure, now: float) -> None:
        if self._failure is None:
            # What it was given is still in `_result`: it can be given that again.
            self._broken = self._called
        if failure != self.failure:  # else it has handed on what it was given
            self._end_event = lifecycle.FAIL
            self._failure = payload.stored(payload.dumps(failure))
        self._next_callback(now)

    def _next_callback(self, now: float) -> None:
        self._called += 1
        if not self.has_callbacks():
            failed = self._failure is not None
            self._advance(self._end_event if failed else lifecycle.SUCCEED)
            self._end(now)

    def _end_of_work(self, event: str, now: float) -> None:
        left = self.has_callbacks()
        self._advance(event, left)
        self._forget_undone()
        if left:
            self._end_event = event
        else:
            self._end(now)

    def _forget_undone(self) -> None:
        """Refer to no call that is not there: a reference to one ends a pack of the database."""
        if self.after:
            there = tuple(each for each in self.after if is_there(each))
            if there != self.after:
                self.after = there

    def _end(self, now: float) -> None:
        self.ended_at = now
        self._release()

    def move_to(self, queue: Any, intake: int) -> None:
        """It is in that Queue from now on, by the intake of that number."""
        self._queue = queue
        self.moved = intake

    @property
    def queue(self) -> Any:
        """The Queue it is in; None for what was run in a request."""
        return self._queue

    def is_in(self, queue: object) -> bool:
        """Whether it is in that Queue."""
        return self._queue is queue

    def is_beside(self, other: Deferred) -> bool:
        """Whether it is in the queue of that call."""
        return self._queue is other._queue

    def let_go(self, now: float) -> None:
        """What it did has failed in no thread; its callbacks are for its next attempt."""
        if self.attempt:
            self._note_failed(now)
        self._release()

    def _release(self) -> None:
        self.owner = None
        if self.series is not None:
            self._names.release(self.series, self.id)

    def _note_failed(self, now: float | None) -> None:
        self._note_attempt(now, f'failed: {self.failure}'[:OUTCOME_MOST])

    def _note_attempt(self, now: float | None, outcome: str) -> None:
        attempt = (self.attempt, self.started_at, now, outcome)
        self._history = (*self._history, attempt)[-HISTORY_MOST:]

    def _advance(self, event: str, callbacks: bool = False) -> None:
        self.state = lifecycle.advance(self.state, event, callbacks)

    def __repr__(self) -> str:
        return f'<call {self.id} {self.plugin} {self.state}>'


def is_there(deferred: Deferred) -> bool:
    """Whether its put was not undone."""
    try:
        return bool(deferred.id)
    except POSKeyError:
        return False


def _put_at_by(id: str) -> float | None:
    """When the call was put, if its id tells."""
    try:
        put_at: float = parse_id(id)[2]
        return put_at
    except ValueError:  # it was run in a request, and is in no lane
        return None


def has_ended(deferred: Deferred) -> bool:
    """Whether nobody need wait for that call: it has ended, or its put was undone."""
    try:
        return deferred.ended
    except POSKeyError:
        return True


def has_failed(deferred: Deferred) -> bool:
    """Whether it has ended, and not well; what was undone never will."""
    try:
        return deferred.ended and deferred.failure is not None
    except POSKeyError:
        return True
