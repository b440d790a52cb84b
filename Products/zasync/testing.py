"""For the tests of those who put calls: run them at once, or step by step.

`eager` runs calls in the put, or right after the commit; `make_worker` makes a worker whose
beats the test makes, with a clock it moves. docs/testing.rst shows both.

Imports: eager, putting, options, clock, interfaces; zasync_client, which is above us,
inside functions only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextlib import ExitStack
from typing import Any
from typing import cast
from typing import ParamSpec
from typing import TYPE_CHECKING
from typing import TypeVar

import transaction
from Acquisition import aq_base
from transaction._transaction import Status

from . import clock
from .clock import ManualClock
from .eager import AtOnce
from .eager import manager_of
from .interfaces import IAsynchronousCallManager
from .options import Retry
from .putting import kept_by
from .putting import StandIn


if TYPE_CHECKING:
    from zasync_client.config import Plugin


P = ParamSpec('P')
T = TypeVar('T')

__all__ = ['eager', 'make_worker', 'ManualClock', 'plugin', 'Stepper']

#: How long a step waits for the calls it has begun, in real seconds.
HANGS_SECONDS = 60.0

#: What a Plugin has by longer names than a <plugin> section.
IN_SECONDS = {'timeout': 'timeout_seconds', 'retry_delay': 'retry_delay_seconds'}

#: Beats after which calls that put calls are taken for endless.
BEATS_MOST = 10_000


def plugin(name: str, handler: Callable[..., Any], zope_aware: bool = False,
           **settings: Any) -> Plugin:
    """A plugin as a <plugin> section would name it.

    settings -- those of the section, with underscores; `retry` is true or false, and `retry_on`
    may be what Retry takes, too. Raises TypeError for one that is none, and BadCall.
    """
    from zasync_client.config import Plugin
    for short, long in IN_SECONDS.items():
        if short in settings:
            settings[long] = settings.pop(short)
    on = settings.pop('retry_on', ())
    *_, names = Retry(on=on.split() if isinstance(on, str) else on).as_tuple()
    return Plugin(name, handler, settings.pop('description', ''), zope_aware=zope_aware,
                  retry_on=names, **settings)


# at once

@contextmanager
def eager(at_commit: bool = False, propagate: bool = False,
          plugins: Iterable[Plugin] = ()) -> Iterator[None]:
    """While the body runs no worker is needed, and the whole process has none.

    Calls run in the put: as the caller, their arguments and result pickled, and what one did
    undone if it fails. What they put themselves runs after them. Calls with a delay, those of
    a paused manager and further attempts wait, as they would.

    at_commit -- they run in transactions of their own, right after that of the put was
    committed; if it is aborted nothing runs. What kept them from running is raised at the end of
    the body. propagate -- what a call raises is stored, and
    raised from the put as well. plugins -- see `plugin`; the built-in ones are always there.
    """
    from zasync_client.config import offered
    from zasync_client.rules import retry_of
    if at_commit and propagate:
        raise ValueError('propagate raises from the put, and with at_commit calls run later')
    made = tuple(plugins)
    runs = _AtCommit(made) if at_commit else AtOnce(offered(made), retry_of, propagate)
    before = StandIn.serve, StandIn.plugins
    StandIn.serve, StandIn.plugins = runs.serve, tuple(each.name for each in made)
    try:
        yield
    finally:
        StandIn.serve, StandIn.plugins = before
    if isinstance(runs, _AtCommit) and runs.error is not None:
        raise runs.error


class _AtCommit:
    """Has a worker run what was put, when the transaction of the put was committed.

    error -- what the first worker that could not go on has raised, or None: what is raised after
    a commit, the transaction logs and drops.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self._plugins = plugins
        self._lock = threading.Lock()
        self._places: dict[Any, tuple[Any, tuple[str, ...]]] = {}
        self._due: list[tuple[Any, tuple[str, ...]]] = []
        self._busy = False
        self.error: BaseException | None = None

    def serve(self, queue: Any, manager: Any = None) -> None:
        """See StandIn."""
        if manager is None and queue not in self._places:
            manager = manager_of(queue)
            if manager is None:
                return
        if manager is not None:
            self._places[queue] = manager.getPhysicalRoot(), manager.getPhysicalPath()
        touched = kept_by(self)
        if not touched:
            transaction.get().addAfterCommitHook(self._after_commit, (touched,))
        touched[queue] = self._places[queue]

    def _after_commit(self, committed: bool, touched: dict[Any, Any]) -> None:
        """Run what was committed. A commit of a call: whoever runs it comes to that next."""
        if not committed:
            return
        # A manager that was rolled back with what was put to it is in no database.
        places = [place for queue, place in touched.items() if queue._p_jar is not None]
        jars = [aq_base(root)._p_jar for root, _ in places]
        with self._lock:
            # Databases: a call's connection is closed when that comes to be run.
            self._due.extend((jar.db(), path) for jar, (_, path) in zip(jars, places, strict=True))
            if self._busy:
                return
            self._busy = True
        try:
            while (due := self._next_due()) is not None:
                db, path = due
                system = cast(ManualClock, clock.SYSTEM)  # nobody moves it here
                with Stepper(db, '/'.join(path), system, self._plugins, threads=1) as worker:
                    worker.go_on_until_idle()
                # They are seen at once: no new transaction need be begun first.
                for jar in jars:
                    for connection in jar.connections.values():
                        connection.newTransaction(None)
        except BaseException as reason:
            with self._lock:
                self._busy = False
                self.error = self.error or reason
            raise

    def _next_due(self) -> tuple[Any, tuple[str, ...]] | None:
        with self._lock:
            self._busy = bool(self._due)
            return self._due.pop(0) if self._due else None


# step by step

def make_worker(place: Any, target: str = '/asynchronous_call_manager',
                clock: ManualClock | None = None, plugins: Iterable[Plugin] = (),
                threads: int = 1) -> Stepper:
    """A worker for the database of `place`, whose beats the test makes; close it, or use `with`.

    place -- a manager, or anything in the application, with the path of the manager as
    `target`; it must be committed. clock -- the clock of the whole process meanwhile; by
    default a ManualClock that begins now. plugins -- see `plugin`.
    Raises TargetAway or BadTarget of zasync_client.errors, and ValueError for a place that is
    in no database.
    """
    if IAsynchronousCallManager.providedBy(place):
        target = '/'.join(place.getPhysicalPath())
    find_root = getattr(place, 'getPhysicalRoot', None)
    # What was added to nothing acquires none, and has Acquisition's mark in its place.
    root = find_root() if callable(find_root) else place
    jar = getattr(aq_base(root), '_p_jar', None)
    if jar is None:
        raise ValueError(f'{place!r} is in no database: commit it first')
    return Stepper(jar.db(), target, clock, plugins, threads)


class Stepper:
    """A worker that makes a beat when it is told to; see make_worker.

    clock -- the clock that it and this process go by.
    Its threads are not the test's: the test must have committed what they are to see, and
    begin a transaction to see what they did.
    """

    def __init__(self, db: Any, target: str, with_clock: ManualClock | None,
                 plugins: Iterable[Plugin], threads: int) -> None:
        from zasync_client import config
        from zasync_client import datatypes
        from zasync_client.database import Database
        from zasync_client.worker import Worker
        # A whole second: the times of puts are kept in whole milliseconds.
        self.clock = with_clock or ManualClock(float(round(clock.SYSTEM.now())))
        self._config = config.Config(
            path='', target=datatypes.target(target), threads=threads, max_conflict_attempts=5,
            initial_retry_seconds=1.0, retry_growth=1.0, max_total_retry_seconds=2.0,
            drain_seconds=0.0, plugins=config.offered(plugins), zope=None, handlers=None)
        self._stopping = threading.Event()
        self._bell = _Bell()
        self._database = Database(db, self._config.target, threads)
        with ExitStack() as exits:
            exits.enter_context(clock.replaced(self.clock))
            self._beats = exits.enter_context(ThreadPoolExecutor(1, 'zasync-beats'))
            exits.callback(self._in_thread, self._database.close)
            self._in_thread(self._look)
            self._worker = Worker(self._config, self._database, self._bell, self.clock,
                                  self._stopping)
            self._in_thread(self._worker.begin)
            exits.callback(self._leave)
            self._exits = exits.pop_all()

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def step(self) -> bool:
        """Make one beat, and wait until the calls it began have ended; → was there any work?

        Raises what ends a worker, TimeoutError when a call does not end, and RuntimeError when
        the test has changes that are not committed: the worker would not see them.
        """
        _refuse_changes()
        worked = self._step()
        transaction.begin()
        return worked

    def run_until_idle(self) -> None:
        """Step until there is nothing to do before the clock is moved or something is put."""
        _refuse_changes()
        self.go_on_until_idle()
        transaction.begin()

    def go_on_until_idle(self) -> None:
        """The same from inside the end of a transaction."""
        for _ in range(BEATS_MOST):
            if not self._step() and not self._bell.rung.is_set():
                return
        raise RuntimeError(f'after {BEATS_MOST:,} beats there still are calls: do they put each '
                           'other again and again?')

    def _step(self) -> bool:
        self._bell.rung.clear()
        worked = self._in_thread(self._beat)
        while held := self._worker.held():
            if not self._bell.rung.wait(HANGS_SECONDS):
                raise TimeoutError(f'after {HANGS_SECONDS:.0f} s a call still runs: '
                                   f'{", ".join(sorted(claim.id for claim in held))}')
            self._bell.rung.clear()
        return worked

    def close(self) -> None:
        """Leave the desk, and give the process its clock back.

        A new transaction begins, unless there are changes that are not committed.
        """
        self._exits.close()
        current = transaction.get()
        if current.status is Status.ACTIVE and not current._resources:
            transaction.begin()

    def _in_thread(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._beats.submit(action, *args, **kwargs).result()

    def _look(self) -> None:
        from zasync_client import holding
        from zasync_client.errors import TargetAway
        try:
            holding.look(self._database)
        except TargetAway as reason:
            raise TargetAway(f'{reason}: commit it first, a worker sees only what is '
                             'committed') from None

    def _beat(self) -> bool:
        worked: bool = self._worker.step(self.clock.now(), hurry=True)
        # Dispatchers see the age of this beat by our clock.
        db = self._database.watched()
        clock.storage_clock(db.database_name).observe(db.lastTransaction(),
                                                      self.clock.monotonic())
        return worked

    def _leave(self) -> None:
        self._stopping.set()
        self._in_thread(self._worker.drain)
        self._worker.join(0.0 if self._worker.held() else HANGS_SECONDS)


def _refuse_changes() -> None:
    current = transaction.get()
    if current.status is Status.ACTIVE and current._resources:
        raise RuntimeError('there are changes that are not committed, which the worker would not '
                           'see: commit or abort them first')


class _Bell:
    """A Wakeup for a worker that nobody wakes: it only notes that there is something to do."""

    def __init__(self) -> None:
        self.rung = threading.Event()
        self.notify = self.notify_own = self.rung.set

    def watch(self, db: Any, hear: Any = None) -> None:
        """See Wakeup."""

    def start_looking(self) -> None:
        """See Wakeup."""

    def wait(self, seconds: float) -> None:
        """See Wakeup."""
