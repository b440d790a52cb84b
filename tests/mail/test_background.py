"""background: the door to zasync, with the real dispatcher and manager."""

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from OFS.Folder import Folder
from Testing.makerequest import makerequest

from Products.CPSMailAccess import background
from Products.CPSMailAccess import clock
from Products.CPSMailAccess.synchronizer import Synchronizer
from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher import leaving
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher

from .conftest import empty
from .conftest import fill
from .conftest import in_call
from .servers import free_port
from .servers import Proxy
from .servers import USER


@pytest.fixture
def alice(site):
    """Requests come from alice, the owner of the mailbox."""
    user = site.app.acl_users.getUserById(USER).__of__(site.app.acl_users)
    newSecurityManager(None, user)
    yield user
    noSecurityManager()


@pytest.fixture
def dispatcher(site):
    """A dispatcher with one manager, and no worker alive."""
    site.app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
    dispatcher = site.app.asynchronous_call_dispatcher
    dispatcher._setObject('zam1', AsynchronousCallManager('zam1'))
    transaction.commit()
    return dispatcher


def boxed(site, port):
    """The mailbox as a request sees it."""
    site.add_box(port)
    return makerequest(site.app).portal_webmail.box_alice


def test_without_a_dispatcher_it_runs_in_the_request(site, pymap, alice):
    box = boxed(site, pymap.port)
    assert box.background_synchronisation() == 'done'
    transaction.commit()
    assert box.sync_report()['state'] == 'done'


def test_failure_in_the_request_is_stored_with_its_reason(site, alice):
    box = boxed(site, free_port())
    assert box.background_synchronisation() == 'failed'
    transaction.commit()
    assert 'refuses connections' in box.sync_report()['reason']


def test_with_no_worker_alive_the_dispatcher_runs_it(site, pymap, alice, dispatcher):
    fill(pymap, 1)
    box = boxed(site, pymap.port)
    assert box.background_synchronisation(light=0) == 'done'
    transaction.commit()
    assert box.sync_report()['state'] == 'done' and box.message_count() > 0
    assert box.sync_requests.call.ended


def test_direct_run_that_fails_says_why(site, alice, dispatcher):
    box = boxed(site, free_port())
    assert box.background_synchronisation() == 'failed'
    transaction.commit()
    report = box.sync_report()
    assert report['state'] == 'failed' and 'refuses connections' in report['reason']
    assert report['reason'].startswith('The mail server')
    assert not box.isSynchronizing()


def test_direct_run_that_fails_half_way_leaves_nothing_and_the_next_one_gets_all(
        site, alice, dispatcher, pymap, monkeypatch):
    monkeypatch.setattr(Synchronizer, 'batch_size', 2)
    empty(pymap)
    fill(pymap, 6)
    with Proxy(pymap.port, lambda sent: sent.count(b'BODY[HEADER') > 3) as proxy:
        box = boxed(site, proxy.port)
        assert box.background_synchronisation() == 'failed'
        transaction.commit()
    assert 'closed the connection' in box.sync_report()['reason']
    assert box.message_count() == 0 and not box.folders()
    box.set_parameters({'PORT': pymap.port})
    assert box.background_synchronisation() == 'done'
    assert box.message_count() == 6


def test_times_of_a_failed_call_are_its_own_and_not_those_of_the_run_before(
        site, pymap, alice, dispatcher):
    box = boxed(site, pymap.port)
    assert box.background_synchronisation() == 'done'
    transaction.commit()
    before = box.sync_report()['ended_at']
    dispatcher.no_worker = 'queue'
    box.background_synchronisation()
    transaction.commit()
    report = box.sync_report()
    assert (report['state'], report['started_at'], report['ended_at']) == ('queued', None, None)
    box.sync_requests.call.cancel()
    transaction.commit()
    report = box.sync_report()
    assert report['state'] == 'failed' and report['ended_at'] > before
    dispatcher.no_worker = 'refuse'
    assert box.background_synchronisation() == 'failed'
    assert box.sync_report()['ended_at'] is None


def test_queued_call_is_joined_and_its_expression_is_constant(site, alice, dispatcher):
    dispatcher.no_worker = 'queue'
    box = boxed(site, free_port())
    assert box.background_synchronisation(light=0) == 'queued'
    transaction.commit()
    assert box.background_synchronisation(light=1) == 'joined'
    transaction.commit()
    assert dispatcher.zam1.lenNewCalls() == 1
    assert box.isSynchronizing() and box.sync_report()['state'] == 'queued'
    (path, variables, expression, *_rest), _named = box.sync_requests.call.arguments()
    assert tuple(path) == box.getPhysicalPath()
    assert variables == {'light': 0}
    assert expression == 'python: here.synchronize(light=request.light)'


def test_cancelled_call_says_so_in_a_sentence(site, alice, dispatcher):
    dispatcher.no_worker = 'queue'
    box = boxed(site, free_port())
    box.background_synchronisation()
    transaction.commit()
    box.sync_requests.call.cancel()
    transaction.commit()
    report = box.sync_report()
    assert (report['state'], report['reason']) == ('failed', 'the call was cancelled')
    assert box.background_synchronisation() == 'queued'


@pytest.mark.parametrize('light, stored', [(0, 0), (False, 0), ('0', 0),
                                           (1, 1), (True, 1), ('1', 1)])
def test_all_folders_are_asked_for_by_what_is_zero(site, alice, dispatcher, light, stored):
    dispatcher.no_worker = 'queue'
    box = boxed(site, free_port())
    box.background_synchronisation(light=light)
    (_path, variables, *_rest), _named = box.sync_requests.call.arguments()
    assert variables == {'light': stored}
    assert box.sync_requests.light(0) == stored


def test_dispatcher_that_refuses_is_said_on_the_page_and_breaks_nothing(
        site, alice, dispatcher):
    dispatcher.no_worker = 'refuse'
    box = boxed(site, free_port())
    assert box.background_synchronisation() == 'failed'
    transaction.commit()
    assert 'NoWorker' in box.sync_report()['reason']
    dispatcher.no_worker = 'queue'
    assert box.background_synchronisation() == 'queued'


def test_aborted_request_asked_for_nothing(site, alice, dispatcher):
    dispatcher.no_worker = 'queue'
    box = boxed(site, free_port())
    transaction.commit()
    box.background_synchronisation()
    transaction.abort()
    assert dispatcher.zam1.lenNewCalls() == 0 and box.sync_report()['state'] == 'idle'


def replaced_by(kind):
    def replace(app):
        app.asynchronous_call_dispatcher._delObject('zam1', suppress_events=True)
        app.asynchronous_call_dispatcher._setObject('zam1', kind('zam1'))
    return replace


@pytest.mark.parametrize('remove', [
    lambda app: app.asynchronous_call_dispatcher._delObject('zam1', suppress_events=True),
    lambda app: app._delObject('asynchronous_call_dispatcher', suppress_events=True),
    replaced_by(AsynchronousCallManager), replaced_by(Folder)],
    ids=['manager', 'dispatcher', 'queue', 'anything'])
def test_call_whose_manager_is_gone_is_waited_for_no_longer(
        site, pymap, alice, dispatcher, remove):
    dispatcher.no_worker = 'queue'
    box = boxed(site, pymap.port)
    assert box.background_synchronisation() == 'queued'
    transaction.commit()
    assert box.sync_report()['state'] == 'queued'
    remove(site.app)
    dispatcher.no_worker = 'run'
    transaction.commit()
    report = box.sync_report()
    assert report['state'] == 'failed' and 'does not know it any more' in report['reason']
    assert box.background_synchronisation() == 'done'
    transaction.commit()
    assert box.sync_report()['state'] == 'done'


def test_call_that_was_moved_to_another_manager_is_waited_for(site, alice, dispatcher):
    dispatcher.no_worker = 'queue'
    box = boxed(site, free_port())
    assert box.background_synchronisation() == 'queued'
    dispatcher._setObject('zam2', AsynchronousCallManager('zam2'))
    transaction.commit()
    leaving.start(dispatcher, dispatcher.zam1)
    while not leaving.go_on(dispatcher, dispatcher.zam1, clock.now()):
        transaction.commit()
    transaction.commit()
    assert box.sync_report()['state'] == 'queued'
    assert box.background_synchronisation() == 'joined'
    assert dispatcher.zam2.lenNewCalls() == 1


def test_call_of_somebody_else_is_not_taken_for_lost(site, alice, dispatcher):
    dispatcher.no_worker = 'queue'
    box = boxed(site, free_port())
    assert box.background_synchronisation() == 'queued'
    transaction.commit()
    mallory = site.app.acl_users.getUserById('mallory').__of__(site.app.acl_users)
    newSecurityManager(None, mallory)
    assert box.sync_report()['state'] == 'queued'


def test_call_that_claims_nothing_of_the_mailbox_is_served_by_the_run_it_meets(site, alice):
    # Such as a nightly asyncedCall: it never asked, so it asks when it meets a run.
    box = boxed(site, free_port())
    box.sync_status.take('another', clock.now())
    transaction.commit()
    with in_call('nightly'):
        assert box.synchronize(light=0) == []
    assert box.sync_requests.wanted_full == 1


def test_something_else_under_the_dispatchers_name_is_no_dispatcher(site, pymap, alice):
    site.app.asynchronous_call_dispatcher = 'not one'
    assert boxed(site, pymap.port).background_synchronisation() == 'done'


@pytest.mark.parametrize('expression', [
    'python: here.synchronize(light=request.light)',
    'python: home.portal_webmail.box_alice.synchronize(light=1)'])
def test_owner_may_run_it_in_restricted_code(site, pymap, alice, dispatcher, expression):
    box = boxed(site, pymap.port)
    _none, call = dispatcher.putCall(
        'zope_exec', box.getPhysicalPath(), {'light': 1}, expression)
    assert call.state == 'resolved', call.failure
    assert 'INBOX: created' in call.result


def test_others_may_not_run_it(site, pymap, dispatcher):
    box = boxed(site, pymap.port)
    mallory = site.app.acl_users.getUserById('mallory').__of__(site.app.acl_users)
    newSecurityManager(None, mallory)
    try:
        _none, call = dispatcher.putCall(
            'zope_exec', box.getPhysicalPath(), {'light': 1}, background.SYNCHRONIZE)
    finally:
        noSecurityManager()
    assert call.state == 'failed' and call.failure.type_name.endswith('Unauthorized')
    assert box.message_count() == 0


@pytest.mark.parametrize('name', ['_own', '_effective', '_account', 'set_parameters',
                                  'sync_status', 'fetch_body', 'create_folder'])
def test_restricted_code_gets_neither_password_nor_insides(
        site, pymap, alice, dispatcher, name):
    box = boxed(site, pymap.port)
    _none, call = dispatcher.putCall(
        'zope_exec', box.getPhysicalPath(), {}, 'nocall: here/%s' % name)
    assert call.state == 'failed'


def test_indexing_enters_messages_with_bodies_and_takes_the_stack_as_data(
        site, pymap, alice, dispatcher):
    fill(pymap, 2)
    box = boxed(site, pymap.port)
    box.synchronize()
    inbox = box.INBOX
    one, two = inbox.messages(0, 2)
    box.fetch_body(inbox, one)
    box.body_index._entries.clear()
    stack = [('INBOX', one.uid), ('INBOX', two.uid), ('INBOX', 999_999), ('Gone', 1)]
    assert box.indexMails(stack) == 1
    assert box.indexMails([], background=True) == 0
    box.body_index._entries.clear()
    assert box.indexMails(stack, background=True) == 0
    assert len(box.body_index) == 1


def test_request_in_the_foreground_while_a_run_goes_on_is_counted(site, pymap):
    box = boxed(site, pymap.port)
    box.sync_status.take('another', clock.now())
    transaction.commit()
    assert box.synchronize(light=0) == []
    assert box.sync_requests.wanted == box.sync_requests.wanted_full == 1
