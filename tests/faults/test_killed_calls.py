"""Scenarios: who puts, cancels or runs a call dies.

Imports: crashpoints, jobs.
"""

import datetime

import transaction
from Products.PageTemplates.ZopePageTemplate import ZopePageTemplate

from tests.faults import jobs
from tests.faults.crashpoints import at
from zasync_client.config import Plugin


ONCE_MORE = ['interrupted', 'resolved']


# puts, and what else requests do

def page_that_puts(ground):
    """→ the path of a page that puts a call, which makes the title longer by an x."""
    ground.zad._setObject('page', ZopePageTemplate('page', (
        "<p tal:content=\"python:here.zam1.putCall('zope_exec', here.getPhysicalPath(), {}, "
        "'python:here.manage_changeProperties(title=here.title + request.more)').id\"/>"
    ).replace('{}', "{'more': 'x'}")))
    ground.zad.title = ''
    transaction.commit()
    return f'/{ground.name}/page'


@at(1, 2)
def test_a_process_that_puts_a_call_is_killed(ground):
    ground.page(page_that_puts(ground))
    assert ground.zad.zam1.open_calls() == 0
    # Nor is anything in the way of others.
    later = ground.effect()
    ground.next_life()
    assert ground.effects(later) == (1, 1)
    assert ground.zad.zam1.calls() == [later]


@at(3)
def test_the_answer_to_a_put_is_lost(ground):
    ground.page(page_that_puts(ground))
    assert ground.zad.zam1.open_calls() == 1
    ground.next_life()
    deferred, = ground.zad.zam1.calls()
    assert ground.outcomes(deferred) == ['resolved'] and ground.zad.title == 'x'


@at(4)
def test_a_process_is_killed_while_a_call_runs_in_its_request(ground):
    name, path = ground.new_effect()
    ground.request('put', name, path)
    assert ground.count(name, path) == (0, 1)  # outside the database it has happened
    assert ground.zad.zam1.open_calls() == 0


@at(5)
def test_a_process_that_cancels_a_call_is_killed(ground):
    deferred = ground.effect()
    ground.request('cancel', deferred.id)
    assert deferred.state == 'new'
    ground.next_life()
    assert ground.outcomes(deferred) == ['resolved'] and ground.effects(deferred) == (1, 1)


@at(6)
def test_a_process_that_has_a_failed_call_run_again_is_killed(ground):
    deferred = ground.effect(jobs.fail_at_first)
    worker = ground.next_life()
    ground.request('retry', deferred.id)
    assert deferred.state == 'failed' and ground.effects(deferred) == (0, 1)
    ground.do(ground.zad.zam1.retry, deferred.id)
    ground.run(worker)
    assert deferred.state == 'resolved' and ground.effects(deferred) == (1, 2)


# claims

@at(7)
def test_a_call_expires_though_its_worker_died_over_it(ground):
    deferred = ground.effect(expires=datetime.timedelta(milliseconds=1))
    ground.dies(ground.doomed())
    assert deferred.state == 'new'
    ground.next_life()
    assert deferred.state == 'expired' and ground.effects(deferred) == (0, 0)
    assert ground.zad.zam1.queue.find(deferred.id) is deferred


@at(8)
def test_a_worker_is_killed_while_it_claims(ground):
    deferred, once = ground.effect(), ground.effect(retry=False)
    ground.dies(ground.doomed())
    assert (deferred.state, once.state) == ('new', 'new')
    ground.next_life()
    for each in (deferred, once):
        assert ground.outcomes(each) == ['resolved'] and ground.effects(each) == (1, 1)


@at(9, 10)
def test_a_worker_is_killed_after_a_claim(ground):
    deferred = ground.effect()
    ground.dies(ground.doomed())
    assert deferred.state == 'accepted' and ground.effects(deferred) == (0, 0)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (1, 1)


@at(9)
def test_a_claimed_call_that_may_not_run_twice_fails_also_if_nothing_has_run(ground):
    once = ground.effect(retry=False)
    ground.dies(ground.doomed())
    ground.next_life()
    assert once.state == 'failed' and once.failure.type_name.endswith('.Interrupted')
    assert ground.effects(once) == (0, 0)


# runs

@at(11)
def test_a_worker_is_killed_after_a_call_has_committed_by_itself(ground):
    deferred = ground.effect(jobs.effect_committed)
    ground.dies(ground.doomed())
    assert deferred.state == 'accepted' and ground.effects(deferred) == (1, 1)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (2, 2)


@at(12)
def test_what_came_after_the_last_checkpoint_is_done_again(ground):
    deferred = ground.effect(jobs.effect_in_steps)
    ground.dies(ground.doomed(times=2))
    assert deferred.memo == {'done': 1} and ground.effects(deferred) == (1, 2)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (3, 4)


@at(13)
def test_a_worker_is_killed_between_two_checkpoints(ground):
    deferred = ground.effect(jobs.effect_in_steps)
    ground.dies(ground.doomed(times=2))
    assert deferred.memo == {'done': 2} and ground.effects(deferred) == (2, 2)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (3, 3)


@at(14)
def test_a_worker_is_killed_before_it_has_stored_a_known_result(ground):
    name, path = ground.new_effect()
    doomed = ground.doomed(settings='<plugin plain>\n  handler tests.client.jobs.append_line\n'
                                    '</plugin>\n')
    ground.wait(lambda: 'plain' in ground.zad.zam1.offered())
    deferred = ground.put_to('zam1', 'plain', path)
    ground.dies(doomed)
    assert deferred.state == 'accepted' and ground.count(name, path) == (0, 1)
    ground.next_life(plugins=[Plugin('plain', jobs.append_line, '')])
    assert ground.outcomes(deferred) == ONCE_MORE and ground.count(name, path) == (0, 2)


@at(15, 16)
def test_a_worker_is_killed_while_a_call_runs(ground):
    deferred = ground.effect()
    ground.dies(ground.doomed())
    assert deferred.state == 'accepted' and ground.effects(deferred) == (0, 1)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (1, 2)


@at(17)
def test_a_failure_that_is_not_committed_is_met_again(ground):
    deferred = ground.effect(jobs.fail_after_effect)
    ground.dies(ground.doomed())
    assert deferred.state == 'accepted' and ground.effects(deferred) == (0, 1)
    ground.next_life()
    assert ground.outcomes(deferred) == ['interrupted', 'failed']
    assert ground.effects(deferred) == (0, 2)


@at(18)
def test_a_worker_is_killed_after_a_call_has_ended(ground):
    deferred = ground.effect()
    ground.dies(ground.doomed())
    assert deferred.state == 'resolved' and deferred.id in ground.zad.zam1.queue.desk.running
    ground.next_life()
    assert ground.outcomes(deferred) == ['resolved'] and ground.effects(deferred) == (1, 1)
    assert not ground.zad.zam1.queue.desk.running
    assert ground.zad.zam1.queue.find(deferred.id) is deferred


# groups

IN_GROUP_ONCE_MORE = ['interrupted, maybe by a call beside it', 'resolved']


def group_that_dies(ground):
    """→ calls of which a worker that died there has run some in a group."""
    together = ground.effects_together(*[jobs.effect_in_group] * 12)
    # Of the first it learns that they are short; it has all of the others before it then.
    ground.dies(ground.doomed(threads=1, settings='batch-seconds 5\n',
                              program='tests.faults.claimingahead'))
    return together


@at(46, 47)
def test_a_worker_is_killed_while_it_runs_a_group_of_calls(ground):
    together = group_that_dies(ground)
    lost = [call for call in together if ground.effects(call) == (0, 1)]
    assert len(lost) > 1 and {call.state for call in lost} == {'accepted'}
    ground.next_life()
    for call in lost:
        assert ground.outcomes(call) == IN_GROUP_ONCE_MORE and ground.effects(call) == (1, 2)
    assert {ground.effects(call) for call in set(together) - set(lost)} <= {(1, 1)}
    assert len({call._p_serial for call in lost if call._p_activate() is None}) == len(lost)


@at(48)
def test_a_worker_is_killed_after_a_group_of_calls_is_committed(ground):
    together = group_that_dies(ground)
    ended = [call for call in together if call.state == 'resolved']
    assert len(ended) > 1
    assert len({call._p_serial for call in ended}) < len(ended)
    ground.next_life()
    assert [ground.effects(call) for call in together] == [(1, 1)] * len(together)
    assert {tuple(ground.outcomes(call)) for call in ended} == {('resolved',)}
    assert not {call.id for call in ended} & set(ground.zad.zam1.queue.desk.running)


# callbacks

@at(19)
def test_a_worker_is_killed_while_a_callback_runs(ground):
    deferred = ground.effect(callbacks=[jobs.effect_again])
    ground.dies(ground.doomed())
    assert deferred.state == 'callback'
    assert ground.effects(deferred, '-callback') == (0, 1)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE
    assert (ground.effects(deferred), ground.effects(deferred, '-callback')) == ((1, 1), (1, 2))


@at(20)
def test_a_callback_that_is_committed_does_not_run_again(ground):
    deferred = ground.effect(callbacks=[jobs.effect_again, jobs.effect_again])
    ground.dies(ground.doomed(times=2))  # first comes the end of its work
    assert deferred.state == 'callback'
    assert ground.effects(deferred, '-callback') == (1, 1)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE
    assert (ground.effects(deferred), ground.effects(deferred, '-callback')) == ((1, 1), (2, 2))
