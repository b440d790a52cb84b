"""What only Dovecot can show: lost servers, UIDVALIDITY, separators, empty files, CONDSTORE."""

import pytest
import transaction

from bench import imapservers
from Products.CPSMailAccess import errors
from Products.CPSMailAccess import imap
from Products.CPSMailAccess.synchronizer import Synchronizer

from .conftest import fill
from .conftest import in_call
from .conftest import message
from .conftest import needs_dovecot
from .conftest import subjects
from .servers import DovecotServer
from .servers import free_port
from .servers import PASSWORD
from .servers import Proxy
from .servers import ScriptedServer
from .servers import USER
from .test_sync import same_as_server
from .test_sync import synchronize


pytestmark = needs_dovecot


def test_a_folder_was_rebuilt_on_the_mail_server(site, fresh_dovecot):
    # Historic defect D.9 no. 2.
    box = site.add_box(fresh_dovecot.port)
    with fresh_dovecot.client() as client:
        client.create_folder('Work')
    fill(fresh_dovecot, 4)
    fill(fresh_dovecot, 2, 'Work')
    with fresh_dovecot.folder() as client:
        client.delete_messages(client.search()[:2])
        client.expunge()
    synchronize(box)
    before = box.INBOX.uidvalidity
    work = {one.uid: one._p_oid for one in box.Work.messages()}
    fresh_dovecot.stop()
    fresh_dovecot.change_uidvalidity()
    fresh_dovecot.start()
    synchronize(box)
    assert box.INBOX.uidvalidity != before
    same_as_server(box, fresh_dovecot)
    assert subjects(box.INBOX) == ['Mail 3', 'Mail 4']
    assert {one.uid: one._p_oid for one in box.Work.messages()} == work


def test_uidvalidity_change_is_no_reason_to_lose_bodies(site, fresh_dovecot):
    box = site.add_box(fresh_dovecot.port)
    fill(fresh_dovecot, 2)
    synchronize(box)
    box.fetch_body(box.INBOX, box.INBOX.messages()[0])
    transaction.commit()
    fresh_dovecot.stop()
    fresh_dovecot.change_uidvalidity()
    fresh_dovecot.start()
    synchronize(box)
    assert [one.has_body() for one in box.INBOX.messages()].count(True) == 1
    assert len(box.body_index) == 1


def test_mailbox_that_follows_another_account_keeps_nothing_of_the_first(site):
    # Dovecot's UIDVALIDITY is the second in which a folder is made; others give each the same.
    with imapservers.DovecotServer({'bob': PASSWORD, USER: PASSWORD}) as server:
        for user in server.users:
            imapservers.deliver(server, user, 'INBOX', message('For %s' % user, '<1@x>'))
            numbers = server.maildir(user) / 'dovecot-uidlist'
            numbers.write_text('3 V1121083500 N1\n')
            server.own(numbers)
        box = site.add_box(server.port, login='bob')
        synchronize(box)
        box.fetch_body(box.INBOX, box.INBOX.messages()[0])
        assert (box.INBOX.uidvalidity, subjects(box.INBOX)) == (1121083500, ['For bob'])
        box.set_parameters({'login': USER})
        synchronize(box)
        one, = box.INBOX.messages()
        assert one.subject == 'For alice' and not one.has_body()
        box.set_parameters({'login': 'bob'})
        with pytest.raises(errors.MessageGone, match='another account'):
            box.fetch_body(box.INBOX, one)
        assert 'follows another account' in synchronize(box, light=1)
        assert 'another account' not in synchronize(box, light=1)
        assert subjects(box.INBOX) == ['For bob']


def test_message_of_no_bytes(site, fresh_dovecot):
    box = site.add_box(fresh_dovecot.port)
    fresh_dovecot.deliver_raw(b'', '1121083500.1.here:2,S')
    fill(fresh_dovecot, 1)
    synchronize(box)
    same_as_server(box, fresh_dovecot)
    nothing, = [one for one in box.INBOX.messages() if one.size == 0]
    assert (nothing.subject, nothing.sender, nothing.date_at) == ('', '', None)
    box.fetch_body(box.INBOX, nothing)
    assert nothing.body() == b'' and nothing.has_body()


@pytest.mark.parametrize('separator', ['/', '.'])
def test_any_separator(site, separator):
    # Historic defect D.9 no. 10.
    with DovecotServer(separator=separator) as server:
        box = site.add_box(server.port)
        names = [separator.join(parts) for parts in (('A',), ('A', 'B'), ('A', 'B', 'C'))]
        with server.client() as client:
            for name in names:
                client.create_folder(name)
        fill(server, 2, names[-1])
        synchronize(box)
        same_as_server(box, server)
        folder = box.folder(names[-1])
        assert folder.shown_path() == 'A / B / C'
        assert folder.getPhysicalPath()[-3:] == ('A', 'B', 'C')
        synchronize(box)
        assert box.sync_report()['counts']['fetched'] == 0


def test_server_without_condstore(site):
    with DovecotServer(condstore=False) as server:
        box = site.add_box(server.port)
        fill(server, 3)
        synchronize(box)
        assert box.INBOX.modseq is None
        with server.folder() as client:
            client.add_flags(client.search()[:1], [b'\\Flagged'])
        synchronize(box)
        same_as_server(box, server)
        assert box.sync_report()['counts']['flags'] == 1


def test_unchanged_folders_are_opened_and_not_listed(site, dovecot):
    box = site.add_box(dovecot.port)
    fill(dovecot, 3)
    synchronize(box)
    seen = bytearray()

    def watch(sent):
        seen[:] = sent
        return False

    with Proxy(dovecot.port, watch) as proxy:
        box.set_parameters({'PORT': proxy.port})
        synchronize(box)
    assert b'EXISTS' in seen and b'* SEARCH' not in seen and b'FETCH (' not in seen


def test_only_changed_flags_are_sent_with_condstore(site, dovecot):
    box = site.add_box(dovecot.port)
    fill(dovecot, 20)
    synchronize(box)
    with dovecot.folder() as client:
        client.add_flags(client.search()[:1], [b'\\Flagged'])
    seen = bytearray()

    def watch(sent):
        seen[:] = sent
        return False

    with Proxy(dovecot.port, watch) as proxy:
        box.set_parameters({'PORT': proxy.port})
        synchronize(box)
    assert seen.count(b' FETCH (') == 1
    same_as_server(box, dovecot)


def test_server_lost_in_mid_run_deletes_nothing_and_the_next_run_goes_on(
        site, dovecot, monkeypatch):
    monkeypatch.setattr(Synchronizer, 'batch_size', 5)
    box = site.add_box(dovecot.port)
    fill(dovecot, 3)
    synchronize(box)
    fill(dovecot, 20, start=4)
    with Proxy(dovecot.port, lambda sent: sent.count(b'BODY[HEADER') > 8) as proxy:
        box.set_parameters({'PORT': proxy.port})
        transaction.commit()
        with pytest.raises(errors.ConnectionLost), in_call('call-2'):
            box.synchronize(light=0)
        assert proxy.cuts == 1
    report = box.sync_report()
    assert report['state'] == 'failed' and 'closed the connection' in report['reason']
    kept = box.message_count()
    assert kept == 8  # the first run's three and one whole batch
    box.set_parameters({'PORT': dovecot.port})
    synchronize(box)
    same_as_server(box, dovecot)
    assert box.sync_report()['counts']['fetched'] == 23 - kept


@pytest.mark.parametrize('size', [1, 30, 200, 700, 1100, 1600, 2500])
def test_the_connection_to_the_mail_server_is_lost(site, dovecot, size):
    box = site.add_box(dovecot.port)
    with dovecot.client() as client:
        client.create_folder('Work')
    fill(dovecot, 3)
    fill(dovecot, 2, 'Work')
    synchronize(box)
    before = box.message_count()
    with dovecot.folder() as client:
        # So that folders are listed again.
        client.add_flags(client.search(), [b'\\Flagged'])
    with Proxy(dovecot.port, lambda sent: len(sent) > size) as proxy:
        box.set_parameters({'PORT': proxy.port})
        transaction.commit()
        try:
            with in_call('call-2'):
                box.synchronize(light=0)
        except errors.MailError as error:
            assert box.sync_report()['reason'] == str(error)
    assert box.message_count() == before
    box.set_parameters({'PORT': dovecot.port})
    synchronize(box)
    same_as_server(box, dovecot)


@pytest.mark.parametrize('error', ['refused', 'silent'])
def test_the_mail_server_does_not_answer(site, dovecot, error):
    box = site.add_box(dovecot.port)
    fill(dovecot, 2)
    synchronize(box)
    with ScriptedServer(greeting=None) as silent:
        box.set_parameters({'PORT': free_port() if error == 'refused' else silent.port,
                            'CONNECT_SECONDS': 0.3})
        transaction.commit()
        with pytest.raises(errors.MailError), in_call('call-2'):
            box.synchronize()
    transaction.abort()
    report = box.sync_report()
    assert report['state'] == 'failed' and '127.0.0.1' in report['reason']
    assert box.message_count() == 2


def test_message_moved_into_a_folder_that_can_not_be_opened_keeps_its_body(site, dovecot):
    box = site.add_box(dovecot.port)
    with dovecot.client() as client:
        client.create_folder('Work')
    fill(dovecot, 1)
    synchronize(box)
    box.fetch_body(box.INBOX, box.INBOX.messages()[0])
    transaction.commit()
    with dovecot.folder() as client:
        client.move(client.search(), 'Work')
    directory = dovecot.folder_dir(USER, 'Work')
    (directory / 'cur').rename(directory / 'cur.away')
    (directory / 'cur').touch()
    try:
        for _ in range(2):
            assert 'Work: skipped' in synchronize(box)
    finally:
        (directory / 'cur').unlink()
        (directory / 'cur.away').rename(directory / 'cur')
    assert box.message_count() == 0
    synchronize(box)
    assert box.Work.messages()[0].has_body()
    with dovecot.folder('Work') as client:
        client.delete_messages(client.search())
        client.expunge()
    synchronize(box)
    assert len(box.body_index) == 0


class Forgetful(imap.ImapSession):
    """A session that leaves some UIDs out of its answers."""

    forgets = frozenset()

    def headers(self, uids):
        found = super().headers(uids)
        return {uid: one for uid, one in found.items() if uid not in self.forgets}


def test_message_left_out_of_an_answer_is_fetched_next_time(site, dovecot, monkeypatch):
    box = site.add_box(dovecot.port)
    fill(dovecot, 4)
    with dovecot.folder() as client:
        uids = client.search()
    monkeypatch.setattr(Forgetful, 'forgets', frozenset(uids[:1]))
    monkeypatch.setattr(imap, 'open_session', Forgetful)
    with in_call():
        log = box.synchronize(light=0)
    assert '1 message not sent, left for next time' in log
    assert box.message_count() == 3
    monkeypatch.setattr(Forgetful, 'forgets', frozenset())
    synchronize(box)
    same_as_server(box, dovecot)


def test_message_left_out_of_an_answer_after_a_rebuild_gets_its_body_next_time(
        site, fresh_dovecot, monkeypatch):
    box = site.add_box(fresh_dovecot.port)
    fill(fresh_dovecot, 2)
    synchronize(box)
    box.fetch_body(box.INBOX, box.INBOX.messages()[0])
    transaction.commit()
    fresh_dovecot.stop()
    fresh_dovecot.change_uidvalidity()
    fresh_dovecot.start()
    monkeypatch.setattr(Forgetful, 'forgets', frozenset((1, 2)))
    with monkeypatch.context() as patched:
        patched.setattr(imap, 'open_session', Forgetful)
        synchronize(box)
    assert box.message_count() == 0
    synchronize(box)
    assert [one.has_body() for one in box.INBOX.messages()].count(True) == 1


class Incomplete(imap.ImapSession):
    """A session whose listings lack a message, as after a SEARCH that failed quietly."""

    def list_messages(self, state):
        found = super().list_messages(state)
        return type(found)(found.state, frozenset(sorted(found.uids)[1:]), False)


def test_incomplete_listing_deletes_nothing(site, dovecot, monkeypatch):
    box = site.add_box(dovecot.port)
    fill(dovecot, 4)
    synchronize(box)
    fill(dovecot, 1, start=5)
    with monkeypatch.context() as patched:
        patched.setattr(imap, 'open_session', Incomplete)
        with in_call():
            assert 'nothing will be deleted' in box.synchronize(light=0)
    assert box.message_count() == 5
    synchronize(box)
    same_as_server(box, dovecot)


def test_folder_that_can_not_be_read_holds_nobody_up_and_keeps_its_messages(site, dovecot):
    box = site.add_box(dovecot.port)
    with dovecot.client() as client:
        client.create_folder('Work')
    fill(dovecot, 2, 'Work')
    synchronize(box)
    fill(dovecot, 1)
    directory = dovecot.folder_dir(USER, 'Work')
    (directory / 'cur').rename(directory / 'cur.away')
    (directory / 'cur').touch()
    try:
        with in_call():
            log = box.synchronize(light=0)
    finally:
        (directory / 'cur').unlink()
        (directory / 'cur.away').rename(directory / 'cur')
    assert 'Work: skipped' in log
    assert box.INBOX.message_count() == 1 and box.Work.message_count() == 2
    assert box.sync_report()['state'] == 'done'
