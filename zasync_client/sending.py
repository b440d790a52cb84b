"""Sending: what a commit stores goes to a ZEO server in few messages for its network thread.

A ZEO client hands each stored object to its network thread by itself, and the two threads wait for
each other each time. A group of calls stores hundreds: handed over together they cost a quarter
less (`make bench ONLY=stores`).

Imports: nothing of ours.
"""

#: So many are handed over at once, at most: the server begins while others are still pickled.
MOST = 50

#: What a ZEO client storage calls to send something; ClientStorage has them for itself.
NEEDED = ('_async', '_async_iter', '_call')

#: Messages about single objects, which nobody waits for before the vote.
_OBJECTS = frozenset(('storea', 'checkCurrentSerialInTransaction'))


def send_together(storage):
    """Have a storage hand over stored objects together, if it is a client of a ZEO server.

    Of others, and of a ZEO that does it in another way, nothing changes.
    """
    if all(callable(getattr(storage, name, None)) for name in NEEDED):
        together = _Together(storage._async, storage._async_iter, storage._call)
        storage._async = together.send
        storage._async_iter = together.send_all
        storage._call = together.call


class _Together:
    """What stands between a client storage and its network thread.

    Only one transaction of a client is between its tpc_begin and its tpc_finish at a time, in one
    thread: what is kept here is that one's. Not so with tpc_abort: a transaction that fails in
    its tpc_finish has let the next one begin.
    """

    def __init__(self, send, send_all, call):
        self._send = send
        self._send_all = send_all
        self._call = call
        self._kept = []

    def send(self, method, *args):
        """A message that has no answer."""
        if method in _OBJECTS:
            self._kept.append((method, args))
            if len(self._kept) == MOST:
                self._hand_over()
            return
        if method == 'tpc_begin':
            self._kept.clear()
        elif method != 'iterator_gc':  # that is not of the transaction, nor of its thread
            self._hand_over()
        self._send(method, *args)

    def send_all(self, messages):
        """Several of them, of a blob."""
        self._hand_over()
        self._send_all(messages)

    def call(self, method, *args, **options):
        """A message with an answer; other threads have some as well."""
        if method == 'vote':
            self._hand_over()
        return self._call(method, *args, **options)

    def _hand_over(self):
        if len(self._kept) == 1:
            (method, args), = self._kept
            self._kept.clear()
            self._send(method, *args)
        elif self._kept:
            kept, self._kept = self._kept, []
            self._send_all(kept)
