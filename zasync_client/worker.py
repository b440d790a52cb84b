"""The worker: one beat after another.

Tests call ``step``, which makes one beat; ``run`` only repeats it, and signals only set
flags. What a beat does is `beat`.

Imports: pool, beat, holding, runs, pace, database, wakeup, execution, zasync.
"""

import logging
import threading
import uuid

from transaction.interfaces import TransientError
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import POSError

from . import __version__
from . import holding
from . import zope
from .beat import Beat
from .beat import BEAT_SECONDS
from .beat import DeskFree
from .beat import Done
from .beat import SWEEP_SECONDS
from .claims import End
from .claims import UNBEGUN
from .database import is_storage_trouble
from .database import unit_of_work
from .errors import PoolBroken
from .errors import TargetAway
from .errors import WorkerError
from .execution import Execution
from .pace import Pace
from .pool import Pool
from .runs import Runs


log = logging.getLogger('zasync')

#: Claims that no thread has begun after so many seconds go back to the queue: a call
#: before them takes longer than calls took of late.
UNBEGUN_SECONDS = 0.5


class Worker:
    """Serves one manager. See the module for its one method, ``step``."""

    def __init__(self, config, database, wakeup, clock, stopping, boot=None):
        self.boot = boot or uuid.uuid4().hex[:12]
        self.stopping = stopping
        self._config = config
        self._database = database
        self._wakeup = wakeup
        self._clock = clock
        self._lock = threading.Lock()
        self._ends = []
        self._pace = Pace()
        self._runs = Runs(clock, wakeup.notify_own, BEAT_SECONDS)
        self._beat = Beat(self.boot, config, clock, self._pace, self._runs)
        self._pool = Pool(config.threads, self._make_runner, self._on_end,
                          wakeup.notify_own, database.close, clock)

    # the life of a worker

    def run(self, serving=None):
        """Serve the manager until `stopping` is set; then drain.

        serving -- callable(), called once the target is taken.
        """
        self.register()
        self._pool.start()
        if serving is not None:
            serving()
        while not self.stopping.is_set():
            if not self.step(self._clock.now()):
                self._wakeup.wait(self._seconds_to_sleep(self._clock.now()))
        self.drain()

    def register(self):
        """Take the desk, and give out again what a previous life had not finished.

        Raises TargetTaken if another worker lives, BadTarget, GaveUp.
        """
        path = '/'.join(self._config.target)
        holder = holding.check_free(self._database, self._config, self._clock, self.stopping)
        self._patiently(lambda: self._take_desk(holder.boot), f'the target {path}')
        log.info('worker %s serves %s with %d threads', self.boot, path, self._config.threads)

    def _patiently(self, action, what):
        return zope.patiently(action, what, self._config, self._clock, self.stopping)

    def _take_desk(self, expected):
        """Become the holder of the desk, if it is still held by the boot `expected`."""
        with unit_of_work('zasync worker starts'):
            manager, now = self._database.manager(), self._clock.now()
            queue = manager.queue
            holding.sign_on(queue, self.boot, expected, self._config, __version__, now)
            self._beat.reconcile(manager, now, set(), 'interrupted')
            self._beat.write_pulse(queue, 0, manager.paused)
            self._wakeup.watch(self._database.watched())
        self._beat.note(Done((), False, (), {}, True))

    def drain(self):
        """Claim nothing more, let what runs end, and leave the desk."""
        self._beat.draining = True
        until = self._clock.monotonic() + self._config.drain_seconds
        self._pool.stop()
        log.info('stopping; %d calls still run', len(self._pool.held()))
        while True:
            if self._database.is_connected():
                self.step(self._clock.now(), hurry=True)
            if not self._pool.held() or self._clock.monotonic() >= until:
                break
            self._wakeup.wait(min(1.0, self._seconds_to_sleep(self._clock.now())))
        left = sorted({claim.id for claim in self._pool.held()})
        if left:
            log.warning('%d calls had not ended after %.0f s; they run again at the next start: '
                        '%s', len(left), self._config.drain_seconds, ', '.join(left))
        self._leave_desk()
        log.info('stopped')

    def _leave_desk(self):
        try:
            if not self._database.is_connected():
                raise TargetAway('the database server is away')
            self.step(self._clock.now(), hurry=True)
            with unit_of_work('zasync worker stops'):
                queue = self._database.manager().queue
                if queue.desk.boot == self.boot:
                    queue.desk.boot = None
        except (TransientError, WorkerError, POSError, OSError) as reason:
            # The next start finds a desk of a dead process: a little slower, no loss.
            log.warning('could not sign off: %s', reason)

    # the beat

    def step(self, now, hurry=False):
        """One beat; → whether it had anything to commit.

        now -- POSIX seconds. hurry -- archive and beat even if that could wait.
        Raises DeskLost when another worker took the target, PoolBroken when there are no
        threads that could run anything.
        """
        self._wakeup.start_looking()
        if self._pool.broken is not None:
            raise PoolBroken(f'the threads of the worker do not start: {self._pool.broken!r}')
        self._take_back_unbegun(now)
        # In this order: whoever is not held any more is among the ends.
        held = self._pool.held()
        with self._lock:
            ends = list(self._ends)
        try:
            with unit_of_work('zasync beat') as work:
                manager = self._database.manager()
                done = self._beat.in_transaction(manager, now, ends, held, hurry)
                if done is None:
                    work.abandon()
        except ClientDisconnected:
            self._beat.doubt()
            if not self._beat.draining:
                self._patiently(self._database.reach, 'the database server')
            return False
        except DeskFree:
            if not self._beat.draining:
                log.warning('nobody holds the desk any more: the manager was made anew, it may '
                            'be, or the start of this worker was undone')
                self.register()
            return False
        except TargetAway:
            if self._beat.draining:
                return False
            self._patiently(lambda: holding.look(self._database),
                            f"the target {'/'.join(self._config.target)}")
            return False
        except TransientError as reason:
            log.info('a beat met a conflict and is repeated: %s', type(reason).__name__)
            self._wakeup.notify_own()
            return False
        except Exception as reason:
            if not is_storage_trouble(reason):
                raise
            log.error('the storage takes no beat: %s', reason)
            self._beat.doubt()
            self._clock.wait(self.stopping, self._config.initial_retry_seconds)
            return False
        if done is None:
            return False
        self._beat.note(done)
        if done.filed:
            with self._lock:
                del self._ends[:len(ends)]
        for claim in done.claims:
            log.info('call %s accepted (attempt %d)', claim.id, claim.attempt)
            self._pool.submit(claim)
        return True

    def _take_back_unbegun(self, now):
        """Have claims that wait behind a long call, or for a worker that stops, given back."""
        oldest = self._pool.oldest_waiting()
        if oldest is None or not (self._beat.draining
                                  or self._clock.monotonic() - oldest >= UNBEGUN_SECONDS):
            return
        with self._lock:
            self._pace.forget()
            self._ends.extend(End(claim, UNBEGUN, now, self._clock.monotonic(), 0.0, now)
                              for claim in self._pool.take_back())

    # the threads, and how long it sleeps

    def _on_end(self, end):
        with self._lock:
            self._ends.append(end)
            self._pace.note(end.seconds, end.monotonic)

    def _make_runner(self):
        return Execution(self._database, self._config, self.boot, self._clock, self.stopping,
                         self._wakeup.notify_own, self._runs)

    def _seconds_to_sleep(self, now):
        """How long nothing has to be done unless somebody wakes us."""
        monotonic = self._clock.monotonic()
        waits = [self._beat.seconds_to_sleep(now)]
        with self._lock:
            if self._ends:
                waits.append(self._ends[0].monotonic + SWEEP_SECONDS - monotonic)
        oldest = self._pool.oldest_waiting()
        if oldest is not None:
            waits.append(oldest + UNBEGUN_SECONDS - monotonic)
        return max(0.0, min(waits))
