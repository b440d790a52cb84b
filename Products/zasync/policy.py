"""The decisions of a queue and its worker, as pure functions of their arguments.

Times are POSIX seconds, spans are seconds; nothing here reads a clock.

Imports: nothing of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


#: Tries of a transaction that meets conflicts before the call goes back to the
#: queue. Historic contract A.9.
MAX_CONFLICT_ATTEMPTS = 5

#: An archive is dropped in this many slices a rotation period: a result lives
#: for one period, at most an eighth longer.
SLICES = 8


def conflict_delay(attempts: int, spread: float) -> float:
    """Seconds to wait before the next try of a transaction that met a conflict.

    attempts -- tries made so far, 1 or more. spread -- a random number from 0 to 1.
    Two that met once should not meet again, so the wait is spread over 0 to 20 ms
    times two to the number of tries, one second at most.
    """
    return spread * min(1.0, 0.02 * 2.0 ** min(attempts, 10))


def give_back_delay(attempt: int, spread: float) -> float:
    """Seconds a call that ran out of conflict tries waits in the queue.

    attempt -- the attempt that failed so, 1 or more. spread -- random, 0 to 1.
    """
    return min(60.0, 0.5 * 2.0 ** min(attempt - 1, 10)) * (0.5 + spread)


def reconnect_delay(failures: int, first: float, growth: float, longest: float = 60.0) -> float:
    """Seconds to wait after that many failures in a row to reach the server or the target.

    failures -- 1 or more. first -- `initial-retry-delay`, growth --
    `retry-exponential-backoff`. Historic contract B.1.
    """
    try:
        return min(longest, first * growth ** (failures - 1))
    except OverflowError:
        return longest


def gives_up(waited: float, max_total: float) -> bool:
    """Whether a worker that waited so long for its server or target gives up; 0 means never."""
    return bool(max_total) and waited >= max_total


def is_alive(beat_at: float, now: float, max_idle_seconds: float) -> bool:
    """Whether a worker whose last beat was at `beat_at` may be given calls at `now`.

    Both times are the storage's; 0 for `beat_at` means that it never beat. It
    may err: a call on a dead worker's manager waits, it is not lost.
    """
    return bool(beat_at) and now - beat_at <= max_idle_seconds


#: Beats of a rescuer's own that must be in the database since it saw a sibling's pulse
#: change last: a server that takes no commits condemns nobody.
RESCUE_BEATS = 3


def is_dead(unchanged_seconds: float, own_beats: int, max_idle_seconds: float) -> bool:
    """Whether a worker may be taken for dead, and its manager be served by another.

    unchanged_seconds -- how long its pulse has not changed, by the rescuer's own monotonic
    clock. own_beats -- the rescuer's beats in that time.
    """
    return unchanged_seconds >= max_idle_seconds and own_beats >= RESCUE_BEATS


def slice_seconds(rotation_period: float) -> float:
    """Length of an archive slice."""
    return max(1.0, rotation_period / SLICES)


def slice_of(ended_at: float, rotation_period: float) -> int:
    """The archive slice for a call ended at that time: the second at which the slice ends."""
    span = slice_seconds(rotation_period)
    return int(ended_at // span * span + span)


def slice_is_over(end: float, now: float, rotation_period: float) -> bool:
    """Whether the slice that ends then holds only results older than the rotation period.

    The period may have been changed since the slice was begun: its end has not.
    """
    return end + rotation_period <= now


#: Seconds of work a worker claims ahead of its threads, so that short calls do not
#: wait for a beat each. Longer would take work from a sibling that has nothing to do.
AHEAD_SECONDS = 0.2
#: Most calls claimed ahead for each thread. Those that share transactions are run by one thread,
#: for all: of many more some would go back before it came to them.
AHEAD_MOST = 75


def claim_ahead(seconds_a_call: float | None, threads: int) -> int:
    """How many calls to claim beyond the number of threads.

    seconds_a_call -- what calls cost a thread of late; None before the first ended.
    """
    if seconds_a_call is None:
        return 0
    return threads * min(AHEAD_MOST, int(AHEAD_SECONDS / max(seconds_a_call, 0.0005)))


def free_slots(threads: int, ahead: int, busy: int) -> int:
    """How many calls to claim when so many are claimed already.

    None while more than half of what may be claimed ahead waits for threads: a beat is a
    commit, and one for each call that ends would cost as much as the calls.
    """
    return max(0, threads + ahead - busy) if busy <= threads + ahead // 2 else 0


#: Longest wait between two attempts of a call, unless its caller says otherwise; seconds.
LONGEST_RETRY_SECONDS = 3600.0


def retry_delay(failures: int, first: float, growth: float, longest: float) -> float:
    """Seconds to wait before a call that failed is run again.

    failures -- times it has failed, 1 or more. All but `growth` are seconds.
    """
    if not first:
        return 0.0
    try:
        return min(longest, first * growth ** (failures - 1))
    except OverflowError:
        return longest


def next_try(retry: tuple[Any, ...] | None, failures: int, kinds: Sequence[str]) -> float | None:
    """Seconds until a call that has failed runs again, or None: it has failed for good.

    retry -- (attempts, delay, growth, longest, on), see options.Retry; or None, or ()
    for a call that may never run twice. failures -- times it has failed, this one
    included. kinds -- dotted names of the exception's class and of its bases.
    """
    if not retry:
        return None
    attempts, delay, growth, longest, on = retry
    if failures >= attempts or (on and not set(on) & set(kinds)):
        return None
    return retry_delay(failures, delay, growth, longest)


def time_limit(asked: float | None, ceiling: float | None) -> float | None:
    """Seconds a call may run, or None for as long as it likes; either may be None."""
    limits = [limit for limit in (asked, ceiling) if limit is not None]
    return min(limits, default=None)


#: Ended attempts that a deferred remembers; it is written at each transition.
HISTORY_MOST = 10

#: How an attempt ended whose worker was lost: found by its next life, or by a sibling's.
LOSSES = INTERRUPTED, WORKER_GONE = 'interrupted', 'its worker was gone'
#: And one that was cut off because its worker had grown beyond its memory.
TOO_MUCH_MEMORY = 'its worker took too much memory'
#: One that was cut off by an orderly end: the call can't be blamed for that.
WORKER_STOPPED, WORKER_REPLACED = 'its worker was stopped', 'its worker was replaced'

#: What is added to that where the attempt may have shared a transaction: another call may have
#: been what ended the worker, so such an attempt is not held against the call.
SHARED = ', maybe by a call beside it'

#: So many attempts in a row whose workers were lost, and the call fails: it may be what kills
#: them, and would kill them for ever. A worker's configuration may say another number.
MAX_INTERRUPTIONS = 5


def interruptions(outcomes: Sequence[str | None]) -> int:
    """In how many attempts in a row, up to the last one that has ended, the worker was lost.

    outcomes -- of the attempts, oldest first; None: that one runs.
    """
    number = 0
    for outcome in reversed([each for each in outcomes if each is not None]):
        if outcome not in (*LOSSES, TOO_MUCH_MEMORY):
            break
        number += 1
    return number


def is_suspect(outcomes: Sequence[str | None], most: int = MAX_INTERRUPTIONS) -> bool:
    """Whether a call that was interrupted is not to run again: it may be what kills its workers.

    most -- so many interruptions in a row are too many.
    """
    return interruptions(outcomes) >= most


def has_last_chance(outcomes: Sequence[str | None], most: int = MAX_INTERRUPTIONS) -> bool:
    """Whether a call was interrupted before, and one more time is too often.

    Of such calls a worker runs one at a time, so that none fails for what another does.
    """
    return 0 < interruptions(outcomes) == most - 1
