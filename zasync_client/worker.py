"""The worker: one beat after another.

Tests call ``step``, which makes one beat; ``run`` only repeats it, and signals only set
flags. What a beat does is `beat`; serving siblings is `guests`.

Imports: pool, beat, guests, service, siblings, holding, replacing, runs, pace, database, wakeup,
foresight, execution, work, fence, tally, zasync.
"""

import logging
import threading
import uuid

from transaction.interfaces import TransientError
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError
from ZODB.POSException import POSError

from Products.zasync import policy
from Products.zasync.wakeup import BUSY_LOOK_SECONDS
from Products.zasync.wakeup import LOOK_SECONDS

from . import __version__
from . import holding
from . import zope
from .beat import Beat
from .beat import BEAT_SECONDS
from .beat import DeskFree
from .beat import Done
from .beat import SWEEP_SECONDS
from .claims import ALONE
from .claims import End
from .claims import ENDED
from .claims import GIVE_BACK
from .claims import UNBEGUN
from .database import AWAY_SECONDS
from .database import is_storage_trouble
from .database import unit_of_work
from .errors import DeskLost
from .errors import GaveUp
from .errors import PoolBroken
from .errors import TargetAway
from .errors import WorkerError
from .execution import Execution
from .fence import Fence
from .foresight import Foresight
from .groupcommit import GroupCommit
from .guests import Guests
from .habits import Habits
from .pace import Pace
from .pool import Pool
from .replacing import Replacing
from .runs import Runs
from .service import Service
from .siblings import identity
from .siblings import Siblings
from .tally import Tally
from .work import tell_later
from .work import Work


log = logging.getLogger('zasync')

#: Tries to leave the desk: siblings that claim there may come in between.
LEAVE_ATTEMPTS = 5

#: After a beat that did something the threads that run calls have the processor for themselves,
#: for so long, in seconds: another look would mostly find nothing, and keep them from beginning.
GIVE_WAY_SECONDS = 0.002

#: Claims that no thread has begun after so many seconds go back to the queue: a call
#: before them takes longer than calls took of late. So do those that share a transaction with
#: such a call, or come after it.
UNBEGUN_SECONDS = 0.5

#: A beat that has taken in so many calls forgets what it has loaded: with a million waiting it
#: would keep much that it does not need again for long.
MANY_READY = 500


class Worker:
    """Serves one manager. See the module for its one method, ``step``.

    replacing -- whether it is to be replaced, and why. tally -- what it counts.
    """

    def __init__(self, config, database, wakeup, clock, stopping, boot=None):
        self.boot = boot or uuid.uuid4().hex[:12]
        self.stopping = stopping
        self._config = config
        self._database = database
        self._wakeup = wakeup
        self._clock = clock
        self._tell_lost = lambda is_lost: None
        self._lock = threading.Lock()
        self._pace = Pace()
        self._runs = Runs(clock, wakeup.notify_own, BEAT_SECONDS)
        self.replacing = Replacing(self.boot, config, clock, self._runs, wakeup.notify_own)
        self._habits = Habits(config.batch_seconds)
        self.tally = Tally()
        self._siblings = Siblings(clock)
        self._foresight = Foresight()
        self._beat = self._make_beat(config.target)
        self._own = Service(self._beat)
        #: The identity of the manager that was at the target last.
        self._at_target = None
        self._guests = Guests(database, clock, self.boot, config.threads, self._siblings,
                              self._make_beat)
        self._pool = Pool(config.threads, self._make_runner, self._on_end,
                          self._on_free, database.close, clock, config.batch_seconds)

    def _make_beat(self, target, *role):
        return Beat(self.boot, self._config, self._clock, self._pace, self._runs, self._habits,
                    self._siblings, target, *role)

    # the life of a worker

    def run(self, serving=None, lost=None):
        """Serve the manager until `stopping` is set or it is to be replaced; then drain.

        serving -- callable(), called once the target is taken. lost -- callable(bool), called
        when the target is gone, and when there is one again.
        """
        self._tell_lost = lost or self._tell_lost
        self.begin()
        try:
            if serving is not None:
                serving()
            while not self.stopping.is_set() and not self.replacing.is_wanted():
                try:
                    did = self.step(self._clock.now())
                except GaveUp:  # waiting for what is away
                    if not self.stopping.is_set():
                        raise
                    break
                if did:
                    self._wakeup.give_way(GIVE_WAY_SECONDS)
                else:
                    self._foresight.is_open = not self._pool.held()
                    self._wakeup.wait(self._seconds_to_sleep(self._clock.now()), self._apart())
            self.drain()
        finally:  # the process may go on without this worker
            self._pool.stop()

    def begin(self):
        """Take the desk and start the threads; raises what `register` raises."""
        self.register()
        self._pool.start()

    def held(self):
        """The Claims that wait or run here."""
        return self._pool.held()

    def join(self, seconds):
        """After the end: wait for the threads, so long at most; → whether all ended."""
        return self._pool.join(seconds)

    def register(self):
        """Take the desk, and give out again what a previous life had not finished.

        Raises TargetTaken if another worker lives, BadTarget, GaveUp.
        """
        path = '/'.join(self._config.target)
        holder = holding.check_free(self._database, self._config, self._clock, self.stopping)
        self._patiently(lambda: self._take_desk(holder.boot), f'the target {path}')
        log.info('worker %s serves %s with %d threads', self.boot, path, self._config.threads)

    def _patiently(self, action, what, known=None):
        return zope.patiently(action, what, self._config, self._clock, self.stopping, known)

    def _take_desk(self, expected):
        """Become the holder of the desk, if it is still held by the boot `expected`."""
        with unit_of_work('zasync worker starts'):
            manager, now = self._database.manager(), self._clock.now()
            queue = manager.queue
            holding.sign_on(queue, self.boot, expected, self._config, __version__, now)
            held = self._pool.held() | {end.claim for end in self._own.ends()}
            self._beat.reconcile(manager, now, held, policy.INTERRUPTED)
            self._beat.write_pulse(queue, 0, manager.paused)
            # crash point 31: the desk is not taken; it is as it was before the start.
            db = self._database.watched()
            self._foresight.watch(db)
            self._wakeup.watch(db, self._foresight.hear)
            taken = identity(manager)
        # crash point 32: the desk is taken, its calls are given out; nothing has run.
        self._own.identity = taken
        self._beat.note(Done((), False, (), {}, True))

    def drain(self):
        """Claim nothing more, let what runs end, and leave the desk."""
        self._beat.draining = True
        self._guests.drain()
        until = self._clock.monotonic() + self._config.drain_seconds
        self._pool.stop()
        log.info('stopping; %d calls still run', len(self._still_run()))
        while True:
            seconds = AWAY_SECONDS
            if self._database.is_connected():
                self.step(self._clock.now(), hurry=True)
                seconds = min(1.0, self._seconds_to_sleep(self._clock.now()))
            if not self._still_run() or self._clock.monotonic() >= until:
                break
            self._wakeup.wait(seconds)
        left = sorted({claim.id for claim in self._still_run()
                       if not self._runs.is_stopped(claim)})
        if left:
            log.warning('%d calls had not ended after %.0f s; they run again, if they may: %s',
                        len(left), self._config.drain_seconds, ', '.join(left))
        self._leave_desk()
        # crash point 34: the desk is left; all is as after any stop.
        log.info('stopped')

    def _still_run(self):
        """The claims whose ends are worth waiting for."""
        return self._pool.held() - self.replacing.hung()

    def _leave_desk(self):
        for _ in range(LEAVE_ATTEMPTS):
            try:
                if not self._database.is_connected():
                    raise TargetAway('the database server is away')
                self.step(self._clock.now(), hurry=True)
                self._sign_off()
                return
            except (TransientError, WorkerError, POSError, OSError) as reason:
                trouble = reason
                if not isinstance(reason, ConflictError):
                    break
        # The next start finds a desk of a dead process: a little slower, no loss.
        log.warning('could not sign off: %s', trouble)

    def _sign_off(self):
        held, services = self._pool.held(), [self._own, *self._guests.services()]
        # In this order: whoever is not held any more is among the ends.
        held |= {end.claim for service in services for end in service.ends()}
        with unit_of_work('zasync worker stops'):
            holding.cut_off(self._manager_of, services, self._clock.now(), held,
                            self.replacing.outcome())
            holding.sign_off(self._database.manager().queue, self.boot)
            # crash point 33: the desk is not left; the next life sees that its holder is dead.
            self._guests.leave()

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
        if not self._database.is_connected():
            # Whatever is asked for would wait for it as long as the storage's own time-out.
            self._await_server(ClientDisconnected('no connection to the server'))
        did = self._step(self._own, now, hurry)
        for service in self._guests.to_serve(self._pool.held()):
            did = self._step_as_guest(service, now, hurry) or did
        return did

    def _step(self, service, now, hurry):
        """One beat at our own desk, with what is to be done when it can't be made."""
        try:
            return self._beat_at(service, now, hurry)
        except ClientDisconnected as reason:
            self._await_server(reason)
        except DeskFree:
            if not self._beat.draining:
                log.warning('nobody holds the desk any more: the manager was made anew, it may '
                            'be, or the start of this worker was undone')
                self._register_again()
        except DeskLost as reason:
            if not reason.to_guest:
                raise
            if not self._beat.draining:
                log.warning('this worker was taken for dead, and its calls were given to a '
                            'sibling; it takes its desk back')
                self._register_again()
        except TargetAway:
            if not self._beat.draining:
                self._await_target()
        except TransientError as reason:
            self.tally.note_conflict()
            log.info('a beat met a conflict and is repeated: %s', type(reason).__name__)
            self._wakeup.notify_own()
        except Exception as reason:
            if not is_storage_trouble(reason):
                raise
            log.error('the storage takes no beat: %s', reason)
            self._beat.doubt()
            self._clock.wait(self.stopping, self._config.initial_retry_seconds)
        return False

    def _register_again(self):
        """Take the desk of the target once more; or have a next life do so at another manager.

        What we have claimed at the one that was there, and can't give back any more, all others
        take for run as long as this life lasts.
        """
        held = any(claim.target == self._own.target for claim in self._pool.held())
        held = held or any(end.how != ENDED for end in self._own.ends())
        if held and self._at_target != self._own.identity:
            self.replacing.want('another manager is at its target', policy.WORKER_REPLACED,
                                at_once=True)
        else:
            self.register()

    def _await_target(self):
        """Wait until there is something at the path of the target again."""
        self._tell_lost(True)
        self._patiently(lambda: holding.look(self._database),
                        f"the target {'/'.join(self._config.target)}")
        self._tell_lost(False)

    def _await_server(self, reason):
        """Wait until the server of the database is back; a moment only, if the worker drains."""
        self._beat.doubt()
        self.tally.note_disconnect()
        if self._beat.draining:
            self._clock.wait(threading.Event(), AWAY_SECONDS)
        else:
            self._patiently(lambda: self._database.reach(self._clock, self.stopping),
                            'the database server', reason)

    def _step_as_guest(self, service, now, hurry):
        """One beat at a sibling's desk. What can't be done there now is done later, or by others.
        """
        try:
            return self._beat_at(service, now, hurry)
        except (DeskFree, DeskLost, TargetAway) as reason:
            self._guests.lost(service, reason)
        except (TransientError, WorkerError, POSError, OSError) as reason:
            # Ours is served all the same; a server that is away our own beat will notice.
            log.info('a beat at %s is repeated: %s', '/'.join(service.place),
                     type(reason).__name__)
            service.beat.doubt()
        return False

    def _beat_at(self, service, now, hurry):
        """One beat at one desk; → whether it had anything to commit."""
        # In this order: whoever is not held any more is among the ends.
        held = self._pool.held()
        here = {claim for claim in held if claim.target == service.target}
        ends = service.ends()
        with unit_of_work('zasync beat') as work:
            manager = self._manager_of(service)
            if service is self._own:
                self._at_target = identity(manager)
            done = service.beat.in_transaction(manager, now, ends, here, len(held), hurry)
            if done is None:
                work.abandon()
            elif service is self._own:
                self._foresight.learn(manager.queue, [claim.id for claim in done.claims])
        if done is None:
            return False
        service.beat.note(done)
        if service is self._own:
            self._siblings.note_own_beat()
        if done.filed:
            # crash point 22: all is filed; nothing is lost.
            service.filed(len(ends))
        for claim in done.claims:
            # crash point 9: the claim is committed and nothing has run; the attempt is lost.
            if claim.reserved:
                log.info('call %s reserved', claim.id)
            else:
                log.info('call %s accepted (attempt %d)', claim.id, claim.attempt)
        self._pool.submit(done.claims)
        if done.more_ready >= MANY_READY:
            self._database.forget_loaded()
        return True

    def _manager_of(self, service):
        return (self._database.manager() if service is self._own
                else self._guests.manager_of(service))

    def _take_back_unbegun(self, now):
        """Have claims that wait behind a long call, or for a worker that stops, given back."""
        oldest = self._pool.oldest_waiting()
        monotonic = self._clock.monotonic()
        if oldest is None or not (self._beat.draining or monotonic - oldest >= UNBEGUN_SECONDS):
            return
        with self._lock:
            self._pace.forget()
            for claim in self._pool.take_back():
                self._service_of(claim).add([End(claim, UNBEGUN, now, monotonic, 0.0, now)])
            for claim, later in self._pool.take_back_aside(monotonic - UNBEGUN_SECONDS):
                # What it did is not committed, and never will be. That it failed counts.
                end = End(claim, GIVE_BACK, now, monotonic, 0.0, now,
                          'a call beside it takes long')
                if later is not None:
                    tell_later(claim.id, later)
                    end = end._replace(until=now + later.delay, why=later.why, failed=True)
                self._service_of(claim).add([end])

    def _service_of(self, claim):
        return self._own if claim.target == self._own.target else self._guests.get(claim.target)

    # the threads, and how long it sleeps

    def _on_end(self, end):
        self._database.forget_deferred(end.claim.database_name, end.claim.oid)
        self.tally.note_end(end)
        with self._lock:
            self._service_of(end.claim).add([end])
            if end.how != ALONE:
                self._pace.note(end.seconds, end.monotonic, end.shared_seconds)

    def _on_free(self):
        """A thread has done with a call. That is urgent where the beat may claim more."""
        if self._has_room():
            self._wakeup.notify_own()
        else:
            self._wakeup.notify()

    def _make_runner(self):
        wake = self._wakeup.notify_own
        work = Work(self._database, self._config, self.boot, self._clock, self._runs, self.tally)
        fence = Fence(wake)
        execution = Execution(work, fence, self._config, self.boot, self._clock, self.stopping,
                              wake, self._runs)
        return GroupCommit(execution, work, fence, self._config, self._database, self._clock,
                           self._runs, self._habits)

    def _apart(self):
        """Seconds between two looks at what others have committed: a look is not free."""
        return LOOK_SECONDS if self._has_room() else BUSY_LOOK_SECONDS

    def _has_room(self):
        return self._beat.has_room(len(self._pool.held()))

    def _seconds_to_sleep(self, now):
        """How long nothing has to be done unless somebody wakes us."""
        monotonic = self._clock.monotonic()
        waits = [self._guests.seconds_to_sleep()]
        here = [service for service in self._guests.services() if not service.is_away]
        for service in (self._own, *here):
            waits.append(service.beat.seconds_to_sleep(now))
            ends = service.ends()
            if ends:
                waits.append(ends[0].monotonic + SWEEP_SECONDS - monotonic)
        oldest = self._pool.oldest_waiting()
        if oldest is not None:
            waits.append(oldest + UNBEGUN_SECONDS - monotonic)
        return max(0.0, min(waits))
