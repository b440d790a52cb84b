"""What the worker and its threads do, what the clock does, and the administrator of the database.

Imports: ledger, calls, queuemodel, steps, world, zasync.
"""

from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import NamedTuple

from hypothesis import strategies as st
from transaction.interfaces import TransientError

from Products.zasync import policy
from Products.zasync.interfaces import CALLBACK
from Products.zasync.interfaces import CANCELLED
from zasync_client.claims import End
from zasync_client.claims import ENDED
from zasync_client.claims import GIVE_BACK
from zasync_client.claims import LOST
from zasync_client.claims import UNBEGUN

from . import queuemodel
from .calls import JOB
from .calls import Modelled
from .ledger import ACCEPTED
from .ledger import REFUSED
from .steps import deed
from .steps import pick
from .world import JOBS
from .world import PERIOD
from .world import RUNNERS
from .world import THREADS


WORDS = ['return', 'return', 'return', 'raise', 'commit', 'checkpoint', 'progress']
PICK = st.integers(0, 9)
DEEDS = [*[deed('make_beat', how=st.sampled_from(['whole', 'whole', 'begin']),
                hurry=st.booleans(), late=st.booleans())] * 5,
         *[deed('work', number=PICK,
                words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3))] * 4,
         deed('let_time_pass', seconds=st.sampled_from([0.5, 3, 8, 30, 65])),
         deed('trouble', number=PICK, what=st.sampled_from(
             ['undo', 'undo', 'take_back_what_has_not_begun', 'pack', 'kill_and_start_again']))]


class Periodic(NamedTuple):
    """A periodic call: when it was set, up to when it is served, and its last call."""

    number: int
    since: float
    served_at: float = 0.0
    last: str | None = None

    def is_due(self, records, now):
        """Whether a call is to be made: a minute has begun, and the last call has ended."""
        tick = (max(self.since, self.served_at) // 60 + 1) * 60
        return tick <= now and queuemodel.has_ended(records, self.last)


@dataclass(eq=False)
class Running:
    """A claim that a thread runs: the real Run, the life it is of, and what it sees."""

    run: object
    life: int
    boot: str
    transaction: object
    deadline: float | None
    thread: int = 0

    @property
    def claim(self):
        return self.run.claim


@dataclass
class OpenBeat:
    """A beat that has begun and is not committed; what it was begun with."""

    transaction: object
    ends: list
    held: set
    runs: list = field(default_factory=list)


class Crew:
    """Deeds of the worker; and, of each history, its claims, runs and ends."""

    def make_beat(self, how, hurry, late):
        if self.beat is not None:
            self._end_beat(hurry)
        elif how == 'begin':
            self.begin_beat(late)
        else:
            self.whole_beat(hurry)

    def work(self, number, words):
        """A claim is begun, or jobs that run are told what to do."""
        if self.claims and len(self.runs) < RUNNERS:
            self._start(pick(number, self.claims))
        for word in words:
            if self.runs:
                self._tell(pick(number, self.runs), word)

    def let_time_pass(self, seconds):
        self.world.clock.advance(seconds)

    def trouble(self, what, number):
        getattr(self, what)(number)

    # the beat

    def begin_beat(self, late):
        """late -- threads that have told of their ends look as if they still ran."""
        ours = [each for each in self.runs if each.life == self.world.lives]
        held = set(self.claims) | {each.claim for each in ours}
        if late:
            held |= self.just_ended
        self.just_ended = set()
        self.world.begin_beat()
        self.beat = OpenBeat(self.ledger.begin(), list(self.ends), held, ours)

    def whole_beat(self, hurry):
        """A beat that overlaps with nothing of its own process, and its threads begin."""
        self._whole_beat(hurry)
        while self.claims and len(self.runs) < RUNNERS:
            self._start(self.claims[0])

    def _whole_beat(self, hurry):
        self.just_ended = set()
        ours = [each for each in self.runs if each.life == self.world.lives]
        self.world.begin_beat()
        self.beat = OpenBeat(self.ledger.begin(), list(self.ends),
                             {*self.claims, *(each.claim for each in ours)}, ours)
        self._end_beat(hurry)

    def _end_beat(self, hurry):
        beat, self.beat = self.beat, None
        now, t, boot = self.world.clock.now(), beat.transaction, self.world.worker.boot
        slots = 0 if t.get('paused') else max(0, THREADS - len(beat.held))
        drops = self.world.see(lambda manager: _drops(manager.queue, now))
        done = self.world.beat_now(beat.ends, beat.held, hurry)
        if done is None:
            assert not slots or not any(queuemodel.claimable(t.records, now)), 'it claims nothing'
            assert not any(end.how in (GIVE_BACK, UNBEGUN, LOST)
                           for end in beat.ends), 'it does not give back'
            self.world.end_beat(commit=False)
            return
        t.write('desk')
        if drops:
            t.share('lanes')
        claimed = self._model_beat(t, beat, done, boot, slots, now)
        assert [claim.id for claim in done.claims] == claimed
        fate = t.fate()
        try:
            self.world.end_beat()
        except TransientError:
            assert fate != ACCEPTED, 'a beat was refused that met nobody'
            return
        assert fate != REFUSED, 'a beat was committed that met another'
        self.committed(t)
        self.world.beat.note(done)
        if done.filed:
            del self.ends[:len(beat.ends)]
        self.claims += done.claims
        for each in beat.runs:
            if each.claim in done.timed_out:
                each.deadline = None

    def _model_beat(self, t, beat, done, boot, slots, now):
        cancelled = [claim for claim in beat.held if self._was_cancelled(t, claim, boot)]
        overdue = {each.claim for each in beat.runs
                   if each.deadline is not None and not each.run.end and self._is_ours(t, each)
                   and each.deadline <= self.world.clock.monotonic()}
        assert set(done.timed_out) == overdue, 'not those that run too long time out'
        if done.filed:
            queuemodel.sweep(t, [(end.claim.id, end.claim.attempt, end.how, end.begun,
                                  end.until if end.until > now else 0.0, end.failed)
                                 for end in beat.ends], boot, now)
        for claim in cancelled:
            if t[claim.id].listed:
                queuemodel.file(t, t[claim.id], now)
        for claim in overdue:
            queuemodel.time_out(t, t[claim.id], now)
        if done.reconciled:
            held = beat.held | {end.claim for end in beat.ends}
            queuemodel.reconcile(t, {(claim.id, claim.attempt) for claim in held}, now)
        self._model_periodic(t, slots or not t.get('paused'), now)
        t.note('ghosts', frozenset())
        queuemodel.take_in(t, now)
        claimed = queuemodel.claim(t, boot, slots, now)
        known = {(claim.id, claim.attempt) for claim in beat.held} | {
            (end.claim.id, end.claim.attempt) for end in beat.ends if end.how != UNBEGUN}
        for id in claimed:  # the number of a claim that was undone is not given again
            while (id, t[id].attempt) in known:
                t[id] = replace(t[id], attempt=t[id].attempt + 1)
        return claimed

    def _was_cancelled(self, t, claim, boot):
        call = t.get(claim.id)
        return call is not None and call.listed and call.state == CANCELLED

    def _is_ours(self, records, running):
        call = records.get(running.claim.id)
        return call is not None and call.is_owned_by(running.boot, running.claim.attempt)

    def _model_periodic(self, t, awake, now):
        periodic = t.get('periodic')
        if periodic is None or not awake or not periodic.is_due(t.records, now):
            return
        last = t.get(periodic.last)
        if last is not None and last.state == 'failed' and last.aged_at is None:
            if not last.filed:
                queuemodel.file(t, last, now)
            t.note(last.id, t[last.id].let_age(now))
            t.share('failed')
            t.share('archive')
        id, place = self.world.see(_last_periodic)
        t[id] = Modelled(id=id, kind=JOB, user='admin', place=place, number=periodic.number,
                         taken_in=True)
        t['periodic'] = periodic._replace(served_at=now, last=id)

    def take_back_what_has_not_begun(self, number):
        for claim in self.claims:
            self._note_end(End(claim, UNBEGUN, self.world.clock.now(),
                               self.world.clock.monotonic(), 0.0, self.world.clock.now()))
        self.claims = []

    def _note_end(self, end):
        self.ends.append(end)
        self.just_ended.add(end.claim)

    # the threads

    def _start(self, claim):
        self.claims.remove(claim)
        thread = next(number for number in range(RUNNERS)
                      if number not in {each.thread for each in self.runs})
        deadline = None
        if claim.timeout_seconds is not None:
            deadline = self.world.clock.monotonic() + claim.timeout_seconds
        t = self.ledger.begin()
        running = Running(self.world.run(thread, claim), self.world.lives,
                          self.world.worker.boot, t, deadline, thread)
        self.runs.append(running)
        call = t.get(claim.id)
        if not self._is_ours(t, running):
            self._must_end(running, LOST)
        elif call.state == CALLBACK:
            self._call_back(running)
        elif call.kind == JOB:
            assert running.run.waiting, running.run.end
            assert running.run.user == call.user, 'I8: it runs as somebody else'
        else:
            self._model_outcome(running, t, call)

    def _model_outcome(self, running, t, call):
        """Of an aggregate or a follower, which need nobody to tell them what to do."""
        members = [t.get(id) for id in call.after]
        if call.hurried and any(each.ended and each.failed for each in members):
            self._store(running, t, failed=True)
        elif any(each is None for each in members):  # its put was undone
            self._store(running, t, failed=True)
        elif not all(each.ended for each in members):
            self._must_end(running, GIVE_BACK)
        elif call.kind == 'follow':
            self._store(running, t, members[0].failed, end='resolved')
        else:
            self._store(running, t, failed=False)

    def _tell(self, running, word):
        t, claim = running.transaction, running.claim
        stopped = running.run.is_stopped()
        if stopped and not self.has_undone:  # a cancellation may be undone
            assert not self._is_ours(self.ledger.records, running), 'told to stop for no reason'
        running.run.tell(word)
        call = t[claim.id]
        if word in ('progress', 'raise') and stopped:
            self._must_end(running, LOST)
        elif word == 'progress':
            assert running.run.waiting, running.run.end
        elif word == 'raise':
            self._model_failure(running, call)
        elif self._would_commit(t, call) == REFUSED:
            self._model_refusal(running, call)
        elif word == 'return':
            t[call.id] = replace(call, effects=call.effects + 1)
            self._store(running, t, failed=False)
        else:
            assert running.run.waiting, running.run.end
            t[call.id] = replace(call, steps=call.steps + 1)
            self.committed(t)
            running.transaction = self.ledger.begin()

    def _would_commit(self, t, call):
        t.write(call.id)
        return t.fate()

    def _model_refusal(self, running, call):
        """Its commit met another's: so the call is not its own any more, or it begins again."""
        if not self._is_ours(self.ledger.records, running):
            self._must_end(running, LOST)
        elif call.once:
            self._store(running, self.ledger.begin(), failed=True)
        else:
            assert running.run.waiting, running.run.end
            running.transaction = self.ledger.begin()

    def _model_failure(self, running, call):
        if call.next_delay() is not None:
            self._must_end(running, GIVE_BACK)
        elif self._is_ours(self.ledger.records, running):
            self._store(running, self.ledger.begin(), failed=True)
        else:
            self._must_end(running, LOST)

    def _store(self, running, t, failed, end='failed'):
        """The outcome of its work is committed, then its callbacks run."""
        now, call = self.world.clock.now(), t[running.claim.id]
        t[call.id] = call.end_work(failed, now, end)
        if t[call.id].ended:
            queuemodel.release(t, call)
        self.committed(t, known=t[call.id].ended)
        self._call_back(running)

    def _call_back(self, running):
        """Its callbacks run, each in a transaction of its own."""
        now = self.world.clock.now()
        while (call := self.ledger.records[running.claim.id]).state == CALLBACK:
            t = self.ledger.begin()
            t[call.id] = call.call_back(now)
            if t[call.id].ended:
                queuemodel.release(t, call)
            self.committed(t, known=t[call.id].ended)
        self._must_end(running, ENDED)

    def _must_end(self, running, how):
        end = running.run.end
        assert end is not None and end.how == how, (how, end)
        self.runs.remove(running)
        if running.life == self.world.lives:
            self._note_end(end)

    # the process, the clock, the database

    def kill_and_start_again(self, number):
        """What ran goes on to run, as if it had only been frozen."""
        if self.beat is not None or len(self.runs) > RUNNERS - THREADS:
            return
        self.world.restart()
        self.claims, self.ends, self.just_ended = [], [], set()
        t = self.ledger.begin()
        queuemodel.reconcile(t, set(), self.world.clock.now(), interrupted=True)
        t.write('desk')
        self.committed(t, known=False)

    def set_periodic_call(self, user, lane):
        """One a history, in a transaction of its own."""
        if 'periodic' in self.ledger.records or 'admin' in self.open or self.numbers >= JOBS:
            return
        t = self.transaction_of('admin')
        self.world.act('admin', lambda manager: manager.setPeriodicCall(
            'minutely', '* * * * *', 'UTC', 'job', (self.numbers,)))
        t['periodic'] = Periodic(self.numbers, self.world.clock.now())
        self.numbers += 1
        self.end_of('admin')

    def undo(self, number):
        """Take back one of the last commits, if nothing of what it wrote was written since."""
        if self.open or self.beat is not None or not self.can_undo:
            return
        first = max(self.undoable_from, len(self.ledger.commits) - 3)
        number = pick(number, [each for each in range(first, len(self.ledger.commits))
                               if self.tids[each] is not None and self.ledger.can_undo(each)
                               and not self._would_be_stranded(each)])
        if number is None:
            return
        self.has_undone = True
        commit, records = self.ledger.commits[number], dict(self.ledger.records)
        self.world.undo(self.tids[number])
        self.ledger.undo(number)
        self.note_commits()
        # What the worker has taken in it counts until it sees that they are not there.
        seen = {key for key, (_, after) in commit.changes.items()
                if isinstance(after, dict) and 'taken_in' in after}
        self.ledger.records['ghosts'] = records.get('ghosts', frozenset()) - seen | {
            key for key, (before, after) in commit.changes.items()
            if isinstance(after, Modelled) and before is None and not after.taken_in
            and records[key].taken_in}

    def _would_be_stranded(self, number):
        """Whether a call would be filed that has not ended: it stays so (see operations)."""
        return any((call.filed or call.withdrawn) and not call.ended for call in queuemodel.calls(
            self.ledger.after_undo(number)).values())

    def pack(self, number):
        """ZODB packs nothing as long as something refers to what was undone."""
        records = self.ledger.records
        if self.open or self.beat is not None or not self.can_pack or self.ghosts() or any(
                id not in records for call in queuemodel.calls(records).values()
                if not call.ended or call.withdrawn for id in call.after):
            return
        self.world.pack()
        self.undoable_from = len(self.ledger.commits)


def _drops(queue, now):
    return any(slices and policy.slice_is_over(slices.minKey(), now, PERIOD)
               for slices in (queue.archive, queue.withdrawn))


def _last_periodic(manager):
    from Products.zasync.places import place_of
    last = manager.periodic['minutely'].last
    return last.id, place_of(last)
