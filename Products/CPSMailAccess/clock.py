"""The present time: POSIX seconds, UTC, float. The only module here that imports time.

Everything else takes `now`, a function like this one, or a number it returned.
"""

import time


def now():
    """Seconds since 1970-01-01 UTC."""
    return time.time()


def monotonic():
    """Seconds of a clock that nobody sets, for limits; they mean nothing to another process."""
    return time.monotonic()
