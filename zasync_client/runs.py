"""Runs: what the beat and the threads tell each other of the calls that run now.

A thread tells of a call's progress, which the beat writes; the beat tells of a call that
was cancelled or ran too long, which the call learns when it tells its progress next.

All is kept by claim, not by call: a thread that hangs may still run an attempt that has
timed out while another thread runs the next one.

Imports: nothing of ours.
"""

import threading
from contextlib import contextmanager


class Runs:
    """The claims that have a thread of this process. Times are monotonic seconds.

    wake -- callable() for the beat. sleep_seconds -- the beat never sleeps longer than
    that: for a time-out further away it need not be woken.
    """

    def __init__(self, clock, wake, sleep_seconds):
        self._clock = clock
        self._wake = wake
        self._sleep_seconds = sleep_seconds
        self._lock = threading.Lock()
        self._running = set()
        self._deadlines = {}
        self._stops = {}
        self._stopped_at = {}
        self._changed = {}

    @contextmanager
    def of(self, claim):
        """The body is the run of that claim."""
        limit = claim.timeout_seconds
        with self._lock:
            self._running.add(claim)
            if limit is not None:
                self._deadlines[claim] = self._clock.monotonic() + limit
        if limit is not None and limit < self._sleep_seconds:
            self._wake()
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(claim)
                for each in (self._deadlines, self._stops, self._stopped_at, self._changed):
                    each.pop(claim, None)

    # for the thread

    def report(self, claim, progress):
        """A call tells its progress; raises what stops it."""
        with self._lock:
            if claim in self._stops:
                raise self._stops[claim]
            first = not self._changed
            self._changed[claim] = progress
        if first:
            self._wake()

    def is_stopped(self, claim):
        """Whether that call has been told to stop."""
        return self.why_stopped(claim) is not None

    def why_stopped(self, claim):
        """What that call has been told to stop with, or None."""
        with self._lock:
            return self._stops.get(claim)

    # for the beat

    def stop(self, claim, error):
        """Have `error` raised in that run when it tells its progress; the first one counts."""
        with self._lock:
            if claim in self._running:
                self._stops.setdefault(claim, error)
                self._stopped_at.setdefault(claim, self._clock.monotonic())

    def hung(self, seconds):
        """The claims whose runs were told to stop so long ago, or longer, and go on; set."""
        before = self._clock.monotonic() - seconds
        with self._lock:
            return {claim for claim, at in self._stopped_at.items() if at <= before}

    def changed(self):
        """{claim: Progress} told and not yet written."""
        with self._lock:
            return dict(self._changed)

    def written(self, reports):
        """These are in the database now."""
        with self._lock:
            for claim, progress in reports.items():
                if self._changed.get(claim) is progress:
                    del self._changed[claim]

    def overdue(self):
        """The claims whose time is over; list."""
        now = self._clock.monotonic()
        with self._lock:
            return [claim for claim, deadline in self._deadlines.items() if deadline <= now]

    def next_deadline(self):
        """When the next claim's time is over, or None."""
        with self._lock:
            return min(self._deadlines.values(), default=None)

    def forget_deadline(self, claim):
        """Its time-out is in the database; its thread may still run."""
        with self._lock:
            self._deadlines.pop(claim, None)
