"""Actions over HTTP, outside Plone: what another site's page posts is refused, of each of them."""

import re
from pathlib import Path

import pytest
import transaction

from Products.zasync import forgery
from tests import actions
from tests.secretkeys import secret_key


ROOT = Path(forgery.__file__).parents[1]

#: What a page of another site has a browser send, new and old; and what our pages and scripts do.
FOREIGN = [{'Sec-Fetch-Site': 'cross-site', 'Origin': 'https://evil.example'},
           {'Sec-Fetch-Site': 'same-site', 'Origin': 'http://other.localhost'},
           {'Origin': 'https://evil.example', 'Referer': 'http://localhost/'},
           {'Origin': 'null'}, {'Referer': 'https://evil.example/page'}]
OWN = [{'Sec-Fetch-Site': 'same-origin', 'Origin': 'http://localhost'},
       {'Origin': 'http://localhost:80'}, {'Referer': 'http://localhost/zam/manage_main'}, {}]


@pytest.fixture
def built(site, app, tmp_path):
    """{owner: path}, {name in forms: text}: see actions.build. There is a secret key."""
    def as_admin(put):
        site.login('admin')
        try:
            return put()
        finally:
            site.logout()

    with secret_key(tmp_path / 'secret.key'):
        made = actions.build(app, as_admin)
        transaction.commit()
        yield made


def post(site, built, owner, name, headers):
    """Press the button of an action, as the administrator."""
    paths, ids = built
    return site.browser('admin').post(f'{paths[owner]}/{name}', actions.form_of(name, ids),
                                      headers=headers)


# each action

def test_all_the_actions_are_found(site):
    found = actions.published_actions()
    assert {('AsynchronousCallManager', 'manage_pause'), ('ZAsyncDispatcher', 'manage_test'),
            ('MailTool', 'manage_delObjects'), ('MailBox', 'manage_getMessages'),
            ('MailMessage', 'manage_fetchBody'), ('CPSMailAccess', 'addMailBox'),
            ('zasync', 'constructAsynchronousCallManager')} < set(found)
    told = (ROOT.parent / 'docs' / 'security.rst').read_text('utf-8')
    for owner, name in found:
        assert name in told or owner in ('zasync', 'zasyncdispatcher', 'CPSMailAccess'), name
    assert set(actions.FORMS) <= {name for _, name in found}


def test_only_actions_are_posted_to():
    """Nobody marks a method by hand, which nothing would look at."""
    for path in ROOT.glob('*/**/*.py'):
        if path.name != 'forgery.py':
            assert 'zpublish(methods' not in path.read_text('utf-8'), path


def test_each_action_is_refused_from_another_site_and_nothing_changes(site, built, caplog):
    last = site.db.lastTransaction()
    for owner, name in actions.published_actions():
        for headers in FOREIGN:
            answer = post(site, built, owner, name, headers)
            assert answer.status_int == 403, (name, headers)
            assert 'A page of another site sent this, so nothing was done.' in answer.text
            assert 'evil' not in answer.text
    assert site.db.lastTransaction() == last
    said = caplog.messages[0]
    for word in ('manage_', "'cross-site'", "'https://evil.example'", "'localhost:80'"):
        assert word in said


@pytest.mark.parametrize('sheet', ['default', 'webdav'])
@pytest.mark.parametrize('button', [
    'manage_changeProperties?no_worker=refuse',
    'manage_editProperties?title=x&max_idle_time:float=30&no_worker=refuse&balance=load',
    'manage_addProperty?id=more&value=1&type=string', 'manage_delProperties?ids:list=title'])
def test_property_sheets_of_a_dispatcher_are_no_way_around_its_actions(site, built, sheet, button):
    paths, _ = built
    last = site.db.lastTransaction()
    for ask in (site.browser('admin').get, site.browser('admin').post):
        answer = ask(f'{paths["ZAsyncDispatcher"]}/propertysheets/{sheet}/{button}',
                     headers=FOREIGN[0])
        assert answer.status_int in (401, 403, 404)
    assert site.db.lastTransaction() == last


#: Actions that have nothing to do where `actions.build` has made things.
IDLE = {'manage_retryCall', 'manage_retryAll', 'manage_purge', 'manage_test',
        'manage_clearSynchro', 'manage_fetchBody', 'manage_sealPasswords', 'addMailTool'}

#: What takes away what others act on.
LAST = {'manage_delObjects', 'manage_removeManager', 'manage_dropPeriodicCall'}


@pytest.mark.parametrize('headers', OWN, ids=str)
def test_each_action_is_done_for_a_page_of_this_site_and_for_a_script(site, built, headers):
    found = actions.published_actions()
    for owner, name in sorted(found, key=lambda each: each[1] in LAST):
        last = site.db.lastTransaction()
        answer = post(site, built, owner, name, headers)
        if name == 'addMailTool':
            assert 'The mail tool holds mailboxes only.' in answer.text
        else:
            assert answer.status_int in (200, 302), name
        assert (site.db.lastTransaction() > last) == (name not in IDLE), name


# what the headers are compared with

@pytest.mark.parametrize('path', [
    '/VirtualHostBase/http/evil.example:80/VirtualHostRoot/zam/manage_pause',
    '/VirtualHostBase/http/evil.example:80/VirtualHostRoot/_vh_x/zam/manage_pause'])
def test_a_path_that_gives_zope_another_name_does_not_make_that_name_ours(site, manager, path):
    """Such a path is meant for proxies, and anybody can write it into a link."""
    answer = site.browser('admin').post(path, headers={'Origin': 'http://evil.example'})
    assert answer.status_int == 403
    assert not manager.paused
    answer = site.browser('admin').post(path, headers={'Origin': 'http://localhost'})
    assert 'http://evil.example' in answer.location, 'the path is followed'
    assert manager.paused


def test_behind_a_proxy_the_host_that_it_hands_on_counts(site, manager):
    path = '/VirtualHostBase/https/www.example.com:443/VirtualHostRoot/zam/manage_pause'
    answer = site.browser('admin').post(path, headers={
        'Origin': 'https://www.example.com', 'Host': 'www.example.com'})
    assert answer.location.startswith('https://www.example.com/zam/manage_calls')
    assert manager.paused


@pytest.mark.parametrize('form', [{'REQUEST': ''}, {'REQUEST': 'x'}, {'REQUEST:record': ''},
                                  {'REQUEST.HTTP_ORIGIN:record': 'http://localhost'},
                                  {'HTTP_ORIGIN': 'http://localhost', 'HTTP_HOST': 'evil.example',
                                   'Sec-Fetch-Site': 'none', 'HTTP_SEC_FETCH_SITE': 'none'}])
def test_nothing_in_the_form_stands_for_a_header_or_for_the_request(site, manager, form):
    answer = site.browser('admin').post('/zam/manage_pause', form,
                                        headers={'Origin': 'http://evil.example'})
    assert answer.status_int == 403
    assert not manager.paused


def test_who_may_not_is_told_that_and_not_where_he_comes_from(site, manager):
    for browser in (site.browser(), site.browser('eve')):
        answer = browser.post('/zam/manage_pause', headers={'Origin': 'http://evil.example'})
        assert answer.status_int == 401


def test_code_that_has_no_request_is_not_looked_at(site, app, manager):
    from Products.zasync.manager import constructAsynchronousCallManager
    constructAsynchronousCallManager(app.manage_addProduct['zasync'], 'other')
    assert app.other.lenNewCalls() == 0


# forms

def test_each_form_that_posts_has_its_place_for_the_token():
    forms = 0
    for path in ROOT.glob('*/www/*.zpt'):
        for tag, body in re.findall(r'(<form\b[^>]*>)(.*?)</form>', path.read_text('utf-8'),
                                    re.DOTALL):
            if 'method="post"' in tag:
                forms += 1
                assert body.count('tal:replace="structure authenticator"') == 1, (path, tag)
    assert forms > 20


def test_without_plone_no_form_has_a_token(site, manager):
    for page in ('manage_main', 'manage_calls'):
        answer = site.browser('admin').get(f'/zam/{page}')
        assert answer.status_int == 200
        assert 'authenticator' not in answer.text


def test_code_may_hand_a_mapping_on_where_zope_takes_one_for_a_request(site, app, built):
    app.zad.manage_changeProperties({'no_worker': 'refuse'})
    assert app.zad.no_worker == 'refuse'
