"""What a visitor does with the calls it has taken, when something comes in between."""

import threading

import pytest
import transaction
from Acquisition import aq_base
from ZEO.Exceptions import ClientDisconnected

from Products.zasync.board import Progress
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasync.options import Retry
from Products.zasyncdispatcher import leaving
from tests.client import jobs
from tests.client.farm import CALL
from tests.client.farm import states
from tests.client.fate import Gate
from zasync_client.beat import GUEST
from zasync_client.beat import RECONCILE_SECONDS
from zasync_client.config import Plugin


def hold_up(farm, tmp_path, **options):
    """(a worker for zam2 whose only thread is held up, what lets it go on)."""
    go = tmp_path / 'go'
    busy = farm.serve('zam2', **options)
    farm.put_to('zam2', 'zope_call', jobs.wait_for_file, str(go))
    farm.step(busy)
    return busy, go


def wait_at_sibling(farm, busy, *call, **options):
    """A call that the busy worker has no thread for; → its deferred."""
    deferred = farm.put_to('zam2', *call, options=Options(**options))
    farm.clock.advance(10)
    farm.step(busy)
    return deferred


def visit(farm, visitor, call):
    """Have that worker take that call of its sibling."""
    farm.clock.advance(0.3)
    farm.step(visitor)
    transaction.begin()
    assert call.owner == visitor.boot


def test_a_visitor_has_left_when_a_group_that_one_of_its_calls_failed_in_is_committed(
        farm, tmp_path):
    gate, runs = Gate(), []

    def do(run, what):
        runs.append(run.id)
        if what == 'fail':
            raise RuntimeError('on purpose')
        gate.wait()

    busy, go = hold_up(farm, tmp_path, plugins=[('do', do)])
    failing = wait_at_sibling(farm, busy, 'do', 'fail', retry=Retry(attempts=2, delay=0.0))
    visitor = farm.serve('zam1', threads=2, start=False, plugins=[('do', do)],
                         changes={'batch_seconds': 0.05})
    visitor._config.plugins['do'] = Plugin('do', do, '', zope_aware=True, groupable=True)
    visitor._habits.note_alone(('do',), 0.0)
    visit(farm, visitor, failing)
    slow = farm.put_to('zam1', 'do', 'slow')
    farm.step(visitor)
    visitor._pool.start()
    gate.reached()
    go.touch()
    farm.settle(busy)
    farm.clock.advance(1.5)

    def has_ended():
        farm.step(visitor)
        farm.run(busy, rounds=1)
        return failing.ended

    farm.wait(has_ended)
    farm.let_pass(20, busy, visitor)
    assert visitor._guests.services() == []
    gate.open()
    farm.settle(visitor)
    farm.run(visitor)
    assert all(thread.is_alive() for thread in visitor._pool._started)
    assert (failing.state, slow.state) == ('failed', 'resolved')
    assert runs.count(failing.id) == 2


# calls that it does not run

def test_the_answer_to_a_claim_of_a_visitor_is_lost(farm, tmp_path, monkeypatch):
    busy, go = hold_up(farm, tmp_path)
    call = wait_at_sibling(farm, busy, *CALL, series='one')
    visitor, real, lost = farm.serve('zam1'), transaction.commit, []

    def commit():
        note = transaction.get().description.strip()
        real()
        if note == 'zasync beat' and not lost and visitor._guests.services():
            lost.append(note)
            raise ClientDisconnected('the answer is lost')

    monkeypatch.setattr(transaction, 'commit', commit)
    visit(farm, visitor, call)
    assert lost and visitor.held() == set()
    farm.run(visitor)
    assert call.state == 'resolved'
    assert [attempt.outcome for attempt in call.attempts] == ['nobody ran it', 'resolved']
    go.touch()
    farm.settle(busy)


def test_a_visitor_claims_nothing_of_a_manager_that_has_been_drained(farm, tmp_path, monkeypatch):
    """Whoever drains it asks its own worker, which has seen the pause."""
    busy, go = hold_up(farm, tmp_path)
    call = wait_at_sibling(farm, busy, *CALL)
    visitor, real, drained, visits = farm.serve('zam1'), transaction.commit, [], []

    def drain():
        transaction.begin()
        zad = farm.db.open().root()['Application'].zad
        zad.zam2.pause()
        zad.zam2.ping()
        real()
        go.touch()
        farm.settle(busy)
        busy.step(farm.clock.now())
        transaction.begin()
        queue = zad.zam2.queue
        drained.append(not queue.length_accepted()
                       and queue.pulse.answered == queue.ping.asked_at)
        zad._p_jar.close()

    def commit():
        is_beat = transaction.get().description.strip() == 'zasync beat'
        if is_beat and not visits and visitor._guests.services():
            visits.append(1)
            other = threading.Thread(target=drain)
            other.start()
            other.join(30)
        real()

    monkeypatch.setattr(transaction, 'commit', commit)
    farm.clock.advance(0.3)
    farm.step(visitor)
    transaction.begin()
    assert drained == [True]
    assert (call.state, call.owner, farm.zad.zam2.lenAcceptedCalls()) == ('new', None, 0)
    farm.run(visitor, busy)
    assert call.state == 'new'
    farm.zad.zam2.resume()
    transaction.commit()
    farm.run(busy)
    assert call.state == 'resolved'


@pytest.mark.parametrize('when', ['busy', 'free', 'paused'])
def test_a_visitor_gives_back_what_it_does_not_run_before_it_leaves(farm, tmp_path, when):
    busy, go = hold_up(farm, tmp_path)
    call = wait_at_sibling(farm, busy, *CALL)
    visitor = farm.serve('zam1', start=False)
    visit(farm, visitor, call)
    if when == 'busy':
        wait_at_sibling(farm, busy, *CALL)
    else:
        go.touch()
        farm.settle(busy)
        farm.step(busy)
    if when == 'paused':
        farm.zad.zam2.pause()
        transaction.commit()
        farm.step(busy)
    assert visitor._pool.take_back()  # as after an undo: on the desk, and in no thread
    farm.let_pass(RECONCILE_SECONDS + 1, busy, visitor, each=1.0)
    assert [attempt.outcome for attempt in call.attempts][0] == 'nobody ran it'
    go.touch()
    farm.settle(busy)


def test_a_visitor_that_has_nothing_to_give_back_writes_nothing_at_that_desk(farm, tmp_path):
    busy, go = hold_up(farm, tmp_path)
    call = wait_at_sibling(farm, busy, 'zope_call', jobs.wait_for_file, str(go))
    visitor = farm.serve('zam1')
    visit(farm, visitor, call)
    desk = farm.zad.zam2.queue.desk
    desk._p_activate()
    before = desk._p_serial
    farm.let_pass(3 * RECONCILE_SECONDS, busy, visitor)
    desk._p_activate()
    assert desk._p_serial == before and call.owner == visitor.boot
    go.touch()
    farm.settle(busy)
    farm.settle(visitor)


# managers that are not where they were

def move(farm, old, folder, new):
    """Rename it, or cut and paste it, as in the ZMI."""
    transaction.begin()
    manager = aq_base(farm.zad[old])
    farm.zad._delObject(old, suppress_events=True)
    manager._setId(new)
    folder._setObject(new, manager, set_owner=0, suppress_events=True)
    transaction.commit()


def rename(farm, old, new):
    move(farm, old, farm.zad, new)


@pytest.fixture
def visited(farm, tmp_path):
    """(its own worker, its visitor, the call that it runs, gate): of zam2. The call fails."""
    gate = Gate()

    def fails(run):
        gate.wait()
        raise RuntimeError('on purpose')

    busy, go = hold_up(farm, tmp_path, plugins=[('fails', fails)])
    call = wait_at_sibling(farm, busy, 'fails', timeout=25.0, retry=Retry(attempts=2, delay=0.0))
    visitor = farm.serve('zam1', threads=2, plugins=[('fails', fails)])
    visit(farm, visitor, call)
    gate.reached()
    yield busy, visitor, call, gate
    gate.open()
    go.touch()
    farm.settle(busy)


def test_a_manager_is_renamed_while_a_visitor_runs_its_call(farm, visited):
    _, visitor, call, gate = visited
    rename(farm, 'zam2', 'zam9')
    farm.let_pass(10, visitor)
    gate.open()
    farm.settle(visitor)
    farm.let_pass(10, visitor)
    farm.run(visitor)
    farm.let_pass(10, visitor)
    assert call.state == 'failed'
    assert [attempt.outcome for attempt in call.attempts] == [
        'failed: RuntimeError: on purpose', 'failed']
    assert call.id not in farm.zad.zam9.queue.desk.running
    assert visitor._guests.services() == [] or visitor._guests.services()[0].ends() == []


def test_a_call_at_a_renamed_manager_has_its_time_out_and_its_visitor_sleeps(farm, visited):
    _, visitor, call, _ = visited
    rename(farm, 'zam2', 'zam9')
    for _ in range(6):
        farm.let_pass(5, visitor)
        assert visitor._seconds_to_sleep(farm.clock.now()) > 0.1
    assert call.attempts[0].outcome.startswith('timed out')


def test_what_a_visitor_runs_of_a_renamed_manager_is_not_filed_at_one_of_the_old_name(
        farm, visited):
    _, visitor, call, gate = visited
    rename(farm, 'zam2', 'zam9')
    farm.zad._setObject('zam2', AsynchronousCallManager('zam2'))
    transaction.commit()
    gate.open()
    farm.settle(visitor)
    farm.let_pass(10, visitor)
    farm.run(visitor)
    assert [attempt.outcome for attempt in call.attempts] == [
        'failed: RuntimeError: on purpose', 'failed']
    assert farm.zad.zam2.queue.desk.boot is None


def test_a_visitor_has_one_service_for_a_manager_whatever_that_is_called(farm, visited):
    """Else one would give back what the other runs."""
    _, visitor, call, _ = visited
    rename(farm, 'zam2', 'zam9')
    farm.put_to('zam9', *CALL)
    farm.let_pass(3 * RECONCILE_SECONDS, visitor)
    services = visitor._guests.services()
    assert [service.place for service in services] == [('', 'zad', 'zam9')]
    assert farm.holder('zam9') == (visitor.boot, True)
    assert [attempt.outcome for attempt in call.attempts] == [
        'timed out: the call ran for longer than its time-out, 25 s', 'failed']


def test_a_visitor_sleeps_while_it_runs_a_call_of_a_manager_that_was_moved_away(farm, visited):
    _, visitor, _, gate = visited
    app = farm.connection.root()['Application']
    move(farm, 'zam2', app, 'zam2')
    claim, = visitor.held()
    visitor._runs.report(claim, Progress(1))
    for _ in range(8):
        farm.let_pass(5, visitor)
        assert visitor._seconds_to_sleep(farm.clock.now()) > 0.1
    gate.open()
    farm.settle(visitor)
    farm.let_pass(10, visitor)
    assert visitor._guests.services() == []


@pytest.mark.parametrize('seconds', [40, 70])
def test_calls_that_run_at_a_renamed_manager_end_well_within_max_idle_time(farm, seconds):
    """Its worker waits for the target, and gives no sign of life at the new place."""
    gate = Gate()
    own = farm.serve('zam2', plugins=[('waits', lambda run: gate.wait())])
    sibling = farm.serve('zam1')
    call = farm.put_to('zam2', 'waits', options=Options(retry=False))
    farm.step(own)
    gate.reached()
    rename(farm, 'zam2', 'zam9')
    farm.let_pass(seconds, sibling)
    gate.open()
    farm.settle(own)
    transaction.begin()
    assert call.state == ('resolved' if seconds < farm.zad.max_idle_time else 'failed')


def test_a_guest_goes_on_at_a_renamed_manager(farm):
    farm.serve('zam2', start=False)
    later = farm.put_to('zam2', 'schedule', 500, *CALL)
    alive = farm.serve('zam1')
    farm.let_pass(70, alive)
    assert farm.holder('zam2') == (alive.boot, True)
    rename(farm, 'zam2', 'zam9')
    farm.let_pass(20, alive)
    service, = alive._guests.services()
    assert (service.beat.role, service.place) == (GUEST, ('', 'zad', 'zam9'))
    farm.let_pass(500, alive)
    farm.run(alive)
    assert later.state == 'resolved'
    farm.let_pass(30, alive)
    assert farm.holder('zam9') == (None, False)


@pytest.mark.parametrize('adopted', [False, True])
def test_another_manager_gets_the_id_of_one_whose_calls_run(farm, adopted):
    gate = Gate()

    def fails_once(run):
        gate.wait()
        if run.attempt == 1:
            raise RuntimeError('on purpose')
        return 'done'

    plugins = [('fails', fails_once), ('ends', lambda run: gate.wait())]
    own, sibling = (farm.serve(id, plugins=plugins, threads=2) for id in ('zam1', 'zam2'))
    fails = farm.put_to('zam1', 'fails', options=Options(retry=Retry(attempts=2, delay=0.0)))
    ends = farm.put_to('zam1', 'ends')
    farm.step(own)
    gate.reached(), gate.reached()
    rename(farm, 'zam1', 'zam9')
    farm.zad._setObject('zam1', AsynchronousCallManager('zam1'))
    transaction.commit()
    if adopted:  # and taken for dead, so that all runs again
        farm.put_to('zam1', *CALL)
        for _ in range(7):
            farm.let_pass(10, sibling)
        assert farm.holder('zam1') == (sibling.boot, True)
    farm.step(own)
    assert own.replacing.is_wanted()
    gate.open()
    farm.settle(own)
    transaction.begin()
    assert adopted or ends.state == 'resolved'
    farm.stop(own)
    heir = farm.serve('zam1', plugins=plugins)
    waits = farm.put_to('zam1', *CALL)
    for _ in range(4):
        farm.let_pass(30, heir, sibling)
        farm.run(heir, sibling)
    assert (fails.result, states(ends, waits)) == ('done', ['resolved'] * 2)
    assert [farm.zad[id].open_calls() for id in ('zam1', 'zam9')] == [0, 0]
    assert farm.holder('zam1') == (heir.boot, False)


def test_a_worker_process_begins_anew_at_another_manager_of_that_id(site, gate):
    def swap():
        manager = aq_base(site.app.zam1)
        site.app._delObject('zam1', suppress_events=True)
        manager._setId('zam9')
        site.app._setObject('zam9', manager, set_owner=0, suppress_events=True)
        site.app._setObject('zam1', AsynchronousCallManager('zam1'))

    worker = site.start_worker('zam1')
    ends = site.put('zope_call', jobs.wait_for_file, gate)
    fails = site.put_with({'retry': Retry(attempts=2, delay=0.0)}, 'zope_call',
                          jobs.wait_and_fail, gate)
    site.wait(lambda: ends.owner and fails.owner)
    boot = ends.owner
    site.change(swap)
    waits = site.put(*CALL)
    with open(gate, 'w', encoding='ascii'):
        site.ended(ends, waits)
    assert (ends.state, waits.state) == ('resolved', 'resolved')
    assert site.app.zam1.queue.desk.boot not in (None, boot)
    assert site.app.zam1.queue.card.pid == worker.pid  # the same process


def test_a_worker_goes_on_with_another_manager_of_that_id_if_it_has_claimed_nothing_there(
        farm, visited):
    _, own, call, gate = visited
    rename(farm, 'zam1', 'zam9')
    farm.zad._setObject('zam1', AsynchronousCallManager('zam1'))
    transaction.commit()
    waits = farm.put_to('zam1', *CALL)
    farm.step(own)
    farm.step(own)
    transaction.begin()
    assert farm.holder('zam1') == (own.boot, False) and not own.replacing.is_wanted()
    assert (waits.owner or waits.ended) and call.owner == own.boot
    gate.open()
    farm.run(own)
    assert waits.state == 'resolved'
    assert call.failure.text == 'on purpose'


def test_the_removal_of_a_manager_waits_for_what_its_worker_runs_as_a_visitor(farm, tmp_path):
    """Nobody would know any more that this worker lives: the call would be given out again."""
    gate = Gate()
    plugins = [('waits', lambda run: gate.wait())]
    busy, go = hold_up(farm, tmp_path, plugins=plugins)
    call = wait_at_sibling(farm, busy, 'waits', retry=False)
    visitor = farm.serve('zam1', plugins=plugins, threads=2)
    visit(farm, visitor, call)
    gate.reached()
    further = wait_at_sibling(farm, busy, *CALL)

    def step():
        transaction.begin()
        leaving.start(farm.zad, farm.zad.zam1)
        gone = leaving.go_on(farm.zad, farm.zad.zam1, farm.clock.now())
        transaction.commit()
        return gone

    assert not step()
    assert leaving.census(farm.zad, farm.zad.zam1).visits == 1
    farm.let_pass(5, busy, visitor, each=1.0)
    assert further.state == 'new'  # it claims nothing more
    assert not step()
    gate.open()
    farm.settle(visitor)
    farm.run(visitor)
    transaction.begin()
    assert call.state == 'resolved' and further.state == 'new'
    assert step() and 'zam1' not in farm.zad.objectIds()
    go.touch()
    farm.settle(busy)
    farm.run(busy)
    assert further.state == 'resolved'


def test_a_visitor_whose_sibling_dies_is_its_guest_from_then_on(farm, tmp_path):
    busy, go = hold_up(farm, tmp_path, plugins=[('odd', lambda run: 'odd')])
    wait_at_sibling(farm, busy, 'odd')
    visitor = farm.serve('zam1')
    farm.let_pass(70, visitor)
    assert farm.holder('zam2') == (visitor.boot, True)
    service, = visitor._guests.services()
    assert service.beat.role == GUEST
    go.touch()
    farm.settle(busy)
