"""RQ on Redis, at REDIS_PORT of the environment."""

import os

import records
from redis import Redis
from rq import Queue


queue = Queue('jobs', connection=Redis(port=int(os.environ['REDIS_PORT'])))

#: Without a process of its own for each job, which is several times slower.
WORKER = ['-m', 'rq.cli', 'worker', '-q', '--url',
          f'redis://127.0.0.1:{os.environ["REDIS_PORT"]}/0', '-w', 'rq.worker.SimpleWorker',
          'jobs']


def append(number, put):
    """The job."""
    records.append(number, put)


def put(number, at):
    """Put a job."""
    queue.enqueue('rq_jobs.append', number, at, result_ttl=0)
