"""Callbacks: what runs after a call, with what it returned or with its failure.

As in Twisted, callbacks are pairs in a chain. Each is given the value of the one
before it, at first the call's: its `success` a result, its `failure` a Failure. What it
returns is the next one's result, what it raises the next one's failure, and a pair that
has nothing for the kind of value is passed over.

Callbacks given before the call is committed are kept with it. Those given later must not
write the call, whose commit would fail: they are a call of their own, a *follower*, that
waits for the end of the first and begins its chain with the value that one has.

A callback runs as whoever added it, in a transaction of its own.

Imports: deferred, expression, builtin, security, running, putting, payload, options, call,
clock, errors.
"""

from . import clock
from . import expression
from . import payload
from . import putting
from .builtin import FOLLOW
from .builtin import reference
from .builtin import zope_call
from .call import Call
from .deferred import Chain
from .errors import BadCall
from .errors import told
from .errors import ZAsyncError
from .failure import Failure
from .options import bare
from .putting import kept_by
from .running import current
from .running import is_own
from .security import capture


#: What a connection gives an object that was never stored.
NO_SERIAL = b'\0' * 8


def add(deferred, success, failure):
    """Add a pair of callbacks, each a TALES expression, a callable or None.

    Raises BadCall for what can't be evaluated or found again by name; then nothing is added.
    """
    success, failure = made(success, 'success'), made(failure, 'failure')
    if success is failure is None:
        raise BadCall('addCallbacks takes a callback for success, one for failure, or both')
    caller = capture()
    at_once = deferred._queue is None  # which loads it: its serial is known now
    if deferred.is_rolled_back():
        raise _rolled_back()
    new = deferred._p_serial in (None, NO_SERIAL)
    if at_once or (new and deferred.ended and _continuation(deferred) is not None):
        _call_at_once(deferred, success, failure, caller)
    elif new and not deferred.ended and (current() is None or current().has_put(deferred)):
        # The call is not committed, nor was it put, or is it run, by another call of this
        # transaction: nobody else has seen it.
        deferred.append_callback(success, failure, None if caller == deferred.caller else caller)
    else:
        _follower(deferred, caller).append_callback(success, failure, caller)
        putting.after_put(deferred._queue)


def _rolled_back():
    return BadCall('the put of the call was rolled back: nobody would run its callbacks')


def go_on_by(deferred, continuation):
    """That call has ended in this transaction: callbacks that are added to it run at once.

    continuation -- callable(success, failure, caller). The transaction keeps it as well: a
    deferred that is stored forgets it when a savepoint is rolled back.
    """
    deferred._v_continue = continuation
    kept_by(go_on_by)[deferred] = continuation


def _continuation(deferred):
    kept = getattr(deferred, '_v_continue', None)
    return kept_by(go_on_by).get(deferred) if kept is None else kept


def _call_at_once(deferred, success, failure, caller):
    call_at_once = _continuation(deferred)
    if call_at_once is None:
        raise BadCall(f'the call {deferred.id} was run in a request that is over: it takes no '
                      'callbacks any more')
    call_at_once(success, failure, caller)


def follow(deferred):
    """Have the callbacks of a call that was cancelled run by a follower, if it has some."""
    left = deferred.take_callbacks()
    if left:
        follower = _new_follower(deferred, deferred.caller)
        for success, failure, caller in left:
            follower.append_callback(success, failure, caller)
    putting.after_put(deferred._queue)  # what waited for it may go on


def _follower(deferred, caller):
    """The follower this transaction has put for `deferred`, else a new one.

    Calls that share the transaction have one each, as if it were their own.
    """
    ours = kept_by(_follower, putting.transaction_of(deferred))
    key = deferred.id, current()
    id, found = ours.get(key, (None, None))
    # A savepoint that was rolled back may have taken it out of its lane.
    if found is None or deferred._queue.find(id) is not found:
        found = _new_follower(deferred, caller)
        ours[key] = found.id, found
    return found


def _new_follower(deferred, caller):
    if deferred._queue.closed:
        raise BadCall(f'the manager of the call {deferred.id} was deleted: nobody would run its '
                      'callbacks')
    if not deferred.ended and deferred._queue.find(deferred.id) is not deferred:
        raise _rolled_back()  # it was stored after that
    put_at = round(clock.SYSTEM.now() * 1000) / 1000
    call = Call(FOLLOW, payload.dump_arguments((deferred.id,), {}), caller, put_at,
                priority=deferred.priority, session=deferred.session)
    return putting.put_after(deferred._queue, call, (deferred,))


def made(callback, kind):
    """What is stored of a callback: None, a TALES text or a Reference."""
    if callback is None:
        return None
    if isinstance(callback, str):
        callback = bare(callback)
        expression.check(callback)
        return callback
    if not callable(callback):
        raise BadCall(f'the {kind} callback is a TALES expression or a callable, '
                      f'not {told(callback)}')
    return reference(callback)


def run(run, callback, value):
    """Run one callback (see `made`) on a result or a Failure; → what it returns.

    run -- an IRun with its `app`. The names in an expression: `result` and `failure`, of
    which one is None; `here`, `home` and `root`, the application root; `request`; `user`,
    `modules`, `nothing`.
    """
    if not isinstance(callback, str):
        return zope_call(run, callback, value)
    failed = isinstance(value, Failure)
    return expression.evaluate(callback, {
        'result': None if failed else value, 'failure': value if failed else None,
        'here': run.app, 'context': run.app, 'container': run.app, 'home': run.app,
        'root': run.app, 'request': run.app.REQUEST})


def no_checkpoint(memo):
    """What a callback gets for a checkpoint, wherever it runs."""
    raise ZAsyncError('a callback has no checkpoints: it is short, or puts a call')


Chain.add = staticmethod(add)
Chain.follow = staticmethod(follow)
Chain.is_own = staticmethod(is_own)
