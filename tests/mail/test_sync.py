"""Synchronisation as a contract: the same on Dovecot (CONDSTORE) and pymap (without)."""

import pytest
import transaction
from imapclient.exceptions import IMAPClientError

from Products.CPSMailAccess import errors
from Products.CPSMailAccess import imap
from Products.CPSMailAccess.synchronizer import Synchronizer

from .conftest import empty
from .conftest import fill
from .conftest import in_call
from .conftest import message
from .conftest import needs_dovecot
from .conftest import subjects
from .servers import DovecotServer


def synchronize(box, light=0):
    with in_call():
        return box.synchronize(light=light)


def same_as_server(box, server):
    """Whether the box holds exactly what the server has: folders, UIDs and flags."""
    there = {}
    with server.client() as client:
        client.folder_encode = False
        for flags, _delimiter, name in client.list_folders():
            name = name if isinstance(name, str) else name.decode('ascii')
            if b'\\Noselect' in flags:
                continue
            try:
                client.select_folder(name, readonly=True)
            except IMAPClientError as error:
                # Dovecot 2.3 lists a deleted folder that has others below it.
                assert "doesn't exist" in str(error) and b'\\HasChildren' in flags
                continue
            uids = client.search()
            there[name] = {uid: {flag.decode() for flag in flags} - {'\\Recent'}
                           for uid, flags in client.get_flags(uids).items()}
    here = {folder.server_name: {one.uid: set(one.flags()) for one in folder.messages(0, 10**6)}
            for folder in box.folders() if folder.selectable}
    assert here == there
    assert box.message_count() == sum(len(uids) for uids in there.values())


def test_empty_mailbox(box, server):
    assert 'INBOX: created' in synchronize(box)
    same_as_server(box, server)
    assert box.message_count() == 0
    assert box.sync_report()['state'] == 'done'


def test_messages_come_with_uid_flags_size_dates_and_envelope(box, server):
    raw = message('=?utf-8?q?H=C3=A9llo?=', '<one@example.org>')
    with server.client() as client:
        client.append('INBOX', raw, [b'\\Seen', b'\\Flagged'])
    synchronize(box)
    same_as_server(box, server)
    one, = box.folder('INBOX').messages()
    assert one.subject == 'H\xe9llo' and one.sender == 'Bob <bob@example.org>'
    assert one.message_id == '<one@example.org>'
    with server.folder() as client:
        # pymap keeps what is appended with other line ends, so it knows the size.
        told = client.fetch([one.uid], ['RFC822.SIZE', 'INTERNALDATE'])[one.uid]
    assert one.size == told[b'RFC822.SIZE']
    assert one.date_at == 1121083500.0
    assert one.internal_at == told[b'INTERNALDATE'].timestamp()
    assert one.is_seen() and one.flags() == {'\\Seen', '\\Flagged'}
    assert not one.has_body()


def test_light_run_is_inbox_only_and_full_run_all(box, server):
    with server.client() as client:
        client.create_folder('Work')
    fill(server, 2)
    fill(server, 3, 'Work')
    synchronize(box, light=1)
    assert box.server_names() == {'INBOX'} and box.message_count() == 2
    synchronize(box, light=0)
    same_as_server(box, server)
    assert box.message_count() == 5
    fill(server, 1, 'Work', start=4)
    synchronize(box, light=False)
    same_as_server(box, server)


def test_new_mail_alone_is_fetched(box, server):
    fill(server, 5)
    synchronize(box)
    fill(server, 2, start=6)
    synchronize(box)
    same_as_server(box, server)
    assert box.sync_report()['counts']['fetched'] == 2


def test_second_run_finds_nothing_to_do(box, server):
    fill(server, 3)
    synchronize(box)
    inbox = box.folder('INBOX')
    before = {one.uid: one._p_serial for one in inbox.messages()}, inbox._p_serial
    synchronize(box)
    assert ({one.uid: one._p_serial for one in inbox.messages()}, inbox._p_serial) == before
    counts = box.sync_report()['counts']
    assert (counts['fetched'], counts['deleted'], counts['flags']) == (0, 0, 0)


def test_deletions_on_the_server_are_followed(box, server):
    fill(server, 4)
    synchronize(box)
    with server.folder() as client:
        client.delete_messages(client.search()[1:3])
        client.expunge()
    synchronize(box, light=1)
    same_as_server(box, server)
    assert subjects(box.folder('INBOX')) == ['Mail 1', 'Mail 4']
    assert box.sync_report()['counts']['deleted'] == 2


def test_all_messages_deleted(box, server):
    fill(server, 3)
    synchronize(box)
    with server.folder() as client:
        client.delete_messages(client.search())
        client.expunge()
    synchronize(box)
    same_as_server(box, server)


def test_flag_changes_of_known_messages_are_followed(box, server):
    # Historic defect D.9 no. 1.
    fill(server, 4)
    synchronize(box)
    with server.folder() as client:
        first, second, *_rest = client.search()
        client.add_flags([first], [b'\\Seen', b'\\Answered'])
        client.add_flags([second], [b'\\Flagged'])
    synchronize(box)
    same_as_server(box, server)
    assert box.sync_report()['counts']['flags'] == 2
    with server.folder() as client:
        client.remove_flags([first], [b'\\Seen'])
    synchronize(box)
    same_as_server(box, server)


def test_message_marked_deleted_but_not_expunged_stays_with_its_flag(box, server):
    fill(server, 1)
    synchronize(box)
    with server.folder() as client:
        client.delete_messages(client.search())
        client.unselect_folder() if client.has_capability('UNSELECT') else client.noop()
        synchronize(box)
        assert box.folder('INBOX').messages()[0].flags() == {'\\Deleted'}


def test_move_keeps_the_body_that_was_fetched(box, server):
    # Historic defects D.9 no. 3 and 4.
    fill(server, 3)
    with server.client() as client:
        client.create_folder('Archive')
    synchronize(box)
    inbox = box.folder('INBOX')
    one = inbox.messages()[0]
    box.fetch_body(inbox, one)
    transaction.commit()
    with server.folder() as client:
        client.move([one.uid], 'Archive')
    synchronize(box)
    same_as_server(box, server)
    moved, = box.folder('Archive').messages()
    assert moved.body().rstrip().endswith(b'Text.') and moved.subject == one.subject
    assert len(box.body_index) == 1


def test_move_seen_gone_by_a_light_run_first_keeps_the_body_too(box, server):
    fill(server, 1)
    with server.client() as client:
        client.create_folder('Archive')
    synchronize(box)
    inbox = box.folder('INBOX')
    box.fetch_body(inbox, inbox.messages()[0])
    transaction.commit()
    with server.folder() as client:
        client.move(client.search(), 'Archive')
    synchronize(box, light=1)
    assert box.message_count() == 0
    synchronize(box, light=0)
    assert box.folder('Archive').messages()[0].has_body()


def test_body_of_a_deleted_message_is_let_go(box, server):
    fill(server, 1)
    synchronize(box)
    inbox = box.folder('INBOX')
    box.fetch_body(inbox, inbox.messages()[0])
    transaction.commit()
    with server.folder() as client:
        client.delete_messages(client.search())
        client.expunge()
    synchronize(box)
    assert len(box.body_index) == 0


def test_messages_with_the_same_message_id_are_kept_apart(box, server):
    with server.client() as client:
        client.append('INBOX', message('One', '<same@x>', 'first body\r\n'))
        client.append('INBOX', message('Two', '<same@x>', 'other body\r\n'))
    synchronize(box)
    inbox = box.folder('INBOX')
    for one in inbox.messages():
        box.fetch_body(inbox, one)
    bodies = {one.subject: one.body() for one in inbox.messages()}
    assert b'first' in bodies['One'] and b'other' in bodies['Two']


def test_folder_rename_creates_and_removes(box, server):
    with server.client() as client:
        client.create_folder('Before')
    fill(server, 2, 'Before')
    synchronize(box)
    with server.client() as client:
        client.rename_folder('Before', 'After')
    synchronize(box)
    same_as_server(box, server)
    assert box.server_names() == {'INBOX', 'After'}
    assert subjects(box.folder('After')) == ['Mail 1', 'Mail 2']


def test_folder_tree_and_its_removal(box, server):
    with server.client() as client:
        for name in ('A', 'A/B', 'A/B/C', 'A-B'):
            client.create_folder(name)
    fill(server, 1, 'A/B/C')
    synchronize(box)
    same_as_server(box, server)
    folder = box.folder('A/B/C')
    assert folder.getPhysicalPath()[-4:] == ('box_alice', 'A', 'B', 'C')
    assert box.unrestrictedTraverse('A/B/C').server_name == 'A/B/C'
    with server.client() as client:
        client.delete_folder('A/B/C')
        client.delete_folder('A/B')
    synchronize(box)
    assert box.server_names() == {'INBOX', 'A', 'A-B'}
    assert [child.id for child in box.A.child_folders()] == []


def test_a_deleted_folder_whose_name_stays_for_those_below_it_loses_its_messages(box, server):
    with server.client() as client:
        client.create_folder('Work')
        client.create_folder('Work/Old')
    fill(server, 2, 'Work')
    fill(server, 1, 'Work/Old')
    synchronize(box)
    box.fetch_body(box.Work, box.Work.messages()[0])
    transaction.commit()
    with server.client() as client:
        client.delete_folder('Work')
    assert 'Work: emptied' in synchronize(box)
    same_as_server(box, server)
    assert not box.Work.selectable and not box.Work.uids() and not len(box.body_index)
    report = box.sync_report()
    assert report['counts']['deleted'] == 2 and 'skipped' not in report['message']
    before = box.Work._p_serial
    assert 'emptied' not in synchronize(box) and box.Work._p_serial == before
    with server.client() as client:
        client.create_folder('Work')
    fill(server, 1, 'Work')
    assert 'emptied' not in synchronize(box)
    assert box.Work.selectable
    same_as_server(box, server)


def test_folder_deleted_while_it_is_looked_into_fails_no_run(site, pymap, monkeypatch):
    # Dovecot ends the connection in place of saying no.
    empty(pymap)
    box = site.add_box(pymap.port)
    with pymap.client() as client:
        client.create_folder('Old')
    fill(pymap, 1)
    fill(pymap, 1, 'Old')

    class Deleting(imap.ImapSession):
        def examine(self, server_name):
            state = super().examine(server_name)
            if server_name == 'Old':
                with pymap.client() as client:
                    client.delete_folder('Old')
            return state

    monkeypatch.setattr(imap, 'open_session', Deleting)
    assert 'Old: skipped' in synchronize(box)
    assert box.INBOX.message_count() == 1
    monkeypatch.undo()
    synchronize(box)
    same_as_server(box, pymap)


def test_names_outside_ascii_are_shown_decoded_and_matched_as_they_are(box, server):
    with server.client() as client:
        client.create_folder('T\xe9l\xe9 & co')
        client.create_folder('\u65e5\u672c')
    fill(server, 1, 'T\xe9l\xe9 & co')
    synchronize(box)
    same_as_server(box, server)
    assert {folder.name for folder in box.folders()} == {
        'INBOX', 'T\xe9l\xe9 & co', '\u65e5\u672c'}
    synchronize(box)
    assert box.sync_report()['counts']['deleted'] == 0


def test_a_folder_may_be_called_nil(box, server):
    with server.client() as client:
        for name in ('NIL', 'NIL/NIL', 'nil'):
            client.create_folder(name)
    fill(server, 1, 'NIL')
    synchronize(box)
    # Not same_as_server: IMAPClient can't tell that name, which pymap writes without quotes.
    assert box.server_names() == {'INBOX', 'NIL', 'NIL/NIL', 'nil'}
    assert subjects(box.folder('NIL')) == ['Mail 1']
    synchronize(box)
    assert box.message_count() == 1
    with server.client() as client:
        for name in ('NIL/NIL', 'NIL', 'nil'):
            client.delete_folder(name)


@needs_dovecot
def test_a_bracket_may_be_alone_in_a_name_and_in_a_keyword_which_may_be_nil(site):
    with DovecotServer() as server:
        with server.client() as client:
            client.create_folder('a[b')
        fill(server, 2)
        box = site.add_box(server.port)
        synchronize(box)
        with server.folder() as client:
            assert client._imap.uid('STORE', '1', '+FLAGS', '(\\Seen c[d $f NIL)')[0] == 'OK'
        synchronize(box)
        assert box.server_names() == {'INBOX', 'a[b'}
        assert box.INBOX.message(1).flags() == {'\\Seen', 'c[d', '$f', 'NIL'}
        box.fetch_body(box.INBOX, box.INBOX.message(1))
        # A mailbox that is new gets flags and headers in one answer.
        box.INBOX.drop_all()
        synchronize(box)
        assert box.INBOX.message(1).flags() == {'\\Seen', 'c[d', '$f', 'NIL'}
        assert subjects(box.INBOX) == ['Mail 1', 'Mail 2']


def test_folder_names_never_hide_what_zope_looks_for(box, server):
    names = ['manage_main', 'synchronize', 'index_html', 'title', 'acl_users', 'REQUEST',
             'aq_parent', 'asynchronous_call_dispatcher', '123', 'a folder']
    with server.client() as client:
        for name in names:
            client.create_folder(name)
    for name in names:
        fill(server, 1, name)
    for _ in range(2):
        synchronize(box)
        assert callable(box.synchronize) and box.title == 'alice'
        for name in names:
            folder = box.folder(name)
            assert folder.message_count() == 1, name
            assert box.unrestrictedTraverse(folder.id).server_name == name


def test_garbage_headers_are_stored_and_shown_as_far_as_they_go(box, server):
    with server.client() as client:
        client.append('INBOX', b'Subject: caf\xe9 =?x?q?\r\nDate: never\r\n\r\nx')
        client.append('INBOX', b'\xff\xfe\r\n:\r\nnothing here\r\n\r\n')
        client.append('INBOX', b'Subject: ' + b'A' * 60_000 + b'\r\n\r\nbody')
        client.append('INBOX', b'no header at all')
    synchronize(box)
    same_as_server(box, server)
    assert max(len(one.subject) for one in box.folder('INBOX').messages()) == 1000
    assert any('caf\xe9' in one.subject for one in box.folder('INBOX').messages())


def test_more_than_a_batch(box, server, monkeypatch):
    monkeypatch.setattr(Synchronizer, 'batch_size', 30)
    fill(server, 50)
    with in_call() as call:
        box.synchronize(light=1)
        # Lease, survey, two batches; the end is the call's own commit.
        assert call.commits == 4
    same_as_server(box, server)
    assert box.sync_report()['done'] == box.sync_report()['total'] == 50


def test_run_stopped_at_every_commit_is_continued_by_the_next(box, server, monkeypatch):
    monkeypatch.setattr(Synchronizer, 'batch_size', 2)
    fill(server, 5)
    with server.client() as client:
        client.create_folder('Work')
    fill(server, 3, 'Work')

    class Killed(BaseException):
        pass

    def kill_at(number):
        def kill(commits):
            if commits == number:
                raise Killed()
        return kill

    seen = 0
    for number in range(1, 20):
        try:
            # The same call again, as after a crash: it takes its own lease over at once.
            with in_call('call-1', before=kill_at(number)):
                assert box.synchronize(light=0) != []
            break
        except Killed:
            assert box.message_count() >= seen
            seen = box.message_count()
    else:
        raise AssertionError('the run never ended')
    same_as_server(box, server)


def test_foreground_run_belongs_to_the_transaction_of_its_caller(box, server):
    fill(server, 2)
    log = box.synchronize(light=1)
    assert len(log) > 30
    assert box.message_count() == 2
    transaction.abort()
    assert box.message_count() == 0 and box.sync_report()['state'] == 'idle'
    assert box.synchronize(no_log=True) == []
    assert box.message_count() == 2


def test_the_mail_server_refuses_the_login(box, server):
    box.set_parameters({'password': 'wr0ng'})
    transaction.commit()
    with pytest.raises(errors.LoginRefused) as caught, in_call():
        box.synchronize()
    assert 'wr0ng' not in str(caught.value)
    report = box.sync_report()
    assert report['state'] == 'failed' and 'alice' in report['reason']


def test_body_is_fetched_once_and_kept(box, server):
    fill(server, 1)
    synchronize(box)
    inbox = box.folder('INBOX')
    one = inbox.messages()[0]
    box.fetch_body(inbox, one)
    transaction.commit()
    with server.folder() as client:
        client.delete_messages(client.search())
        client.expunge()
    box.fetch_body(inbox, one)
    assert one.body().rstrip().endswith(b'Text.')


def test_body_of_a_message_that_went_says_so(box, server):
    fill(server, 1)
    synchronize(box)
    with server.folder() as client:
        client.delete_messages(client.search())
        client.expunge()
    inbox = box.folder('INBOX')
    with pytest.raises(errors.MessageGone):
        box.fetch_body(inbox, inbox.messages()[0])


def test_viewing_a_body_does_not_mark_it_seen_on_the_server(box, server):
    fill(server, 1)
    synchronize(box)
    inbox = box.folder('INBOX')
    box.fetch_body(inbox, inbox.messages()[0])
    synchronize(box)
    assert not inbox.messages()[0].is_seen()
