"""The worker: one beat after another.

A beat takes in what is new, claims what it has threads for, archives what ended
and writes the pulse, all in one commit. Tests call ``step``; ``run`` only repeats
it, and signals only set flags.

Imports: pool, database, wakeup, execution, zasync.
"""

import logging
import os
import socket
import threading
import uuid

import transaction
from transaction.interfaces import TransientError
from ZEO.Exceptions import ClientDisconnected

from Products.zasync import policy

from . import __version__
from . import zope
from .database import unit_of_work
from .errors import DeskLost
from .errors import TargetAway
from .errors import TargetTaken
from .errors import WorkerError
from .execution import Claim
from .execution import End
from .execution import ENDED
from .execution import Execution
from .execution import GIVE_BACK
from .pool import Pool


log = logging.getLogger('zasync')

#: A heartbeat at least this often, in seconds: 1.2 MB a day in an idle database.
#: Must stay well below the dispatcher's max_idle_time.
BEAT_SECONDS = 10.0

#: Ended calls wait this long for a beat that has more to do, in seconds; their
#: results are to be seen at once, only the archive waits.
SWEEP_SECONDS = 1.0
#: And no more than so many.
SWEEP_MOST = 200

#: The desk is compared with the pool this often, in seconds: what nobody runs
#: (after an undo, a restored backup) is given out again.
RECONCILE_SECONDS = 60.0


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
        self._draining = False
        self._beat = 0
        self._beat_at = self._reconciled_at = float('-inf')
        self._pace = _Pace()
        self._next_due = None
        self._poll_seconds = BEAT_SECONDS
        self._pool = Pool(config.threads, self._make_runner, self._on_end,
                          wakeup.notify_own, database.close)

    # the life of a worker

    def run(self):
        """Serve the manager until `stopping` is set; then drain."""
        self.register()
        self._pool.start()
        while not self.stopping.is_set():
            self.step(self._clock.now())
            self._wakeup.wait(self._seconds_to_sleep(self._clock.now()))
        self.drain()

    def register(self):
        """Take the desk, and give out again what a previous life had not finished.

        Raises TargetTaken if another worker lives, BadTarget, GaveUp.
        """
        def look():
            with unit_of_work('zasync look at the target') as work:
                queue = self._database.manager().queue
                facts = (queue.desk.boot, queue.card.host, queue.card.pid, queue.pulse._p_serial)
                work.abandon()
            return facts

        where = '/'.join(self._config.target)
        facts = zope.patiently(look, f'the target {where}', self._config, self._clock,
                               self.stopping)
        if facts[0] is not None and self._lives(facts, look):
            raise TargetTaken(f'{where} is served by another worker already: process {facts[2]} '
                              f'on {facts[1]}')
        zope.patiently(self._take_desk, f'the target {where}', self._config, self._clock,
                       self.stopping)
        with unit_of_work('zasync look at the target') as work:
            self._wakeup.watch(self._database.watched())
            work.abandon()
        log.info('worker %s serves %s with %d threads', self.boot, where, self._config.threads)

    def _lives(self, facts, look):
        """Whether the worker that holds the desk is alive.

        A process of this host that is gone is dead. Anyone else is watched: it
        lives if its pulse changes within one and a half beats.
        """
        _, host, pid, serial = facts
        if host == socket.gethostname() and not _process_exists(pid):
            return False
        log.info('the target is held by process %s on %s: watching whether it lives', pid, host)
        until = self._clock.monotonic() + 1.5 * BEAT_SECONDS
        while self._clock.monotonic() < until and not self.stopping.is_set():
            self._clock.wait(self.stopping, 0.5)
            if look()[3] != serial:
                return True
        return False

    def _take_desk(self):
        for _ in range(self._config.max_conflict_attempts):
            try:
                with unit_of_work('zasync worker starts'):
                    manager = self._database.manager()
                    queue, now = manager.queue, self._clock.now()
                    queue.desk.boot = self.boot
                    queue.card.write(
                        self.boot, socket.gethostname(), os.getpid(), __version__,
                        {name: plugin.description
                         for name, plugin in self._config.plugins.items()}, now)
                    self._reconcile(manager, now, set(), 'interrupted')
                    self._write_pulse(queue, now)
                return
            except ClientDisconnected:
                raise
            except TransientError:
                continue
        raise TargetAway('its desk changes all the time')

    def drain(self):
        """Claim nothing more, let what runs end, and leave the desk."""
        self._draining = True
        until = self._clock.monotonic() + self._config.drain_seconds
        self._return_unbegun()
        self._pool.stop()
        log.info('stopping; %d calls still run', len(self._pool.held()))
        while True:
            self.step(self._clock.now(), hurry=True)
            if not self._pool.held() or self._clock.monotonic() >= until:
                break
            self._wakeup.wait(1.0)
        left = self._pool.held()
        if left:
            log.warning('%d calls had not ended after %.0f s; they run again at the next start: '
                        '%s', len(left), self._config.drain_seconds, ', '.join(sorted(left)))
        self._leave_desk()
        log.info('stopped')

    def _leave_desk(self):
        try:
            self.step(self._clock.now(), hurry=True)
            with unit_of_work('zasync worker stops'):
                queue = self._database.manager().queue
                if queue.desk.boot == self.boot:
                    queue.desk.boot = None
        except (TransientError, WorkerError) as reason:
            # The next start finds a desk of a dead process: a little slower, no loss.
            log.warning('could not sign off: %s', reason)

    def _return_unbegun(self):
        now = self._clock.now()
        for claim in self._pool.take_back():
            self._ends.append(End(claim, GIVE_BACK, now, 0.0, now, 'not begun'))

    # the beat

    def step(self, now, hurry=False):
        """One beat; → whether it had anything to commit.

        now -- POSIX seconds. hurry -- archive and beat even if that could wait.
        Raises DeskLost when another worker took the target.
        """
        self._wakeup.start_looking()
        with self._lock:
            ends = list(self._ends)
        try:
            with unit_of_work('zasync beat') as work:
                manager = self._database.manager()
                claims = self._beat_in(manager, now, ends, hurry)
                if claims is None:
                    work.abandon()
        except ClientDisconnected:
            self._wait_for_server()
            return False
        except TargetAway as reason:
            log.warning('the target is away: %s', reason)
            self._clock.wait(self.stopping, self._config.initial_retry_seconds)
            return False
        except TransientError as reason:
            log.info('a beat met a conflict and is repeated: %s', type(reason).__name__)
            self._wakeup.notify_own()
            return False
        if claims is None:
            return False
        with self._lock:
            del self._ends[:len(ends)]
        for claim in claims:
            log.info('call %s accepted (attempt %d)', claim.id, claim.attempt)
            self._pool.submit(claim)
        return True

    def _beat_in(self, manager, now, ends, hurry):
        """The body of a beat's transaction; → list of Claims, or None if there was nothing."""
        queue = manager.queue
        if queue.desk.boot != self.boot:
            raise DeskLost(f'another worker serves {"/".join(self._config.target)} now: process '
                           f'{queue.card.pid} on {queue.card.host}')
        self._poll_seconds = manager.poll_interval
        slots = self._free_slots()
        if not (self._has_work(queue, now, slots) or self._must_sweep(ends, now, hurry)
                or self._must_beat(queue, now)):
            self._next_due = queue.next_due()
            return None
        self._file(queue, ends, manager.rotation_period, now)
        if now - self._reconciled_at >= RECONCILE_SECONDS:
            self._reconcile(manager, now, self._pool.held() | {end.claim.id for end in ends},
                            'nobody ran it')
        queue.drop_old(now, manager.rotation_period)
        claims = []
        if not self._draining:
            claims = [Claim(deferred.id, deferred._p_jar.db().database_name, deferred._p_oid,
                            deferred.attempt)
                      for deferred in queue.take_in_and_claim(self.boot, now, slots)]
        self._next_due = queue.next_due()
        self._write_pulse(queue, now)
        return claims

    def _free_slots(self):
        if self._draining:
            return 0
        ahead = policy.claim_ahead(self._pace.seconds_a_call, self._config.threads)
        return max(0, self._config.threads + ahead - len(self._pool.held()))

    def _has_work(self, queue, now, slots):
        return not self._draining and queue.has_work(now, slots)

    def _must_sweep(self, ends, now, hurry):
        if not ends:
            return False
        return (hurry or len(ends) >= SWEEP_MOST or now - ends[0].at >= SWEEP_SECONDS
                or any(end.how == GIVE_BACK for end in ends))

    def _must_beat(self, queue, now):
        ping = queue.ping.asked_at
        return (now - self._beat_at >= BEAT_SECONDS
                or (ping is not None and ping > queue.pulse.pong_at)
                or (self._draining and queue.pulse.accepting))

    def _file(self, queue, ends, rotation_period, now):
        """Archive what ended, put back what could not run."""
        for end in ends:
            deferred = queue.desk.running.get(end.claim.id)
            if deferred is None:
                continue
            if end.how == ENDED:
                queue.archive_ended(end.claim.id, end.at, rotation_period)
            elif deferred.ended:  # lost to whoever ended it
                queue.archive_ended(end.claim.id, deferred.ended_at, rotation_period)
            elif deferred.is_owned_by(self.boot, end.claim.attempt):
                queue.give_back(end.claim.id, now, end.why or end.how, end.until)
                if end.how == GIVE_BACK:
                    log.info('call %s given back (%s)', end.claim.id, end.why)

    def _reconcile(self, manager, now, held, outcome):
        """Give out again the calls on the desk that nobody runs."""
        queue = manager.queue
        for id, deferred in list(queue.desk.running.items()):
            if id in held:
                continue
            if deferred.ended:
                queue.archive_ended(id, deferred.ended_at, manager.rotation_period)
            else:
                queue.give_back(id, now, outcome)
                log.info('call %s is taken up again (%s)', id, outcome)
        self._reconciled_at = now

    def _write_pulse(self, queue, now):
        self._beat += 1
        self._beat_at = now
        ping, pong = queue.ping.asked_at, queue.pulse.pong_at
        if ping is not None and ping > pong:
            pong = max(now, ping)
        queue.pulse.write(
            new=queue.length_new(), accepted=len(queue.desk.running),
            rate=round(self._pace.calls_a_second(now), 2), beat=self._beat,
            accepting=int(not self._draining), pong_at=pong)

    # what wakes it, and for how long it sleeps

    def _on_end(self, end):
        with self._lock:
            self._ends.append(end)
            self._pace.note(end.seconds, end.at)

    def _make_runner(self):
        return Execution(self._database, self._config, self.boot, self._clock, self.stopping,
                         self._wakeup.notify_own)

    def _seconds_to_sleep(self, now):
        waits = [self._poll_seconds, self._beat_at + BEAT_SECONDS - now]
        with self._lock:
            if self._ends:
                waits.append(self._ends[0].at + SWEEP_SECONDS - now)
        if self._next_due is not None:
            waits.append(self._next_due - now)
        return max(0.0, min(waits))

    def _wait_for_server(self):
        def ask():
            transaction.begin()
            try:
                self._database.manager()
            finally:
                transaction.abort()

        zope.patiently(ask, 'the database server', self._config, self._clock, self.stopping)
        # The outcome of a claim that was under way is unknown: compare soon.
        self._reconciled_at = float('-inf')


class _Pace:
    """How fast calls end, smoothed: seconds a call, calls a second."""

    #: Weight of the newest call.
    WEIGHT = 0.1

    def __init__(self):
        self.seconds_a_call = None
        self._ended = 0
        self._since = None
        self._rate = 0.0

    def note(self, seconds, at):
        """A call ended at `at` after so many seconds."""
        old = seconds if self.seconds_a_call is None else self.seconds_a_call
        self.seconds_a_call = old + self.WEIGHT * (seconds - old)
        self._ended += 1
        if self._since is None:
            self._since = at

    def calls_a_second(self, now):
        """Calls ended a second, over the last ten seconds or so."""
        if self._since is not None and now - self._since >= BEAT_SECONDS:
            self._rate = self._ended / (now - self._since)
            self._ended, self._since = 0, now
        return self._rate


def _process_exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
