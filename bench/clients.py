"""ZEO clients in processes of their own: raw committers and putters of calls.

``python -m bench.clients '{"mode": "put", …}'`` connects, prints ``ready``, waits
for a line on standard input, works, and prints one JSON object.

Imports: Products.zasync, when used.
"""

import json
import random
import subprocess
import sys
import time

import transaction
import ZEO
import ZODB
from persistent import Persistent


class Record(Persistent):
    """The small object a raw committer writes."""

    n = 0


def open_database(address):
    """(database, connection, root) of a ZEO client."""
    db = ZODB.DB(ZEO.client(tuple(address), wait_timeout=20))
    connection = db.open()
    return db, connection, connection.root()


def work_raw(root, task):
    """Commit one small object, `number` times; → seconds of each commit."""
    record = root['raw'][task['client']]
    took = []
    for _ in range(task['number']):
        transaction.begin()
        record.n += 1
        started = time.perf_counter()
        transaction.commit()
        took.append(time.perf_counter() - started)
    return {'took': took}


def work_put(root, task):
    """Put `number` calls, one a request of `request_seconds`; → conflicts and moments.

    As in Zope's publisher, a request that meets a conflict is run again.
    """
    manager = root['Application'].unrestrictedTraverse(task['target'])
    function = getattr(__import__('bench.jobs', fromlist=['jobs']), task['function'])
    dice = random.Random(task['client'])
    conflicts, at_put, at_commit = [], [], []
    for index in range(task['number']):
        while True:
            transaction.begin()
            if task['request_seconds']:
                # the first half of the request, then the put, then the rest: the
                # window of a conflict is from the put's snapshot to the commit
                pause = task['request_seconds'] * dice.uniform(0.5, 1.5)
                manager.lenNewCalls()
                time.sleep(pause / 2)
            at_put.append(time.time())
            args = [index + task['first']] if task.get('numbered') else []
            manager.putCall('zope_call', function, *args)
            if task['request_seconds']:
                time.sleep(pause / 2)
            try:
                transaction.commit()
            except transaction.interfaces.TransientError:
                transaction.abort()
                conflicts.append(index)
                at_put.pop()
                continue
            at_commit.append(time.time())
            break
        if task.get('gap_seconds'):
            time.sleep(task['gap_seconds'])
    return {'conflicts': conflicts, 'at_put': at_put, 'at_commit': at_commit}


MODES = {'raw': work_raw, 'put': work_put}


def main():
    """Do the task given as the one argument."""
    task = json.loads(sys.argv[1])
    db, connection, root = open_database(task['address'])
    print('ready', flush=True)
    sys.stdin.readline()
    started = time.time()
    result = MODES[task['mode']](root, task)
    result.update(started=started, ended=time.time())
    print(json.dumps(result), flush=True)
    transaction.abort()
    connection.close()
    db.close()


class Clients:
    """Several client processes that start together."""

    def __init__(self, tasks):
        self._processes = [
            subprocess.Popen([sys.executable, '-m', 'bench.clients', json.dumps(task)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for task in tasks]
        for process in self._processes:
            if process.stdout.readline().strip() != 'ready':
                self.kill()
                raise RuntimeError('a client process could not connect')

    def start(self):
        """Let them all go."""
        for process in self._processes:
            process.stdin.write('go\n')
            process.stdin.flush()

    def results(self):
        """Wait for all; → list of what each printed."""
        found = []
        for process in self._processes:
            output, _ = process.communicate()
            if process.returncode:
                raise RuntimeError(f'a client process failed with {process.returncode}')
            found.append(json.loads(output))
        return found

    def kill(self):
        """End them, whatever they do."""
        for process in self._processes:
            process.kill()
            process.wait()


if __name__ == '__main__':
    main()
