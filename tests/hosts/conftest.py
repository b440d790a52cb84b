"""A ZEO server, Zope and workers on hosts of their own, for the tests of several hosts."""

import pytest
import requests
import transaction
from persistent.mapping import PersistentMapping

from bench.clients import open_database
from bench.hosts import Hosts
from bench.hosts import why_not
from bench.jobs import Effects
from bench.stack import ADMIN
from bench.stack import Stack
from tests.client.conftest import Site
from tests.hosts.jobs import Caller
from tests.hosts.jobs import work_when_told


#: Effects there are; each test takes some of its own.
EFFECTS = 200

#: How wrong the clocks of the workers' hosts are, in seconds.
SHIFTS = {'workers1': 120, 'workers2': -120}

#: Added to what passes the link of the host `far`, each way. Seconds.
DELAY = 0.05


class Estate(Site):
    """Five hosts: `zeo`, `zope`, `workers1` and `workers2`, and `far` behind a slow link.

    The managers zam1 and zam2 of the dispatcher have their workers on the former two, zam3,
    which is in no dispatcher, on the latter. The dispatcher refuses calls if no worker lives.
    """

    def __init__(self, hosts, stack):
        self.hosts, self.stack = hosts, stack
        self.host = {name: hosts.add(name) for name in ('zeo', 'zope', *SHIFTS)}
        self.host['far'] = hosts.add('far', delay_seconds=DELAY)
        self.address = stack.start_zeo(host=self.host['zeo'])
        stack.start_zope(host=self.host['zope'])
        self.db, self.connection, self.root = open_database(self.address)
        self._taken = 0
        self._fill()
        self.workers = {
            name: stack.start_worker(name, f'/asynchronous_call_dispatcher/zam{number}',
                                     host=self.host[name], clock_shift=shift)
            for number, (name, shift) in enumerate(SHIFTS.items(), 1)}
        self.workers['far'] = stack.start_worker('far', '/zam3', host=self.host['far'])

    def _fill(self):
        from Products.zasync.manager import AsynchronousCallManager
        from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
        self.app = self.root['Application']
        self.app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
        self.dispatcher = self.app.asynchronous_call_dispatcher
        self.dispatcher.no_worker = 'refuse'
        for id in ('zam1', 'zam2'):
            self.dispatcher._setObject(id, AsynchronousCallManager(id))
        self.app._setObject('zam3', AsynchronousCallManager('zam3'))
        self.app._setObject('caller', Caller())
        self.root['effects'] = Effects(EFFECTS)
        self.root['marks'] = PersistentMapping()
        transaction.commit()

    def take(self, number):
        """Numbers of effects that nobody else uses."""
        self._taken += number
        return range(self._taken - number, self._taken)

    def put(self, plugin, *args, manager, **kwargs):
        """Put a call to that manager and commit; → its deferred."""
        transaction.begin()
        place = self.app if manager == 'zam3' else self.dispatcher
        deferred = place[manager].putCall(plugin, *args, **kwargs)
        transaction.commit()
        return deferred

    def run_on(self, host, directory, manager):
        """Put calls that wait in that directory until one runs on that host; → (it, its effect).

        The worker of the other host helps for a moment longer where it was needed, and may be
        quicker: what it took is let go.
        """
        for _ in range(20):
            [effect] = self.take(1)
            deferred = self.put('zope_call', work_when_told, effect, str(directory),
                                manager=manager)
            runs = self.wait(lambda: list(directory.glob('*.running')), what='a run of the call')
            if runs == [directory / f'{host}.running']:
                return deferred, effect
            gate = runs[0].with_suffix('')
            gate.touch()
            self.ended(deferred)
            gate.unlink()
            runs[0].unlink()
        raise AssertionError(f'20 calls for {manager} ran elsewhere than on {host}')

    def put_in_zope(self, effects, seconds=0.0):
        """Have Zope put a call for each of these effects; → [deferred].

        A request that fails has put nothing, and is sent again.
        """
        def answered():
            answer = requests.post(
                self.stack.zope_url + '/caller/put', auth=ADMIN, timeout=60,
                data={'first': effects[0], 'number': len(effects), 'seconds': seconds})
            return answer.status_code == 200 and answer.text
        text = self.wait(answered, what='an answer of Zope')
        return self.wait(lambda: self._found(text), what='the calls that Zope put')

    def _found(self, text):
        found = [self.dispatcher[manager].queue.find(id)
                 for manager, id in map(str.split, text.splitlines())]
        return None not in found and found

    def put_elsewhere(self):
        """Commit something in the thread that asks."""
        with self.db.transaction() as connection:
            connection.root()['marks']['elsewhere'] = True
        return True

    def counts(self, effects):
        """How often each of these effects was applied."""
        transaction.begin()
        return [self.root['effects'].counters[number].n for number in effects]


@pytest.fixture(scope='session')
def hosts():
    """Hosts, or a skip with the reason."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Hosts() as hosts:
        yield hosts


@pytest.fixture(scope='module')
def estate():
    """An Estate; all its processes end with the module."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Hosts() as hosts, Stack(hosts=hosts) as stack:
        estate = Estate(hosts, stack)
        try:
            yield estate
        finally:
            estate.close()
