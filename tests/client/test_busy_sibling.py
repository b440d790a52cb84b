"""A manager whose worker is busy is visited by idle workers of its siblings."""

import threading

import pytest
import transaction

from Products.zasync.options import Options
from Products.zasync.policy import WORKER_GONE
from tests.client import jobs
from tests.client.farm import CALL
from tests.client.farm import mark
from tests.client.farm import states


def busy_sibling(farm, tmp_path, waiting):
    """A worker for zam2 whose only thread is held up, and so many calls behind it."""
    path = str(tmp_path / 'go')
    busy = farm.serve('zam2')
    farm.put_to('zam2', 'zope_call', jobs.wait_for_file, path)
    farm.step(busy)
    calls = [farm.put_to('zam2', *mark(f'm{number}')) for number in range(waiting)]
    farm.clock.advance(10)
    farm.step(busy)
    return busy, calls, tmp_path / 'go'


def test_an_idle_worker_takes_waiting_calls_of_a_busy_sibling(farm, tmp_path):
    busy, calls, go = busy_sibling(farm, tmp_path, 5)
    idle = farm.serve('zam1', threads=2)
    for _ in range(8):
        farm.clock.advance(0.3)
        farm.run(idle, rounds=1)
    assert states(*calls) == ['resolved'] * 5
    assert farm.holder('zam2') == (busy.boot, False)
    assert all(farm.marks[f'm{number}'] == f'm{number}' for number in range(5))
    go.touch()
    farm.settle(busy)
    farm.let_pass(20, busy, idle)
    assert farm.zad.zam2.queue.desk.running == {}
    assert (farm.zad.zam2.lenNewCalls(), farm.zad.zam2.lenAcceptedCalls()) == (0, 0)


def test_a_worker_with_work_of_its_own_visits_nobody(farm, tmp_path):
    _, calls, go = busy_sibling(farm, tmp_path, 2)
    also_busy = farm.serve('zam1')
    farm.put_to('zam1', 'zope_call', jobs.wait_for_file, str(go))
    farm.step(also_busy)
    for _ in range(4):
        farm.clock.advance(2)
        farm.step(also_busy)
    transaction.begin()
    assert states(*calls) == ['new', 'new']
    go.touch()


def test_a_sibling_with_free_threads_is_left_alone(farm):
    farm.serve('zam2', start=False, threads=4)
    idle = farm.serve('zam1')
    call = farm.put_to('zam2', *CALL)
    farm.clock.advance(2)
    farm.step(idle)
    transaction.begin()
    assert call.state == 'new'


def test_a_visitor_takes_only_what_it_has_a_plugin_for(farm, tmp_path):
    path = str(tmp_path / 'go')
    busy = farm.serve('zam2', plugins=[('odd', lambda run: 'odd')])
    farm.put_to('zam2', 'zope_call', jobs.wait_for_file, path)
    farm.step(busy)
    odd = [farm.put_to('zam2', 'odd') for _ in range(2)]
    plain = farm.put_to('zam2', *CALL)
    farm.clock.advance(10)
    farm.step(busy)
    idle = farm.serve('zam1', threads=2)
    for _ in range(4):
        farm.clock.advance(0.3)
        farm.run(idle, rounds=1)
    assert states(*odd, plain) == ['new', 'new', 'resolved']
    (tmp_path / 'go').touch()
    farm.settle(busy)
    farm.run(busy)
    assert states(*odd) == ['resolved', 'resolved']


@pytest.mark.parametrize('role', ['visitor', 'guest'])
def test_who_has_no_plugin_for_what_waits_does_not_look_at_it_again_and_again(
        farm, tmp_path, role):
    path = str(tmp_path / 'go')
    other = farm.serve('zam2', plugins=[('odd', lambda run: 'odd')])
    farm.put_to('zam2', 'zope_call', jobs.wait_for_file, path)
    farm.step(other)
    farm.put_to('zam2', 'odd')
    farm.clock.advance(10)
    farm.step(other)
    idle = farm.serve('zam1')
    if role == 'guest':
        farm.let_pass(70, idle)
        assert farm.holder('zam2') == (idle.boot, True)
        # What ran in the dead worker is run by the guest now.
        (tmp_path / 'go').touch()
        farm.run(idle)
    else:
        farm.clock.advance(2)
        farm.run(idle)
    before = farm.serial()
    assert [farm.step(idle) for _ in range(5)] == [False] * 5
    assert farm.serial() == before
    # What it can run it takes at once, all the same.
    plain = farm.put_to('zam2', *CALL)
    farm.step(idle)
    transaction.begin()
    assert plain.state != 'new'
    (tmp_path / 'go').touch()
    farm.settle(other)


@pytest.mark.parametrize('role', ['visitor', 'guest'])
def test_who_has_no_plugin_for_a_thousand_calls_reaches_those_behind_them(farm, tmp_path, role):
    other = farm.serve('zam2', plugins=[('odd', lambda run: 'odd')])
    farm.put_to('zam2', 'zope_call', jobs.wait_for_file, str(tmp_path / 'go'))
    farm.step(other)
    transaction.begin()
    for _ in range(1_100):
        farm.zad.zam2.putCall('odd')
    transaction.commit()
    plain = farm.put_to('zam2', *CALL)
    for _ in range(2):
        farm.clock.advance(10)
        farm.step(other)
    idle = farm.serve('zam1')
    if role == 'guest':
        farm.let_pass(70, idle)
        (tmp_path / 'go').touch()
        farm.run(idle)
    for _ in range(5):
        farm.clock.advance(2)
        farm.run(idle, rounds=2)
    assert farm.holder('zam2') == ((idle if role == 'guest' else other).boot, role == 'guest')
    assert plain.state == 'resolved'
    assert farm.zad.zam2.lenNewCalls() == 1_100
    (tmp_path / 'go').touch()
    farm.settle(other)


def visit(farm, call):
    """A worker of zam1 that has taken that call of a busy sibling, and does not run it."""
    visitor = farm.serve('zam1', start=False)
    farm.clock.advance(0.3)
    farm.step(visitor)
    transaction.begin()
    assert call.owner == visitor.boot
    return visitor


def test_a_call_of_a_visitor_that_dies_is_found_by_the_desks_own_worker(farm, tmp_path):
    busy, calls, go = busy_sibling(farm, tmp_path, 1)
    visitor = visit(farm, calls[0])
    farm.let_pass(50, busy)
    assert calls[0].owner == visitor.boot  # it may be alive
    farm.let_pass(15, busy)
    assert calls[0].owner is None
    go.touch()
    farm.settle(busy)
    farm.run(busy)
    assert calls[0].state == 'resolved' and calls[0].attempt == 2


def test_a_call_of_a_visitor_that_starts_anew_is_given_out_again_at_once(farm, tmp_path):
    busy, calls, go = busy_sibling(farm, tmp_path, 1)
    visit(farm, calls[0])
    farm.serve('zam1', start=False)
    go.touch()
    farm.settle(busy)
    farm.run(busy)
    assert calls[0].state == 'resolved'
    assert [attempt.outcome for attempt in calls[0].attempts] == [WORKER_GONE, 'resolved']


def test_a_call_that_kills_its_visitors_fails(farm, tmp_path):
    busy, calls, go = busy_sibling(farm, tmp_path, 1)
    for _ in range(5):
        visit(farm, calls[0])
        farm.serve('zam1', start=False)
        farm.step(busy)
    transaction.begin()
    assert calls[0].state == 'failed' and calls[0].failure.type_name.endswith('Interrupted')
    go.touch()
    farm.settle(busy)


def test_progress_and_cancellation_reach_a_visitor(farm, tmp_path):
    busy, _, go = busy_sibling(farm, tmp_path, 0)
    call = farm.put_to('zam2', 'zope_call', jobs.tell_progress_for_ever, 'n',
                       str(tmp_path / 'told'))
    farm.clock.advance(10)
    farm.step(busy)
    visitor = farm.serve('zam1')
    farm.clock.advance(0.3)
    farm.step(visitor)
    reached = threading.Event()
    for _ in range(500):
        if (tmp_path / 'told').exists():
            break
        reached.wait(0.01)
    farm.clock.advance(1)
    farm.step(visitor)
    transaction.begin()
    assert call.progress is not None and call.progress.done > 0
    assert call.cancel()
    transaction.commit()
    farm.step(visitor)
    farm.settle(visitor)
    assert call.state == 'cancelled'
    go.touch()
    farm.settle(busy)
    farm.let_pass(20, visitor, busy)
    assert farm.zad.zam2.queue.desk.running == {}


def test_what_a_visitor_runs_goes_on_when_it_adopts_the_desk(farm, tmp_path):
    """Else its own run would be dropped, and one that may not run twice would fail."""
    busy, gate = farm.serve('zam2'), str(tmp_path / 'gate')
    farm.put_to('zam2', 'zope_call', jobs.wait_for_file, str(tmp_path / 'go'))
    farm.step(busy)
    visited = farm.put_to('zam2', 'zope_call', jobs.mark_then_wait, 'n', gate,
                          options=Options(retry=False))
    farm.clock.advance(10)
    farm.step(busy)
    visitor = farm.serve('zam1')
    farm.clock.advance(0.3)
    farm.step(visitor)
    transaction.begin()
    assert visited.owner == visitor.boot
    farm.let_pass(70, visitor)
    assert farm.holder('zam2') == (visitor.boot, True)
    (tmp_path / 'gate').touch()
    farm.settle(visitor)
    assert (visited.state, visited.attempt, farm.marks['n']) == ('resolved', 1, 1)
    (tmp_path / 'go').touch()
    farm.settle(busy)


def test_a_visitor_sleeps_while_a_long_call_of_its_sibling_runs(farm, tmp_path):
    """It owes that desk no sign of life: nothing it does there will ever be late."""
    busy, gate = farm.serve('zam2'), tmp_path / 'gate'
    for _ in range(2):
        farm.put_to('zam2', 'zope_call', jobs.wait_for_file, str(gate))
    farm.step(busy)
    farm.clock.advance(10)
    farm.step(busy)
    visitor = farm.serve('zam1')
    farm.clock.advance(0.3)
    farm.step(visitor)
    assert visitor.held()
    for _ in range(3):
        farm.clock.advance(6)
        farm.step(busy)
        farm.step(visitor)
        assert visitor._seconds_to_sleep(farm.clock.now()) > 0.1
    gate.touch()
    farm.settle(visitor)
    farm.settle(busy)
