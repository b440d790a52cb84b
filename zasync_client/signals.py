"""Signals: a handler sets a flag, or has it set.

Imports: succession.
"""

import _thread
import os
import signal
import threading

from .succession import SIGNALS


def end_in_order():
    """Let TERM end this process as INT does, where it would be cut off at once.

    For a process that is not a worker's: Zope and waitress leave TERM as it is. A web server
    that has a handler of its own keeps it.
    """
    if (threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL):
        signal.signal(signal.SIGTERM, _exit)


def _exit(number, frame):
    raise SystemExit(128 + number)


class Signals:
    """TERM and INT: drain; a second one: stop at once. HUP: open the logs anew.

    stopping -- threading.Event to set. wake -- callable() that ends the main
    thread's wait; it only sets flags. reopen -- callable().

    What a handler starts runs in a thread of its own: the main thread was
    interrupted anywhere, and may hold the very lock that is needed.
    """

    def __init__(self, stopping, wake, reopen):
        self._stopping = stopping
        self._wake = wake
        self._reopen = reopen
        self._asked = False

    def install(self):
        """Become the handler of these signals."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._hang_up)
        os.register_at_fork(after_in_child=self._leave)
        # They were held back while this process began anew; see `succession`.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _leave(self):
        """A process that a call has forked is no worker: signals end it, as they do any other."""
        for number, ours, default in ((signal.SIGTERM, self._stop, signal.SIG_DFL),
                                      (signal.SIGINT, self._stop, signal.default_int_handler),
                                      (signal.SIGHUP, self._hang_up, signal.SIG_DFL)):
            if signal.getsignal(number) == ours:
                signal.signal(number, default)

    @property
    def asked(self):
        """Whether the end was asked for."""
        return self._asked

    def _hang_up(self, number, frame):
        _thread.start_new_thread(self._reopen, ())

    def _stop(self, number, frame):
        if self._asked:
            raise SystemExit(128 + number)
        self._asked = True
        _thread.start_new_thread(self._set_flags, ())

    def _set_flags(self):
        self._stopping.set()
        self._wake()
