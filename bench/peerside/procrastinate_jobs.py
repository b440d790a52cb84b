"""Procrastinate on PostgreSQL, at the DSN in POSTGRES of the environment; so are the records."""

import functools
import os
import subprocess
import sys
import time

import procrastinate
import psycopg
import psycopg_pool
from records import TEXT


DSN = os.environ['POSTGRES']

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=DSN, min_size=1, max_size=12),
    import_paths=['procrastinate_jobs'])

WORKER = ['-m', 'procrastinate', '-a', 'procrastinate_jobs.app', 'worker', '-q', 'jobs', '-c', '4',
          '--delete-jobs', 'never']

_pool = None


@app.task(name='append', queue='jobs')
async def append(number, put):
    """The job: append a record in a transaction of its own."""
    global _pool
    started = time.time()
    if _pool is None:
        _pool = psycopg_pool.AsyncConnectionPool(DSN, min_size=1, max_size=10, open=False,
                                                 kwargs={'autocommit': True})
        await _pool.open()
    async with _pool.connection() as connection:
        await connection.execute('insert into record values (%s, %s, %s, %s)',
                                 (number, put, started, TEXT))


@functools.cache
def _opened():
    app.open()
    return append


def put(number, at):
    """Put a job."""
    _opened().defer(number=number, put=at)


def make():
    """Empty the database, and make its tables."""
    _execute('drop schema public cascade; create schema public; create table record '
             '(number integer, put double precision, started double precision, text text)')
    subprocess.run([sys.executable, '-m', 'procrastinate', '-a', 'procrastinate_jobs.app',
                    'schema', '--apply'], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def ready():
    """Many jobs have been put: what autovacuum would do by and by, without which it is slower."""
    _execute('vacuum analyze')


def count():
    """How many records there are."""
    return _execute('select count(*) from record').fetchone()[0]


def records():
    """All of them: a list of (number, put, started)."""
    return _execute('select number, put, started from record').fetchall()


def _execute(statement):
    return _connection().execute(statement)


@functools.cache
def _connection():
    return psycopg.connect(DSN, autocommit=True)
