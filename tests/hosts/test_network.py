"""The hosts that bench.hosts makes: what is cut, late or wrong there, and that nothing is left."""

import subprocess
import sys
import time

import pytest

from bench.hosts import HostsError
from bench.processes import Process
from bench.processes import wait_until
from bench.stack import our_environment


_ECHO = '''
import socket
server = socket.create_server(("", 9000))
print("up", flush=True)
while True:
    connection = server.accept()[0]
    while data := connection.recv(1000):
        connection.sendall(data)
'''

_PARENT = '''
import time
from bench.hosts import Hosts
with Hosts() as hosts:
    hosts.add("left")
    print(hosts.our_address, flush=True)
    time.sleep(60)
'''


@pytest.fixture
def echo(hosts, tmp_path):
    """Start a server that says what it is told on a new host; → a connection to it, the host."""
    import socket
    made = []

    def start(name, **options):
        host = hosts.add(name, **options)
        made.append(Process(name, host.command([sys.executable, '-c', _ECHO]), tmp_path / name,
                            ready_seconds=20, is_ready=lambda process: process.output()).start())
        connection = socket.create_connection((host.address, 9000), timeout=20)
        made.append(connection)
        return connection, host
    yield start
    for thing in made:
        getattr(thing, 'kill', getattr(thing, 'close', None))()


def test_a_host_has_a_name_and_a_boot_of_its_own(hosts):
    one, two = hosts.add('one'), hosts.add('two')
    assert hosts.run(one, 'hostname') == 'one\n'
    ids = [hosts.run(host, 'cat', '/proc/sys/kernel/random/boot_id') for host in (one, two)]
    assert len(set(ids)) == 2
    with pytest.raises(HostsError, match='false'):
        hosts.run(one, 'false')


def test_a_connection_outlives_a_cut(hosts, echo):
    connection, host = echo('cut')
    hosts.cut(host)
    connection.sendall(b'a')
    connection.settimeout(0.5)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    hosts.join(host)
    connection.settimeout(20)
    assert connection.recv(1) == b'a'


def test_what_passes_a_slow_link_is_late_both_ways(echo):
    connection, _host = echo('slow', delay_seconds=0.05)
    for _ in range(3):
        started = time.monotonic()
        connection.sendall(b'a')
        assert connection.recv(1) == b'a'
        assert 0.1 <= time.monotonic() - started < 1


@pytest.mark.parametrize('shift', [120, -120])
def test_a_clock_is_wrong_and_waits_are_as_long_as_ever(hosts, shift):
    host = hosts.add('clock%d' % abs(shift) + 'ab'[shift > 0])
    program = '''
import threading, time
started = time.monotonic()
time.sleep(0.2)
threading.Event().wait(0.2)
threading.Lock().acquire(timeout=0.2)
print(time.time(), time.monotonic() - started, time.monotonic())
'''
    done = subprocess.run(host.command([sys.executable, '-c', program],
                                       env=hosts.wrong_clock(shift)),
                          capture_output=True, text=True, timeout=20, check=True)
    now, waited, monotonic = map(float, done.stdout.split())
    assert now - time.time() == pytest.approx(shift, abs=2)
    assert 0.4 <= waited < 2
    assert monotonic == pytest.approx(time.monotonic(), abs=2)


def test_nothing_is_left_when_who_made_the_hosts_is_killed(hosts):
    parent = subprocess.Popen([sys.executable, '-c', _PARENT], stdout=subprocess.PIPE, text=True,
                              env=our_environment())
    with parent:
        address = parent.stdout.readline().strip()
        assert address in addresses()
        parent.kill()
    assert wait_until(lambda: address not in addresses(), 20)


def addresses():
    """All addresses of this machine."""
    return subprocess.run(['ip', '-4', 'addr'], capture_output=True, text=True, check=True).stdout
