"""What a visitor does with the calls it has taken, when something comes in between."""

import pytest
import transaction

from Products.zasync.options import Options
from Products.zasync.options import Retry
from tests.client import jobs
from tests.client.farm import Farm
from tests.client.fate import Gate
from zasync_client.config import Plugin


@pytest.fixture
def farm():
    """A Farm; its workers end with the test."""
    made = Farm()
    yield made
    made.close()


def hold_up(farm, tmp_path, **options):
    """(a worker for zam2 whose only thread is held up, what lets it go on)."""
    go = tmp_path / 'go'
    busy = farm.serve('zam2', **options)
    farm.put_to('zam2', 'zope_call', jobs.wait_for_file, str(go))
    farm.step(busy)
    return busy, go


def wait_at_sibling(farm, busy, *call, **options):
    """A call that the busy worker has no thread for; → its deferred."""
    deferred = farm.put_to('zam2', *call, options=Options(**options))
    farm.clock.advance(10)
    farm.step(busy)
    return deferred


def visit(farm, visitor, call):
    """Have that worker take that call of its sibling."""
    farm.clock.advance(0.3)
    farm.step(visitor)
    transaction.begin()
    assert call.owner == visitor.boot


def test_a_visitor_has_left_when_a_group_that_one_of_its_calls_failed_in_is_committed(
        farm, tmp_path):
    gate, runs = Gate(), []

    def do(run, what):
        runs.append(run.id)
        if what == 'fail':
            raise RuntimeError('on purpose')
        gate.wait()

    busy, go = hold_up(farm, tmp_path, plugins=[('do', do)])
    failing = wait_at_sibling(farm, busy, 'do', 'fail', retry=Retry(attempts=2, delay=0.0))
    visitor = farm.serve('zam1', threads=2, start=False, plugins=[('do', do)],
                         changes={'batch_seconds': 0.05})
    visitor._config.plugins['do'] = Plugin('do', do, '', zope_aware=True, groupable=True)
    visitor._habits.note_alone(('do',), 0.0)
    visit(farm, visitor, failing)
    slow = farm.put_to('zam1', 'do', 'slow')
    farm.step(visitor)
    visitor._pool.start()
    gate.reached()
    go.touch()
    farm.settle(busy)
    farm.clock.advance(1.5)

    def has_ended():
        farm.step(visitor)
        farm.run(busy, rounds=1)
        return failing.ended

    farm.wait(has_ended)
    farm.let_pass(20, busy, visitor)
    assert visitor._guests.services() == []
    gate.open()
    farm.settle(visitor)
    farm.run(visitor)
    assert all(thread.is_alive() for thread in visitor._pool._started)
    assert (failing.state, slow.state) == ('failed', 'resolved')
    assert runs.count(failing.id) == 2
