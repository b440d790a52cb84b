"""MailFolder: a folder of a mailbox, with its messages in a BTree and its sub-folders.

Tens of thousands of messages a folder are cheap: they are LOBTree entries (UIDs have 32 bits
without sign), listed by slices, never loaded all at once. Sub-folders are few and live in a
tree of their own. Both are reached by traversal: `Archive` is a sub-folder, `.123` a message.

Only the synchronisation writes here, and there is one at a time per mailbox, so plain
counters do not conflict.

Imports: Zope, BTrees, zasync, mailmessage, syncplan, values, permissions.
"""

import itertools

from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from OFS.SimpleItem import SimpleItem
from zope.interface import implementer
from ZPublisher import zpublish

from Products.zasync.trees import ask_for

from .interfaces import IMailFolder
from .mailmessage import MailMessage
from .permissions import ViewMailbox
from .syncplan import folder_id
from .syncplan import is_renumbered
from .values import FolderState
from .values import Snapshot


@implementer(IMailFolder)
@zpublish
class MailFolder(SimpleItem):
    """A folder of a mailbox, as published object."""

    meta_type = 'Mail Folder'
    zmi_icon = 'far fa-folder'
    isPrincipiaFolderish = False
    security = ClassSecurityInfo()
    security.declareObjectProtected(ViewMailbox)
    security.declareProtected(ViewMailbox, 'server_name')
    security.declareProtected(ViewMailbox, 'path')
    security.declareProtected(ViewMailbox, 'name')

    manage_options = ({'label': 'Messages', 'action': 'manage_main'},)

    #: See values.FolderState, as of the last run that finished this folder.
    uidvalidity = uidnext = modseq = exists = _whose = None
    server_name = name = ''
    path = ()
    selectable = True
    _count = 0
    _children = _messages = None
    #: See reading; each run adds a few at most.
    _refused = ()

    def __init__(self, id, server_name='', path=(), selectable=True):
        self.id = id
        self.server_name = server_name
        self.path = tuple(path)
        # Not `title`: Zope's pages put an object's title into their head as it is.
        self.name = self.path[-1] if self.path else ''
        self.selectable = selectable
        self._children = OOBTree()
        self._messages = LOBTree()

    def __getattr__(self, name):
        # Traversal to what the trees hold, for the publisher and for restricted code alike;
        # called only when there is no ordinary attribute of that name.
        if name[:1] == '.' and self._messages is not None:
            uid = name[1:]
            if uid.isascii() and uid.isdigit() and len(uid) <= 10:
                found = self._messages.get(int(uid))
                if found is not None and found.id == name:
                    return found
        elif name[:1] != '_' and self._children is not None:
            found = self._children.get(name)
            if found is not None:
                return found
        raise AttributeError(name)

    # What there is

    @zpublish(False)
    @security.protected(ViewMailbox)
    def mail_folder(self):
        """This folder; acquired by its messages."""
        return self

    @zpublish(False)
    @security.protected(ViewMailbox)
    def message_count(self):
        """See IMailFolder."""
        return self._count

    @zpublish(False)
    @security.protected(ViewMailbox)
    def shown_path(self):
        """See IMailFolder."""
        return ' / '.join(self.path)

    @zpublish(False)
    @security.protected(ViewMailbox)
    def uids(self):
        """See IMailFolder."""
        return frozenset(self._messages.keys())

    @zpublish(False)
    @security.protected(ViewMailbox)
    def message(self, uid):
        """See IMailFolder."""
        return self._messages[uid].__of__(self)

    @zpublish(False)
    @security.private
    def find(self, uid):
        """The MailMessage, not wrapped, or None."""
        return self._messages.get(uid)

    @zpublish(False)
    @security.protected(ViewMailbox)
    def messages(self, start=0, count=50):
        """See IMailFolder."""
        chosen = self._slice(max(start, 0), count)
        self._load(chosen)
        return [self._messages[uid].__of__(self) for uid in chosen]

    def _slice(self, start, count):
        """`count` UIDs after the `start` highest ones, highest first.

        Trees have no numbers: who asks for the hundredth key walks a hundred. So it is walked
        from the nearer end, and a page of new mail loads a leaf or two of however many.
        """
        after = max(self._count - start - count, 0)  # messages older than the slice
        if after < start:
            end = max(self._count - start, 0)
            uids = itertools.islice(self._messages.keys(), after, end)
            return list(uids)[::-1]
        return list(itertools.islice(self._downwards(), start, start + count))

    def _downwards(self):
        uid = None
        while True:
            try:
                uid = self._messages.maxKey(uid)
            except ValueError:  # nothing so low
                return
            yield uid
            uid -= 1

    @zpublish(False)
    @security.protected(ViewMailbox)
    def child_folders(self):
        """See IMailFolder."""
        return [child.__of__(self) for child in self._children.values()]

    def _load(self, uids):
        """Bring these messages into the cache in one round trip, where the storage can."""
        found = (self._messages.get(uid) for uid in uids)
        ask_for(message for message in found if message is not None)

    # Written by the synchronisation

    @zpublish(False)
    @security.private
    def snapshot(self):
        """The Snapshot of what is stored."""
        return Snapshot(self.state(), self.uids(), refused=self._refused)

    @zpublish(False)
    @security.private
    def state(self):
        """The FolderState of the last finished run."""
        return FolderState(self.uidvalidity, self.uidnext, self.exists or 0, self.modseq,
                           self._whose)

    @zpublish(False)
    @security.private
    def remember(self, state):
        """A run finished this folder as of `state`: the next may start from there."""
        if self.state() != state or self.exists is None:
            self.uidvalidity, self.uidnext = state.uidvalidity, state.uidnext
            self.exists, self.modseq = state.exists, state.modseq
            self._whose = state.whose

    @zpublish(False)
    @security.private
    def begin(self, state):
        """From now on UIDs are as in `state`; if others were, nothing else is known."""
        if is_renumbered(self.state(), state):
            self.uidvalidity = state.uidvalidity
            self.uidnext = self.exists = self.modseq = None
            self._refused = ()
        if self._whose != state.whose:
            self._whose = state.whose

    @zpublish(False)
    @security.private
    def drop_all(self):
        """Forget every message; how many there were."""
        count = self._count
        self._messages = LOBTree()
        self._count = 0
        return count

    @zpublish(False)
    @security.private
    def add(self, remote):
        """Store a RemoteMessage; the MailMessage, or None if that UID is there already."""
        message = MailMessage(remote)
        if not self._messages.insert(remote.uid, message):
            return None
        self._count += 1
        return message

    @zpublish(False)
    @security.private
    def discard(self, uid):
        """Forget a message; whether there was one."""
        if self._messages.pop(uid, None) is None:
            return False
        self._count -= 1
        return True

    @zpublish(False)
    @security.private
    def keep_refused(self, uids):
        """Remember the UIDs of messages that the server refuses to read."""
        if self._refused != uids:
            self._refused = uids

    @zpublish(False)
    @security.private
    def flags_of(self, uids):
        """{uid: frozenset of flags} of those of `uids` that are stored."""
        self._load(uids)
        found = {}
        for uid in uids:
            message = self._messages.get(uid)
            if message is not None:
                found[uid] = message.flags()
        return found

    @zpublish(False)
    @security.private
    def set_flags(self, uid, flags):
        """Take over the server's flags of one message."""
        self._messages[uid].set_flags(flags)

    @zpublish(False)
    @security.private
    def add_child(self, remote, box):
        """Make the sub-folder for a RemoteFolder; the new MailFolder, not wrapped."""
        child = MailFolder('', remote.server_name, remote.path, remote.selectable)
        self.adopt(child, box)
        return child

    @zpublish(False)
    @security.private
    def adopt(self, child, box):
        """Take a MailFolder as a sub-folder, under an id that is free here.

        box -- the MailBox. Not acquired: a sub-folder may be in the way, see place_folder.
        """
        child.id = folder_id(child.name, lambda id: id in self._children or box.is_acquired(id))
        self._children[child.id] = child

    @zpublish(False)
    @security.private
    def show_as(self, remote):
        """Take over what the server's list says of the folder itself."""
        if self.path != remote.path:
            self.path, self.name = remote.path, remote.path[-1]
        if not remote.selectable:
            # That it can be opened is believed when it was.
            self.keep_selectable(False)

    @zpublish(False)
    @security.private
    def keep_selectable(self, selectable):
        """Remember whether this is a folder, or a name only."""
        if self.selectable != selectable:
            self.selectable = selectable

    @zpublish(False)
    @security.private
    def drop_child(self, child_id):
        """Forget a sub-folder and all below it."""
        del self._children[child_id]

    @zpublish(False)
    @security.private
    def drop_children(self):
        """Forget all sub-folders."""
        self._children = OOBTree()

    # Pages

    @zpublish
    @security.protected(ViewMailbox)
    def manage_main(self, REQUEST=None):
        """This folder in its mailbox's page."""
        REQUEST.RESPONSE.redirect(self.mail_box().page_url(self.server_name))

    @zpublish
    @security.protected(ViewMailbox)
    def index_html(self, REQUEST=None):
        """This folder in its mailbox's page."""
        return self.manage_main(REQUEST)


InitializeClass(MailFolder)
