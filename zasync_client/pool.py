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

    def __init__(self, threads, make_runner, on_end, on_free, on_exit):
        self._threads = threads
        self._make_runner = make_runner
        self._on_end = on_end
        self._on_free = on_free
        self._on_exit = on_exit
        self._claims = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._held = {}

    def start(self):
        """Start the threads. They are daemons: a hung call must not keep the process."""
        for number in range(1, self._threads + 1):
            threading.Thread(target=self._work, name=f'zasync-{number}', daemon=True).start()

    def submit(self, claim):
        """Have a call run."""
        with self._lock:
            self._held[claim.id] = claim
        self._claims.put(claim)

    def held(self):
        """Ids of the calls that wait or run here."""
        with self._lock:
            return set(self._held)

    def take_back(self):
        """Take away the claims no thread has begun; → list of Claims."""
        taken = []
        while True:
            try:
                claim = self._claims.get_nowait()
            except queue.Empty:
                break
            if claim is not None:
                taken.append(claim)
        with self._lock:
            for claim in taken:
                self._held.pop(claim.id, None)
        return taken

    def stop(self):
        """Let the threads end after what they run now."""
        for _ in range(self._threads):
            self._claims.put(None)

    def _work(self):
        runner = self._make_runner()
        try:
            while (claim := self._claims.get()) is not None:
                end = runner.run(claim)
                # In this order the beat never sees a call that is neither held nor ended.
                self._on_end(end)
                with self._lock:
                    self._held.pop(claim.id, None)
                self._on_free()
        except BaseException:
            # A bug of ours, or no memory left. The call stays on the desk, and
            # the beat gives back what no thread holds.
            log.critical('a pool thread ends because of an error it can not handle', exc_info=True)
            with self._lock:
                self._held.pop(claim.id, None)
            raise
        finally:
            self._on_exit()
