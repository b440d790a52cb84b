"""Sending: what a commit stores goes to a ZEO server in few messages for its network thread.

A ZEO client hands each stored object to its network thread by itself, as it does the beginning of
the transaction and its vote, and the two threads wait for each other each time. Handed over
together they cost less (`make bench ONLY=stores`).

Imports: nothing of ours.
"""

from ZEO.Exceptions import ClientDisconnected


#: So many are handed over at once, at most: the server begins while others are still pickled.
MOST = 50

#: What a ZEO client storage calls to send something; what that is made of; and what does it in the
#: network thread. ZEO has them for itself.
OF_STORAGE = ('_async', '_async_iter', '_call')
OF_RUNNER = ('io_call',)
OF_THREAD = ('operational', 'call_async_iter', 'call_sync_co')

#: Messages about a transaction and single objects, which nobody waits for before the vote.
_KEPT = frozenset(('tpc_begin', 'storea', 'checkCurrentSerialInTransaction'))


def send_together(storage):
    """Have a storage hand over stored objects together, if it is a client of a ZEO server.

    Of others, and of a ZEO that does it in another way, nothing changes.
    """
    runner = getattr(storage, '_server', None)
    if (_has_all(storage, OF_STORAGE) and _has_all(runner, OF_RUNNER)
            and _has_all(getattr(runner, 'client', None), OF_THREAD)):
        together = _Together(runner, storage._async, storage._async_iter, storage._call)
        storage._async = together.send
        storage._async_iter = together.send_all
        storage._call = together.call


def _has_all(thing, names):
    return all(hasattr(thing, name) for name in names)


class _Together:
    """What stands between a client storage and its network thread.

    Only one transaction of a client is between its tpc_begin and its tpc_finish at a time, in one
    thread: what is kept here is that one's. Not so with tpc_abort: a transaction that fails in
    its tpc_finish has let the next one begin.
    """

    def __init__(self, runner, send, send_all, call):
        self._runner = runner
        self._send = send
        self._send_all = send_all
        self._call = call
        self._kept = []

    def send(self, method, *args):
        """A message that has no answer."""
        if method in _KEPT:
            if method == 'tpc_begin':
                self._kept.clear()
                if not self._runner.client.operational:
                    raise ClientDisconnected  # as ever: no lock is held for what can't be
            self._kept.append((method, args))
            if len(self._kept) == MOST:
                self._hand_over()
            return
        if method != 'iterator_gc':  # that is not of the transaction, nor of its thread
            self._hand_over()
        self._send(method, *args)

    def send_all(self, messages):
        """Several of them, of a blob."""
        self._hand_over()
        self._send_all(messages)

    def call(self, method, *args, **options):
        """A message with an answer; other threads have some as well."""
        if method != 'vote' or not self._kept:
            return self._call(method, *args, **options)
        kept, self._kept = self._kept, []
        return self._runner.io_call(self._vote(kept, args))

    async def _vote(self, messages, args):
        """In the network thread: what is left of a transaction, and its vote."""
        client = self._runner.client
        if not client.operational:
            raise ClientDisconnected
        client.call_async_iter(messages)
        return await client.call_sync_co('vote', args, 0)

    def _hand_over(self):
        if self._kept:
            kept, self._kept = self._kept, []
            self._send_all(kept)
