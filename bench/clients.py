"""ZEO clients in processes of their own: raw committers, putters of calls, one that listens, and
those that do the least a put or a group of calls could do.

``python -m bench.clients '{"mode": "put", …}'`` connects, prints ``ready``, waits
for a line on standard input, works, and prints one JSON object.

Imports: Products.zasync and zasync_client.sending, when used; jobs.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time

import transaction
import ZEO
import ZODB
from persistent import Persistent

from bench.processes import keep_on


#: Entries of a chunk, calls of a group, and bytes of a call, about as ours are.
CHUNK, GROUP, CALL_TEXT = 16, 160, 'x' * 200


class Record(Persistent):
    """The small object a raw committer writes."""

    n = 0
    at = 0.0
    #: As long as what a call without arguments stores.
    text = ''


def open_database(address):
    """(database, connection, root) of a ZEO client."""
    db = ZODB.DB(ZEO.client(tuple(address), wait_timeout=20))
    connection = db.open()
    return db, connection, connection.root()


def work_raw(root, task, client):
    """Commit one small object, `number` times; → seconds of each commit."""
    record = root['raw'][client]
    took = []
    for _ in range(task['number']):
        if task.get('gap_seconds'):
            time.sleep(task['gap_seconds'])
        transaction.begin()
        record.n += 1
        record.at = time.time()
        started = time.perf_counter()
        transaction.commit()
        took.append(time.perf_counter() - started)
    return {'took': took}


def work_listen(root, task, client):
    """Read the first raw committer's object each time it is told of a commit; → seconds since.

    What an application could do at best: nothing between the news and the look.
    """
    news = threading.Event()
    db = root._p_jar.db()
    adapter = db._mvcc_storage
    db.storage.registerDB(_Ear(adapter, news))
    record, seen, took = root['raw'][0], 0, []
    while seen < task['number']:
        if not news.wait(20):
            raise RuntimeError('no news')
        news.clear()
        transaction.begin()
        if record.n != seen:
            took.append(time.time() - record.at)
            seen = record.n
    return {'took': took}


class _Ear:

    def __init__(self, adapter, news):
        self._adapter = adapter
        self._news = news

    def invalidate(self, *args):
        self._adapter.invalidate(*args)
        self._news.set()

    def __getattr__(self, name):
        return getattr(self._adapter, name)


def work_put(root, task, client):
    """Put `number` calls, one a request of `request_seconds`, or `each`; → conflicts and moments.

    As in Zope's publisher, a request that meets a conflict is run again.
    """
    manager = root['Application'].unrestrictedTraverse(task['target'])
    function = getattr(__import__('bench.jobs', fromlist=['jobs']), task['function'])
    dice = random.Random(client)
    conflicts, at_put, at_commit = [], [], []
    each = task.get('each', 1)
    for index in range(0, task['number'], each):
        while True:
            transaction.begin()
            if task['request_seconds']:
                # the first half of the request, then the put, then the rest: the
                # window of a conflict is from the put's snapshot to the commit
                pause = task['request_seconds'] * dice.uniform(0.5, 1.5)
                manager.lenNewCalls()
                time.sleep(pause / 2)
            at_put.append(time.time())
            for number in range(index + task['first'], index + task['first'] + each):
                manager.putCall('zope_call', function, *([number] if task.get('numbered') else []))
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


def work_least_put(root, task, client):
    """Commit a new object and an entry for it, `number` times: what no put can do without."""
    chunk = root['least_put']
    for number in range(task['number']):
        transaction.begin()
        if len(chunk) == CHUNK:
            chunk.clear()
        record = Record()
        record.text = CALL_TEXT
        chunk[number] = record
        transaction.commit()
    return {}


def work_least_group(root, task, client):
    """Load objects of a call's size, and store each with a record of its own, many in a commit.

    What no group of calls can do without: a savepoint for each is part of that.
    """
    from zasync_client.sending import send_together
    send_together(root._p_jar.db().storage)
    records = root['least_group']
    for first in range(0, len(records), GROUP):
        transaction.begin()
        some = records[first:first + GROUP]
        root._p_jar.prefetch([each._p_oid for each in some])
        for number, each in enumerate(some, first):
            transaction.savepoint(optimistic=True)
            each.n += 1
            root['ledger'].append(number)
        transaction.commit()
    return {}


def warm_up(root, task, client):
    """Import and load what the work needs, as a thread of a running site has done long ago."""
    transaction.begin()
    root.keys()  # it names classes of Zope: half a second of imports
    if task.get('processor') is not None:
        keep_on(os.getpid(), task['processor'])
    if task['mode'] != 'put':
        root['raw'][client]._p_activate()
    else:
        manager = root['Application'].unrestrictedTraverse(task['target'])
        function = getattr(__import__('bench.jobs', fromlist=['jobs']), task['function'])
        manager.putCall('zope_call', function, *([0] if task.get('numbered') else []))
    transaction.abort()


MODES = {'raw': work_raw, 'put': work_put, 'listen': work_listen, 'least_put': work_least_put,
         'least_group': work_least_group}


def main():
    """Do the task given as the one argument, in as many threads as it says."""
    task = json.loads(sys.argv[1])
    db, connection, root = open_database(task['address'])
    number = task.get('threads', 1)
    db.setPoolSize(number + 2)
    warm_up(root, task, 0)
    threads = [_Thread(db, task, task['client'] * number + each) for each in range(number)]
    print('ready', flush=True)
    sys.stdin.readline()
    started = time.time()
    for thread in threads:
        thread.go.set()
    results = [thread.result() for thread in threads]
    result = {key: [item for each in results for item in each[key]] for key in results[0]}
    result.update(started=started, ended=time.time())
    print(json.dumps(result), flush=True)
    transaction.abort()
    connection.close()
    db.close()


class _Thread:
    """A thread with a connection of its own, ready when this is made; it works from `go` on."""

    def __init__(self, db, task, client):
        self.go = threading.Event()
        self._result = None
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(db, task, client), daemon=True)
        self._thread.start()
        if not self._is_ready.wait(60):
            raise RuntimeError('a thread did not get ready')

    def _work(self, db, task, client):
        connection = db.open()
        warm_up(connection.root(), task, client)
        self._is_ready.set()
        self.go.wait()
        self._result = MODES[task['mode']](connection.root(), task, client)
        transaction.abort()
        connection.close()

    def result(self):
        """What it found."""
        self._thread.join()
        if self._result is None:
            raise RuntimeError('a thread failed')
        return self._result


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
