"""Real workers on a real ZEO server: what one call goes through, start to end."""

import os
import signal
import socket
import subprocess

import pytest
import transaction
from persistent.mapping import PersistentMapping

from bench.stack import zeo_python
from Products.zasync.clock import SYSTEM
from Products.zasync.wakeup import Wakeup
from tests.client import jobs


def open_gate(gate):
    with open(gate, 'w', encoding='ascii'):
        pass


def runs(gate):
    """Whether a call waits at the gate."""
    return os.path.exists(gate + '.running')


def test_a_call_put_by_one_process_is_run_by_another(site):
    site.become('boss')
    site.start_worker()
    deferred = site.put('zope_call', jobs.add, 40, b=2)
    site.ended(deferred)
    assert (deferred.state, deferred.result) == ('resolved', 42)
    (attempt,) = deferred.attempts
    assert attempt.number == 1
    assert deferred.put_at <= deferred.started_at <= deferred.ended_at


def test_keywords_of_a_call_may_have_the_names_that_its_way_to_the_worker_has(site):
    site.become('boss')
    site.start_worker()
    names = dict.fromkeys(('self', 'plugin', 'options', 'session', 'callable', 'run', 'target',
                           'caller', 'step', 'handler', 'deferred', 'claim', 'args'), 1)
    called = site.put('zope_call', jobs.keywords, **names)
    echoed = site.put('echo', **names)
    member = site.put('aggregate', [('zope_call', (jobs.keywords,), names)])
    site.ended(called, echoed, member)
    assert [each.failure for each in (called, echoed, member)] == [None] * 3
    assert (called.result, echoed.result, member.result) == (names, ((), names), [names])


def test_result_and_effects_are_there_together(site):
    site.start_worker()
    deferred = site.put('zope_call', jobs.set_mark, 'together', 7)
    site.ended(deferred)
    assert deferred.result == 7
    assert site.root['marks']['together'] == 7


def test_a_method_of_a_persistent_object_is_called_by_its_path(site):
    site.become('boss')
    site.start_worker()
    deferred = site.put('zope_call', site.app.acl_users.getUserNames)
    site.ended(deferred)
    assert sorted(deferred.result) == ['bob', 'boss']


def test_an_expression_sees_its_variables(site):
    site.become('boss')
    site.start_worker()
    deferred = site.put('zope_exec', ('', 'zam1'), {'light': 1},
                        'python: (here.getId(), request.light, home.isPrincipiaFolderish)')
    site.ended(deferred)
    assert deferred.failure is None
    assert deferred.result == ('zam1', 1, 1)


def test_the_caller_may_not_do_what_the_call_does(site):
    site.become('bob')
    site.start_worker()
    deferred = site.put('zope_exec', '/', {},
                        'python: (context.manage_changeProperties({"title": "bob was here"}),'
                        ' context.manage_delObjects(["zam2"]))')
    site.ended(deferred)
    assert deferred.state == 'failed'
    assert deferred.failure.type_name.endswith('Unauthorized')
    assert 'zam2' in site.app.objectIds()
    assert site.app.title != 'bob was here'


def test_zope_security_tells_what_the_caller_may_as_in_a_request(site):
    site.start_worker(threads=1)
    calls = []
    for user_id in ('boss', 'bob', None):
        site.become(user_id)
        calls.append(site.put('zope_call', jobs.may, 'zope2.ViewManagementScreens'))
    site.ended(*calls)
    assert [(call.result, call.failure) for call in calls] == [
        (True, None), (False, None), (False, None)]


def test_a_call_raises_an_exception(site):
    site.start_worker()
    deferred = site.put('zope_call', jobs.fail_after_effect, 'half')
    site.ended(deferred)
    assert deferred.state == 'failed'
    assert deferred.failure.type_name == 'RuntimeError'
    assert deferred.failure.text == 'failed on purpose'
    assert 'fail_after_effect' in deferred.failure.traceback_text
    assert 'half' not in site.root['marks']


def test_the_object_of_the_call_was_deleted(site):
    site.become('boss')
    deferred = site.put('zope_exec', '/zam2', {}, 'here')
    site.app._delObject('zam2')
    transaction.commit()
    site.start_worker()
    site.ended(deferred)
    assert (deferred.state, deferred.failure.type_name) == ('failed', 'LookupError')
    assert '/zam2' in deferred.failure.text


def test_the_caller_was_deleted(site):
    site.become('bob')
    deferred = site.put('zope_exec', '/', {}, 'python: 1')
    site.app.acl_users._doDelUsers(['bob'])
    transaction.commit()
    site.start_worker()
    site.ended(deferred)
    assert deferred.state == 'failed'
    assert "'bob'" in deferred.failure.text


def test_the_result_can_not_be_stored(site):
    site.start_worker()
    deferred = site.put('zope_call', jobs.unpicklable)
    site.ended(deferred)
    assert deferred.failure.type_name.endswith('BadResult')
    assert 'unpicklable' not in site.root['marks']


def check_refused(site, calls):
    """They have failed for their second connection, and nothing of them is stored."""
    for call in calls:
        assert call.failure.type_name == 'Products.zasync.errors.CommitRefused'
        assert 'through two connections' in call.failure.text
    assert 'twice' not in site.root['marks'] and 'others' not in site.root


def test_a_call_changes_the_database_through_two_connections(site):
    site.start_worker()
    calls = [site.put('zope_call', jobs.change_through_two_connections, 'twice', commits=commits)
             for commits in (False, True)]
    calls.append(site.put('zope_call', jobs.change_through_a_later_connection, 'later'))
    site.ended(*calls)
    check_refused(site, calls)
    good = site.put('zope_call', jobs.set_mark, 'after', 1)
    site.ended(good)
    assert (good.state, site.root['marks']['after']) == ('resolved', 1)


def put_as_call_and_as_callback(site, job, value):
    """The two calls."""
    call = site.put('zope_call', job, value)
    other = site.app.zam1.putCall('zope_call', jobs.add, value, '')
    other.addCallbacks(job)
    transaction.commit()
    return call, other


def test_what_is_done_through_a_second_connection_by_a_hook_before_the_commit_is_refused(site):
    calls = put_as_call_and_as_callback(
        site, jobs.change_through_two_connections_at_the_end, 'twice')
    site.start_worker(threads=1)
    site.ended(*calls)
    check_refused(site, calls)
    good = site.put('zope_call', jobs.set_mark, 'after', 1)
    site.ended(good)
    assert good.state == 'resolved'


def test_a_call_whose_hook_ends_the_transaction_before_the_commit_fails_and_runs_once(
        site, tmp_path):
    path = str(tmp_path / 'ran')
    calls = put_as_call_and_as_callback(site, jobs.abort_at_the_end, path)
    site.start_worker(threads=1)
    site.ended(*calls)
    for call in calls:
        assert call.failure.type_name == 'Products.zasync.errors.CommitRefused'
        assert 'before its commit that ended the transaction' in call.failure.text
    assert path not in site.root['marks']
    assert (tmp_path / 'ran').read_text('ascii') == 'ran\n' * 2


def test_a_call_that_was_cancelled_commits_through_two_connections(site, tmp_path):
    site.start_worker(threads=1)
    gate = tmp_path / 'gate'
    call = site.put('zope_call', jobs.change_through_two_connections, 'twice', commits=True,
                    gate=str(gate))
    site.wait((tmp_path / 'gate.running').exists)
    site.change(call.cancel)
    gate.touch()
    good = site.put('zope_call', jobs.set_mark, 'after', 1)
    site.ended(good)
    assert 'twice' not in site.root['marks'] and 'others' not in site.root


@pytest.mark.parametrize('number, code', [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 1),
                                          (signal.SIGHUP, -signal.SIGHUP)])
def test_a_process_that_a_call_forks_ends_by_a_signal_as_any_other(site, number, code):
    """As multiprocessing ends its own, and systemd all that a service has begun."""
    site.start_worker()
    call = site.put('zope_call', jobs.end_forked, number.value)
    site.ended(call)
    assert call.result == code


def test_a_call_that_raises_SystemExit_fails_and_its_worker_goes_on(site):
    site.start_worker()
    first = site.put('zope_call', jobs.exit_process)
    second = site.put('zope_call', jobs.add, 1, 1)
    site.ended(first, second)
    assert first.failure.type_name == 'SystemExit'
    assert second.result == 2


def test_a_call_meets_a_conflict(site, gate):
    site.start_worker()
    deferred = site.put('zope_call', jobs.meet_conflicts, 'contended', gate)
    site.wait(lambda: runs(gate))
    site.root['marks']['contended'] = 10
    transaction.commit()
    open_gate(gate)
    site.ended(deferred)
    assert deferred.state == 'resolved'
    assert site.root['marks']['contended'] == 11
    assert len(deferred.attempts) == 1


def test_a_worker_is_told_to_stop(site, gate):
    worker = site.start_worker(threads=1)
    running = site.put('zope_call', jobs.wait_for_file, gate)
    site.wait(lambda: runs(gate))
    waiting = site.put('zope_call', jobs.add, 1, 2)
    os.kill(worker.pid, signal.SIGTERM)
    site.wait(lambda: not site.app.zam1.queue.pulse.accepting)
    open_gate(gate)
    assert worker.wait(30) == 0
    transaction.begin()
    assert running.state == 'resolved'
    assert waiting.state == 'new'
    site.start_worker(threads=1)
    site.ended(waiting)
    assert waiting.result == 3


def test_what_a_killed_worker_had_accepted_is_taken_up_again(site, gate):
    worker = site.start_worker()
    deferred = site.put('zope_call', jobs.mark_then_wait, 'once', gate)
    site.wait(lambda: runs(gate))
    worker.kill()
    open_gate(gate)
    site.start_worker()
    site.ended(deferred)
    assert deferred.state == 'resolved'
    assert site.root['marks']['once'] == 1
    assert [attempt.outcome for attempt in deferred.attempts] == ['interrupted', 'resolved']


def test_a_killed_call_starts_again_on_top_of_its_last_checkpoint(site, gate):
    worker = site.start_worker()
    deferred = site.put('zope_call', jobs.count_in_steps, 'steps', 4, gate)
    site.wait(lambda: runs(gate))
    worker.kill()
    site.wait(lambda: deferred.memo == {'done': 2}, what='the news of the second checkpoint')
    open_gate(gate)
    site.start_worker()
    site.ended(deferred)
    assert deferred.result == 4
    assert site.root['marks']['steps'] == 4


def test_a_worker_comes_back_after_it_was_taken_for_dead(site, tmp_path):
    """Two frozen workers, replaced after their pulse stood still, and woken again.

    One runs a call that commits at its end, the other one that commits on its way, behind
    zasync's back. The first commit of the latter was its owner's; no later one may succeed.
    """
    work = {'zam1': jobs.mark_then_wait, 'zam2': jobs.commit_behind_our_back}
    zombies, calls = {}, {}
    for name, job in work.items():
        zombies[name] = site.start_worker(name)
        gate = str(tmp_path / name)
        calls[name] = site.put('zope_call', job, name, gate, manager=name)
        site.wait(lambda gate=gate: runs(gate))
    site.wait(lambda: site.root['marks'].get('zam2') == 1, what='the news of its first commit')
    assert site.root['marks'].get('zam1') is None
    for name, zombie in zombies.items():
        os.kill(zombie.pid, signal.SIGSTOP)
        open_gate(str(tmp_path / name))
    for name in work:
        site.second_worker('/' + name)
    site.ended(*calls.values(), limit=90)
    for zombie in zombies.values():
        os.kill(zombie.pid, signal.SIGCONT)
        assert zombie.wait(30) == 1
    transaction.begin()
    # Once by the second run; for zam2 also once by the first run, before it was frozen.
    assert (site.root['marks']['zam1'], site.root['marks']['zam2']) == (1, 3)
    for deferred in calls.values():
        assert [attempt.outcome for attempt in deferred.attempts] == ['interrupted', 'resolved']


def test_a_second_worker_is_started_on_the_same_target(site):
    first = site.start_worker()
    second = site.second_worker('/zam1')
    assert second.wait(40) == 1
    assert f'process {first.pid} on {socket.gethostname()}' in second.output()
    deferred = site.put('zope_call', jobs.add, 1, 1)
    site.ended(deferred)


def test_a_worker_answers_a_ping(site):
    site.start_worker()
    transaction.begin()
    assert site.app.zam1.getLastPong() is None
    site.app.zam1.ping()
    transaction.commit()
    site.wait(lambda: site.app.zam1.getLastPong())
    assert site.app.zam1.getLastPong() >= site.app.zam1.getLastPing()


def test_the_zeo_server_is_restarted(site):
    site.start_worker()
    before = site.put('zope_call', jobs.set_mark, 'before', 1)
    site.ended(before)
    site.restart_server()
    after = [site.put('zope_call', jobs.set_mark, f'after {number}', number)
             for number in range(5)]
    site.ended(*after)
    assert [deferred.result for deferred in after] == [0, 1, 2, 3, 4]


def test_one_readable_log_line_a_transition(site):
    site.become('boss')
    worker = site.start_worker()
    good = site.put('zope_call', jobs.add, 1, 1)
    bad = site.put('zope_call', jobs.fail_after_effect, 'logged')
    site.ended(good, bad)
    log = worker.output()
    for deferred, words in ((good, 'accepted'), (good, 'resolved in'), (bad, 'accepted'),
                            (bad, 'failed: RuntimeError: failed on purpose')):
        lines = [line for line in log.splitlines() if f'call {deferred.id} {words}' in line]
        assert len(lines) == 1, (words, log)


def test_the_zeo_server_can_not_import_our_packages(site):
    python = zeo_python()
    for package in ('Products.zasync', 'zasync_client'):
        done = subprocess.run([python, '-c', f'import {package}'], capture_output=True, text=True,
                              cwd='/', timeout=30, env={'PATH': os.environ['PATH']})
        assert done.returncode == 1
        assert 'ModuleNotFoundError' in done.stderr


def test_ids_for_new_objects_are_forgotten_when_the_server_was_restarted(site):
    """It gives the same ones to others."""
    wakeup, storage = Wakeup(SYSTEM), site.db.storage
    wakeup.watch(site.db)
    site.change(lambda: site.root['marks'].update(first=PersistentMapping()))
    held = set(storage._oids)
    assert held
    site.stack.zeo.stop()
    site.stack.zeo.start()
    site.wait(lambda: not held & set(storage._oids), what='that they are forgotten')
