"""The pool: threads that run claimed calls, each with a connection of its own.

Imports: execution.
"""

import logging
import queue
import threading


log = logging.getLogger('zasync')


class Pool:
    """A fixed number of threads and the claims that wait for them.

    make_runner -- callable() → object whose run(claim) → End; called in each thread.
    on_end -- callable(End), while the claim is still held. on_free -- callable(), after
    that. on_exit -- callable(), at a thread's end. All are called in that thread.
    """

    def __init__(self, threads, make_runner, on_end, on_free, on_exit, clock):
        self._threads = threads
        self._make_runner = make_runner
        self._on_end = on_end
        self._on_free = on_free
        self._on_exit = on_exit
        self._clock = clock
        self._claims = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._held = {}
        self._waiting = {}
        self._started = []
        #: Why a thread could not even begin, or None. Its worker can't go on.
        self.broken = None

    def start(self):
        """Start the threads. They are daemons: a hung call must not keep the process."""
        for number in range(1, self._threads + 1):
            thread = threading.Thread(target=self._work, name=f'zasync-{number}', daemon=True)
            self._started.append(thread)
            thread.start()

    def submit(self, claim):
        """Have a call run."""
        with self._lock:
            self._held[claim] = claim
            self._waiting[claim] = self._clock.monotonic()
        self._claims.put(claim)

    def held(self):
        """The Claims that wait or run here: a call may have two, of which one hangs."""
        with self._lock:
            return set(self._held)

    def oldest_waiting(self):
        """Monotonic seconds at which the oldest claim no thread has begun came, or None."""
        with self._lock:
            return min(self._waiting.values(), default=None)

    def take_back(self):
        """Take away the claims no thread has begun; → list of Claims.

        A thread that comes to one later finds that it is gone.
        """
        with self._lock:
            taken = [self._held.pop(claim) for claim in self._waiting]
            self._waiting.clear()
        return taken

    def stop(self):
        """Let the threads end after what they run now."""
        for _ in range(self._threads):
            self._claims.put(None)

    def join(self, seconds):
        """Wait for the ends of the threads after a stop, so long at most; → whether all ended."""
        until = self._clock.monotonic() + seconds
        for thread in self._started:
            thread.join(max(0.0, until - self._clock.monotonic()))
        return not any(thread.is_alive() for thread in self._started)

    def _begin(self, claim):
        """Whether this thread may run the claim: it was not taken back."""
        with self._lock:
            return (self._held.get(claim) is claim
                    and self._waiting.pop(claim, None) is not None)

    def _work(self):
        try:
            try:
                runner = self._make_runner()
            except BaseException as reason:
                self.broken = reason
                self._on_free()
                raise
            while (claim := self._claims.get()) is not None:
                if self._begin(claim):
                    # crash point 10: as 9, in the thread.
                    self._run(runner, claim)
        finally:
            self._on_exit()

    def _run(self, runner, claim):
        try:
            # In this order the beat never sees a call that is neither held nor ended.
            self._on_end(runner.run(claim))
        finally:
            with self._lock:
                self._held.pop(claim, None)
            self._on_free()
