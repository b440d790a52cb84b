"""Scenarios: who puts, cancels or runs a call dies.

Imports: scenarios, jobs.
"""

import datetime

import transaction
from Products.PageTemplates.ZopePageTemplate import ZopePageTemplate

from tests.faults import jobs
from tests.faults.scenarios import dies_at
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


@dies_at(1, 2)
def a_put_that_is_not_committed_never_was(ground):
    ground.page(page_that_puts(ground))
    assert ground.zad.zam1.open_calls() == 0
    # Nor is anything in the way of others.
    later = ground.effect()
    ground.next_life()
    assert ground.effects(later) == (1, 1)
    assert ground.zad.zam1.calls() == [later]


@dies_at(3)
def a_put_that_is_committed_runs_once_though_nobody_was_told(ground):
    ground.page(page_that_puts(ground))
    assert ground.zad.zam1.open_calls() == 1
    ground.next_life()
    deferred, = ground.zad.zam1.calls()
    assert ground.outcomes(deferred) == ['resolved'] and ground.zad.title == 'x'


@dies_at(4)
def what_a_call_did_in_a_request_is_lost_with_it(ground):
    name, path = ground.new_effect()
    ground.request('put', name, path)
    assert ground.count(name, path) == (0, 1)  # outside the database it has happened
    assert ground.zad.zam1.open_calls() == 0


@dies_at(5)
def a_call_whose_cancellation_is_not_committed_goes_on(ground):
    deferred = ground.effect()
    ground.request('cancel', deferred.id)
    assert deferred.state == 'new'
    ground.next_life()
    assert ground.outcomes(deferred) == ['resolved'] and ground.effects(deferred) == (1, 1)


@dies_at(6)
def a_failed_call_that_was_not_put_again_has_still_failed(ground):
    deferred = ground.effect(jobs.fail_at_first)
    worker = ground.next_life()
    ground.request('retry', deferred.id)
    assert deferred.state == 'failed' and ground.effects(deferred) == (0, 1)
    ground.do(ground.zad.zam1.retry, deferred.id)
    ground.run(worker)
    assert deferred.state == 'resolved' and ground.effects(deferred) == (1, 2)


# claims

@dies_at(7)
def a_call_expires_though_its_worker_died_over_it(ground):
    deferred = ground.effect(expires=datetime.timedelta(milliseconds=1))
    ground.dies(ground.doomed())
    assert deferred.state == 'new'
    ground.next_life()
    assert deferred.state == 'expired' and ground.effects(deferred) == (0, 0)
    assert ground.zad.zam1.queue.find(deferred.id) is deferred


@dies_at(8)
def a_call_whose_claim_is_not_committed_waits_as_before(ground):
    deferred, once = ground.effect(), ground.effect(retry=False)
    ground.dies(ground.doomed())
    assert (deferred.state, once.state) == ('new', 'new')
    ground.next_life()
    for each in (deferred, once):
        assert ground.outcomes(each) == ['resolved'] and ground.effects(each) == (1, 1)


@dies_at(9, 10)
def a_claim_costs_an_attempt_also_if_nothing_has_run(ground):
    deferred = ground.effect()
    ground.dies(ground.doomed())
    assert deferred.state == 'accepted' and ground.effects(deferred) == (0, 0)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (1, 1)


@dies_at(9)
def a_claimed_call_that_may_not_run_twice_fails_also_if_nothing_has_run(ground):
    once = ground.effect(retry=False)
    ground.dies(ground.doomed())
    ground.next_life()
    assert once.state == 'failed' and once.failure.type_name.endswith('.Interrupted')
    assert ground.effects(once) == (0, 0)


# runs

@dies_at(11)
def what_a_call_commits_by_itself_stays_and_happens_once_more(ground):
    deferred = ground.effect(jobs.effect_committed)
    ground.dies(ground.doomed())
    assert deferred.state == 'accepted' and ground.effects(deferred) == (1, 1)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (2, 2)


@dies_at(12)
def what_came_after_the_last_checkpoint_is_done_again(ground):
    deferred = ground.effect(jobs.effect_in_steps)
    ground.dies(ground.doomed(times=2))
    assert deferred.memo == {'done': 1} and ground.effects(deferred) == (1, 2)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (3, 4)


@dies_at(13)
def what_came_before_a_checkpoint_is_not_done_again(ground):
    deferred = ground.effect(jobs.effect_in_steps)
    ground.dies(ground.doomed(times=2))
    assert deferred.memo == {'done': 2} and ground.effects(deferred) == (2, 2)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (3, 3)


@dies_at(14)
def a_result_that_only_the_dead_process_knew_is_found_anew(ground):
    name, path = ground.new_effect()
    doomed = ground.doomed(settings='<plugin plain>\n  handler tests.client.jobs.append_line\n'
                                    '</plugin>\n')
    ground.wait(lambda: 'plain' in ground.zad.zam1.offered())
    deferred = ground.put_to('zam1', 'plain', path)
    ground.dies(doomed)
    assert deferred.state == 'accepted' and ground.count(name, path) == (0, 1)
    ground.next_life(plugins=[Plugin('plain', jobs.append_line, '')])
    assert ground.outcomes(deferred) == ONCE_MORE and ground.count(name, path) == (0, 2)


@dies_at(15, 16)
def effects_that_are_not_committed_never_were_and_come_with_the_next_attempt(ground):
    deferred = ground.effect()
    ground.dies(ground.doomed())
    assert deferred.state == 'accepted' and ground.effects(deferred) == (0, 1)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE and ground.effects(deferred) == (1, 2)


@dies_at(17)
def a_failure_that_is_not_committed_is_met_again(ground):
    deferred = ground.effect(jobs.fail_after_effect)
    ground.dies(ground.doomed())
    assert deferred.state == 'accepted' and ground.effects(deferred) == (0, 1)
    ground.next_life()
    assert ground.outcomes(deferred) == ['interrupted', 'failed']
    assert ground.effects(deferred) == (0, 2)


@dies_at(18)
def an_end_that_is_committed_is_the_end(ground):
    deferred = ground.effect()
    ground.dies(ground.doomed())
    assert deferred.state == 'resolved' and deferred.id in ground.zad.zam1.queue.desk.running
    ground.next_life()
    assert ground.outcomes(deferred) == ['resolved'] and ground.effects(deferred) == (1, 1)
    assert not ground.zad.zam1.queue.desk.running
    assert ground.zad.zam1.queue.find(deferred.id) is deferred


# callbacks

@dies_at(19)
def a_callback_that_is_not_committed_runs_again_and_its_call_does_not(ground):
    deferred = ground.effect(callbacks=[jobs.effect_again])
    ground.dies(ground.doomed())
    assert deferred.state == 'callback'
    assert ground.effects(deferred, '-callback') == (0, 1)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE
    assert (ground.effects(deferred), ground.effects(deferred, '-callback')) == ((1, 1), (1, 2))


@dies_at(20)
def a_callback_that_is_committed_does_not_run_again(ground):
    deferred = ground.effect(callbacks=[jobs.effect_again, jobs.effect_again])
    ground.dies(ground.doomed(times=2))  # first comes the end of its work
    assert deferred.state == 'callback'
    assert ground.effects(deferred, '-callback') == (1, 1)
    ground.next_life()
    assert ground.outcomes(deferred) == ONCE_MORE
    assert (ground.effects(deferred), ground.effects(deferred, '-callback')) == ((1, 1), (2, 2))
