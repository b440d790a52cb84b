"""Nothing that somebody typed, sent or called reaches a page as markup."""

import re
from urllib.parse import urlencode
from urllib.parse import urlsplit

import pytest
import transaction
from bs4 import BeautifulSoup
from zExceptions import BadRequest

from Products.zasync.options import Options
from Products.zasync.testing import make_worker
from tests.security.markup import FIELDS
from tests.security.markup import hostile
from tests.security.markup import HostileTown
from tests.security.test_table import ACTION
from tests.security.test_table import BOX
from tests.security.test_table import JSON
from tests.security.test_table import rows
from tests.security.test_table import url_of
from tests.security.test_table import values_of
from tests.security.town import Town


@pytest.fixture(scope='module')
def town():
    made = HostileTown()
    yield made
    made.close()


@pytest.fixture
def changed():
    """A town that the test may change."""
    made = HostileTown()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def clean():
    transaction.begin()
    yield
    transaction.abort()


def check(answer):
    """Nothing hostile is markup in that page; → the fields whose texts it shows."""
    assert answer.content_type == 'text/html'
    page = BeautifulSoup(answer.text, 'html.parser')
    assert page.find('zx') is None, page.find('zx')
    assert page.find(attrs={'onmouseover': True}) is None and page.find(onerror=True) is None
    assert '<zx' not in answer.text and 'window.evil=1' not in ''.join(
        script.text for script in page.find_all('script'))
    for tag, name in (('a', 'href'), ('form', 'action'), ('iframe', 'src'), ('link', 'href')):
        for found in page.find_all(tag, attrs={name: True}):
            assert urlsplit(found[name]).scheme in ('', 'http', 'https'), found
    return set(re.findall(r'zx id=([\w-]+)', page.get_text() + ''.join(
        str(value) for tag in page.find_all(True) for value in tag.attrs.values())))


def all_pages(town):
    """The addresses of all pages of the table, of each call and of each periodic call."""
    found = [f'{url_of(place, name)}?{urlencode(values_of(town, name))}'
             for place, name, kind, _ in rows() if kind not in (ACTION, JSON)]
    found += [f'/zam/manage_call?id={id}' for id in town.ids]
    found += ['/zam/manage_periodicCall', '/zam/manage_periodicCall?id=hourly']
    found += [f'/zam/manage_calls?state={state}' for state in ('failed', 'resolved')]
    found += ['/zad/manage_removal?id=zam1&how=move',
              f'/{BOX}/manage_main?{urlencode({"folder": hostile("server-name")})}',
              f'{town.folder_path}/.8/manage_main']
    return found


def test_each_page_shows_hostile_texts_as_they_are(town):
    browser, shown = town.browser('admin'), set()
    for address in all_pages(town):
        answer = browser.get(address)
        if answer.status_int == 302:
            answer = answer.follow()
        assert answer.status_int == 200, address
        assert answer.headers['X-Frame-Options'] == 'SAMEORIGIN', address
        shown |= check(answer)
    assert shown >= FIELDS, FIELDS - shown


def test_the_owner_of_a_mailbox_sees_them_as_they_are_too(town):
    """The frame is another one for who is no manager."""
    browser, shown = town.browser('alice'), set()
    for address in (f'/{BOX}/manage_main', f'/{BOX}/manage_settingsForm',
                    f'/{BOX}/manage_main?{urlencode({"folder": hostile("server-name")})}',
                    f'{town.folder_path}/.8/manage_main'):
        answer = browser.get(address)
        assert answer.status_int == 200
        assert answer.headers['X-Frame-Options'] == 'SAMEORIGIN'
        shown |= check(answer)
    assert shown >= {'folder', 'subject', 'sender', 'body', 'attachment', 'sync-reason', 'login'}


#: What the pages take from their address.
ASKED = ('manage_tabs_message', 'manage_tabs_type', 'state', 'plugin', 'user', 'start', 'id',
         'how', 'going', 'test', 'folder', 'outcome', 'title', 'form_title', 'management_view',
         'adding', 'kind', 'came_from', 'zmi_base', 'debug', 'manage_page_title', 'next')


def test_what_an_address_says_is_not_markup_in_the_page(town):
    browser, reflected = town.browser('admin'), set()
    for place, name, kind, _ in rows():
        if kind in (ACTION, JSON):
            continue
        # An id that is wrong hides the rest of some pages.
        for right in ({}, {'test': 'zam1:' + hostile('test'), **values_of(town, name)}):
            asked = {**{each: hostile(each) for each in ASKED}, **right}
            answer = browser.get(f'{url_of(place, name)}?{urlencode(asked)}')
            if answer.status_int == 302:
                answer = answer.follow()
            reflected |= check(answer)
    assert {'manage_tabs_message', 'plugin', 'user'} <= reflected


def test_what_an_address_leads_to_that_is_not_there_is_not_markup_in_the_page(town):
    browser = town.browser('admin')
    for place in ('', '/zam', '/zad', f'/{BOX}', '/manage_addProduct/zasync'):
        for path in ('/<zx id=path>', '/%3Czx id=path%3E', '/@@<zx>', '/++x++<zx>', '/a"><zx>'):
            check(browser.get((place + path).replace(' ', '%20')))


TYPED = ('id', 'how', 'state', 'hours', 'title', 'user', 'HOST', 'PORT', 'SSL', 'login', 'CA_FILE',
         'HOST_flag', 'plugin', 'arguments', 'keywords', 'path', 'tales', 'kind', 'zone', 'ids',
         'expression', 'timeout', 'attempts', 'series', 'managers', 'poll_interval', 'priority',
         'rotation_period', 'no_worker', 'balance')


def test_what_a_form_says_comes_back_as_it_is(changed):
    browser, came_back = changed.browser('admin'), set()
    for place, name, kind, _ in rows():
        if kind != ACTION:
            continue
        variants = [{}]
        if name == 'manage_savePeriodicCall':
            variants = [{'id': 'nightly'}, {'adding': '1', 'kind': 'plugin'},
                        {'adding': '1', 'kind': 'zope_exec'}]
        for right in variants:
            form = {**{field: hostile(field) for field in TYPED}, **right}
            answer = browser.post(url_of(place, name), form)
            if answer.status_int == 302:
                assert 'zx' not in answer.location
                answer = answer.follow()
            came_back |= check(answer)
    assert came_back >= {'id', 'user', 'HOST', 'PORT', 'login', 'CA_FILE', 'poll_interval',
                         'rotation_period', 'managers', 'tales', 'plugin', 'arguments', 'path',
                         'expression', 'zone', 'series', 'timeout', 'priority', 'attempts'}


def test_data_is_json_and_says_so(town):
    browser = town.browser('admin')
    for place, name, kind, _ in rows():
        if kind == JSON:
            answer = browser.get(url_of(place, name))
            assert answer.content_type == 'application/json'
            assert answer.headers['Cache-Control'] == 'no-store'
            assert 'zx id=' in answer.text and answer.json


@pytest.mark.parametrize('title', ['</title><script>alert(1)</script>', '<', 'a<b'])
def test_a_title_that_zope_would_show_as_markup_is_refused(town, title):
    """Its pages put an object's title into their head as it is."""
    before = town.app.zad.title
    with pytest.raises(BadRequest):
        town.app.zad.manage_changeProperties(title=title)
    browser = town.browser('admin')
    for method in ('manage_changeProperties', 'manage_editProperties'):
        answer = browser.post(f'/zad/{method}', {
            'title': title, 'max_idle_time:float': '60', 'no_worker': 'run', 'balance': 'load'})
        assert answer.status_int == 400
    assert town.app.zad.title == before
    answer = browser.post('/sub/manage_addProduct/CPSMailAccess/addMailTool', {'title': title})
    assert answer.status_int == 400 and 'portal_webmail' not in town.app.sub.objectIds()
    check(answer)


@pytest.mark.parametrize('id', ['0-1-0-{}', '{}', '{}-1-0-0', '0-1-ffffffffffff-{}'])
def test_an_id_that_is_none_is_told_of_without_markup(town, id):
    """A page that does not catch the error shows it as it is."""
    with pytest.raises(KeyError) as refusal:
        town.app.zam.getDeferred(id.format('<zx>'))
    assert '<zx>' not in str(refusal.value) and '&lt;zx&gt;' in str(refusal.value)


#: What a call has its failure say, to be taken for lines of a worker.
LINES = 'x\r\n2026-12-01 12:00:00,000 INFO [zasync] call 0-1-1a20c469d04-0 resolved\x1b[2J'


@pytest.fixture
def plain():
    """A town whose calls a worker can run."""
    made = Town()
    yield made
    made.close()


def test_what_a_call_says_is_no_line_of_a_log(plain, caplog):
    zam, zad = plain.app.zam, plain.app.zad
    plain.login('admin')
    nowhere = ('zope_exec', f'/{LINES}', {}, 'nothing')
    for put in (zam.putCall(*nowhere), zam.putCallWith(Options(retry=2), *nowhere),
                zam.putCall('echo', LINES), zad.putCall(*nowhere)[1],
                zad.putCall('echo', LINES)[1]):
        put.addCallbacks("python: 'x'.encode(result)")
    plain.logout()
    transaction.commit()
    with make_worker(zam) as worker:
        worker.run_until_idle()
    texts = [record.getMessage() for record in caplog.records if record.levelname == 'WARNING'
             and 'resolved' in record.getMessage()]
    assert [text for text in texts if not text.isprintable()] == []
    for words in ('failed: LookupError', 'failed and runs again', 'failed in the request',
                  'a callback of call'):
        assert any(words in text for text in texts), words
