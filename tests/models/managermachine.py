"""The machine that holds a manager and its worker against the model.

Imports: ledger, calls, queuemodel, callers, crew, world, zasync.
"""

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import initialize
from hypothesis.stateful import invariant
from hypothesis.stateful import rule

from Products.zasync import policy
from Products.zasync.interfaces import FAILED
from Products.zasync.interfaces import NEW
from Products.zasync.interfaces import RESOLVED
from Products.zasync.interfaces import STATES

from . import callers
from . import crew
from . import queuemodel
from .callers import Callers
from .callers import PUTS
from .calls import JOB
from .crew import Crew
from .ledger import Ledger
from .machine import Machine
from .world import PERIOD
from .world import THREADS
from .world import World


DEEDS = [*callers.DEEDS, *crew.DEEDS]


class ManagerMachine(Callers, Crew, Machine):
    """See the module. A subclass says what storage it is."""

    can_pack = can_undo = False

    def databases(self):
        """The ZODB.DBs of a history; and a name that is new in them."""
        raise NotImplementedError

    def __init__(self):
        super().__init__()
        self.world = World(*self.databases())
        self.ledger = Ledger()
        # Transactions of users, their savepoints, and the followers they have put.
        self.open, self.savepoints, self.followers = {}, {}, {}
        self.numbers = 0
        self.beat, self.claims, self.runs, self.ends, self.just_ended = None, [], [], [], set()
        # For each commit of the ledger its transaction id, where it is known.
        self.tids, self.undoable_from, self.has_undone = [], 0, False
        self._writes, self._counted, self._serials = Counter(), 0, {}

    @initialize(puts=PUTS)
    def some_calls_are_put(self, puts):
        self.request('bob', 0, puts, 'commit')

    @rule(deed=st.one_of(*DEEDS))
    def happens(self, deed):
        self.do(deed)

    def committed(self, t, known=True):
        """A transaction has been committed; known -- as the last one of the database."""
        t.commit()
        self.note_commits(known)

    def note_commits(self, known=True):
        """The ledger may have a new commit."""
        while len(self.tids) < len(self.ledger.commits):
            self.tids.append(self.world.last_tid() if known else None)
        for commit in self.ledger.commits[self._counted:]:
            self._writes.update(key for key in commit.written if isinstance(key, str))
        self._counted = len(self.ledger.commits)

    # what is kept

    def may_be_dropped(self, call):
        """Whether it is so old that a beat may have dropped it."""
        when = call.ended_at if call.state != FAILED else call.aged_at
        return call.filed and when is not None and policy.slice_is_over(
            policy.slice_of(when, PERIOD), self.world.clock.now(), PERIOD)

    def is_kept(self, call):
        """Whether it must be found."""
        return not call.gone and not self.may_be_dropped(call)

    # what must hold

    @invariant()
    def I1_what_is_not_committed_is_seen_by_nobody_and_is_gone_with_its_transaction(self):
        queue = self.world.look()[0].queue
        for t in self.open.values():
            for id in queuemodel.calls(t.records):
                if t.is_new(id):
                    assert queue.find(id) is None

    @invariant()
    def I2_each_committed_call_is_found_as_it_is(self):
        queue = self.world.look()[0].queue
        for call in queuemodel.calls(self.ledger.records).values():
            deferred = queue.find(call.id)
            if call.gone:
                assert deferred is None, call
            elif deferred is None:
                assert self.may_be_dropped(call), call
            else:
                assert (deferred.state, deferred.owner, deferred.attempt) == (
                    call.state, call.owner, call.attempt), (call, deferred, deferred.failure)

    @invariant()
    def I3_effects_and_results_are_there_together_and_once(self):
        manager, effects = self.world.look()
        calls = [call for call in queuemodel.calls(self.ledger.records).values()
                 if call.kind == JOB]
        for number in {call.number for call in calls}:
            ours = [call for call in calls if call.number == number]
            assert effects[number].get('end', 0) == sum(call.effects for call in ours), ours
            assert effects[number].get('steps', 0) == sum(call.steps for call in ours), ours
        for call in calls:
            if call.state == RESOLVED and not call.callbacks and self.is_kept(call):
                assert manager.queue.find(call.id).result == call.number, call

    @invariant()
    def I5_each_transition_writes_the_call_and_nothing_else_does(self):
        queue = self.world.look()[0].queue
        for call in queuemodel.calls(self.ledger.records).values():
            deferred = queue.find(call.id)
            if deferred is None:
                continue
            deferred._p_activate()
            before = self._serials.get(call.id)
            if before is not None:
                assert (before[0] == deferred._p_serial) == (
                    before[1] == self._writes[call.id]), call
            self._serials[call.id] = deferred._p_serial, self._writes[call.id]

    @invariant()
    def the_lengths_are_exact(self):
        manager = self.world.look()[0]
        new, accepted = queuemodel.lengths(self.ledger.records)
        assert manager.lenNewCalls() == new + len(self.ghosts())
        assert manager.lenAcceptedCalls() == accepted

    @invariant()
    def lists_have_what_they_name(self):
        manager = self.world.look()[0]
        calls = [call for call in queuemodel.calls(self.ledger.records).values()
                 if not call.gone]
        for state in (None, *STATES):
            fitting = {call.id for call in calls if state in (None, call.state)
                       and not (state == FAILED and call.aged_at)}
            must = {call.id for call in calls if call.id in fitting and self.is_kept(call)}
            listed = [deferred.id for deferred in manager.calls(state)]
            assert must <= set(listed) <= fitting, state
            assert len(listed) == len(set(listed))
        paged, start = [], None
        while page := manager.calls(start=start, limit=7):
            paged += [deferred.id for deferred in page]
            start = paged[-1]
        assert paged == [deferred.id for deferred in manager.calls()]
        for name in ('bob', 'eve'):
            assert all(self.ledger.records[deferred.id].user == name
                       for deferred in manager.calls(user=name))
        assert all(deferred.plugin == 'job' for deferred in manager.calls(plugin='job'))

    @invariant()
    def no_call_waits_in_two_places_and_who_waits_is_told(self):
        queue = self.world.look()[0].queue
        waiting, desk, records = queue.waiting, queue.desk, self.ledger.records
        assert desk.n_ready == len(waiting.ready)
        assert desk.n_later == len(waiting.later)
        assert desk.n_aside == len(waiting.blocked) + len(waiting.parked)
        assert set(desk.running) == {call.id for call in queuemodel.calls(records).values()
                                     if call.listed}
        if self.ghosts():
            return
        places = [place for place, _ in waiting.items()]
        assert len(places) == len(set(places))
        assert len(waiting._where) == desk.n_later + desk.n_aside
        awaited = {place for places in waiting._awaited.values() for place in places}
        for place, deferred in waiting.parked.items():
            assert place in awaited or records[deferred.id].ended or not deferred.is_held_up()
        for id in queue.failed:
            assert records[id].state == FAILED or not records[id].taken_in, records[id]
        noted = {deferred.id for _, deferred in waiting._expiring.values()}
        for call in queuemodel.calls(records).values():
            if call.taken_in and call.state == NEW and not call.attempt and call.noted \
                    and call.expires_at is not None:
                assert call.id in noted

    def ghosts(self):
        """Ids of calls whose puts were undone, as long as the worker counts them."""
        records = self.ledger.records
        return records.get('ghosts', frozenset()) - set(records)

    # the end

    def teardown(self):
        """Nobody stops before all is done; then nothing may be left."""
        try:
            if self.sound:
                self._finish()
        finally:
            for running in self.runs:
                if running.run.waiting:
                    running.run.tell('leave')
            self.world.close()
            self.close_databases()

    def close_databases(self):
        """The history is over."""

    def _finish(self):
        for user in list(self.open):
            self.open.pop(user)
            self.world.end(user, commit=False)
        if self.beat is not None:
            self._end_beat(hurry=True)
        self.transaction_of('admin')
        self.world.act('admin', _let_all_run)
        self.open['admin']['paused'] = False
        self.open['admin']['periodic'] = None
        self.end_of('admin')
        self.world.clock.advance(1_000)
        for _ in range(200):
            while self.claims and len(self.runs) < THREADS + 2:
                self._start(self.claims[0])
            for running in list(self.runs):
                self._tell(running, 'return')
            self._whole_beat(hurry=True)
            self.world.clock.advance(10)
            if not any(self._open_calls()) and not self.claims and not self.ends:
                break
        assert not list(self._open_calls()), 'I2: a call does not end'
        for name in dir(self):
            if name.startswith('I') and name[1].isdigit():
                getattr(self, name)()
        queue = self.world.look()[0].queue
        assert queue.length_new() == queue.length_accepted() == 0
        assert not queue.waiting._expiring
        assert not queue.waiting._awaited or self.has_undone  # ids, which do no harm
        assert not queue.cancelled and not queue.desk.running

    def _open_calls(self):
        return (call for call in queuemodel.calls(self.ledger.records).values()
                if not call.ended)


def _let_all_run(manager):
    manager.resume()
    for id in list(manager.periodic):
        manager.dropPeriodicCall(id)
