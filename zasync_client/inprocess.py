"""The worker in a Zope process: for development, and for sites of one process.

A section ``<zasync-worker NAME>`` of a zope.conf becomes a Section. When Zope is ready, each
gets a thread that is the worker, and the worker's own threads, beside those that answer
requests; the storage may be any. Nothing that happens to a worker stops Zope.

Zope has no event for its end, but closes what is in ``Zope2.opened``. A web server that
leaves even that out still comes to ``atexit``.

Imports: worker, holding, wakeup, database, zope, signals, config, handlers, datatypes, errors,
zasync.clock.
"""

import atexit
import logging
import threading
from dataclasses import dataclass
from dataclasses import replace

import Zope2
from App.config import getConfiguration
from transaction.interfaces import TransientError
from ZODB.POSException import POSError
from zope.component import provideHandler
from zope.processlifetime import IProcessStarting

from Products.zasync.clock import SYSTEM
from Products.zasync.wakeup import Wakeup

from . import holding
from . import signals
from .config import Config
from .database import Database
from .datatypes import PluginSection
from .errors import ConfigurationError
from .errors import DeskLost
from .errors import GaveUp
from .errors import TargetAway
from .errors import TargetTaken
from .errors import WorkerError
from .handlers import built_in
from .handlers import plugins_of
from .worker import Worker
from .zope import WorkerStarting


log = logging.getLogger('zasync')

#: Between two looks at a worker of another process that has the target, in seconds.
LOOK_SECONDS = 1.0

#: Before a worker that met something it can not handle is started anew, in seconds.
PAUSE_SECONDS = 30.0

#: What a worker may take longer than its drain-seconds to leave the desk, in seconds.
LEAVE_SECONDS = 5.0


@dataclass(frozen=True)
class Section:
    """A <zasync-worker> of a zope.conf.

    config -- a Config with the built-in plugins alone: Zope starts, and a zasync.conf that
    includes that file is read, whatever the handlers of its `plugins` are.
    """

    name: str
    config: Config
    plugins: tuple[PluginSection, ...] = ()

    def getSectionName(self):
        """What Zope files it under."""
        return self.name

    def complete(self):
        """The Config with all plugins: imports handlers. Raises ConfigurationError."""
        plugins, problems, warnings = plugins_of(self.plugins)
        if problems:
            raise ConfigurationError('; '.join(map(str, problems)))
        return replace(self.config, plugins=plugins, warnings=tuple(map(str, warnings)))


def section(found):
    """The Section of what ZConfig read."""
    name = found.getSectionName()
    return Section(name, Config(
        path=f'<zasync-worker {name}>', target=found.target, threads=found.threads,
        max_conflict_attempts=found.max_conflict_resolution_attempts,
        initial_retry_seconds=found.initial_retry_delay,
        retry_growth=found.retry_exponential_backoff, max_total_retry_seconds=0.0,
        drain_seconds=found.drain_seconds, plugins=built_in(), zope=None, handlers=None,
        max_interruptions=found.max_interruptions, max_hung_threads=found.max_hung_threads,
        max_result_bytes=found.max_result_size, batch_seconds=found.batch_seconds),
        tuple(found.plugins))


def start_workers(event):
    """A process starts: start the workers its zope.conf asks for; → Workers, or None.

    A worker's own process starts none, though its zasync.conf may include that zope.conf.
    """
    if isinstance(event, WorkerStarting):
        return None
    found = getattr(getConfiguration(), 'product_config', None) or {}
    sections = [each for each in found.values() if isinstance(each, Section)]
    if not sections:
        return None
    workers = Workers(sections, Zope2.DB)
    Zope2.opened.insert(0, workers)
    atexit.register(workers.close)
    signals.end_in_order()
    return workers


provideHandler(start_workers, [IProcessStarting])


class Workers:
    """The workers of this process; they run from the start. db -- the ZODB.DB of the root."""

    def __init__(self, sections, db):
        self._closed = False
        self._workers = []
        targets = {}
        for each in sections:
            first = targets.setdefault(each.config.target, each.name)
            if first != each.name:
                log.error('<zasync-worker %s> is not started: <zasync-worker %s> has the same '
                          'target %s', each.name, first, '/'.join(each.config.target))
                continue
            # These threads come on top of those that answer requests.
            db.setPoolSize(db.getPoolSize() + each.config.threads + 1)
            self._workers.append(InProcess(each, db))

    def close(self):
        """Have all of them drain, and wait for it, as long as they may take."""
        if self._closed:
            return
        self._closed = True
        for each in self._workers:
            each.stop()
        until = SYSTEM.monotonic() + LEAVE_SECONDS + max(
            (each.drain_seconds for each in self._workers), default=0.0)
        for each in self._workers:
            if not each.join(max(0.0, until - SYSTEM.monotonic())):
                log.warning('<zasync-worker %s> does not end; its calls run again at the next '
                            'start', each.name)


class InProcess:
    """One worker of this process, that of a Section, in a thread of its own."""

    def __init__(self, section, db):
        self.name = section.name
        self.drain_seconds = section.config.drain_seconds
        self._section = section
        self._config = section.config
        self._db = db
        self._stopping = threading.Event()
        self._wakeup = Wakeup(SYSTEM)
        self._thread = threading.Thread(target=self._serve, name=f'zasync-worker-{self.name}',
                                        daemon=True)
        self._thread.start()

    def stop(self):
        """Have it drain; returns at once."""
        self._stopping.set()
        self._wakeup.notify_own()

    def join(self, seconds):
        """Wait for its end, so long at most; → whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _serve(self):
        try:
            self._config = self._section.complete()
        except ConfigurationError as reason:
            log.error('<zasync-worker %s> is not started: %s. Mend that and start Zope again',
                      self.name, reason)
            return
        for warning in self._config.warnings:
            log.warning('<zasync-worker %s>: %s', self.name, warning)
        database = Database(self._db, self._config.target, self._config.threads)
        self._wakeup.watch(self._db)
        try:
            while not self._stopping.is_set():
                self._live_once(database)
        finally:
            database.close()

    def _live_once(self, database):
        """One life of the worker: until it is stopped, or something else ended it."""
        try:
            self._await_target(database)
            worker = Worker(self._config, database, self._wakeup, SYSTEM, self._stopping)
            worker.run()
            if worker.replacing.wanted is not None:
                # A process that serves pages can't begin anew: what hangs keeps its connection.
                self._db.setPoolSize(self._db.getPoolSize() + len(worker.held()))
                log.warning('<zasync-worker %s> begins anew in this process; %d threads of the '
                            'one before go on until their code ends', self.name,
                            len(worker.held()))
        except GaveUp:
            pass  # only because it was stopped: it waits for ever otherwise
        except (TargetTaken, DeskLost) as reason:
            log.info('%s. This Zope goes on without; its worker takes over when that one is gone',
                     reason)
            self._await_turn(database)
        except WorkerError as reason:
            self._pause(str(reason))
        except Exception as reason:
            log.critical('<zasync-worker %s> met an error it can not handle', self.name,
                         exc_info=True)
            self._pause(f'{type(reason).__name__}: {reason}')

    def _pause(self, reason):
        log.error('<zasync-worker %s> tries again in %.0f s: %s', self.name, PAUSE_SECONDS, reason)
        SYSTEM.wait(self._stopping, PAUSE_SECONDS)

    def _await_target(self, database):
        """Wait until there is something at the path; any commit may have put it there."""
        told = False
        while not self._stopping.is_set():
            self._wakeup.start_looking()
            try:
                holding.look(database)
                return
            except TargetAway as reason:
                if not told:
                    log.warning('%s yet; <zasync-worker %s> waits for it', reason, self.name)
                    told = True
            except TransientError:  # no server: the start of the worker waits for it, and tells
                return
            self._wakeup.wait(PAUSE_SECONDS)

    def _await_turn(self, database):
        """Wait until the worker of another process that holds the desk has left it, or died."""
        pulse, since = None, SYSTEM.monotonic()
        while not SYSTEM.wait(self._stopping, LOOK_SECONDS):
            try:
                holder = holding.look(database)
            except (TransientError, WorkerError, POSError):
                return  # the next start finds out, and tells
            if holder.boot is None or holding.has_died(holder):
                return
            if holder.pulse != pulse:
                pulse, since = holder.pulse, SYSTEM.monotonic()
            elif SYSTEM.monotonic() - since >= holding.WATCH_SECONDS:
                return
