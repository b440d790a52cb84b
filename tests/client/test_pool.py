"""The threads of the pool, with a runner that meets errors of its own."""

import pytest

from Products.zasync.clock import ManualClock
from zasync_client.claims import Claim
from zasync_client.claims import End
from zasync_client.claims import ENDED
from zasync_client.claims import GIVE_BACK
from zasync_client.pool import Pool


#: Longest time a test waits for anything, in seconds.
LIMIT = 30.0


class Trial:
    """A Pool of one thread, and what it told."""

    def __init__(self):
        self.clock = ManualClock(1_000_000.0)
        self.ends, self.held = [], []
        #: {id of a call: what its run raises}, and what the telling of its end does.
        self.errors, self.errors_of_end = {}, {}
        self.pool = Pool(1, lambda: self, self._on_end, lambda: None, lambda: None,
                         self.clock, 0.05)

    def run(self, claim, pool):
        """Run it with what may share its transaction, all or none of it; see Pool."""
        taken = [claim]
        while claim.groupable and (more := pool.take_groupable()) is not None:
            taken.append(more)
        for each in taken:
            pool.put_aside(each)
        for each in taken:
            if pool.go_on_with(each):
                if each.id in self.errors:
                    raise self.errors[each.id]
                now = self.clock.now()
                yield End(each, ENDED, now, self.clock.monotonic(), 0.0, now)

    def _on_end(self, end):
        if end.claim.id in self.errors_of_end:
            raise self.errors_of_end[end.claim.id]
        self.ends.append(end)
        self.held.append(self.pool.held())

    def run_all(self):
        """Have three calls run that may share a transaction, and one after them; → (id, how)."""
        self.pool.submit([Claim(id, '', b'', 1, groupable=id != 'd') for id in 'abcd'])
        self.pool.start()
        self.pool.stop()
        assert self.pool.join(LIMIT), 'the thread does not come to its end'
        return sorted((end.claim.id, end.how) for end in self.ends)


@pytest.fixture
def trial():
    """A Trial."""
    return Trial()


class Mute(Exception):
    """Its text can't be made."""

    def __str__(self):
        raise self


@pytest.mark.parametrize('error', [RuntimeError('odd'), SystemExit(3), Mute()],
                         ids=lambda error: type(error).__name__)
def test_a_thread_goes_on_after_whatever_its_runner_raises(trial, error, caplog):
    trial.errors['b'] = error
    assert trial.run_all() == [
        ('a', ENDED), ('b', GIVE_BACK), ('c', GIVE_BACK), ('d', ENDED)]
    assert trial.pool.held() == set()
    assert all(end.claim in held for end, held in zip(trial.ends, trial.held, strict=True))
    given_back = [end for end in trial.ends if end.how == GIVE_BACK]
    assert all(end.until > end.at and end.begun for end in given_back)
    assert all(end.why.startswith(type(error).__name__) for end in given_back)
    assert [record.levelname for record in caplog.records].count('CRITICAL') == 1


def test_a_thread_that_can_tell_no_end_lets_go_of_all_it_had(trial, caplog):
    trial.errors_of_end.update(dict.fromkeys('abc', KeyError('nobody')))
    assert trial.run_all() == [('d', ENDED)]
    assert trial.pool.held() == set()
    assert [record.levelname for record in caplog.records].count('CRITICAL') == 1
