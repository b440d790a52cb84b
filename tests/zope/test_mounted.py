"""A dispatcher in a database of its own, mounted into the site: what is kept of a call outside."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.users import system
from OFS.Application import Application
from OFS.Folder import Folder
from persistent.mapping import PersistentMapping
from Testing.makerequest import makerequest
from ZODB.DB import DB
from ZODB.MappingStorage import MappingStorage

from Products.CPSMailAccess import mailtool
from Products.CPSMailAccess.mailtool import MailTool
from Products.zasync import clock
from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.zopeapp import started
from zasync_client.database import Database


DISPATCHER = 'asynchronous_call_dispatcher'


class Mounted:
    """`app` in one database; the dispatcher below it, which queues, in another."""

    def __init__(self):
        started()
        databases = {}
        self._main = DB(MappingStorage(), databases=databases, database_name='main')
        self.other = DB(MappingStorage(), databases=databases, database_name='calls')
        self.connection = self._main.open()
        self.root = self.connection.root()
        self.root['Application'] = Application()
        self.app = makerequest(self.root['Application'])
        transaction.commit()
        dispatcher = ZAsyncDispatcher()
        dispatcher.no_worker = 'queue'
        self.connection.get_connection('calls').root()['dispatcher'] = dispatcher
        transaction.commit()
        self.app._setObject(DISPATCHER, dispatcher)
        self.renew_manager()
        self.app._setObject('portal_webmail', MailTool())
        self.box = mailtool.add_mail_box(self.app.portal_webmail, 'alice', host='127.0.0.1')
        transaction.commit()

    def renew_manager(self):
        """The manager has no calls any more; nor has its database, after a pack."""
        dispatcher = self.app[DISPATCHER]
        if 'zam' in dispatcher.objectIds():
            dispatcher._delObject('zam', suppress_events=True)
        dispatcher._setObject('zam', AsynchronousCallManager('zam'))
        transaction.commit()
        self.other.pack(time.time() + 1)
        self.connection.cacheMinimize()
        self.connection.get_connection('calls').cacheMinimize()

    def close(self):
        transaction.abort()
        self.app.REQUEST.close()
        self.connection.close()
        self._main.close()
        self.other.close()


@pytest.fixture
def mounted():
    made = Mounted()
    yield made
    made.close()


def test_each_thread_of_a_worker_has_a_connection_to_the_database_of_its_target(mounted, caplog):
    """ZODB warns of each connection above the size of a pool, which is 7 by default."""
    threads = 18
    database = Database(mounted._main, ('', DISPATCHER, 'zam'), threads)
    all_at_once = threading.Barrier(threads, timeout=30)

    def look():
        try:
            database.manager().lenNewCalls()
            all_at_once.wait()
        finally:
            database.close()

    database.manager()
    database.close()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(look) for _ in range(threads)]:
            done.result()
    assert 'open connections' not in caplog.text


def test_an_object_of_the_site_keeps_a_deferred_in_the_transaction_of_its_put(mounted):
    order = mounted.root['order'] = PersistentMapping()
    _, order['call'] = mounted.app[DISPATCHER].putCall('zope_exec', '/', {}, 'nothing')
    transaction.commit()
    assert order['call']._p_jar.db().database_name == 'calls'
    assert order['call'].state == 'new'


def test_a_put_that_is_rolled_back_leaves_nothing(mounted):
    savepoint = transaction.savepoint()
    _, deferred = mounted.app[DISPATCHER].putCall('zope_exec', '/', {}, 'nothing')
    savepoint.rollback()
    transaction.commit()
    assert deferred._p_jar is None
    assert mounted.app[DISPATCHER].zam.lenNewCalls() == 0


def test_a_mailbox_gets_its_mail_by_a_call_in_another_database(mounted):
    assert mounted.box.background_synchronisation() == 'queued'
    transaction.commit()
    assert mounted.box.sync_report()['state'] == 'queued'


def test_a_mailbox_is_copied_whose_call_is_in_another_database(mounted):
    mounted.box.background_synchronisation()
    mounted.app._setObject('attic', Folder('attic'))
    transaction.commit()
    newSecurityManager(None, system)
    try:
        mounted.app.attic.manage_clone(mounted.app.portal_webmail, 'portal_webmail')
    finally:
        noSecurityManager()
    transaction.commit()
    assert mounted.app.attic.portal_webmail.box_alice.sync_report()['state'] == 'idle'
    assert mounted.box.sync_report()['state'] == 'queued'


def test_a_mailbox_knows_a_call_no_more_that_was_dropped_and_packed_away(mounted):
    """Nobody but a pack of its own database asks what holds a call."""
    mounted.box.background_synchronisation()
    mounted.box.sync_requests.call.cancel()
    transaction.commit()
    mounted.renew_manager()
    report = mounted.box.sync_report()
    assert (report['state'], report['reason']) == (
        'failed', 'The manager that the call was put to does not know it any more.')
    assert not mounted.box.isSynchronizing()
    mounted.box.clearSynchro()
    assert mounted.box.background_synchronisation() == 'queued'
    transaction.commit()
    assert mounted.box.sync_report()['state'] == 'queued'


def test_what_a_lost_call_has_held_is_free(mounted):
    """Its run, which began, ended with it."""
    mounted.box.background_synchronisation()
    box, call = mounted.box, mounted.box.sync_requests.call
    box.sync_status.take(call.id, time.time())
    call.cancel()
    del call
    transaction.commit()
    mounted.renew_manager()
    assert not box.isSynchronizing()
    assert box.background_synchronisation() == 'queued'


def test_the_clocks_of_all_databases_are_learned_from_puts_in_one_transaction(mounted):
    """As those who wait in them are told, where the storage does not."""
    mounted.app._setObject('zam', AsynchronousCallManager('zam'))
    transaction.commit()
    with clock.replaced(clock.ManualClock()) as mine:
        for manager in mounted.app.zam, mounted.app[DISPATCHER].zam:
            manager.putCall('echo', 1)
        transaction.commit()
        for name in 'main', 'calls':
            assert clock.storage_clock(name).now(mine.monotonic(), None) > 0
