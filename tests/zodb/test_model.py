"""A queue against a model of plain Python: whatever happens, counts and places are exact."""

import random
from dataclasses import dataclass
from dataclasses import field

import pytest

from Products.zasync import clock
from Products.zasync import policy
from Products.zasync.failure import Failure
from Products.zasync.interfaces import ACCEPTED
from Products.zasync.interfaces import CALLBACK
from Products.zasync.interfaces import CANCELLED
from Products.zasync.interfaces import EXPIRED
from Products.zasync.interfaces import FAILED
from Products.zasync.interfaces import FINAL_STATES
from Products.zasync.interfaces import NEW
from Products.zasync.interfaces import RESOLVED
from tests.fakes import FixedClock
from tests.fakes import make_call


PERIOD = 80
SERIES = ('one', 'two')


@dataclass(eq=False)
class Modelled:
    """What a call is, and where it is: waiting, running, ended (on the desk), filed, gone."""

    id: str
    place: tuple
    time: float
    after: tuple
    hurried: bool
    series: str | None
    expires_at: float | None
    callbacks: int
    where: str = 'waiting'
    state: str = NEW
    attempts: int = 0
    called: int = 0
    failed: bool = False
    broken: int | None = None
    end: str = FAILED
    slice: int = 0
    #: It is in the desk's list.
    on_desk: bool = False

    @property
    def ended(self):
        return self.state in FINAL_STATES

    @property
    def held_up(self):
        if self.state != NEW:
            return False
        if self.hurried and any(call.ended and call.failed for call in self.after):
            return False
        return not all(call.ended for call in self.after)


@dataclass
class Model:
    """What a queue holds."""

    calls: dict = field(default_factory=dict)

    def at(self, *wheres):
        return [call for call in self.calls.values() if call.where in wheres]

    def claimable(self, now, slots):
        """Ids of what a beat with so many slots is to claim, in order."""
        held = {call.series for call in self.at('running')} - {None}
        chosen = []
        for call in sorted(self.at('waiting'), key=lambda call: call.place):
            if len(chosen) < slots and call.time <= now and not call.held_up \
                    and call.series not in held:
                chosen.append(call.id)
                held |= {call.series} - {None}
        return chosen


class Run:
    """One random history, each step a transaction of one of three clients."""

    def __init__(self, store, seed, time):
        self.random = random.Random(seed)
        self.clients = [store.client() for _ in range(3)]
        self.model = Model()
        self.numbers = 0
        self._time = time

    @property
    def now(self):
        return self._time.time

    # what happens

    def put(self, client):
        queue, committed = client.begin(), self.random.random() < 0.85
        fresh = []
        for _ in range(self.random.randint(1, 4)):
            fresh.append(self._put(queue, fresh))
        if committed:
            client.commit()
            self.model.calls.update((call.id, call) for call in fresh)
        else:
            client.abort()
            assert all(client.begin().find(call.id) is None for call in fresh)
            client.abort()

    def _put(self, queue, fresh):
        self.numbers += 1
        choose = self.random.choice
        delay, expires = choose([0, 0, 0, 5, 30]), choose([None, None, None, 2, 40])
        before = [call for call in (*self.model.calls.values(), *fresh) if call.where != 'gone']
        after = self.random.sample(before, min(len(before), choose([0, 0, 0, 1, 2, 3])))
        text, hurried = choose([None, None, None, *SERIES]), choose([True, False])
        put_at = self.now + self.numbers / 1000
        call = make_call(
            priority=choose([0, 0, 0, 1, -1]), put_at=put_at, hurried=hurried, series=text,
            not_before=self.now + delay if delay else 0.0,
            expires_at=None if expires is None else put_at + delay + expires)
        deferred = queue.put(
            call, self.random.randrange(3), None, [queue.find(other.id) for other in after])
        callbacks = choose([0, 0, 0, 1, 2])
        for _ in range(callbacks):
            deferred.append_callback('nothing', 'nothing', None)
        lane, number = (int(part, 16) for part in deferred.id.split('-')[:2])
        return Modelled(deferred.id, (-call.priority, put_at, lane, number), call.not_before,
                        tuple(after), hurried, text, call.expires_at, callbacks)

    def beat(self, client):
        slots = self.random.choice([0, 1, 2, 5])
        if any(other in self.model.at('ended') for call in self.model.at('waiting')
               for other in call.after):
            self.archive(client)  # as a worker does at once when somebody waits for it
        for call in self.model.at('cancelled'):
            self._note_filed(call)
        for call in self.model.calls.values():
            call.on_desk = call.on_desk and call.where != 'waiting'
        for call in self.model.at('waiting'):
            if (call.state == NEW and not call.attempts and call.expires_at is not None
                    and call.expires_at <= self.now):
                self._expire(call)
        due = self.model.claimable(self.now, slots)
        queue = client.begin()
        if slots and due:
            assert queue.has_work(self.now, slots)
        claimed = [deferred.id for deferred in queue.take_in_and_claim(
            'boot', self.now, slots, PERIOD)]
        client.commit()
        assert claimed == due
        for id in claimed:
            call = self.model.calls[id]
            call.where, call.on_desk = 'running', True
            call.attempts += 1
            call.state = ACCEPTED if call.state == NEW else CALLBACK

    def _expire(self, call):
        call.failed, call.end = True, EXPIRED
        if call.callbacks:
            call.state, call.time = CALLBACK, 0.0
        else:
            self._end(call, EXPIRED)
            self._note_filed(call)

    def _end(self, call, state):
        call.state, call.where, call.ended_at = state, 'ended', self.now

    def _note_filed(self, call):
        call.where, call.on_desk = 'filed', False
        if call.state != FAILED:
            call.slice = policy.slice_of(call.ended_at, PERIOD)

    def succeed(self, client):
        """Its work, or its next callback, ends well."""
        call = self._running()
        if call is None:
            return
        client.begin().find(call.id).succeed(None, self.now)
        client.commit()
        call.failed = False
        call.called += call.state == CALLBACK
        call.state = CALLBACK
        if call.called == call.callbacks:
            self._end(call, RESOLVED)

    def fail(self, client):
        """Its work, or its next callback, ends badly, in its thread."""
        call = self._running()
        if call is not None:
            client.begin().find(call.id).fail(self._failure(), self.now)
            client.commit()
            self._note_failed(call)

    def time_out(self, client):
        """The same, whatever its thread does."""
        call = self._running()
        if call is not None:
            client.begin().fail(call.id, self._failure(), self.now, PERIOD)
            client.commit()
            self._note_failed(call)
            call.on_desk = False
            if call.ended:
                self._note_filed(call)
            else:
                call.where, call.time = 'waiting', 0.0

    def _failure(self):
        self.numbers += 1
        return Failure('ValueError', str(self.numbers))

    def _note_failed(self, call):
        if call.state == CALLBACK:
            if not call.failed:
                call.broken = call.called
            call.called, call.end = call.called + 1, FAILED
        call.state, call.failed = CALLBACK, True
        if call.called == call.callbacks:
            self._end(call, call.end)

    def _running(self):
        running = self.model.at('running')
        return self.random.choice(running) if running else None

    def give_back(self, client):
        call = self._running()
        if call is None:
            return
        delay = self.random.choice([0, 0, 10])
        client.begin().give_back(call.id, self.now, 'conflicts', self.now + delay)
        client.commit()
        call.where, call.on_desk, call.time = 'waiting', False, self.now + delay
        call.state = NEW if call.state == ACCEPTED else CALLBACK

    def cancel(self, client):
        """One that waits or runs; with callbacks there would be another call."""
        open_calls = [call for call in self.model.at('waiting', 'running')
                      if call.called == call.callbacks]
        if not open_calls:
            return
        call = self.random.choice(open_calls)
        assert client.begin().find(call.id).cancel() is True
        client.commit()
        waited = call.where == 'waiting'
        self._end(call, CANCELLED)
        call.failed = True
        if waited:
            call.where = 'cancelled'  # it is counted until the next beat

    def retry(self, client):
        failed = [call for call in self.model.at('ended', 'filed') if call.state == FAILED]
        if not failed:
            return
        call = self.random.choice(failed)
        queue = client.begin()
        queue.put_again(queue.find(call.id), self.random.randrange(3))
        client.commit()
        call.where, call.time, call.failed = 'waiting', 0.0, False
        if call.broken is None:
            call.state, call.called = NEW, 0
        else:
            call.state, call.called, call.broken = CALLBACK, call.broken, None

    def archive(self, client):
        queue = client.begin()
        for call in self.model.at('ended'):
            queue.archive_ended(call.id, PERIOD)
            self._note_filed(call)
        client.commit()

    def drop(self, client):
        client.begin()
        while client.queue.drop_old(self.now, PERIOD):
            pass
        client.commit()
        for call in self.model.at('filed'):
            if call.state != FAILED and call.slice + PERIOD <= self.now:
                call.where = 'gone'

    def let_time_pass(self, client):
        self._time.time += self.random.choice([0.5, 3, 20])

    # what must hold

    def check(self, client):
        queue, model = client.begin(), self.model
        assert queue.length_new() == len(model.at('waiting', 'cancelled'))
        assert queue.length_accepted() == len(model.at('running'))
        assert set(queue.desk.running) == {call.id for call in model.calls.values()
                                           if call.on_desk}
        for call in model.calls.values():
            deferred = queue.find(call.id)
            if call.where == 'gone':
                assert deferred is None
            else:
                assert (call, deferred.state) == (call, call.state)
        assert set(queue.failed) == {call.id for call in model.at('filed')
                                     if call.state == FAILED} | self._failed_in_lanes(queue)
        self._check_waiting(queue.waiting, queue.desk)
        client.abort()

    def _failed_in_lanes(self, queue):
        """What runs once more is no longer listed as failed when it is taken in."""
        return {call.id for call in self.model.at('waiting', 'cancelled', 'running', 'ended')
                if call.id in queue.failed and not self._taken_in(queue, call)}

    def _taken_in(self, queue, call):
        return call.place in queue.waiting or call.on_desk

    def _check_waiting(self, waiting, desk):
        assert desk.n_ready == len(waiting.ready)
        assert desk.n_later == len(waiting.later)
        assert desk.n_aside == len(waiting.blocked) + len(waiting.parked)
        places = [place for place, _ in waiting.items()]
        assert len(places) == len(set(places))
        by_place = {call.place: call for call in self.model.at('waiting', 'cancelled')}
        for place, deferred in waiting.items():
            assert by_place[place].id == deferred.id
            assert waiting.find(place[1], *place[2:]) is deferred
        assert len(waiting._where) == desk.n_later + desk.n_aside
        awaiting = {place for places in waiting._awaited.values() for place in places}
        assert awaiting <= set(waiting.parked)
        assert all(places for places in waiting._awaited.values())
        for place in waiting.parked:
            # Whoever is parked is told of somebody's end.
            assert place in awaiting or by_place[place].ended
        # Looked at when they expire are those that wait and have not begun, and no others.
        noted = {place for place, _ in waiting._expiring.values()}
        assert noted <= set(by_place)
        assert noted >= {place for place, deferred in waiting.items()
                         if deferred.expires_at is not None and deferred.state == NEW
                         and not deferred.attempt}


STEPS = ['put'] * 5 + ['beat'] * 6 + ['succeed'] * 5 + ['fail'] * 3 + ['archive'] * 2 + [
    'time_out', 'give_back', 'cancel', 'cancel', 'retry', 'retry', 'drop', 'let_time_pass',
    'let_time_pass']


@pytest.mark.parametrize('seed', range(8))
def test_lengths_order_and_places_agree_with_a_model_through_a_random_history(
        store, seed, monkeypatch):
    time = FixedClock()
    monkeypatch.setattr(clock, 'SYSTEM', time)
    run = Run(store, seed, time)
    for number in range(300):
        step = run.random.choice(STEPS)
        getattr(run, step)(run.random.choice(run.clients))
        run.check(run.clients[number % 3])
    # In the end everything that was committed comes to its end.
    time.time += 1_000
    for _ in range(400):
        run.beat(run.clients[0])
        run.succeed(run.clients[1])
        run.succeed(run.clients[2])
        run.archive(run.clients[0])
        if not run.model.at('waiting', 'running', 'ended', 'cancelled'):
            break
    else:
        raise AssertionError(f'left: {run.model.at("waiting", "running")}')
    run.check(run.clients[1])
    queue = run.clients[1].begin()
    assert queue.length_new() == queue.length_accepted() == 0
    assert not queue.waiting._awaited and not queue.waiting._expiring
    assert len(run.model.calls) > 50
