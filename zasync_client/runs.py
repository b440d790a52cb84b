"""Runs: what the beat and the threads tell each other of the calls that run now.

A thread tells of a call's progress, which the beat writes; the beat tells of a call that
was cancelled or ran too long, which the call learns when it tells its progress next.

Imports: nothing of ours.
"""

import threading
from contextlib import contextmanager


class Runs:
    """The calls that have a thread of this process. Times are monotonic seconds.

    wake -- callable() for the beat.
    """

    def __init__(self, clock, wake):
        self._clock = clock
        self._wake = wake
        self._lock = threading.Lock()
        self._deadlines = {}
        self._stops = {}
        self._changed = {}

    @contextmanager
    def of(self, claim):
        """The body is the run of that claim."""
        with self._lock:
            self._stops.pop(claim.id, None)
            if claim.timeout_seconds is not None:
                self._deadlines[claim] = self._clock.monotonic() + claim.timeout_seconds
        if claim.timeout_seconds is not None:
            self._wake()
        try:
            yield
        finally:
            with self._lock:
                self._deadlines.pop(claim, None)
                self._stops.pop(claim.id, None)
                self._changed.pop(claim.id, None)

    # for the thread

    def report(self, id, progress):
        """A call tells its progress; raises what stops it."""
        with self._lock:
            if id in self._stops:
                raise self._stops[id]
            first = not self._changed
            self._changed[id] = progress
        if first:
            self._wake()

    # for the beat

    def stop(self, id, error):
        """Have `error` raised in that call when it tells its progress."""
        with self._lock:
            self._stops.setdefault(id, error)

    def changed(self):
        """{id: Progress} told and not yet written."""
        with self._lock:
            return dict(self._changed)

    def written(self, reports):
        """These are in the database now."""
        with self._lock:
            for id, progress in reports.items():
                if self._changed.get(id) is progress:
                    del self._changed[id]

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
