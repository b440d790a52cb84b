"""A queue against a model of plain Python: whatever happens, the counts are exact."""

import random

import pytest

from Products.zasync.interfaces import ACCEPTED
from Products.zasync.interfaces import NEW
from Products.zasync.interfaces import RESOLVED
from tests.fakes import make_call
from tests.fakes import NOW


PERIOD = 80


class Model:
    """What a queue holds, as sets of ids."""

    def __init__(self):
        self.waiting = {}     # id → (−priority, put_at, lane, number), time before which not
        self.running = set()
        self.ended = set()    # ended and still on the desk
        self.archived = {}    # id → ended_at

    def place(self, priority, put_at, id):
        lane, number = (int(part, 16) for part in id.split('-')[:2])
        return (-priority, put_at, lane, number)

    def claimable(self, now):
        """Ids of what may be claimed, in order."""
        return [id for place, id in sorted((place, id) for id, (place, time)
                                           in self.waiting.items() if time <= now)]


class Run:
    """One random history, each step a transaction of one of three clients."""

    def __init__(self, store, seed):
        self.random = random.Random(seed)
        self.clients = [store.client() for _ in range(3)]
        self.model = Model()
        self.places = {}
        self.now = NOW
        self.puts = 0
        self.known = set()

    def put(self, client):
        queue, committed = client.begin(), self.random.random() < 0.85
        fresh = {}
        for _ in range(self.random.randint(1, 4)):
            self.puts += 1
            priority = self.random.choice([0, 0, 0, 1, -1])
            delay = self.random.choice([0, 0, 0, 5, 30])
            lane = self.random.randrange(3)
            call = make_call(priority=priority, put_at=self.now + self.puts / 1000,
                             not_before=self.now + delay if delay else 0.0)
            deferred = queue.put(call, lane)
            place = self.model.place(priority, call.put_at, deferred.id)
            self.places[deferred.id] = place
            fresh[deferred.id] = (place, call.not_before)
        if committed:
            client.commit()
            self.model.waiting.update(fresh)
            self.known.update(fresh)
        else:
            client.abort()
            assert all(client.begin().find(id) is None for id in fresh)
            client.abort()

    def beat(self, client):
        slots = self.random.choice([0, 1, 2, 5])
        queue = client.begin()
        due = self.model.claimable(self.now)
        if slots:
            # It may say so for nothing (a delayed call to be filed), never the other way.
            assert queue.has_work(self.now, slots) >= bool(due)
        client.abort()
        claimed = client.beat(self.now, slots)
        assert claimed == due[:slots]
        for id in claimed:
            del self.model.waiting[id]
            self.model.running.add(id)

    def end(self, client):
        if self.model.running:
            id = self.random.choice(sorted(self.model.running))
            client.begin().find(id).succeed(None, self.now)
            client.commit()
            self.model.running.remove(id)
            self.model.ended.add(id)

    def archive(self, client):
        queue = client.begin()
        for id in sorted(self.model.ended):
            queue.archive_ended(id, PERIOD)
            self.model.archived[id] = queue.find(id).ended_at
        client.commit()
        self.model.ended.clear()

    def give_back(self, client):
        if self.model.running:
            id = self.random.choice(sorted(self.model.running))
            delay = self.random.choice([0, 0, 10])
            client.begin().give_back(id, self.now, 'conflicts', self.now + delay)
            client.commit()
            self.model.running.remove(id)
            self.model.waiting[id] = (self.places[id], self.now + delay)

    def drop(self, client):
        client.begin()
        while client.queue.drop_old(self.now, PERIOD):
            pass
        client.commit()
        oldest = self.now - PERIOD * 9 / 8 - 1
        self.model.archived = {id: at for id, at in self.model.archived.items() if at > oldest}

    def let_time_pass(self, client):
        self.now += self.random.choice([0.5, 3, 20])

    def check(self, client):
        queue, model = client.begin(), self.model
        assert queue.length_new() == len(model.waiting)
        assert queue.length_accepted() == len(model.running)
        assert len(queue.desk.running) == len(model.running) + len(model.ended)
        for ids, state in ((model.waiting, NEW), (model.running, ACCEPTED),
                           (model.ended, RESOLVED)):
            assert {queue.find(id).state for id in ids} <= {state}
        for id, ended_at in model.archived.items():
            if ended_at > self.now - PERIOD:
                assert queue.find(id).state == RESOLVED
        client.abort()


STEPS = ['put'] * 5 + ['beat'] * 5 + ['end'] * 4 + ['archive'] * 2 + [
    'give_back', 'drop', 'let_time_pass', 'let_time_pass']


@pytest.mark.parametrize('seed', range(6))
def test_lengths_order_and_places_agree_with_a_model_through_a_random_history(store, seed):
    run = Run(store, seed)
    for number in range(300):
        step = run.random.choice(STEPS)
        client = run.random.choice(run.clients)
        getattr(run, step)(client)
        run.check(run.clients[number % 3])
    # In the end everything that was committed can be claimed.
    run.now += 1_000
    left = set(run.model.waiting)
    assert set(run.clients[0].beat(run.now, 10_000)) == left
    assert run.clients[1].begin().length_new() == 0
    assert run.puts > 100
