"""Synchronizer: makes one mailbox like the server's, in batches that commit on their own.

One round is: survey (what is where), fetch (what is new), drop (what has gone), in this order
for all folders, so that a message moved between folders is found before its old place goes.

The lease is taken and committed before the first byte to the server. Each batch ends with
`_beat`: the progress is written, the checkpoint commits batch and progress together, which is
refused when the lease has changed, and then the lease is looked at again. Whoever lost it
stops with Superseded, with nothing uncommitted in hand.

Imports: mailfolder (what it writes), reading, syncplan, syncstatus, errors.
"""

import logging

from . import errors
from . import syncplan
from .presentation import plural
from .presentation import summary
from .reading import Reading
from .syncstatus import COUNTS
from .syncstatus import read_current
from .syncstatus import RENEW_SECONDS


logger = logging.getLogger('CPSMailAccess')


class Synchronizer:
    """One run.

    box -- the MailBox, for its folders, status, requests and body index.
    connect -- function without arguments: a context manager giving an IMailSession.
    run -- what runs us: `run.owner` (text) and `run.checkpoint()`, see background.Run.
    now -- function giving the time.
    """

    #: See syncplan.BATCH_SIZE.
    batch_size = syncplan.BATCH_SIZE

    def __init__(self, box, connect, run, now):
        self.box = box
        self.connect = connect
        self.run = run
        self.now = now
        self.log = []
        self.counts = dict.fromkeys(COUNTS, 0)
        self.done = self.total = 0
        self.message = ''
        #: {server name of a folder: (its path, why it could not be opened)}
        self.skipped = {}
        #: Server names of what this round found to be names only, though listed as folders.
        self.names_only = set()
        #: {server name of a folder: how many of its messages the server refused to read}
        self.left = {}
        self.refusal = None
        #: Whether this round may have missed messages that were moved from where they were.
        self.overlooks = False

    @property
    def status(self):
        return self.box.sync_status

    @property
    def requests(self):
        return self.box.sync_requests

    def synchronize(self, light):
        """Run until nobody asks for more. True, or False when another run has the lease.

        Raises MailError after the status says so, Superseded when the lease was taken away.
        """
        if not self._take_lease():
            return False
        try:
            while True:
                served = self.requests.wanted
                self._round(light and self.requests.light(self.status.served))
                if not self._asked_again(served):
                    break
                light = 1
        except errors.MailError as error:
            self._fail(error)
            raise
        # crash point 45: all is done but the end; the call finds nothing left to do.
        self._note()
        self.status.finish(self.now(), served, self._summary())
        return True

    # Lease

    def _take_lease(self):
        status, now = self.status, self.now()
        if not status.may_take(self.run.owner, now, self.requests):
            return False
        status.take(self.run.owner, now)
        self.message = 'Connecting.'
        self._beat()
        # crash point 41: the lease is committed; the same call takes it over, another after a
        # while.
        return True

    def _beat(self):
        """Commit what was done with the progress, and make sure we may go on."""
        self._note()
        # crash point 42: a batch is not committed; it is fetched again.
        self.run.checkpoint()
        # crash point 43: the batch is committed; the call goes on after it.
        if not self.status.is_mine(self.run.owner):
            raise errors.Superseded()

    def _note(self):
        self.status.renew(self.now(), self.done, self.total, self.message, self.counts)

    def _beat_if_due(self):
        if self.now() - self.status.progress.renewed_at >= RENEW_SECONDS:
            self._beat()

    def _asked_again(self, served):
        """Whether requests came after number `served`.

        The answer no must be true when our last commit happens: whoever asks until then
        counted on us, so the commit is refused and the call runs again.
        """
        self.message = 'Finishing.'
        if self.requests.wanted > served:
            self.status.served = max(self.status.served, served)
            return True
        read_current(self.requests)
        return False

    def _summary(self):
        skipped = [path for path, _error in self.skipped.values()]
        return summary(self.counts, skipped, sum(self.left.values()))

    def _fail(self, error):
        logger.warning('%s: %s', '/'.join(self.box.getPhysicalPath()), error)
        self.log.append('failed: %s' % error)
        self._note()
        self.status.fail(self.now(), self.requests.wanted, str(error))
        read_current(self.requests)
        self.run.checkpoint()

    # One round

    def _round(self, light):
        with self.connect() as session:
            listed = () if light else session.folders()
            plan = syncplan.plan_folders(listed, self.box.server_names(), light)
            for remote in plan.create:
                self._create(remote)
            for remote in plan.keep:
                self.box.place_folder(remote)
            self.names_only.clear()
            self.overlooks = False
            work = [found for found in (self._survey(session, remote, plan.above)
                                        for remote in plan.scan) if found]
            self.total = self.done + sum(messages.to_fetch for _f, _s, messages in work)
            # What the survey created and changed: after this a crash costs only the listing.
            self._beat()
            finished = [item for item in work
                        if self._fetch(session, *item) and item[2].complete]
            # The server is not needed any more, and what follows is short.
        # crash point 44: all is fetched, nothing dropped; the next run drops it.
        for folder, _state, messages in work:
            self._drop(folder, messages)
        for folder, state, _messages in finished:
            folder.remember(state)
        for server_name in (*plan.empty, *sorted(self.names_only)):
            self._empty(server_name)
        for server_name in plan.remove:
            self._remove(server_name)
        if not light and not self.overlooks:
            self.box.sweep_bodies()
        self._check_success(plan)

    def _check_success(self, plan):
        """Raise the MailError for which a round had nothing of what it was for."""
        scanned = [remote.server_name for remote in plan.scan
                   if remote.server_name not in self.names_only]
        unread = [self.skipped[name] for name in scanned if name in self.skipped]
        if unread and len(unread) == len(scanned):
            # The INBOX of a light run, or all there is.
            raise unread[0][1]
        if self.refusal is not None and not self.box.message_count():
            # It reads none at all: not the messages are broken, but the server.
            raise self.refusal

    def _create(self, remote):
        folder = self.box.create_folder(remote)
        self.log.append('%s: created' % folder.shown_path())

    def _survey(self, session, remote, above):
        """(folder, FolderState, MessagePlan) if there is something to do, else None.

        above -- see syncplan.FolderPlan.
        """
        folder = self.box.folder(remote.server_name)
        self.message = 'Looking into %s.' % folder.shown_path()
        self._beat_if_due()
        try:
            found = self._look_into(session, folder)
        except errors.FolderUnreadable as error:
            if isinstance(error, errors.FolderGone) and remote.server_name in above:
                folder.keep_selectable(False)
                self.names_only.add(remote.server_name)
                self.skipped.pop(remote.server_name, None)
            else:
                # One folder's trouble; its messages stay, and the others are not held up.
                self._skip(folder, error)
            return None
        self.skipped.pop(remote.server_name, None)
        self.counts['folders'] += 1
        return found

    def _look_into(self, session, folder):
        """What `_survey` returns. Raises FolderUnreadable."""
        state = session.examine(folder.server_name)
        folder.keep_selectable(True)
        stored = folder.state() if folder.exists is not None else None
        if syncplan.is_unchanged(stored, folder.message_count(), state):
            return None
        snapshot = session.list_messages(state)
        if not snapshot.complete:
            self.overlooks = True
            self.log.append('%s: the listing is incomplete, nothing will be deleted'
                            % folder.shown_path())
        messages = syncplan.plan_messages(folder.snapshot(), snapshot, self.batch_size)
        if messages.rebuild:
            self._drop_all(folder, 'rebuilt, the mailbox follows another account now'
                           if syncplan.is_of_another(folder.state(), state)
                           else 'rebuilt, its UIDVALIDITY changed')
        folder.begin(state)
        self._update_flags(session, folder, messages)
        return folder, state, messages

    def _skip(self, folder, error):
        self.skipped[folder.server_name] = folder.shown_path(), error
        # One that was never opened, as some that others share, is not waited for.
        self.overlooks |= folder.uidvalidity is not None
        self.log.append('%s: skipped, %s' % (folder.shown_path(), error))

    def _drop_all(self, folder, why):
        count = folder.drop_all()
        self.box.body_index.went()
        self.counts['deleted'] += count
        self.log.append('%s: %s' % (folder.shown_path(), why))

    def _update_flags(self, session, folder, messages):
        if messages.flags == syncplan.FLAGS_NONE:
            return
        known = sorted(messages.known)
        if messages.flags == syncplan.FLAGS_SINCE:
            answers = [session.flags(known, folder.modseq)]
        else:
            answers = (session.flags(uids) for uids in syncplan.split(known, self.batch_size))
        changed = 0
        for remote in answers:
            for uids in syncplan.split(sorted(remote), self.batch_size):
                changed += self._take_over_flags(folder, {uid: remote[uid] for uid in uids})
        if changed:
            self.log.append('%s: %s changed flags' % (
                folder.shown_path(), plural(changed, 'message')))

    def _take_over_flags(self, folder, remote):
        different = syncplan.changed_flags(folder.flags_of(remote), remote)
        for uid, flags in different.items():
            folder.set_flags(uid, flags)
        self.counts['flags'] += len(different)
        if different:
            self._beat()
        else:
            self._beat_if_due()
        return len(different)

    def _fetch(self, session, folder, state, messages):
        """Fetch what is new; whether all of it came, so that the folder is finished."""
        if not messages.to_fetch:
            folder.keep_refused(())
            self.left.pop(folder.server_name, None)
            return True
        try:
            again = session.examine(folder.server_name)
        except errors.FolderUnreadable as error:
            # It went since the survey; the next full run removes it.
            self._skip(folder, error)
            return False
        if again.uidvalidity != state.uidvalidity:
            self.overlooks = True
            return False
        reading = Reading(session, messages.again, self._tell_refused)
        asked = [(reading.headers, uids) for uids in messages.batches]
        asked += [(reading.once_more, uids)
                  for uids in syncplan.split(messages.again, self.batch_size)]
        missing = 0
        for read, uids in asked:
            self.message = 'Fetching %s.' % folder.shown_path()
            found = read(uids)
            for uid in sorted(found):
                self._add(folder, found[uid])
            folder.keep_refused(reading.refused)
            missing += len(uids) - len(found)
            self.done += len(uids)
            self._beat()
        # Those that are refused alone may be so for ever, and are not waited for.
        self.overlooks |= missing > len(reading.refused)
        self.left[folder.server_name] = reading.left
        self.refusal = reading.error or self.refusal
        self.log.append('%s: %s' % (folder.shown_path(), plural(
            messages.to_fetch - missing, 'new message')))
        if missing:
            self.log.append('%s: %s not sent, left for next time' % (
                folder.shown_path(), plural(missing, 'message')))
        return not missing

    def _tell_refused(self, uid, error):
        self.log.append('message %d: skipped, %s' % (uid, error))
        # Looking for such messages takes many commands.
        self._beat_if_due()

    def _add(self, folder, remote):
        message = folder.add(remote)
        if message is None:
            return
        self.counts['fetched'] += 1
        key = message.identity()
        body = self.box.body_index.find(key)
        if body is not None:
            message.keep_body(body)
            self.box.body_index.enter(key, body, (folder.server_name, remote.uid))

    def _drop(self, folder, messages):
        dropped = 0
        for uids in syncplan.split(sorted(messages.vanished), self.batch_size):
            dropped += sum(folder.discard(uid) for uid in uids)
            if len(uids) == self.batch_size:
                self._beat()
        if dropped:
            # Whether any had a body is not asked: that would load each of them, and somebody
            # may be fetching one just now.
            self.box.body_index.went()
            self.counts['deleted'] += dropped
            self.log.append('%s: %s gone' % (folder.shown_path(), plural(dropped, 'message')))

    def _empty(self, server_name):
        folder = self.box.folder(server_name)
        if folder.message_count():
            self._drop_all(folder, 'emptied, it was deleted and has folders below it')

    def _remove(self, server_name):
        folder = self.box.folder(server_name)
        self.counts['deleted'] += folder.message_count()
        self.box.body_index.went()
        self.log.append('%s: removed' % folder.shown_path())
        self.box.remove_folder(server_name)
