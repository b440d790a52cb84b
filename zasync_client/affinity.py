"""Which processors of the machine a worker's process runs on: the directive cpu-affinity.

The threads of a worker share one interpreter, so most of the time one of them runs. On one
processor it takes over from the thread before in no time, with what both work on in the caches of
that processor; on several the system wakes it up on another.

Imports: errors.
"""

import os

from .errors import ConfigurationError


def mistake_in(wanted):
    """Why this process can't run on those processors alone, a sentence, or None; see keep_to."""
    if wanted is None:
        return None
    if not hasattr(os, 'sched_setaffinity'):
        return ('cpu-affinity: this system does not let a process choose its processors: leave '
                'the line out')
    allowed = os.sched_getaffinity(0)
    missing = wanted - allowed
    if missing:
        return (f'cpu-affinity names {_list(missing)}, and this process may run on '
                f'{_list(allowed)}: name one of these, or leave the line out')
    return None


def keep_to(wanted):
    """Have this thread, and those that it starts, run on those processors alone.

    wanted -- frozenset of their numbers; None: on all that the process has been given.
    Raises ConfigurationError.
    """
    reason = mistake_in(wanted)
    if reason is not None:
        raise ConfigurationError(reason)
    if wanted is not None:
        os.sched_setaffinity(0, wanted)


def given():
    """The processors this thread may run on, None where the system does not tell."""
    return os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else None


def give_back(before):
    """Let this thread run again where it might before; before -- what `given` returned then."""
    if before is not None:
        os.sched_setaffinity(0, before)


def _list(processors):
    one, *others = sorted(processors)
    if not others:
        return f'processor {one}'
    return f'processors {", ".join(map(str, (one, *others)))}'
