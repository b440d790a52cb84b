"""The overview of a dispatcher: what it shows, its news as JSON, and the test of the workers."""

import re

import pytest
import transaction
from bs4 import BeautifulSoup

from Products.zasync import clock
from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.fakes import NOW
from tests.fakes import sign_on
from tests.zope.test_dispatcher import beat


@pytest.fixture
def zad(app):
    """A dispatcher: zam1 lives and has one call, zam2 has never had a worker."""
    app._setObject('zad', ZAsyncDispatcher('zad'))
    for id in ('zam1', 'zam2'):
        app.zad._setObject(id, AsynchronousCallManager(id))
    sign_on(app.zad.zam1)
    beat(app.zad.zam1, new=1)
    app.zad.zam1.putCall('zope_exec', '/', {}, 'nothing')
    transaction.commit()
    return app.zad


def rows(page):
    """{id: {field: text}} of the table."""
    soup = BeautifulSoup(page.text, 'html.parser')
    return {row['data-id']: {cell['data-field']: cell.get_text(strip=True)
                             for cell in row.select('[data-field]')}
            for row in soup.select('#managers tr[data-id]')}


def test_it_shows_of_each_manager_who_is_next_and_why_not(site, zad):
    found = rows(site.browser('admin').get('/zad/manage_overview'))
    assert found['zam1']['alive'] == 'yes' and found['zam1']['chosen'] == 'next'
    assert (found['zam1']['new'], found['zam1']['load']) == ('1', '1')
    assert found['zam2']['alive'] == 'no' and found['zam2']['chosen'] == ''
    assert found['zam2']['why'] == 'no worker has served it yet'


def how(page):
    return page.html.select_one('#how').get_text(strip=True)


@pytest.mark.parametrize('balance, chosen, sentence', [
    ('load', ['zam3', 'zam4'], 'A call goes to the least loaded of those that take calls.'),
    ('pace', ['zam1'], ('A call goes to the one, of those that take calls, where it would end '
                        'first, by load and pace.'))])
def test_it_says_how_a_manager_is_chosen_and_shows_all_that_may_be_next(
        site, zad, balance, chosen, sentence):
    for id, load, pace in (('zam1', 5, 1_000.0), ('zam2', 3, 1.0), ('zam3', 1, 1.0),
                           ('zam4', 1, 1.0)):
        if id not in zad.objectIds():
            zad._setObject(id, AsynchronousCallManager(id))
        sign_on(zad[id])
        zad[id].queue.pulse.write(load, 0, 0.0, 1, 1, 0, pace=pace)
    zad.balance = balance
    page = site.browser('admin').get('/zad/manage_overview')
    assert how(page) == sentence
    assert [id for id, row in rows(page).items() if row['chosen']] == chosen


@pytest.mark.parametrize('no_worker, sentence', [
    ('run', 'None takes calls, so a call is run in the request that puts it, if it can be.'),
    ('queue', 'None takes calls, so a call is left with one of them.'),
    ('refuse', 'None takes calls, so a call is refused.')])
def test_it_says_what_becomes_of_a_call_when_no_worker_lives(site, zad, no_worker, sentence):
    browser = site.browser('admin')
    before = browser.get('/zad/manage_overview_data').json['how']
    beat(zad.zam1, accepting=0)
    zad.no_worker = no_worker
    assert how(browser.get('/zad/manage_overview')) == sentence
    assert browser.get('/zad/manage_overview_data').json['how'] == sentence != before


def test_a_sign_of_life_has_its_day_as_on_the_page_of_the_manager(site, zad):
    """A worker that was stopped a week ago has given its last one at some time of some day."""
    browser = site.browser('admin')
    beat_at = rows(browser.get('/zad/manage_overview'))['zam1']['beat_at']
    assert re.fullmatch(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC', beat_at)
    assert beat_at in browser.get('/zad/zam1/manage_main').text
    assert rows(browser.get('/zad/manage_overview'))['zam2']['beat_at'] == ''


def test_the_news_are_what_the_page_shows(site, zad):
    browser = site.browser('admin')
    page, news = rows(browser.get('/zad/manage_overview')), browser.get(
        '/zad/manage_overview_data').json
    for row in news['rows']:
        shown = page[row['id']]
        assert (shown['new'], shown['why'], shown['worker']) == (
            str(row['new']), row['why'], row['worker'])


def after_redirect(browser, answer):
    assert answer.status_int == 302
    return browser.get(re.sub('^http://localhost(:80)?', '', answer.location))


def test_the_test_puts_a_call_to_each_manager_with_a_worker_and_shows_its_time(site, zad, now):
    browser = site.browser('admin')
    answer = browser.post('/zad/manage_test')
    page = after_redirect(browser, answer)
    assert rows(page)['zam1']['test'] == 'waits'
    assert rows(page)['zam2']['test'] == ''
    assert zad.zam2.lenNewCalls() == 0
    [deferred] = [call for call in zad.zam1.queue.take_in_and_claim('boot', NOW, 9, 86_400)
                  if call.plugin == 'echo']
    transaction.commit()
    page = after_redirect(browser, answer)
    assert rows(page)['zam1']['test'] == 'runs'
    deferred.succeed(None, deferred.put_at + 0.012)
    assert rows(after_redirect(browser, answer))['zam1']['test'].startswith('answered after ')


@pytest.mark.parametrize('ahead', [-120.0, 0.0, 120.0])
def test_the_time_of_an_answer_is_right_though_the_clock_of_the_worker_is_not(site, zad, ahead):
    browser = site.browser('admin')
    began = clock.SYSTEM.monotonic()
    answer = browser.post('/zad/manage_test')
    [deferred] = [call for call in zad.zam1.queue.take_in_and_claim('boot', NOW, 9, 86_400)
                  if call.plugin == 'echo']
    deferred.succeed(None, clock.SYSTEM.now() + ahead)
    transaction.commit()
    most = 1000 * (clock.SYSTEM.monotonic() - began)
    shown = rows(after_redirect(browser, answer))['zam1']['test']
    assert 0 <= int(re.fullmatch(r'answered after (-?\d+) ms', shown)[1]) <= most + 1


def test_a_manager_of_any_id_is_tested(site, zad):
    site.login('admin')
    zad.manage_renameObject('zam1', 'a:b #+%41 é')
    browser = site.browser('admin')
    page = after_redirect(browser, browser.post('/zad/manage_test'))
    assert rows(page)['a:b #+%41 é']['test'] == 'waits'


@pytest.mark.parametrize('asked', ['', 'zam1', 'zam1:', 'no:0-1-0-0', 'zam1:<script>', '<b>:1'])
def test_an_odd_test_in_the_address_harms_nobody(site, zad, asked):
    page = site.browser('admin').get('/zad/manage_overview', params={'test': asked})
    assert page.status_int == 200
    assert '<script>zam' not in page.text and '<b>:1' not in page.text


def test_looking_writes_nothing(site, zad):
    last = site.db.lastTransaction()
    browser = site.browser('admin')
    browser.get('/zad/manage_overview')
    browser.get('/zad/manage_overview_data')
    assert site.db.lastTransaction() == last


@pytest.mark.parametrize('user', [None, 'bob'])
def test_others_see_nothing_and_test_nothing(site, zad, user):
    browser = site.browser(user)
    for path in ('/zad/manage_overview', '/zad/manage_overview_data'):
        assert browser.get(path).status_int == 401
    assert browser.post('/zad/manage_test').status_int == 401
    assert site.browser('admin').get('/zad/manage_test').status_int in (403, 404, 405)
    assert zad.zam1.lenNewCalls() == 1
