"""The line about other queues: the same job of theirs and of ours, in turn on the same machine.

What is theirs runs in an environment of its own (``.venv-peers``), see ``bench/peerside``. All
keep their jobs when the machine stops: SQLite with fsync, Redis with an append-only file that is
synced at each write, PostgreSQL as it comes. A peer whose server this machine lacks has no rows.

Imports: rows, site, jobs, idling, processes, postgres.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import transaction

from bench.idling import put_one_by_one
from bench.jobs import append_record
from bench.jobs import append_record_together
from bench.postgres import Postgres
from bench.postgres import PostgresMissing
from bench.processes import accepts
from bench.processes import free_port
from bench.processes import Process
from bench.rows import milliseconds
from bench.rows import row
from bench.site import Site


PYTHON = Path(__file__).resolve().parents[1] / '.venv-peers' / 'bin' / 'python'
THEIRS = Path(__file__).parent / 'peerside'

RUNS = 3
#: Jobs that are put while no worker is there, and then run by one; of a slow peer fewer.
JOBS = 4_000
FEW_JOBS = 1_000
#: Jobs that are put one by one.
ONE_BY_ONE = 60

OURS = 'zasync'
TOGETHER = 'zasync, group commit'


class PeerMissing(Exception):
    """This machine has not what a peer needs; says what."""


class Figures(NamedTuple):
    """Of one run: jobs put in a second, run in a second by one worker, ms from put to start."""

    puts: int
    jobs: int
    latency: float


UNITS = {'puts': ('puts', '1/s'), 'jobs': ('jobs, 1 worker', '1/s'),
         'latency': ('put → start', 'ms')}

#: What of ours is set beside whom: {name: (whose, which figure, its bar)}.
BESIDE = {
    'put → start ÷ Procrastinate’s': (OURS, 'Procrastinate', 'latency', {'most': 1.5}),
    'jobs, group commit ÷ Huey’s on SQLite': (TOGETHER, 'Huey, SQLite', 'jobs', {'above': 1}),
    'jobs, group commit ÷ Dramatiq’s': (TOGETHER, 'Dramatiq, Redis', 'jobs', {'above': 1}),
    'jobs, one by one ÷ RQ’s': (OURS, 'RQ, Redis', 'jobs', {'above': 1})}


def peers():
    """Each peer, and ours, in turn: puts, jobs of one worker, put to start."""
    found = {name: [] for name in [*PEERS, OURS, TOGETHER]}
    for _ in range(RUNS):
        for name, (server, number) in PEERS.items():
            try:
                found[name].append(_theirs(name.partition(',')[0].lower(), server, number))
            except (PeerMissing, PostgresMissing) as reason:
                print(f'{name}: {reason}', file=sys.stderr)
        found[OURS].append(_ours(append_record))
        found[TOGETHER].append(_ours(append_record_together))
    rows = [row(f'{name}: {what}', [getattr(each, field) for each in runs], unit)
            for name, runs in found.items() if runs for field, (what, unit) in UNITS.items()]
    for name, (whose, peer, field, bar) in BESIDE.items():
        if found[peer]:
            rows.append(row(name, [round(getattr(ours, field) / getattr(theirs, field), 2)
                                   for ours, theirs in zip(found[whose], found[peer],
                                                           strict=True)], 'ratio', **bar))
    return rows


def _ours(function):
    """The Figures of a worker whose calls do that."""
    with Site(apart=True) as site:
        began = time.monotonic()
        for number in range(JOBS):
            transaction.begin()
            site.manager.putCall('zope_call', function, number)
            transaction.commit()
        puts = JOBS / (time.monotonic() - began)
        site.start_worker()
        jobs = 1 / site.drain(300)
        site.check_effects(JOBS)
        latency = statistics.median(put_one_by_one(site, ONE_BY_ONE))
    return Figures(round(puts), round(jobs), milliseconds(latency))


def _theirs(peer, server, number):
    """The Figures of a peer, by so many jobs."""
    base = Path(tempfile.mkdtemp(prefix='zasync-peer-'))
    try:
        with server(base) as settings:
            env = {**os.environ, 'PYTHONPATH': str(THEIRS), 'RECORDS': str(base / 'records'),
                   **settings}
            _ask(env, peer, 'make')
            seconds = _ask(env, peer, 'put', number)
            worker = Process(peer, [PYTHON, *_ask(env, peer, 'worker')], base / 'worker.log',
                             is_ready=lambda process: True, ready_seconds=1, env=env, cwd=THEIRS)
            worker.start()
            try:
                jobs = _ask(env, peer, 'drain', number + 1)
                latency = statistics.median(_ask(env, peer, 'one-by-one', ONE_BY_ONE))
            finally:
                worker.stop()
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return Figures(round(number / seconds), round(jobs), milliseconds(latency))


def _ask(env, peer, task, number=0):
    """What drive.py says."""
    if not PYTHON.exists():
        raise PeerMissing('run "make .venv-peers" first')
    said = subprocess.run([PYTHON, THEIRS / 'drive.py', peer, task, str(number)], env=env,
                          cwd=THEIRS, check=True, stdout=subprocess.PIPE, timeout=300)
    return json.loads(said.stdout)


@contextlib.contextmanager
def _postgres(base):
    with Postgres(settings={}) as server:
        yield {'POSTGRES': server.dsn}


@contextlib.contextmanager
def _redis(base):
    program = shutil.which('redis-server')
    if program is None:
        raise PeerMissing('Redis is not installed (Debian: apt-get install redis-server)')
    port = free_port()
    process = Process(
        'redis', [program, '--port', port, '--bind', '127.0.0.1', '--dir', base, '--save', '',
                  '--appendonly', 'yes', '--appendfsync', 'always'], base / 'redis.log',
        is_ready=lambda process: accepts('127.0.0.1', port), ready_seconds=30)
    process.start()
    try:
        yield {'REDIS_PORT': str(port)}
    finally:
        process.stop()


@contextlib.contextmanager
def _sqlite(base):
    yield {'HUEY_FILE': str(base / 'jobs')}


#: {name, which begins with that of the module of its jobs: (where it keeps them, how many)}.
PEERS = {'Huey, SQLite': (_sqlite, JOBS), 'Huey, Redis': (_redis, JOBS),
         'Dramatiq, Redis': (_redis, JOBS), 'Celery, Redis': (_redis, JOBS),
         'RQ, Redis': (_redis, FEW_JOBS), 'Procrastinate': (_postgres, JOBS)}
