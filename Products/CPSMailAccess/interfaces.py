"""The types of the product, and the story of one synchronisation.

Alice presses "Get messages" on her mailbox. `background_synchronisation` counts the request
in the mailbox's SyncRequests and, unless a call waits or a run is going on already, puts the
call `python: here.synchronize(light=request.light)` into the queue through the dispatcher it
acquires. The page comes back at once and polls `manage_syncStatus`.

A worker runs `synchronize` as Alice. It takes the mailbox's lease and commits that before any
network traffic. It logs in, lists the folders, looks into each: which UIDs are unknown, which
have gone, whose flags changed. A pure plan says what to do; the Synchronizer does it in
batches of 200 messages and checkpoints after each, so that the page shows mail arriving and
progress moving, and a crash loses at most one batch. Deletions come last, and only where the
listing was complete. Before it ends it looks whether somebody asked again meanwhile.

Its weak spot: between the listing and the fetch other mail programs go on. What a later
answer lacks is left for the next run; nothing is ever deleted for it.

Message bodies are not synchronised: a person who wants one presses a button, and it is kept.

Imports: zope.interface.
"""

from zope.interface import Attribute
from zope.interface import Interface


class IMailMessage(Interface):
    """A message: UID, flags, size, dates and header fields; the body when it was fetched."""

    uid = Attribute('UID in its folder under the folder\'s UIDVALIDITY, RFC 3501 2.3.1.1.')
    size = Attribute('Bytes on the server, RFC822.SIZE.')
    internal_at = Attribute('When the server got it, POSIX seconds or None.')
    subject = Attribute('Decoded, one line, not escaped; so are sender, to, cc, date.')
    date_at = Attribute('The Date field in POSIX seconds, None when it makes no sense.')
    message_id = Attribute('The Message-ID field; may be empty, may occur twice.')

    def flags():
        """The flags as a frozenset of text, without \\Recent."""

    def is_seen():
        """Whether the server says \\Seen."""

    def has_body():
        """Whether the body was fetched."""

    def body():
        """The message's bytes, or None when not fetched yet."""


class IMailFolder(Interface):
    """A folder of a mailbox."""

    server_name = Attribute('The full name on the wire: the key, whatever the separator.')
    name = Attribute('The last part of the path, decoded, not escaped.')
    path = Attribute('The decoded names from the top down, a tuple of text.')
    uidvalidity = Attribute('RFC 3501 2.3.1.1; None before the first run.')

    def message_count():
        """Messages stored."""

    def shown_path():
        """The path in one line, for people."""

    def uids():
        """The UIDs of all messages, a frozenset."""

    def message(uid):
        """The IMailMessage; KeyError when there is none."""

    def messages(start=0, count=50):
        """A page of messages, highest UIDs first."""

    def child_folders():
        """The sub-folders."""


class IMailBox(IMailFolder):
    """A user's mailbox: the root of its folders, and what keeps it like the server's."""

    def synchronize(no_log=False, light=1):
        """Make this mailbox like the one on the server; the log text, or [] with no_log.

        light -- 1: INBOX; 0: all folders, creating and removing them.
        Returns [] as well when another run is going on: that one will serve this request.
        In a call of a worker it commits on its way, elsewhere the caller's transaction
        holds it all. Safe to stop at any moment and to run again.

        Raises MailError with a sentence for people; the status says the same and is
        committed where the run may commit.
        """

    def background_synchronisation(light=1):
        """Have `synchronize` run by a worker, and return at once; without a dispatcher, or
        with no worker living, it runs here. What became of the request, as text: 'queued',
        'joined' (a call or run under way will serve it), 'done' or 'failed'."""

    def isSynchronizing():
        """Whether a call waits or a run is going on, in any process."""

    def clearSynchro():
        """Stop: take the lease from whoever holds it and forget the call that waits or runs.
        What they commit next is refused, and they do not begin anew. The next request puts
        another call."""

    def indexMails(stack, background=False):
        """Enter the messages of `stack`, (server name, UID) pairs, into the index by which
        a moved message's body is found again. How many were entered.

        background -- have it done by a worker where there is one; returns 0 then.
        """

    def sync_report():
        """The state of the synchronisation, as a mapping that can become JSON: state (idle,
        queued, running, done, failed), done, total, message, counts, reason, started_at,
        ended_at (POSIX seconds or None)."""

    def message_count():
        """Messages stored in all folders."""

    def folders():
        """All folders, parents before children, INBOX first."""


class IMailTool(Interface):
    """Holds the mailboxes of a portal and the parameters they share."""

    def mail_boxes():
        """The IMailBoxes, by id."""

    def parameter_pairs():
        """{name: (value, flag)}, see parameters."""

    def seal_passwords():
        """Seal the password of each mailbox with the newest secret key, plain ones too.

        Returns {outcome: [ids of mailboxes]}, see credentials.OUTCOMES. In a call of a worker
        it commits as it goes. Raises PasswordNotSealed if there is no key to seal with.
        """


class IMailSession(Interface):
    """A logged-in connection to a mail server; implemented by imap.ImapSession.

    Used as a context manager. Every method raises MailError children only.
    """

    def folders():
        """RemoteFolders of a complete LIST."""

    def examine(server_name):
        """Open a folder; its FolderState. FolderUnreadable: this folder only. FolderGone: there
        is none of that name."""

    def list_messages(state):
        """The Snapshot of the folder just opened with `state`. FolderUnreadable."""

    def flags(uids, since=None):
        """{uid: frozenset}; with `since` only what changed after that sequence number.
        FolderUnreadable."""

    def headers(uids):
        """{uid: RemoteMessage} of those that were answered."""

    def body(uid):
        """(bytes, whether all of them)."""
