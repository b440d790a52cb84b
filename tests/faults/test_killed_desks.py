"""Scenarios: who serves a manager dies over its desk, and so does who moves calls.

Imports: crashpoints, jobs.
"""

import transaction

from Products.zasync.clock import ManualClock
from Products.zasync.clock import SYSTEM
from Products.zasync.options import Retry
from Products.zasyncdispatcher import leaving
from tests.faults import jobs
from tests.faults.crashpoints import at


ONCE_MORE = ['interrupted', 'resolved']
AGAIN_ELSEWHERE = ['its worker was gone', 'resolved']


# filing

def ended_and_not_filed(ground):
    """→ (a call that has ended, the doomed worker that is to file it)."""
    deferred, doomed = ground.effect(), ground.doomed()
    ground.wait(lambda: deferred.ended)
    assert deferred.id in ground.zad.zam1.queue.desk.running
    return deferred, doomed


def is_filed(ground, deferred):
    """Whether it is kept, and nothing else is left to do."""
    ground.look()
    queue = ground.zad.zam1.queue
    return (queue.find(deferred.id) is deferred and not queue.desk.running
            and not queue.length_new() and not queue.cancelled)


@at(21)
def test_a_worker_is_killed_while_it_files_what_has_ended(ground):
    deferred, doomed = ended_and_not_filed(ground)
    ground.stops(doomed)
    assert deferred.id in ground.zad.zam1.queue.desk.running
    ground.next_life()
    assert is_filed(ground, deferred)
    assert ground.outcomes(deferred) == ['resolved'] and ground.effects(deferred) == (1, 1)


@at(22)
def test_what_was_filed_stays_filed(ground):
    deferred, doomed = ended_and_not_filed(ground)
    ground.stops(doomed)
    assert is_filed(ground, deferred)
    ground.next_life()
    assert is_filed(ground, deferred)
    assert ground.outcomes(deferred) == ['resolved'] and ground.effects(deferred) == (1, 1)


@at(23)
def test_a_running_call_that_was_cancelled_is_filed_by_the_next_life(ground):
    deferred = ground.effect(jobs.effect_at_gate)
    doomed = ground.doomed()
    ground.wait(lambda: ground.is_at_gate(deferred))
    ground.look()
    ground.do(ground.zad.zam1.cancel, deferred.id)
    ground.dies(doomed)
    assert deferred.state == 'cancelled' and deferred.id in ground.zad.zam1.queue.desk.running
    ground.next_life()
    assert is_filed(ground, deferred) and ground.effects(deferred) == (0, 0)


@at(24)
def test_a_waiting_call_that_was_cancelled_is_filed_by_the_next_life(ground):
    deferred = ground.effect()
    ground.do(deferred.cancel)
    ground.dies(ground.doomed())
    assert deferred.state == 'cancelled' and deferred.id in ground.zad.zam1.queue.cancelled
    ground.next_life()
    assert is_filed(ground, deferred) and ground.effects(deferred) == (0, 0)


@at(25)
def test_a_worker_is_killed_while_it_drops_old_results(ground):
    ground.clock = ManualClock(SYSTEM.now() - 3_600)
    ground.zad.zam1.rotation_period = 60
    transaction.commit()
    deferred = ground.effect()
    ground.stop(ground.next_life())
    waits = ground.effect()  # or a beat would have nothing to do for a while
    ground.dies(ground.doomed())
    assert ground.zad.zam1.queue.find(deferred.id) is deferred
    ground.clock = ManualClock(SYSTEM.now() + 1)
    ground.next_life()
    assert ground.zad.zam1.queue.find(deferred.id) is None and ground.effects(waits) == (1, 1)


# giving back, time-outs, periodic calls

@at(26)
def test_a_worker_is_killed_while_it_puts_a_failed_call_back(ground):
    deferred = ground.effect(jobs.fail_at_first, retry=Retry(2, delay=3_600))
    ground.dies(ground.doomed())
    assert deferred.state == 'accepted' and ground.effects(deferred) == (0, 1)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (1, 2)


@at(27)
def test_a_worker_is_killed_while_it_gives_claims_back(ground):
    doomed = ground.doomed(threads=1, program='tests.faults.claimingahead')
    quick = ground.effect()
    ground.wait(lambda: quick.ended)
    # It knows that calls are quick, so it claims more than it has threads for.
    long, behind = ground.effects_together(jobs.effect_at_gate, jobs.effect)
    ground.dies(doomed)
    assert (long.state, behind.state) == ('accepted', 'accepted')
    ground.open_gate(long)
    ground.next_life()
    for each in (long, behind):
        assert ground.outcomes(each) == ONCE_MORE and ground.effects(each) == (1, 1)


@at(28)
def test_a_worker_is_killed_while_a_call_times_out(ground):
    deferred = ground.effect(jobs.effect_at_gate, timeout=0.3)
    ground.dies(ground.doomed())
    assert deferred.state == 'accepted'
    ground.open_gate(deferred)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (1, 1)


@at(29)
def test_a_time_out_that_is_committed_is_the_end(ground):
    deferred = ground.effect(jobs.effect_at_gate, timeout=0.3)
    ground.dies(ground.doomed())
    assert deferred.state == 'failed' and deferred.failure.type_name.endswith('.TimedOut')
    ground.open_gate(deferred)
    ground.next_life()
    assert ground.outcomes(deferred) == ['failed'] and ground.effects(deferred) == (0, 0)


@at(30)
def test_a_worker_is_killed_while_it_makes_a_periodic_call(ground):
    name, path = ground.new_effect()
    transaction.begin()
    ground.zad.zam1.setPeriodicCall('new-year', '0 0 1 1 *', 'UTC', 'zope_call',
                                    (jobs.effect, name, path))
    ground.zad.zam1.runPeriodicCall('new-year')
    transaction.commit()
    ground.dies(ground.doomed())
    assert ground.zad.zam1.periodic['new-year'].last is None
    ground.next_life()
    assert ground.count(name, path) == (1, 1)
    assert ground.outcomes(ground.zad.zam1.periodic['new-year'].last) == ['resolved']


# start and stop

def claimed_by_a_dead_worker(ground):
    """→ (a call that a worker of zam1 had claimed, that worker, which is no more)."""
    deferred, before = ground.effect(), ground.abandon()
    assert deferred.state == 'accepted' and ground.holder('zam1') == (before.boot, False)
    return deferred, before


@at(31)
def test_a_worker_is_killed_while_it_starts(ground):
    deferred, before = claimed_by_a_dead_worker(ground)
    ground.dies(ground.doomed())
    assert deferred.state == 'accepted' and ground.holder('zam1') == (before.boot, False)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (1, 1)


@at(32)
def test_what_a_start_gave_out_again_is_run_by_the_next_one(ground):
    deferred, before = claimed_by_a_dead_worker(ground)
    ground.dies(ground.doomed())
    assert deferred.state == 'new' and ground.holder('zam1')[0] != before.boot
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (1, 1)


@at(33)
def test_a_worker_is_killed_while_it_stops(ground):
    deferred, doomed = ended_and_not_filed(ground)
    ground.stops(doomed)
    assert is_filed(ground, deferred) and ground.holder('zam1')[0] is not None
    waits = ground.effect()
    began = ground.clock.monotonic()
    ground.next_life()
    assert ground.clock.monotonic() == began  # it watched nobody
    assert ground.effects(waits) == ground.effects(deferred) == (1, 1)


@at(34)
def test_a_desk_that_was_left_is_free(ground):
    deferred, doomed = ended_and_not_filed(ground)
    ground.stops(doomed)
    assert is_filed(ground, deferred) and ground.holder('zam1') == (None, False)
    waits = ground.effect()
    ground.next_life()
    assert ground.effects(waits) == ground.effects(deferred) == (1, 1)


# siblings

def rescuer(ground, times=1):
    """A doomed worker of zam2, with enough to do that it soon may take others for dead."""
    doomed = ground.doomed('zam2', times)
    for _ in range(4):
        own = ground.effect(id='zam2')
        ground.wait(lambda own=own: own.ended)
    return doomed


@at(35)
def test_a_worker_is_killed_while_it_adopts_a_desk(ground):
    deferred, before = claimed_by_a_dead_worker(ground)
    ground.dies(rescuer(ground))
    assert deferred.state == 'accepted' and ground.holder('zam1') == (before.boot, False)
    ground.sibling()
    assert ground.outcomes(deferred) == AGAIN_ELSEWHERE and ground.effects(deferred) == (1, 1)


@at(36)
def test_a_desk_that_a_dead_guest_had_adopted_is_adopted_by_another(ground):
    deferred, before = claimed_by_a_dead_worker(ground)
    ground.dies(rescuer(ground))
    boot, is_guest = ground.holder('zam1')
    assert deferred.state == 'new' and is_guest and boot != before.boot
    ground.sibling()
    assert ground.outcomes(deferred) == AGAIN_ELSEWHERE and ground.effects(deferred) == (1, 1)


@at(8)
def test_a_guest_whose_claim_is_not_committed_costs_nothing(ground):
    deferred, before = claimed_by_a_dead_worker(ground)
    ground.dies(rescuer(ground, times=5))  # four were its own
    assert deferred.state == 'new' and ground.holder('zam1')[1]
    ground.next_life()
    assert ground.outcomes(deferred) == AGAIN_ELSEWHERE and ground.effects(deferred) == (1, 1)


@at(9)
def test_a_guest_is_killed_after_a_claim(ground):
    deferred, before = claimed_by_a_dead_worker(ground)
    ground.dies(rescuer(ground, times=5))
    assert deferred.state == 'accepted' and ground.holder('zam1') == (deferred.owner, True)
    worker = ground.next_life()
    assert deferred.state == 'accepted'  # nobody knows yet that the guest is dead
    ground.let_pass(40, worker)
    ground.run(worker)
    assert ground.outcomes(deferred) == ['its worker was gone', *AGAIN_ELSEWHERE]
    assert ground.effects(deferred) == (1, 1)


def served_by_a_guest(ground):
    """→ (a call of zam1 that waits, the worker of zam3 that serves it)."""
    ground.abandon()
    deferred, guest = ground.effect(), ground.serve('zam3', threads=2)
    ground.let_pass(35, guest)
    assert ground.holder('zam1') == (guest.boot, True)
    return deferred, guest


@at(31)
def test_a_worker_whose_return_is_not_committed_leaves_its_calls_with_the_guest(ground):
    deferred, guest = served_by_a_guest(ground)
    ground.dies(ground.doomed())
    assert ground.holder('zam1') == (guest.boot, True)
    ground.run(guest)
    assert ground.effects(deferred) == (1, 1)


@at(32)
def test_a_worker_is_killed_while_it_takes_its_desk_back(ground):
    deferred, guest = served_by_a_guest(ground)
    ground.dies(ground.doomed())
    assert ground.holder('zam1')[0] not in (guest.boot, None)
    ground.let_pass(70, guest)
    ground.run(guest)
    assert ground.effects(deferred) == (1, 1)


def ended_in_a_dead_worker(ground):
    """→ a call that has ended and that a worker of zam1, which is no more, has not filed."""
    deferred, before = ground.effect(), ground.abandon()
    before._pool.start()
    ground.settle(before)
    assert deferred.ended and deferred.id in ground.zad.zam1.queue.desk.running
    return deferred


@at(37)
def test_a_guest_is_killed_while_it_leaves_a_desk(ground):
    deferred = ended_in_a_dead_worker(ground)
    ground.dies(rescuer(ground))
    assert is_filed(ground, deferred) and ground.holder('zam1')[1]
    waits = ground.effect()
    ground.next_life()
    assert ground.effects(deferred) == ground.effects(waits) == (1, 1)


@at(38)
def test_a_desk_that_a_guest_has_left_is_adopted_for_what_is_put_later(ground):
    deferred = ended_in_a_dead_worker(ground)
    ground.dies(rescuer(ground))
    assert is_filed(ground, deferred) and ground.holder('zam1') == (None, False)
    waits = ground.effect()
    ground.sibling()
    assert ground.effects(deferred) == ground.effects(waits) == (1, 1)


def busy(ground):
    """→ (two calls, the worker of zam1 that has one thread, and has claimed the first)."""
    worker = ground.serve('zam1', start=False)
    calls = ground.effect(), ground.effect()
    ground.step(worker)
    ground.look()
    assert [deferred.state for deferred in calls] == ['accepted', 'new']
    return calls, worker


@at(8)
def test_a_visitor_whose_claim_is_not_committed_costs_nothing(ground):
    calls, worker = busy(ground)
    ground.dies(ground.doomed('zam2'))
    assert calls[1].state == 'new'
    worker._pool.start()
    ground.run(worker)
    for each in calls:
        assert ground.outcomes(each) == ['resolved'] and ground.effects(each) == (1, 1)


@at(9)
def test_a_visitor_is_killed_after_a_claim(ground):
    calls, worker = busy(ground)
    ground.dies(ground.doomed('zam2'))
    assert calls[1].owner not in (worker.boot, None)
    worker._pool.start()
    ground.run(worker)
    assert calls[1].state == 'accepted'  # nobody knows yet that the visitor is dead
    ground.let_pass(40, worker)
    ground.run(worker)
    assert ground.outcomes(calls[1]) == AGAIN_ELSEWHERE
    for each in calls:
        assert ground.effects(each) == (1, 1)


# moving

@at(39)
def test_the_removal_of_a_manager_is_interrupted(ground):
    calls = [ground.effect() for _ in range(3)]
    ground.request('leave')
    assert all(each.is_in(ground.zad.zam1.queue) for each in calls)
    assert not ground.zad.zam1.leaving and not ground.zad.zam1.paused
    ground.next_life()
    assert [ground.effects(each) for each in calls] == [(1, 1)] * 3


@at(3)
def test_a_part_of_a_move_that_is_committed_has_moved_and_the_rest_waits(ground):
    calls = [ground.effect() for _ in range(3)]
    ground.request('leave')
    left = [each for each in calls if each.is_in(ground.zad.zam1.queue)]
    assert len(left) == 1 and ground.zad.zam1.leaving and ground.zad.zam1.paused
    finish(ground)
    run_siblings(ground)
    assert [ground.effects(each) for each in calls] == [(1, 1)] * 3


@at(40)
def test_a_manager_whose_deletion_is_not_committed_has_what_it_had(ground):
    calls = [ground.effect() for _ in range(3)]
    ground.request('leave')
    assert ground.zad.zam1.leaving
    assert len([each for each in calls if each.is_in(ground.zad.zam1.queue)]) == 1
    finish(ground)
    run_siblings(ground)
    assert [ground.effects(each) for each in calls] == [(1, 1)] * 3


def finish(ground):
    """Go on with the removal of zam1, as the button does."""
    while 'zam1' in ground.zad.objectIds():
        ground.do(leaving.go_on, ground.zad, ground.zad.zam1, ground.clock.now())


def run_siblings(ground):
    """The others do what they got."""
    for id in ('zam2', 'zam3'):
        ground.next_life(id)
    ground.look()
