"""A move is called off half way: what stays waits for what has gone."""

import pytest
from persistent import GHOST

from Products.zasync import archiving
from Products.zasync import moving
from Products.zasync.interfaces import RESOLVED
from Products.zasync.names import Names
from Products.zasync.queue import Queue
from tests.fakes import make_call
from tests.zodb.movingsite import LATE
from tests.zodb.movingsite import PERIOD
from tests.zodb.movingsite import Site


def run_elsewhere(site):
    """Run and file what the other queues have."""
    for queue in ('one', 'two'):
        for id in site.beat(queue, LATE, 9):
            site.begin().find(id).succeed(None, LATE)
            site[queue].archive_ended(id, PERIOD)
            site.commit()


def look_again(site):
    """What a worker does each minute."""
    site.begin()['old'].recheck_held_up(LATE)
    site.commit()


@pytest.mark.parametrize('ends', ['before it is taken in', 'after'])
def test_what_is_put_meanwhile_runs_when_the_call_that_it_waits_for_has_ended_elsewhere(
        sites, ends):
    """As a callback that is added to a call is; who adds it has not heard of the move."""
    site, caller = sites(), sites()
    first, = site.put(make_call(1))
    awaited = caller.begin().find(first)
    follower = caller['old'].put(make_call(2), 5, caller.names, [awaited]).id
    assert site.begin().move() == 1
    site.commit()
    caller.commit()
    if ends == 'before it is taken in':
        run_elsewhere(site)
    assert site.beat('old', LATE, 9) == ([follower] if ends == 'before it is taken in' else [])
    if ends == 'after':
        look_again(site)
        assert site.beat('old', LATE, 9) == []
        run_elsewhere(site)
        look_again(site)
        assert site.beat('old', LATE, 9) == [follower]
    assert site.begin().find(first).state == RESOLVED


def test_when_nothing_waits_for_calls_elsewhere_nobody_looks_for_them(sites):
    site, caller = sites(), sites()
    first, = site.put(make_call(1))
    caller.begin()
    caller['old'].put(make_call(2), 5, caller.names, [caller.find(first)])
    site.begin().move()
    site.commit()
    caller.commit()
    site.beat('old')
    assert site.begin()['old'].waiting.parted
    run_elsewhere(site)
    look_again(site)
    second, = site.put(make_call(3))
    site.put(make_call(4), after=[second])
    site.beat('old')
    assert len(site.begin()['old'].waiting.parked) == 1
    assert not site['old'].waiting.parted


def test_what_has_gone_keeps_nobody_looking_at_what_waits_here(sites):
    site = sites()
    site.put(make_call(1))
    site.begin().move()
    site.commit()
    second, = site.put(make_call(2))
    waits, = site.put(make_call(3), after=[second])
    assert site.beat('old', LATE, 1) == [second]
    queue = site.begin()['old']
    site.client.connection.cacheMinimize()
    queue.recheck_held_up(LATE)
    assert len(queue.waiting.parked) == 1 and queue.find(waits)._p_state != GHOST
    site.client.connection.cacheMinimize()
    queue.recheck_held_up(LATE)
    assert queue.waiting.parked._p_state == GHOST


def test_what_waits_here_for_a_call_that_goes_is_looked_at(sites):
    site = sites()
    first, = site.put(make_call(1))
    waits, = site.put(make_call(2), after=[first])
    site.beat('old')
    assert not site.begin()['old'].waiting.parted
    assert site.move(most=1) == 1
    site.commit()
    assert site.begin()['old'].waiting.parted
    run_elsewhere(site)
    look_again(site)
    assert site.beat('old', LATE, 9) == [waits]


# who knows the old queue

def dropped(site, now):
    site.begin()['old'].drop_old(now, PERIOD)
    site.commit()


def test_the_old_queue_tells_of_a_call_until_a_rotation_period_after_its_end(sites):
    site = sites()
    first, = site.put(make_call(1))
    site.begin().move()
    site.commit()
    for days in (1, 2, 9):  # it waits, however long
        dropped(site, LATE + days * PERIOD)
        assert site.begin()['old'].find(first) is not None
    for id in [each for queue in ('one', 'two') for each in site.beat(queue, LATE, 9)]:
        site.begin().find(id).succeed(None, LATE + 9 * PERIOD)
        site.commit()
    dropped(site, LATE + 9.9 * PERIOD)
    assert site.begin()['old'].find(first).state == RESOLVED
    for beat in range(2):
        dropped(site, LATE + (10.5 + beat) * PERIOD)
    assert site.begin()['old'].find(first) is None
    assert not site['old'].departed


def test_a_beat_looks_at_a_few_of_those_that_have_gone(sites, monkeypatch):
    monkeypatch.setattr(archiving, 'DEPARTED_MOST', 2)
    site = sites()
    site.put(*(make_call(number) for number in range(5)))
    site.begin().move()
    site.commit()
    run_elsewhere(site)
    left = []
    for _ in range(4):
        left.append(sum(map(len, site.begin()['old'].departed.values())))
        dropped(site, LATE + 2 * PERIOD)
    assert left == [5, 3, 1, 0]


@pytest.fixture
def undoing(file_store):
    """A Site in a storage that can undo."""
    client = file_store.client()
    client.begin()
    client.connection.root()['site'] = {
        'old': Queue(), 'one': Queue(), 'two': Queue(), 'names': Names()}
    client.commit()
    return Site(client, 'site')


def test_a_call_that_has_gone_and_whose_put_was_undone_is_dropped(undoing, file_store):
    gone, = undoing.put(make_call(1))
    [put] = file_store.databases[0].undoLog(0, 1)
    queue = undoing.begin()['old']
    queue.note_departed(queue.find(gone), LATE, PERIOD)
    undoing.commit()
    undoing.begin()
    file_store.databases[0].undo(put['id'], undoing.client.tm.get())
    undoing.commit()
    dropped(undoing, LATE + 2 * PERIOD)
    assert not undoing.begin()['old'].departed


def undo_one_taken_in(undoing, file_store):
    """Put one to lane 0 that is taken in and undone; so the whole lane is looked at."""
    undoing.put(make_call(2))
    [put] = file_store.databases[0].undoLog(0, 1)
    undoing.beat('old')
    undoing.begin()
    file_store.databases[0].undo(put['id'], undoing.client.tm.get())
    undoing.commit()


def test_what_has_gone_is_not_taken_in_again_after_an_undo(undoing, file_store):
    gone, = undoing.put(make_call(1))
    undoing.begin().move()
    undoing.commit()
    undo_one_taken_in(undoing, file_store)
    assert undoing.beat('old', slots=9) == []
    assert undoing.lengths()['old'] == (0, 0)
    assert undoing.beat('one', slots=9) + undoing.beat('two', slots=9) == [gone]


def test_what_has_come_back_is_not_taken_in_twice_after_an_undo(undoing, file_store):
    """It is in the lane as what it was and as what was moved."""
    back, = undoing.put(make_call(1))
    undoing.begin().move()
    undoing.commit()
    place = undoing.begin().place(back)
    moving.move_some(undoing[place], [moving.Target('old', undoing['old'], {})], undoing.names,
                     LATE, PERIOD)
    undoing.commit()
    undo_one_taken_in(undoing, file_store)
    undoing.beat('old')
    assert undoing.lengths()['old'] == (1, 0)
    assert undoing.beat('old', slots=9) == [back]
