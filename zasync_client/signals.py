"""Signals set flags; nothing else happens in a handler.

Imports: nothing of ours.
"""

import _thread
import signal


class Stop:
    """TERM and INT: drain. A second one: stop at once.

    stopping -- threading.Event to set. wake -- callable() that ends the main
    thread's wait; it only sets flags.
    """

    def __init__(self, stopping, wake):
        self._stopping = stopping
        self._wake = wake
        self._asked = False

    def install(self):
        """Become the handler of both signals."""
        signal.signal(signal.SIGTERM, self)
        signal.signal(signal.SIGINT, self)

    def __call__(self, number, frame):
        if self._asked:
            raise SystemExit(128 + number)
        self._asked = True
        # The main thread may hold the very lock that set() needs: it was
        # interrupted anywhere, inside the event's own methods too.
        _thread.start_new_thread(self._set_flags, ())

    def _set_flags(self):
        self._stopping.set()
        self._wake()
