"""Doubles: a mail server in memory behind IMailSession, a call, a run, a clock's hand."""

from persistent import Persistent

from Products.CPSMailAccess import errors
from Products.CPSMailAccess.values import FolderState
from Products.CPSMailAccess.values import RemoteFolder
from Products.CPSMailAccess.values import RemoteMessage
from Products.CPSMailAccess.values import Snapshot


class FakeServer:
    """Mail in memory: {folder: {uid: frozenset of flags}}; `events` are called by name.

    `server.session` is what a Synchronizer takes as `connect`.
    """

    def __init__(self, **folders):
        self.folders = {name: dict.fromkeys(uids, frozenset())
                        for name, uids in (folders or {'INBOX': ()}).items()}
        self.events = {}
        self.opened = 0
        #: UIDs of messages that the server refuses to read.
        self.broken = frozenset()
        #: Names of folders that can't be opened.
        self.locked = frozenset()
        #: Names of sessions' methods that the server refuses in Old.
        self.refuses = frozenset()
        #: Numbers of UIDs in the batches asked for.
        self.asked = []

    def on(self, name, function):
        """Call `function` once, when a session's method of that name is next called."""
        self.events[name] = function

    def happen(self, name):
        event = self.events.pop(name, None)
        if event is not None:
            event()

    def session(self):
        self.opened += 1
        return FakeSession(self)


class FakeSession:
    """See IMailSession."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        self.server.happen('connect')
        return self

    def __exit__(self, *exc_info):
        self.server.happen('logout')

    def folders(self):
        self.server.happen('folders')
        return tuple(RemoteFolder(name, (name,)) for name in self.server.folders)

    def examine(self, server_name):
        self.server.happen('examine')
        if server_name in self.server.locked:
            raise errors.FolderUnreadable('can not open %s' % server_name)
        self.chosen = self.server.folders[server_name]
        self.is_old = server_name == 'Old'
        return FolderState(1, max(self.chosen, default=0) + 1, len(self.chosen))

    def list_messages(self, state):
        self.server.happen('list_messages')
        self._refuse('list_messages')
        return Snapshot(state, frozenset(self.chosen))

    def _refuse(self, name):
        if self.is_old and name in self.server.refuses:
            raise errors.FolderUnreadable('no %s' % name)

    def flags(self, uids, since=None):
        self._refuse('flags')
        return {uid: self.chosen[uid] for uid in uids if uid in self.chosen}

    def headers(self, uids):
        self.server.happen('headers')
        if uids[-1] == 1:
            self.server.happen('headers of the oldest')
        self.server.asked.append(len(uids))
        if self.server.broken.intersection(uids):
            raise errors.CommandRefused('can not read it')
        return {uid: RemoteMessage(uid, self.chosen[uid], 10, 1.0)
                for uid in uids if uid in self.chosen}

    def body(self, uid):
        return b'', True


class FakeFailure:
    """What a Failure shows."""

    def __init__(self, type_name, text):
        self.type_name, self.text = type_name, text


class FakeCall(Persistent):
    """What a Deferred shows."""

    failure = started_at = None

    def __init__(self, id, state='new', put_at=1_000_000.0):
        self.id, self.state, self.put_at = id, state, put_at

    @property
    def ended(self):
        return self.state not in ('new', 'accepted', 'callback')

    def fail(self, text='no'):
        self.state = 'failed'
        self.failure = FakeFailure('Unauthorized', text)


class FakeRun:
    """What runs a Synchronizer: its checkpoints commit by the transaction manager given."""

    in_call = True

    def __init__(self, owner, manager):
        self.owner = owner
        self.checkpoint = manager.commit


class Hand:
    """A clock's hand that tests move."""

    def __init__(self, seconds=1_000_000.0):
        self.seconds = seconds

    def __call__(self):
        return self.seconds
