"""The whole way: a real ZEO server, real workers, a real mail server."""

import threading

import pytest
import requests
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from Testing.makerequest import makerequest
from ZODB.Connection import Connection

from bench.clients import open_database
from bench.stack import Stack
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.sealing import DIRECTIVE
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.secretkeys import configured

from .conftest import fill
from .conftest import Site
from .servers import free_port
from .servers import Proxy
from .servers import USER
from .servers import wait_until


DISPATCHER = 'asynchronous_call_dispatcher'

#: Longest time a test waits for a worker, in seconds.
LIMIT = 40


class Office:
    """A site on a ZEO server with a dispatcher of two managers, whose workers a test starts."""

    def __init__(self, stack):
        self.stack = stack
        self.database, connection, _root = open_database(stack.start_zeo())
        stack.make_instance()
        connection.close()
        self.site = Site(self.database)
        self.site.app._setObject(DISPATCHER, ZAsyncDispatcher())
        dispatcher = self.site.app[DISPATCHER]
        dispatcher.no_worker = 'queue'
        for name in ('zam1', 'zam2'):
            dispatcher._setObject(name, AsynchronousCallManager(name))
        transaction.commit()
        users = self.site.app.acl_users
        newSecurityManager(None, users.getUserById(USER).__of__(users))

    def add_box(self, port):
        self.site.add_box(port)
        self.box = makerequest(self.site.app).portal_webmail.box_alice

    def start_worker(self, name):
        return self.stack.start_worker(name, '/%s/%s' % (DISPATCHER, name))

    def press(self, light=1):
        return self.request(lambda: self.box.background_synchronisation(light=light))

    def request(self, action):
        """What `action` gives in a transaction that is repeated after a conflict, as the
        publisher repeats a request: the worker may have committed a moment ago."""
        for attempt in transaction.manager.attempts():
            with attempt:
                outcome = action()
        return outcome

    def report(self):
        transaction.begin()
        return self.box.sync_report()

    def wait_for(self, *states):
        wait_until(lambda: self.report()['state'] in states, LIMIT, ' or '.join(states))
        return self.report()

    def close(self):
        noSecurityManager()
        self.site.close()
        self.database.close()


@pytest.fixture
def office():
    with Stack() as stack, configured({DIRECTIVE: stack.instance / 'etc' / 'secret.key'}):
        office = Office(stack)
        yield office
        office.close()


def test_worker_brings_the_mail_and_every_process_sees_it(office, pymap):
    with pymap.client() as client:
        client.select_folder('INBOX')
        client.delete_messages(client.search())
        client.expunge()
    fill(pymap, 5)
    office.add_box(pymap.port)
    office.start_worker('zam1')
    assert office.press(light=0) == 'queued'
    report = office.wait_for('done', 'failed')
    assert report['state'] == 'done', report
    assert office.box.message_count() == 5
    call = office.box.sync_requests.call
    wait_until(lambda: office.report() and call.ended, LIMIT, 'the end of the call')
    assert call.state == 'resolved' and 'INBOX: 5 new messages' in call.result


def test_failure_in_a_worker_is_told_by_status_and_call(office):
    office.add_box(free_port())
    office.start_worker('zam1')
    assert office.press() == 'queued'
    report = office.wait_for('failed')
    assert 'refuses connections' in report['reason']
    call = office.box.sync_requests.call
    wait_until(lambda: office.report() and call.ended, LIMIT, 'the end of the call')
    assert call.state == 'failed' and 'refuses connections' in call.failure.text
    # The committed status says it, not only the call.
    assert office.box.sync_status.state == 'failed'


class Gate:
    """Holds the server's answers up after so many headers, once, until it is opened."""

    def __init__(self, headers):
        self.headers = headers
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, sent):
        if not self.open.is_set() and sent.count(b'BODY[HEADER') > self.headers:
            self.reached.set()
            self.open.wait(LIMIT)
        return False


@pytest.mark.faults
def test_worker_killed_in_mid_run_goes_on_where_it_stopped(office, dovecot):
    fill(dovecot, 500)
    gate = Gate(250)
    with Proxy(dovecot.port, gate) as proxy:
        office.add_box(proxy.port)
        worker = office.start_worker('zam1')
        office.press(light=0)
        assert gate.reached.wait(LIMIT), office.report()
        # One batch was committed, and the page shows it as soon as this process is told of it.
        wait_until(lambda: office.report()['done'], LIMIT, 'the first batch')
        report = office.report()
        assert (report['state'], report['done'], report['total']) == ('running', 200, 500)
        assert office.box.message_count() == 200
        kept = {one.uid: one._p_oid for one in office.box.INBOX.messages(0, 500)}
        worker.kill()
        gate.open.set()
        # Asked again meanwhile: the call is open and will serve this one too.
        assert office.press(light=0) == 'joined'
        worker.start()
        report = office.wait_for('done', 'failed')
    assert report['state'] == 'done', report
    assert report['counts']['fetched'] == 300 and report['counts']['deleted'] == 0
    now = {one.uid: one._p_oid for one in office.box.INBOX.messages(0, 600)}
    assert len(now) == 500 and kept.items() <= now.items()


@pytest.mark.faults
def test_two_workers_run_one_synchronisation_of_a_box(office, dovecot):
    fill(dovecot, 300)
    gate = Gate(100)
    with Proxy(dovecot.port, gate) as proxy:
        office.add_box(proxy.port)
        office.start_worker('zam1')
        office.start_worker('zam2')
        office.press(light=0)
        assert gate.reached.wait(LIMIT), office.report()
        # A call of somebody who does not ask first, in whichever worker.
        transaction.begin()
        calls = [getattr(office.site.app[DISPATCHER], name).putCall(
            'zope_exec', office.box.getPhysicalPath(), {'light': 0},
            'python: here.synchronize(light=request.light)') for name in ('zam1', 'zam2')]
        transaction.commit()
        wait_until(lambda: office.report() and all(call.ended for call in calls), LIMIT,
                   'the end of the calls')
        assert [(call.state, call.result) for call in calls] == [('resolved', [])] * 2
        gate.open.set()
        report = office.wait_for('done', 'failed')
    assert report['state'] == 'done' and report['counts']['fetched'] == 300
    assert office.box.message_count() == 300


@pytest.mark.faults
def test_stopped_run_stops_for_good_and_the_next_request_is_served(office, dovecot):
    fill(dovecot, 300)
    gate = Gate(100)
    with Proxy(dovecot.port, gate) as proxy:
        office.add_box(proxy.port)
        office.start_worker('zam1')
        office.press()
        assert gate.reached.wait(LIMIT), office.report()
        call = office.request(lambda: office.box.sync_requests.call)
        office.request(office.box.clearSynchro)
        gate.open.set()
        wait_until(lambda: office.report() and call.ended, LIMIT, 'the end of the call')
        assert (call.state, call.result) == ('resolved', [])
        assert office.report()['state'] == 'idle' and office.box.message_count() == 0
        assert office.press() == 'queued'
        assert office.wait_for('done', 'failed')['counts']['fetched'] == 300


@pytest.mark.faults
def test_mailbox_deleted_while_its_mail_comes_gets_no_more(office, dovecot):
    fill(dovecot, 500)
    gate = Gate(250)
    with Proxy(dovecot.port, gate) as proxy:
        office.add_box(proxy.port)
        url = office.stack.start_zope()
        office.start_worker('zam1')
        office.press()
        assert gate.reached.wait(LIMIT), office.report()
        wait_until(lambda: office.report()['done'], LIMIT, 'the first batch')
        call, box = office.request(lambda: (office.box.sync_requests.call, office.box))
        answer = requests.post(url + '/portal_webmail/manage_delObjects',
                               {'ids:list': 'box_alice'}, auth=('admin', 'x'), timeout=LIMIT)
        assert answer.status_code == 200
        gate.open.set()
        wait_until(lambda: office.report() and call.ended, LIMIT, 'the end of the call')
    assert not office.site.tool.hasObject('box_alice') and box.message_count() == 200
    assert call.state == 'failed' and 'nothing at /portal_webmail/box_alice' in call.failure.text


def test_run_in_a_request_leaves_its_connection_able_to_load_a_page_at_once(office, dovecot):
    fill(dovecot, 3)
    office.add_box(dovecot.port)
    office.site.app._delObject(DISPATCHER, suppress_events=True)
    transaction.commit()
    assert office.press() == 'done'
    with dovecot.folder() as client:
        client.add_flags(client.search(), '\\Seen')
    office.site.connection.cacheMinimize()
    assert office.press() == 'done' and office.report()['counts']['flags'] == 3
    assert office.site.connection.prefetch.__func__ is Connection.prefetch
