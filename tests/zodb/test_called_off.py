"""A move is called off half way: what stays waits for what has gone."""

import pytest

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


def call_off(site):
    site.begin()
    moving.stay(site['old'])
    site.commit()


@pytest.mark.parametrize('commits', ['move, put, call off', 'move, call off, put'])
@pytest.mark.parametrize('ends', ['before it is taken in', 'after'])
def test_what_is_put_meanwhile_runs_when_the_call_that_it_waits_for_has_ended_elsewhere(
        sites, commits, ends):
    """As a callback that is added to a call is; who adds it has not heard of the move."""
    site, caller = sites(), sites()
    first, = site.put(make_call(1))
    awaited = caller.begin().find(first)
    follower = caller['old'].put(make_call(2), 5, caller.names, [awaited]).id
    assert site.begin().move() == 1
    site.commit()
    for act in commits.split(', ')[1:]:
        caller.commit() if act == 'put' else call_off(site)
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
    call_off(site)
    site.beat('old')
    assert site.begin()['old'].waiting.parted
    run_elsewhere(site)
    look_again(site)
    second, = site.put(make_call(3))
    site.put(make_call(4), after=[second])
    site.beat('old')
    assert len(site.begin()['old'].waiting.parked) == 1
    assert not site['old'].waiting.parted


@pytest.fixture
def undoing(file_store):
    """A Site in a storage that can undo."""
    client = file_store.client()
    client.begin()
    client.connection.root()['site'] = {
        'old': Queue(), 'one': Queue(), 'two': Queue(), 'names': Names()}
    client.commit()
    return Site(client, 'site')


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
    call_off(undoing)
    undo_one_taken_in(undoing, file_store)
    assert undoing.beat('old', slots=9) == []
    assert undoing.lengths()['old'] == (0, 0)
    assert undoing.beat('one', slots=9) + undoing.beat('two', slots=9) == [gone]


def test_what_has_come_back_is_not_taken_in_twice_after_an_undo(undoing, file_store):
    """It is in the lane as what it was and as what was moved."""
    back, = undoing.put(make_call(1))
    undoing.begin().move()
    undoing.commit()
    call_off(undoing)
    place = undoing.begin().place(back)
    moving.move_some(undoing[place], [moving.Target('old', undoing['old'], {})], undoing.names,
                     LATE, PERIOD)
    undoing.commit()
    undo_one_taken_in(undoing, file_store)
    undoing.beat('old')
    assert undoing.lengths()['old'] == (1, 0)
    assert undoing.beat('old', slots=9) == [back]
