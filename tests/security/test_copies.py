"""What a copy gives away: Zope asks only about the topmost object that somebody copies."""

import re

import pytest
import transaction
from OFS.CopySupport import _cb_encode

from Products.CPSMailAccess import mailtool
from Products.CPSMailAccess.mailtool import MailTool
from Products.CPSMailAccess.values import Envelope
from Products.CPSMailAccess.values import RemoteFolder
from Products.CPSMailAccess.values import RemoteMessage
from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.secretkeys import secret_key
from tests.zopeapp import Site
from tests.zopeapp import started


SUBJECT = 'The will of aunt Agatha'
PASSWORD = 'open sesame'


@pytest.fixture
def site(tmp_path):
    """A folder with a tool and a manager; eve may do all in a folder of her own, and only there.
    """
    started()
    with secret_key(tmp_path / 'secret.key'):
        made = Site()
        made.add_user('alice')
        made.login('admin')
        made.app.manage_addFolder('shop')
        furnish(made.app.shop)
        made.app.manage_addFolder('eves')
        made.app.eves.manage_setLocalRoles('eve', ['Manager'])
        made.logout()
        transaction.commit()
        yield made
        made.close()


def furnish(place):
    place._setObject('portal_webmail', MailTool())
    box = mailtool.add_mail_box(place.portal_webmail, 'alice', host='mail.example.org',
                                password=PASSWORD)
    inbox = box.create_folder(RemoteFolder('INBOX', ('INBOX',)))
    inbox.add(RemoteMessage(1, envelope=Envelope(subject=SUBJECT)))
    box.create_folder(RemoteFolder('INBOX/Work', ('INBOX', 'Work'), ('INBOX',)))
    place._setObject('zam', AsynchronousCallManager('zam'))
    place.zam.setPeriodicCall('nightly', '0 3 * * *', 'UTC', 'zope_exec', (
        '/', {}, 'string:token-4711'))


def paste(browser, place, *paths):
    """Paste into that folder, by a clipboard that says so; the paths are tuples of ids."""
    clipboard = _cb_encode((0, [('', *path) for path in paths]))
    clipboard = clipboard.decode() if isinstance(clipboard, bytes) else clipboard
    return browser.post(f'{place}/manage_pasteObjects', {'cb_copy_data': clipboard})


@pytest.mark.parametrize('path, tool', [
    (('shop',), '/eves/shop/portal_webmail'),
    (('shop', 'portal_webmail'), '/eves/portal_webmail')])
def test_a_copy_of_a_mailbox_has_neither_its_mail_nor_its_password(site, path, tool):
    eve = site.browser('eve')
    assert eve.get('/shop/portal_webmail/box_alice/manage_main').status_int == 401
    paste(eve, '/eves', path)
    box = site.app.unrestrictedTraverse(tool).box_alice
    assert SUBJECT not in eve.get(f'{tool}/box_alice/manage_main').text
    assert not box.server_names() and not box.message_count() and not box.child_folders()
    assert not len(box.body_index)
    account = box._account()
    assert (account.host, account.password) == ('mail.example.org', '')
    original = site.app.shop.portal_webmail.box_alice
    assert original.message_count() == 1 and original._account().password == PASSWORD
    assert SUBJECT in site.browser('alice').get(
        '/shop/portal_webmail/box_alice/INBOX/manage_main').follow().text


def test_a_copy_by_webdav_is_one_as_well(site):
    eve = site.browser('eve')
    eve.lint = False  # it knows no such method
    answer = eve.request('/shop', method='COPY', headers={
        'Destination': 'http://localhost/eves/mine', 'Depth': 'infinity'})
    assert answer.status_int == 201
    copy = site.app.eves.mine
    assert copy.portal_webmail.box_alice._account().password == ''
    assert not copy.portal_webmail.box_alice.message_count() and not copy.zam.periodic


def test_the_owner_of_a_mailbox_learns_no_password_by_a_tool_of_her_own(site):
    """Who added the mailbox typed it; in a tool of her own she may name any server."""
    site.app.manage_addFolder('hers')
    site.app.hers.manage_setLocalRoles('alice', ['Manager'])
    alice = site.browser('alice')
    alice.post('/hers/manage_addProduct/CPSMailAccess/addMailTool')
    paste(alice, '/hers/portal_webmail', ('shop', 'portal_webmail', 'box_alice'))
    assert site.app.hers.portal_webmail.box_alice._account().password == ''


@pytest.mark.parametrize('may_name_servers', [False, True])
def test_a_mailbox_that_is_moved_by_its_owner_leaves_its_password_in_the_tool(
        site, may_name_servers):
    """Where owners may delete what is theirs, as in Plone, they may move it by WebDAV."""
    shop = site.app.shop.portal_webmail
    site.app.manage_permission('Delete objects', ['Manager', 'Owner'], 0)
    site.app.manage_addFolder('hers')
    site.app.hers.manage_setLocalRoles('alice', ['Manager'])
    shop.manage_permission('Add Mail Boxes', ['Authenticated'], 1)  # and so rename
    if may_name_servers:
        shop.manage_permission('Manage properties', ['Authenticated'], 1)
    alice = site.browser('alice')
    alice.lint = False
    alice.post('/hers/manage_addProduct/CPSMailAccess/addMailTool')
    for destination in ('/shop/portal_webmail/renamed', '/hers/portal_webmail/mine'):
        path = f'/shop/portal_webmail/{shop.objectIds()[0]}'
        assert alice.request(path, method='MOVE', headers={
            'Destination': f'http://localhost{destination}'}).status_int == 201
        box = site.app.unrestrictedTraverse(destination)
        keeps = may_name_servers or 'hers' not in destination
        assert box._account().password == (PASSWORD if keeps else '')
        assert box.message_count() == 1


@pytest.mark.parametrize('in_tool', [False, True])
def test_a_mailbox_that_is_copied_or_exported_takes_no_calls_along(site, in_tool):
    """What waits for its mail lies beside the calls of all others, with their arguments."""
    site.login('admin')
    site.app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
    dispatcher = site.app.asynchronous_call_dispatcher
    dispatcher.no_worker = 'queue'
    dispatcher._setObject('zam', AsynchronousCallManager('zam'))
    transaction.commit()
    dispatcher.putCall('zope_exec', '/', {}, 'string:token-0815')
    tool = site.app.shop.portal_webmail
    assert tool.box_alice.background_synchronisation() == 'queued'
    transaction.commit()
    assert tool.box_alice.sync_report()['state'] == 'queued'
    copied = tool if in_tool else tool.box_alice
    with copied._p_jar.exportFile(copied._p_oid) as exported:
        exported.seek(0)
        assert b'token-0815' not in exported.read()


def test_a_copied_mailbox_gets_its_mail_anew(site):
    """Its folders can be made again, under the same ids."""
    paste(site.browser('admin'), '/eves', ('shop',))
    box = site.app.eves.shop.portal_webmail.box_alice
    inbox = box.create_folder(RemoteFolder('INBOX', ('INBOX',)))
    inbox.add(RemoteMessage(1, envelope=Envelope(subject=SUBJECT)))
    transaction.commit()
    assert SUBJECT in site.browser('admin').get(
        '/eves/shop/portal_webmail/box_alice/INBOX/manage_main').follow().text


@pytest.mark.parametrize('path, copy', [
    (('shop',), '/eves/shop/zam'), (('shop', 'zam'), '/eves/zam')])
def test_a_copy_of_a_manager_has_no_periodic_calls_of_others(site, path, copy, caplog):
    """Who may do all with the copy would read their arguments, and have them run as others."""
    eve = site.browser('eve')
    assert eve.get('/shop/zam/manage_periodicCall?id=nightly').status_int == 401
    paste(eve, '/eves', path)
    assert not site.app.unrestrictedTraverse(copy).periodic
    assert 'token-4711' not in eve.get(f'{copy}/manage_periodic').text
    assert re.search(f'{copy}.* nightly: .*admin', caplog.text)
    assert list(site.app.shop.zam.periodic) == ['nightly']


def test_who_manages_users_copies_their_periodic_calls(site):
    site.login('bob')
    site.app.shop.zam.setPeriodicCall('weekly', '0 3 * * 0', 'UTC', 'echo', (1,))
    transaction.commit()
    paste(site.browser('admin'), '/eves', ('shop',))
    assert sorted(site.app.eves.shop.zam.periodic) == ['nightly', 'weekly']


def test_who_manages_the_users_of_a_folder_copies_the_periodic_calls_of_those_and_no_others(site):
    site.app.eves.manage_addProduct['OFSP'].manage_addUserFolder()
    site.add_user('kim', folder=site.app.eves)
    site.login('kim', folder=site.app.eves)
    site.app.shop.zam.setPeriodicCall('weekly', '0 3 * * 0', 'UTC', 'echo', (1,))
    site.logout()
    paste(site.browser('eve'), '/eves', ('shop',))
    assert list(site.app.eves.shop.zam.periodic) == ['weekly']


def test_everybody_copies_own_periodic_calls(site):
    site.login('eve')
    site.app.eves._setObject('zad', ZAsyncDispatcher('zad'))
    site.app.eves.zad._setObject('zam', AsynchronousCallManager('zam'))
    site.app.eves.zad.zam.setPeriodicCall('mine', '0 3 * * *', 'UTC', 'echo', (1,))
    site.logout()
    paste(site.browser('eve'), '/eves', ('eves', 'zad'))
    assert list(site.app.eves.copy_of_zad.zam.periodic) == ['mine']


def test_who_added_the_mail_tool_has_no_role_in_the_mailboxes_of_others(site):
    """The roles of a moment are not those of ever: Zope would make them the owner of all."""
    site.add_user('sam', 'Manager')
    sam = site.browser('sam')
    assert sam.post('/manage_addProduct/CPSMailAccess/addMailTool').status_int == 302
    mailtool.add_mail_box(site.app.portal_webmail, 'alice')
    assert sam.get('/portal_webmail/box_alice/manage_main').status_int == 200
    site.app.acl_users.userFolderEditUser('sam', 'sam', [], [])
    assert sam.get('/portal_webmail/box_alice/manage_main').status_int == 401
