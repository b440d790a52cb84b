"""A call run in the request that put it, because no worker lives.

How such code runs is told in Products.zasync.direct.

Its deferred is not stored: the caller holds the only one, and it has ended.

Imports: zasync.
"""

import functools
import logging
import random

from Acquisition import aq_base
from transaction.interfaces import TransientError

from Products.zasync import clock
from Products.zasync.builtin import BUILTIN
from Products.zasync.callbacks import go_on_by
from Products.zasync.deferred import Deferred
from Products.zasync.direct import go_on
from Products.zasync.direct import outcome_of
from Products.zasync.direct import undo
from Products.zasync.failure import Failure
from Products.zasync.failure import one_line
from Products.zasync.putting import transaction_of
from Products.zasync.savepoints import Savepoint


log = logging.getLogger('zasync.direct')


def can_run(call, names):
    """Whether `call` can run in a web process, now.

    Only the built-in plugins are known there. What is delayed waits in a queue, and so
    does what is of a series in which a call runs, or is to be got by a browser later.
    """
    if call.not_before or call.session is not None:
        return False
    if call.series is not None and not names.is_free(call.series, None):
        return False
    plugin = BUILTIN.get(call.plugin)
    return (plugin is not None and plugin.run is not None
            and all(can_run(member, names) for member in call.members))


def run(root, call, names):
    """Run `call` now, inside the current transaction; → its Deferred, ended.

    root -- the application root of this connection. names -- a Names.
    Raises TransientErrors of the call, of which nothing is left then, and CommitRefused when
    it tried to commit or abort the transaction of the request: then the request must fail.
    """
    savepoint = Savepoint(transaction_of(aq_base(root)))
    try:
        return _run(root, call, names)
    except TransientError:  # its series would be held, and members that have ended were run
        undo(savepoint)
        raise


def _run(root, call, names):
    deferred = Deferred(f'direct-{random.getrandbits(64):016x}', call, names=names)
    deferred.after = tuple(_run(root, member, names) for member in call.members)
    # A call of the same series that a worker begins meanwhile meets this write.
    deferred.accept('direct', clock.SYSTEM.now())
    plugin = BUILTIN[call.plugin]

    def work(step):
        args, kwargs = deferred.arguments()
        return plugin.run(step, *args, **kwargs)

    outcome = outcome_of(root, deferred, deferred.caller, work)
    if isinstance(outcome, Failure):
        deferred.fail(outcome, clock.SYSTEM.now())
        log.warning('call %s failed in the request: %s', deferred.id,
                    one_line(deferred.failure))
    else:
        deferred.succeed(outcome, clock.SYSTEM.now())
        log.info('call %s resolved in the request in %.2f s', deferred.id,
                 deferred.ended_at - deferred.started_at)
    go_on_by(deferred, functools.partial(go_on, root, deferred))
    return deferred
