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
from typing import NamedTuple

from transaction.interfaces import TransientError
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import POSError

from Products.zasync import policy

from . import __version__
from . import zope
from .database import is_storage_trouble
from .database import unit_of_work
from .errors import DeskLost
from .errors import GaveUp
from .errors import PoolBroken
from .errors import TargetAway
from .errors import TargetTaken
from .errors import WorkerError
from .execution import Claim
from .execution import End
from .execution import ENDED
from .execution import Execution
from .execution import GIVE_BACK
from .execution import LOST
from .execution import UNBEGUN
from .pool import Pool


log = logging.getLogger('zasync')

#: A heartbeat at least this often, in seconds: 1.2 MB a day in an idle database.
#: Must stay well below the dispatcher's max_idle_time.
BEAT_SECONDS = 10.0

#: A start watches the pulse of another holder of the desk for this long, in seconds:
#: two and a half beats, so that a slow commit does not make it look dead.
WATCH_SECONDS = 25.0

#: Ended calls wait for a beat that has more to do, at most this long, in seconds: their
#: results are to be seen at once, only the archive waits.
SWEEP_SECONDS = BEAT_SECONDS
#: When so many have ended they do not wait; the desk, written at each claim, names them.
SWEEP_AT = 20

#: Claims that no thread has begun after so many seconds go back to the queue: a call
#: before them takes longer than calls took of late.
UNBEGUN_SECONDS = 0.5

#: The desk is compared with the pool this often, in seconds: what nobody runs
#: (after an undo, a restored backup) is given out again.
RECONCILE_SECONDS = 60.0


class _DeskFree(Exception):
    """Nobody holds the desk that this worker took."""


class Holder(NamedTuple):
    """Who holds a desk. boot -- None for nobody. pulse -- something that changes at each beat."""

    boot: str | None
    host: str
    place: str
    pid: int
    pulse: tuple


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
        self._beat_at = self._reconciled_at = float('-inf')
        self._pace = _Pace()
        self._next_due = None
        self._poll_seconds = BEAT_SECONDS
        self._pool = Pool(config.threads, self._make_runner, self._on_end,
                          wakeup.notify_own, database.close, clock)

    # the life of a worker

    def run(self):
        """Serve the manager until `stopping` is set; then drain."""
        self.register()
        self._pool.start()
        while not self.stopping.is_set():
            if not self.step(self._clock.now()):
                self._wakeup.wait(self._seconds_to_sleep(self._clock.now()))
        self.drain()

    def register(self):
        """Take the desk, and give out again what a previous life had not finished.

        Raises TargetTaken if another worker lives, BadTarget, GaveUp.
        """
        path = '/'.join(self._config.target)
        where = f'the target {path}'
        holder = self._patiently(self._look, where)
        if holder.boot is not None and self._lives(holder, where):
            raise TargetTaken(f'{where} is served by another worker already: process '
                              f'{holder.pid} on {holder.host}')
        self._patiently(lambda: self._take_desk(holder.boot, where), where)
        log.info('worker %s serves %s with %d threads', self.boot, path, self._config.threads)

    def _patiently(self, action, what):
        return zope.patiently(action, what, self._config, self._clock, self.stopping)

    def _look(self):
        """Who holds the desk, as a Holder."""
        with unit_of_work('zasync looks at the target') as work:
            queue = self._database.manager().queue
            card = queue.card
            found = Holder(queue.desk.boot, card.host, card.place, card.pid,
                           (queue.pulse.beat, queue.desk.boot))
            work.abandon()
        return found

    def _lives(self, holder, where):
        """Whether the worker that holds the desk is alive.

        A process of this machine that is gone is dead. Anyone else is watched: it
        lives if its pulse changes within WATCH_SECONDS. A wrong "dead" costs the other
        its target, never a call: see the fence.
        Raises GaveUp when `stopping` is set meanwhile.
        """
        if holder.place == _place() and not _process_exists(holder.pid):
            return False
        log.info('%s is held by process %s on %s: watching whether it lives', where, holder.pid,
                 holder.host)
        until = self._clock.monotonic() + WATCH_SECONDS
        while self._clock.monotonic() < until:
            if self._clock.wait(self.stopping, 0.5):
                raise GaveUp(f'stopped while watching who holds {where}')
            found = self._patiently(self._look, where)
            if found.boot is None:  # it signed off
                return False
            if found.pulse != holder.pulse:
                return True
        return False

    def _take_desk(self, expected, where):
        """Become the holder of the desk, if it is still held by the boot `expected`."""
        with unit_of_work('zasync worker starts'):
            manager = self._database.manager()
            queue, now = manager.queue, self._clock.now()
            if queue.desk.boot not in (None, expected, self.boot):
                raise TargetTaken(f'{where} has been taken by another worker just now: process '
                                  f'{queue.card.pid} on {queue.card.host}')
            queue.desk.boot = self.boot
            queue.card.write(
                self.boot, socket.gethostname(), os.getpid(), __version__,
                {name: plugin.description for name, plugin in self._config.plugins.items()}, now,
                _place())
            self._reconcile(manager, now, set(), 'interrupted')
            self._write_pulse(queue, 0)
            self._wakeup.watch(self._database.watched())
        self._note_beat(True)

    def drain(self):
        """Claim nothing more, let what runs end, and leave the desk."""
        self._draining = True
        until = self._clock.monotonic() + self._config.drain_seconds
        self._pool.stop()
        log.info('stopping; %d calls still run', len(self._pool.held()))
        while True:
            if self._database.is_connected():
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
                done = self._beat_in(manager, now, ends, held, hurry)
                if done is None:
                    work.abandon()
        except ClientDisconnected:
            # The outcome of a claim that was under way is unknown: compare soon.
            self._reconciled_at = float('-inf')
            if not self._draining:
                self._patiently(self._database.reach, 'the database server')
            return False
        except _DeskFree:
            if not self._draining:
                log.warning('nobody holds the desk any more: the manager was made anew, it may '
                            'be, or the start of this worker was undone')
                self.register()
            return False
        except TargetAway:
            if self._draining:
                return False
            self._patiently(self._look, f"the target {'/'.join(self._config.target)}")
            return False
        except TransientError as reason:
            log.info('a beat met a conflict and is repeated: %s', type(reason).__name__)
            self._wakeup.notify_own()
            return False
        except Exception as reason:
            if not is_storage_trouble(reason):
                raise
            log.error('the storage takes no beat: %s', reason)
            self._reconciled_at = float('-inf')
            self._clock.wait(self.stopping, self._config.initial_retry_seconds)
            return False
        if done is None:
            return False
        claims, filed = done
        self._note_beat(self._must_reconcile())
        if filed:
            with self._lock:
                del self._ends[:len(ends)]
        for claim in claims:
            log.info('call %s accepted (attempt %d)', claim.id, claim.attempt)
            self._pool.submit(claim)
        return True

    def _beat_in(self, manager, now, ends, held, hurry):
        """The body of a beat's transaction; → None if there was nothing to do.

        Else (list of Claims, whether the ended calls were filed). Filing waits: a claim
        should write as little as it can.
        """
        queue = manager.queue
        if queue.desk.boot is None:
            raise _DeskFree
        if queue.desk.boot != self.boot:
            raise DeskLost(f'another worker serves {"/".join(self._config.target)} now: process '
                           f'{queue.card.pid} on {queue.card.host}')
        self._poll_seconds = manager.poll_interval
        slots = self._free_slots(held)
        self._next_due = queue.next_due() if slots else None
        if not (self._has_work(queue, now, slots) or self._must_sweep(ends, hurry)
                or self._must_beat(queue)):
            return None
        filing = self._must_sweep(ends, hurry)
        if filing:
            self._file(queue, ends, manager.rotation_period, now)
        if self._must_reconcile():
            self._reconcile(manager, now, held | {end.claim.id for end in ends}, 'nobody ran it')
        queue.drop_old(now, manager.rotation_period)
        claims = []
        if not self._draining:
            claims = [Claim(deferred.id, deferred._p_jar.db().database_name, deferred._p_oid,
                            deferred.attempt)
                      for deferred in queue.take_in_and_claim(self.boot, now, slots)]
        self._next_due = queue.next_due() if slots > len(claims) else None
        self._write_pulse(queue, 0 if filing else len(ends))
        return claims, filing

    def _free_slots(self, held):
        if self._draining:
            return 0
        ahead = policy.claim_ahead(self._pace.seconds_a_call, self._config.threads)
        return max(0, self._config.threads + ahead - len(held))

    def _take_back_unbegun(self, now):
        """Have claims that wait behind a long call, or for a worker that stops, given back."""
        oldest = self._pool.oldest_waiting()
        if oldest is None or not (self._draining
                                  or self._clock.monotonic() - oldest >= UNBEGUN_SECONDS):
            return
        with self._lock:
            self._pace.forget()
            self._ends.extend(End(claim, UNBEGUN, now, self._clock.monotonic(), 0.0, now)
                              for claim in self._pool.take_back())

    def _has_work(self, queue, now, slots):
        return not self._draining and queue.has_work(now, slots)

    def _must_sweep(self, ends, hurry):
        return bool(ends) and (
            hurry or len(ends) >= SWEEP_AT
            or self._clock.monotonic() - ends[0].monotonic >= SWEEP_SECONDS
            or any(end.how in (GIVE_BACK, UNBEGUN, LOST) for end in ends))

    def _must_beat(self, queue):
        return (self._clock.monotonic() - self._beat_at >= BEAT_SECONDS
                or self._must_reconcile() or _is_unanswered(queue)
                or (self._draining and queue.pulse.accepting))

    def _must_reconcile(self):
        return self._clock.monotonic() - self._reconciled_at >= RECONCILE_SECONDS

    def _file(self, queue, ends, rotation_period, now):
        """Archive what ended, put back what could not run."""
        for end in ends:
            id = end.claim.id
            deferred = queue.desk.running.get(id)
            if deferred is None:
                continue
            if deferred.ended:
                queue.archive_ended(id, deferred.ended_at, rotation_period)
            elif end.how == ENDED:  # and its end was undone since
                queue.give_back(id, now, 'undone')
            elif deferred.is_owned_by(self.boot, end.claim.attempt):
                if end.how == UNBEGUN:
                    queue.unclaim(id, now)
                else:
                    queue.give_back(id, now, end.why or end.how, end.until)
                log.info('call %s goes back to the queue (%s)', id, end.why or end.how)

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

    def _write_pulse(self, queue, unfiled):
        pulse, asked = queue.pulse, queue.ping.asked_at
        pong = pulse.pong_at
        if _is_unanswered(queue):
            pong = self._clock.now()
        pulse.write(
            new=queue.length_new(), accepted=max(0, len(queue.desk.running) - unfiled),
            rate=round(self._pace.calls_a_second(self._clock.monotonic()), 2),
            beat=pulse.beat + 1, accepting=int(not self._draining), pong_at=pong,
            answered=asked or 0)

    def _note_beat(self, reconciled):
        """A beat is in the database now."""
        self._beat_at = self._clock.monotonic()
        if reconciled:
            self._reconciled_at = self._beat_at

    # what wakes it, and for how long it sleeps

    def _on_end(self, end):
        with self._lock:
            self._ends.append(end)
            self._pace.note(end.seconds, end.monotonic)

    def _make_runner(self):
        return Execution(self._database, self._config, self.boot, self._clock, self.stopping,
                         self._wakeup.notify_own)

    def _seconds_to_sleep(self, now):
        """How long nothing has to be done unless somebody wakes us."""
        monotonic = self._clock.monotonic()
        waits = [self._poll_seconds, self._beat_at + BEAT_SECONDS - monotonic]
        with self._lock:
            if self._ends:
                waits.append(self._ends[0].monotonic + SWEEP_SECONDS - monotonic)
        oldest = self._pool.oldest_waiting()
        if oldest is not None:
            waits.append(oldest + UNBEGUN_SECONDS - monotonic)
        if self._next_due is not None:
            waits.append(self._next_due - now)
        return max(0.0, min(waits))


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
        """A call ended at `at` (monotonic seconds) after so many seconds."""
        old = seconds if self.seconds_a_call is None else self.seconds_a_call
        self.seconds_a_call = old + self.WEIGHT * (seconds - old)
        self._ended += 1
        if self._since is None:
            self._since = at

    def forget(self):
        """Calls are not as short as they were: claim no more than there are threads for."""
        self.seconds_a_call = None

    def calls_a_second(self, now):
        """Calls ended a second, over the last ten seconds or so; now -- monotonic seconds."""
        if self._since is not None and now - self._since >= BEAT_SECONDS:
            self._rate = self._ended / (now - self._since)
            self._ended, self._since = 0, now
        return self._rate


def _is_unanswered(queue):
    """Whether somebody pinged since the last answer; no two clocks are compared."""
    asked = queue.ping.asked_at
    return asked is not None and asked != queue.pulse.answered


def _process_exists(pid):
    """Whether another process of that id runs here; ours is not the one that held the desk."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _place():
    """Where a process id means something: this boot of this machine, this pid namespace."""
    try:
        with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: the host's name has to do
        return socket.gethostname()
