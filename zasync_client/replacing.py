"""Replacing: whether a worker is to be replaced by one without what troubles it, and why.

A thread that hangs can't be stopped, and memory that was taken is seldom given back: what rids a
worker of them is a new life. So it is with calls of a manager that is at its target no more. How
that comes about is not known here: a process of its own begins anew (`succession`), inside Zope
the next worker is started beside the old threads.

Imports: runs, zasync.
"""

import logging
from typing import NamedTuple

from Products.zasync import policy


log = logging.getLogger('zasync')

#: A thread whose call has ended, or is not ours any more, hangs when it goes on so long, in
#: seconds.
HUNG_SECONDS = 60.0

#: A life takes so long, in seconds, before it is to be replaced: what troubles it may be there
#: again at once.
SHORTEST_LIFE_SECONDS = 60.0


class Replacement(NamedTuple):
    """Why a worker is to be replaced, the end of a sentence; how what it cuts off has ended."""

    reason: str
    outcome: str


class Replacing:
    """Of one worker life. wanted -- a Replacement, or None.

    wake -- callable() for the beat.
    """

    def __init__(self, boot, config, clock, runs, wake):
        self._boot = boot
        self._threads = config.threads
        self._most_hung = config.max_hung_threads or max(1, config.threads // 2)
        self._clock = clock
        self._runs = runs
        self._wake = wake
        self._since = clock.monotonic()
        self.wanted = None

    def want(self, reason, outcome, at_once=False):
        """Have the worker replaced, unless its life has just begun; from any thread.

        at_once -- even then: the next life is known not to have that trouble.
        """
        lived = self._clock.monotonic() - self._since
        if self.wanted is None and (at_once or lived >= SHORTEST_LIFE_SECONDS):
            self.wanted = Replacement(reason, outcome)
            log.warning('worker %s is to be replaced: %s', self._boot, reason)
            self._wake()

    def hung(self):
        """The claims whose threads hang."""
        return self._runs.hung(HUNG_SECONDS)

    def is_wanted(self):
        """Whether the worker is to end; looks for threads that hang."""
        if self.wanted is None:
            hung = self.hung()
            if len(hung) >= self._most_hung:
                ids = ', '.join(sorted({claim.id for claim in hung}))
                self.want(f'{len(hung)} of its {self._threads} threads hang in calls that are not '
                          f'theirs any more: {ids}', policy.WORKER_REPLACED)
        return self.wanted is not None

    def outcome(self):
        """How the attempts end that this life cuts off at its end."""
        return policy.WORKER_STOPPED if self.wanted is None else self.wanted.outcome
