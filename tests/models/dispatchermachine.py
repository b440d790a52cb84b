"""The machine that holds a dispatcher, its managers and their workers against a model.

The model: who lives and takes calls, how loaded each manager is as far as callers know, and which
calls were committed to which manager.

Imports: steps, clockwork, zasync, zasyncdispatcher, zasync_client.
"""

import datetime
from dataclasses import dataclass
from dataclasses import field

import transaction
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from hypothesis.stateful import invariant
from hypothesis.stateful import rule

from Products.zasync.errors import NoWorker
from Products.zasync.interfaces import CANCELLED
from Products.zasync.interfaces import FAILED
from Products.zasync.interfaces import NEW
from Products.zasync.interfaces import RESOLVED
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasyncdispatcher import leaving
from zasync_client.errors import DeskLost
from zasync_client.errors import WorkerError

from . import clockwork
from .clockwork import ClockedFarm
from .clockwork import JOBS
from .machine import Machine
from .steps import deed
from .steps import pick


PICK = st.integers(0, 9)
MODES = ('run', 'queue', 'refuse')
IDLE_SECONDS = 60.0
DEEDS = [
    *[deed('put', waits=st.booleans(), series=st.sampled_from([None, None, 's']),
           key=st.sampled_from([None, None, 'k']), delay=st.sampled_from([0, 0, 0, 20]),
           committed=st.sampled_from([True, True, True, False]))] * 5,
    *[deed('beat', number=PICK)] * 5, *[deed('rounds', number=PICK)] * 2,
    *[deed('let_go', number=PICK)] * 2, *[deed('long_silence', number=PICK)] * 2,
    deed('let_time_pass', seconds=st.sampled_from([1, 9, 30])),
    deed('serve', number=PICK), deed('freeze', number=PICK),
    deed('thaw', number=PICK), deed('stop', number=PICK), deed('pause', number=PICK),
    deed('cancel', number=PICK), deed('no_worker', mode=st.sampled_from(MODES)),
    deed('add_manager'), *[deed('leave', number=PICK)] * 2, deed('call_off')]


@dataclass
class Manager:
    """What callers and siblings may know of a manager, and its workers.

    calls -- of its last pulse. put -- how many this process has put since. accepting, beat_at
    -- of that pulse. worker -- the one that is stepped.
    """

    calls: int = 0
    put: int = 0
    beat: int = 0
    accepting: bool = False
    beat_at: float = 0.0
    paused: bool = False
    leaving: bool = False
    worker: object = None


@dataclass
class Put:
    """A committed call: its number, its deferred, and the manager it was said to be in."""

    number: int
    deferred: object
    manager: str
    fates: set = field(default_factory=set)


class DispatcherMachine(Machine):
    """See the module."""

    def __init__(self):
        super().__init__()
        self.farm = ClockedFarm()
        self.zad = self.farm.zad
        self.managers = {each.getId(): Manager() for each in self.zad.managers()}
        self.frozen = []     # (manager id, worker) that is stepped no more
        self.calls = []
        self.direct = set()  # numbers of jobs that ran in the request
        self.keys = set()
        self.numbers = 0
        self.added = 3

    @initialize()
    def workers_are_started(self):
        for id in self.managers:
            self._serve(id)

    @rule(deed=st.one_of(*DEEDS))
    def happens(self, deed):
        self.do(deed)

    # putting

    def put(self, waits, series, key, delay, committed):
        if self.numbers == JOBS:
            return
        transaction.begin()
        number, self.numbers = self.numbers, self.numbers + 1
        alive = self._alive()
        waits = waits and bool(alive)  # else it might run here
        options = Options(series=series, key=key, not_before=(
            datetime.timedelta(seconds=delay) if delay else None))
        job = clockwork.mark_and_wait if waits else clockwork.mark
        joined = self._joined(key)
        try:
            id, deferred = self.zad.putCallWith(options, 'zope_call', job, number)
        except NoWorker:
            assert not alive and joined is None
            assert self.zad.no_worker == 'refuse' or not self._staying()
            return
        if joined is not None:
            assert deferred is joined.deferred, 'it does not join the one that waits'
            transaction.abort()
            return
        self._check_choice(id, deferred, alive, delay, series)
        if id is not None:
            self.managers[id].put += 1
        if not committed:
            transaction.abort()
            return
        transaction.commit()
        if id is None:
            self.direct.add(number)
        else:
            self.calls.append(Put(number, deferred, id))
        if key is not None and id is not None:
            self.keys.add(deferred.id)

    def _joined(self, key):
        """The committed call that waits with that key."""
        if key is None:
            return None
        found = [each for each in self.calls if each.deferred.id in self.keys
                 and each.deferred.state == NEW]
        return found[-1] if found else None

    def _check_choice(self, id, deferred, alive, delay, series):
        if alive:
            least = min(self._load(each) for each in alive)
            assert id in alive and self._load(id) == least, (id, alive, self.managers)
        elif id is None:
            assert self.zad.no_worker == 'run' and not delay and deferred.ended
            assert deferred.state == RESOLVED, deferred.failure
        else:
            assert self.zad.no_worker == 'queue' or delay or series
            staying = self._staying()
            served = [each for each in staying if not self.managers[each].paused] or staying
            least = min(self._load(each) for each in served)
            assert id in served and self._load(id) == least

    def _load(self, id):
        return self.managers[id].calls + self.managers[id].put

    def _alive(self):
        """Ids of the managers whose workers live and take calls, as callers must see it."""
        now = self.farm.clock.now()
        return [id for id, each in self.managers.items()
                if each.beat and each.accepting and not each.paused and not each.leaving
                and now - each.beat_at <= IDLE_SECONDS]

    def _staying(self):
        return [id for id, each in self.managers.items() if not each.leaving]

    # the workers

    def serve(self, number):
        """A worker comes to a manager that has none."""
        id = pick(number, [id for id, each in self.managers.items() if each.worker is None])
        if id is not None and len(self.farm._workers) < 12:
            self._serve(id)

    def _serve(self, id):
        self.managers[id].worker = self.farm.serve(id)
        self._note_pulses()

    def beat(self, number):
        id = pick(number, [id for id, each in self.managers.items() if each.worker])
        if id is not None:
            self._beat(id)

    def _beat(self, id):
        worker = self.managers[id].worker
        try:
            self.farm.step(worker)
        except (DeskLost, WorkerError):
            self.managers[id].worker = None
        self._come_to_rest()

    def rounds(self, number):
        for _ in range(1 + number % 2):
            for id in list(self.managers):
                if self.managers[id].worker:
                    self._beat(id)

    def let_go(self, number):
        """A job that waits goes on: the oldest first, that of a worker that is frozen too."""
        which = pick(number, reversed(clockwork.waiting()))
        if which is not None:
            clockwork.let_go(which)
            self._come_to_rest(changed=which)

    def _come_to_rest(self, changed=None):
        if changed is not None:
            clockwork.wait_until_gone(changed)
        for worker in self.farm._workers:
            self.farm.rest(worker)
        self._note_pulses()

    def _note_pulses(self):
        """What callers know from now on."""
        transaction.begin()
        for id, each in self.managers.items():
            manager = self.zad[id]
            pulse, desk = manager.queue.pulse, manager.queue.desk
            if pulse.beat != each.beat:
                each.beat, each.beat_at = pulse.beat, self.farm.clock.now()
                each.calls, each.put = pulse.new + pulse.accepted, 0
                draining = each.worker is None or each.worker._beat.draining
                each.accepting = not (desk.guest or each.paused or draining)

    def let_time_pass(self, seconds):
        self.farm.clock.advance(seconds)

    def long_silence(self, number):
        """Those who live beat for so long that a sibling is taken for dead."""
        for _ in range(7):
            self.farm.clock.advance(11)
            self.rounds(0)

    def freeze(self, number):
        """A worker is stopped, as by SIGSTOP, or dies while its threads go on for a while."""
        id = pick(number, [id for id, each in self.managers.items() if each.worker])
        if id is not None:
            self.frozen.append((id, self.managers[id].worker))
            self.managers[id].worker = None

    def thaw(self, number):
        """It goes on; if it has lost its manager to another it ends."""
        found = pick(number, [each for each in self.frozen if each[0] in self.managers
                              and self.managers[each[0]].worker is None])
        if found is not None:
            self.frozen.remove(found)
            self.managers[found[0]].worker = found[1]
            self._beat(found[0])

    def stop(self, number):
        """As TERM does; what hangs runs on."""
        id = pick(number, [id for id, each in self.managers.items() if each.worker])
        if id is None:
            return
        worker = self.managers[id].worker
        self.farm.stop(worker)
        self._come_to_rest()
        self.managers[id].worker = None

    # managers of the site

    def pause(self, number):
        id = pick(number, self._staying())
        if id is not None:
            self._pause(id, not self.managers[id].paused)

    def _pause(self, id, paused):
        transaction.begin()
        manager = self.zad[id]
        assert (manager.pause if paused else manager.resume)() == (
            self.managers[id].paused != paused)
        transaction.commit()
        self.managers[id].paused = paused

    def cancel(self, number):
        call = pick(number, [each for each in self.calls if not each.deferred.ended])
        if call is not None:
            transaction.begin()
            assert call.deferred.cancel() is True
            transaction.commit()

    def no_worker(self, mode):
        transaction.begin()
        self.zad.no_worker = mode
        transaction.commit()

    def add_manager(self):
        if len(self.managers) >= 4:
            return
        self.added += 1
        id = f'zam{self.added}'
        transaction.begin()
        self.zad._setObject(id, AsynchronousCallManager(id))
        transaction.commit()
        self.managers[id] = Manager()

    def leave(self, number):
        """A manager begins to leave, or goes on with it."""
        transaction.begin()
        leaver = next((id for id, each in self.managers.items() if each.leaving), None)
        if leaver is None:
            id = pick(number, self.managers)
            if len(self.managers) > 2:
                leaving.start(self.zad, self.zad[id])
                transaction.commit()
                self.managers[id].leaving = self.managers[id].paused = True
            return
        gone = leaving.go_on(self.zad, self.zad[leaver], self.farm.clock.now())
        transaction.commit()
        if gone:
            del self.managers[leaver]  # and its worker waits for it until it gives up

    def call_off(self):
        transaction.begin()
        for id, each in self.managers.items():
            if each.leaving:
                leaving.call_off(self.zad, self.zad[id])
                each.leaving = False
        transaction.commit()

    # what must hold

    def _homes(self, deferred):
        """Ids of the managers that have a call."""
        return [each.getId() for each in self.zad.managers() if deferred.is_in(each.queue)]

    @invariant()
    def I2_each_committed_call_is_in_one_manager_and_found_there_by_its_id(self):
        transaction.begin()
        for each in self.calls:
            homes = self._homes(each.deferred)
            if each.manager not in self.managers and not homes:
                # Kept results go with their manager.
                assert each.deferred.ended, each
                continue
            assert len(homes) == 1, (each, homes)
            assert self.zad[homes[0]].queue.find(each.deferred.id) is each.deferred
            if each.manager in self.managers:
                assert self.zad[each.manager].queue.find(each.deferred.id) is each.deferred

    @invariant()
    def I3_an_effect_is_there_once_and_with_its_result(self):
        transaction.begin()
        for each in self.calls:
            effects = self.farm.effects(each.number)
            assert effects == int(each.deferred.state == RESOLVED), (each, effects)
        for number in self.direct:
            assert self.farm.effects(number) == 1

    @invariant()
    def I5_what_has_ended_stays_as_it_ended(self):
        transaction.begin()
        for each in self.calls:
            if each.deferred.ended:
                each.fates.add(each.deferred.state)
            assert len(each.fates) <= 1, each

    @invariant()
    def no_two_calls_of_a_series_run(self):
        transaction.begin()
        running = [each for each in self.calls
                   if each.deferred.series == 's' and each.deferred.owner is not None]
        assert len(running) <= 1, running

    # the end

    def teardown(self):
        try:
            if self.sound:
                self._finish()
        finally:
            transaction.abort()
            self.farm.close()

    def _finish(self):
        self.call_off()
        for id, each in self.managers.items():
            self._pause(id, True) if not each.paused else None
            self._pause(id, False)
            if each.worker is None:
                self._serve(id)
        for _ in range(40):
            self.farm.clock.advance(12)
            self.rounds(0)
            while clockwork.waiting():
                self.let_go(0)
            transaction.begin()
            if all(each.deferred.ended for each in self.calls):
                break
        self.I2_each_committed_call_is_in_one_manager_and_found_there_by_its_id()
        self.I3_an_effect_is_there_once_and_with_its_result()
        self.I5_what_has_ended_stays_as_it_ended()
        for each in self.calls:
            assert each.deferred.state in (RESOLVED, CANCELLED, FAILED), each
            if each.deferred.state == FAILED:  # five workers were lost while it ran
                assert each.deferred.failure.type_name.endswith('Interrupted'), each
        for _ in range(3):
            self.farm.clock.advance(12)
            self.rounds(0)
        transaction.begin()
        for manager in self.zad.managers():
            assert manager.open_calls() == 0, manager
