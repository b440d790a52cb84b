"""What the calls of these tests do, and what puts them in Zope."""

import socket
import sys
import time

import transaction
import ZEO
import ZODB
from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from OFS.SimpleItem import SimpleItem
from ZPublisher import zpublish

from bench.jobs import apply_effect
from tests.client.jobs import wait_for_file


def work(number, seconds):
    """Effect `number`, after some time; → the name of the host."""
    apply_effect(number, seconds)
    return socket.gethostname()


def work_when_told(number, directory):
    """Effect `number`, when a file is there that has the name of this host; → that name."""
    host = socket.gethostname()
    wait_for_file(f'{directory}/{host}', 100.0)
    apply_effect(number)
    return host


class Caller(SimpleItem):
    """What a page of a site would be: it puts calls."""

    id = 'caller'
    security = ClassSecurityInfo()

    @zpublish(methods='POST')
    @security.protected('View management screens')
    def put(self, first, number, seconds):
        """Put `number` calls, of the effects from `first` on; → their ids, one a line."""
        dispatcher = self.getPhysicalRoot().asynchronous_call_dispatcher
        put = [dispatcher.putCall('zope_call', work, effect, float(seconds))
               for effect in range(int(first), int(first) + int(number))]
        return '\n'.join(f'{manager} {deferred.id}' for manager, deferred in put)


InitializeClass(Caller)


class StopsInTheMiddle:
    """A participant of a commit that never answers: the storage has voted, nobody finishes."""

    transaction_manager = transaction.manager

    def sortKey(self):
        return '~'  # after the storage

    def tpc_vote(self, txn):
        print('voted', flush=True)
        time.sleep(1000)

    def commit(self, txn):
        pass

    tpc_begin = tpc_finish = tpc_abort = abort = commit


def stop_in_the_middle(host, port):
    """Commit, and stop when the storage has its lock. Run as ``python -m tests.hosts.jobs``."""
    root = ZODB.DB(ZEO.client((host, int(port)), wait_timeout=20)).open().root()
    root['never'] = True
    transaction.get().join(StopsInTheMiddle())
    transaction.commit()


if __name__ == '__main__':
    stop_in_the_middle(*sys.argv[1:])
