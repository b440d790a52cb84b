"""What failed for good: it stays, is listed a page at a time, and is run again or dropped."""

import datetime
import itertools
import os
from dataclasses import replace

import pytest
import transaction
from BTrees.OOBTree import OOBucket

from Products.zasync import lanes
from Products.zasync import listing
from Products.zasync.options import Retry
from Products.zasync.places import parse_id
from tests.client import jobs
from tests.client.fate import Gate
from zasync_client import beat


def broken(fate, times=1):
    """(worker, plugin's list of runs, ids of as many failed calls, oldest first)."""
    runs = []

    def fails_at_first(run, number):
        runs.append(number)
        if run.attempt == 1:
            raise ValueError(f'number {number}')
        return number

    worker = fate.worker(threads=4, plugins=[('fails', fails_at_first)])
    transaction.begin()
    calls = [fate.manager.putCall('fails', number) for number in range(times)]
    transaction.commit()
    run_all(fate, worker, calls)
    return worker, runs, calls


def run_all(fate, worker, calls):
    for _ in range(times_at_most := 10 + len(calls)):
        fate.step(worker, hurry=True)
        fate.settle(worker)
        if all(call.ended for call in calls):
            break
    else:
        raise AssertionError(f'not done after {times_at_most} beats')
    fate.step(worker, hurry=True)
    transaction.begin()


# staying

def test_a_call_fails_for_good(fate):
    worker, _, (failed,) = broken(fate)
    good = fate.call('zope_exec', '/', {}, 'python: 1')
    run_all(fate, worker, [good])
    for _ in range(3):
        fate.clock.advance(fate.manager.rotation_period)
        fate.step(worker)
    transaction.begin()
    assert fate.manager.calls() == [failed]
    assert fate.manager.getDeferred(failed.id).failure.text == 'number 0'


# running again

def test_a_call_that_failed_is_run_again(fate):
    worker, runs, (failed,) = broken(fate)
    assert fate.do(fate.manager.retry, failed.id) == 1
    assert (failed.state, failed.failure, failed.ended_at) == ('new', None, None)
    assert failed.attempts[0].outcome == 'failed: ValueError: number 0'
    assert fate.counts() == (1, 0)
    assert fate.manager.calls('new') == [failed]
    assert fate.manager.calls('failed') == []
    run_all(fate, worker, [failed])
    assert (failed.state, failed.result, runs) == ('resolved', 0, [0, 0])
    assert [attempt.outcome for attempt in failed.attempts] == [
        'failed: ValueError: number 0', 'resolved']
    assert len(fate.manager.queue.failed) == 0
    assert fate.counts() == (0, 0)


@pytest.mark.parametrize('text', ['python: 1', None])
def test_what_has_not_failed_is_not_run_again(fate, text):
    worker = fate.worker()
    deferred = fate.call('zope_exec', '/', {}, 'python: 1')
    if text:
        fate.go(worker)
    assert fate.do(fate.manager.retry, deferred.id) == 0
    with pytest.raises(KeyError):
        fate.manager.retry('0-1-0-0')


def test_five_hundred_are_run_again_at_once_and_leave_the_list(fate):
    worker, runs, calls = broken(fate, 500)
    assert len(fate.manager.calls('failed', limit=1_000)) == 500
    assert fate.do(fate.manager.retry) == 500
    assert fate.counts() == (500, 0)
    assert fate.do(fate.manager.retry) == 0
    run_all(fate, worker, calls)
    assert fate.manager.calls('failed') == []
    assert [call.result for call in calls] == list(range(500))
    assert len(runs) == 1_000
    assert fate.counts() == (0, 0)


def test_retries_in_all_orders_with_the_filing_of_the_end(fate):
    """The beat files what ended up to ten seconds later: a retry may be quicker."""
    worker = fate.worker(threads=4, plugins=[('fails', _fails_at_first)])
    quick = [fate.call('fails') for _ in range(3)]
    fate.step(worker)
    fate.settle(worker)
    queue = fate.manager.queue
    assert [call.state for call in quick] == ['failed'] * 3
    assert set(queue.desk.running) == {call.id for call in quick}
    # Before it was filed, and the beat files it in the same step as it takes it in again;
    # is claimed before it is filed; is filed while the worker claims nothing.
    assert fate.do(fate.manager.retry, quick[0].id) == 1
    fate.step(worker, hurry=True)
    fate.settle(worker)
    fate.step(worker, hurry=True)
    transaction.begin()
    assert quick[0].result == 2
    assert fate.do(fate.manager.retry) == 2
    fate.do(fate.manager.pause)
    fate.step(worker, hurry=True)
    transaction.begin()
    assert fate.manager.getDeferred(quick[1].id) is quick[1]
    fate.do(fate.manager.resume)
    run_all(fate, worker, quick)
    assert [call.result for call in quick] == [2, 2, 2]
    assert [len(call.attempts) for call in quick] == [2, 2, 2]
    assert (dict(queue.desk.running), len(queue.failed)) == ({}, 0)
    assert fate.counts() == (0, 0)


def _fails_at_first(run):
    if run.attempt == 1:
        raise ValueError('once')
    return run.attempt


def test_a_call_that_is_claimed_again_before_its_first_end_was_filed(fate):
    gate = Gate()

    def fails_then_waits(run):
        if run.attempt == 1:
            raise ValueError('once')
        gate.wait()
        return run.attempt

    worker = fate.worker(plugins=[('fails', fails_then_waits)])
    deferred = fate.call('fails')
    fate.step(worker)
    fate.settle(worker)
    fate.do(fate.manager.retry)
    fate.step(worker)
    gate.reached()
    fate.clock.advance(beat.SWEEP_SECONDS)
    fate.step(worker)
    transaction.begin()
    assert (deferred.state, deferred.attempt) == ('accepted', 2)
    gate.open()
    fate.settle(worker)
    fate.step(worker, hurry=True)
    transaction.begin()
    assert (deferred.result, len(deferred.attempts)) == (2, 2)
    assert dict(fate.manager.queue.desk.running) == {}


def test_a_call_that_a_dead_worker_had_not_filed_is_run_again_by_the_next(fate):
    first = fate.worker(plugins=[('fails', _fails_at_first)])
    deferred = fate.call('fails')
    fate.step(first)
    fate.settle(first)
    assert deferred.id in fate.manager.queue.desk.running
    assert fate.do(fate.manager.retry) == 1
    second = fate.worker(plugins=[('fails', _fails_at_first)])  # the first was killed
    run_all(fate, second, [deferred])
    assert deferred.result == 2
    assert fate.counts() == (0, 0)


def test_a_worker_that_drains_loses_no_call_that_is_to_run_again(fate):
    worker = fate.worker(plugins=[('fails', _fails_at_first)])
    deferred = fate.call('fails')
    fate.step(worker)
    fate.settle(worker)
    fate.do(fate.manager.retry)
    fate.stop(worker)
    assert fate.manager.getDeferred(deferred.id) is deferred
    assert fate.manager.calls() == [deferred]
    run_all(fate, fate.worker(plugins=[('fails', _fails_at_first)]), [deferred])
    assert deferred.result == 2


def test_a_call_whose_callback_failed_is_run_again(fate):
    runs, seen = [], []

    def work(run):
        runs.append(run.attempt)
        return 1

    def second(value):
        seen.append(value)
        if len(seen) == 1:
            raise ValueError('callback')
        return value * 100

    jobs.hook = second
    worker = fate.worker(plugins=[('work', work)])
    deferred = fate.call('work', callbacks=[
        ('python: result + 1',), (jobs.call_hook,), ('python: result + 1',)])
    run_all(fate, worker, [deferred])
    assert (deferred.state, deferred.failure.text) == ('failed', 'callback')
    assert fate.do(fate.manager.retry) == 1
    assert fate.counts() == (1, 0)
    run_all(fate, worker, [deferred])
    assert (runs, seen, deferred.result) == ([1], [2, 2], 201)


def test_a_call_that_failed_again_is_in_the_list_again(fate):
    worker = fate.worker()
    deferred = fate.call('zope_exec', '/', {}, 'python: 1/0', retry=2)
    for _ in range(2):
        for _ in range(3):
            fate.go(worker, 2)
            fate.clock.advance(60)
        assert fate.manager.calls('failed') == [deferred]
        assert list(fate.manager.queue.failed) == [deferred.id]
        fate.do(fate.manager.retry)
    # Two attempts by its policy, each time.
    assert deferred.attempt == 4


def test_a_call_that_is_to_run_again_can_be_cancelled(fate):
    worker, runs, (failed,) = broken(fate)
    fate.do(fate.manager.retry)
    assert fate.do(fate.manager.cancel, failed.id) == 1
    fate.go(worker)
    assert (failed.state, runs) == ('cancelled', [0])
    assert fate.manager.calls() == [failed]
    assert len(fate.manager.queue.failed) == 0
    assert fate.counts() == (0, 0)


# lists

def pages(manager, **asked):
    """All pages of a list, one after another."""
    found, start = [], None
    while True:
        page = manager.calls(start=start, **asked)
        if not page:
            return found
        found.append(page)
        start = page[-1].id


def test_what_failed_is_listed_newest_first_in_pages(fate):
    _, _, calls = broken(fate, 45)
    found = pages(fate.manager, state='failed', limit=20)
    assert [len(page) for page in found] == [20, 20, 5]
    assert [each.put_at for page in found for each in page] == sorted(
        (call.put_at for call in calls), reverse=True)
    assert {each.id for page in found for each in page} == {call.id for call in calls}


def test_a_list_of_what_waits_is_newest_first_wherever_it_waits(fate):
    worker = fate.worker(start=False)
    fate.do(fate.manager.pause)
    calls = []
    for number in range(6):
        calls.append(fate.call('zope_exec', '/', {}, 'python: 1', priority=number % 3,
                               **({'series': 's'} if number == 1 else {})))
        fate.apart(_wait_for_another_millisecond)
        if number == 3:
            fate.clock.advance(beat.BEAT_SECONDS)
            fate.step(worker)
    assert fate.manager.calls('new') == calls[::-1]
    assert fate.manager.calls() == calls[::-1]
    assert pages(fate.manager, state='new', limit=4) == [
        calls[:1:-1], calls[1::-1]]


def _wait_for_another_millisecond():
    from Products.zasync.clock import SYSTEM
    until = SYSTEM.now() + 0.002
    while SYSTEM.now() < until:
        pass


def test_a_page_loads_no_more_calls_than_it_shows(fate):
    worker, _, failed = broken(fate, 60)
    good = [fate.call('zope_exec', '/', {}, 'python: 1') for _ in range(60)]
    run_all(fate, worker, good)
    rare = [fate.call('schedule', 60, 'zope_exec', '/', {}, 'python: 1') for _ in range(3)]
    for deferred in rare:
        fate.do(fate.manager.cancel, deferred.id)
    fate.step(worker)
    fate.do(fate.manager.pause)
    waiting = [fate.call('zope_exec', '/', {}, 'python: 1') for _ in range(60)]
    fate.do(fate.manager.cancel, waiting.pop().id)
    for state, number in (('failed', 60), ('resolved', 60), ('new', 59), ('cancelled', 4)):
        start, seen = None, 0
        while True:
            found, loaded = fate.loaded(
                lambda manager, start, state=state: [
                    each.id for each in manager.calls(state, start=start, limit=10)], start)
            if not found:
                break
            seen += len(found)
            start = found[-1]
            # One more: that cancelled one is met on the way where calls wait.
            assert loaded <= len(found) + 1
        assert seen == number


def test_a_page_of_what_has_ended_is_newest_first_and_loads_no_more_than_it_shows(
        fate, monkeypatch):
    """A slice of the archive has all calls that ended in an eighth of the rotation period."""
    turns = itertools.cycle((3, 17, 60))
    monkeypatch.setattr(lanes, 'current', lambda: next(turns))
    queue = fate.manager.queue
    fate.do(lambda: [fate.manager.putCall('echo', number) for number in range(600)])
    for deferred in queue.take_in_and_claim('boot', fate.clock.now(), 600, 86_400):
        deferred.succeed(None, fate.clock.now())
        queue.archive_ended(deferred.id, 86_400)
    transaction.commit()
    found = [each.id for page in pages(fate.manager, state='resolved', limit=70) for each in page]
    assert len(found) == 600
    assert found == sorted(found, key=newest_first)
    fate.db.cacheMinimize()
    assert len(fate.manager.calls('resolved', limit=20)) == 20
    leaves = [each for _, each in fate.connection._cache.lru_items()
              if isinstance(each, OOBucket)]
    assert len(leaves) <= 4  # a full one that was split has eight calls


def newest_first(id):
    """As a list has them: by the time of the put, then by lane and number."""
    lane_number, number, put_at = parse_id(id)
    return -put_at, -lane_number, -number


def test_a_page_is_by_plugin_and_by_user(fate):
    _, _, (failed,) = broken(fate)
    other = fate.call('zope_exec', '/', {}, 'python: 1')
    assert fate.manager.calls(plugin='fails') == [failed]
    assert fate.manager.calls(plugin='zope_exec', user='system') == [other]
    assert fate.manager.calls(user='nobody') == []
    assert fate.manager.calls(state='new', plugin='fails') == []


def test_a_page_after_a_call_that_is_not_in_the_list_is_empty(fate):
    broken(fate)
    for start in ('0-77-1-0', 'nonsense', ''):
        assert fate.manager.calls(start=start) == []


@pytest.mark.parametrize('asked', [
    {'state': 'done'}, {'state': 'FAILED'}, {'limit': 0}, {'limit': -1}, {'limit': None},
    {'limit': 1.5}, {'limit': True}, {'limit': listing.MOST + 1}, {'limit': '10'}])
def test_what_is_no_state_and_no_limit_is_refused_with_a_sentence(fate, asked):
    with pytest.raises(ValueError, match='state of a call|page of calls'):
        fate.manager.calls(**asked)


@pytest.mark.parametrize('error', [
    SyntaxError('said', ('file', 1, 1, b'bytes')), SyntaxError('said', ('file', 1, 1, 5)),
    eval("type('Bare', (Exception,), {})", {})('said'),
    type('OrderError', (Exception,), {'pgcode': 5})('said')])
def test_a_call_fails_whatever_it_raises(fate, error):
    """As what the standard library can't write, what is of a class that has no module, or what
    has a code that is none of PostgreSQL's.
    """
    runs = []

    def raises(run):
        runs.append(run.attempt)
        raise error

    worker = fate.worker(plugins=[('raises', raises)])
    calls = [fate.call('raises'), fate.call('echo', 1)]
    run_all(fate, worker, calls)
    assert [call.state for call in calls] == ['failed', 'resolved']
    assert calls[0].failure.text.startswith('said')
    assert runs == [1]


class Wrapping(Exception):
    """As proxies do that were not made by their constructor."""

    def __getattr__(self, name):
        return getattr(self.wrapped, name)


class Deaf(Exception):

    def __getattribute__(self, name):
        raise KeyError(name)


class Classless(Exception):

    @property
    def __class__(self):
        raise KeyError('class')


class Marked(str):
    """A text as markupsafe's is, whose parts are of its class."""

    def __getitem__(self, key):
        return Marked(super().__getitem__(key))


class Saying(Exception):

    def __str__(self):
        return Marked(super().__str__())


class Silent(type):
    """A class of classes that tell nothing of themselves once somebody asks for it."""

    silent = False

    def __getattribute__(cls, name):
        if Silent.silent and name in ('__name__', '__qualname__', '__module__', '__mro__'):
            raise KeyError(name)
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=Silent):
    pass


class Listing(type):
    """A class of classes whose module is no text, which the standard library can't write."""

    def __getattribute__(cls, name):
        return [name] if name == '__module__' else super().__getattribute__(name)


class Listed(Exception, metaclass=Listing):
    pass


@pytest.mark.parametrize('groupable', [False, True])
@pytest.mark.parametrize('kind', [Wrapping, Deaf, Classless, Saying, Nameless, Listed],
                         ids=['Wrapping', 'Deaf', 'Classless', 'Saying', 'Nameless', 'Listed'])
def test_a_call_fails_whatever_what_it_raises_answers(fate, kind, groupable, monkeypatch):
    runs, name = [], kind.__name__

    def raises(run):
        runs.append(run.id)
        raise kind('said')

    worker = fate.worker(plugins=[('raises', raises)], changes={'batch_seconds': 1.0})
    plugins = worker._config.plugins
    plugins['raises'] = replace(plugins['raises'], groupable=groupable)
    worker._habits.note_alone(('raises',), 0.0)
    calls = [fate.call('raises'), fate.call('raises'), fate.call('echo', 1)]
    monkeypatch.setattr(Silent, 'silent', True)
    run_all(fate, worker, calls)
    monkeypatch.undo()
    assert [call.state for call in calls] == ['failed', 'failed', 'resolved']
    failure = calls[0].failure
    assert (failure.type_name, failure.text) == (f'{__name__}.{name}', 'said')
    assert type(failure.text) is str
    assert 'raise kind' in failure.traceback_text
    assert sorted(runs) == sorted(call.id for call in calls[:2])


def test_the_log_repeats_no_more_of_what_a_call_raises_than_is_kept(fate, caplog):
    def raises(run):
        raise ValueError('x' * 1_000_000)

    worker = fate.worker(plugins=[('raises', raises)])
    fate.call('raises', retry=Retry(2))
    with caplog.at_level('INFO', 'zasync'):
        fate.go(worker)
    told = [record.getMessage() for record in caplog.records
            if 'failed and runs again' in record.getMessage()]
    assert len(told) == 1
    assert len(told[0]) < 3_000


# dropping

def test_what_ended_is_purged_by_state_and_age(fate):
    worker, _, failed = broken(fate, 3)
    good = fate.call('zope_exec', '/', {}, 'python: 1')
    run_all(fate, worker, [good])
    gone = fate.call('zope_exec', '/', {}, 'python: 1', not_before=datetime.timedelta(hours=1))
    fate.do(fate.manager.cancel, gone.id)
    fate.step(worker)
    assert fate.do(fate.manager.purge, 'failed', 3_600) == 0
    for call in failed[:2]:
        call.ended_at -= 7_200
    transaction.commit()
    assert fate.do(fate.manager.purge, 'failed', 3_600) == 2
    assert fate.manager.calls('failed') == failed[2:]
    for call in (failed[2], good, gone):
        call.ended_at -= 7_200
    transaction.commit()
    for state in ('resolved', 'cancelled', 'failed'):
        assert fate.do(fate.manager.purge, state, 0) == 1
        assert fate.do(fate.manager.purge, state, 0) == 0
    assert fate.manager.calls() == []


def test_what_was_put_since_is_not_loaded_to_see_that_it_is_too_young_to_be_purged(fate):
    worker, _, _ = broken(fate, 20)
    run_all(fate, worker, [fate.call('echo', number) for number in range(20)])
    for state in ('failed', 'resolved'):
        for age, both in ((7 * 86_400, 0), (0, 20)):
            assert fate.loaded(lambda manager, state=state, age=age: listing.purge(
                manager.queue, state, age, fate.clock.now())) == (both, both)


@pytest.mark.parametrize('state', ['new', 'accepted', 'callback', '', None, 'done', ['failed']])
def test_only_calls_that_have_ended_are_purged(fate, state):
    with pytest.raises(ValueError, match='only calls that have ended can be purged'):
        fate.manager.purge(state, 0)


@pytest.mark.parametrize('age', [-1, float('nan'), float('inf'), 'all', None])
def test_an_age_is_a_number_of_seconds(fate, age):
    with pytest.raises(ValueError, match='older_than is a number of seconds'):
        fate.manager.purge('failed', age)


def test_what_is_to_run_again_is_not_purged(fate):
    worker, _, (failed,) = broken(fate)
    failed.ended_at -= 60
    fate.manager.retry()
    transaction.commit()
    assert fate.do(fate.manager.purge, 'failed', 0) == 0
    run_all(fate, worker, [failed])
    assert failed.result == 0


def test_only_managers_may(fate):
    from AccessControl import Unauthorized
    from AccessControl.SecurityManagement import newSecurityManager
    from AccessControl.users import nobody
    newSecurityManager(None, nobody)
    app = fate.connection.root()['Application']
    for name in ('cancel', 'retry', 'pause', 'resume', 'purge', 'calls'):
        with pytest.raises(Unauthorized):
            app.zam.restrictedTraverse(name)


# real

def test_real_calls_that_failed_are_run_again_all_at_once(site, tmp_path):
    site.become('boss')
    site.start_worker()
    gate = str(tmp_path / 'gate')
    calls = [site.put('zope_call', jobs.fail_without_file, gate) for _ in range(20)]
    site.ended(*calls)
    assert {call.state for call in calls} == {'failed'}
    with open(gate, 'w', encoding='ascii'):
        pass
    site.change(lambda: site.app.zam1.retry())
    site.wait(lambda: all(call.state == 'resolved' for call in calls))
    assert site.app.zam1.calls('failed') == []
    assert os.path.exists(gate)
