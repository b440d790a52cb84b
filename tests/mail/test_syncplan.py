"""syncplan: what is done for which two snapshots."""

import pytest

from Products.CPSMailAccess import syncplan
from Products.CPSMailAccess.syncplan import FLAGS_ALL
from Products.CPSMailAccess.syncplan import FLAGS_NONE
from Products.CPSMailAccess.syncplan import FLAGS_SINCE
from Products.CPSMailAccess.values import FolderState
from Products.CPSMailAccess.values import RemoteFolder
from Products.CPSMailAccess.values import Snapshot


def remote(*names, separator='/'):
    folders = []
    for name in names:
        parts = name.split(separator)
        parents = tuple(separator.join(parts[:depth]) for depth in range(1, len(parts)))
        folders.append(RemoteFolder(name, tuple(parts), parents))
    return folders


def names(folders):
    return [folder.server_name for folder in folders]


def snapshot(uids=(), uidvalidity=1, modseq=None, complete=True):
    return Snapshot(FolderState(uidvalidity, None, len(uids), modseq), frozenset(uids), complete)


def test_full_run_creates_parents_first_and_looks_into_inbox_first():
    plan = syncplan.plan_folders(remote('B/C', 'B', 'A', 'INBOX'), (), light=0)
    assert names(plan.create) == ['A', 'B', 'INBOX', 'B/C']
    assert names(plan.scan) == ['INBOX', 'A', 'B', 'B/C']


def test_full_run_removes_what_is_not_listed_children_first():
    plan = syncplan.plan_folders(remote('INBOX'), ('INBOX', 'Old', 'Old/Older'), light=0)
    assert plan.remove == ('Old/Older', 'Old')


def test_light_run_is_inbox_alone_and_removes_nothing():
    plan = syncplan.plan_folders((), ('INBOX', 'Old'), light=1)
    assert (plan.create, names(plan.scan), plan.remove) == ((), ['INBOX'], ())


def test_empty_list_removes_nothing():
    assert syncplan.plan_folders((), ('INBOX', 'Old'), light=0).remove == ()


def test_parents_that_are_not_listed_are_made_but_not_opened():
    plan = syncplan.plan_folders(remote('A.B.C', separator='.'), ('INBOX',), light=0)
    assert names(plan.create) == ['A', 'A.B', 'A.B.C']
    assert names(plan.scan) == ['INBOX', 'A.B.C']


def test_listed_parent_stays_selectable_whatever_the_order():
    plan = syncplan.plan_folders(remote('A/B', 'A'), ('INBOX',), light=0)
    assert names(plan.scan) == ['INBOX', 'A', 'A/B']


@pytest.mark.parametrize('before, now, rebuild', [
    ('a@x', 'a@x', False), ('a@x', 'b@x', True), (None, 'a@x', False)])
def test_uids_of_another_account_mean_nothing(before, now, rebuild):
    here, there = (Snapshot(FolderState(1, 3, 2, 9, whose), frozenset([1, 2]))
                   for whose in (before, now))
    plan = syncplan.plan_messages(here, there)
    assert (plan.rebuild, plan.to_fetch) == (rebuild, 2 if rebuild else 0)
    assert syncplan.is_unchanged(here.state, 2, there.state) is (before == now)


def test_a_name_only_is_emptied_whether_it_is_listed_or_not():
    listed = [RemoteFolder('A', ('A',), selectable=False), *remote('A/B', 'C/D', 'INBOX')]
    plan = syncplan.plan_folders(listed, ('A', 'A/B', 'C', 'INBOX'), light=0)
    assert plan.empty == ('A', 'C') and plan.remove == ()


def test_whatever_has_others_below_it_may_be_a_name_only_but_for_inbox():
    listed = remote('A', 'A.B', 'A.B.C', 'D', 'INBOX', 'INBOX.E', separator='.')
    assert syncplan.plan_folders(listed, (), light=0).above == {'A', 'A.B'}
    assert syncplan.plan_folders((), ('A',), light=1).above == frozenset()


@pytest.mark.parametrize('listed', [
    remote('INBOX.A', separator='.'),
    [RemoteFolder('INBOX', ('INBOX',), selectable=False)]])
def test_inbox_is_looked_into_whatever_is_listed(listed):
    plan = syncplan.plan_folders(listed, ('INBOX',), light=0)
    assert names(plan.scan)[0] == 'INBOX' and plan.empty == ()


def test_renamed_folder_is_created_and_removed():
    plan = syncplan.plan_folders(remote('INBOX', 'New'), ('INBOX', 'Old'), light=0)
    assert names(plan.create) == ['New'] and plan.remove == ('Old',)


def test_only_unknown_uids_are_fetched_newest_first_in_bounded_batches():
    plan = syncplan.plan_messages(snapshot([1, 2]), snapshot(range(1, 424)))
    assert [len(batch) for batch in plan.batches] == [200, 200, 21]
    assert plan.batches[0][0] == 423 and plan.batches[-1][-1] == 3
    assert plan.to_fetch == 421 and not plan.vanished


def test_what_was_refused_is_fetched_apart_and_last_while_its_numbers_mean_the_same():
    def plan(uidvalidity):
        local = Snapshot(FolderState(1), frozenset([1]), refused=(5, 9, 3, 1))
        return syncplan.plan_messages(local, snapshot([1, 2, 3, 4, 5], uidvalidity))
    assert plan(1).batches == ((4, 2),) and plan(1).again == (5, 3) and plan(1).to_fetch == 4
    assert plan(2).batches == ((5, 4, 3, 2, 1),) and plan(2).again == ()


def test_vanished_needs_a_complete_listing():
    assert syncplan.plan_messages(snapshot([1, 2, 3]), snapshot([2])).vanished == {1, 3}
    partial = syncplan.plan_messages(snapshot([1, 2, 3]), snapshot([2], complete=False))
    assert not partial.vanished and not partial.complete


def test_new_uidvalidity_drops_and_fetches_everything():
    plan = syncplan.plan_messages(snapshot([1, 2, 3], 1), snapshot([1, 2], 2))
    assert plan.rebuild and plan.batches == ((2, 1),)
    assert not plan.vanished and not plan.known and plan.flags == FLAGS_NONE


def test_first_run_is_no_rebuild():
    assert not syncplan.plan_messages(snapshot(uidvalidity=None), snapshot([1])).rebuild


@pytest.mark.parametrize('stored, now, how', [
    (None, None, FLAGS_ALL), (None, 5, FLAGS_ALL), (5, None, FLAGS_ALL),
    (5, 6, FLAGS_SINCE), (5, 5, FLAGS_NONE), (6, 5, FLAGS_ALL)])
def test_how_flags_are_learnt(stored, now, how):
    plan = syncplan.plan_messages(snapshot([1], modseq=stored), snapshot([1], modseq=now))
    assert plan.flags == how


def test_no_known_message_no_flags_asked():
    assert syncplan.plan_messages(snapshot(), snapshot([1])).flags == FLAGS_NONE


@pytest.mark.parametrize('stored, now, unchanged', [
    (FolderState(1, 10, 5, 7), FolderState(1, 10, 5, 7), True),
    (FolderState(1, 10, 5, 7), FolderState(1, 10, 5, 8), False),
    (FolderState(1, 10, 5, 7), FolderState(1, 11, 5, 7), False),
    (FolderState(1, 10, 5, 7), FolderState(1, 10, 4, 7), False),
    (FolderState(1, 10, 5, 7), FolderState(2, 10, 5, 7), False),
    (FolderState(1, 10, 5, None), FolderState(1, 10, 5, None), False),
    (FolderState(1, None, 5, 7), FolderState(1, None, 5, 7), False),
    (None, FolderState(1, 10, 5, 7), False)])
def test_when_a_folder_can_be_skipped(stored, now, unchanged):
    assert syncplan.is_unchanged(stored, 5, now) is unchanged


def test_a_folder_that_lacks_messages_is_never_skipped():
    state = FolderState(1, 10, 5, 7)
    assert not syncplan.is_unchanged(state, 4, state)


@pytest.mark.parametrize('listed, exists, expunged, complete', [
    (5, 5, 0, True), (6, 5, 0, True), (4, 5, 0, False), (4, 5, 1, True), (0, 5, 0, False)])
def test_when_a_listing_is_complete(listed, exists, expunged, complete):
    assert syncplan.is_complete(listed, exists, expunged) is complete


def test_changed_flags_are_those_of_known_messages_that_differ():
    local = {1: frozenset(['\\Seen']), 2: frozenset()}
    told = {1: frozenset(['\\Seen']), 2: frozenset(['\\Seen']), 3: frozenset(['\\Seen'])}
    assert syncplan.changed_flags(local, told) == {2: frozenset(['\\Seen'])}


@pytest.mark.parametrize('name, taken, id', [
    ('Sent', (), 'Sent'), ('[BCEAO]', (), 'BCEAO'), ('T\xe9l\xe9phone', (), 'Telephone'),
    ('\u65e5\u672c', (), 'folder'), ('a b/c', (), 'abc'), ('_x__', (), 'x'), ('.1', (), '1'),
    ('Sent', ('Sent',), 'Sent-2'), ('Sent', ('Sent', 'Sent-2'), 'Sent-3'), ('', (), 'folder'),
    ('<script>', (), 'script'), ('manage_main', (), 'folder-manage_main'),
    ('aq_x', ('folder-aq_x',), 'folder-aq_x-2'), ('URL1', (), 'URL1-2'),
    ('HTTP_HOST', ('HTTP_HOST-2',), 'HTTP_HOST-3'), ('REQUEST', (), 'REQUEST-2'),
    ('URLs', (), 'URLs'), ('SPAM', (), 'SPAM'), ('last', (), 'last-2'), ('x' * 500, (), 'x' * 80)])
def test_folder_ids_are_safe_and_unique(name, taken, id):
    assert syncplan.folder_id(name, taken.__contains__) == id


def test_plan_applied_to_its_own_result_does_nothing():
    after = snapshot([1, 2, 3], modseq=9)
    plan = syncplan.plan_messages(after, after)
    assert not plan.batches and not plan.vanished and plan.flags == FLAGS_NONE
