"""Time, for the whole product: what the clock says, and what the storage's clock would say.

Stored times are POSIX seconds, UTC, float. Waits use monotonic seconds.

Imports: interfaces.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import overload
from typing import Protocol

from persistent.TimeStamp import TimeStamp
from zope.interface import implementer

from .interfaces import IClock


class Clock(Protocol):
    """IClock, for type checkers, which cannot read it."""

    def now(self) -> float:
        """See IClock."""

    def monotonic(self) -> float:
        """See IClock."""

    def wait(self, event: threading.Event, seconds: float, /) -> bool:
        """See IClock."""


@implementer(IClock)
class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """See IClock."""
        return time.time()

    def monotonic(self) -> float:
        """See IClock."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """See IClock."""
        return event.wait(seconds)


@implementer(IClock)
class ManualClock:
    """A clock for tests: it stands still until told to advance."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now
        self._started = now

    def now(self) -> float:
        """See IClock."""
        return self._now

    def monotonic(self) -> float:
        """See IClock."""
        return self._now - self._started

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """See IClock: time passes at once, nobody waits."""
        self.advance(seconds)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._now += seconds


class StorageClock:
    """What a storage's clock would say now, learned from this process's own commits.

    A storage stamps each commit with its own clock. The difference to ours,
    seen at our last commit, is all we need to tell the age of a record that a
    third host wrote, whatever the clocks of all three say. It is an estimate:
    good enough to choose a manager, never used to declare a worker dead.

    A clock that is set back stands still, for a storage: its commits come no sooner
    than the last one. That is seen by the commits of others.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        #: The last transaction that was there when we looked, and when that was; monotonic.
        self._last: bytes = b''
        self._looked_at: float = 0.0

    def observe(self, serial: bytes | None, monotonic: float) -> None:
        """Learn from a commit of our own.

        serial -- transaction id of the commit, 8 bytes.
        monotonic -- our monotonic seconds just after the commit returned: a step of
        our clock does not matter.
        """
        stamped = serial_seconds(serial)
        if serial and stamped:  # a record that was not loaded again tells nothing
            self._offset = stamped - monotonic
            self._last, self._looked_at = max(serial, self._last), monotonic

    def now(self, monotonic: float, last_serial: bytes | None) -> float:
        """The storage's time in POSIX seconds.

        monotonic -- our monotonic seconds. last_serial -- the last transaction we
        know of: the storage can't be earlier than that. Before this process has
        committed anything that is all there is, and a dead worker may look alive.
        """
        last = serial_seconds(last_serial)
        if self._offset is None:
            return last
        if last_serial:
            # By serials: seconds do not tell two of them apart that came so soon.
            if last_serial > self._last:  # it was made after our last look
                self._offset = min(self._offset, last - self._looked_at)
            if last_serial >= self._last:  # else somebody has looked who began later
                self._last, self._looked_at = last_serial, monotonic
        return max(monotonic + self._offset, last)

    def ahead_of(self, clock: Clock) -> float | None:
        """Seconds that the storage's clock is ahead of that one, of this process.

        None before this process has committed anything.
        """
        if self._offset is None:
            return None
        return clock.monotonic() + self._offset - clock.now()


def serial_seconds(serial: bytes | None) -> float:
    """The POSIX seconds at which the transaction of that id (8 bytes) was made; 0.0 for none."""
    if not serial or serial == b'\0' * 8:
        return 0.0
    seconds: float = TimeStamp(serial).timeTime()
    return seconds


@overload
def as_datetime(seconds: float) -> datetime.datetime: ...
@overload
def as_datetime(seconds: None) -> None: ...
def as_datetime(seconds: float | None) -> datetime.datetime | None:
    """An aware UTC datetime of POSIX seconds; None stays None."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


#: The clock of the running process.
SYSTEM: Clock = SystemClock()

_storage_clocks: dict[str, StorageClock] = {}


def storage_clock(database_name: str) -> StorageClock:
    """The StorageClock this process keeps for the database of that name."""
    return _storage_clocks.setdefault(database_name, StorageClock())


@dataclass(eq=False)
class _Body:
    """The body of a `replaced` that runs; before -- the clock that its end brings back."""

    before: Clock


_bodies: list[_Body] = []


@contextmanager
def replaced(clock: Clock) -> Iterator[Clock]:
    """While the body runs, `clock` is the clock of the process.

    Bodies may end in any order: the clock of the last one that runs counts.
    What was learned of storages' clocks was learned by the other one.
    """
    body = _Body(SYSTEM)
    _bodies.append(body)
    _set(clock)
    try:
        yield clock
    finally:
        number = _bodies.index(body)
        del _bodies[number]
        if number < len(_bodies):
            _bodies[number].before = body.before
        else:
            _set(body.before)


def _set(clock: Clock) -> None:
    global SYSTEM
    if clock is not SYSTEM:
        SYSTEM = clock
        _storage_clocks.clear()
