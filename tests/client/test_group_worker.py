"""Group commit in worker processes: one is killed in the middle, another is in its way."""

import os

import transaction
from persistent.mapping import PersistentMapping

from tests.client import jobs


#: Calls of each worker.
CALLS = 60


def start_worker(site, name):
    """Its groups have some calls on slow machines, too."""
    return site.stack.start_worker(name, f'/{name}', threads=1, settings='batch-seconds 0.5\n')


def test_a_group_whose_worker_is_killed_never_was_and_all_of_it_runs_once(site, gate):
    managers = ('zam1', 'zam2')
    site.root['own'] = PersistentMapping({
        name: [PersistentMapping() for _ in range(CALLS)] for name in managers})
    transaction.commit()
    deferreds = {}
    for name in managers:
        transaction.begin()
        deferreds[name] = [
            site.app[name].putCall('zope_call', jobs.count_in_group, name, number, gate)
            for number in range(CALLS)]
        transaction.commit()
    first = start_worker(site, 'zam1')
    site.wait(lambda: os.path.exists(f'{gate}.running'), what='a group')
    site.stack.kill(first)
    transaction.begin()
    with open(f'{gate}.ran', encoding='ascii') as file:
        ran = {int(line.split()[1]) for line in file}
    ended = {number for number, deferred in enumerate(deferreds['zam1']) if deferred.ended}
    lost = ran - ended
    assert len(lost) > 1
    assert {number for number, own in enumerate(site.root['own']['zam1']) if own} == ended

    with open(gate, 'w', encoding='ascii'):
        pass
    first.start()
    start_worker(site, 'zam2')  # both count on one object: their groups meet
    site.ended(*deferreds['zam1'], *deferreds['zam2'])
    transaction.begin()
    for name in managers:
        assert [own['n'] for own in site.root['own'][name]] == [1] * CALLS
        assert {deferred.state for deferred in deferreds[name]} == {'resolved'}
    assert site.root['marks']['n'] == 2 * CALLS
    for number in lost:
        first, *_others, last = deferreds['zam1'][number].attempts
        # The second, if the worker lived long enough to find that a call hung.
        assert first.outcome in ('interrupted, maybe by a call beside it',
                                 'a call beside it takes long')
        assert last.outcome == 'resolved'
    # They ran alone: each wrote its end in a transaction of its own.
    for deferred in deferreds['zam1']:
        deferred._p_activate()
    assert len({deferreds['zam1'][number]._p_serial for number in lost}) == len(lost)
