"""A move is called off half way: what stays waits for what has gone."""

import pytest

from Products.zasync import moving
from Products.zasync.interfaces import RESOLVED
from tests.fakes import make_call
from tests.zodb.movingsite import LATE
from tests.zodb.movingsite import PERIOD


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
