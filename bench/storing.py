"""Lines about the ZEO client of a worker: what it does in another way than that of a Zope.

Imports: rows, site, clients, zasync_client.sending, zasync_client.inmemory.
"""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import transaction

from bench.clients import open_database
from bench.clients import Record
from bench.rows import row
from bench.site import Site
from zasync_client.inmemory import keep_in_memory
from zasync_client.sending import send_together


RUNS = 7
#: Objects of a commit → commits of a run. What a call and its end write; what a group of a hundred
#: calls stores that write an object each.
SIZES = {2: 200, 200: 20}
#: Objects that are loaded from a cache.
LOADS = 2_000


def stores():
    """Commits of few and of many objects by a client as a worker is, beside one as others are."""
    with Site() as site:
        most = max(SIZES)
        site.connection.root()['many'] = [[Record() for _ in range(most)] for _ in range(2)]
        transaction.commit()
        clients = [open_database(site.address) for _ in range(2)]
        send_together(clients[1][0].storage)
        took = {(size, client): [] for size in SIZES for client in range(2)}
        for _ in range(RUNS):
            for (size, client), found in took.items():
                many = clients[client][2]['many'][client]
                found.append(_milliseconds(many[:size], SIZES[size]))
        for db, connection, _ in clients:
            transaction.abort()
            connection.close()
            db.close()
    rows = []
    for size in SIZES:
        apart, together = took[size, 0], took[size, 1]
        rows += [row(f'a commit of {size} objects, handed over bit by bit', apart, 'ms'),
                 row('  handed over together ÷ bit by bit',
                     [round(after / before, 2)
                      for before, after in zip(apart, together, strict=True)], 'ratio')]
    return rows


def cache():
    """Loads by two threads from the cache of a client as a worker is, beside one as others are."""
    with Site() as site:
        site.connection.root()['many'] = [Record() for _ in range(LOADS)]
        transaction.commit()
        clients = [open_database(site.address) for _ in range(2)]
        keep_in_memory(clients[1][0].storage)
        took = [[], []]
        for run in range(1 + RUNS):
            for (db, _, _), found in zip(clients, took, strict=True):
                with ThreadPoolExecutor(2) as pool:
                    started = time.perf_counter()
                    list(pool.map(_load, [db] * 2, range(2)))
                if run:  # the first loads them from the server
                    found.append(round(1e6 * (time.perf_counter() - started) / (2 * LOADS), 1))
        for db, connection, _ in clients:
            transaction.abort()
            connection.close()
            db.close()
    in_file, in_memory = took
    return [row("a load by two threads from a client's cache in a file", in_file, 'µs'),
            row('  in memory ÷ in a file',
                [round(after / before, 2)
                 for before, after in zip(in_file, in_memory, strict=True)], 'ratio')]


def _load(db, number):
    """Load each of the many once, in any order, with nothing in the memory of the connection."""
    with db.transaction() as connection:
        connection.cacheMinimize()
        many = list(connection.root()['many'])
        random.Random(number).shuffle(many)
        for each in many:
            each._p_activate()


def _milliseconds(many, commits):
    """Of a commit that writes all of them."""
    transaction.begin()
    seconds = 0.0
    for _ in range(commits):
        for each in many:
            each.n += 1
        started = time.perf_counter()
        transaction.commit()
        seconds += time.perf_counter() - started
    return round(1000 * seconds / commits, 2)
