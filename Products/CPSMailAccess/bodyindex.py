"""BodyIndex: finds the stored body of a message that was moved or copied on the server.

IMAP has no word for a move: a message vanishes here and another appears there. When headers
of a new message are the same as those of one whose body is stored, it gets that body. Only
messages with a body are entered, so synchronising thousands of messages writes nothing here.

An entry outlives its message until the end of the next full run that sees all there is: a message
moved out of INBOX is first seen gone by a light run, and seen in its new folder by the full one.

Imports: BTrees, persistent.
"""

from BTrees.OOBTree import OOBTree
from persistent import Persistent


class BodyIndex(Persistent):
    """{identity: (MessageBody, ((server name, UID), ...))}"""

    __zpublishable__ = False

    #: Whether messages went since the last sweep.
    needs_sweep = False

    def __init__(self):
        self._entries = OOBTree()

    def __len__(self):
        return len(self._entries)

    def enter(self, key, body, place):
        """The message at `place` (server name, UID) has this body."""
        if key is None:
            return
        stored = self._entries.get(key)
        if stored is None:
            self._entries[key] = (body, (place,))
        elif place not in stored[1]:
            self._entries[key] = (stored[0], stored[1] + (place,))

    def find(self, key):
        """The MessageBody, or None."""
        stored = None if key is None else self._entries.get(key)
        return None if stored is None else stored[0]

    def went(self):
        """Messages were dropped: entries of theirs may be the last."""
        if not self.needs_sweep:
            self.needs_sweep = True

    def sweep(self, holds):
        """Drop what no message has any more. holds -- function (place, body) -> bool."""
        if not self.needs_sweep:
            return
        for key, (body, places) in list(self._entries.items()):
            left = tuple(place for place in places if holds(place, body))
            if not left:
                del self._entries[key]
            elif left != places:
                self._entries[key] = (body, left)
        self.needs_sweep = False
