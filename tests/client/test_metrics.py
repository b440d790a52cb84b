"""Metrics: what a worker answers whoever watches it, and what the command prints."""

import contextlib
import http.client
import os
import signal
import time
import urllib.request

import pytest
import transaction
from prometheus_client.parser import text_string_to_metric_families

from bench.processes import free_port
from Products.zasync.options import Retry
from tests.client import jobs
from tests.client.conftest import LIMIT
from tests.client.test_control import open_gate
from tests.client.test_control import runs
from zasync_client import metrics


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def gate(tmp_path):
    return str(tmp_path / 'gate')


def start(site, port, manager='zam1', name=None):
    return site.stack.start_worker(name or manager, f'/{manager}',
                                   settings=f'metrics-address {port}\n')


def numbers(text):
    """{name, or (name, value of a label, …): number}."""
    return {(sample.name, *sample.labels.values()) if sample.labels else sample.name: sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


def scrape(port):
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics', timeout=LIMIT) as answer:
        assert answer.headers['Content-Type'].startswith('text/plain; version=')
        return numbers(answer.read().decode('utf-8'))


def scraped(port, is_so):
    """The numbers, once they are so."""
    until = time.monotonic() + LIMIT
    while not is_so(found := scrape(port)):
        assert time.monotonic() < until, found
    return found


def test_a_worker_tells_of_its_queue_and_its_work(site, port, gate):
    start(site, port)
    before = scrape(port)
    assert before['zasync_worker_up', '/zam1'] == 1
    assert [before['zasync_jobs', '/zam1', state] for state in ('new', 'accepted', 'failed')] == [
        0, 0, 0]
    assert before['zasync_oldest_waiting_seconds', '/zam1'] == 0
    done = site.put('zope_call', jobs.add, 1, 2)
    failed = site.put('zope_call', jobs.fail_with, 'on purpose')
    site.ended(done, failed)
    running = site.put('zope_call', jobs.wait_for_file, gate)
    site.wait(lambda: runs(gate))
    found = scraped(port, lambda found: found['zasync_jobs', '/zam1', 'failed'] == 1)
    assert found['zasync_jobs', '/zam1', 'accepted'] == 1
    assert found['zasync_job_attempts_total', 'resolved'] == 1
    assert found['zasync_job_attempts_total', 'failed'] == 1
    assert found['zasync_job_duration_seconds_count', 'zope_call'] == 2
    assert found['zasync_job_duration_seconds_bucket', 'zope_call', '+Inf'] == 2
    assert (found['zasync_conflicts_total'], found['zasync_zeo_disconnects_total']) == (0, 0)
    open_gate(gate)
    site.ended(running)
    after = scraped(port, lambda found: found['zasync_job_attempts_total', 'resolved'] == 2)
    assert after['zasync_job_duration_seconds_sum', 'zope_call'] > found[
        'zasync_job_duration_seconds_sum', 'zope_call']


def test_calls_that_share_a_transaction_are_counted_one_by_one(site, port):
    site.app.zam1.pause()
    deferreds = [site.app.zam1.putCall('echo', number) for number in range(30)]
    deferreds.append(site.app.zam1.putCall('zope_call', jobs.fail_in_group))
    transaction.commit()
    start(site, port)
    site.change(site.app.zam1.resume)
    site.ended(*deferreds)
    found = scraped(port, lambda found: found.get(
        ('zasync_job_attempts_total', 'resolved')) == 30)
    assert found['zasync_job_attempts_total', 'failed'] == 1
    assert found['zasync_job_duration_seconds_count', 'echo'] == 30
    assert found['zasync_job_duration_seconds_count', 'zope_call'] == 1


def test_attempts_that_ended_no_call_and_conflicts_are_counted(site, port, gate, tmp_path):
    start(site, port)
    again = site.put_with({'retry': Retry(2, delay=0.1)}, 'zope_call',
                          jobs.fails_at_first, str(tmp_path / 'first'))
    site.ended(again)
    contended = site.put('zope_call', jobs.meet_conflicts, 'contended', gate)
    site.wait(lambda: runs(gate))
    site.root['marks']['contended'] = 10
    transaction.commit()
    open_gate(gate)
    site.ended(contended)
    found = scraped(port, lambda found: found.get(
        ('zasync_job_attempts_total', 'resolved')) == 2)
    assert found['zasync_job_attempts_total', 'again'] == 1
    assert found['zasync_conflicts_total'] >= 1


def test_while_the_server_is_away_a_worker_says_that_it_does_not_serve(site, port):
    start(site, port)
    assert scrape(port)['zasync_worker_up', '/zam1'] == 1
    site.stack.zeo.stop()
    found = scraped(port, lambda found: found['zasync_worker_up', '/zam1'] == 0)
    assert ('zasync_jobs', '/zam1', 'new') not in found
    scraped(port, lambda found: found['zasync_zeo_disconnects_total'] == 1)
    site.stack.zeo.start()
    scraped(port, lambda found: found['zasync_worker_up', '/zam1'] == 1)


def test_a_port_alone_is_reached_from_its_host_only(site, port):
    worker = start(site, port)
    assert f'metrics are at http://127.0.0.1:{port}/metrics' in worker.output()
    with contextlib.closing(http.client.HTTPConnection('127.0.0.2', port, timeout=5)) as other:
        with pytest.raises(ConnectionRefusedError):
            other.request('GET', '/metrics')


def test_an_address_that_is_taken_is_told(site, port, operator):
    start(site, port, 'zam2')
    operator.configure(more=f'metrics-address {port}')
    code, _, errors = operator.does('run')
    assert code == 2
    assert errors == (f'zasync_client: metrics-address: 127.0.0.1:{port} can not be served: '
                      'Address already in use\n')
    code, _, errors = operator.does('check')
    assert code == 2
    assert errors == (f'error: metrics-address: 127.0.0.1:{port} can not be served: '
                      'Address already in use\n')


def test_the_address_that_a_worker_has_itself_is_no_mistake(port, operator):
    operator.configure(more=f'metrics-address {port}')
    operator.gets('start')
    assert operator.gets('check').endswith(': no errors\n')


def test_a_later_life_goes_on_without_an_address_that_is_taken(port, caplog):
    """One that has begun anew because of a call must not fail because of others."""
    address = ('127.0.0.1', port)
    with metrics.served(address, metrics.Collector(('', 'zam1'), lambda: None)):
        with metrics.served(address, None, is_first=False):
            assert 'can not be served: Address already in use; this life goes on' in caplog.text
        assert scrape(port)['zasync_worker_up', '/zam1'] == 0


def test_a_process_that_a_call_has_left_does_not_keep_the_address(site, port, operator):
    """It lives on when its worker was killed, or begins anew."""
    operator.configure(more=f'metrics-address {port}')
    operator.gets('start')
    left = site.put('zope_call', jobs.leave_forked)
    site.ended(left)
    try:
        operator.clean()
        operator.gets('start')
        assert scrape(port)['zasync_worker_up', '/zam1'] == 1
    finally:
        os.kill(left.result, signal.SIGKILL)


def test_the_command_prints_what_the_database_tells(site, operator):
    site.put('zope_call', jobs.add, 1, 2)
    found = numbers(operator.gets('metrics'))
    assert found['zasync_worker_up', '/zam1'] == 0
    assert found['zasync_jobs', '/zam1', 'new'] == 1
    assert found['zasync_oldest_waiting_seconds', '/zam1'] > 0
    assert 'zasync_conflicts_total' not in found
    operator.gets('start')
    site.wait(lambda: site.app.zam1.lenNewCalls() == 0)
    assert numbers(operator.gets('metrics'))['zasync_worker_up', '/zam1'] == 1


def test_without_the_package_it_is_said_what_to_install(tmp_path, operator, monkeypatch):
    """What Python reads at its start has it not found."""
    (tmp_path / 'sitecustomize.py').write_text(
        'import importlib.util\n'
        'found = importlib.util.find_spec\n'
        'importlib.util.find_spec = lambda name, *more: (\n'
        "    None if name == 'prometheus_client' else found(name, *more))\n", 'ascii')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    needs = "needs the package prometheus_client: pip install 'zasync[metrics]'"
    assert operator.refused('metrics') == (1, f'metrics {needs}')
    operator.configure(more='metrics-address 9180')
    code, sentence = operator.refused('status')
    assert code == 2 and needs in sentence
