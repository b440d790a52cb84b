"""Synchronizer and folders with a server in memory: what no real server does on demand."""

import random

import pytest
import transaction

from Products.CPSMailAccess import errors
from Products.CPSMailAccess.mailmessage import MessageBody
from Products.CPSMailAccess.reading import REFUSED_MOST
from Products.CPSMailAccess.synchronizer import Synchronizer
from Products.CPSMailAccess.syncstatus import TEXT_LENGTH
from Products.CPSMailAccess.values import RemoteFolder
from Products.CPSMailAccess.values import RemoteMessage

from .fakes import FakeRun
from .fakes import FakeServer
from .fakes import Hand


@pytest.fixture
def box(site):
    return site.add_box(143)


def run(box, server, light=0):
    synchronizer = Synchronizer(box, server.session, FakeRun('call-1', transaction.manager),
                                Hand())
    try:
        assert synchronizer.synchronize(light)
    finally:
        transaction.commit()
    return synchronizer


def test_the_mail_server_refuses_to_read_a_message(box):
    server = FakeServer(INBOX=range(1, 301), Work=range(1, 3))
    server.broken = frozenset((7, 250))
    log = run(box, server).log
    assert box.INBOX.uids() == set(range(1, 301)) - {7, 250}
    assert box.Work.message_count() == 2
    assert 'message 7: skipped, can not read it' in log
    assert 'INBOX: 2 messages not sent, left for next time' in log
    assert box.sync_report()['state'] == 'done'
    assert 'refused to give 2 messages, left for next time.' in box.sync_report()['message']
    server.broken = frozenset()
    run(box, server, light=1)
    assert box.INBOX.message_count() == 300 and box.sync_status.progress.counts['fetched'] == 2


def test_server_that_refuses_to_read_anything_is_not_asked_for_each_message(box):
    server = FakeServer(INBOX=range(1, 1001))
    server.broken = frozenset(range(1, 1001))
    with pytest.raises(errors.CommandRefused):
        run(box, server)
    assert len(server.asked) < 10 * REFUSED_MOST
    assert box.sync_report()['state'] == 'failed'
    assert box.sync_report()['reason'] == 'can not read it'


def test_eleven_broken_messages_keep_no_other_and_no_folder_away(box):
    server = FakeServer(INBOX=range(1, 301), Work=range(1001, 1005))
    server.broken = frozenset(range(290, 301))
    run(box, server)
    # The eleventh was not looked for, and kept its neighbour with it.
    assert box.INBOX.uids() == set(range(1, 289))
    assert box.Work.message_count() == 4
    assert box.sync_report()['state'] == 'done'
    assert 'refused to give 12 messages, left for next time.' in box.sync_report()['message']
    run(box, server)
    assert box.INBOX.uids() == set(range(1, 290))
    assert 'refused to give 11 messages, left for next time.' in box.sync_report()['message']


@pytest.mark.parametrize('broken', [
    range(101, 301), range(1, 301, 3), [*range(1, 150), *range(200, 301)], range(2, 301)])
def test_every_run_comes_further_past_broken_messages_and_asks_only_so_much(box, broken):
    server = FakeServer(INBOX=range(1, 301), Work=range(1001, 1005))
    server.broken = frozenset(broken)
    good, known = set(range(1, 301)) - server.broken, set()
    for _ in range(len(broken) // REFUSED_MOST + 1):
        server.asked = []
        run(box, server)
        assert box.INBOX.uids() <= good and box.Work.message_count() == 4
        assert len(server.asked) < 20 * REFUSED_MOST
        refused = set(box.INBOX.snapshot().refused)
        assert known <= refused <= server.broken
        assert len(refused - known) >= REFUSED_MOST or refused == server.broken
        known = refused
    assert box.INBOX.uids() == good
    # From now on only those are asked for, and new mail comes whatever they do.
    server.folders['INBOX'][301] = frozenset()
    run(box, server, light=1)
    assert box.INBOX.uids() == good | {301}


def test_messages_that_were_refused_are_had_as_soon_as_the_server_reads_them(box):
    server = FakeServer(INBOX=range(1, 301))
    broken = range(1, 26)
    server.broken = frozenset(broken)
    for _ in range(3):
        run(box, server, light=1)
    # One of them is asked for alone in one of three runs, whatever the others do.
    server.broken -= {13}
    for _ in range(3):
        run(box, server, light=1)
    assert 13 in box.INBOX.uids()
    server.broken = frozenset()
    run(box, server, light=1)
    assert box.INBOX.message_count() == 300 and box.INBOX.snapshot().refused == ()


def test_a_run_that_finds_the_same_messages_broken_writes_nothing_of_their_folder(box):
    server = FakeServer(INBOX=range(1, 301))
    server.broken = frozenset((7, 250))
    run(box, server)
    before = box.INBOX._p_serial
    run(box, server)
    assert box.INBOX._p_serial == before
    del server.folders['INBOX'][7]
    run(box, server)
    assert box.INBOX.snapshot().refused == (250,)


def test_what_was_refused_is_remembered_when_the_connection_is_lost_later(box):
    server = FakeServer(INBOX=range(1, 301))
    server.broken = frozenset(range(280, 301))

    def lose():
        raise errors.ConnectionLost('lost')

    server.on('headers of the oldest', lose)
    with pytest.raises(errors.ConnectionLost):
        run(box, server)
    assert box.INBOX.uids() < set(range(1, 280))
    assert len(box.INBOX.snapshot().refused) >= REFUSED_MOST
    for _ in range(2):
        run(box, server)
    assert box.INBOX.uids() == set(range(1, 280))


def test_a_folder_of_the_mail_server_can_not_be_opened(box):
    server = FakeServer(INBOX=range(1, 4), Old=range(1, 3), Work=range(1, 3))
    server.locked = frozenset(('Old',))
    run(box, server)
    assert box.sync_report()['state'] == 'done'
    assert box.INBOX.message_count() == 3 and box.Work.message_count() == 2
    assert box.sync_report()['message'].endswith(' 1 folder skipped: Old.')
    # What is stored of it stays.
    server.locked = frozenset()
    run(box, server)
    assert box.Old.message_count() == 2 and 'skipped' not in box.sync_report()['message']
    server.locked = frozenset(('INBOX', 'Old'))
    del server.folders['Work'][1]
    run(box, server)
    assert box.sync_report()['message'].endswith(' 2 folders skipped: INBOX, Old.')
    assert (box.Old.message_count(), box.Work.message_count()) == (2, 1)


@pytest.mark.parametrize('what', ['list_messages', 'flags'])
def test_folder_that_can_be_opened_and_not_looked_into_keeps_no_other_away(box, what):
    server = FakeServer(INBOX=range(1, 4), Old=range(1, 3), Work=range(1, 3))
    run(box, server)
    server.refuses = frozenset((what,))
    server.folders['INBOX'][4] = server.folders['Old'][3] = frozenset()
    del server.folders['Old'][1], server.folders['Work'][1]
    log = run(box, server).log
    assert box.INBOX.uids() == {1, 2, 3, 4} and box.Work.uids() == {2}
    assert box.Old.uids() == {1, 2} and 'Old: skipped, no %s' % what in log
    report = box.sync_report()
    assert report['state'] == 'done' and report['counts']['folders'] == 2
    assert report['message'].endswith(' 1 folder skipped: Old.')
    server.refuses = frozenset()
    run(box, server)
    assert box.Old.uids() == {2, 3}


def test_light_run_that_can_not_open_the_inbox_fails_and_says_so(box):
    server = FakeServer(INBOX=range(1, 4), Work=range(1, 3))
    run(box, server)
    server.locked = frozenset(('INBOX',))
    with pytest.raises(errors.FolderUnreadable):
        run(box, server, light=1)
    report = box.sync_report()
    assert (report['state'], report['reason']) == ('failed', 'can not open INBOX')
    assert box.INBOX.message_count() == 3


def test_full_run_that_can_open_no_folder_fails_after_following_the_list(box):
    server = FakeServer(INBOX=range(1, 4), Old=range(1, 3))
    run(box, server)
    server.folders['New'] = server.folders.pop('Old')
    server.locked = frozenset(server.folders)
    with pytest.raises(errors.FolderUnreadable):
        run(box, server)
    assert box.sync_report()['reason'] == 'can not open INBOX'
    assert box.server_names() == {'INBOX', 'New'} and box.INBOX.message_count() == 3


def test_folder_that_can_not_be_opened_any_more_when_it_is_to_be_fetched_is_told_of(box):
    server = FakeServer(INBOX=range(1, 4), Work=range(1, 3))

    def lock():
        server.locked = frozenset(('Work',))

    server.on('headers', lock)
    run(box, server)
    assert box.INBOX.message_count() == 3 and box.Work.message_count() == 0
    assert box.sync_report()['message'].endswith(' 1 folder skipped: Work.')


def test_a_request_joined_to_a_run_takes_back_what_the_run_said_of_the_inbox(box):
    server = FakeServer(INBOX=range(1, 4), Work=range(1, 3))
    server.locked = frozenset(('INBOX',))

    def ask():
        server.locked = frozenset()
        box.sync_requests.ask(1)

    server.on('logout', ask)
    run(box, server)
    assert server.opened == 2 and box.INBOX.message_count() == 3
    assert 'skipped' not in box.sync_report()['message']


def test_many_folders_and_long_names_that_can_not_be_opened_are_told_of_in_one_sentence(box):
    names = ['f%02d' % number + 'x' * 200 for number in range(30)]
    server = FakeServer(INBOX=(), **{name: () for name in names})
    server.locked = frozenset(names)
    run(box, server)
    message = box.sync_report()['message']
    assert ' 30 folders skipped: f00xxx' in message and message.endswith('… and 25 more.')
    assert len(message) < TEXT_LENGTH


def test_entry_of_a_body_fetched_while_its_message_went_is_swept_in_time(box):
    server = FakeServer(INBOX=range(1, 4))
    run(box, server)
    inbox = box.INBOX
    gone = inbox.message(1)
    del server.folders['INBOX'][1]
    run(box, server)
    # Somebody's request fetched it meanwhile, and commits now.
    box.body_index.enter('key', object(), ('INBOX', gone.uid))
    del server.folders['INBOX'][2]
    run(box, server, light=1)
    run(box, server)
    assert len(box.body_index) == 0


def test_bodies_of_messages_that_went_are_let_go_whatever_is_refused_or_was_never_opened(box):
    server = FakeServer(INBOX=range(1, 4), Shared=range(1, 3))
    server.locked, server.broken = frozenset(('Shared',)), frozenset((2,))
    run(box, server)
    box.body_index.enter('key', MessageBody(b'', True), ('INBOX', 1))
    del server.folders['INBOX'][1]
    run(box, server)
    assert 'skipped: Shared' in box.sync_report()['message'] and box.INBOX.uids() == {3}
    assert len(box.body_index) == 0


@pytest.fixture
def large(site, box):
    """A folder of 20,000 messages, nothing of it in the cache."""
    box.create_folder(RemoteFolder('INBOX', ('INBOX',)))
    for uid in range(20_000, 0, -1):
        box.INBOX.add(RemoteMessage(uid))
    transaction.commit()
    site.connection.cacheMinimize()
    return box.INBOX


def loads(site, function, *args):
    """How many objects a call loads; and its result."""
    site.connection.cacheMinimize()
    site.connection.getTransferCounts(True)
    result = function(*args)
    return site.connection.getTransferCounts()[0], result


def test_pages_of_a_large_folder_load_what_they_show(site, large):
    for start in (0, 100, 19_950):
        loaded, page = loads(site, large.messages, start, 50)
        assert [one.uid for one in page] == list(range(20_000 - start, 19_950 - start, -1))
        assert loaded < 50 + 20, start
    # In the middle the leaves of half the folder are walked, and no message of theirs.
    assert loads(site, large.messages, 10_000, 50)[0] < 50 + 500
    # A batch of deletions loads no message either.
    assert loads(site, lambda: [large.discard(uid) for uid in range(1, 201)])[0] < 50
    transaction.abort()


def test_any_slice_of_a_folder_is_as_a_list_has_it(box):
    box.create_folder(RemoteFolder('INBOX', ('INBOX',)))
    chosen = random.Random(7)
    uids = sorted(chosen.sample(range(1, 2**32), 200), reverse=True)
    for uid in uids:
        box.INBOX.add(RemoteMessage(uid))
    for _ in range(300):
        start, count = chosen.randrange(220), chosen.randrange(60)
        found = [one.uid for one in box.INBOX.messages(start, count)]
        assert found == uids[start:start + count], (start, count)
    assert [one.uid for one in box.INBOX.messages(-3, 2)] == uids[:2]
