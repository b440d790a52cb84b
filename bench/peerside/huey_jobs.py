"""Huey, on SQLite with fsync or on Redis: HUEY_FILE or REDIS_PORT of the environment."""

import os

import records
from huey import RedisHuey
from huey import SqliteHuey


if 'HUEY_FILE' in os.environ:
    huey = SqliteHuey('jobs', filename=os.environ['HUEY_FILE'], results=False, fsync=True)
else:
    huey = RedisHuey('jobs', port=int(os.environ['REDIS_PORT']), results=False)

#: Four threads; how it looks for jobs is as it comes.
WORKER = ['-m', 'huey.bin.huey_consumer', 'huey_jobs.huey', '-w', '4', '-k', 'thread', '-n', '-q']


@huey.task()
def append(number, put):
    """The job."""
    records.append(number, put)


def put(number, at):
    """Put a job."""
    append(number, at)
