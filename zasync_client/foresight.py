"""Foresight: what a put has written is asked for while the beat wakes up, not when it looks.

A worker with nothing to do is told of a put by the server, with the ids of what was written, and
would ask for these objects one after the other. Asked for at once, and in the network thread, they
are there when it looks.

Imports: zasync.
"""

import logging

from ZODB.POSException import POSKeyError
from ZODB.utils import p64
from ZODB.utils import u64

from Products.zasync import lanes
from Products.zasync.places import DESK_LANE
from Products.zasync.places import parse_id


#: A put writes two objects, and two more if it begins a chunk; what writes more is not worth it.
OIDS_MOST = 6
#: Beats that claim more than that have to do with many: then each object is loaded once for all.
CLAIMS_MOST = 4


class Foresight:
    """Of one worker and the lanes of its manager.

    is_open -- whether the worker has nothing to do. While it has, one load does for many puts.
    """

    def __init__(self):
        self.is_open = False
        self._storage = None
        self._of_lanes = {}
        self._oids = frozenset()

    def watch(self, db):
        """Ask the storage of that ZODB.DB, if it is one that can be asked ahead."""
        able = hasattr(db.storage, 'prefetch') and hasattr(db.storage, 'is_connected')
        self._storage = db.storage if able else None
        logging.getLogger('ZEO.asyncio.client').addFilter(_is_news)

    def learn(self, queue, ids):
        """Calls with these ids have been claimed: more will come by their lanes.

        One that was moved here names a lane of another manager; ours of that number does no harm.
        """
        if self._storage is None or len(ids) > CLAIMS_MOST:
            return
        for number in {parse_id(id)[0] for id in ids} - {DESK_LANE}:
            oids = lanes.written_by_next(queue.lanes[number])
            if self._of_lanes.get(number) != oids:
                self._of_lanes[number] = oids
                self._oids = frozenset().union(*self._of_lanes.values())

    def hear(self, tid, oids):
        """Others have written these objects. Called in ZEO's network thread."""
        if self.is_open and len(oids) <= OIDS_MOST and not self._oids.isdisjoint(oids) \
                and self._storage.is_connected():  # it is being closed, it may be
            self._storage.prefetch(oids, p64(u64(tid) + 1))


def _is_news(record):
    """Not that what was asked for ahead is not there: a put was undone; who loads it is told."""
    return not (record.exc_info and isinstance(record.exc_info[1], POSKeyError)
                and 'prefetch' in record.getMessage())
