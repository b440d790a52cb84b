"""What tests of add-ons use: calls run in the put, after the commit, or step by step."""

import datetime
import itertools
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import transaction
import ZODB
from AccessControl import getSecurityManager
from AccessControl import SpecialUsers
from AccessControl.SecurityManagement import newSecurityManager
from OFS.Application import Application
from OFS.Folder import Folder
from transaction.interfaces import TransientError
from ZODB.DemoStorage import DemoStorage
from zope.component.hooks import getSite
from zope.globalrequest import getRequest
from zope.globalrequest import setRequest

from Products.zasync import checkpoint
from Products.zasync import clock
from Products.zasync import defer
from Products.zasync import Options
from Products.zasync import Retry
from Products.zasync.errors import BadCall
from Products.zasync.errors import CommitRefused
from Products.zasync.errors import UnknownPlugin
from Products.zasync.errors import ZAsyncError
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.putting import StandIn
from Products.zasync.testing import eager
from Products.zasync.testing import make_worker
from Products.zasync.testing import ManualClock
from Products.zasync.testing import plugin
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.zope import jobs
from zasync_client.errors import BadTarget
from zasync_client.errors import DeskLost
from zasync_client.errors import TargetAway


ROOT = Path(__file__).resolve().parents[2]
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def zam(manager, site):
    """A committed manager; bob is logged in."""
    transaction.commit()
    site.login('bob')
    return manager


@pytest.fixture
def zad(site, app):
    """A dispatcher with one manager, which never had a worker; bob is logged in."""
    app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
    app.asynchronous_call_dispatcher._setObject('one', AsynchronousCallManager('one'))
    transaction.commit()
    site.login('bob')
    return app.asynchronous_call_dispatcher


def marks(app):
    return getattr(app.aq_base, '_marks', None)


def who():
    return getSecurityManager().getUser().getId()


def put_another(value):
    """A call that puts one itself; → whether that one has ended."""
    return put_to_zam('zope_call', jobs.mark, value).ended


def put_to_zam(*args):
    from Products.zasync.running import current
    return current().app.zam.putCall(*args)


def put_and_fail(value):
    put_to_zam('zope_call', jobs.mark, value)
    raise ValueError('no')


def again():
    """A call that puts itself again."""
    put_to_zam('zope_call', again)


def double(value):
    return 2 * value


def tell(failure):
    return f'it failed: {failure.text}'


# in the put

def test_a_call_runs_in_the_put_as_its_caller(app, zam):
    with eager():
        deferred = zam.putCall('zope_call', jobs.mark, 'done')
        assert (deferred.state, deferred.result) == ('resolved', 'done')
        assert marks(app) == 'done'
        assert zam.putCall('zope_call', who).result == 'bob'
    transaction.commit()
    assert zam.getDeferred(deferred.id).result == 'done'
    assert (zam.lenNewCalls(), zam.lenAcceptedCalls()) == (0, 0)


def test_effects_and_result_are_gone_when_the_transaction_is_aborted(app, zam):
    with eager():
        id = zam.putCall('zope_call', jobs.mark, 'done').id
        transaction.abort()
        assert marks(app) is None
        with pytest.raises(KeyError):
            zam.getDeferred(id)


def test_the_door_refuses_as_ever(zam):
    with eager():
        with pytest.raises(UnknownPlugin):
            zam.putCall('nonsense')
        with pytest.raises(BadCall, match='argument 2 holds a function'):
            zam.putCall('zope_call', double, lambda: None)


def test_arguments_and_results_are_copies_as_they_are_in_a_worker(zam):
    given = ['one']
    with eager():
        deferred = zam.putCall('echo', given)
    given.append('two')
    assert deferred.result == ['one']
    with eager():
        failed = zam.putCall('zope_call', jobs.unpicklable)
    assert failed.failure.text.startswith('the result holds a function')


def test_a_failure_is_stored_and_the_effects_are_undone(app, zam):
    app._before = 'mine'
    with eager():
        deferred = zam.putCall('zope_call', jobs.mark_and_fail, 'half', 'ValueError', 'no')
    assert (deferred.state, deferred.failure.text) == ('failed', 'no')
    assert (marks(app), app._before) == (None, 'mine')
    assert list(zam.queue.failed) == [deferred.id]


def test_the_memo_of_the_last_checkpoint_is_kept_and_that_of_a_failure_undone(app, zam):
    with eager():
        done = zam.putCall('zope_call', jobs.checkpoint_and_return, 'kept')
        failed = zam.putCall('zope_call', jobs.mark_and_checkpoint, 'gone')
    assert (done.state, done.memo) == ('resolved', {'done': 1})
    assert (failed.state, failed.memo) == ('failed', {})
    transaction.commit()
    assert zam.getDeferred(done.id).memo == {'done': 1}


def test_propagate_raises_from_the_put_what_the_call_raised(app, zam):
    with eager(propagate=True):
        with pytest.raises(ValueError, match='no'):
            zam.putCall('zope_call', jobs.mark_and_fail, 'half', 'ValueError', 'no')
        assert marks(app) is None
        deferred, = zam.queue.failed.values()
        assert deferred.failure.text == 'no'
        assert zam.putCall('zope_call', double, 4).result == 8


def test_a_failed_call_can_be_retried(zam, site):
    worked = []
    with eager(plugins=[plugin('unlucky', lambda: worked or jobs.fail('ValueError', 'not yet'))]):
        deferred = zam.putCall('unlucky')
        assert deferred.state == 'failed'
        worked.append('now')
        assert zam.retry(deferred.id) == 1
        assert deferred.result == ['now']


def test_a_call_with_callbacks_that_has_expired_is_not_run(app, zam, now):
    with eager():
        zam.pause()
        deferred = zam.putCallWith(Options(expires=HOUR), 'zope_call', jobs.mark, 'late')
        deferred.addCallbacks(None, tell)
        now.time += HOUR.total_seconds()
        zam.resume()
    assert deferred.result == 'it failed: the call had expired before a worker took it'
    assert marks(app) is None


def test_a_call_that_a_callback_has_failed_goes_on_there_when_it_is_retried(zam):
    worked = []
    with eager(plugins=[plugin('work', lambda: worked.append('once') or 5)]):
        zam.pause()
        deferred = zam.putCall('work').addCallbacks('python: result / home.divisor')
        zam.resume()
        assert deferred.state == 'failed'
        zam.aq_parent.divisor = 5
        assert zam.retry(deferred.id) == 1
        assert (deferred.state, deferred.result, worked) == ('resolved', 1, ['once'])


def test_what_a_call_puts_runs_after_it(app, zam):
    with eager():
        deferred = zam.putCall('zope_call', put_another, 'second')
        assert deferred.result is False
        assert marks(app) == 'second'


def test_what_a_call_that_fails_has_put_is_gone(app, zam):
    with eager():
        zam.putCall('zope_call', put_and_fail, 'never')
    assert marks(app) is None
    assert zam.lenNewCalls() == 0


def test_callbacks_run_and_change_the_result(zam):
    with eager():
        assert zam.putCall('echo', 4).addCallbacks(double).addCallbacks(double).result == 16
        failed = zam.putCall('zope_call', jobs.fail, 'ValueError', 'no')
        failed.addCallbacks(double, tell)
        assert (failed.state, failed.result) == ('resolved', 'it failed: no')


def put_chain(zam):
    failed = zam.putCall('echo', 1).addCallbacks('python: result / 0')
    good = zam.putCall('echo', 2)
    zam.putCall('zope_exec', '/', {}, 'python: 1 / 0')
    return failed.addCallbacks(None, 'failure/text'), good.addCallbacks('python: result + 1')


def test_callbacks_go_on_after_one_and_after_another_call_have_failed(app, zam):
    with eager():
        at_once = put_chain(zam)
    transaction.commit()
    with make_worker(zam) as worker:
        by_worker = put_chain(zam)
        transaction.commit()
        worker.run_until_idle()
    for calls in (at_once, by_worker):
        assert [call.state for call in calls] == ['resolved'] * 2
        assert [call.result for call in calls] == ['division by zero', 3]
    assert zam.calls(plugin='follow') == []


def test_calls_are_listed_by_how_their_callbacks_have_left_them_and_run_again_from_there(zam):
    worked = []
    with eager(plugins=[plugin('work', lambda: worked.append('once') or 5)]):
        broken = zam.putCall('work').addCallbacks('python: result / home.divisor')
        mended = zam.putCall('zope_call', jobs.fail, 'ValueError', 'no').addCallbacks(None, tell)
        assert zam.calls('failed') == [broken]
        assert zam.calls('resolved') == [mended]
        zam.aq_parent.divisor = 5
        assert zam.retry() == 1
        assert (broken.state, broken.result, worked) == ('resolved', 1, ['once'])
        assert zam.calls('failed') == []


def test_a_callback_added_to_a_call_that_waits_once_more_waits_with_it(zam):
    with eager():
        deferred = zam.putCall('zope_call', jobs.fail, 'ValueError', 'no')
        zam.pause()
        zam.retry()
        deferred.addCallbacks(None, tell)
        assert deferred.state == 'new'
        zam.resume()
    assert deferred.result == 'it failed: no'


def put_after(value):
    from Products.zasync.running import current
    return current().app.zam.putCall('echo', value).ended


def test_what_a_callback_puts_runs_after_it(zam):
    with eager():
        assert zam.putCall('echo', 1).addCallbacks(put_after).result is False
        assert zam.lenNewCalls() == 0


def test_a_callback_added_after_the_block_has_nothing_else_run(zam):
    with eager():
        deferred = zam.putCall('echo', 1)
    other = zam.putCall('echo', 2)
    assert deferred.addCallbacks(double).result == 2
    assert other.state == 'new'


def add_to_itself():
    from Products.zasync.running import current
    current().app.zam.getDeferred(current().id).addCallbacks(mark_it)
    return 'mine'


def mark_it(value):
    jobs.mark(value)


def test_a_callback_that_a_call_adds_to_itself_follows_it_as_in_a_worker(app, zam):
    with eager():
        at_once = zam.putCall('zope_call', add_to_itself)
        assert (at_once.result, marks(app)) == ('mine', 'mine')
    transaction.commit()
    app._marks = None
    transaction.commit()
    with make_worker(zam) as worker:
        by_worker = zam.putCall('zope_call', add_to_itself)
        transaction.commit()
        worker.run_until_idle()
        assert (by_worker.result, marks(app)) == ('mine', 'mine')


def test_a_callback_added_to_a_committed_call_runs_at_once_too(app, zam):
    with eager():
        deferred = zam.putCall('echo', 'late')
        transaction.commit()
        deferred.addCallbacks(jobs.mark)
        assert marks(app) == 'late'


@pytest.mark.parametrize('at_commit', [False, True])
def test_a_callback_added_to_a_call_that_an_earlier_eager_ran_runs_too(app, zam, at_commit):
    with eager():
        deferred = zam.putCall('echo', 'late')
    transaction.commit()
    with eager(at_commit=at_commit):
        deferred.addCallbacks(jobs.mark)
        transaction.commit()
    assert marks(app) == 'late'


@pytest.mark.parametrize('at_commit', [False, True])
def test_a_callback_has_a_call_run_that_waits_wherever_its_manager_lies(app, site, at_commit):
    app._setObject('folder', Folder('folder'))
    app.folder._setObject('zad', ZAsyncDispatcher('zad'))
    app.folder.zad._setObject('one', AsynchronousCallManager('one'))
    site.login('bob')
    deferred = app.folder.zad.one.putCall('echo', 'late')
    transaction.commit()
    with eager(at_commit=at_commit):
        deferred.addCallbacks(jobs.mark)
        transaction.commit()
    assert (deferred.result, marks(app)) == ('late', 'late')


def test_a_call_of_a_manager_that_is_not_stored_can_be_cancelled(app, site):
    app._setObject('fresh', AsynchronousCallManager('fresh'))
    site.login('bob')
    deferred = app.fresh.putCall('echo', 1).addCallbacks(jobs.mark, tell)
    with eager():
        assert deferred.cancel()


@pytest.mark.parametrize('at_commit', [False, True])
def test_an_aggregate_goes_on_when_its_last_member_is_cancelled(zam, at_commit):
    with eager(at_commit=at_commit):
        both = zam.putCall('aggregate', [('echo', (1,)), ('schedule', (60, 'echo', 2))])
        transaction.commit()
        assert both.state == 'new'
        assert both.after[1].cancel()
        transaction.commit()
    assert both.result[0] == 1
    assert both.result[1].type_name == 'Products.zasync.errors.Cancelled'


def test_aggregates_series_and_keys_work(zam):
    calls = [('echo', (number,)) for number in range(3)]
    with eager():
        assert zam.putCall('aggregate', calls).result == [0, 1, 2]
        for number in range(2):
            deferred = zam.putCallWith(Options(series='mail', key='k'), 'echo', number)
            assert deferred.result == number


def test_a_delayed_call_waits_and_so_does_a_second_attempt(zam):
    with eager():
        later = zam.putCallWith(Options(not_before=HOUR), 'echo', 1)
        again = zam.putCallWith(Options(retry=Retry(attempts=2)), 'zope_call', jobs.fail,
                                'ValueError', 'no')
    assert later.state == again.state == 'new'
    assert again.attempts[0].outcome.startswith('failed')


def test_a_second_attempt_waits_whatever_the_first_one_raised(zam):
    class Mute(Exception):
        def __str__(self):
            raise self

    def fail():
        raise Mute

    with eager(plugins=[plugin('fails', fail)]):
        again = zam.putCallWith(Options(retry=Retry(attempts=2)), 'fails')
    assert again.state == 'new'
    assert again.attempts[0].outcome == 'failed: (its text can not be shown: Mute)'


def test_a_paused_manager_runs_nothing(zam):
    zam.pause()
    with eager():
        assert zam.putCall('echo', 1).state == 'new'


@pytest.mark.parametrize('at_commit', [False, True])
def test_calls_run_when_their_manager_is_resumed(zam, at_commit):
    with eager(at_commit=at_commit):
        zam.pause()
        deferred = zam.putCall('echo', 1)
        transaction.commit()
        assert deferred.state == 'new'
        zam.resume()
        transaction.commit()
        assert deferred.state == 'resolved'


def test_a_call_of_a_paused_manager_expires(zam, now):
    zam.pause()
    with eager():
        deferred = zam.putCallWith(Options(expires=HOUR), 'echo', 1)
        now.time += HOUR.total_seconds()
        zam.putCall('echo', 2)
    assert deferred.state == 'expired'


def test_a_transient_error_goes_to_whoever_begins_the_transaction_again(zam):
    with eager(), pytest.raises(jobs.Again):
        zam.putCall('zope_call', jobs.mark_and_transient, 'half')
    assert issubclass(jobs.Again, TransientError)
    transaction.abort()


def test_a_call_can_not_commit_the_transaction_of_the_put(zam):
    with eager(), pytest.raises(CommitRefused):
        zam.putCall('zope_call', jobs.mark_and_commit, 'half')
    transaction.abort()


def test_a_call_that_stores_what_has_no_pickle_fails(app, zam):
    with eager():
        deferred = zam.putCall('zope_call', jobs.store_lambda, 'half')
    assert (deferred.state, marks(app)) == ('failed', None)
    assert 'pickle' in deferred.failure.text
    transaction.commit()
    assert list(zam.queue.failed) == [deferred.id]


def test_a_call_can_not_doom_the_transaction_of_the_put(zam):
    with eager(), pytest.raises(CommitRefused, match='doomed'):
        zam.putCall('zope_call', jobs.doom, 'half')
    transaction.abort()


def test_a_keyboard_interrupt_ends_the_test_and_not_the_call(zam):
    with eager(), pytest.raises(KeyboardInterrupt):
        zam.putCall('zope_call', jobs.fail, 'KeyboardInterrupt')
    transaction.abort()


def test_plugins_of_a_site_are_known_and_run(zam, zad):
    def aware(run, value):
        return run.app.getId(), value

    with eager(plugins=[plugin('plain', double), plugin('aware', aware, zope_aware=True)]):
        assert zam.putCall('plain', 2).result == 4
        assert zam.putCall('aware', 2).result == (zam.getPhysicalRoot().getId(), 2)
        assert zad.putCall('plain', 3)[1].result == 6
    with pytest.raises(UnknownPlugin):
        zam.putCall('plain', 2)


def look_around():
    """What a plugin that is not zope-aware sees of Zope, and what a checkpoint says.

    It leaves a user and a request in its thread.
    """
    from Products.zasync.running import current
    with pytest.raises(ZAsyncError, match='not zope-aware') as refused:
        checkpoint()
    seen = who(), getRequest(), getSite(), current().app, str(refused.value)
    newSecurityManager(None, SpecialUsers.system)
    setRequest(object())
    return seen


def test_a_plugin_that_is_not_zope_aware_sees_no_more_of_zope_than_in_a_worker(zam):
    looks = plugin('looks', look_around)
    with eager(plugins=[looks]):
        at_once = zam.putCall('looks')
        assert zam.putCall('zope_call', jobs.who).result == 'bob'
    assert who() == 'bob'
    transaction.commit()
    with make_worker(zam, plugins=[looks]) as worker:
        transaction.begin()
        by_worker = [zam.putCall('looks') for _ in range(4)]
        transaction.commit()
        worker.run_until_idle()
    assert {deferred.result for deferred in by_worker} == {at_once.result}


def test_a_periodic_call_may_be_of_a_plugin_of_the_site(zam):
    with eager(plugins=[plugin('plain', double)]):
        zam.setPeriodicCall('daily', '@daily', 'UTC', 'plain', (2,))
    with pytest.raises(UnknownPlugin):
        zam.setPeriodicCall('weekly', '@weekly', 'UTC', 'plain', (2,))


def test_a_plugin_whose_handler_is_not_given_is_named(zam):
    with make_worker(zam, plugins=[plugin('plain', double)]):
        pass
    transaction.begin()
    with eager(), pytest.raises(LookupError, match="'plain' .* give it in `plugins`"):
        zam.putCall('plain', 1)
    transaction.abort()


@pytest.mark.parametrize('no_worker', ['run', 'queue', 'refuse'])
def test_a_dispatcher_gives_its_calls_to_a_manager_whatever_it_does_without_a_worker(
        zad, no_worker):
    zad.no_worker = no_worker
    with eager():
        id, deferred = zad.putCall('echo', 'done')
    assert (id, deferred.result) == ('one', 'done')
    assert zad.one.getDeferred(deferred.id) is deferred


def test_a_dispatcher_passes_over_a_manager_that_is_paused(zad):
    zad._setObject('two', AsynchronousCallManager('two'))
    zad.one.pause()
    with eager():
        assert {zad.putCall('echo', number)[0] for number in range(20)} == {'two'}


@pytest.mark.parametrize('no_worker', ['run', 'queue', 'refuse'])
@pytest.mark.parametrize('at_commit', [False, True])
def test_where_all_managers_are_paused_calls_of_their_dispatcher_wait(zad, no_worker, at_commit):
    zad.no_worker = no_worker
    zad.one.pause()
    with eager(at_commit):
        id, deferred = zad.putCall('echo', 1)
        transaction.commit()
    assert (id, deferred.state) == ('one', 'new')


def test_defer_and_session_calls_run_too(zad):
    with eager():
        assert defer(zad.title_or_id).result == 'Asynchronous Call Dispatcher'


def test_it_works_with_a_manager_that_is_not_committed(app, site):
    site.login('bob')
    app._setObject('fresh', AsynchronousCallManager('fresh'))
    with eager():
        assert app.fresh.putCall('echo', 1).result == 1
    transaction.commit()
    assert app.fresh.lenNewCalls() == 0


def test_it_is_a_decorator_and_leaves_nothing_behind(zam):
    @eager()
    def inside():
        return zam.putCall('echo', 1).state

    assert inside() == 'resolved'
    assert (StandIn.serve, StandIn.plugins) == (None, ())
    assert zam.putCall('echo', 1).state == 'new'


# at the commit

@pytest.mark.parametrize('at_commit', [False, True])
def test_calls_run_beside_a_manager_that_was_rolled_back_with_its_calls(app, zam, at_commit):
    with eager(at_commit):
        app.title = 'something else'
        savepoint = transaction.savepoint()
        app._setObject('fresh', AsynchronousCallManager('fresh'))
        app.fresh.putCall('zope_call', jobs.mark, 'gone')
        savepoint.rollback()
        deferred = zam.putCall('zope_call', jobs.add, 1)
        transaction.commit()
    assert (deferred.state, marks(app)) == ('resolved', None)


def test_at_commit_nothing_runs_before_and_everything_after(app, zam):
    with eager(at_commit=True):
        deferred = zam.putCall('zope_call', jobs.mark, 'done')
        assert (deferred.state, marks(app)) == ('new', None)
        transaction.commit()
        assert (deferred.state, deferred.result, marks(app)) == ('resolved', 'done', 'done')


def test_at_commit_an_aborted_transaction_runs_nothing(app, zam):
    with eager(at_commit=True):
        zam.putCall('zope_call', jobs.mark, 'done')
        transaction.abort()
        transaction.commit()
    assert marks(app) is None
    assert zam.lenNewCalls() == 0


def test_at_commit_calls_run_as_their_caller_in_transactions_of_their_own(app, zam):
    with eager(at_commit=True):
        first = zam.putCall('zope_call', jobs.mark_and_fail, 'half', 'ValueError', 'no')
        second = zam.putCall('zope_call', who)
        third = zam.putCall('zope_call', jobs.mark_and_commit, 'committed')
        transaction.commit()
    assert (first.state, first.failure.text, second.result) == ('failed', 'no', 'bob')
    assert third.state == 'resolved'
    assert marks(app) == 'committed'


def test_at_commit_what_a_call_puts_runs_too_and_so_do_callbacks(app, zam):
    with eager(at_commit=True):
        first = zam.putCall('zope_call', put_another, 'second')
        second = zam.putCall('echo', 4).addCallbacks(double)
        transaction.commit()
        assert (first.result, second.result, marks(app)) == (False, 8, 'second')
        second.addCallbacks(jobs.mark)
        transaction.commit()
        assert marks(app) == 8


def put_failing(value):
    put_to_zam('zope_call', jobs.mark_and_fail, value, 'ValueError')


def test_at_commit_a_call_that_a_call_has_put_may_fail(zam):
    with eager(at_commit=True):
        deferred = zam.putCall('zope_call', put_failing, 'half')
        transaction.commit()
    assert deferred.state == 'resolved'
    assert len(zam.calls('failed')) == 1


def test_at_commit_a_dispatcher_and_its_plugins_work(zad):
    zad.no_worker = 'refuse'
    with eager(at_commit=True, plugins=[plugin('plain', double)]):
        id, deferred = zad.putCall('plain', 4)
        transaction.commit()
    assert (id, deferred.result) == ('one', 8)
    assert zad.one.queue.desk.boot is None


def test_at_commit_calls_put_through_a_page_have_run_when_it_answers(site, zam):
    site.login('admin')
    page = site.app.manage_addProduct['PageTemplates']
    page.manage_addPageTemplate('put', text='<b tal:content="python:here.zam.putCall('
                                            "'echo', 7).id\" />")
    browser = site.browser('admin')
    with eager(at_commit=True):
        answer = browser.get('/put')
    assert answer.status_int == 200, answer.text
    id = answer.text.partition('>')[2].partition('<')[0]
    assert zam.getDeferred(id).result == 7


def test_at_commit_calls_run_that_defer_has_put_to_a_manager_in_a_folder(app, site):
    app._setObject('folder', Folder('folder'))
    app.folder._setObject('asynchronous_call_manager', AsynchronousCallManager())
    transaction.commit()
    site.login('bob')
    with eager(at_commit=True):
        deferred = defer(app.folder.objectIds)
        transaction.commit()
    assert deferred.result == ['asynchronous_call_manager']


@pytest.mark.parametrize('fails', [False, True])
def test_at_commit_what_keeps_calls_from_running_is_raised_at_the_end(app, site, zam, fails):
    site.login('admin')
    with pytest.raises(LookupError if fails else TargetAway, match='own|nothing at'):
        with eager(at_commit=True):
            deferred = zam.putCall('echo', 1)
            app.manage_renameObject(zam.getId(), 'renamed')
            transaction.commit()
            assert deferred.state == 'new'
            if fails:
                raise LookupError('its own')
    with eager(at_commit=True):
        second = app.renamed.putCall('echo', 2)
        transaction.commit()
    assert (deferred.result, second.result) == (1, 2)


def test_propagate_needs_a_put_that_could_raise():
    with pytest.raises(ValueError, match='calls run later'):
        with eager(at_commit=True, propagate=True):
            pass


# step by step

def put(zam, *args, **options):
    deferred = zam.putCallWith(Options(**options), *args)
    transaction.commit()
    return deferred


def test_a_step_runs_what_was_committed_and_the_test_sees_it(app, zam):
    with make_worker(zam) as worker:
        assert worker.step() is False
        deferred = put(zam, 'zope_call', jobs.mark, 'done')
        assert deferred.state == 'new'
        assert worker.step() is True
        assert (deferred.result, marks(app)) == ('done', 'done')
        assert worker.step() is True  # files it
        assert worker.step() is False


def test_run_until_idle_runs_what_calls_put(app, zam):
    with make_worker(zam) as worker:
        deferred = put(zam, 'zope_call', put_another, 'second')
        worker.run_until_idle()
    assert (deferred.result, marks(app)) == (False, 'second')
    assert (zam.lenNewCalls(), zam.lenAcceptedCalls()) == (0, 0)


def test_a_call_with_a_delay_runs_when_the_clock_was_moved(zam):
    with make_worker(zam) as worker:
        assert isinstance(worker.clock, ManualClock)
        deferred = put(zam, 'echo', 1, not_before=HOUR)
        worker.run_until_idle()
        worker.clock.advance(3_599)
        worker.run_until_idle()
        assert deferred.state == 'new'
        worker.clock.advance(1)
        worker.run_until_idle()
        assert deferred.result == 1
        assert deferred.ended_at == clock.SYSTEM.now()


def test_further_attempts_come_when_the_clock_was_moved(zam):
    with make_worker(zam) as worker:
        deferred = put(zam, 'zope_call', jobs.fail, 'ValueError', 'no',
                       retry=Retry(attempts=3, delay=10.0, growth=2.0))
        for attempts, seconds in ((1, 10), (2, 20), (3, 0)):
            worker.run_until_idle()
            assert len(deferred.attempts) == attempts
            worker.clock.advance(seconds)
        assert deferred.state == 'failed'


@pytest.mark.parametrize('retry_on', ['LookupError ValueError', ValueError, ('ValueError',)])
def test_a_plugin_has_the_settings_of_its_section(zam, retry_on):
    unlucky = plugin('unlucky', lambda: jobs.fail('ValueError', 'no'), attempts=3, retry_delay=60,
                     retry_growth=2, retry_on=retry_on)
    with make_worker(zam, plugins=[unlucky]) as worker:
        transaction.begin()
        deferred = put(zam, 'unlucky')
        for attempts, seconds in ((1, 60), (2, 120), (3, 0)):
            worker.run_until_idle()
            assert len(deferred.attempts) == attempts
            worker.clock.advance(seconds)
        assert deferred.state == 'failed'


@pytest.mark.parametrize('name', ['time_out', 'retry_delays'])
def test_a_setting_that_a_plugin_has_not_is_refused(name):
    assert plugin('slow', double, timeout=30).timeout_seconds == 30
    with pytest.raises(TypeError, match=name):
        plugin('slow', double, **{name: 30})
    with pytest.raises(BadCall, match='no exception class'):
        plugin('slow', double, retry_on=int)


def test_a_periodic_call_comes_when_the_clock_was_moved(app, zam):
    with make_worker(zam) as worker:
        zam.setPeriodicCall('hourly', '@hourly', 'UTC', 'zope_call', (jobs.mark, 'came'))
        transaction.commit()
        worker.run_until_idle()
        assert marks(app) is None
        worker.clock.advance(3_600)
        worker.run_until_idle()
        assert marks(app) == 'came'


def test_a_call_that_is_too_old_expires(zam):
    with make_worker(zam) as worker:
        deferred = put(zam, 'echo', 1, expires=HOUR)
        worker.clock.advance(3_600)
        worker.run_until_idle()
        assert deferred.state == 'expired'


def test_the_process_has_its_clock_back_at_the_end(zam):
    before = clock.SYSTEM
    with make_worker(zam, clock=ManualClock(5_000_000.0)) as worker:
        assert clock.SYSTEM is worker.clock
        assert clock.SYSTEM.now() == 5_000_000.0
    assert clock.SYSTEM is before
    with make_worker(zam, clock=before):
        assert clock.SYSTEM is before


@pytest.mark.parametrize('order', [*itertools.permutations(range(3))])
def test_the_clock_of_the_last_worker_that_is_open_counts_in_any_order_of_closing(app, zam, order):
    before = clock.SYSTEM
    for id in ('zam2', 'zam3'):
        app._setObject(id, AsynchronousCallManager(id))
    transaction.commit()
    workers = {0: make_worker(zam), 1: make_worker(app.zam2)}
    workers[2] = make_worker(app.zam3, clock=workers[1].clock)
    for number in order:
        workers.pop(number).close()
        last = workers[max(workers)].clock if workers else before
        assert clock.SYSTEM is last


def test_an_application_and_a_path_will_do(app, site):
    app._setObject('asynchronous_call_manager', AsynchronousCallManager())
    transaction.commit()
    site.login('bob')
    with make_worker(app) as worker:
        deferred = put(app.asynchronous_call_manager, 'echo', 1)
        worker.run_until_idle()
        assert deferred.result == 1


def test_plugins_of_a_worker_are_known_to_its_manager(zam):
    with make_worker(zam, plugins=[plugin('plain', double, description='twice')]) as worker:
        transaction.begin()
        deferred = put(zam, 'plain', 4)
        worker.run_until_idle()
        assert deferred.result == 8


def test_a_dispatcher_believes_in_a_worker_that_makes_steps(zad):
    zad.no_worker = 'refuse'
    transaction.commit()
    with make_worker(zad.one) as worker:
        for _ in range(3):
            worker.step()
            transaction.commit()
            _, deferred = zad.putCall('echo', 1)
            transaction.commit()
            worker.run_until_idle()
            assert deferred.result == 1
            worker.clock.advance(3_600)
    transaction.begin()
    assert zad.load_of(zad.one).alive is False


def test_what_does_not_stand_in_the_database_is_told(app, zam):
    with pytest.raises(TargetAway, match='nothing at /nowhere: commit it first'):
        make_worker(app, '/nowhere')
    with pytest.raises(BadTarget):
        make_worker(app, '/acl_users')
    fresh = Application()
    fresh._setObject('zam', AsynchronousCallManager('zam'))
    for loose in (fresh.zam, AsynchronousCallManager('zam'), Folder('nobody has added it'), 'zam'):
        with pytest.raises(ValueError, match='in no database'):
            make_worker(loose)
    # Nothing of these is left: not the clock, no thread.
    assert not isinstance(clock.SYSTEM, ManualClock)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith('zasync')]


def test_changes_that_are_not_committed_are_not_lost_but_told(zam):
    with make_worker(zam) as worker:
        deferred = zam.putCall('echo', 1)
        for act in (worker.step, worker.run_until_idle):
            with pytest.raises(RuntimeError, match='commit or abort them first'):
                act()
        transaction.commit()
        worker.run_until_idle()
        assert deferred.result == 1


def test_the_test_sees_what_a_worker_has_left_behind_when_it_is_closed(zam):
    with make_worker(zam) as worker:
        deferred = put(zam, 'echo', 1)
        worker.step()
    assert zam.queue.desk.running == {}
    with eager():
        assert zam.putCall('echo', deferred.result + 1).result == 2
    transaction.commit()


def test_a_worker_that_is_closed_leaves_changes_that_are_not_committed(app, zam):
    with make_worker(zam):
        app._marks = 'mine'
    transaction.commit()
    assert marks(app) == 'mine'


def test_calls_that_put_each_other_without_end_are_told(zam, monkeypatch):
    from Products.zasync import testing
    monkeypatch.setattr(testing, 'BEATS_MOST', 20)
    with make_worker(zam) as worker:
        put(zam, 'zope_call', again)
        with pytest.raises(RuntimeError, match='again and again'):
            worker.run_until_idle()
        transaction.abort()


def test_a_call_that_does_not_end_is_told(zam, monkeypatch):
    from Products.zasync import testing
    monkeypatch.setattr(testing, 'HANGS_SECONDS', 0.1)
    gate = threading.Event()
    with make_worker(zam, plugins=[plugin('hangs', gate.wait)]) as worker:
        transaction.begin()
        deferred = put(zam, 'hangs')
        with pytest.raises(TimeoutError, match=deferred.id):
            worker.step()
        gate.set()
        monkeypatch.setattr(testing, 'HANGS_SECONDS', 60.0)
        worker.run_until_idle()
        assert deferred.result is True


def test_a_worker_that_lost_its_target_says_so(zam):
    with make_worker(zam) as worker:
        with make_worker(zam, clock=worker.clock):
            with pytest.raises(DeskLost):
                worker.clock.advance(10)
                worker.step()


def test_calls_meet_as_in_real_threads(zam):
    """With two threads, two calls can wait for each other."""
    here, there = threading.Event(), threading.Event()

    def first():
        here.set()
        return there.wait(30)

    def second():
        there.set()
        return here.wait(30)

    plugins = [plugin('first', first), plugin('second', second)]
    with make_worker(zam, plugins=plugins, threads=2) as worker:
        transaction.begin()
        calls = [zam.putCall('first'), zam.putCall('second')]
        transaction.commit()
        worker.run_until_idle()
        assert [call.result for call in calls] == [True, True]


def test_a_database_without_zope_will_do_and_a_hundred_calls_take_no_time():
    db = ZODB.DB(DemoStorage())
    connection = db.open()
    app = connection.root()['Application'] = Application()
    app._setObject('zam', AsynchronousCallManager('zam'))
    transaction.commit()
    with make_worker(app.zam) as worker:
        calls = [app.zam.putCall('echo', number) for number in range(100)]
        transaction.commit()
        before = clock.SystemClock().monotonic()
        worker.run_until_idle()
        seconds = clock.SystemClock().monotonic() - before
        assert [call.result for call in calls] == list(range(100))
    connection.close()
    db.close()
    assert seconds < 2.0  # 0.3 on a slow core


# the page

@pytest.fixture
def examples(tmp_path):
    """The files of docs/testing.rst in a directory."""
    text = (ROOT / 'docs' / 'testing.rst').read_text('utf-8')
    blocks = re.findall(r'^\.\. code-block:: python\n   :caption: (\S+)\n\n((?:   .*\n|\n)+)',
                        text, re.M)
    for name, body in blocks:
        (tmp_path / name).write_text(textwrap.dedent(body), 'utf-8')
    assert len(blocks) == text.count('code-block::') == 4
    return tmp_path


@pytest.mark.parametrize('runner, passed', [
    (('pytest', '-q', '-p', 'no:cacheprovider'), '8 passed'), (('unittest', '-q'), 'Ran 3 tests')])
def test_the_examples_of_the_page_pass_as_they_stand(examples, runner, passed):
    paths = [str(ROOT), str(examples), os.environ.get('PYTHONPATH', '')]
    done = subprocess.run([sys.executable, '-W', 'error::ResourceWarning', '-m', *runner],
                          cwd=examples, capture_output=True, text=True, timeout=60,
                          env=dict(os.environ, PYTHONPATH=os.pathsep.join(paths)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert passed in done.stdout + done.stderr
