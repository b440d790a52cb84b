"""MailBox: a user's mailbox, the root of its folders and the place of its synchronisation.

The box keeps its own values of the connection parameters, two small objects for the
synchronisation (syncstatus), the index of stored bodies, and a tree from server names to
folders. The password can be set and used, never read: no page, repr, log or restricted code
gets it. It is stored sealed (credentials).

Imports: Zope, BTrees, mailfolder, synchronizer, syncplan, background, imap, zmi, credentials,
parameters, clock.
"""

from AccessControl import getSecurityManager
from AccessControl.class_init import InitializeClass
from AccessControl.Permissions import manage_properties
from AccessControl.SecurityInfo import ClassSecurityInfo
from Acquisition import aq_base
from Acquisition import aq_inner
from Acquisition import aq_parent
from BTrees.OOBTree import OOBTree
from zope.interface import implementer
from ZPublisher import zpublish

from . import background
from . import clock
from . import credentials
from . import errors
from . import imap
from . import parameters
from .bodyindex import BodyIndex
from .interfaces import IMailBox
from .mailfolder import MailFolder
from .mailmessage import MessageBody
from .permissions import ChangeMailbox
from .permissions import SynchronizeMailbox
from .permissions import ViewMailbox
from .synchronizer import Synchronizer
from .syncplan import is_of_another
from .syncplan import is_renumbered
from .syncplan import is_reserved
from .syncstatus import QUEUED
from .syncstatus import read_current
from .syncstatus import report
from .syncstatus import RUNNING
from .syncstatus import SyncRequests
from .syncstatus import SyncStatus
from .zmi.boxpages import BoxPages


@implementer(IMailBox)
@zpublish
class MailBox(BoxPages, MailFolder):
    """See IMailBox."""

    meta_type = 'Mail Box'
    zmi_icon = 'fas fa-inbox'
    security = ClassSecurityInfo()
    security.declareObjectProtected(ViewMailbox)

    manage_options = (
        {'label': 'Mailbox', 'action': 'manage_main'},
        {'label': 'Settings', 'action': 'manage_settingsForm'},
        {'label': 'Security', 'action': 'manage_access'},
    )

    def __init__(self, id, title='', **own):
        super().__init__(id)
        self.title = title
        #: The box's own parameters, by name; see parameters.
        self._own = {}
        self.set_parameters(own)
        self._by_name = OOBTree()
        self.body_index = BodyIndex()
        self.sync_status = SyncStatus()
        self.sync_requests = SyncRequests()

    security.declarePrivate('body_index', 'sync_status', 'sync_requests')

    def __repr__(self):
        return '<MailBox %s>' % self.id

    # Synchronising

    @zpublish(False)
    @security.protected(SynchronizeMailbox)
    def synchronize(self, no_log=False, light=1):
        """See IMailBox."""
        light = _light(light)
        run = background.current_run()
        synchronizer = Synchronizer(self, self._connect, run, clock.now)
        try:
            ran = synchronizer.synchronize(light)
        except errors.Superseded:
            # Another run has the lease and this one has nothing uncommitted.
            return []
        if not ran:
            self._join(run.owner, light)
            return []
        if no_log:
            return []
        return '\n'.join(synchronizer.log + [self.sync_status.progress.message])

    def _join(self, owner, light):
        """Have the run under way serve `owner`, who has not been counted as a request yet."""
        requests, status = self.sync_requests, self.sync_status
        counted = owner == requests.call_id
        if not counted and owner not in status.stopped:
            requests.ask(light)
            read_current(status)

    @zpublish(False)
    @security.protected(SynchronizeMailbox)
    def background_synchronisation(self, light=1):
        """See IMailBox."""
        return background.request_synchronisation(self, _light(light), clock.now())

    @zpublish(False)
    @security.protected(ViewMailbox)
    def isSynchronizing(self):
        """See IMailBox."""
        return self.sync_report()['state'] in (QUEUED, RUNNING)

    @zpublish(False)
    @security.protected(ChangeMailbox)
    def clearSynchro(self):
        """See IMailBox."""
        self.sync_status.clear(clock.now(), self.sync_requests)

    @zpublish(False)
    @security.protected(ViewMailbox)
    def sync_report(self):
        """See IMailBox."""
        return report(self.sync_status, self.sync_requests, clock.now(),
                      background.is_lost(self))

    @zpublish(False)
    @security.protected(SynchronizeMailbox)
    def indexMails(self, stack, background=False):
        """See IMailBox."""
        stack = [(str(server_name), int(uid)) for server_name, uid in stack]
        if background and stack and _request_indexing(self, stack):
            return 0
        entered = 0
        for server_name, uid in stack:
            folder = self.folder(server_name)
            message = folder.find(uid) if folder is not None else None
            if message is not None and message.has_body():
                self._enter(folder, message)
                entered += 1
        return entered

    def _connect(self):
        return imap.open_session(self._account())

    def _account(self):
        values = self._effective()
        password = credentials.opened(values['password'], '/'.join(self.getPhysicalPath()))
        return parameters.account({**values, 'password': password})

    # Folders

    @zpublish(False)
    @security.protected(ViewMailbox)
    def mail_box(self):
        """This mailbox; acquired by its folders and messages."""
        return self

    @zpublish(False)
    @security.protected(ViewMailbox)
    def message_count(self):
        """See IMailBox."""
        return sum(folder.message_count() for folder, _parent in self._by_name.values())

    @zpublish(False)
    @security.protected(ViewMailbox)
    def folders(self):
        """See IMailBox."""
        found = [self.folder(name) for name in self._by_name]
        return sorted(found, key=lambda folder: (folder.path[:1] != ('INBOX',), folder.path))

    @zpublish(False)
    @security.protected(ViewMailbox)
    def folder(self, server_name):
        """The folder of that server name, or None."""
        names = []
        while server_name is not None:
            folder, parent_name = self._by_name.get(server_name, (None, None))
            if folder is None:
                return None
            names.append(folder)
            server_name = parent_name
        found = self
        for folder in reversed(names):
            found = folder.__of__(found)
        return found

    @zpublish(False)
    @security.protected(ViewMailbox)
    def server_names(self):
        """The server names of all folders."""
        return frozenset(self._by_name)

    @zpublish(False)
    @security.private
    def create_folder(self, remote):
        """Make the folder for a RemoteFolder below its parent; the MailFolder."""
        parent_name = remote.parents[-1] if remote.parents else None
        parent = self.folder(parent_name) if parent_name is not None else self
        if parent is None:
            parent, parent_name = self, None
        child = parent.add_child(remote, self)
        self._by_name[remote.server_name] = (child, parent_name)
        return self.folder(remote.server_name)

    @zpublish(False)
    @security.private
    def place_folder(self, remote):
        """Have the folder of a RemoteFolder stand where it stands on the server now: another
        separator makes another tree of the same names.

        One that an earlier version stored under an id that is looked for here gets another id.
        """
        child, parent_name = self._by_name[remote.server_name]
        child.show_as(remote)
        wanted = remote.parents[-1] if remote.parents else None
        if wanted != parent_name or is_reserved(child.id) or self._has(child.id):
            aq_parent(aq_inner(self.folder(remote.server_name))).drop_child(child.id)
            (self if wanted is None else self.folder(wanted)).adopt(child, self)
            self._by_name[remote.server_name] = (child, wanted)

    @zpublish(False)
    @security.private
    def is_acquired(self, name):
        """Whether a folder or message that looks for that name finds it in this mailbox, or
        above it: a folder called so would be found first by what is below it."""
        return self._has(name) or hasattr(aq_parent(aq_inner(self)), name)

    def _has(self, name):
        """Whether this mailbox has that attribute itself; its folders are none."""
        mine = aq_base(self)
        return hasattr(type(mine), name) or name in vars(mine)

    @zpublish(False)
    @security.private
    def remove_folder(self, server_name):
        """Forget a folder; its sub-folders were removed before."""
        folder = self.folder(server_name)
        aq_parent(aq_inner(folder)).drop_child(folder.id)
        del self._by_name[server_name]

    # Bodies

    @zpublish(False)
    @security.private
    def fetch_body(self, folder, message):
        """Fetch the body of a message from the server and keep it.

        Raises MailError. Waits for the server: a person pressed a button for it.
        """
        if message.has_body():
            return
        with self._connect() as session:
            state = session.examine(folder.server_name)
            if is_of_another(folder.state(), state):
                raise errors.MessageGone('The mailbox follows another account now; '
                                         'get messages first.')
            if is_renumbered(folder.state(), state):
                raise errors.MessageGone('The folder was rebuilt on the mail server; '
                                         'get messages first.')
            raw, is_whole = session.body(message.uid)
        message.keep_body(MessageBody(raw, is_whole))
        self._enter(folder, message)

    def _enter(self, folder, message):
        self.body_index.enter(message.identity(), message.stored_body(),
                              (folder.server_name, message.uid))

    @zpublish(False)
    @security.private
    def sweep_bodies(self):
        """Drop index entries of messages that are gone."""
        def holds(place, body):
            folder, _parent_name = self._by_name.get(place[0], (None, None))
            message = folder.find(place[1]) if folder is not None else None
            return message is not None and message.shares(body)
        self.body_index.sweep(holds)

    # Parameters

    @zpublish(False)
    @security.private
    def set_parameters(self, values):
        """Take over checked values (credentials.check); the password is sealed.

        Raises PasswordNotSealed, and nothing is stored then.
        """
        unknown = set(values) - set(parameters.BY_NAME)
        if unknown:
            raise ValueError('unknown parameters: %s' % ', '.join(sorted(unknown)))
        self._own = {**self._own, **credentials.sealed(values)}

    @zpublish(False)
    @security.private
    def forget_mail(self):
        """Forget all folders, messages and bodies, and the password that is stored here."""
        self.forget_password()
        self.drop_all()
        self.drop_children()
        self._by_name = OOBTree()
        self.body_index = BodyIndex()

    @zpublish(False)
    @security.private
    def forget_password(self):
        """Forget the password that is stored here."""
        self._own = {name: value for name, value in self._own.items() if name != 'password'}

    @zpublish(False)
    @security.private
    def seal_password(self):
        """Seal the stored password with the newest key; what became of it, see credentials.anew.

        Raises PasswordNotSealed.
        """
        sealed, outcome = credentials.anew(self._own.get('password'))
        if outcome == credentials.ANEW:
            self._own = {**self._own, 'password': sealed}
        return outcome

    @zpublish(False)
    @security.private
    def password_problem(self):
        """Why the stored password can't be used here, as a sentence; ''."""
        return credentials.problem(self._own.get('password'))

    @zpublish(False)
    @security.private
    def parameter_pairs(self):
        """The tool's pairs, or the defaults outside a tool."""
        tool = aq_parent(aq_inner(self))
        pairs = getattr(tool, '_pairs', None)
        return dict(pairs) if pairs is not None else parameters.default_pairs()

    def _effective(self):
        return parameters.effective(self.parameter_pairs(), self._own)


def forget_runs(box, event):
    """A copied or imported box has no run and no call under way."""
    box.sync_status = SyncStatus()
    box.sync_requests = SyncRequests()


def stop_runs(box, event):
    """A box that is removed gets no more mail: a run holds the object, and would not notice."""
    if box.sync_status.state == RUNNING or box.sync_requests.is_open():
        box.clearSynchro()


def start_empty(box, event):
    """A copy has the settings of the original and nothing that only its readers may have.

    Zope asks only about the topmost object that is copied: whoever may do all in a folder of
    their own could paste one with mailboxes in it, and name a server for them.
    """
    forget_runs(box, event)
    box.forget_mail()


def leave_password(box, event):
    """A box that is moved out of its tool leaves its password there, unless who moves it may name
    another server for all mailboxes of the tool.

    In a tool of their own they may, and the password would go to that server.
    """
    places = event.oldParent, event.newParent
    if event.object is not box or None in places or aq_base(places[0]) is aq_base(places[1]):
        return
    if not getSecurityManager().checkPermission(manage_properties, event.oldParent):
        box.forget_password()


def _light(asked):
    """1 or 0 of what was asked for: by a form as text, by a program perhaps as a bool."""
    return 0 if asked in (0, '0') else 1


def _request_indexing(box, stack):
    return background.request_indexing(box, stack)


InitializeClass(MailBox)
