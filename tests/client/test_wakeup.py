"""Being woken by the commits of this process, on any storage, and how often one looks."""

import threading

import pytest
import transaction
import ZODB
from ZODB.DemoStorage import DemoStorage
from ZODB.FileStorage import FileStorage
from ZODB.MappingStorage import MappingStorage

from Products.zasync.clock import SYSTEM
from Products.zasync.wakeup import LOOK_SECONDS
from Products.zasync.wakeup import Wakeup


#: Longest time a test waits for anything, in seconds.
LIMIT = 30.0


STORAGES = {
    'mapping': lambda path: MappingStorage(),
    'demo': lambda path: DemoStorage(),
    'file': lambda path: FileStorage(str(path / 'Data.fs')),
    'demo over file': lambda path: DemoStorage(base=FileStorage(str(path / 'Data.fs'))),
}


@pytest.fixture(params=sorted(STORAGES))
def db(request, tmp_path):
    """A database on each kind of storage."""
    db = ZODB.DB(STORAGES[request.param](tmp_path))
    yield db
    transaction.abort()
    db.close()


def elsewhere(action):
    """action() in another thread, to its end."""
    thread = threading.Thread(target=action)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()


def commit(db, name='mark'):
    """A commit through a connection of its own."""
    with db.transaction() as connection:
        connection.root()[name] = name


def is_woken(wakeup):
    return wakeup._event.is_set()


def test_a_commit_of_another_thread_wakes_on_any_storage(db):
    wakeup = Wakeup(SYSTEM)
    wakeup.watch(db)
    wakeup.start_looking()
    elsewhere(lambda: commit(db))
    assert is_woken(wakeup)


def test_what_is_seen_after_a_wake_up_is_what_was_committed(db):
    wakeup, seen = Wakeup(SYSTEM), []
    wakeup.watch(db)

    def look():
        for number in range(50):
            while True:
                wakeup.start_looking()
                with db.transaction() as connection:
                    if connection.root().get('number', -1) >= number:
                        break
                if not SYSTEM.wait(wakeup._event, LIMIT):
                    return
            seen.append(number)

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(50):
        with db.transaction() as connection:
            connection.root()['number'] = number
    thread.join(2 * LIMIT)
    assert seen == list(range(50))


def test_the_thread_that_looks_is_not_woken_by_itself(db):
    wakeup = Wakeup(SYSTEM)
    wakeup.watch(db)
    wakeup.start_looking()
    commit(db)
    assert not is_woken(wakeup)


def test_an_undo_wakes_too(tmp_path):
    db = ZODB.DB(FileStorage(str(tmp_path / 'Data.fs')))
    wakeup = Wakeup(SYSTEM)
    wakeup.watch(db)
    commit(db)
    wakeup.start_looking()

    def undo():
        db.undo(db.undoInfo(0, 1)[0]['id'])
        transaction.commit()

    elsewhere(undo)
    assert is_woken(wakeup)
    db.close()


def test_several_workers_of_a_process_are_all_woken_and_none_is_kept_alive(db):
    wakeups = [Wakeup(SYSTEM) for _ in range(3)]
    for wakeup in wakeups:
        wakeup.watch(db)
        wakeup.watch(db)
        wakeup.start_looking()
    elsewhere(lambda: commit(db))
    assert all(map(is_woken, wakeups))
    for _ in range(2_000):  # as many workers as tests may make
        Wakeup(SYSTEM).watch(db)
    wakeups[0].start_looking()
    elsewhere(lambda: commit(db, 'other'))
    assert is_woken(wakeups[0])


def test_between_two_looks_is_as_much_time_as_is_asked_for_but_not_for_what_is_our_own():
    clock = Waits()
    wakeup = Wakeup(clock)
    wakeup.start_looking()
    wakeup.notify()
    wakeup.wait(5.0)
    wakeup.wait(5.0, apart=0.1)
    wakeup.wait(0.05, apart=0.1)  # something is to be done by then
    assert clock.waited == pytest.approx([LOOK_SECONDS, 0.1, 0.05])
    wakeup.notify_own()
    wakeup.wait(5.0, apart=0.1)
    wakeup.give_way(0.1)
    assert len(clock.waited) == 3


def test_who_gives_way_misses_nothing():
    clock = Waits()
    wakeup = Wakeup(clock)
    wakeup.start_looking()
    wakeup.give_way(0.002)
    assert clock.waited == [0.002]
    wakeup.notify()
    wakeup.wait(5.0)
    assert clock.waited == [0.002, LOOK_SECONDS]


class Waits:
    """A clock that stands still. waited -- seconds of the waits that nothing ended."""

    def __init__(self):
        self.waited = []

    def monotonic(self):
        return 0.0

    def wait(self, event, seconds):
        if not event.is_set():
            self.waited.append(seconds)
        return event.is_set()
