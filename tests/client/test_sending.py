"""What a commit stores is handed over together: to a real server, with all that may go wrong."""

import threading

import pytest
import transaction
import ZEO
import ZODB
from BTrees.LOBTree import LOBTree
from persistent.mapping import PersistentMapping
from ZEO.Exceptions import ClientDisconnected
from ZODB.blob import Blob
from ZODB.MappingStorage import MappingStorage
from ZODB.POSException import ConflictError
from ZODB.POSException import ReadConflictError

from zasync_client import sending
from zasync_client.sending import send_together


#: More than are handed over at once, and not a multiple.
MANY = 2 * sending.MOST + 7


class Client:
    """A client of the server that sends together.

    single, lists -- the messages that its network thread got: by themselves, and together.
    """

    def __init__(self, address, blob_dir):
        self.storage = ZEO.client(address, blob_dir=blob_dir, wait_timeout=2)
        self.db = ZODB.DB(self.storage)
        self.connection = self.db.open()
        self.root = self.connection.root()
        self.single, self.lists = [], []
        thread = self.storage._server.client
        send, send_all = thread.call_async, thread.call_async_iter

        def note(method, args):
            self.single.append(method)
            send(method, args)

        def note_all(messages):
            messages = list(messages)
            self.lists.append([method for method, _args in messages])
            send_all(messages)

        thread.call_async, thread.call_async_iter = note, note_all
        send_together(self.storage)

    def close(self):
        transaction.abort()
        self.connection.close()
        self.db.close()


@pytest.fixture
def client(site, tmp_path):
    made = Client(site.address, str(tmp_path / 'blobs'))
    made.root['many'] = [PersistentMapping() for _ in range(MANY)]
    made.root['tree'] = LOBTree({number: number for number in range(10)})
    transaction.commit()
    site.db.storage.ping()  # its answer comes after the news of that commit
    made.single.clear()
    made.lists.clear()
    yield made
    made.close()


def seen(site, number):
    """What others see of one of the many, once they know of all that was committed."""
    site.db.storage.ping()  # its answer comes after the news of commits before it
    site.connection.sync()
    return dict(site.root['many'][number])


def test_many_objects_are_handed_over_in_few_messages_and_few_in_one(site, client):
    for number, each in enumerate(client.root['many']):
        each['n'] = number
    transaction.commit()
    assert [len(messages) for messages in client.lists] == [sending.MOST, sending.MOST, 8]
    assert [method for messages in client.lists for method in messages] == [
        'tpc_begin', *['storea'] * MANY]
    assert [seen(site, number) for number in range(MANY)] == [{'n': n} for n in range(MANY)]
    client.lists.clear()
    client.root['many'][0]['n'] = 'one'
    transaction.commit()
    assert (client.lists, client.single) == ([['tpc_begin', 'storea']], [])
    assert seen(site, 0) == {'n': 'one'}


def test_a_conflict_is_resolved_and_one_that_can_not_be_is_told(site, client):
    client.root['tree'][100] = 1
    client.root['many'][0]['n'] = 1
    with site.db.transaction() as other:
        other.root()['tree'][50] = 1
    transaction.commit()
    site.db.storage.ping()
    site.connection.sync()
    assert {50, 100} <= set(site.root['tree'])

    client.root['many'][0]['n'] = 2
    with site.db.transaction() as other:
        other.root()['many'][0]['n'] = 3
    with pytest.raises(ConflictError):
        transaction.commit()
    transaction.abort()
    assert seen(site, 0) == {'n': 3}
    client.root['many'][0]['n'] = 4
    transaction.commit()
    assert seen(site, 0) == {'n': 4}


def test_what_a_transaction_relied_on_is_checked(site, client):
    client.connection.sync()
    client.connection.readCurrent(client.root['many'][1])
    client.root['many'][0]['n'] = 1
    client.root['many'][2]['n'] = 1
    with site.db.transaction() as other:
        other.root()['many'][1]['n'] = 1
    with pytest.raises((ConflictError, ReadConflictError)):
        transaction.commit()
    transaction.abort()
    assert seen(site, 0) == seen(site, 2) == {}


def test_nothing_of_a_transaction_that_was_given_up_is_sent_with_the_next(site, client):
    class Refuses:
        """Comes last, and votes no when all is stored and nothing sent."""

        transaction_manager = transaction.manager

        def sortKey(self):
            return '~'

        def tpc_vote(self, _transaction):
            raise ValueError('no')

        def nothing(self, *args):
            """It has nothing to do."""

        abort = tpc_begin = commit = tpc_finish = tpc_abort = nothing

    for _ in range(3):
        for each in client.root['many'][:5]:
            each['n'] = 'never'
        transaction.get().join(Refuses())
        with pytest.raises(ValueError, match='no'):
            transaction.commit()
        transaction.abort()
    client.root['many'][7]['n'] = 1
    transaction.commit()
    assert [seen(site, number) for number in (0, 4, 7)] == [{}, {}, {'n': 1}]


def test_a_commit_that_fails_in_its_end_takes_nothing_from_the_next(site, client):
    """Its lock is free by then, and another thread has stored; its abort comes in between."""
    finishing, stored, aborted = (threading.Event() for _ in range(3))
    outcome = {}

    class Waits:
        """Comes last, and waits when all is stored and nothing sent."""

        def __init__(self, manager):
            self.transaction_manager = manager

        def sortKey(self):
            return '~'

        def commit(self, _transaction):
            stored.set()
            assert aborted.wait(20)

        def nothing(self, *args):
            """It has nothing to do."""

        abort = tpc_begin = tpc_vote = tpc_finish = tpc_abort = nothing

    def fail(_tbuf, _tid):
        del client.storage._update_blob_cache
        finishing.set()
        assert stored.wait(20)
        raise OSError('no space for the cache of blobs')

    def commit(name, write, join=None):
        manager = transaction.TransactionManager()
        connection = client.db.open(manager)
        write(connection.root()['many'])
        if join is not None:
            manager.get().join(join(manager))
            assert finishing.wait(20)
        try:
            manager.commit()
        except OSError as error:
            outcome[name] = error
        manager.abort()
        connection.close()

    def write_all(many):
        for number in range(1, 6):
            many[number]['n'] = number

    client.storage._update_blob_cache = fail
    first = threading.Thread(target=commit, args=('first', lambda many: many[0].update(n=0)))
    second = threading.Thread(target=commit, args=('second', write_all, Waits))
    second.start()
    first.start()
    first.join(30)
    aborted.set()
    second.join(30)
    assert [*outcome] == ['first']
    assert [seen(site, number) for number in range(1, 6)] == [{'n': n} for n in range(1, 6)]


def test_a_blob_is_sent_after_what_was_stored_before_it(site, client, tmp_path):
    blob = Blob(b'some bytes')
    client.root['many'][0]['blob'] = blob
    client.root['many'][1]['n'] = 1
    client.connection.add(blob)
    transaction.commit()
    other = Client(site.address, str(tmp_path / 'other blobs'))
    try:
        with other.root['many'][0]['blob'].open() as file:
            assert file.read() == b'some bytes'
    finally:
        other.close()
    assert seen(site, 1) == {'n': 1}


def test_the_server_is_away_and_comes_back(site, client):
    for each in client.root['many']:
        each['n'] = 1
    site.stack.zeo.stop()
    with pytest.raises(ClientDisconnected):
        transaction.commit()
    transaction.abort()
    site.stack.zeo.start()
    site.wait(client.storage.is_connected, what='the connection')
    client.connection.sync()
    client.root['many'][3]['n'] = 2
    client.root['many'][4]['n'] = 2
    transaction.commit()
    site.wait(site.db.storage.is_connected, what='the connection of the test')
    assert [seen(site, number) for number in (0, 3, 4)] == [{}, {'n': 2}, {'n': 2}]


def test_other_storages_stay_as_they_are():
    storage = MappingStorage()
    before = dict(vars(storage))
    send_together(storage)
    assert vars(storage) == before
