"""The pool: threads that run claimed calls, each with a connection of its own.

Imports: groupcommit, claims, zasync.
"""

import logging
import random
import threading
from typing import NamedTuple

from Products.zasync import policy
from Products.zasync.deferred import OUTCOME_MOST
from Products.zasync.failure import name_of
from Products.zasync.failure import text_of

from .claims import End
from .claims import GIVE_BACK


log = logging.getLogger('zasync')


class _Aside(NamedTuple):
    """Since when a claim is aside, in monotonic seconds. later -- see Pool.put_aside."""

    since: float
    later: object = None


class Pool:
    """A fixed number of threads and the claims that wait for them.

    make_runner -- callable() → object whose run(claim, pool) yields an End for each claim it
    ran: that one, and those it took of the pool. Called in each thread, as are the next three:
    on_end -- callable(End), while the claim is still held. on_free -- callable(), after
    that. on_exit -- callable(), at a thread's end.
    batch_seconds -- how long a thread may go on taking claims that share a transaction.
    """

    def __init__(self, threads, make_runner, on_end, on_free, on_exit, clock, batch_seconds):
        self._threads = threads
        self._batch_seconds = batch_seconds
        self._make_runner = make_runner
        self._on_end = on_end
        self._on_free = on_free
        self._on_exit = on_exit
        self._clock = clock
        self._changed = threading.Condition(threading.Lock())
        self._held = set()
        # {claim: monotonic seconds at which it came}, oldest first: no thread has it. {claim:
        # _Aside}: a thread has it, but does not run it. All that a thread has it keeps itself.
        self._waiting = {}
        self._aside = {}
        self._thread = threading.local()
        self._gathers_until = float('-inf')
        self._stopped = False
        self._started = []
        #: Why a thread could not even begin, or None. Its worker can't go on.
        self.broken = None

    def start(self):
        """Start the threads. They are daemons: a hung call must not keep the process."""
        for number in range(1, self._threads + 1):
            thread = threading.Thread(target=self._work, name=f'zasync-{number}', daemon=True)
            self._started.append(thread)
            thread.start()

    def submit(self, claims):
        """Have these calls run."""
        now = self._clock.monotonic()
        with self._changed:
            self._held.update(claims)
            self._waiting.update(dict.fromkeys(claims, now))
            self._changed.notify(len(claims))

    def held(self):
        """The Claims that wait or run here: a call may have two, of which one hangs."""
        with self._changed:
            return set(self._held)

    def oldest_waiting(self):
        """Monotonic seconds since when a claim waits here that does not run, or None."""
        with self._changed:
            return min((*self._waiting.values(), *(each.since for each in self._aside.values())),
                       default=None)

    def take_back(self):
        """Take away the claims no thread has begun; → list of Claims."""
        with self._changed:
            taken = list(self._waiting)
            self._waiting.clear()
            self._held.difference_update(taken)
        return taken

    def take_back_aside(self, since):
        """Take away the claims that threads have put aside, at `since` or before.

        → [(claim, later)], see put_aside. A thread that comes to one later finds that it is gone.
        """
        with self._changed:
            taken = [(claim, aside.later) for claim, aside in self._aside.items()
                     if aside.since <= since]
            for claim, _later in taken:
                del self._aside[claim]
                self._held.discard(claim)
        return taken

    def stop(self):
        """Let the threads end after what waits here now."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def join(self, seconds):
        """Wait for the ends of the threads after a stop, so long at most; → whether all ended."""
        until = self._clock.monotonic() + seconds
        for thread in self._started:
            thread.join(max(0.0, until - self._clock.monotonic()))
        return not any(thread.is_alive() for thread in self._started)

    # for the runners

    def gather(self):
        """Whether claims wait that may share a transaction; they are left to the thread that asks.

        Until it says that it has done, or for `batch_seconds` since it asked last: the more in a
        group the better.
        """
        with self._changed:
            found = any(claim.groupable for claim in self._waiting)
            if found:
                self._gathers_until = self._clock.monotonic() + self._batch_seconds
            return found

    def gathered(self):
        """It takes no more."""
        with self._changed:
            self._gathers_until = float('-inf')
            self._changed.notify_all()

    def take_groupable(self):
        """One more claim for the thread that gathers, or None."""
        with self._changed:
            claim = next((claim for claim in self._waiting if claim.groupable), None)
            if claim is not None:
                del self._waiting[claim]
                self._thread.claims.add(claim)
            return claim

    def put_aside(self, claim, later=None):
        """The thread has not done with that claim, and does not run it now.

        later -- the LaterAgain of a call that has failed, if it ends so with its group.
        """
        with self._changed:
            if claim in self._held:  # else it was taken back
                self._aside[claim] = _Aside(self._clock.monotonic(), later)

    def wait_on(self, claims):
        """The thread comes to these soon, as far as they are its own: they are not taken back yet.
        """
        now = _Aside(self._clock.monotonic())
        with self._changed:
            self._aside.update((claim, now) for claim in claims if claim in self._aside)

    def go_on_with(self, claim):
        """Whether what the thread has put aside is still its own; it is aside no more."""
        with self._changed:
            if self._aside.pop(claim, None) is not None:
                return True
        self._thread.claims.discard(claim)
        return False

    # in the threads

    def _work(self):
        try:
            try:
                runner = self._make_runner()
            except BaseException as reason:
                self.broken = reason
                self._on_free()
                raise
            while (claim := self._next()) is not None:
                # crash point 10: as 9, in the thread.
                try:
                    self._run(runner, claim)
                except BaseException:  # as in Execution; and nobody would miss the thread
                    log.critical('a thread met an error it can not handle', exc_info=True)
        finally:
            self._on_exit()

    def _next(self):
        """The next claim to run; None: there will be no more."""
        with self._changed:
            while (claim := self._first()) is None:
                if self._stopped and not self._waiting:
                    return None
                self._changed.wait(self._batch_seconds if self._waiting else None)
            del self._waiting[claim]
            return claim

    def _first(self):
        gathers = self._clock.monotonic() < self._gathers_until
        return next((claim for claim in self._waiting if not (gathers and claim.groupable)), None)

    def _run(self, runner, claim):
        self._thread.claims = {claim}
        try:
            for end in runner.run(claim, self):
                # In this order the beat never sees a call that is neither held nor ended.
                self._on_end(end)
                self._let_go(end.claim)
        except BaseException as reason:
            for each in list(self._thread.claims):
                self._on_end(self._give_back(each, reason))
            raise
        finally:
            for each in list(self._thread.claims):
                self._let_go(each)

    def _give_back(self, claim, reason):
        now = self._clock.now()
        until = now + policy.give_back_delay(claim.attempt, random.random())
        why = f'{name_of(type(reason))}: {text_of(reason)}'[:OUTCOME_MOST]
        log.warning('call %s goes back to the queue for %.1f s: %s', claim.id, until - now, why)
        return End(claim, GIVE_BACK, now, self._clock.monotonic(), 0.0, until, why, begun=True)

    def _let_go(self, claim):
        self._thread.claims.discard(claim)
        with self._changed:
            held = claim in self._held
            self._held.discard(claim)
            self._aside.pop(claim, None)
        if held:
            self._on_free()
