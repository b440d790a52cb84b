"""Names of folders on the server: none takes the place of what Zope, a page or a method wants."""

import re
from pathlib import Path

import App
import pytest
import transaction
from OFS.Folder import Folder

from Products.CPSMailAccess import mailtool
from Products.CPSMailAccess.mailbox import MailBox
from Products.CPSMailAccess.mailfolder import MailFolder
from Products.CPSMailAccess.values import Envelope
from Products.CPSMailAccess.values import RemoteFolder
from Products.CPSMailAccess.values import RemoteMessage
from tests.zopeapp import Site


#: Zope's part of each page, which is found by names in the object that is shown.
FRAME = [Path(App.__path__[0], 'dtml', name + '.dtml').read_text('utf-8') for name in (
    'manage_page_header', 'manage_navbar', 'manage_tabs', 'manage_page_footer')]

#: The words of these pages' tags that may be names, and those that are DTML's or Python's own.
WORDS = {word for page in FRAME for tag in re.findall(r'<dtml-[^>]*|&dtml-[^;]*', page)
         for word in re.findall(r'\w+', re.sub(r"<dtml-[a-z]+|&dtml-|'[^']*'|\.\w+|%\w", '', tag))}
WORDS -= {'and', 'or', 'in', 'not', 'expr', 'fmt', 'html_quote', 'mapping', 'missing',
          'newline_to_br', 'success', 'sequence', 'index', 'item', 'sort', 'hasattr', 'False'}

#: What Zope and its pages may ask a request for.
REQUEST = {'REQUEST', 'RESPONSE', 'PARENTS', 'PUBLISHED', 'SESSION', 'BODY', 'BODYFILE', 'URL',
           'URL0', 'URL12', 'URLPATH1', 'BASE', 'BASE1', 'BASEPATH1', 'SERVER_URL', 'REMOTE_USER',
           'HTTP_REFERER', 'AUTHENTICATED_USER', 'SCRIPT_NAME', 'TraversalRequestNameStack',
           'VirtualRootPhysicalPath'}

#: What Zope and we acquire where there is one.
SITE = {'acl_users', 'error_log', 'virtual_hosting', 'session_data_manager', 'temp_folder',
        'browser_id_manager', 'standard_error_message', 'asynchronous_call_dispatcher'}


@pytest.fixture
def site():
    site = Site()
    site.add_user('alice')
    mailtool.addMailTool(site.app.manage_addProduct['CPSMailAccess'])
    mailtool.add_mail_box(site.app.portal_webmail, 'alice')
    transaction.commit()
    yield site
    site.close()


@pytest.fixture
def box(site):
    return site.app.portal_webmail.box_alice


def below(name, parent='INBOX'):
    """The RemoteFolder of that name in a folder."""
    return RemoteFolder('%s/%s' % (parent, name), (parent, name), (parent,))


def names():
    """Each name that can be an id, and that somebody may look for in a mailbox."""
    found = WORDS | REQUEST | SITE | set(dir(MailBox)) | {'sync_status', 'portal_webmail'}
    return sorted(name for name in found if re.fullmatch('[A-Za-z]|[A-Za-z].*[A-Za-z0-9]', name))


def test_no_name_on_the_server_is_the_id_of_what_somebody_looks_for(box):
    box.create_folder(RemoteFolder('INBOX', ('INBOX',)))
    assert {'mail_box', 'page_url', 'css_urls', 'title_or_id', 'URL0'} < set(names())
    for name in names():
        for remote in (RemoteFolder(name, (name,)), below(name)):
            assert box.create_folder(remote).getId() != name
    assert box.INBOX.mail_box().getId() == 'box_alice'


@pytest.mark.parametrize('who', ['admin', 'alice'])
def test_pages_work_whatever_the_folders_are_called(site, box, who):
    inbox = box.create_folder(RemoteFolder('INBOX', ('INBOX',)))
    inbox.add(RemoteMessage(1, envelope=Envelope(subject='hi')))
    chosen = ['mail_box', 'mail_folder', 'page_frame', 'css_urls', 'js_urls', 'URL0', 'BASEPATH1',
              'getPhysicalRoot', 'portal_webmail', 'ZopeTime', 'charset', 'last', 'REQUEST']
    folders = [box.create_folder(remote) for name in chosen
               for remote in (RemoteFolder(name, (name,)), below(name))]
    for folder in folders:
        folder.add(RemoteMessage(2, envelope=Envelope(subject='ho')))
    transaction.commit()
    browser = site.browser(who)
    for folder in (box, inbox, folders[0], folders[1]):
        for page in ('manage_main', 'index_html', 'manage_settingsForm'):
            assert browser.get('/%s/%s' % (folder.absolute_url(1), page)).status_int in (200, 302)
    for message in [folder.message(2) for folder in folders] + [inbox.message(1)]:
        answer = browser.get('/%s/manage_main' % message.absolute_url(1))
        assert answer.status_int == 200 and message.subject in answer.text


def test_an_object_of_the_site_is_acquired_in_spite_of_a_folder_of_its_name(site, box):
    site.app._setObject('News', Folder('News'))
    site.app.portal_webmail.box_alice.create_folder(RemoteFolder('News', ('News',)))
    assert aq_path(box.folder('News')) == '/portal_webmail/box_alice/News-2'
    assert aq_path(box.folder('News').News) == '/News'


def test_folders_of_one_name_in_several_folders_have_the_same_id(box):
    for remote in (RemoteFolder('INBOX', ('INBOX',)), RemoteFolder('Work', ('Work',)),
                   below('Work'), below('INBOX')):
        box.create_folder(remote)
    assert [aq_path(folder).split('/', 3)[3] for folder in box.folders()] == [
        'INBOX', 'INBOX/INBOX', 'INBOX/Work', 'Work']


def test_a_folder_stored_under_an_id_that_somebody_looks_for_gets_another_one(box):
    inbox = box.create_folder(RemoteFolder('INBOX', ('INBOX',)))
    child = MailFolder('mail_box', 'INBOX/mail_box', ('INBOX', 'mail_box'))
    child.add(RemoteMessage(2))
    inbox._children['mail_box'], box._by_name['INBOX/mail_box'] = child, (child, 'INBOX')
    assert inbox.mail_box.server_name == 'INBOX/mail_box'
    box.place_folder(below('mail_box'))
    folder = box.folder('INBOX/mail_box')
    assert aq_path(folder).endswith('/INBOX/mail_box-2') and folder.message_count() == 1
    assert folder.message(2).mail_box().getId() == inbox.mail_box().getId() == 'box_alice'
    box.place_folder(below('mail_box'))
    assert aq_path(box.folder('INBOX/mail_box')) == aq_path(folder)


def aq_path(wrapped):
    """The physical path of an object, as text."""
    return '/'.join(wrapped.getPhysicalPath())
