"""TERM to the server, Zope and two workers while calls run, wait and are being put."""

import itertools
import os
import signal
import threading

import pytest
import requests
import transaction
from Products.PageTemplates.ZopePageTemplate import ZopePageTemplate

from bench.jobs import Effects
from bench.processes import wait_until
from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.client.conftest import site  # noqa: F401 (the fixture)


CALLS = 2_000
SETTINGS = '''
drain-seconds 1
initial-retry-delay 0.2
<plugin count>
  handler tests.client.jobs.count_effect
  zope-aware on
</plugin>
'''
#: tests/client/test_stopping.py has them all, without processes.
ORDERS = [('zeo', 'zope', 'zam1', 'zam2'), ('zam1', 'zope', 'zeo', 'zam2')]
PAGE = '''<tal:block content="python: here.zad.putCall('count', int(request['number']),
 request.get('gate'))[1].id" />'''


class Requests:
    """People who put calls through Zope, one after the other, until it is gone."""

    def __init__(self, url, numbers):
        self._url = url
        self._numbers = numbers
        self.put = []
        self._threads = []

    def one(self, **data):
        """Put one call."""
        answer = requests.post(f'{self._url}/put', timeout=60, auth=('boss', 'secret'),
                               data={'number': next(self._numbers), **data})
        if answer.status_code == 200:
            self.put.append(answer.text.strip())
        return answer.status_code

    def begin(self):
        """Three people begin."""
        self._threads = [threading.Thread(target=self._go_on) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _go_on(self):
        while True:
            try:
                self.one()
            except (requests.ConnectionError, requests.Timeout,
                    requests.exceptions.ChunkedEncodingError):  # in the middle of an answer
                return

    def end(self):
        """Wait until all have noticed."""
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_all_processes_are_told_to_stop_under_load_and_no_call_is_lost_or_interrupted_twice(
        site, tmp_path):  # noqa: F811
    prepare(site)
    stack, numbers = site.stack, itertools.count()
    stack.start_zope()
    processes = {'zeo': stack.zeo, 'zope': stack.zope}
    for id in ('zam1', 'zam2'):
        processes[id] = stack.start_worker(id, f'/zad/{id}', settings=SETTINGS)
    for order in ORDERS:
        people, gate = Requests(stack.zope_url, numbers), str(tmp_path / '-'.join(order))
        for _ in range(3):
            assert people.one(gate=gate) == 200
        running = [f'{gate}{number}.running' for number in range(next(numbers))]
        assert wait_until(lambda names=running: sum(map(os.path.exists, names)) == 3, 30)
        people.begin()
        assert wait_until(lambda people=people: len(people.put) >= 15, 30)
        for name in order:
            os.kill(processes[name].pid, signal.SIGTERM)
        assert [processes[name].wait(60) for name in ('zam1', 'zam2')] == [0, 0]
        processes['zope'].wait(60)
        # Its handler leaves ZEO's loop wherever that is, in a commit it may be: then what closes
        # the storage can wait for ever, and whoever supervises a server kills it.
        processes['zeo'].stop()
        people.end()
        for process in processes.values():
            process.start()
        # Ids that our own client holds ready may have been given out again.
        del site.db.storage._oids[:]
        site.change(lambda: site.root['marks'].update(reached=True))
        check(site, people)
    assert next(numbers) < CALLS


def check(site, people):  # noqa: F811
    """All calls end, each once; those that Zope has confirmed are there."""
    managers = [site.app.zad.zam1, site.app.zad.zam2]
    site.wait(lambda: not any(manager.open_calls() for manager in managers), limit=60,
              what='the end of all calls')
    for id in people.put:
        [call] = filter(None, (manager.queue.find(id) for manager in managers))
        assert call.state == 'resolved', call.failure
        assert len(call.attempts) <= 2, call.attempts
    counts = [counter.n for counter in site.root['effects'].counters]
    assert max(counts) == 1 and sum(counts) >= len(people.put)


def prepare(site):  # noqa: F811
    """A client that does not wait for its server for half a minute, a dispatcher, a page."""
    config = site.stack.make_instance() / 'etc' / 'zope.conf'
    text = config.read_text('utf-8').replace('zeoclient>', 'clientstorage>')
    config.write_text('%import ZEO\n' + text.replace('wait on', 'wait-timeout 2'), 'utf-8')
    site.root['effects'] = Effects(CALLS)
    site.app._setObject('zad', ZAsyncDispatcher('zad'))
    site.app.zad.manage_changeProperties(no_worker='queue')
    for id in ('zam1', 'zam2'):
        site.app.zad._setObject(id, AsynchronousCallManager(id))
    site.app._setObject('put', ZopePageTemplate('put', PAGE, 'text/html'))
    transaction.commit()
