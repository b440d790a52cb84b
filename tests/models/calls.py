"""What a call is, and what becomes of it at each event. Pure, and without a database.

Imports: zasync's names of states alone.
"""

from dataclasses import dataclass
from dataclasses import replace

from Products.zasync.interfaces import ACCEPTED
from Products.zasync.interfaces import CALLBACK
from Products.zasync.interfaces import CANCELLED
from Products.zasync.interfaces import EXPIRED
from Products.zasync.interfaces import FAILED
from Products.zasync.interfaces import FINAL_STATES
from Products.zasync.interfaces import NEW
from Products.zasync.interfaces import RESOLVED


JOB, AGGREGATE, FOLLOWER = 'job', 'aggregate', 'follow'

#: A worker that was lost so often in a row while it ran a call was killed by it.
INTERRUPTIONS = 5


@dataclass(frozen=True)
class Modelled:
    """A call as it was put, how far it is, and where it hangs.

    number -- of a job: which effects are its own. place -- in this order calls are run.
    callbacks -- pairs of 'good', 'bad' (it raises) and None. failed -- the value that a
    callback would get now is a Failure. end -- how it ends if that is so in the end.
    noted -- its expiry is looked after. listed -- it hangs on the desk. withdrawn -- it was
    cancelled where it waited, which no beat has seen. aged_at -- when it had failed, and another
    periodic call came. gone -- it was purged. steps, effects -- commits of the job on
    its way, and at its end.
    """

    id: str
    kind: str
    user: str
    place: tuple
    number: int = -1
    time: float = 0.0
    after: tuple = ()
    hurried: bool = False
    series: str | None = None
    expires_at: float | None = None
    timeout: float | None = None
    retry: object = None
    callbacks: tuple = ()
    state: str = NEW
    owner: str | None = None
    attempt: int = 0
    failures: int = 0
    interruptions: int = 0
    called: int = 0
    broken: int | None = None
    failed: bool = False
    end: str = FAILED
    ended_at: float | None = None
    aged_at: float | None = None
    noted: bool = True
    taken_in: bool = False
    listed: bool = False
    withdrawn: bool = False
    filed: bool = False
    gone: bool = False
    steps: int = 0
    effects: int = 0

    # asking

    @property
    def ended(self):
        return self.state in FINAL_STATES

    @property
    def waits(self):
        return self.state == NEW or (self.state == CALLBACK and self.owner is None)

    @property
    def once(self):
        return self.retry is False

    def is_owned_by(self, boot, attempt):
        return self.owner == boot and self.attempt == attempt and not self.ended

    def has_expired(self, now):
        return (self.expires_at is not None and self.state == NEW and not self.attempt
                and self.expires_at <= now)

    def next_delay(self):
        """Seconds until its next attempt after one more failure, or None."""
        if not self.retry or self.failures + 1 >= self.retry:
            return None
        return 5.0 * 2.0 ** self.failures

    # events: each a new one

    def claim(self, boot):
        return replace(self, state=ACCEPTED if self.state == NEW else CALLBACK, owner=boot,
                       attempt=self.attempt + 1, listed=True, taken_in=True, noted=False)

    def unclaim(self):
        return self._wait(attempt=self.attempt - 1, noted=self.attempt == 1)

    def give_back(self, until=0.0, failed=False, interrupted=False):
        return self._wait(time=until, failures=self.failures + failed,
                          interruptions=self.interruptions + 1 if interrupted else 0)

    def _wait(self, **changes):
        state = NEW if self.state == ACCEPTED else self.state
        return replace(self, **{'state': state, 'owner': None, 'listed': False, 'time': 0.0,
                                **changes})

    def end_work(self, failed, now, end=FAILED):
        """Its work is done."""
        if self.called < len(self.callbacks):
            return replace(self, state=CALLBACK, failed=failed, end=end)
        return self._end(end if failed else RESOLVED, failed, now)

    def call_back(self, now):
        """Its next callback runs."""
        chosen, failed, broken, end = (
            self.callbacks[self.called][self.failed], self.failed, self.broken, self.end)
        if chosen == 'good':
            failed = False
        elif chosen == 'bad':
            broken = broken if failed else self.called
            failed, end = True, FAILED
        return replace(self, failed=failed, broken=broken, end=end)._pass_on(now)

    def break_off(self, now):
        """Its next callback fails, whatever its thread does."""
        broken = self.broken if self.failed else self.called
        return replace(self, failed=True, broken=broken, end=FAILED)._pass_on(now)

    def _pass_on(self, now):
        further = replace(self, called=self.called + 1)
        if further.called < len(further.callbacks):
            return further
        return further._end(further.end if further.failed else RESOLVED, further.failed, now)

    def expire(self, now):
        ended = self.end_work(True, now, EXPIRED)
        return replace(ended, owner=None, time=0.0, noted=False)

    def cancel(self, now):
        return replace(self._end(CANCELLED, True, now), withdrawn=self.waits,
                       callbacks=self.callbacks[:self.called])

    def _end(self, state, failed, now):
        return replace(self, state=state, owner=None, failed=failed, ended_at=now)

    def again(self):
        """It failed for good, and is to run once more."""
        changes = {'state': NEW, 'called': 0, 'broken': None}
        if self.broken is not None:
            changes = {'state': CALLBACK, 'called': self.broken, 'broken': None}
        return replace(self, failed=False, failures=0, interruptions=0, ended_at=None, time=0.0,
                       filed=False, noted=False, taken_in=False, **changes)

    def let_age(self, now):
        """A newer call of its kind was made."""
        return replace(self, aged_at=now)

    def file(self):
        return replace(self, filed=True, listed=False, withdrawn=False, taken_in=True)
