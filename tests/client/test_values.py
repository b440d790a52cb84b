"""Values that a worker would have to make: what is no data fails its call, and is not made."""

import os
import pickle

import pytest
import transaction

from Products.zasync import payload
from Products.zasync.showing import shown
from tests.client import chains
from tests.client import jobs
from zasync_client.config import Plugin


class Trap:
    """Has its pickle make a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def ended(fate, worker, *calls):
    """Beat by beat to their ends."""
    for _ in range(20):
        fate.step(worker, hurry=True)
        fate.settle(worker)
        transaction.begin()
        if all(call.ended for call in calls):
            return
    raise AssertionError('it does not end')


@pytest.fixture
def trap(tmp_path):
    """(a Trap, whether it was sprung)."""
    path = tmp_path / 'sprung'
    return Trap(path), path.exists


def by_hand(deferred, name, value):
    """Write to a call what the door does not let in."""
    transaction.begin()
    setattr(deferred, name, payload.stored(pickle.dumps(value)))
    transaction.commit()


@pytest.mark.parametrize('plugin, name', [('aware', '_arguments'), ('apart', '_arguments'),
                                          ('zope_call', '_arguments'), ('aware', '_memo')])
def test_a_trap_in_the_database_fails_its_call_and_is_sprung_by_nobody(fate, trap, plugin, name):
    trap, is_sprung = trap
    runs = []
    worker = fate.worker(plugins=[('aware', lambda run, *args: runs.append(run.memo)),
                                  Plugin('apart', runs.append, '')])
    target = (jobs.add,) if plugin == 'zope_call' else ()
    bad = fate.call(plugin, *target, 'x')
    by_hand(bad, name, ((trap,), {}) if name == '_arguments' else {'trap': trap})
    good = fate.call('zope_call', jobs.add, 1, 2)
    ended(fate, worker, bad, good)
    assert good.result == 3
    assert (bad.state, runs) == ('failed', [])
    assert bad.failure.type_name == 'Products.zasync.errors.ForeignValue'
    assert bad.failure.text.startswith('the stored value needs posix.mkdir, of which values may '
                                       'not be made')
    assert 'posix.mkdir' in shown(getattr(bad, name))
    assert not is_sprung()


def test_a_trap_in_a_result_fails_who_reads_it_and_no_worker(fate, trap):
    trap, is_sprung = trap
    worker = fate.worker()
    first = fate.call('echo', 1)
    ended(fate, worker, first)
    by_hand(first, '_result', trap)
    with pytest.raises(LookupError, match='the stored value needs posix.mkdir'):
        print(first.result)
    transaction.begin()
    first.addCallbacks(chains.double, chains.text_of)
    transaction.commit()
    follower, = fate.manager.calls(plugin='follow')
    ended(fate, worker, follower)
    assert follower.result.startswith('the stored value needs posix.mkdir')
    assert not is_sprung()
