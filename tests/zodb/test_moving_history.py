"""Moving calls: a random history, in which all that may happen to them happens as well."""

import random

import pytest
from ZODB.POSException import ConflictError

from Products.zasync import putting
from Products.zasync.failure import Failure
from tests.fakes import make_call
from tests.fakes import NOW
from tests.zodb.movingsite import LATE
from tests.zodb.movingsite import PERIOD


class History:
    """Calls of all kinds, moved while they run, are cancelled, fail and are put."""

    def __init__(self, sites, seed):
        self.chance = random.Random(seed)
        self.sites = [sites() for _ in range(3)]
        self.now = LATE
        self.puts = 0
        self.ended = {}     # id → the state it ended in
        self.open = set()

    def put(self, site):
        site.begin()
        self.puts += 1
        choose = self.chance.choice
        put_at = NOW + choose([0, 0, self.puts])
        options = {'priority': choose([0, 0, 1]), 'series': choose([None, None, 's', 't']),
                   'not_before': choose([0.0, 0.0, self.now + 20]),
                   'expires_at': choose([None, None, self.now + 40])}
        call = make_call(**options)._replace(put_at=put_at)
        if self.chance.random() < 0.3:
            call = call._replace(
                plugin='aggregate', series=None, expires_at=None,
                members=tuple(make_call(number) for number in range(choose([1, 2, 4]))))
        id = putting.put(site[choose(['old', 'old', 'one', 'two'])], site.names, call, '').id
        found = [id, *(member.id for member in site.find(id).after)]
        if self.chance.random() < 0.2 and self.open:
            followed = site.find(choose(sorted(self.open)))
            if not followed.ended:
                found.append(followed._queue.put(
                    make_call(self.puts), choose([0, 1, 2]), after=[followed]).id)
        site.commit()
        self.open.update(found)

    def beat(self, site):
        queue = self.chance.choice(['one', 'two'])
        site.beat(queue, self.now, self.chance.choice([0, 1, 3]))
        self.note(site)

    def end(self, site):
        queue = self.chance.choice(['one', 'two'])
        running = sorted(site.begin()[queue].desk.running)
        if running:
            id = self.chance.choice(running)
            deferred, how = site.find(id), self.chance.random()
            if deferred.ended:  # it was cancelled while it ran
                site[queue].archive_ended(id, PERIOD)
            elif how < 0.2:
                site[queue].give_back(id, self.now, 'conflicts', self.now + 10)
            else:
                if how < 0.3:
                    deferred.fail(Failure('ValueError', 'no'), self.now)
                else:
                    deferred.succeed(None, self.now)
                site[queue].archive_ended(id, PERIOD)
        site.commit()
        self.note(site)

    def cancel(self, site):
        site.begin()
        if self.open and self.chance.random() < 0.3:
            site.find(self.chance.choice(sorted(self.open))).cancel()
        site.commit()
        self.note(site)

    def move(self, site):
        site.begin()
        site.move(self.now, most=self.chance.choice([1, 4, 20]))
        site.commit()
        self.note(site)

    def race(self, site):
        """A part of the move, and a beat of a target that overlaps with it."""
        other = self.sites[(self.sites.index(site) + 1) % 3]
        other.begin()
        other['one'].take_in_and_claim('boot-one', self.now, 2, PERIOD)
        site.begin()
        site.move(self.now, most=3)
        commits = [site.commit, other.commit]
        self.chance.shuffle(commits)
        for commit in commits:
            try:
                commit()
            except ConflictError:
                pass
        self.note(site)

    def pass_time(self, site):
        self.now += self.chance.choice([1, 15])

    def note(self, site):
        site.begin()
        for id in sorted(self.open):
            deferred = site.find(id)
            assert deferred is not None, id
            if deferred.ended:
                self.ended[id] = deferred.state
                self.open.remove(id)
        site.abort()

    def check(self, site):
        lengths = site.lengths()
        running = sum(length[1] for length in lengths.values())
        waiting = sum(length[0] for length in lengths.values())
        # What was cancelled is counted until a beat takes it out, what was put no one misses.
        withdrawn = sum(len(site[queue].cancelled) for queue in ('old', 'one', 'two'))
        assert len(self.open) <= running + waiting <= len(self.open) + withdrawn
        site.abort()

    def finish(self):
        site = self.sites[0]
        self.now += 1_000
        site.move_all(self.now)
        for _ in range(60):
            for queue in ('one', 'two'):
                site.beat(queue, self.now, 20)
                site.begin()
                for id, deferred in list(site[queue].desk.running.items()):
                    if not deferred.ended:
                        deferred.succeed(None, self.now)
                    site[queue].archive_ended(id, PERIOD)
                site.commit()
            self.note(site)
            if not self.open:
                break
        assert self.open == set()
        for queue in ('old', 'one', 'two'):
            site.beat(queue, self.now)
        assert site.lengths() == dict.fromkeys(('old', 'one', 'two'), (0, 0))
        assert not site['one'].intakes and not site['two'].intakes


STEPS = ['put'] * 6 + ['beat'] * 5 + ['end'] * 6 + ['move'] * 3 + ['race', 'cancel', 'pass_time']


@pytest.mark.parametrize('seed', range(10))
def test_all_calls_of_a_random_history_run_once_and_the_counts_are_exact(sites, seed):
    history = History(sites, seed)
    for _ in range(150):
        site = history.chance.choice(history.sites)
        getattr(history, history.chance.choice(STEPS))(site)
        history.check(site)
    history.finish()
    assert len(history.ended) >= 30
