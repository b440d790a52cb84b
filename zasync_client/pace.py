"""Pace: how fast calls end, which says how many to claim ahead.

Imports: nothing of ours.
"""

#: A rate is taken over at least so many seconds.
RATE_SECONDS = 10.0


class Pace:
    """Seconds a call and calls a second, smoothed. Times are monotonic seconds."""

    #: Weight of the newest call; and where it says how many to claim, for that the first ones
    #: are slow, and a claim that has to wait goes back.
    WEIGHT, WEIGHT_AHEAD = 0.1, 0.3

    def __init__(self):
        self.seconds_a_call = None
        #: What a call costs a thread that has more of them.
        self.seconds_ahead = None
        self._ended = 0
        self._since = None
        self._rate = 0.0

    def note(self, seconds, at, shared_seconds=0.0):
        """A call ended at `at` after so many seconds; shared_seconds -- see End."""
        self.seconds_a_call = _smoothed(self.seconds_a_call, seconds, self.WEIGHT)
        self.seconds_ahead = _smoothed(self.seconds_ahead, seconds - shared_seconds,
                                       self.WEIGHT_AHEAD)
        self._ended += 1
        if self._since is None:
            self._since = at

    def forget(self):
        """Calls are not as short as they were: claim no more than there are threads for."""
        self.seconds_a_call = self.seconds_ahead = None

    def possible(self, threads):
        """Calls a second that so many threads can do; 0 when nothing is known."""
        if not self.seconds_a_call:
            return 0
        return round(threads / self.seconds_a_call, 2)

    def calls_a_second(self, now):
        """Calls ended a second, over the last ten seconds or so."""
        if self._since is not None and now - self._since >= RATE_SECONDS:
            self._rate = self._ended / (now - self._since)
            self._ended, self._since = 0, now
        return self._rate


def _smoothed(old, new, weight):
    return new if old is None else old + weight * (new - old)
