"""The line about commits of many objects: handed to ZEO's network thread together, or one by one.

Imports: rows, site, clients, zasync_client.sending.
"""

import time

import transaction

from bench.clients import open_database
from bench.clients import Record
from bench.rows import row
from bench.site import Site
from zasync_client.sending import send_together


RUNS = 5
#: What a group of a hundred calls stores that write an object each; and commits of a run.
OBJECTS, COMMITS = 200, 20


def stores():
    """A commit of many objects by a client as a worker is, beside one as others are."""
    with Site() as site:
        site.connection.root()['many'] = [Record() for _ in range(OBJECTS)]
        transaction.commit()
        clients = [open_database(site.address) for _ in range(2)]
        send_together(clients[1][0].storage)
        alone, together = [], []
        for _ in range(RUNS):
            for took, (_, _, root) in zip((alone, together), clients, strict=True):
                took.append(_milliseconds(root['many']))
        for db, connection, _ in clients:
            transaction.abort()
            connection.close()
            db.close()
    return [row(f'a commit of {OBJECTS} objects, handed over one by one', alone, 'ms'),
            row('  handed over together ÷ one by one',
                [round(after / before, 2) for before, after in zip(alone, together, strict=True)],
                'ratio')]


def _milliseconds(many):
    """Of a commit that writes all of them."""
    transaction.begin()
    seconds = 0.0
    for _ in range(COMMITS):
        for each in many:
            each.n += 1
        started = time.perf_counter()
        transaction.commit()
        seconds += time.perf_counter() - started
    return round(1000 * seconds / COMMITS, 2)
