"""Which processors of the machine a worker's process runs on: the directive cpu-affinity.

The threads of a worker share one interpreter, so most of the time one of them runs. On one
processor it takes over from the thread before in no time, with what both work on in the caches of
that processor; on several the system wakes it up on another.

Imports: errors.
"""

import contextlib
import logging
import os

from .errors import ConfigurationError


log = logging.getLogger('zasync')


def mistake_in(wanted):
    """Why this process can't be on those processors, a sentence, or None.

    wanted -- frozenset of their numbers; None: on all that it was given.
    """
    if wanted is None:
        return None
    if not hasattr(os, 'sched_setaffinity'):
        return ('cpu-affinity: this system does not let a process choose its processors: leave '
                'the line out')
    before = os.sched_getaffinity(0)
    try:
        # The system leaves out what it does not allow, and refuses if nothing is left.
        os.sched_setaffinity(0, wanted)
        missing = wanted - os.sched_getaffinity(0)
    except OSError:
        missing = wanted
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)
    if missing:
        return (f'cpu-affinity names {_told(missing)}, and this process may not run there, but on '
                f'{_told(before)}: name what is there, or leave the line out')
    return None


def keep_to(wanted, is_first=True):
    """Have all threads of this process, now and later, on those processors; see mistake_in.

    → the processors it had, which whoever it becomes is to have again; None: nothing was changed.
    is_first -- whether a mistake raises ConfigurationError. A later life takes what is left of
    them: it must not fail because the machine has changed.
    """
    reason = mistake_in(wanted)
    if reason is not None:
        if is_first:
            raise ConfigurationError(reason)
        log.warning('%s; this life goes on without what is missing', reason)
    if wanted is None or not hasattr(os, 'sched_setaffinity'):
        return None
    before = os.sched_getaffinity(0)
    for thread in _threads():
        with contextlib.suppress(OSError):  # it has ended, or none of them is left
            os.sched_setaffinity(thread, wanted)
    return before


def give_back(before):
    """Let this thread run where it might before; before -- what `keep_to` has returned."""
    if before is not None:
        with contextlib.suppress(OSError):  # they are not there any more
            os.sched_setaffinity(0, before)


def _threads():
    """The ids of all threads: modules of plugins may have started some when they were imported."""
    try:
        return [int(name) for name in os.listdir('/proc/self/task')]
    except OSError:
        return [0]


def _told(processors):
    ranges = []
    for number in sorted(processors):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    words = [f'{first}' if first == last else f'{first}-{last}' for first, last in ranges]
    return f'processor{"s" if len(processors) > 1 else ""} {",".join(words)}'
