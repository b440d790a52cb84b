"""Memory: how much this process has, and what is done when it has too much.

A thread of its own looks, because a beat may wait for a server. It sees what grows piece by
piece, since whoever allocates in Python lets other threads run now and then. What one step takes
at once only a limit of the system can stop.

Imports: errors.
"""

import os
import sys
import threading

from .errors import ConfigurationError


#: Between two looks, in seconds. A look costs some 20 µs.
LOOK_SECONDS = 0.2

#: With so many times its ceiling a process does not wait for calls to end.
FAR_ABOVE = 1.5


def resident_bytes():
    """How much memory this process has; where there is no /proc, the most it ever had."""
    try:
        with open('/proc/self/statm', 'rb') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except OSError:
        import resource
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == 'darwin' else most * 1024


class Ceiling:
    """Looks whether this process stays below so many bytes.

    above -- callable(bytes), called at each look that finds more. far_above -- callable(bytes)
    at FAR_ABOVE times as much; the process is not expected to outlive it. Both are called in
    the thread that looks. measure -- callable() → bytes.
    """

    def __init__(self, most_bytes, above, far_above, clock, measure=resident_bytes):
        self._most_bytes = most_bytes
        self._above = above
        self._far_above = far_above
        self._clock = clock
        self._measure = measure

    def check(self):
        """Raise ConfigurationError if it is exceeded already: no call has run yet."""
        used = self._measure()
        if used >= self._most_bytes:
            raise ConfigurationError(
                f'max-memory is {megabytes(self._most_bytes)}, and the worker has '
                f'{megabytes(used)} before its first call: give it twice of that, or more')

    def start(self):
        """Look until the process ends."""
        threading.Thread(target=self._watch, name='zasync-memory', daemon=True).start()

    def look(self):
        """Look once."""
        used = self._measure()
        if used >= FAR_ABOVE * self._most_bytes:
            self._far_above(used)
        elif used >= self._most_bytes:
            self._above(used)

    def _watch(self):
        nobody = threading.Event()
        while True:
            self._clock.wait(nobody, LOOK_SECONDS)
            self.look()


def megabytes(number):
    """So many bytes, for people."""
    return f'{number / 1024 ** 2:.0f} MB'
