"""Reading: the headers of one folder's messages, past those that the server refuses to read.

A server refuses a whole batch for one broken message in it. The batch is halved until that one is
alone, for a few of them in a run; after that a half that is refused stays together, and is left
for the next run. What was refused alone is remembered with the folder, and asked for apart from
the other messages and after them: so each run comes further than the one before, however many are
broken.

Imports: errors.
"""

from . import errors


#: Messages of a folder that are looked for in a run, and so many of those that were refused
#: before are tried alone. Looking for one in a batch of 200 takes up to sixteen commands.
REFUSED_MOST = 10


class Reading:
    """One folder in one run.

    session -- an IMailSession, with the folder opened.
    refused -- the UIDs that were refused alone by earlier runs, the one tried last at the end.
    tell -- function of a UID that was refused alone and the CommandRefused.
    """

    def __init__(self, session, refused, tell):
        self._session = session
        self._tell = tell
        self._alone = 0
        #: As of now.
        self.refused = tuple(refused)
        #: How many messages were refused, and the error for which some stayed together.
        self.left = 0
        self.error = None

    def headers(self, uids):
        """{uid: RemoteMessage} of those of `uids` that can be had."""
        try:
            return self._session.headers(uids)
        except errors.CommandRefused as error:
            if len(uids) == 1:
                self._alone += 1
                self._refuse(uids[0], error)
            elif self._alone < REFUSED_MOST:
                middle = len(uids) // 2
                return {**self.headers(uids[:middle]), **self.headers(uids[middle:])}
            else:
                self.left += len(uids)
                self.error = error
            return {}

    def once_more(self, uids):
        """The same of messages refused before: all at once, or else the first few alone."""
        found = {}
        try:
            found = self._session.headers(uids)
        except errors.CommandRefused as error:
            if len(uids) == 1:
                self._refuse(uids[0], error)
            else:
                for uid in uids[:REFUSED_MOST]:
                    found.update(self.once_more((uid,)))
                self.left += len(uids[REFUSED_MOST:])
        self.refused = tuple(uid for uid in self.refused if uid not in found)
        return found

    def _refuse(self, uid, error):
        self.left += 1
        self.refused = (*(other for other in self.refused if other != uid), uid)
        self._tell(uid, error)
