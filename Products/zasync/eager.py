"""Running calls in the put itself, for tests: what beat and thread of a worker do, in one.

Imports: callbacks, direct, putting, security, running, options, failure, policy, clock,
interfaces.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import cast
from typing import TYPE_CHECKING

import transaction

from . import callbacks
from . import clock
from . import policy
from .direct import FATAL
from .direct import inside
from .failure import Failure
from .failure import Relayed
from .failure import text_of
from .interfaces import ACCEPTED
from .interfaces import CALLBACK
from .interfaces import IAsynchronousCallManager
from .options import class_names
from .putting import after_put
from .putting import kept_by
from .running import no_checkpoint
from .security import apart


if TYPE_CHECKING:
    from .call import Caller
    from .deferred import Deferred
    from .running import Run


class AtOnce(threading.local):
    """Runs what was put in the transaction of the put; its state is of one thread.

    plugins -- {name: Plugin of zasync_client}. retry_of -- callable(retry of the call, Plugin)
    → its retry policy, see policy.next_try. propagate -- whether what a call raises is raised
    here, too.
    """

    def __init__(self, plugins: Mapping[str, Any],
                 retry_of: Callable[[tuple[Any, ...] | None, Any], tuple[Any, ...] | None],
                 propagate: bool) -> None:
        self._plugins = plugins
        self._retry_of = retry_of
        self._propagate = propagate
        self._managers: dict[Any, Any] = {}
        self._busy = False

    def serve(self, queue: Any, manager: Any = None) -> None:
        """See StandIn. Inside a call: what it puts has its turn later."""
        if manager is None and queue not in self._managers:
            manager = manager_of(queue)
            if manager is None:
                return
        if manager is not None:
            self._managers[queue] = manager
        kept_by(self)[queue] = self._managers[queue]
        if not self._busy:
            with self._at_work():
                while self._run_next():
                    pass

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        outer, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = outer

    def _run_next(self) -> bool:
        transaction.savepoint(optimistic=True)  # new objects get their ids
        for queue, manager in list(kept_by(self).items()):
            slots = 0 if manager.paused else 1
            for deferred in queue.take_in_and_claim(
                    'eager', clock.SYSTEM.now(), slots, manager.rotation_period):
                self._run(queue, manager, deferred)
                return True
        return False

    def _run(self, queue: Any, manager: Any, deferred: Any) -> None:
        root = manager.getPhysicalRoot()
        # In the other case its work has ended before, or it has expired.
        error = self._work(queue, root, deferred) if deferred.state == ACCEPTED else None
        while deferred.state == CALLBACK:
            error = self._call_back(root, deferred) or error
        if deferred.ended:
            queue.archive_ended(deferred.id, manager.rotation_period)
            callbacks.go_on_by(deferred, functools.partial(self._go_on, queue, manager, deferred))
        if error is not None and self._propagate:
            raise error

    def _go_on(self, queue: Any, manager: Any, deferred: Deferred, success: Any, failure: Any,
               caller: Caller) -> None:
        """A callback is added to a call that has ended in this transaction: it is part of it."""
        queue.unfile(deferred)
        deferred.go_on_with(success, failure, caller)
        with self._at_work():
            self._call_back(manager.getPhysicalRoot(), deferred)
        queue.file(deferred, manager.rotation_period)
        after_put(queue, manager)  # the callback may have put something

    def _work(self, queue: Any, root: Any, deferred: Deferred) -> BaseException | None:
        """Run its plugin; → the exception it raised, or None."""
        found = self._plugins.get(deferred.plugin)
        if found is None:
            raise LookupError(f'eager() does not know what the plugin {deferred.plugin!r} of the '
                              'real worker does: give it in `plugins`')
        try:
            result = inside(
                root, deferred, deferred.caller, functools.partial(_handle, found, deferred),
                None if found.zope_aware else no_checkpoint)
        except (*FATAL, KeyboardInterrupt):
            raise
        except Relayed as other:
            deferred.relay(other.failure, clock.SYSTEM.now())
        except BaseException as error:
            self._fail(queue, deferred, found, error)
            return error
        else:
            if isinstance(result, Failure):
                deferred.fail(result, clock.SYSTEM.now())
            else:
                deferred.succeed(result, clock.SYSTEM.now())
        return None

    def _fail(self, queue: Any, deferred: Deferred, found: Any, error: BaseException) -> None:
        now = clock.SYSTEM.now()
        delay = policy.next_try(self._retry_of(deferred.retry, found), deferred.failures + 1,
                                class_names(type(error)))
        if delay is None:
            deferred.fail(Failure.from_exception(error), now)
        else:
            queue.give_back(deferred.id, now, f'failed: {text_of(error)}', now + delay,
                            failed=True)

    def _call_back(self, root: Any, deferred: Deferred) -> BaseException | None:
        """Run its next callback; → the exception it raised, or None."""
        success, failure, caller = cast('tuple[Any, Any, Caller]', deferred.next_callback())
        value = deferred.failure
        chosen = success if value is None else failure
        if chosen is None:
            deferred.pass_callback(clock.SYSTEM.now())
            return None

        def work(step: Run) -> Any:
            return _storable(step, callbacks.run(
                step, chosen, deferred.result if value is None else value))

        try:
            result = inside(root, deferred, caller, work, callbacks.no_checkpoint)
        except (*FATAL, KeyboardInterrupt):
            raise
        except BaseException as error:
            deferred.fail(Failure.from_exception(error), clock.SYSTEM.now())
            return error
        if isinstance(result, Failure):
            deferred.fail(result, clock.SYSTEM.now())
        else:
            deferred.succeed(result, clock.SYSTEM.now())
        return None


def _handle(found: Any, deferred: Deferred, step: Run) -> Any:
    args, kwargs = deferred.arguments()
    if found.zope_aware:
        return _storable(step, found.handler(step, *args, **kwargs))
    step.app = None
    with apart():
        return found.handler(*args, **kwargs)


def _storable(step: Run, result: Any) -> Any:
    """That result; raises what the commit would, if something that was changed can't be stored.

    A savepoint of the transaction would end it with that. In a request there is no such look:
    plone.protect would not see any more what the call has changed.
    """
    for connection in step.app._p_jar.connections.values():
        if connection in transaction.get()._resources:
            connection.savepoint()
    return result


def manager_of(queue: Any) -> Any:
    """The manager that has that Queue, looked for in the whole application; or None."""
    if queue._p_jar is None:
        return None
    for connection in queue._p_jar.connections.values():
        app = connection.root().get('Application')
        if app is not None:
            for _, found in app.ZopeFind(app, search_sub=1):
                if IAsynchronousCallManager.providedBy(found) and found.queue is queue:
                    return found
    return None
