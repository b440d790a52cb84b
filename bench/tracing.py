"""Notes, inside a worker, when a call comes to which place. Calls of a benchmark put it there.

Imports: zasync_client, when used.
"""

import functools
import threading
import time


#: (what, monotonic seconds), in order. One clock for all processes of a machine.
_moments = []


def begin():
    """Have this worker note moments until it ends."""
    from Products.zasync.wakeup import Wakeup
    from zasync_client import execution
    from zasync_client.beat import Beat
    from zasync_client.pool import Pool
    _noted(Wakeup, 'wait', after='awake')
    _noted(Beat, 'in_transaction', after='has claimed')
    _noted(Pool, 'submit', before='claim is committed')
    _noted(execution.Execution, 'run', before='thread has it')
    _noted(execution, 'commit', after='end is committed')


def _noted(owner, name, before=None, after=None):
    real = getattr(owner, name)

    @functools.wraps(real)
    def noting(*args, **kwargs):
        if before:
            note(before)
        try:
            return real(*args, **kwargs)
        finally:
            if after:
                note(after)

    setattr(owner, name, noting)


def note(what):
    """That comes about now."""
    _moments.append((what, time.monotonic()))


def run():
    """A call that notes that it runs, and does nothing else."""
    note('runs')


def moments():
    """What was noted so far."""
    return list(_moments)


def threads():
    """{native id: name} of the threads of this worker."""
    return {thread.native_id: thread.name for thread in threading.enumerate()}
