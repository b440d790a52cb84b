"""The job of all peers but Procrastinate: append one small record durably to a file of SQLite.

The file is RECORDS of the environment. A record: number, the time at which its job was put, the
time at which the job started; POSIX seconds.
"""

import os
import sqlite3
import threading
import time


#: As long as the record that a job of ours writes, with what the ZODB keeps around it.
TEXT = 'x' * 150

_local = threading.local()


def make():
    """Make the file, with an empty table."""
    _connection().execute(
        'create table record (number integer, put real, started real, text text)')


def append(number, put):
    """Append a record of a job that starts now."""
    started = time.time()
    _connection().execute('insert into record values (?, ?, ?, ?)', (number, put, started, TEXT))


def count():
    """How many there are."""
    return _connection().execute('select count(*) from record').fetchone()[0]


def records():
    """All of them: a list of (number, put, started)."""
    return _connection().execute('select number, put, started from record').fetchall()


def _connection():
    """That of this thread of this process."""
    if getattr(_local, 'pid', None) != os.getpid():
        connection = sqlite3.connect(os.environ['RECORDS'], timeout=60, isolation_level=None)
        connection.execute('pragma journal_mode = wal')
        connection.execute('pragma synchronous = full')
        _local.connection, _local.pid = connection, os.getpid()
    return _local.connection
