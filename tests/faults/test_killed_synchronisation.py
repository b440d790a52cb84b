"""Scenarios: a worker dies while it synchronises a mailbox.

Imports: crashpoints, tests.mail.
"""

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager

from Products.CPSMailAccess import mailtool
from Products.zasync.sealing import DIRECTIVE
from tests.faults.crashpoints import at
from tests.mail.conftest import AddsTo
from tests.mail.conftest import empty
from tests.mail.conftest import fill
from tests.mail.conftest import subjects
from tests.mail.servers import PASSWORD
from tests.mail.servers import USER
from tests.secretkeys import configured


@pytest.fixture(autouse=True)
def secret_key(theatre):
    """This process has the secret key of those that die."""
    with configured({DIRECTIVE: theatre.stack.make_instance() / 'etc' / 'secret.key'}):
        yield


class Mail:
    """Alice's mailbox on the mail server, which has so many messages."""

    def __init__(self, ground, messages):
        self._ground, self._server = ground, ground.theatre.mail_server
        empty(self._server)
        fill(self._server, messages)
        app = ground.connection.root()['Application']
        if 'portal_webmail' in app.objectIds():
            app._delObject('portal_webmail')
        else:
            app.acl_users._doAddUser(USER, 'x', [], [])
        mailtool.addMailTool(AddsTo(app))
        self.box = mailtool.add_mail_box(
            app.portal_webmail, USER, host=self._server.host, port=self._server.port, login=USER,
            password=PASSWORD, CONNECT_SECONDS=5, READ_SECONDS=10)
        transaction.commit()
        newSecurityManager(None, app.acl_users.getUserById(USER).__of__(app.acl_users))

    def ask(self):
        """Put a call that synchronises; → its Deferred."""
        return self._ground.put_to(
            'zam1', 'zope_exec', self.box.getPhysicalPath(), {'light': 0},
            'python:here.synchronize(light=request.light)')

    def change(self):
        """Another program deletes the first message and brings one more."""
        with self._server.folder() as client:
            client.delete_messages(client.search()[:1])
            client.expunge()
        fill(self._server, 1, start=9)

    def report(self):
        """(state, [the subjects that are stored])."""
        self._ground.look()
        state = self.box.sync_report()['state']
        names = self.box.server_names()
        return state, subjects(self.box.folder('INBOX')) if 'INBOX' in names else []

    def ends_once_more(self, deferred, stored):
        """See that the next life does the rest, and in the same call."""
        self._ground.next_life()
        assert self._ground.outcomes(deferred) == ['interrupted', 'resolved'], deferred.failure
        assert self.report() == ('done', stored), self.report()


@at(41)
def test_a_lease_is_taken_over_by_the_call_that_had_it(ground):
    mail = Mail(ground, 2)
    deferred = mail.ask()
    ground.dies(ground.doomed())
    assert mail.report() == ('running', [])
    mail.ends_once_more(deferred, ['Mail 1', 'Mail 2'])


@at(42)
def test_a_batch_that_is_not_committed_is_fetched_again(ground):
    mail = Mail(ground, 2)
    deferred = mail.ask()
    ground.dies(ground.doomed(times=3))  # the lease comes first, then what was found
    assert mail.report() == ('running', [])
    mail.ends_once_more(deferred, ['Mail 1', 'Mail 2'])


@at(43)
def test_a_worker_is_killed_while_it_synchronises(ground):
    mail = Mail(ground, 2)
    deferred = mail.ask()
    ground.dies(ground.doomed(times=3))
    assert mail.report() == ('running', ['Mail 1', 'Mail 2'])
    kept = {one.uid: one._p_oid for one in mail.box.INBOX.messages(0, 10)}
    mail.ends_once_more(deferred, ['Mail 1', 'Mail 2'])
    assert {one.uid: one._p_oid for one in mail.box.INBOX.messages(0, 10)} == kept


@at(44, 45)
def test_what_has_gone_from_the_server_is_dropped_by_the_next_run(ground):
    mail = Mail(ground, 2)
    first = mail.ask()
    ground.stop(ground.next_life())
    assert first.state == 'resolved' and mail.report() == ('done', ['Mail 1', 'Mail 2'])
    mail.change()
    deferred = mail.ask()
    ground.dies(ground.doomed())
    assert mail.report() == ('running', ['Mail 1', 'Mail 2', 'Mail 9'])
    mail.ends_once_more(deferred, ['Mail 2', 'Mail 9'])
