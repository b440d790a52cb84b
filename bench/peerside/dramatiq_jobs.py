"""Dramatiq on Redis, at REDIS_PORT of the environment."""

import os

import dramatiq
import records
from dramatiq.brokers.redis import RedisBroker


dramatiq.set_broker(RedisBroker(port=int(os.environ['REDIS_PORT'])))

#: One process, with more threads than others have: with 4 it is slower.
WORKER = ['-m', 'dramatiq', 'dramatiq_jobs', '-p', '1', '-t', '16']


@dramatiq.actor
def append(number, put):
    """The job."""
    records.append(number, put)


def put(number, at):
    """Put a job."""
    append.send(number, at)
