"""The commands that look into the database, on a real server and with a real worker."""

import datetime
import json
import os
import re
import subprocess
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.users import system
from ZODB.FileStorage import FileStorage

from bench.stack import our_environment
from Products.zasync import listing
from Products.zasync.clock import SYSTEM
from Products.zasync.failure import Failure
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from tests.client import jobs
from tests.fakes import make_call
from zasync_client import access
from zasync_client import control
from zasync_client.database import Database
from zasync_client.errors import NotSo
from zasync_client.pidfile import Holder


AN_HOUR = datetime.timedelta(hours=1)


def open_gate(gate):
    with open(gate, 'w', encoding='ascii'):
        pass


def runs(gate):
    return os.path.exists(gate + '.running')


def put_with(site, options, plugin, *args):
    transaction.begin()
    deferred = site.app.zam1.putCallWith(options, plugin, *args)
    transaction.commit()
    return deferred


def test_list_tells_each_call_in_a_line(site, operator, gate):
    assert operator.gets('list') == 'no such calls\n'
    site.become('boss')
    site.start_worker()
    good = site.put('zope_call', jobs.add, 40, 2)
    bad = site.put('zope_call', jobs.fail_with, 'bad\x1b[2J\nnews')
    running = site.put('zope_call', jobs.tell_progress, gate)
    site.ended(good, bad)
    site.wait(lambda: running.progress)
    site.become(None)
    waiting = put_with(site, Options(not_before=AN_HOUR), 'zope_exec', '/', {}, 'python: 1')

    head, *lines = operator.gets('list').splitlines()
    assert head.split() == ['ID', 'PLUGIN', 'STATE', 'USER', 'PUT', 'AT', '(UTC)', 'ATTEMPTS',
                            'REMARK']
    found = {line.split()[0]: line for line in lines}
    assert set(found) == {call.id for call in (good, bad, running, waiting)}
    assert re.fullmatch(rf'{bad.id} +zope_call +failed +boss +\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d +1 '
                        r' +RuntimeError: bad\\x1b\[2J\\nnews', found[bad.id])
    assert found[running.id].endswith('  1 of 3 first')
    assert len({line.index(word) for line, word in (
        (head, 'STATE'), (found[good.id], 'resolved'), (found[waiting.id], 'new'))}) == 1

    def ids(*words):
        return [call['id'] for call in operator.json('list', *words)]

    assert ids('--state', 'failed') == [bad.id]
    assert ids('--plugin', 'zope_exec') == [waiting.id]
    assert ids('--user', 'nobody') == [waiting.id]
    assert len(ids('--user', 'boss', '--limit', '2')) == 2
    open_gate(gate)


def test_a_long_list_is_taken_page_by_page(site, operator, monkeypatch):
    monkeypatch.setattr(control, 'MOST', 2)
    calls = [site.put('zope_call', jobs.add, 1, number) for number in range(5)]
    newest_first = [call.id for call in reversed(calls)]
    for limit, expected in ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (100, 5)):
        options = SimpleNamespace(state='new', plugin=None, user=None, limit=limit)
        assert [call['id'] for call in control.some_calls(site.app.zam1, options)] == (
            newest_first[:expected])
    assert len(operator.json('list', '--limit', '20000')) == 5
    code, _, errors = operator.does('list', '--limit', '1000001')
    assert code == 2 and "is a whole number, 1 to 1,000,000, not '1000001'" in errors


def test_show_tells_everything_of_a_call(site, operator, gate):
    site.become('boss')
    site.start_worker()
    bad = site.put('zope_call', jobs.fail_with, 'bad\x1b[2Jnews')
    foreign = site.put('zope_call', jobs.return_foreign)
    site.ended(bad, foreign)
    text = operator.gets('show', bad.id)
    for words in (f'id:           {bad.id}\n', 'state:        failed\n',
                  'caller:       boss of /acl_users\n', 'bad\\x1b[2Jnews',
                  'failure:      RuntimeError: bad', 'ATTEMPT  STARTED (UTC)',
                  'Traceback (most recent call last):\n', 'in fail_with\n'):
        assert words in text
    assert '\x1b' not in text
    facts = operator.json('show', bad.id)
    assert facts['failure']['type_name'] == 'RuntimeError'
    assert [attempt['outcome'] for attempt in facts['attempts']] == ['failed']
    assert 'result:       no_such_module.Thing(' in operator.gets('show', foreign.id)
    sentence = ('there is no call nonsense\\x1b in /zam1; calls that ended are dropped after the '
                'rotation period')
    assert operator.refused('show', 'nonsense\x1b') == (1, sentence)


def test_a_failed_call_is_put_again(site, operator):
    site.start_worker()
    calls = [site.put('zope_call', jobs.fail_until_marked, 'mended') for _ in range(3)]
    site.ended(*calls)
    code, sentence = operator.refused('retry')
    assert (code, sentence) == (2, 'retry takes the ID of a call, or --all')
    site.change(lambda: site.root['marks'].update(mended=True))
    first, *others = calls
    assert operator.gets('retry', first.id) == f'the call {first.id} was put again\n'
    site.wait(lambda: first.state == 'resolved')
    assert operator.refused('retry', first.id) == (
        1, f'the call {first.id} is resolved: only one that failed can be put again')
    assert operator.gets('retry', '--all') == '2 calls put again\n'
    site.wait(lambda: all(call.state == 'resolved' for call in others))
    assert operator.gets('retry', '--all') == '0 calls put again\n'
    assert operator.refused('retry', '1-1-1-1')[0] == 1


def test_a_call_is_cancelled_where_it_waits_and_where_it_runs(site, operator, gate):
    site.start_worker()
    running = site.put('zope_call', jobs.mark_then_wait, 'cancelled', gate)
    waiting = put_with(site, Options(not_before=AN_HOUR), 'zope_call', jobs.add, 1, 1)
    site.wait(lambda: runs(gate))
    for call in (running, waiting):
        assert operator.gets('cancel', call.id) == f'the call {call.id} is cancelled\n'
    open_gate(gate)
    transaction.begin()
    assert (running.state, waiting.state) == ('cancelled', 'cancelled')
    assert operator.refused('cancel', waiting.id) == (
        1, f'the call {waiting.id} has ended already: it is cancelled')
    site.ended(site.put('zope_call', jobs.add, 1, 1))
    assert 'cancelled' not in site.root['marks']


def test_pause_lets_nothing_begin_and_resume_ends_it(site, operator):
    site.start_worker()
    assert operator.gets('pause') == '/zam1 is paused: calls wait\n'
    assert operator.gets('pause') == '/zam1 was paused already\n'
    waiting = site.put('zope_call', jobs.add, 1, 1)
    # The beat that answers a ping has seen the put.
    assert operator.gets('ping').startswith('the worker of /zam1 answered in ')
    transaction.begin()
    assert waiting.state == 'new'
    code, output, _ = operator.does('status')
    assert output.endswith('; 1 waiting, 0 running, paused\n')
    assert operator.gets('resume') == '/zam1 goes on\n'
    assert operator.gets('resume') == '/zam1 was not paused\n'
    site.ended(waiting)


def test_drain_waits_until_nothing_runs_or_names_what_does(site, operator, gate):
    site.start_worker()
    running = site.put('zope_call', jobs.wait_for_file, gate)
    site.wait(lambda: runs(gate))
    assert operator.refused('drain', '--wait', '0.5s') == (
        1, f'/zam1 is paused, but after 0.5 s 1 call had not ended: {running.id}')
    drain = operator.begin('drain', '--wait', '1m')
    site.wait(lambda: not site.app.zam1.queue.pulse.accepting)
    waiting = site.put('zope_call', jobs.add, 1, 1)
    open_gate(gate)
    output, errors = drain.communicate(timeout=60)
    assert (drain.returncode, output, errors) == (0, '/zam1 is paused and nothing runs\n', '')
    transaction.begin()
    assert (running.state, waiting.state) == ('resolved', 'new')


def test_drain_of_a_target_without_a_worker_is_done_at_once(site, operator):
    assert operator.gets('drain') == '/zam1 is paused and nothing runs\n'


@pytest.mark.slow
def test_purge_drops_what_ended_long_enough_ago(site, operator):
    site.start_worker()
    good, bad = (site.put('zope_call', jobs.add, 1, 1), site.put('zope_call', jobs.fail_with, ''))
    site.ended(good, bad)
    site.wait(lambda: not site.app.zam1.queue.desk.running, what='filing')
    assert operator.gets('purge', '--state', 'failed', '--older-than', '1h') == '0 calls dropped\n'
    assert operator.gets('purge', '--state', 'failed', '--older-than', '0') == '1 call dropped\n'
    assert [call['id'] for call in operator.json('list')] == [good.id]
    for wrong in (('--state', 'new', '--older-than', '0'), ('--state', 'failed'),
                  ('--state', 'failed', '--older-than', 'long')):
        assert operator.does('purge', *wrong)[0] == 2


def test_ping_is_a_check_of_health(site, operator):
    assert operator.refused('ping', '--wait', '0.2') == (
        1, 'the worker of /zam1 did not answer in 0.2 s')
    site.start_worker()
    assert re.fullmatch(r'the worker of /zam1 answered in \d+ ms\n', operator.gets('ping'))
    answer = operator.json('ping')
    assert answer['answered'] and 0 < answer['milliseconds'] < 10_000
    pings = [operator.begin('ping') for _ in range(3)]
    for process in pings:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, '')


def test_a_change_that_meets_conflicts_is_made_again(site, operator, tmp_path):
    target = access.Access(SimpleNamespace(target=('', 'zam1')), Database(
        site.db, ('', 'zam1'), 1), SYSTEM)
    other = site.db.open(transaction.TransactionManager(explicit=False))
    rounds = []

    def change(manager, times):
        rounds.append(len(rounds))
        manager.ping()
        if len(rounds) <= times:
            other.transaction_manager.begin()
            other.root()['Application'].zam1.queue.ping.asked_at = float(len(rounds))
            other.transaction_manager.commit()

    try:
        target.change('a test', lambda manager: change(manager, 2))
        assert len(rounds) == 3
        rounds.clear()
        with pytest.raises(NotSo, match='others keep writing'):
            target.change('a test', lambda manager: change(manager, 1000))
        assert len(rounds) == access.ATTEMPTS
    finally:
        other.close()
        target._database.close()


def test_a_purge_that_meets_what_is_filed_goes_on_with_fewer_calls(site, monkeypatch, capsys):
    """A worker files a failure whenever a part takes long."""
    target = access.Access(SimpleNamespace(target=('', 'zam1')), Database(
        site.db, ('', 'zam1'), 1), SYSTEM)
    other = site.db.open(transaction.TransactionManager(explicit=False))
    real, now, filed, parts = listing.purge, SYSTEM.now(), [], []

    def file_one():
        other.transaction_manager.begin()
        queue = other.root()['Application'].zam1.queue
        queue.desk.running[ids[len(filed)]].fail(Failure('ValueError', 'no', ''), now)
        queue.archive_ended(ids[len(filed)], 86_400)
        filed.append(ids[len(filed)])
        other.transaction_manager.commit()

    def purge(*args):
        parts.append(real(*args))
        if parts[-1] > 100:
            file_one()
        return parts[-1]

    other.transaction_manager.begin()
    queue = other.root()['Application'].zam1.queue
    ids = [queue.put(make_call(number), number % 4).id for number in range(800)]
    queue.take_in_and_claim('boot', now, 800, 86_400)
    other.transaction_manager.commit()
    for _ in range(600):
        file_one()
    transaction.begin()
    monkeypatch.setattr(listing, 'purge', purge)
    monkeypatch.setattr(control, 'opened', lambda config, clock: nullcontext(target))
    try:
        assert control.purge(None, SimpleNamespace(state='failed', older_than=0), SYSTEM) == 0
        assert capsys.readouterr().out == f'{len(filed)} calls dropped\n'
        assert parts[-2] == listing.LEAST and len(filed) > 600
    finally:
        other.close()
        target._database.close()


def test_a_retry_of_all_that_meets_what_others_put_goes_on_with_fewer_calls(
        site, monkeypatch, capsys):
    """Others put by all lanes whenever a part takes long."""
    target = access.Access(SimpleNamespace(target=('', 'zam1')), Database(
        site.db, ('', 'zam1'), 1), SYSTEM)
    other = site.db.open(transaction.TransactionManager(explicit=False))
    real, now, parts = AsynchronousCallManager.retry, SYSTEM.now(), Counter()

    def retry(manager, id):
        current = transaction.get()
        parts[current] += 1
        if parts[current] == 101:
            other.transaction_manager.begin()
            queue = other.root()['Application'].zam1.queue
            for lane in range(len(queue.lanes)):
                queue.put(make_call(), lane)
            other.transaction_manager.commit()
        return real(manager, id)

    other.transaction_manager.begin()
    queue = other.root()['Application'].zam1.queue
    for number in range(600):
        queue.put(make_call(number), number % 4)
    for deferred in queue.take_in_and_claim('boot', now, 600, 86_400):
        deferred.fail(Failure('ValueError', 'no', ''), now)
        queue.archive_ended(deferred.id, 86_400)
    other.transaction_manager.commit()
    transaction.begin()
    monkeypatch.setattr(AsynchronousCallManager, 'retry', retry)
    monkeypatch.setattr(control, 'opened', lambda config, clock: nullcontext(target))
    newSecurityManager(None, system)
    try:
        assert control.retry(None, SimpleNamespace(all=True), SYSTEM) == 0
        assert capsys.readouterr().out == '600 calls put again\n'
        assert list(parts.values())[-6:] == [100] * 6
    finally:
        noSecurityManager()
        other.close()
        target._database.close()


@pytest.mark.slow
def test_what_is_wrong_with_database_or_target_is_a_sentence(site, operator):
    operator.configure(target='/nowhere')
    for command in (('list',), ('ping',), ('pause',), ('show', '1-1-1-1')):
        assert operator.refused(*command) == (1, 'there is nothing at /nowhere')
    operator.configure(target='/acl_users')
    assert operator.refused('list') == (
        2, "the target /acl_users is no asynchronous call manager but 'User Folder'")
    operator.configure()
    site.stack.zeo.stop()
    code, sentence = operator.refused('list')
    assert code == 1 and sentence.startswith('the database can not be opened: ')


def test_a_file_storage_that_another_process_has_open_is_a_sentence(site, operator):
    path = operator.use_file_storage()
    storage = FileStorage(str(path))
    try:
        sentence = (f'the database can not be opened: {path} is open in another process, and only '
                    'one may have it open: use a ZEO server, or have that Zope run the worker, by '
                    'a section <zasync-worker> in its zope.conf')
        assert operator.refused('list') == (1, sentence)
    finally:
        storage.close()
    assert operator.refused('list') == (
        1, 'the database holds no Zope application: let Zope start once')


def test_the_commands_do_not_want_the_cache_that_a_worker_has_in_a_file(site, operator):
    path = operator.use_client_cache(site.address)
    assert operator.gets('start').endswith(' serves /zam1\n')
    assert path.exists()
    assert operator.gets('list') == 'no such calls\n'
    assert operator.gets('status').endswith(', serving /zam1; 0 waiting, 0 running\n')
    assert operator.gets('pause').endswith(' is paused: calls wait\n')


def test_an_error_of_a_driver_is_told_in_one_line(monkeypatch):
    def refuse(config):
        raise RuntimeError('connection refused\n\tIs the server running?\n')

    monkeypatch.setattr(access.zope, 'open_database', refuse)
    config = SimpleNamespace(target=('', 'zam'))
    with pytest.raises(NotSo) as caught, access.opened(config, SYSTEM):
        pass
    assert str(caught.value) == ('the database can not be opened: RuntimeError: connection '
                                 'refused Is the server running?')


@pytest.mark.parametrize('times, words', [
    (1, 'it has replaced itself once, because it was time'),
    (2, 'it has replaced itself 2 times, last because it was time')])
def test_status_tells_how_often_the_worker_has_begun_anew(times, words):
    found = Holder(7, {'serving': True, 'replaced': times, 'replaced_because': 'it was time'})
    facts = {'target': '/zam', 'since': None, 'trouble': 'no numbers', **found.told}
    assert control.status_text(facts, found) == (
        f'running, process 7 serving /zam; {words}; no numbers')


def test_output_fits_a_terminal_that_knows_ASCII_alone(site, operator):
    site.start_worker()
    bad = site.put('zope_call', jobs.fail_with, 'naïve 日本')
    site.ended(bad)
    environment = {**our_environment(), 'PYTHONIOENCODING': 'ascii'}
    done = subprocess.run(operator.argv('list'), capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0
    assert b'na\\xefve \\u65e5\\u672c' in done.stdout
    done = subprocess.run(operator.argv('list', '--json'), capture_output=True, timeout=60,
                          env=environment)
    assert json.loads(done.stdout)[0]['failure'] == 'RuntimeError: naïve 日本'
