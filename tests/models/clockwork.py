"""A farm in a file whose storage goes by the clock of the test, and jobs that wait there.

Imports: zasync.
"""

import shutil
import tempfile
import threading
import time
from contextlib import ExitStack

import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.SpecialUsers import system
from persistent.mapping import PersistentMapping
from persistent.TimeStamp import TimeStamp
from ZODB.FileStorage import FileStorage

from Products.zasync import clock
from Products.zasync.clock import ManualClock
from Products.zasync.running import current
from Products.zasyncdispatcher import loads
from tests.client.farm import Farm


#: Jobs that one history can have.
JOBS = 60

#: Longest wait for a thread, in real seconds.
LIMIT = 60.0


class ClockedStorage(FileStorage):
    """A FileStorage that stamps its commits by the clock of this process."""

    _stamped = TimeStamp(b'\0' * 8)

    def _begin(self, tid, *others):
        seconds = clock.SYSTEM.now()
        stamp = TimeStamp(*time.gmtime(seconds)[:5], seconds % 60)
        self._stamped = self._ts = stamp.laterThan(self._stamped)
        self._tid = self._ts.raw()
        super()._begin(self._tid, *others)


class ClockedFarm(Farm):
    """A Farm for one history."""

    def __init__(self):
        transaction.abort()  # hooks of a put that some test has not committed would tell its time
        self._exits = ExitStack()
        self._place = tempfile.mkdtemp(prefix='zasync-models-')
        self._exits.callback(shutil.rmtree, self._place)
        manual = self._exits.enter_context(clock.replaced(ManualClock(1_700_000_000.0)))
        loads._put_since.clear()  # by serial, and here time begins anew
        newSecurityManager(None, system)
        self._exits.callback(noSecurityManager)
        super().__init__(ClockedStorage(f'{self._place}/Data.fs'))
        self.clock = manual
        root = self.connection.root()
        root['marks'] = PersistentMapping({number: PersistentMapping() for number in range(JOBS)})
        transaction.commit()
        self.marks = root['marks']

    def effects(self, number):
        """How often the job of that number had its effect."""
        return self.marks[number].get('effect', 0)

    def rest(self, worker):
        """Wait until each thread of the worker waits: for a claim, or where its job does."""
        until, pause = time.monotonic() + LIMIT, threading.Event()
        while not self._is_at_rest(worker._pool):
            assert time.monotonic() < until, 'the threads do not come to rest'
            pause.wait(0.001)

    def _is_at_rest(self, pool):
        with pool._changed:
            held, begun = set(pool._held), set(pool._held) - set(pool._waiting)
        return not held or bool(begun) and all(
            (claim.id, claim.attempt) in _waiting for claim in begun)

    def close(self):
        """Let all go on, and leave."""
        for worker in self._workers:
            worker._pool.take_back()
            worker._pool.stop()
        for worker in self._workers:
            while not worker._pool.join(0.001):
                for each in waiting():
                    let_go(each)
        super().close()
        self._exits.close()


#: (id, attempt) of a call whose job waits → the event that lets it go on.
_waiting = {}


def mark(number):
    """Have an effect."""
    mine = current().app._p_jar.root()['marks'][number]
    mine['effect'] = mine.get('effect', 0) + 1
    return number


def mark_and_wait(number):
    """The same, and wait before it is committed."""
    mark(number)
    here = current().id, current().attempt
    go_on = _waiting[here] = threading.Event()
    try:
        assert go_on.wait(LIMIT)
    finally:
        del _waiting[here]
    return number


def waiting():
    """(id, attempt) of calls whose jobs wait, the oldest first."""
    return list(_waiting)


def let_go(which):
    """Let that job go on."""
    event = _waiting.get(which)
    if event is not None:
        event.set()


def wait_until_gone(which):
    """Wait until that job does not wait any more, or has begun to wait once more."""
    event, until = _waiting.get(which), time.monotonic() + LIMIT
    while event is not None and _waiting.get(which) is event and time.monotonic() < until:
        event.wait(0)
        time.sleep(0.001)
