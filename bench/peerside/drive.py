"""Puts jobs to another queue, and says what became of them: ``drive.py PEER TASK NUMBER``.

Runs in an environment of the peers, where nothing of ours is; bench/peers.py starts it. Prints one
JSON value:

make         make what the records are kept in; null
worker       the arguments of Python that make it a worker; a list
put          put NUMBER jobs; the seconds it took
drain        wait until NUMBER jobs have their records; jobs/s, from when a fiftieth has started
one-by-one   put NUMBER jobs with pauses, now that all before have ended; a list of the seconds
             from put to start of each
"""

import importlib
import json
import random
import sys
import time

import records


#: Between two jobs put one by one, in the middle. Seconds.
GAP_SECONDS = 0.05
#: Within which a job has to start, and all that wait have to end. Seconds.
LIMIT_SECONDS = 120


def main(peer, task, number):
    """Print what the task has found."""
    jobs = importlib.import_module(f'{peer}_jobs')
    store = jobs if hasattr(jobs, 'make') else records
    print(json.dumps(TASKS[task](jobs, store, number)))


def put(jobs, store, number):
    jobs.put(-1, 0.0)  # it is connected, and has loaded what it uses
    began = time.monotonic()
    for each in range(number):
        jobs.put(each, 0.0)
    seconds = time.monotonic() - began
    getattr(jobs, 'ready', lambda: None)()
    return seconds


def drain(jobs, store, number):
    _wait_for(store, number)
    found = store.records()
    if sorted(each for each, _, _ in found) != list(range(-1, number - 1)):
        raise SystemExit(f'of {number} jobs {len(found)} have a record, and not each one')
    starts = sorted(started for _, _, started in found)
    first = number // 50
    return (number - 1 - first) / (starts[-1] - starts[first])


def one_by_one(jobs, store, number):
    there = store.count()
    jobs.put(-1, time.time())
    _wait_for(store, there + 1)
    for each in range(number):
        time.sleep(GAP_SECONDS * random.uniform(0.5, 1.5))
        jobs.put(each, time.time())
    _wait_for(store, there + 1 + number)
    return [started - at for each, at, started in store.records() if each >= 0 and at]


def _wait_for(store, number):
    until = time.monotonic() + LIMIT_SECONDS
    while store.count() < number:
        if time.monotonic() > until:
            raise SystemExit(f'{number} records were not there after {LIMIT_SECONDS} s')
        time.sleep(0.25)


TASKS = {'make': lambda jobs, store, number: store.make(),
         'worker': lambda jobs, store, number: jobs.WORKER,
         'put': put, 'drain': drain, 'one-by-one': one_by_one}


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
