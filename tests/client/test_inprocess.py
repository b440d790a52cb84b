"""The worker as a thread of a Zope process, on a plain file as on a ZEO server."""

import dataclasses
import os
import signal
import threading

import pytest
import requests
import transaction
import ZODB
from OFS.Application import Application
from OFS.Folder import Folder
from ZODB.DemoStorage import DemoStorage
from zope.processlifetime import ProcessStarting
from Zope2.Startup.options import ZopeWSGIOptions

from bench.processes import wait_until
from bench.stack import ADMIN
from bench.stack import Stack
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from tests.client import jobs
from tests.client.test_wakeup import elsewhere
from zasync_client import config
from zasync_client import datatypes
from zasync_client import inprocess
from zasync_client import replacing
from zasync_client import signals
from zasync_client.inprocess import InProcess
from zasync_client.inprocess import Section
from zasync_client.inprocess import Workers
from zasync_client.zope import WorkerStarting


#: Longest time a test waits for anything, in seconds.
LIMIT = 30.0

#: Short enough that no poll and no heartbeat (10 s) can have been what woke the worker, for
#: each of several calls in a row.
AT_ONCE = 2.0

GATE = '''
  <plugin gate>
    handler tests.client.jobs.wait_for_file
  </plugin>
'''

SECTION = '''
%import zasync_client
<zasync-worker zam>
  target /zam
  drain-seconds {drain}
''' + GATE + '''
</zasync-worker>
'''

PAGES = {
    'put': "here.zam.putCall(request['plugin'], *request.get('args', [])).id",
    'state': "here.zam.getDeferred(request['id']).state",
    'result': "here.zam.getDeferred(request['id']).result",
    'attempt': "len(here.zam.getDeferred(request['id']).attempts)",
}


# what zope.conf says

def read_section(tmp_path, lines, more=''):
    """The Sections of a zope.conf, by name."""
    path = tmp_path / 'zope.conf'
    path.write_text(f'instancehome {tmp_path}\n%import zasync_client\n{more}\n'
                    '<zodb_db main>\n  mount-point /\n  <mappingstorage>\n  </mappingstorage>\n'
                    f'</zodb_db>\n<zasync-worker zam>\n{lines}\n</zasync-worker>\n', 'utf-8')
    return ZopeWSGIOptions(configfile=str(path))().configroot.product_config


def test_a_section_that_says_nothing_has_the_defaults_of_a_zasync_conf(tmp_path):
    found = read_section(tmp_path, '')['zam']
    alone = tmp_path / 'zasync.conf'
    alone.write_text(f'instancehome {tmp_path}\n<zodb_db main>\n  mount-point /\n'
                     '  <mappingstorage>\n  </mappingstorage>\n</zodb_db>\n', 'utf-8')
    expected = config.load(str(alone))
    # It shares its process with the requests, and nobody would start it again.
    assert found == Section('zam', dataclasses.replace(
        expected, path='<zasync-worker zam>', threads=2, max_total_retry_seconds=0.0, zope=None,
        handlers=None, pid_path=''))


def test_every_directive_of_a_section_reaches_its_worker(tmp_path):
    section = read_section(tmp_path, '''
target /zad/zam1
threads 3
max-conflict-resolution-attempts 7
initial-retry-delay 0.5
retry-exponential-backoff 2
drain-seconds 3.5
max-interruptions 2
max-hung-threads 3
max-result-size 1MB
<plugin join>
  handler os.path.join
</plugin>
''')['zam']
    found = section.config
    assert (found.target, found.threads, found.max_conflict_attempts) == (
        ('', 'zad', 'zam1'), 3, 7)
    assert (found.initial_retry_seconds, found.retry_growth, found.drain_seconds) == (
        0.5, 2.0, 3.5)
    assert (found.max_interruptions, found.max_hung_threads) == (2, 3)
    assert found.max_result_bytes == 1024 * 1024
    assert 'zope_exec' in found.plugins
    plugins = section.complete().plugins
    assert plugins['join'].handler is os.path.join
    assert 'zope_exec' in plugins


def test_a_plugin_may_have_its_name_in_the_section_as_in_a_zasync_conf(tmp_path):
    lines = '<plugin>\n  name Join\n  handler os.path.join\n</plugin>'
    plugins = read_section(tmp_path, lines)['zam'].complete().plugins
    assert plugins['Join'].handler is os.path.join


def test_a_wrong_value_in_a_section_is_refused_with_its_line(tmp_path):
    with pytest.raises(Exception, match='must be a whole number') as caught:
        read_section(tmp_path, 'threads none')
    assert caught.value.lineno == 10


def test_a_zasync_conf_may_include_a_zope_conf_with_a_section(tmp_path):
    read_section(tmp_path, 'target /other', more='<product-config shop>\n  a b\n</product-config>')
    alone = tmp_path / 'zasync.conf'
    alone.write_text('%include zope.conf\ntarget /mine\n'
                     '<plugin join>\n  handler os.path.join\n</plugin>\n', 'utf-8')
    loaded = config.load(str(alone))
    assert loaded.target == ('', 'mine')
    assert 'join' in loaded.plugins


WRONG = '<plugin wrong>\n  handler no.such.thing\n</plugin>\n<plugin other>\n</plugin>\n'


def test_a_wrong_handler_in_a_section_is_in_the_way_of_its_worker_only(tmp_path, place, caplog):
    read = read_section(tmp_path, WRONG)['zam']  # as Zope reads it when it starts
    place.add()
    worker = InProcess(dataclasses.replace(place.section(), plugins=read.plugins), place.db)
    assert worker.join(LIMIT)
    [told] = [record for record in caplog.records if record.levelname == 'ERROR']
    assert told.getMessage() == (
        "<zasync-worker first> is not started: plugin wrong: the handler 'no.such.thing' can not "
        "be imported: ModuleNotFoundError: No module named 'no'; the plugin other needs a "
        'handler: handler package.function. Mend that and start Zope again')
    alone = tmp_path / 'zasync.conf'
    alone.write_text('%include zope.conf\n', 'utf-8')
    assert 'wrong' not in config.load(str(alone)).plugins
    assert config.survey(str(alone))[1].problems == []


def test_the_process_of_a_worker_starts_no_worker_of_a_zope_conf(tmp_path, monkeypatch):
    found = read_section(tmp_path, '')

    class Configuration:
        product_config = found

    monkeypatch.setattr(inprocess, 'getConfiguration', lambda: Configuration)
    assert inprocess.start_workers(WorkerStarting()) is None


def test_a_zope_without_a_section_starts_nothing(monkeypatch):
    class Configuration:
        product_config = {'shop': {'a': 'b'}}

    monkeypatch.setattr(inprocess, 'getConfiguration', lambda: Configuration)
    before = threading.active_count()
    assert inprocess.start_workers(ProcessStarting()) is None
    assert threading.active_count() == before


@pytest.fixture
def term():
    """What TERM did before the test is what it does after."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_term_that_would_cut_the_process_off_ends_it_in_order(term):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    elsewhere(signals.end_in_order)  # a web server may start Zope in another thread
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signals.end_in_order()
    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGTERM)


def test_a_web_server_keeps_its_own_handler_of_term(term):
    def own(number, frame):
        """Not called."""

    signal.signal(signal.SIGTERM, own)
    signals.end_in_order()
    assert signal.getsignal(signal.SIGTERM) is own


# the thread

class Place:
    """A database, and workers in threads of this process."""

    def __init__(self):
        self.db = ZODB.DB(DemoStorage())
        self.connection = self.db.open()
        self.app = self.connection.root()['Application'] = Application()
        self.connection.root()['marks'] = {}
        transaction.commit()
        self.workers = []

    def add(self, id='zam', made=None):
        self.app._setObject(id, made or AsynchronousCallManager(id, poll_interval=3600))
        transaction.commit()
        return self.app[id]

    def section(self, name='first', target='/zam', drain=5.0):
        return Section(name, config.Config(
            path='', target=datatypes.target(target), threads=2, max_conflict_attempts=5,
            initial_retry_seconds=0.1, retry_growth=1.0, max_total_retry_seconds=0.0,
            drain_seconds=drain, plugins=config.offered(()), zope=None, handlers=None))

    def start(self, **options):
        worker = InProcess(self.section(**options), self.db)
        self.workers.append(worker)
        return worker

    def put(self, function, *args):
        deferred = self.app.zam.putCall('zope_call', function, *args)
        transaction.commit()
        return deferred

    def wait(self, condition, limit=LIMIT):
        def is_so():
            transaction.begin()
            return condition()

        assert wait_until(is_so, limit, look_seconds=0.005)

    def close(self):
        for worker in self.workers:
            worker.stop()
            assert worker.join(LIMIT)
        # What ran beyond the drain limit ends before the database does.
        assert wait_until(lambda: not our_threads(), LIMIT)
        transaction.abort()
        self.connection.close()
        self.db.close()


def our_threads():
    return sorted(thread.name for thread in threading.enumerate()
                  if thread.name.startswith('zasync'))


@pytest.fixture
def place():
    place = Place()
    yield place
    place.close()


def serves(place, id='zam'):
    return place.app[id].queue.desk.boot is not None


def test_a_put_of_this_process_starts_at_once(place):
    place.add()
    place.start()
    place.wait(lambda: serves(place))
    for number in range(10):
        deferred = place.put(jobs.add, number, 1)
        place.wait(lambda deferred=deferred: deferred.ended, AT_ONCE)
        assert deferred.result == number + 1


def test_it_waits_for_its_target_and_hears_when_that_is_added(place, caplog):
    place.start()
    assert wait_until(lambda: 'there is nothing at /zam yet' in caplog.text, LIMIT)
    place.add()
    place.wait(lambda: serves(place), AT_ONCE)


def test_a_target_that_is_no_manager_is_told_and_tried_again(place, caplog, monkeypatch):
    monkeypatch.setattr(inprocess, 'PAUSE_SECONDS', 0.05)
    place.add(made=Folder('zam'))
    place.start()
    assert wait_until(lambda: 'is no asynchronous call manager' in caplog.text, LIMIT)
    place.app._delObject('zam')
    place.add()
    place.wait(lambda: serves(place))


def test_a_stop_lets_a_call_end_and_leaves_the_desk(place, tmp_path):
    place.add()
    worker = place.start()
    gate = str(tmp_path / 'gate')
    deferred = place.put(jobs.wait_for_file, gate)
    assert wait_until(lambda: os.path.exists(gate + '.running'), LIMIT)
    worker.stop()
    open(gate, 'w', encoding='ascii').close()
    assert worker.join(LIMIT)
    transaction.begin()
    assert deferred.state == 'resolved'
    assert place.app.zam.queue.desk.boot is None
    assert place.app.zam.queue.pulse.accepting == 0


def test_a_stop_ends_after_the_drain_limit_whatever_runs(place, tmp_path):
    place.add()
    worker = place.start(drain=0.2)
    gate = str(tmp_path / 'gate')
    deferred = place.put(jobs.wait_for_file, gate)
    assert wait_until(lambda: os.path.exists(gate + '.running'), LIMIT)
    worker.stop()
    assert worker.join(AT_ONCE + 0.2)
    transaction.begin()
    assert (deferred.state, deferred.attempts[-1].outcome) == ('new', 'its worker was stopped')
    place.start()  # the next life runs it again, whatever the first run does
    place.wait(lambda: deferred.attempt == 2)
    open(gate, 'w', encoding='ascii').close()
    place.wait(lambda: deferred.ended)
    assert (deferred.state, deferred.attempt) == ('resolved', 2)


def test_an_error_nobody_expected_ends_a_life_of_the_worker_and_nothing_else(
        place, caplog, monkeypatch):
    monkeypatch.setattr(inprocess, 'PAUSE_SECONDS', 0.05)
    place.add()
    real, left = inprocess.Worker.step, [1]

    def step(self, *args, **kwargs):
        if left:
            left.pop()
            raise RuntimeError('a bug')
        return real(self, *args, **kwargs)

    monkeypatch.setattr(inprocess.Worker, 'step', step)
    place.start()
    deferred = place.put(jobs.add, 1, 2)
    place.wait(lambda: deferred.ended)
    assert 'RuntimeError: a bug' in caplog.text
    # The threads of the first life have gone.
    assert wait_until(
        lambda: our_threads() == ['zasync-1', 'zasync-2', 'zasync-worker-first'], LIMIT)


def test_a_worker_with_hung_threads_begins_anew_in_the_same_process(
        place, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(replacing, 'HUNG_SECONDS', 0.1)
    monkeypatch.setattr(replacing, 'SHORTEST_LIFE_SECONDS', 0.1)
    manager = place.add()
    place.start(drain=60.0)
    place.wait(lambda: serves(place))
    first, pool_size = manager.queue.desk.boot, place.db.getPoolSize()
    gate = str(tmp_path / 'gate')
    hung = manager.putCallWith(Options(timeout=0.1), 'zope_call', jobs.wait_for_file, gate)
    transaction.commit()
    place.wait(lambda: hung.state == 'failed')
    assert wait_until(lambda: place.put(jobs.add, 1, 1) and 'begins anew in this process'
                      in caplog.text, LIMIT, look_seconds=0.1)
    place.wait(lambda: serves(place) and manager.queue.desk.boot != first)
    assert '1 threads of the one before go on until their code ends' in caplog.text
    # It may still have its connection; nobody is warned of one more.
    assert place.db.getPoolSize() == pool_size + 1
    assert our_threads() == ['zasync-1', 'zasync-1', 'zasync-2', 'zasync-worker-first']
    calls = [place.put(jobs.add, number, 1) for number in range(3)]
    place.wait(lambda: all(call.ended for call in calls))
    open(gate, 'w', encoding='ascii').close()
    assert wait_until(
        lambda: our_threads() == ['zasync-1', 'zasync-2', 'zasync-worker-first'], LIMIT)


def test_of_two_sections_with_one_target_the_second_is_not_started(place, caplog):
    place.add()
    workers = Workers([place.section('first'), place.section('second')], place.db)
    assert '<zasync-worker second> is not started' in caplog.text
    place.wait(lambda: serves(place))
    workers.close()
    workers.close()  # Zope's end, and then the interpreter's
    place.wait(lambda: not serves(place), 0)


# real processes

class Site:
    """Zope under waitress with a worker of its own, and somebody who puts calls over HTTP."""

    def __init__(self, stack, drain=5):
        self.stack = stack
        stack.zope_settings = SECTION.format(drain=drain)

    def start(self):
        self.url = self.stack.start_zope()
        self.post('/manage_addProduct/zasync/constructAsynchronousCallManager',
                  id='zam', poll_interval='3600')
        for name, expression in PAGES.items():
            self.post('/manage_addProduct/PageTemplates/manage_addPageTemplate', id=name)
            self.post(f'/{name}/pt_editAction', title='', content_type='text/plain',
                      text=f'<tal:block content="python: {expression}" />')

    def post(self, path, **data):
        answer = requests.post(self.url + path, data=data, auth=ADMIN, timeout=LIMIT,
                               allow_redirects=False)
        assert answer.status_code in (200, 302), answer.text
        return answer.text.strip()

    def put(self, plugin, *args):
        return self.post('/put', **{'plugin': plugin, 'args:list': args})

    def ask(self, page, id):
        return self.post('/' + page, id=id)

    def wait(self, id, state='resolved', limit=LIMIT):
        assert wait_until(lambda: self.ask('state', id) == state, limit), self.log()

    def log(self):
        return self.stack.zope.output()


@pytest.fixture
def stack():
    with Stack() as stack:
        yield stack


def is_running(gate):
    return wait_until(lambda: os.path.exists(gate + '.running'), LIMIT)


def test_a_zope_on_a_plain_file_runs_the_calls_put_to_it_through_kill_and_stop(stack, tmp_path):
    site = Site(stack, drain=1)
    site.start()
    # at once, and never by a poll
    assert wait_until(lambda: 'serves /zam with 2 threads' in site.log(), AT_ONCE)
    for number in range(5):
        gate = tmp_path / f'gate{number}'
        gate.touch()
        site.wait(site.put('gate', str(gate)), limit=AT_ONCE)
    # killed: the call that ran runs again
    gate = str(tmp_path / 'killed')
    id = site.put('gate', gate)
    assert is_running(gate)
    stack.kill(stack.zope)
    os.remove(gate + '.running')
    stack.zope.start()
    assert is_running(gate)
    open(gate, 'w', encoding='ascii').close()
    site.wait(id)
    assert site.ask('result', id) == str(stack.zope.pid)
    assert site.ask('attempt', id) == '2'
    # told to stop while one runs: it ends within the limit
    gate = str(tmp_path / 'stopped')
    id = site.put('gate', gate)
    assert is_running(gate)
    assert stack.zope.stop(seconds=10.0) is None
    assert '1 calls had not ended after 1 s' in site.log()
    assert 'stopped' in site.log()
    os.remove(gate + '.running')
    stack.zope.start()
    # The desk was left: nobody has to watch whether that worker lives.
    assert 'watching' not in site.log()
    open(gate, 'w', encoding='ascii').close()
    site.wait(id)


@pytest.mark.slow
def test_a_second_process_with_the_target_waits_for_its_turn(stack, tmp_path):
    """A worker's own process has the target: Zope serves requests, and takes over at its end."""
    stack.start_zeo()
    site = Site(stack)
    site.start()
    assert wait_until(lambda: 'serves /zam' in site.log(), LIMIT)
    assert stack.zope.stop() is None
    # Its file includes the zope.conf, with the section; that is left to Zope.
    worker = stack.start_worker('alone', '/zam', settings=GATE)
    stack.zope.start()
    assert wait_until(lambda: 'takes over when that one is gone' in site.log(), LIMIT)
    gate = tmp_path / 'gate'
    gate.touch()
    id = site.put('gate', str(gate))
    site.wait(id)
    assert site.ask('result', id) == str(worker.pid)
    assert 'zasync-worker' not in worker.output()
    assert worker.stop() is None
    assert wait_until(lambda: 'serves /zam' in site.log(), LIMIT)
    id = site.put('gate', str(gate))
    site.wait(id, limit=AT_ONCE)
    assert site.ask('result', id) == str(stack.zope.pid)


def test_a_target_that_is_no_manager_does_not_keep_zope_from_serving(stack):
    site = Site(stack)
    stack.zope_settings = stack.zope_settings.replace('target /zam', 'target /acl_users')
    site.start()
    assert 'is no asynchronous call manager' in site.log()
    assert stack.zope.stop() is None
