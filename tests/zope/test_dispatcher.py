"""The dispatcher: which manager, who lives, and what happens when nobody does."""

import datetime
import time
from collections import Counter

import pytest
import transaction
from persistent.TimeStamp import TimeStamp
from zope.interface.verify import verifyObject

from Products.zasync import clock
from Products.zasync.errors import BadCall
from Products.zasync.errors import NoWorker
from Products.zasync.errors import UnknownPlugin
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasyncdispatcher import asyncedCall
from Products.zasyncdispatcher import canAsync
from Products.zasyncdispatcher.interfaces import IAsynchronousCallDispatcher
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.fakes import sign_on
from tests.zope import jobs


CALL = ('zope_exec', '/', {}, 'nothing', {})


def beat(manager, new=0, accepted=0, accepting=1):
    """As the worker does: a sign of life with its numbers."""
    pulse = manager.queue.pulse
    pulse.write(new, accepted, 0.0, pulse.beat + 1, accepting, 0)


@pytest.fixture
def zad(site, app):
    """A dispatcher with three managers, all alive and idle."""
    app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
    dispatcher = app.asynchronous_call_dispatcher
    for number in (1, 2, 3):
        dispatcher._setObject(f'zam{number}', AsynchronousCallManager(f'zam{number}'))
        beat(dispatcher[f'zam{number}'])
    transaction.commit()
    return dispatcher


def spread(zad, puts):
    """How many of so many puts each manager got."""
    return Counter(zad.putCall(*CALL)[0] for _ in range(puts))


def test_the_dispatcher_keeps_its_contract(zad):
    verifyObject(IAsynchronousCallDispatcher, zad)


def test_a_put_returns_the_id_of_the_manager_and_the_deferred_it_holds(site, zad):
    site.login('bob')
    id, deferred = zad.putCall(*CALL)
    assert zad[id].getDeferred(deferred.id).id == deferred.id
    assert zad[id].lenNewCalls() == 1
    assert sum(manager.lenNewCalls() for manager in zad.managers()) == 1


def test_the_least_loaded_manager_gets_the_call(zad):
    beat(zad.zam1, new=3)
    beat(zad.zam2, new=1, accepted=1)
    beat(zad.zam3, accepted=4)
    transaction.commit()
    assert zad.putCall(*CALL)[0] == 'zam2'


def test_a_put_after_a_savepoint_goes_to_a_manager_that_lives(zad):
    zad.title = 'changed'
    transaction.savepoint()
    assert zad.putCall(*CALL)[0] in ('zam1', 'zam2', 'zam3')


def test_accepted_calls_count_as_new_ones_do(zad):
    beat(zad.zam1, new=2, accepted=0)
    beat(zad.zam2, new=0, accepted=1)
    beat(zad.zam3, new=1, accepted=1)
    transaction.commit()
    assert zad.putCall(*CALL)[0] == 'zam2'


def test_historic_defect_6_a_fully_loaded_farm_is_not_an_absent_one(zad):
    for manager, calls in zip(zad.managers(), (5_000, 4_999, 6_000), strict=True):
        beat(manager, new=calls)
    transaction.commit()
    assert zad.putCall(*CALL)[0] == 'zam2'


def test_historic_defect_7_ties_are_spread(zad):
    """Each time nothing is known of earlier puts: the pulses are new."""
    chosen = Counter()
    for _ in range(60):
        chosen[zad.putCall(*CALL)[0]] += 1
        transaction.abort()
        for manager in zad.managers():
            beat(manager)
        transaction.commit()
    assert set(chosen) == {'zam1', 'zam2', 'zam3'}
    assert max(chosen.values()) <= 45


def test_what_this_process_has_put_since_the_last_pulse_counts(zad):
    assert spread(zad, 30) == {'zam1': 10, 'zam2': 10, 'zam3': 10}


def test_what_was_put_before_the_last_pulse_counts_no_more(zad):
    spread(zad, 30)
    transaction.commit()
    beat(zad.zam1, new=50)
    beat(zad.zam2, new=0)
    beat(zad.zam3, new=50)
    transaction.commit()
    assert spread(zad, 20) == {'zam2': 20}


def test_a_request_that_has_not_seen_the_last_pulse_counts_what_was_put_since_as_well(site, zad):
    rival = transaction.TransactionManager()
    other = site.db.open(rival)
    try:
        old = other.root()['Application'].asynchronous_call_dispatcher
        assert [old.load_of(each).calls for each in old.managers()] == [0, 0, 0]
        for each in zad.managers():
            beat(each)
        transaction.commit()
        spread(zad, 27)
        assert [old.load_of(each).calls for each in old.managers()] == [9, 9, 9]
        spread(old, 3)
        assert [zad.load_of(each).calls for each in zad.managers()] == [10, 10, 10]
    finally:
        rival.abort()
        other.close()


def test_historic_defect_8_children_that_are_no_managers_are_ignored(zad):
    zad.manage_addFolder('a_folder')
    zad.manage_addFolder('zam0')
    zad._setObject('inner', ZAsyncDispatcher('inner'))
    assert [manager.getId() for manager in zad.managers()] == ['zam1', 'zam2', 'zam3']
    assert set(spread(zad, 9)) == {'zam1', 'zam2', 'zam3'}


def test_historic_defect_11_a_put_writes_to_its_own_manager_alone(zad):
    """A refused or dead manager is not pinged, nor written to in any way."""
    def serials(manager):
        queue = manager.queue
        parts = (manager, queue, queue.desk, queue.pulse, queue.ping, queue.card, *queue.lanes)
        for part in parts:
            part._p_activate()
        return [part._p_serial for part in parts]

    beat(zad.zam1, accepting=0)
    beat(zad.zam2, new=5)
    transaction.commit()
    before = [serials(zad.zam1), serials(zad.zam2)]
    assert zad.putCall(*CALL)[0] == 'zam3'
    transaction.commit()
    assert [serials(zad.zam1), serials(zad.zam2)] == before


# alive

@pytest.mark.parametrize('dead', [
    {'zam1'}, {'zam1', 'zam3'}])
def test_a_worker_that_takes_no_calls_gets_none(zad, dead):
    for id in dead:
        beat(zad[id], accepting=0)
    transaction.commit()
    assert set(spread(zad, 12)) == {'zam1', 'zam2', 'zam3'} - dead


def test_a_manager_whose_worker_never_beat_gets_no_calls(zad):
    zad._setObject('zam4', AsynchronousCallManager('zam4'))
    transaction.commit()
    assert 'zam4' not in spread(zad, 12)


def test_a_manager_of_this_very_transaction_is_not_alive(zad):
    zad._setObject('zam4', AsynchronousCallManager('zam4'))
    beat(zad.zam4)
    assert 'zam4' not in spread(zad, 12)


SKEWS = [0.0, 3_600.0, -3_600.0, 86_400.0 * 365]


@pytest.fixture
def skewed(now, zad, site):
    """A function: skew → the clock, wrong by that, of a process that has committed a put."""
    def skew_by(skew):
        pulse_at = clock.serial_seconds(zad.zam1.queue.pulse._p_serial)
        now.time = pulse_at + skew
        # The process learns the storage's clock from the end of its own put.
        zad.zam1.putCall(*CALL)
        transaction.commit()
        return pulse_at
    return skew_by


@pytest.mark.parametrize('skew', SKEWS)
@pytest.mark.parametrize('age, alive', [(0, True), (50, True), (70, False), (86_400, False)])
def test_a_worker_lives_by_the_storages_clock_whatever_ours_says(
        zad, skewed, now, skew, age, alive):
    pulse_at = skewed(skew)
    now.time = pulse_at + skew + age
    assert zad.load_of(zad.zam2).alive is alive


@pytest.mark.parametrize('idle, alive', [(30, False), (60, False), (100, True), (1_000, True)])
def test_max_idle_time_says_how_old_a_sign_of_life_may_be(zad, skewed, now, idle, alive):
    pulse_at = skewed(0.0)
    now.time = pulse_at + 80
    zad.manage_changeProperties(max_idle_time=float(idle))
    assert zad.load_of(zad.zam2).alive is alive


def test_workers_live_on_when_the_storages_clock_was_set_back(zad, site, now):
    """Until it has come so far again its commits are stamped a moment after the last one."""
    seconds = clock.serial_seconds(site.db.lastTransaction())
    ahead = TimeStamp(*time.gmtime(seconds + 7_200)[:6]).raw()
    site.db.storage.changes._ltid = ahead
    zad.zam1.putCall(*CALL)
    transaction.commit()
    for _ in range(30):
        now.time += 10
        beat(zad.zam1)
        transaction.commit()
        assert zad.load_of(zad.zam1).alive
    assert clock.serial_seconds(zad.zam1.queue.pulse._p_serial) < clock.serial_seconds(ahead) + 1
    now.time += 61
    assert not zad.load_of(zad.zam1).alive


def test_historic_defect_2_a_healthy_worker_is_not_refused_for_want_of_pings(zad):
    """Puts far apart all pass as long as the worker beats; nobody pings."""
    for _ in range(5):
        for manager in zad.managers():
            beat(manager)
        transaction.commit()
        assert zad.putCall(*CALL)[0] is not None
        transaction.commit()
    assert all(manager.getLastPing() is None for manager in zad.managers())


def test_historic_defect_1_a_dead_worker_does_not_live_again_because_it_was_pinged(
        zad, skewed, now):
    pulse_at = skewed(0.0)
    now.time = pulse_at + 3_600
    for manager in zad.managers():
        manager.ping()
    transaction.commit()
    now.time += 1
    assert not any(zad.load_of(manager).alive for manager in zad.managers()
                   if manager.getId() != 'zam1')


def test_historic_defect_10_calls_of_a_dead_worker_do_not_keep_others_from_theirs(zad):
    beat(zad.zam1, new=1_000, accepted=4, accepting=0)
    beat(zad.zam2, new=2_000)
    beat(zad.zam3, new=2_000)
    transaction.commit()
    assert zad.putCall(*CALL)[0] in ('zam2', 'zam3')


# nobody lives

@pytest.fixture
def lonely(zad):
    """The dispatcher when nobody lives."""
    for manager in zad.managers():
        beat(manager, accepting=0)
    transaction.commit()
    return zad


@pytest.mark.parametrize('no_worker, state, waiting', [
    ('run', 'resolved', 0), ('queue', 'new', 1), ('refuse', None, 0)])
def test_no_worker_lives(lonely, no_worker, state, waiting):
    lonely.no_worker = no_worker
    if state is None:
        with pytest.raises(NoWorker):
            lonely.putCall(*CALL)
    else:
        assert lonely.putCall(*CALL)[1].state == state
    assert sum(manager.lenNewCalls() for manager in lonely.managers()) == waiting
    # A manager by itself takes calls always.
    assert lonely.zam1.putCall(*CALL).state == 'new'


@pytest.mark.parametrize('policy, managers', [('refuse', True), ('refuse', False),
                                              ('queue', False)])
def test_refuse_and_a_queue_without_managers_raise_no_worker(lonely, policy, managers):
    lonely.no_worker = policy
    if not managers:
        lonely.manage_delObjects(lonely.objectIds())
    with pytest.raises(NoWorker) as refusal:
        lonely.putCall(*CALL)
    assert '/asynchronous_call_dispatcher' in str(refusal.value)
    assert all(manager.lenNewCalls() == 0 for manager in lonely.managers())


def test_what_can_not_run_now_and_has_no_manager_to_wait_in_is_refused_for_that(lonely):
    lonely.manage_delObjects(lonely.objectIds())
    for call in (('schedule', 5, 'echo', 1), ('aggregate', [('protected_ldap', ('host', ''))])):
        with pytest.raises(NoWorker, match='can not run in this request, .* no manager'):
            lonely.putCall(*call)


def test_queue_leaves_the_call_with_the_least_loaded_manager(lonely):
    lonely.no_worker = 'queue'
    beat(lonely.zam1, new=5, accepting=0)
    beat(lonely.zam3, new=5, accepting=0)
    transaction.commit()
    id, deferred = lonely.putCall(*CALL)
    assert id == 'zam2'
    assert deferred.state == 'new'
    assert lonely.zam2.lenNewCalls() == 1


@pytest.mark.parametrize('options', [{}, {'not_before': datetime.timedelta(hours=1)}])
def test_a_call_is_left_with_a_manager_that_is_paused_only_if_all_are(lonely, options):
    """Siblings leave one that is paused alone: there it would wait for the end of the pause."""
    lonely.no_worker = 'run' if options else 'queue'
    beat(lonely.zam1, new=5, accepting=0)
    beat(lonely.zam3, new=5, accepting=0)
    lonely.zam2.pause()
    transaction.commit()

    def placed():
        return {lonely.putCallWith(Options(**options), *CALL)[0] for _ in range(9)}

    assert placed() == {'zam1', 'zam3'}
    lonely.zam3.pause()
    assert placed() == {'zam1'}
    lonely.zam1.pause()
    assert 'zam2' in placed()


@pytest.mark.parametrize('managers', [True, False])
def test_run_runs_the_call_at_once_and_the_deferred_has_ended(lonely, managers):
    if not managers:
        lonely.manage_delObjects(lonely.objectIds())
    id, deferred = lonely.putCall('zope_call', jobs.add, 41)
    assert id is None
    assert (deferred.state, deferred.result, deferred.failure) == ('resolved', 42, None)
    assert deferred.ended and deferred.ended_at >= deferred.started_at
    assert all(manager.lenNewCalls() == 0 for manager in lonely.managers())


def test_historic_defect_3_a_call_nobody_takes_does_not_fail_for_ever(lonely):
    """With 'run' it runs, and again, and when a worker beats it goes there."""
    for _ in range(3):
        assert lonely.putCall(*CALL)[1].state == 'resolved'
        transaction.commit()
    beat(lonely.zam2)
    transaction.commit()
    assert lonely.putCall(*CALL)[0] == 'zam2'


def test_what_only_workers_know_is_queued_when_nobody_lives(lonely):
    sign_on(lonely.zam1, ['resize'])
    id, deferred = lonely.putCall('resize', 5)
    assert id in ('zam1', 'zam2', 'zam3')
    assert deferred.state == 'new'


def test_a_call_goes_only_to_a_manager_whose_worker_knows_its_plugin(zad):
    """The others' workers would have to fail it."""
    sign_on(zad.zam2, ['resize'])
    transaction.commit()
    assert {zad.putCall('resize', 5)[0] for _ in range(12)} == {'zam2'}


def test_nothing_sleeps_and_no_time_passes_while_a_call_is_placed(lonely, now, monkeypatch):
    waits = []
    monkeypatch.setattr(now, 'wait', lambda *args: waits.append(args))
    for policy in ('run', 'queue'):
        lonely.no_worker = policy
        lonely.putCall(*CALL)
    assert waits == []


@pytest.mark.parametrize('policy', ['run', 'queue', 'refuse'])
@pytest.mark.parametrize('alive', [True, False])
@pytest.mark.parametrize('call, error', [
    (('no_such_plugin',), UnknownPlugin), (('zope_exec', '/', {}, 'python:('), BadCall),
    (('zope_exec',), BadCall), (('zope_call', 'os.system', 'true'), BadCall),
    (('zope_exec', '/', {'a': lambda: None}, 'nothing'), BadCall)])
def test_a_bad_call_is_refused_whoever_lives(zad, policy, alive, call, error):
    zad.no_worker = policy
    if not alive:
        for manager in zad.managers():
            beat(manager, accepting=0)
        transaction.commit()
    with pytest.raises(error):
        zad.putCall(*call)
    assert all(manager.lenNewCalls() == 0 for manager in zad.managers())


# the two functions

def test_can_async_says_whether_a_dispatcher_is_acquired_and_nothing_of_workers(app):
    app.manage_addFolder('sub')
    assert canAsync(app.sub) is False
    app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
    assert canAsync(app.sub) is True
    assert canAsync(app) is True


def test_what_only_has_the_id_of_a_dispatcher_is_none(app):
    app.manage_addFolder('asynchronous_call_dispatcher')
    assert canAsync(app) is False
    assert asyncedCall(app, 'python:1') == (None, None)


@pytest.mark.parametrize('context', [None, object(), 5])
def test_what_acquires_nothing_has_no_dispatcher(context):
    assert canAsync(context) is False
    assert asyncedCall(context, 'python:1') == (None, None)


def test_an_asynced_call_without_a_dispatcher_is_none_and_none(app):
    assert asyncedCall(app, 'python:1') == (None, None)
    # Whatever the expression: nobody looked at it.
    assert asyncedCall(app, 'python:(') == (None, None)


def test_an_asynced_call_is_put_with_the_root_as_home(app, zad):
    app.manage_addFolder('sub', 'A title')
    transaction.commit()
    id, deferred = asyncedCall(app.sub, 'python:home.sub.title_or_id()')
    assert zad[id].lenNewCalls() == 1
    assert deferred.arguments() == (
        (('',), {}, 'python:home.sub.title_or_id()', {}), {})


def test_an_asynced_call_runs_when_nobody_lives(app, site, lonely):
    app.manage_addFolder('sub', 'A title')
    site.login('admin')
    id, deferred = asyncedCall(app.sub, 'python:home.sub.title_or_id()')
    assert (id, deferred.result) == (None, 'A title')


def test_historic_defect_12_errors_of_an_asynced_call_pass_through(app, lonely):
    """Nothing but a missing dispatcher is (None, None)."""
    with pytest.raises(ValueError):
        asyncedCall(app, 'python:(')
    lonely.no_worker = 'refuse'
    with pytest.raises(NoWorker):
        asyncedCall(app, 'python:1')
    lonely.no_worker = 'run'
    id, deferred = asyncedCall(app, 'python:1 / 0')
    assert id is None
    assert deferred.state == 'failed'
    assert deferred.failure.type_name == 'ZeroDivisionError'


def test_historic_defect_13_the_idle_time_can_be_set_in_the_zmi(zad):
    assert {'max_idle_time', 'no_worker'} <= set(zad.propertyIds())


def test_historic_defect_5_a_beat_before_midnight_is_young_after_it(zad, skewed, now):
    """Ages are differences of POSIX seconds, never of hours of the day."""
    pulse_at = skewed(0.0)
    for age, alive in ((20, True), (86_380, False), (86_400, False), (86_420, False)):
        now.time = pulse_at + age
        assert zad.load_of(zad.zam2).alive is alive, age


def test_every_keyword_goes_to_the_plugin(zad):
    sign_on(zad.zam1, ['echo'])
    _, deferred = zad.putCall('echo', 1, session=2, three=3)
    assert deferred.arguments() == ((1,), {'session': 2, 'three': 3})


def test_by_pace_the_faster_worker_gets_more(zad):
    zad.manage_changeProperties(balance='pace')
    for number, pace in ((1, 1.0), (2, 3.0), (3, 3.0)):
        pulse = zad[f'zam{number}'].queue.pulse
        pulse.write(0, 0, 0.0, pulse.beat + 1, 1, 0, pace=pace)
    transaction.commit()
    assert spread(zad, 70) == {'zam1': 10, 'zam2': 30, 'zam3': 30}


@pytest.mark.parametrize('spoil, words', [
    (lambda manager: manager.pause(), 'paused'),
    (lambda manager: beat(manager, accepting=0), 'takes no more calls'),
])
def test_a_load_says_why_its_manager_gets_no_calls(zad, spoil, words):
    spoil(zad.zam2)
    transaction.commit()
    load = zad.load_of(zad.zam2)
    assert not load.alive and words in load.why
    assert zad.load_of(zad.zam1).why == ''


def test_a_load_says_how_long_there_was_no_sign_of_life(zad, monkeypatch):
    class Later(clock.SystemClock):
        def monotonic(self):
            return super().monotonic() + 100

    transaction.commit()
    zad.putCall(*CALL)
    transaction.commit()
    monkeypatch.setattr(clock, 'SYSTEM', Later())
    assert 'no sign of life for 100 s' in zad.load_of(zad.zam1).why
