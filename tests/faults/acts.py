"""What requests do, each in a process of its own that may be killed on the way.

    python -m tests.faults.acts cancel 127.0.0.1 8100 DISPATCHER ID

Imports: bench.
"""

import sys

import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.users import system

from bench.clients import open_database
from Products.zasync import clock
from Products.zasync import moving
from Products.zasyncdispatcher import leaving
from tests.faults import jobs


#: Calls that one transaction moves here.
MOVED_AT_ONCE = 2


def put(zad, name, path):
    """Put a call into the dispatcher, as a page does; it runs there if no worker lives."""
    zad.putCall('zope_call', jobs.effect, name, path)
    transaction.commit()


def cancel(zad, id):
    """As the button does."""
    zad.zam1.cancel(id)
    transaction.commit()


def retry(zad, id):
    """As the button does."""
    zad.zam1.retry(id)
    transaction.commit()


def leave(zad):
    """Have zam1 removed, its calls moved, a transaction a part; as the page does."""
    moving.MOST = MOVED_AT_ONCE
    gone = False
    while not gone:
        transaction.begin()
        leaving.start(zad, zad.zam1)
        gone = leaving.go_on(zad, zad.zam1, clock.SYSTEM.now())
        transaction.commit()


ACTS = {act.__name__: act for act in (put, cancel, retry, leave)}


def main():
    """See the module."""
    act, host, port, dispatcher, *args = sys.argv[1:]
    newSecurityManager(None, system)
    db, connection, root = open_database((host, int(port)))
    ACTS[act](root['Application'][dispatcher], *args)
    connection.close()
    db.close()


if __name__ == '__main__':
    main()
