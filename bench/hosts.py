"""Hosts on one machine: each with a network, a name and a boot id of its own.

    with Hosts() as hosts:
        far = hosts.add('far', delay_seconds=0.05)
        hosts.run(far, 'ping', '-c', '1', hosts.our_address)
        hosts.cut(far)
        hosts.join(far)

A host is a sleeping process with namespaces of its own, on a switch that is another one; what runs
on the host enters them (`Host.command`). So nothing has a name on the machine itself but one
interface, by which we reach the hosts. The kernel removes all of it with the processes, and these
die with us whatever happens (bench.processes): there is never anything to clean up.

All hosts have the files and the process ids of this machine. It takes Linux, and root or a user
namespace: `why_not` tells.

Imports: processes.
"""

import functools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import NamedTuple

from bench.processes import Process
from bench.processes import ProcessError


ROOT = Path(__file__).resolve().parents[1]

#: Debian keeps `ip` and `tc` where only root looks.
_PATH = os.pathsep.join([os.environ.get('PATH', os.defpath), '/usr/sbin', '/sbin'])

_PROGRAMS = {'ip': 'iproute2', 'tc': 'iproute2', 'nsenter': 'util-linux', 'unshare': 'util-linux',
             'gcc': 'gcc'}

_SWITCH = 'ip link add switch type bridge && ip link set switch up && echo up && exec sleep inf'

#: $1: a file with the boot id, $2: the name.
_HOST = ('mount --bind "$1" /proc/sys/kernel/random/boot_id && hostname "$2" '
         '&& ip link set lo up && echo up && exec sleep inf')


class HostsError(Exception):
    """This machine makes no hosts for us; says what is missing."""


class Host(NamedTuple):
    """One host. address -- its IPv4 address. pid -- of the process that keeps it."""

    name: str
    address: str
    pid: int

    def command(self, argv, cwd=None, env=()):
        """What has to be run so that `argv` runs here; env -- {name: value}, added there."""
        enter = ['nsenter', '--target', self.pid, '--net', '--uts', '--mount', '--', 'env']
        place = ['--chdir=%s' % cwd] if cwd is not None else []
        added = ['%s=%s' % item for item in dict(env).items()]
        return [str(part) for part in [*enter, *place, *added, *argv]]


class Hosts:
    """A switch, and the hosts on it. our_address -- where they reach us."""

    def __init__(self):
        self._processes = []
        self._ports = {}

    def __enter__(self):
        for program, package in _PROGRAMS.items():
            if shutil.which(program, path=_PATH) is None:
                raise HostsError('%s is missing (Debian: %s)' % (program, package))
        self._dir = Path(tempfile.mkdtemp(prefix='zasync-hosts-'))
        try:
            self._switch = self._keep('switch', ['unshare', '--net'], _SWITCH)
            self._connect_us()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info):
        for process in reversed(self._processes):
            process.kill()
        shutil.rmtree(self._dir, ignore_errors=True)

    def add(self, name, delay_seconds=0.0):
        """A new Host; delay_seconds -- how much later what it sends, and gets, arrives."""
        boot_id = self._dir / ('%s.boot' % name)
        boot_id.write_text('%s\n' % uuid.uuid4(), 'ascii')
        keeper = self._keep(name, ['unshare', '--net', '--uts', '--mount'], _HOST, boot_id, name)
        host = Host(name, '%s.%d' % (self._net, 10 + len(self._ports)), keeper.pid)
        port = self._ports[name] = 'to-%s' % name
        if delay_seconds and not self._has_netem():
            self._start('wire-%s' % name, host.command(
                [sys.executable, '-m', 'bench.wire', '--here', 'eth0', '--there-of',
                 self._switch.pid, '--there', port, '--delay-ms', delay_seconds * 1000], cwd=ROOT))
        else:
            self._on_switch('ip', 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0',
                            'netns', keeper.pid)
            if delay_seconds:
                netem = 'root', 'netem', 'delay', '%dms' % (delay_seconds * 1000)
                self._on_switch('tc', 'qdisc', 'add', 'dev', port, *netem)
                self.run(host, 'tc', 'qdisc', 'add', 'dev', 'eth0', *netem)
        self._on_switch('ip', 'link', 'set', port, 'up', 'master', 'switch')
        self.run(host, 'ip', 'addr', 'add', host.address + '/24', 'dev', 'eth0')
        self.run(host, 'ip', 'link', 'set', 'eth0', 'up')
        return host

    def cut(self, host):
        """Let nothing through to that host, or from it, without telling anybody."""
        self._on_switch('ip', 'link', 'set', self._ports[host.name], 'nomaster')

    def join(self, host):
        """Let everything through again."""
        self._on_switch('ip', 'link', 'set', self._ports[host.name], 'master', 'switch')

    def run(self, host, *argv):
        """Run a command on that host; HostsError, with what it says, when it fails."""
        return _run(host.command(argv))

    @functools.cached_property
    def clock_shift_library(self):
        """What is loaded into a process whose clock is to be wrong; see clockshift.c."""
        return compile_clock_shift(self._dir)

    def wrong_clock(self, seconds):
        """The environment of a process whose clock is wrong by that many seconds."""
        return wrong_clock(self.clock_shift_library, seconds)

    def _connect_us(self):
        routes = _run(['ip', '-4', 'route'])
        # Of 198.18.0.0/15, which is for tests of networks (RFC 2544).
        free = [number for number in range(512)
                if '198.%d.%d.' % (18 + number // 256, number % 256) not in routes]
        number = random.SystemRandom().choice(free)
        self._net = '198.%d.%d' % (18 + number // 256, number % 256)
        self.our_address = self._net + '.1'
        ours = 'zasync%d' % number
        _run(['ip', 'link', 'add', ours, 'type', 'veth', 'peer', 'name', 'to-us', 'netns',
              self._switch.pid])
        self._on_switch('ip', 'link', 'set', 'to-us', 'up', 'master', 'switch')
        _run(['ip', 'addr', 'add', self.our_address + '/24', 'dev', ours])
        _run(['ip', 'link', 'set', ours, 'up'])

    def _on_switch(self, *argv):
        return _run(['nsenter', '--target', self._switch.pid, '--net', '--', *argv])

    def _has_netem(self):
        netem = ['dev', 'lo', 'root', 'netem', 'delay', '1ms']
        try:
            self._on_switch('tc', 'qdisc', 'add', *netem)
        except HostsError:
            return False
        self._on_switch('tc', 'qdisc', 'del', *netem[:3])
        return True

    def _keep(self, name, unshare, script, *arguments):
        return self._start(name, [*unshare, '--', 'sh', '-c', script, name, *arguments])

    def _start(self, name, argv):
        process = Process(name, argv, self._dir / ('%s.log' % name), ready_seconds=20,
                          env=dict(os.environ, PATH=_PATH),
                          is_ready=lambda process: 'up\n' in process.output())
        self._processes.append(process)
        try:
            return process.start()
        except ProcessError as reason:
            raise HostsError(str(reason)) from reason


def compile_clock_shift(directory):
    """Make the library that shifts clocks, in that directory; -> its path."""
    library = Path(directory) / 'clockshift.so'
    _run(['gcc', '-O2', '-Wall', '-shared', '-fPIC', '-o', library,
          ROOT / 'bench' / 'clockshift.c'])
    return library


def wrong_clock(library, seconds):
    """The environment of a process whose clock is wrong by that many seconds."""
    return {'LD_PRELOAD': str(library), 'CLOCK_SHIFT': str(int(seconds))}


def _run(argv):
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, env=dict(os.environ, PATH=_PATH))
    if done.returncode:
        raise HostsError('%s: %s' % (' '.join(map(str, argv)), done.stderr.strip()))
    return done.stdout


@functools.cache
def why_not():
    """Why no hosts can be made here, a sentence, or None: they can."""
    try:
        with Hosts() as hosts:
            hosts.add('trial', delay_seconds=0.01)
    except HostsError as reason:
        return ('hosts can only be made on Linux, as root or inside of "unshare --user '
                '--map-root-user --net": %s' % reason)
    return None
