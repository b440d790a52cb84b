"""Whom a callback runs as, in a worker: whoever added it, and with no more rights than that."""

import pytest
import transaction
import zope.event
from AccessControl import getSecurityManager
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.userfolder import UserFolder
from Acquisition import Implicit
from OFS.Folder import Folder
from Products.Five.component import enableSite
from zope.component.hooks import setSite
from zope.component.persistentregistry import PersistentComponents
from zope.publisher.interfaces import IEndRequestEvent

from tests.client import chains
from tests.client.test_callbacks import at_rest
from tests.client.test_callbacks import kept
from tests.client.test_callbacks import run
from tests.client.test_callbacks import run_until
from tests.client.workbench import Bench


@pytest.fixture
def bench():
    made = Bench()
    app = made.connection.root()['Application']
    if 'acl_users' not in app.objectIds():
        app._setObject('acl_users', UserFolder())
    app.acl_users._doAddUser('boss', 'secret', ['Manager'], [])
    app.acl_users._doAddUser('bob', 'secret', [], [])
    transaction.commit()
    made.app = app
    yield made
    chains.GATE.set()
    made.close()
    noSecurityManager()


def become(bench, user_id):
    """Act as that user from now on."""
    users = bench.app.acl_users
    newSecurityManager(None, users.getUserById(user_id).__of__(users))


def put(bench, user_id, job, *args):
    """Put a call as that user, in a transaction that goes on."""
    transaction.begin()
    become(bench, user_id)
    return bench.manager.putCall('zope_call', job, *args)


@pytest.mark.parametrize('when', ['same transaction', 'before the end', 'after the end'])
def test_a_callback_runs_as_whoever_added_it(bench, when):
    worker = bench.worker()
    deferred = put(bench, 'bob', chains.keep_who, 1)
    deferred.addCallbacks(chains.keep_who)
    if when != 'same transaction':
        transaction.commit()
    if when == 'after the end':
        run(bench, worker, deferred)
    become(bench, 'boss')
    deferred.addCallbacks(chains.keep_who)
    become(bench, 'bob')
    deferred.addCallbacks(chains.keep_who)
    transaction.commit()
    run_until(bench, worker, lambda: at_rest(bench))
    assert kept(bench) == ('bob', 'bob', 'boss', 'bob')


def test_a_session_mate_adds_callbacks_that_run_as_itself(bench):
    worker = bench.worker()
    become(bench, 'bob')
    deferred = bench.manager._putCall(('a browser',), 'zope_call', chains.value)
    transaction.commit()
    noSecurityManager()
    deferred.addCallbacks(chains.keep_who)
    transaction.commit()
    run_until(bench, worker, lambda: at_rest(bench))
    assert kept(bench) == (None,)


@pytest.mark.parametrize('late', [False, True])
def test_a_callback_touches_what_its_caller_may_not(bench, late):
    worker = bench.worker()
    deferred = put(bench, 'bob', chains.value, 1)
    if late:
        transaction.commit()
    deferred.addCallbacks('python: here.manage_changeProperties(title="by bob")')
    deferred.addCallbacks(chains.keep, chains.keep_type)
    transaction.commit()
    run_until(bench, worker, lambda: at_rest(bench))
    [name] = kept(bench)
    assert name.endswith('Unauthorized')
    assert bench.app.title != 'by bob'


def test_effects_before_the_refusal_are_rolled_back(bench):
    worker = bench.worker()
    bench.app.manage_permission('Manage properties', ['Anonymous'], 1)
    transaction.commit()
    deferred = put(bench, 'bob', chains.value, 1)
    deferred.addCallbacks('python: here.manage_changeProperties(title="by bob")')
    deferred.addCallbacks('python: (here.manage_changeProperties(title="half"), '
                          'here.manage_delObjects(["zam"]))')
    transaction.commit()
    run(bench, worker, deferred)
    assert deferred.failure.type_name.endswith('Unauthorized')
    assert bench.app.title == 'by bob'


def test_a_method_its_caller_may_not_call_any_more_goes_to_the_failure_chain(bench):
    worker = bench.worker()
    bench.app.manage_permission('Access contents information', ['Anonymous'], 1)
    transaction.commit()
    deferred = put(bench, 'bob', chains.value, 'Folder')
    deferred.addCallbacks(bench.app.objectIds)
    transaction.commit()
    bench.app.manage_permission('Access contents information', ['Manager'], 0)
    transaction.commit()
    run(bench, worker, deferred)
    assert deferred.failure.type_name.endswith('Unauthorized')


def test_the_user_who_added_a_callback_was_deleted(bench):
    worker = bench.worker()
    deferred = put(bench, 'bob', chains.value, 1)
    deferred.addCallbacks(chains.keep)
    become(bench, 'boss')
    deferred.addCallbacks(chains.keep, chains.keep_type)
    bench.app.acl_users._doDelUsers(['bob'])
    transaction.commit()
    run(bench, worker, deferred)
    assert kept(bench) == ('Products.zasync.errors.CallerGone',)


def test_what_a_call_and_its_callback_leave_to_the_commit_is_done_as_they_were(bench):
    """As in a request: the indexing of Plone asks for the site and the request."""
    bench.app._setObject('place', Folder('place'))
    enableSite(bench.app.place)
    bench.app.place.setSiteManager(PersistentComponents())
    transaction.commit()
    worker = bench.worker()
    setSite(bench.app.place)
    try:
        deferred = put(bench, 'bob', chains.keep_at_commit)
        become(bench, 'boss')
        deferred.addCallbacks(chains.keep_at_commit)
        transaction.commit()
    finally:
        setSite(None)
    run(bench, worker, deferred)
    assert deferred.state == 'resolved'
    assert kept(bench) == tuple((user, ('', 'place'), 'http://localhost')
                                for user in ('bob', 'boss'))


def test_a_listener_to_the_end_of_requests_that_fails_fails_no_call(bench, caplog):
    def fail(event):
        if IEndRequestEvent.providedBy(event):
            raise ValueError('of the listener')

    worker = bench.worker()
    zope.event.subscribers.append(fail)
    try:
        deferred = put(bench, 'bob', chains.value, 1).addCallbacks(chains.double)
        transaction.commit()
        run(bench, worker, deferred)
    finally:
        zope.event.subscribers.remove(fail)
    assert (deferred.state, deferred.result) == ('resolved', 2)
    assert 'what listens to the end of requests has failed' in caplog.text


class Script(Implicit):
    """An executable that bob owns."""

    def getOwnerTuple(self):
        """(path of the user folder, id)."""
        return ['acl_users'], 'bob'

    def getWrappedOwner(self):
        """The user."""
        users = self.aq_parent.acl_users
        return users.getUserById('bob').__of__(users)

    def getOwner(self, info=0):
        """The user."""
        return self.getWrappedOwner()


@pytest.mark.parametrize('late', [False, True])
def test_a_script_of_a_weaker_owner_adds_callbacks_that_can_do_no_more(bench, late):
    worker = bench.worker()
    deferred = put(bench, 'boss', chains.value, 1)
    if late:
        transaction.commit()
    manager, script = getSecurityManager(), Script().__of__(bench.app)
    manager.addContext(script)
    try:
        deferred.addCallbacks('python: here.manage_changeProperties(title="by a trick")')
    finally:
        manager.removeContext(script)
    deferred.addCallbacks(chains.keep, chains.keep_type)
    transaction.commit()
    run_until(bench, worker, lambda: at_rest(bench))
    [name] = kept(bench)
    assert name.endswith('Unauthorized')
    assert bench.app.title != 'by a trick'
