"""Rescuer, rescued, returning, visiting: whoever meets at a desk, in every order of commits."""

import itertools

import pytest
from ZODB.POSException import ConflictError

from tests.fakes import make_call
from tests.fakes import NOW


LATE = NOW + 1_000
DAY = 86_400


def adopt(boot):
    """A sibling's worker takes the desk, and gives out again what ran there."""
    def act(queue, running):
        queue.desk.take(boot, guest=True)
        queue.give_back(running, LATE, 'its worker was gone')
    return act


def come_back(queue, running):
    """The manager's own worker, in its next life."""
    queue.desk.take('next life')
    queue.give_back(running, LATE, 'interrupted')


def go_on(queue, running):
    """The worker that was taken for dead claims what waits."""
    assert queue.desk.boot == 'first life'
    assert queue.take_in_and_claim('first life', LATE, 1, DAY)


def visit(queue, running):
    """An idle sibling's worker claims what waits; the desk is not its own."""
    assert queue.take_in_and_claim('visitor', LATE, 1, DAY)


def end(queue, running):
    """The running call commits its result."""
    queue.find(running).succeed(None, LATE)


def cancel(queue, running):
    """Somebody cancels it."""
    assert queue.find(running).cancel()


ACTS = {'one rescuer': adopt('one'), 'another rescuer': adopt('another'),
        'its own next life': come_back, 'the one taken for dead': go_on, 'a visitor': visit,
        'the result': end, 'a cancellation': cancel}

#: Who may do what it does whatever the other has done: claims do not touch the call that runs.
APART = [{'the one taken for dead', 'the result'}, {'the one taken for dead', 'a cancellation'},
         {'a visitor', 'the result'}, {'a visitor', 'a cancellation'}]


@pytest.mark.parametrize('first, second', list(itertools.permutations(ACTS, 2)))
def test_of_two_that_meet_at_a_desk_the_second_to_commit_is_refused(store, first, second):
    caller, worker, one, two = (store.client() for _ in range(4))
    running = caller.put(make_call(1))
    worker.begin().desk.take('first life')
    worker.commit()
    assert worker.beat(LATE, 1, boot='first life') == [running]
    waiting = caller.put(make_call(2))
    ACTS[first](one.begin(), running)
    ACTS[second](two.begin(), running)
    one.commit()
    if {first, second} in APART:
        two.commit()
    else:
        with pytest.raises(ConflictError):
            two.commit()
    # Whatever came of it, both calls are there once, and end once.
    queue = caller.begin()
    calls = {queue.find(id) for id in (running, waiting)}
    held = {id for id in queue.desk.running if not queue.desk.running[id].ended}
    assert held == {call.id for call in calls if call.state == 'accepted'}
    assert queue.length_accepted() == len(held)
    caller.abort()
    claimed = worker.beat(LATE + 1, 5, boot='at last')
    assert not held & set(claimed)
    queue = caller.begin()
    states = {queue.find(id).state for id in (running, waiting)}
    assert states <= {'accepted', 'resolved', 'cancelled'}
