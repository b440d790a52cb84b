"""pymap with its Maildir backend, but each message goes out as the bytes that were delivered.

    python -m bench.pymapserver --host 127.0.0.1 --port 1143 --no-tls maildir DIR

pymap parses a file with Python's email package and writes it anew: CRLF becomes LF, malformed
headers are repaired, and the size is that of the copy. It also numbers what it finds in the order
of the directory, and reads a folder's whole list again for every message. Three methods of its
backend (pymap 0.36) are replaced; what a client sees on the wire is otherwise pymap's.

Imports: nothing of ours.
"""

from pymap.backend.maildir import mailbox
from pymap.main import main as pymap_main
from pymap.mime import MessageContent
from pymap.parsing.specials import FetchRequirement


class Maildir(mailbox.Maildir):
    """A Maildir whose messages are listed in the order of their names, oldest first."""

    def keys(self):
        return sorted(super().keys())

    def read(self, key):
        """The bytes of a message's file; KeyError or FileNotFoundError when it is gone."""
        with open(self._join(self._lookup(key)), 'rb') as file:
            return file.read()


async def load_content(self, requirement):
    """For pymap's Message: the content from the file, not from a parsed and printed copy."""
    content = None
    if self._key is not None and not requirement.has_none(FetchRequirement.CONTENT):
        try:
            content = MessageContent.parse(self._maildir.read(self._key))
        except (KeyError, FileNotFoundError):
            pass  # expunged meanwhile: pymap answers with an empty message
    return mailbox.LoadedMessage(self, requirement, content)


async def get(self, uid, cached_msg):
    """For pymap's MailboxData: a message's flags from its file's name, without the list."""
    key = cached_msg._key
    try:
        metadata = self._maildir.get_message_metadata(key)
    except (KeyError, FileNotFoundError):
        return mailbox.Message.copy_expunged(cached_msg)
    return mailbox.Message.from_maildir(
        uid, metadata, self._maildir, key, cached_msg.email_id, cached_msg.thread_id,
        self.maildir_flags)


def main():
    mailbox.Message.load_content = load_content
    mailbox.MailboxData.get = get
    # The backend's __init__ took the name over, so it is set in both places.
    from pymap.backend import maildir
    maildir.Maildir = mailbox.Maildir = Maildir
    pymap_main()


if __name__ == '__main__':
    main()
