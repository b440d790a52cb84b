"""A manager whose worker is dead is served by the workers of its siblings."""


import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.SpecialUsers import system
from ZODB.POSException import StorageError

from Products.zasync.options import Options
from Products.zasync.options import Retry
from tests.client import jobs
from tests.client.farm import CALL
from tests.client.farm import mark
from tests.client.farm import states


# a dead worker

def test_what_waits_for_a_dead_worker_is_run_by_a_sibling_and_no_call_moves(farm):
    dead, alive = farm.serve('zam2', start=False), farm.serve('zam1')
    waiting = [farm.put_to('zam2', *mark(f'm{number}')) for number in range(3)]
    farm.let_pass(59, alive)
    assert states(*waiting) == ['new'] * 3
    farm.let_pass(10, alive)
    farm.run(alive)
    assert states(*waiting) == ['resolved'] * 3
    assert all(farm.zad.zam2.queue.find(deferred.id) is deferred for deferred in waiting)
    assert farm.zad.zam1.calls() == []
    assert dead.boot != alive.boot


def test_a_worker_without_a_sibling_dies(farm):
    dead = farm.worker(start=False)  # its manager is in no dispatcher
    accepted, waiting = farm.put(*CALL), farm.put(*CALL)
    farm.step(dead)
    stranger = farm.serve('zam1')
    farm.let_pass(300, stranger)
    farm.run(stranger)
    assert states(accepted, waiting) == ['accepted', 'new']
    farm.run(farm.worker())
    assert states(accepted, waiting) == ['resolved', 'resolved']


def test_what_ran_in_a_dead_worker_is_given_out_again(farm):
    farm.serve('zam2', start=False)
    accepted = farm.put_to('zam2', *CALL)
    farm.step(farm._workers[0])
    transaction.begin()
    assert accepted.state == 'accepted'
    alive = farm.serve('zam1')
    farm.let_pass(70, alive)
    farm.run(alive)
    assert accepted.state == 'resolved'
    assert [attempt.outcome for attempt in accepted.attempts] == ['its worker was gone',
                                                                  'resolved']


def test_what_may_not_run_twice_fails_as_interrupted_when_its_worker_is_dead(farm):
    dead = farm.serve('zam2', start=False)
    once = farm.put_to('zam2', *CALL, options=Options(retry=False))
    farm.step(dead)
    alive = farm.serve('zam1')
    farm.let_pass(70, alive)
    farm.run(alive)
    assert once.state == 'failed' and once.failure.type_name.endswith('Interrupted')


def test_a_dispatcher_puts_nothing_to_a_manager_that_is_served_by_a_guest(farm):
    farm.serve('zam2', start=False)
    farm.put_to('zam2', *CALL)
    alive = farm.serve('zam1')
    farm.let_pass(70, alive)
    assert farm.holder('zam2') == (alive.boot, True)
    assert not farm.zad.load_of(farm.zad.zam2).alive
    assert 'takes no more calls' in farm.zad.load_of(farm.zad.zam2).why


@pytest.mark.parametrize('what', ['zasync serves a sibling', 'zasync leaves a sibling'])
def test_a_rescue_the_storage_does_not_take_is_tried_again(farm, monkeypatch, caplog, what):
    """As on a full disk. The worker that tried lives on."""
    caplog.set_level('INFO', 'zasync')
    farm.serve('zam2', start=False)
    waiting = farm.put_to('zam2', *CALL)
    alive = farm.serve('zam1')
    refused, real = [], transaction.commit

    def commit():
        if transaction.get().description.strip() == what and len(refused) < 3:
            refused.append(what)
            raise StorageError('no room')
        real()

    monkeypatch.setattr(transaction, 'commit', commit)
    farm.let_pass(70, alive)
    farm.run(alive)
    farm.let_pass(60, alive)
    farm.run(alive)
    farm.let_pass(10, alive)
    assert len(refused) == 3
    assert 'the siblings are looked at later: StorageError' in caplog.text
    assert waiting.state == 'resolved'
    assert farm.holder('zam2') == (None, False)


def test_a_manager_without_calls_is_left_alone_and_one_that_is_served_empty_is_left(farm):
    dead, alive = farm.serve('zam2', start=False), farm.serve('zam1')
    farm.let_pass(70, alive)
    assert farm.holder('zam2') == (dead.boot, False)
    late = farm.put_to('zam2', *CALL)
    farm.let_pass(2, alive)
    farm.run(alive)
    assert late.state == 'resolved'
    farm.let_pass(30, alive)
    assert farm.holder('zam2') == (None, False)


def test_a_worker_that_signed_off_is_stood_in_for_like_a_dead_one(farm):
    gone, alive = farm.serve('zam2'), farm.serve('zam1')
    farm.stop(gone)
    waiting = farm.put_to('zam2', *CALL)
    farm.let_pass(70, alive)
    farm.run(alive)
    assert waiting.state == 'resolved'


def test_the_returning_worker_takes_its_desk_back_and_the_guest_ends_what_it_runs(farm, tmp_path):
    farm.serve('zam2', start=False)
    path = str(tmp_path / 'go')
    running = farm.put_to('zam2', 'zope_call', jobs.mark_then_wait, 'n', path)
    waiting = farm.put_to('zam2', *CALL)
    alive = farm.serve('zam1')
    farm.let_pass(70, alive)
    for _ in range(3):
        farm.step(alive)
    transaction.begin()
    assert running.state == 'accepted' and running.owner == alive.boot
    back = farm.serve('zam2')
    assert farm.holder('zam2') == (back.boot, False)
    farm.run(back)
    assert waiting.state == 'resolved'
    assert running.state == 'accepted' and running.attempt == 1
    (tmp_path / 'go').touch()
    farm.settle(alive)
    assert running.state == 'resolved' and farm.marks['n'] == 1
    farm.let_pass(70, alive, back)
    assert farm.zad.zam2.lenAcceptedCalls() == 0
    assert farm.zad.zam2.queue.desk.running == {}
    assert farm.holder('zam2') == (back.boot, False)


def test_a_guest_that_dies_is_replaced_and_its_calls_run_again(farm):
    farm.serve('zam2', start=False)
    farm.serve('zam1', start=False)
    guest = farm._workers[1]
    call = farm.put_to('zam2', *CALL)
    farm.let_pass(70, guest)
    farm.step(guest)
    transaction.begin()
    assert farm.holder('zam2') == (guest.boot, True) and call.owner == guest.boot
    third = farm.serve('zam3')
    farm.let_pass(140, third)
    farm.run(third)
    assert call.state == 'resolved'
    assert farm.zad.zam1.lenAcceptedCalls() == 0


# one that only looked dead

def test_a_worker_that_only_looked_dead_takes_its_desk_back(farm):
    frozen, alive = farm.serve('zam2'), farm.serve('zam1')
    call = farm.put_to('zam2', *CALL)
    farm.let_pass(70, alive)
    farm.run(alive)
    assert call.state == 'resolved' and farm.holder('zam2')[0] == alive.boot
    farm.step(frozen)
    assert farm.holder('zam2') == (frozen.boot, False)
    later = farm.put_to('zam2', *CALL)
    farm.run(frozen)
    assert later.state == 'resolved'


def test_what_a_frozen_worker_still_runs_can_not_commit_after_the_rescue(farm, tmp_path):
    frozen, path = farm.serve('zam2'), str(tmp_path / 'go')
    call = farm.put_to('zam2', 'zope_call', jobs.mark_then_wait, 'n', path)
    farm.step(frozen)
    alive = farm.serve('zam1', start=False)
    farm.let_pass(70, alive)
    transaction.begin()
    assert farm.holder('zam2')[0] == alive.boot
    (tmp_path / 'go').touch()
    farm.settle(frozen)
    transaction.begin()
    assert 'n' not in farm.marks and call.state != 'resolved'
    alive._pool.start()
    farm.run(alive)
    assert call.state == 'resolved' and farm.marks['n'] == 1
    farm.run(frozen)
    assert farm.marks['n'] == 1


def test_nobody_is_condemned_while_the_server_takes_no_commits(farm):
    farm.serve('zam2', start=False)
    alive = farm.serve('zam1')
    farm.put_to('zam2', 'schedule', 5_000, *CALL)
    # Time passes and nobody beats: a long commit stalls the server.
    farm.clock.advance(300)
    farm.step(alive)
    assert farm.holder('zam2') == (farm._workers[0].boot, False)
    farm.let_pass(70, alive)
    assert farm.holder('zam2') == (alive.boot, True)


def test_of_two_rescuers_one_gets_the_desk(farm):
    dead = farm.serve('zam2', start=False)
    waiting = [farm.put_to('zam2', *mark(f'm{number}')) for number in range(6)]
    farm.step(dead)
    one, other = farm.serve('zam1'), farm.serve('zam3')
    farm.let_pass(70, one, other)
    assert farm.holder('zam2')[0] in (one.boot, other.boot) and farm.holder('zam2')[1]
    farm.run(one, other)
    assert states(*waiting) == ['resolved'] * 6


@pytest.mark.parametrize('first', ['rescuer', 'returning'])
def test_rescuer_and_returning_worker_meet_on_the_desk(farm, first):
    farm.serve('zam2', start=False)
    waiting = farm.put_to('zam2', *CALL)
    alive = farm.serve('zam1')
    farm.let_pass(59, alive)
    if first == 'rescuer':
        farm.let_pass(10, alive)
        back = farm.serve('zam2')
    else:
        back = farm.serve('zam2')
        farm.let_pass(10, alive)
    assert farm.holder('zam2') == (back.boot, False)
    farm.run(alive, back)
    assert waiting.state == 'resolved' and waiting.attempt == 1
    farm.let_pass(30, alive, back)
    assert farm.holder('zam2') == (back.boot, False)


def test_a_paused_manager_is_not_served_by_others_either(farm):
    farm.serve('zam2', start=False)
    waiting = farm.put_to('zam2', *CALL)
    farm.zad.zam2.pause()
    transaction.commit()
    alive = farm.serve('zam1')
    farm.let_pass(100, alive)
    farm.run(alive)
    assert waiting.state == 'new'


def test_a_drained_guest_leaves_the_desk(farm):
    farm.serve('zam2', start=False)
    later = farm.put_to('zam2', 'schedule', 500, *CALL)
    alive = farm.serve('zam1')
    farm.let_pass(70, alive)
    assert farm.holder('zam2') == (alive.boot, True)
    farm.stop(alive)
    assert farm.holder('zam2') == (None, False)
    assert later.state == 'new'


def test_priorities_delays_and_series_hold_at_a_guests(farm):
    farm.serve('zam2', start=False)
    series = [farm.put_to('zam2', *CALL, options=Options(series='s')) for _ in range(3)]
    low = farm.put_to('zam2', *CALL)
    high = farm.put_to('zam2', *CALL, options=Options(priority=5))
    failing = farm.put_to('zam2', 'zope_exec', '/', {}, 'python:1/0',
                          options=Options(retry=Retry(2, delay=20)))
    later = farm.put_to('zam2', 'schedule', 400, *CALL)
    alive = farm.serve('zam1')
    farm.let_pass(70, alive)
    farm.run(alive, rounds=12)
    assert states(*series, low, high) == ['resolved'] * 5
    assert high.started_at <= low.started_at
    assert states(failing, later) == ['new', 'new']
    farm.let_pass(30, alive)
    farm.run(alive)
    assert failing.state == 'failed' and later.state == 'new'
    farm.let_pass(400, alive)
    farm.run(alive)
    assert later.state == 'resolved'


def test_a_manager_outside_a_dispatcher_is_nobodys_sibling(farm):
    lone = farm.put('zope_exec', '/', {}, 'python:1')
    alive = farm.serve('zam1')
    farm.let_pass(200, alive)
    farm.run(alive)
    assert lone.state == 'new'


# periodic calls

@pytest.mark.parametrize('expression', ['* * * * *', '*/10 * * * *'])
def test_the_periodic_calls_of_a_dead_worker_are_made_by_its_guest(farm, expression):
    farm.serve('zam2', start=False)
    farm.zad.zam2.setPeriodicCall('tick', expression, 'UTC', 'zope_exec', ('/', {}, 'python:1'))
    transaction.commit()
    alive = farm.serve('zam1')
    for _ in range(30):
        farm.let_pass(30, alive)
        farm.run(alive, rounds=2)
    last = farm.zad.zam2.periodic['tick'].last
    assert last is not None and last.state == 'resolved'


# a call that kills its workers

def test_a_call_kills_its_worker_each_time(farm):
    """It fails for good after some lives, its neighbour that ended in time does not."""
    call, neighbour = farm.put_to('zam2', *CALL), farm.put_to('zam2', *CALL)
    for life in range(1, 6):
        worker = farm.serve('zam2', start=False, threads=2)
        farm.step(worker)
        transaction.begin()
        assert (call.state, call.attempt) == ('accepted', life)
        if life == 4:
            neighbour.succeed(None, farm.clock.now())
            transaction.commit()
    farm.serve('zam2')
    transaction.begin()
    assert call.state == 'failed' and call.failure.type_name.endswith('Interrupted')
    assert '5 attempts' in call.failure.text
    assert neighbour.state == 'resolved'
    # A person may have it run once more, and it has as many lives again.
    newSecurityManager(None, system)
    assert farm.zad.zam2.retry(call.id) == 1
    noSecurityManager()
    transaction.commit()
    farm.step(farm._workers[-1])
    farm.settle(farm._workers[-1])
    assert call.state == 'resolved'


def test_a_call_that_kills_its_siblings_workers_too_fails(farm):
    call = farm.put_to('zam2', *CALL)
    for _ in range(5):
        guest = farm.serve('zam1', start=False)
        farm.let_pass(70, guest)
        farm.step(guest)
    last = farm.serve('zam1')
    farm.let_pass(140, last)
    transaction.begin()
    assert call.state == 'failed' and call.failure.type_name.endswith('Interrupted')
