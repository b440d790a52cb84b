"""Celery on Redis, at REDIS_PORT of the environment."""

import os

import records
from celery import Celery


app = Celery('jobs', broker=f'redis://127.0.0.1:{os.environ["REDIS_PORT"]}/0')
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=64,
                broker_connection_retry_on_startup=True)

#: One process without children, and nothing said between workers: the quickest for short jobs.
WORKER = ['-m', 'celery', '-A', 'celery_jobs', 'worker', '-P', 'solo', '-l', 'ERROR',
          '--without-gossip', '--without-mingle', '--without-heartbeat']


@app.task(name='append')
def append(number, put):
    """The job."""
    records.append(number, put)


def put(number, at):
    """Put a job."""
    append.delay(number, at)
