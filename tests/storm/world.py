"""The world of a storm: its processes, and what is done to them.

Imports: plan, people, site, cables, disk, bench.
"""

import contextlib
import heapq
import itertools
import os
import re
import shutil
import signal
import sys
import threading
import time
from typing import NamedTuple

import transaction
import ZEO

from bench.clients import open_database
from bench.hosts import compile_clock_shift
from bench.hosts import wrong_clock
from bench.processes import free_port
from bench.stack import answers
from bench.stack import our_environment
from bench.stack import Stack
from tests.storm import plan
from tests.storm import site
from tests.storm.cables import Cables
from tests.storm.disk import Disk
from tests.storm.journal import PLACE
from tests.storm.people import Crowd


HOST = '127.0.0.1'

#: Of the disk under Data.fs.
MEGABYTES = 600

#: What the clocks of the workers are wrong by, in seconds: no two clocks may be compared.
CLOCK_SHIFTS = {'zam1': 45, 'zam2': 0, 'zam3': -45}

#: Between two requests of a person, on the average. Seconds.
MEAN_PAUSE = 0.3

#: Without faults, how long no call may end though some are open: a sibling takes a worker for
#: dead after max_idle_time, a call that kills its workers ends five of them, and a clock is slow.
CALM_SECONDS = 150.0

#: How long nothing is done at the end, to see what idle workers write; after some time in which
#: they file what has ended, at the latest when they compare desk and threads. Seconds.
IDLE_SECONDS = 21.0
FILING_SECONDS = 65.0

#: What was told to end and has not is killed after so many seconds.
PATIENCE_SECONDS = 10.0

#: Longest start of a process, if the machine has a lot to do. Seconds.
START_SECONDS = 120.0

#: A process that has ended by itself is started again after so many seconds.
SUPERVISOR_SECONDS = 0.7

_CLIENT = '''\
  <zeoclient>
    server 127.0.0.1:{port}
    storage 1
    cache-size 50MB
    wait on
  </zeoclient>
'''

_WORKER = '''\
%include {zope}
target /asynchronous_call_dispatcher/{name}
threads 3
drain-seconds 5
initial-retry-delay 1
'''


class Deed(NamedTuple):
    """Something that is done to somebody; until -- None as long as it lasts. POSIX seconds."""

    kind: str
    who: str
    since: float
    until: float | None


class World:
    """One storm. directory -- an empty one for all its files, which stay.

    seconds -- how long people put calls and faults happen. faults -- plan.Faults. patches --
    names of violations, see there. kinds -- of calls, as plan.CALLS; None for those.
    calm_seconds, filing_seconds, idle_seconds -- see above.

    When it is over: deeds -- Deeds. left -- calls that did not end, a text, or None. idle --
    the POSIX seconds between which nothing was done. counts -- {what: how often}.
    """

    def __init__(self, directory, seed, seconds, faults, patches=(), kinds=None,
                 mean_pause=MEAN_PAUSE, calm_seconds=CALM_SECONDS,
                 filing_seconds=FILING_SECONDS, idle_seconds=IDLE_SECONDS):
        self.directory = directory
        self.journal = directory / 'journal'
        self.history = directory / 'history'
        self.deeds = []
        self.left = self.idle = None
        self.counts = {}
        self._seconds, self._faults, self._patches = seconds, faults, patches
        self._calm_seconds = calm_seconds
        self._filing_seconds, self._idle_seconds = filing_seconds, idle_seconds
        self._exits = contextlib.ExitStack()
        self._order = itertools.count()
        self._agenda = []
        self._processes, self._cable, self._ports, self._under_way = {}, {}, {}, {}
        self._down, self._packing = set(), None
        self._crowd = Crowd(seed, self._url_of, mean_pause, kinds)

    def __enter__(self):
        for directory in (self.journal, self.history, self.directory / 'site'):
            directory.mkdir(parents=True)
        with self._exits:
            self._stack = self._exits.enter_context(Stack(self.directory / 'site'))
            self._disk = self._exits.enter_context(
                Disk(self._stack.base_dir / 'disk', MEGABYTES))
            self._cables = self._exits.enter_context(Cables())
            self._start_all()
            self._exits = self._exits.pop_all()
        return self

    def __exit__(self, *exc_info):
        self._exits.close()

    # the processes

    def _start_all(self):
        self.address = self._stack.start_zeo(data=self._disk.path, host=self._disk)
        self._processes[plan.SERVER] = server = self._stack.zeo
        server.is_ready = lambda process: True  # from now on nobody waits for it
        with self._database() as root:
            site.build(root)
        library = compile_clock_shift(self.directory)
        self._zope_conf = (self._stack.make_instance() / 'etc' / 'zope.conf').read_text('utf-8')
        for name in plan.WEBS:  # one after the other: the first start of Zope writes
            self._launch(name, 'Zope2.Startup.serve', self._web_config(name), {})
            self._wait(lambda port=self._ports[name]: answers(HOST, port), START_SECONDS,
                       f'{name} to answer')
        for name in plan.WORKERS:
            self._launch(name, 'zasync_client', '-C', self._worker_config(name),
                         wrong_clock(library, CLOCK_SHIFTS[name]))
        for name in plan.WORKERS:
            self._wait(lambda name=name: ' serves ' in self._processes[name].output(),
                       START_SECONDS,
                       f'{name} to serve')

    def _launch(self, name, module, *rest):
        *arguments, clock = rest
        patched = ['tests.storm.patched', ','.join(self._patches)] if self._patches else []
        environment = {**our_environment(), **clock, PLACE: str(self.journal)}
        self._processes[name] = self._stack.start(
            name, [sys.executable, '-m', *patched, module, *arguments], env=environment,
            is_ready=lambda process: True)

    def _client_config(self, name):
        cable = self._cable[name] = self._cables.add(self.address)
        section = _CLIENT.format(port=cable.port)
        return re.sub(r' *<zeoclient>.*</zeoclient>\n', section, self._zope_conf, flags=re.DOTALL)

    def _web_config(self, name):
        etc = self._stack.instance / 'etc'
        (etc / f'{name}.conf').write_text(self._client_config(name), 'utf-8')
        self._ports[name] = free_port()
        ini = self._stack.zope_ini(HOST, self._ports[name], 4)
        (etc / f'{name}.ini').write_text(ini.replace('/zope.conf', f'/{name}.conf'), 'utf-8')
        return etc / f'{name}.ini'

    def _worker_config(self, name):
        etc = self._stack.instance / 'etc'
        (etc / f'{name}-zope.conf').write_text(self._client_config(name), 'utf-8')
        (etc / f'{name}.conf').write_text(_WORKER.format(zope=f'{name}-zope.conf', name=name),
                                          'utf-8')
        return etc / f'{name}.conf'

    def _url_of(self, web):
        return f'http://{HOST}:{self._ports[web]}'

    @contextlib.contextmanager
    def _database(self):
        """The root mapping, through a connection of our own; the body is committed."""
        db, connection, root = open_database(self.address)
        try:
            yield root
            transaction.commit()
        finally:
            transaction.abort()
            connection.close()
            db.close()

    def _wait(self, condition, seconds, what):
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(f'the storm waits for {what}, and not any longer')
            time.sleep(0.1)

    # the storm

    def run(self):
        """Have people put calls, and the faults happen; then let it calm down, and stop all."""
        begin = time.monotonic()
        for fault in self._faults:
            self._later(begin + fault.at, self._do, fault)
        poisons = int(self._seconds // plan.POISON_SECONDS) + 1 if self._faults else 0
        for number in range(poisons):
            self._later(begin + 4 + number * plan.POISON_SECONDS, self._poison, number)
        self._crowd.start()
        self._go_on_until(lambda: time.monotonic() >= begin + self._seconds)
        self._calm_down()
        self._crowd.stop()
        self._wait_for_the_end_of_all_calls()
        self._be_idle()
        self._stop_all()

    def _later(self, at, action, *args):
        heapq.heappush(self._agenda, (at, next(self._order), action, args))

    def _go_on_until(self, condition):
        while not condition():
            while self._agenda and self._agenda[0][0] <= time.monotonic():
                _, _, action, args = heapq.heappop(self._agenda)
                action(*args)
            for name, process in self._processes.items():
                if not process.running and name not in self._down:
                    self._down.add(name)
                    self._count('restarts')
                    self.deeds.append(Deed('ended by itself', name, time.time(), time.time()))
                    self._later(time.monotonic() + SUPERVISOR_SECONDS, self._start, name)
            time.sleep(0.05)

    def _start(self, name):
        self._processes[name].start()
        self._down.discard(name)

    def _count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def _poison(self, number):
        self._count('poison')
        self._crowd.put(site.USERS[number % len(site.USERS)], plan.WEBS[number % 2], {
            'kind': 'poison', 'token': f'poison-{number}', 'number': 1, 'seconds': 0.0,
            'manager': plan.WORKERS[number % len(plan.WORKERS)]})

    def _do(self, fault):
        """Have a fault happen, if its victim is not busy with another."""
        what, _, _ = fault.kind.partition(' ')
        subject = 'disk' if fault.kind == 'full disk' else (
            f'cable of {fault.who}' if fault.kind in ('cut', 'stall', 'slow') else fault.who)
        if fault.kind == 'pack':
            self._count('pack')
            self._pack()
        elif subject not in self._under_way and subject not in self._down:
            self._count(fault.kind)
            begin, end = {
                'kill': (self._kill, self._start), 'end': (self._end, None),
                'stop': (self._halt, self._go_on), 'cut': (self._cut, self._heal),
                'stall': (self._stall, self._heal), 'slow': (self._slow, self._heal),
                'full': (self._fill, self._free)}[what]
            self._under_way[subject] = Deed(fault.kind, fault.who, time.time(), None), end
            begin(fault.who)
            self._later(time.monotonic() + fault.seconds, self._undo, subject)

    def _undo(self, subject):
        if subject in self._under_way:
            deed, end = self._under_way.pop(subject)
            if end is not None:
                end(deed.who)
            self.deeds.append(deed._replace(until=time.time()))

    def _kill(self, name):
        self._down.add(name)
        self._processes[name].kill()

    def _end(self, name):
        process = self._processes[name]
        if process.running:
            os.kill(process.pid, signal.SIGTERM)
            self._later(time.monotonic() + PATIENCE_SECONDS, self._see_that_it_ends, name,
                        process.pid)

    def _see_that_it_ends(self, name, pid):
        """As a supervisor does: a ZEO server that packs, say, does not end by itself."""
        process = self._processes[name]
        if process.running and process.pid == pid:
            self._down.add(name)
            process.kill()
            self._start(name)

    def _halt(self, name):
        if self._processes[name].running:
            os.kill(self._processes[name].pid, signal.SIGSTOP)

    def _go_on(self, name):
        if self._processes[name].running:
            os.kill(self._processes[name].pid, signal.SIGCONT)

    def _cut(self, name):
        self._cable[name].cut()

    def _stall(self, name):
        self._cable[name].stall()

    def _slow(self, name):
        self._cable[name].slow(0.05)

    def _heal(self, name):
        self._cable[name].heal()

    def _fill(self, name):
        self._disk.fill()

    def _free(self, name):
        self._disk.free()

    def _pack(self):
        if self._packing is None or not self._packing.is_alive():
            self._packing = threading.Thread(target=self._pack_once, daemon=True)
            self._packing.start()

    def _pack_once(self):
        """Pack, and keep what was before."""
        try:
            storage = ZEO.client(self.address, wait_timeout=10)
            try:
                storage.pack(time.time(), wait=True)
            finally:
                storage.close()
        except Exception as reason:  # the server is away, or its disk is full
            print(f'a pack failed: {reason!r}', flush=True)
        old = self._disk.here / 'Data.fs.old'
        if old.exists():
            number = len(list(self.history.iterdir()))
            shutil.copyfile(old, self.history / f'{number:03}.fs')

    # its end

    def _calm_down(self):
        """Undo what is under way, and do nothing more."""
        for subject in list(self._under_way):
            self._undo(subject)
        self._agenda = [each for each in self._agenda
                        if each[2] in (self._start, self._see_that_it_ends)]
        heapq.heapify(self._agenda)

    def _wait_for_the_end_of_all_calls(self):
        self._go_on_until(lambda: not self._agenda and not self._down)
        with self._database() as root:
            zad = root['Application'].asynchronous_call_dispatcher

            left, since = None, time.monotonic()

            def done():
                nonlocal left, since
                transaction.begin()
                now = sum(zad[name].open_calls() for name in plan.WORKERS)
                if now != left:
                    left, since = now, time.monotonic()
                return not left or time.monotonic() - since > self._calm_seconds

            self._go_on_until(done)
            left = [repr(call) for name in plan.WORKERS
                    for state in ('new', 'accepted', 'callback')
                    for call in zad[name].calls(state)]
            self.left = ', '.join(left) or None

    def _be_idle(self):
        filed = time.monotonic() + self._filing_seconds
        self._go_on_until(lambda: time.monotonic() >= filed)
        since = time.time()
        self._go_on_until(lambda: time.monotonic() >= filed + self._idle_seconds)
        self.idle = since, time.time()

    def _stop_all(self):
        if self._packing is not None:
            self._packing.join(60)
        for name in plan.WORKERS:
            self._end(name)
        for name in (*plan.WEBS, *plan.WORKERS, plan.SERVER):
            remark = self._processes[name].stop()
            if remark:
                print(remark, flush=True)
        shutil.copyfile(self._disk.here / 'Data.fs', self.directory / 'Data.fs')

    def files(self):
        """The files of the database, the oldest first."""
        return [*sorted(self.history.iterdir()), self.directory / 'Data.fs']
