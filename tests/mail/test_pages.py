"""The pages over HTTP, in a real Zope, with mail from a real server."""

import json
import re

import pytest
from bs4 import BeautifulSoup

from .conftest import empty
from .conftest import fill
from .conftest import message
from .servers import free_port
from .servers import PASSWORD
from .zopeserver import ZopeServer


TOOL = '/portal_webmail'
BOX = TOOL + '/box_alice'
ADD = TOOL + '/manage_addProduct/CPSMailAccess'
SCRIPT = '</title><script>alert("x")</script>'


@pytest.fixture(scope='module')
def zope():
    with ZopeServer() as server:
        for name in ('alice', 'mallory'):
            server.add_user(name)
        server.browser('admin').post('/manage_addProduct/CPSMailAccess/addMailTool')
        yield server


@pytest.fixture
def admin(zope):
    return zope.browser('admin')


@pytest.fixture
def mail(zope, admin, pymap):
    """pymap with an empty account, and a new mailbox of alice's for it."""
    empty(pymap)
    admin.post(TOOL + '/manage_delObjects', {'ids': 'box_alice'})
    added = admin.post(ADD + '/addMailBox', box_form(pymap.port))
    assert added.status_code == 200, added.text
    return pymap


def box_form(port, **more):
    return {'user': 'alice', 'HOST': '127.0.0.1', 'PORT': str(port), 'SSL': '0',
            'login': 'alice', 'password': PASSWORD, **more}


def soup(answer):
    assert answer.status_code == 200, answer.text
    return BeautifulSoup(answer.text, 'html.parser')


def status(browser):
    return browser.get(BOX + '/manage_syncStatus').json()


# Adding

def test_add_forms_are_there(admin, mail):
    assert 'Add Mail Box' in admin.get(ADD + '/addMailBoxForm').text
    assert 'Add Mail Tool' in admin.get('/manage_addProduct/CPSMailAccess/addMailToolForm').text


def test_second_tool_is_refused_in_the_form(admin):
    answer = admin.post('/manage_addProduct/CPSMailAccess/addMailTool')
    assert answer.status_code == 400
    assert 'There is a portal_webmail here already.' in answer.text


@pytest.mark.parametrize('action, form', [
    ('manage_addProduct/OFSP/manage_addFolder', {'id': 'stuff'}),
    ('manage_addProduct/OFSP/manage_addDTMLMethod', {'id': 'stuff'}),
    ('manage_addProperty', {'id': 'box_zoe', 'value': '1', 'type': 'string'})])
def test_the_tool_takes_nothing_but_mailboxes(admin, mail, action, form):
    """Its page could not show anything else."""
    answer = admin.post(f'{TOOL}/{action}', form)
    assert answer.status_code == 400
    assert 'The mail tool ' in answer.text
    assert 'box_alice' in soup(admin.get(TOOL + '/manage_main')).text


BAD_INPUT = [
    ('user', '', 'A user id is needed.'),
    ('user', 'alice', 'There is a box_alice here already.'),
    ('user', 'a/b', 'No id can be made of this'),
    ('user', '<b>x', 'No id can be made of this: The id "box_<b>x" contains'),
    ('HOST', 'a b', 'A host name or address is needed'),
    ('HOST', '', 'A host name or address is needed'),
    ('PORT', 'many', 'This must be a whole number.'),
    ('PORT', '0', 'From 1 to 65535.'),
    ('SSL', '7', 'Choose one of the list.'),
    ('login', 'a\nb', 'No control characters'),
    ('password', 'a\r\nLOGOUT', 'No control characters'),
]


def test_bad_input_comes_back_in_the_form_and_nothing_is_added(zope, admin, mail):
    before = zope.database_bytes()
    for field, value, sentence in BAD_INPUT:
        form = {**box_form(143, user='bob'), field: value}
        answer = admin.post(ADD + '/addMailBox', form)
        assert answer.status_code == 400, (field, value)
        page = BeautifulSoup(answer.text, 'html.parser')
        wrong = page.find(attrs={'name': field})
        assert sentence in wrong.find_parent('div').text
        assert 'is-invalid' in wrong['class']
        # What was typed is still there, the password is not.
        assert page.find(attrs={'name': 'login'})['value'] == form['login']
        assert page.find(attrs={'name': 'password'}).get('value') is None
    assert zope.database_bytes() == before
    assert admin.get(TOOL + '/box_bob/manage_main').status_code == 404


def test_mailbox_belongs_to_its_user(zope, admin, mail):
    assert zope.browser('alice').get(BOX + '/manage_main').status_code == 200
    assert zope.browser('mallory').get(BOX + '/manage_main').status_code == 401
    assert zope.browser().get(BOX + '/manage_main').status_code == 401
    admin.post(ADD + '/addMailBox', box_form(143, user='nobody_yet'))
    assert zope.browser('alice').get(TOOL + '/box_nobody_yet/manage_main').status_code == 401
    admin.post(TOOL + '/manage_delObjects', {'ids': 'box_nobody_yet'})


def test_tool_page_lists_boxes_with_state_and_counts(admin, mail):
    fill(mail, 3)
    admin.post(BOX + '/manage_synchronizeAll')
    row = soup(admin.get(TOOL + '/manage_main')).find('a', href=re.compile('box_alice'))
    cells = [cell.get_text(strip=True) for cell in row.find_parent('tr').find_all('td')]
    assert cells[2:6] == ['alice', '1', '3', 'done']


# Synchronising

def test_get_messages_and_see_them(zope, mail):
    alice = zope.browser('alice')
    fill(mail, 3)
    page = soup(alice.post(BOX + '/manage_getMessages'))
    assert 'The mailbox was synchronised.' in page.text
    subjects = [link.text for link in page.select('td a')]
    assert subjects == ['Mail 3', 'Mail 2', 'Mail 1']
    assert status(alice)['state'] == 'done'


def test_synchronise_all_folders_and_choose_one(zope, mail):
    alice = zope.browser('alice')
    with mail.client() as client:
        client.create_folder('T\xe9l\xe9')
        client.create_folder('T\xe9l\xe9/sub')
    fill(mail, 2, 'T\xe9l\xe9/sub')
    page = soup(alice.post(BOX + '/manage_synchronizeAll'))
    links = {link.span.text: link['href'] for link in page.select('nav[aria-label=Folders] a')}
    assert set(links) == {'INBOX', 'T\xe9l\xe9', 'sub'}
    page = soup(alice.get(links['sub']))
    assert len(page.select('td a')) == 2
    assert page.find('h3').text == 'T\xe9l\xe9 / sub'


def test_status_is_json_with_all_its_fields(zope, mail):
    answer = zope.browser('alice').get(BOX + '/manage_syncStatus')
    assert answer.headers['Content-Type'].startswith('application/json')
    assert set(json.loads(answer.text)) == {
        'state', 'done', 'total', 'message', 'counts', 'reason', 'started_at', 'ended_at'}
    assert json.loads(answer.text)['state'] == 'idle'


def test_paging(zope, mail):
    alice = zope.browser('alice')
    with mail.client() as client:
        client.multiappend('INBOX', [message('Mail %03d' % n) for n in range(120)])
    page = soup(alice.post(BOX + '/manage_getMessages'))
    seen = []
    while True:
        seen += [link.text for link in page.select('td a')]
        older = page.find('a', string='Older')
        if older is None:
            break
        page = soup(alice.get(older['href']))
    assert len(seen) == 120 == len(set(seen))
    assert '101 to 120 of 120' in page.text
    assert page.find('a', string='Newer')


def test_odd_queries_show_a_page(zope, mail):
    alice = zope.browser('alice')
    for query in ({'start': '-5'}, {'start': '99999999'}, {'start': 'x'}, {'folder': 'no such'},
                  {'folder': SCRIPT}, {'outcome': SCRIPT}, {'outcome': 'nonsense'},
                  {'outcome:list': 'done'}, {'folder:list': 'x', 'start:list': '1'}):
        page = alice.get(BOX + '/manage_main', **query)
        assert page.status_code == 200 and SCRIPT not in page.text, query


def test_failure_shows_its_reason_without_the_password(zope, admin, mail):
    alice = zope.browser('alice')
    alice.post(BOX + '/manage_changeSettings', {'password': 'wr0ng-one'})
    page = alice.post(BOX + '/manage_getMessages')
    assert 'does not accept the login alice' in page.text
    assert status(alice)['state'] == 'failed'
    for text in (page.text, json.dumps(status(alice)), admin.get(TOOL + '/manage_main').text):
        assert 'wr0ng-one' not in text and PASSWORD not in text


# Messages

def test_body_is_fetched_by_post_and_shown_by_get(zope, mail):
    alice = zope.browser('alice')
    with mail.client() as client:
        client.append('INBOX', message('Look', body='The text.\r\n<b>bold</b>\r\n'))
    link = soup(alice.post(BOX + '/manage_getMessages')).select('td a')[0]['href']
    page = soup(alice.get(link))
    assert 'The text.' not in page.text
    form = page.find('form', action=re.compile('manage_fetchBody'))
    assert form['method'] == 'post'
    page = soup(alice.post(form['action']))
    assert page.find('pre').text == 'The text.\n<b>bold</b>\n'
    assert page.find('form', action=re.compile('manage_fetchBody')) is None


def test_body_that_can_not_be_fetched_says_why(zope, mail):
    alice = zope.browser('alice')
    fill(mail, 1)
    link = soup(alice.post(BOX + '/manage_getMessages')).select('td a')[0]['href']
    alice.post(BOX + '/manage_changeSettings', {'PORT': str(free_port()), 'password': 'x'})
    answer = alice.post(link.replace('manage_main', 'manage_fetchBody'))
    assert 'refuses connections' in answer.text


@pytest.mark.parametrize('ended', ['done', 'failed'])
def test_stop_pressed_when_all_has_ended_takes_nothing_from_the_page(zope, mail, ended):
    alice = zope.browser('alice')
    if ended == 'failed':
        alice.post(BOX + '/manage_changeSettings', {'PORT': str(free_port()), 'password': 'x'})
    alice.post(BOX + '/manage_getMessages')
    before = status(alice)
    assert before['state'] == ended
    page = alice.post(BOX + '/manage_clearSynchro')
    assert 'No synchronisation is under way any more.' in page.text
    assert 'told to stop' not in page.text and status(alice) == before


def test_nothing_a_stranger_writes_becomes_markup(zope, admin, mail):
    alice = zope.browser('alice')
    evil = '"><img src=x onerror=alert(1)>'
    with mail.client() as client:
        client.create_folder(evil)
        client.create_folder(SCRIPT.replace('/', ''))
        raw = ('From: %s <a@b>\r\nTo: %s\r\nCc: %s\r\nDate: %s\r\nSubject: %s\r\n'
               'Message-ID: <%s>\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n'
               '--x\r\n\r\n%s\r\n--x\r\nContent-Disposition: attachment; filename="%s"\r\n\r\n'
               '--x--\r\n' % (SCRIPT, SCRIPT, SCRIPT, SCRIPT, SCRIPT, SCRIPT, SCRIPT,
                              SCRIPT.replace('"', '')))
        client.append('INBOX', raw.encode())
        client.append(evil, message(SCRIPT))
    page = alice.post(BOX + '/manage_synchronizeAll')
    link = soup(page).select('td a')[0]['href']
    shown = [page, alice.get(link), alice.post(link.replace('manage_main', 'manage_fetchBody')),
             alice.get(BOX + '/manage_main', folder=evil), admin.get(TOOL + '/manage_main'),
             admin.get(BOX + '/manage_main', folder=evil), admin.get(link),
             admin.get(link.replace('manage_main', 'manage_access')),
             admin.get(BOX + '/manage_access')]
    for one in shown:
        assert one.status_code == 200
        html = BeautifulSoup(one.text, 'html.parser')
        assert not html.find_all('img', src='x')
        assert not [tag for tag in html.find_all('script') if 'alert(' in tag.text]
    assert 'alert("x")' in soup(shown[2]).find('pre').text


def test_errors_from_the_server_are_escaped(zope, mail):
    alice = zope.browser('alice')
    alice.post(BOX + '/manage_changeSettings', {'login': SCRIPT, 'password': 'x'})
    page = alice.post(BOX + '/manage_getMessages')
    assert SCRIPT in status(alice)['reason']
    assert SCRIPT not in page.text


# Secret keys

def test_a_password_whose_key_is_gone_is_typed_again_or_sealed_anew(zope, admin, mail):
    fill(mail, 1)
    alice = zope.browser('alice')
    old = zope.secret_key.replace()
    newest = zope.secret_key.text()
    try:
        sentence = 'The stored password can not be read: none of the keys in'
        for page in ('/manage_main', '/manage_settingsForm'):
            shown = soup(alice.get(BOX + page))
            assert sentence in shown.select('.alert-danger, .invalid-feedback')[0].text
        assert 'Nothing was stored.' not in alice.get(BOX + '/manage_settingsForm').text
        alice.post(BOX + '/manage_getMessages')
        assert status(alice)['state'] == 'failed' and sentence in status(alice)['reason']
        assert '1 can not be read, for want of their key: box_alice.' in soup(
            admin.post(TOOL + '/manage_sealPasswords')).text
        # The old key is back, behind the new one.
        zope.secret_key.write(newest + old)
        assert '1 sealed anew' in soup(admin.post(TOOL + '/manage_sealPasswords')).text
        zope.secret_key.write(newest)
        assert not soup(alice.get(BOX + '/manage_main')).select('.alert-danger')
        alice.post(BOX + '/manage_getMessages')
        assert status(alice)['state'] == 'done'
    finally:
        zope.secret_key.write(newest + old)


def test_without_a_usable_key_a_form_with_a_password_is_refused(zope, admin, mail):
    good = zope.secret_key.text()
    zope.secret_key.write('')
    try:
        before = zope.database_bytes()
        for path, form in ((ADD + '/addMailBox', box_form(143, user='bob')),
                           (BOX + '/manage_changeSettings', {'PORT': '144', 'password': 'x'})):
            answer = admin.post(path, form)
            assert answer.status_code == 400
            page = BeautifulSoup(answer.text, 'html.parser')
            field = page.find(attrs={'name': 'password'})
            assert 'A password can not be stored: the file of secret keys' in \
                field.find_parent('div').text
            assert field.get('value') is None
        answer = admin.post(TOOL + '/manage_sealPasswords')
        assert answer.status_code == 400 and 'Nothing can be sealed: ' in answer.text
        assert zope.database_bytes() == before
        # Without a password all goes on.
        saved = admin.post(BOX + '/manage_changeSettings', {'READ_SECONDS': '7'})
        assert 'The settings were stored.' in saved.text
    finally:
        zope.secret_key.write(good)


# Safety

POST_ONLY = ['/manage_getMessages', '/manage_synchronizeAll', '/manage_clearSynchro',
             '/manage_changeSettings']


def test_get_changes_nothing(zope, admin, mail):
    alice = zope.browser('alice')
    before = zope.database_bytes()
    for action in POST_ONLY:
        assert alice.get(BOX + action).status_code in (403, 404, 405), action
    for path in (TOOL + '/manage_changeDefaults', TOOL + '/manage_delObjects?ids=box_alice',
                 TOOL + '/manage_sealPasswords', TOOL + '/seal_passwords',
                 ADD + '/addMailBox?user=bob', '/manage_addProduct/CPSMailAccess/addMailTool'):
        assert admin.get(path).status_code in (403, 404, 405), path
    assert zope.database_bytes() == before


def message_path(mail, browser):
    """The path of the one message there is."""
    fill(mail, 1)
    browser.post(BOX + '/manage_getMessages')
    with mail.folder() as client:
        uid, = client.search()
    return '/INBOX/.%d' % uid


@pytest.mark.parametrize('who', [None, 'mallory'])
def test_others_are_refused(zope, mail, who):
    path = message_path(mail, zope.browser('alice'))
    other = zope.browser(who)
    for action in ('', '/manage_main', '/manage_syncStatus', '/manage_settingsForm',
                   '/INBOX', '/INBOX/manage_main', path, path + '/manage_main'):
        assert other.get(BOX + action).status_code == 401, action
    for action in (*POST_ONLY, path + '/manage_fetchBody'):
        assert other.post(BOX + action).status_code == 401, action


def test_what_is_for_python_is_not_published(admin, mail):
    path = message_path(mail, admin)[1:]
    for name in ('synchronize', 'background_synchronisation', 'clearSynchro', 'indexMails',
                 'folders', 'message_count', 'sync_status', '_own', 'set_parameters',
                 'fetch_body', 'sync_report', 'INBOX/uids', 'INBOX/messages',
                 'isSynchronizing', path + '/body', path + '/stored_body', path + '/flags'):
        for answer in (admin.get('%s/%s' % (BOX, name)), admin.post('%s/%s' % (BOX, name))):
            assert answer.status_code in (401, 403, 404), name


def test_looking_writes_nothing(zope, admin, mail):
    path = message_path(mail, admin)
    before = zope.database_bytes()
    for browser in (admin, zope.browser('alice')):
        for action in ('', '/manage_main', '/manage_workspace', '/manage_syncStatus',
                       '/manage_settingsForm', '/INBOX', path, path + '/manage_main'):
            assert browser.get(BOX + action).status_code == 200, action
    for action in ('', '/manage_main', '/manage_defaultsForm'):
        assert admin.get(TOOL + action).status_code == 200
    assert zope.database_bytes() == before
    zope.browser('alice').post(BOX + path + '/manage_fetchBody')
    assert zope.database_bytes() > before


def test_address_of_a_message_puts_no_words_on_its_page(admin, mail):
    path = message_path(mail, admin)
    page = admin.get(BOX + path + '/manage_main', problem='Call this number')
    assert page.status_code == 200 and 'Call this number' not in page.text


def test_owner_adds_no_mailboxes(zope, mail):
    assert zope.browser('alice').post(ADD + '/addMailBox', box_form(1, user='x')).status_code \
        in (401, 403)


# Settings

def test_settings_show_no_password_and_an_empty_one_keeps_it(zope, mail):
    alice = zope.browser('alice')
    form = alice.get(BOX + '/manage_settingsForm')
    field = soup(form).find(attrs={'name': 'password'})
    assert field['type'] == 'password' and not field.get('value')
    assert PASSWORD not in form.text
    answer = alice.post(BOX + '/manage_changeSettings', {'password': '', 'READ_SECONDS': '7'})
    assert 'The settings were stored.' in answer.text
    alice.post(BOX + '/manage_getMessages')
    assert status(alice)['state'] == 'done'


@pytest.mark.parametrize('form', [
    {'HOST': 'mail.mallory.example'}, {'PORT': '144'}, {'SSL': '1'}, {'login': 'other'}])
def test_stored_password_goes_nowhere_else_than_it_was_meant_for(zope, mail, form):
    alice = zope.browser('alice')
    answer = alice.post(BOX + '/manage_changeSettings', {**form, 'password': ''})
    assert answer.status_code == 400 and 'Type it again' in answer.text
    for name in form:
        shown = soup(alice.get(BOX + '/manage_settingsForm')).find(attrs={'name': name})
        assert shown.get('value') != form[name]
    answer = alice.post(BOX + '/manage_changeSettings', {**form, 'password': 'new'})
    assert 'The settings were stored.' in answer.text


def test_bad_settings_store_nothing(zope, mail):
    alice = zope.browser('alice')
    answer = alice.post(BOX + '/manage_changeSettings', {'HOST': 'other', 'PORT': 'x'})
    assert answer.status_code == 400 and 'This must be a whole number.' in answer.text
    form = soup(alice.get(BOX + '/manage_settingsForm'))
    assert form.find(attrs={'name': 'HOST'})['value'] == '127.0.0.1'


def test_defaults_of_the_tool_rule_the_mailboxes(zope, admin, mail):
    alice = zope.browser('alice')
    answer = admin.post(TOOL + '/manage_changeDefaults', {'HOST': 'mail.example.org',
                                                          'HOST_flag': '1'})
    try:
        assert 'The parameters were stored.' in answer.text
        form = soup(alice.get(BOX + '/manage_settingsForm'))
        assert form.find(attrs={'name': 'HOST'}) is None
        assert form.find(attrs={'name': 'CA_FILE'}) is None
        # What is not offered is not taken either.
        alice.post(BOX + '/manage_changeSettings', {'HOST': 'evil', 'CA_FILE': '/etc/passwd'})
    finally:
        admin.post(TOOL + '/manage_changeDefaults', {'HOST': 'localhost', 'HOST_flag': '0'})
    form = soup(alice.get(BOX + '/manage_settingsForm'))
    assert form.find(attrs={'name': 'HOST'})['value'] == '127.0.0.1'


@pytest.mark.parametrize('form', [{'PORT': 'x'}, {'PORT_flag': '5'}, {'READ_SECONDS': '-1'}])
def test_bad_defaults_store_nothing(admin, mail, form):
    before = admin.get(TOOL + '/manage_defaultsForm').text
    assert admin.post(TOOL + '/manage_changeDefaults', form).status_code == 400
    assert admin.get(TOOL + '/manage_defaultsForm').text == before


def test_deleting_a_mailbox(admin, mail):
    assert '1 deleted.' in admin.post(TOOL + '/manage_delObjects', {'ids': 'box_alice'}).text
    assert admin.get(BOX + '/manage_main').status_code == 404
