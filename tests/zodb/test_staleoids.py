"""A client that lived through a restart of its ZEO server has ids that others use by now."""

import pytest
import transaction
from persistent.mapping import PersistentMapping
from ZEO.ClientStorage import ClientStorage
from ZODB.DB import DB

from Products.zasync import lanes
from Products.zasync import putting
from Products.zasync.queue import Queue
from tests.fakes import make_call
from zasync_client.database import Database
from zasync_client.database import StaleOid
from zasync_client.database import unit_of_work


@pytest.fixture
def db(zeo_address):
    """A client of the server; its root has a queue and what else is needed."""
    db = DB(ClientStorage(zeo_address, wait_timeout=60))
    with db.transaction() as connection:
        connection.root()['stale'] = Queue()
        connection.root()['Application'] = PersistentMapping()
    yield db
    transaction.abort()
    db.close()


def have_ready(db, oid):
    """As if the server had promised that id before it was restarted."""
    db.storage._oids[:] = [oid]


def put(connection):
    queue = connection.root()['stale']
    return putting.put(queue, queue.names, make_call(), 'zam').id


def test_a_put_after_one_that_got_the_id_of_what_is_loaded_is_not_lost(db, monkeypatch):
    """The lane is disowned by the abort, and would swallow each later put of this connection."""
    monkeypatch.setattr(lanes, 'current', lambda: 3)
    monkeypatch.setattr(lanes, 'move', lambda: None)
    connection = db.open()
    have_ready(db, connection.root()['stale'].lanes[3]._p_oid)
    transaction.begin()
    put(connection)
    with pytest.raises(ValueError, match='same oid'):
        transaction.commit()
    transaction.abort()
    connection.close()  # as at the end of each request

    connection = db.open()
    id = put(connection)
    transaction.commit()
    connection.close()
    other = DB(ClientStorage(db.storage._addr, wait_timeout=60, server_sync=True))
    try:
        with other.transaction() as elsewhere:
            assert elsewhere.root()['stale'].find(id).id == id
    finally:
        other.close()


def test_a_worker_repeats_such_a_commit_and_forgets_what_it_has_loaded(db):
    database = Database(db, ('', 'zam'), 1)

    def change(number):
        with unit_of_work('a test'):
            application = database.application()
            application['number'] = number
            application['new'] = PersistentMapping()

    change(1)
    have_ready(db, database.application()._p_oid)
    with pytest.raises(StaleOid):
        change(2)
    change(3)
    database.close()
    with db.transaction() as connection:
        assert connection.root()['Application']['number'] == 3
