"""A small town for the tables: each kind of object of ours, and each kind of user.

A Zope with a manager that has calls in several states, a dispatcher with two managers, a mail
tool with a mailbox, a folder and a message in it, and a folder `sub` with users of its own.
"""

import functools
import socket

import transaction

from Products.CPSMailAccess.mailtool import add_mail_box
from Products.CPSMailAccess.mailtool import MailTool
from Products.CPSMailAccess.values import Envelope
from Products.CPSMailAccess.values import FolderState
from Products.CPSMailAccess.values import RemoteFolder
from Products.CPSMailAccess.values import RemoteMessage
from Products.zasync import payload
from Products.zasync.failure import Failure
from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.fakes import sign_on
from tests.zopeapp import Site


ANONYMOUS = None
#: A Manager of the folder `sub`, who is no user of anything above it.
CAROL = 'carol'
#: The owner of the mailbox.
ALICE = 'alice'
#: Logged in, and with no role at all.
NOBODY = 'norole'


@functools.cache
def founded(permissions):
    """A Town that is built and left alone: copies of its storage cost little."""
    made = _Founded(permissions)
    made.close_door()
    return made


class Town(Site):
    """See the module. Its state is nobody's but the test's.

    permissions -- for each of them there is a user who has it everywhere and nothing else.
    """

    def __init__(self, permissions=()):
        made = founded(tuple(permissions))
        #: Calls of alice's, {state: id}: new, failed, resolved.
        self.calls = made.calls
        #: {user: the one permission it has}.
        self.holders = {name_of(permission): permission for permission in permissions}
        super().__init__(made.db.storage)

    def objects(self):
        """{path: object} of all that has a page of its own."""
        return objects(self.app)


def objects(app):
    """See Town.objects."""
    box = app.portal_webmail.box_alice
    folder = box.folder('Work')
    return {'zam': app.zam, 'zad': app.zad, 'portal_webmail': app.portal_webmail,
            'portal_webmail/box_alice': box, 'portal_webmail/box_alice/Work': folder,
            'portal_webmail/box_alice/Work/.7': folder.message(7)}


class _Founded(Site):

    def __init__(self, permissions):
        super().__init__()
        self.add_user(NOBODY)
        self.add_user(ALICE)
        self.add_managers()
        self.add_mail()
        self.add_sub()
        for permission in permissions:
            self.add_holder(permission)
        for found in (self.app, self.app.index_html, *objects(self.app).values()):
            found.http__etag()  # Zope gives each its tag when WebDAV first asks, who ever does
        transaction.commit()

    def close_door(self):
        """Give Zope its own database back; the storage stays open."""
        self._wrapper._db = self._old
        self.app.REQUEST.close()
        self.connection.close()

    def add_managers(self):
        """`zam` with its calls, and the dispatcher `zad` with `zam1` and `zam2`."""
        app = self.app
        app._setObject('zam', AsynchronousCallManager('zam'))
        app._setObject('zad', ZAsyncDispatcher('zad'))
        app.zad._setProperty('extra', 'of the site', 'string')
        for id in ('zam1', 'zam2'):
            app.zad._setObject(id, AsynchronousCallManager(id))
        sign_on(app.zam)
        self.login(ALICE)
        calls = {state: app.zam.putCall('echo', f'secret argument {state}')
                 for state in ('new', 'failed', 'resolved')}
        self.end_calls(calls)
        self.calls = {state: call.id for state, call in calls.items()}
        self.login('admin')
        app.zam.setPeriodicCall('nightly', '0 3 * * *', 'UTC', 'echo', (1,))
        self.logout()

    def end_calls(self, calls):
        """One call has failed and one has a result; as a worker leaves them."""
        queue, now = self.app.zam.queue, calls['new'].put_at
        transaction.savepoint(optimistic=True)
        queue.take_in_and_claim('boot', now, 10, 3600)
        calls['failed'].fail(Failure('ValueError', 'secret failure', 'Traceback'), now)
        calls['resolved'].succeed(payload.dumps('secret result'), now)
        queue.give_back(calls['new'].id, now, 'stopped')
        for state in ('failed', 'resolved'):
            queue.archive_ended(calls[state].id, 3600)

    def add_mail(self):
        """The tool, and alice's mailbox with the folder Work and the message 7 in it."""
        self.app._setObject('portal_webmail', MailTool())
        tool = self.app.portal_webmail
        # A port nobody listens at: whoever synchronises is refused at once.
        with socket.socket() as one:
            one.bind(('127.0.0.1', 0))
            port = one.getsockname()[1]
        box = add_mail_box(tool, ALICE, '127.0.0.1', port, password='secret password')
        folder = box.create_folder(RemoteFolder('Work', ('Work',)))
        folder.begin(FolderState(1))
        folder.add(RemoteMessage(7, size=10, envelope=Envelope(
            subject='secret subject', sender='Bob <bob@example.org>')))

    def add_sub(self):
        """The folder `sub`: carol is a Manager in it, and another alice lives there."""
        self.app.manage_addFolder('sub')
        self.app.sub.manage_addUserFolder()
        self.add_user(CAROL, 'Manager', folder=self.app.sub)
        self.add_user(ALICE, 'Manager', folder=self.app.sub)

    def add_holder(self, permission):
        """A user who has that permission everywhere and nothing else."""
        name = name_of(permission)
        self.app._addRole(name)
        self.add_user(name, name)
        kept = [role['name'] for role in self.app.rolesOfPermission(permission)
                if role['selected']]
        self.app.manage_permission(permission, [*kept, name], acquire=0)


def name_of(permission):
    """The name of the user who has that permission and nothing else."""
    return permission.lower().replace(' ', '-')
