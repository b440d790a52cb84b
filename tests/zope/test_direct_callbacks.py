"""Callbacks, aggregates and delays of calls that run in the request, since no worker lives."""

import itertools

import pytest
import transaction
from AccessControl.SecurityManagement import noSecurityManager

from Products.zasync.errors import BadCall
from Products.zasync.errors import CommitRefused
from Products.zasync.errors import NoWorker
from Products.zasync.errors import UnknownPlugin
from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.client import chains
from tests.client.test_callbacks import by_twisted
from tests.client.test_callbacks import FAILURE
from tests.client.test_callbacks import PAIRS
from tests.client.test_callbacks import SUCCESS
from tests.fakes import sign_on
from tests.zope import jobs


@pytest.fixture
def zad(site, app):
    """A dispatcher without a manager; bob is logged in."""
    app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
    transaction.commit()
    site.login('bob')
    return app.asynchronous_call_dispatcher


def put(zad, *args, **kwargs):
    id, deferred = zad.putCall(*args, **kwargs)
    assert id is None
    return deferred


def marks(app):
    return getattr(app.aq_base, '_marks', None)


@pytest.mark.parametrize('failed', [False, True])
def test_callbacks_run_at_once_by_the_rules_of_twisted(zad, failed):
    for chain in itertools.product(PAIRS, repeat=2):
        deferred = put(zad, 'zope_call', chains.fail if failed else chains.value)
        for success, failure in chain:
            assert deferred.addCallbacks(SUCCESS[success], FAILURE[failure]) is deferred
        state, value = by_twisted(failed, chain)
        assert deferred.state == state
        assert (deferred.result if state == 'resolved' else deferred.failure.type_name) == value


def test_a_TALES_callback_sees_the_result(zad):
    deferred = put(zad, 'zope_call', jobs.add, 1).addCallbacks('python: result * 10')
    assert deferred.result == 20
    assert put(zad, 'zope_call', jobs.add, 'x').addCallbacks(
        None, 'failure/type_name').result == 'TypeError'


def test_effects_of_a_failing_callback_are_rolled_back_and_those_before_stay(app, zad):
    app._before = 'of the request'
    deferred = put(zad, 'zope_call', jobs.mark, 'of the call')
    deferred.addCallbacks('python: (home.manage_addFolder("by_bob"), 1)')
    assert deferred.failure.type_name.endswith('Unauthorized')
    deferred.addCallbacks(None, 'failure/text')
    assert deferred.state == 'resolved'
    transaction.commit()
    assert (app._before, marks(app)) == ('of the request', 'of the call')
    assert 'by_bob' not in app.objectIds()


def test_callbacks_go_on_after_a_failure_for_a_deferred_that_the_request_has_stored(app, zad):
    app._call = deferred = put(zad, 'zope_call', jobs.add, 1)
    deferred.addCallbacks('python: result / 0').addCallbacks(None, 'failure/text')
    assert (deferred.state, deferred.result) == ('resolved', 'division by zero')
    put(zad, 'zope_call', chains.fail)
    assert deferred.addCallbacks('python: len(result)').result == len('division by zero')
    transaction.commit()
    assert app._call.result == len('division by zero')


def test_a_result_that_can_not_be_kept_or_read_goes_to_the_failure_chain(app, zad):
    for job in (jobs.give_lambda, jobs.fail_unpicklably):
        deferred = put(zad, 'zope_call', jobs.add, 1).addCallbacks(job)
        assert deferred.failure.type_name == 'Products.zasync.errors.BadResult'
        assert marks(app) is None
    deferred = put(zad, 'zope_call', chains.no_return).addCallbacks(chains.double)
    assert deferred.failure.text == 'it does not come back'


def test_a_conflict_in_a_callback_goes_to_the_publisher(app, zad):
    deferred = put(zad, 'zope_call', jobs.add, 1)
    with pytest.raises(jobs.Again):
        deferred.addCallbacks(jobs.mark_and_transient)
    assert marks(app) is None
    transaction.abort()


def test_a_callback_that_commits_fails_the_request(app, zad):
    deferred = put(zad, 'zope_call', jobs.add, 1)
    with pytest.raises(CommitRefused):
        deferred.addCallbacks(jobs.mark_and_commit)
    transaction.abort()
    assert marks(app) is None


def test_a_callback_has_no_checkpoints_here_either(zad):
    deferred = put(zad, 'zope_call', jobs.add, 1).addCallbacks(chains.makes_checkpoint)
    assert 'checkpoint' in deferred.failure.text


def test_a_callback_runs_as_whoever_adds_it(site, zad):
    deferred = put(zad, 'zope_call', jobs.add, 1)
    site.login('eve')
    assert deferred.addCallbacks(chains.who).result == 'eve'
    noSecurityManager()
    assert deferred.addCallbacks(chains.who).result is None


def test_a_bad_callback_is_refused_and_the_result_is_as_it_was(zad):
    deferred = put(zad, 'zope_call', jobs.add, 1)
    with pytest.raises(BadCall):
        deferred.addCallbacks('python: (')
    assert deferred.result == 2


def test_after_the_request_such_a_call_takes_no_callbacks(app, zad):
    app._deferred = put(zad, 'zope_call', jobs.add, 1)
    transaction.commit()
    app._deferred._p_deactivate()
    with pytest.raises(BadCall, match='a request that is over'):
        app._deferred.addCallbacks(chains.double)


# aggregates

def test_an_aggregate_has_all_results_in_order_and_Failures_in_the_list(app, zad):
    deferred = put(zad, 'aggregate', [
        ('zope_call', (jobs.add, 1)), ('zope_call', (jobs.mark_and_fail, 'x', 'ValueError', 'no')),
        ('aggregate', ([('zope_exec', ('/', {}, 'python: 3'))],))])
    one, failure, three = deferred.result
    assert (one, three, str(failure)) == (2, [3], 'ValueError: no')
    assert marks(app) is None


def test_with_first_failure_an_aggregate_fails(zad):
    deferred = put(zad, 'aggregate', [('zope_call', (jobs.add, 'x'))], first_failure=True)
    assert deferred.failure.type_name == 'Products.zasync.errors.MemberFailed'


def test_an_aggregate_that_must_wait_does_not_run_in_a_request(app, zad):
    calls = [('zope_call', (jobs.add, 1)), ('schedule', (5, 'zope_call', jobs.add, 1))]
    with pytest.raises(NoWorker):
        zad.putCall('aggregate', calls)
    zad._setObject('zam', AsynchronousCallManager('zam'))
    id, deferred = zad.putCall('aggregate', calls)
    assert (id, deferred.state) == ('zam', 'new')
    assert zad.zam.lenNewCalls() == 3


def test_schedule_without_a_delay_is_the_call_itself(zad):
    assert put(zad, 'schedule', 0, 'zope_call', jobs.add, 1).result == 2


def test_an_aggregate_goes_where_all_its_plugins_are_offered(zad):
    for id, plugins in (('one', ['a']), ('two', ['a', 'b']), ('three', ['b'])):
        zad._setObject(id, AsynchronousCallManager(id))
        sign_on(zad._getOb(id), plugins)
    for calls in ([('a', ()), ('b', ())], [('a', ()), ('schedule', (5, 'b'))],
                  [('zope_call', (jobs.add, 1)), ('aggregate', ([('b', ()), ('a', ())],))]):
        id, deferred = zad.putCall('aggregate', calls)
        assert id == 'two'
        assert len(deferred.after) == 2
    assert zad.one.lenNewCalls() == zad.three.lenNewCalls() == 0


def test_an_aggregate_whose_plugins_nobody_offers_together_is_refused_by_name(zad):
    for id, plugins in (('one', ['a']), ('two', ['b'])):
        zad._setObject(id, AsynchronousCallManager(id))
        sign_on(zad._getOb(id), plugins)
    with pytest.raises(UnknownPlugin, match='no worker offers a and b'):
        zad.putCall('aggregate', [('a', ()), ('b', ())])
    with pytest.raises(UnknownPlugin, match="member 2: there is no plugin 'c'; known are: .*a"):
        zad.putCall('aggregate', [('a', ()), ('c', ())])
    assert zad.one.lenNewCalls() == zad.two.lenNewCalls() == 0


def test_what_has_no_end_is_refused_by_the_dispatcher_too(zad):
    zad._setObject('zam', AsynchronousCallManager('zam'))
    endless = []
    endless += [('aggregate', (endless,))] * 1_000
    with pytest.raises(BadCall):
        zad.putCall('aggregate', endless)
    with pytest.raises(BadCall):
        zad.putCall('schedule', *(1, 'schedule') * 5_000, 1, 'zope_call', jobs.add, 1)
