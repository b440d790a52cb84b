"""The tab "Calls": lists, one call in full, and what a person does there."""

import pickle
import re

import pytest
import transaction
from bs4 import BeautifulSoup
from persistent import GHOST

from Products.zasync import lanes
from Products.zasync import listing
from Products.zasync.board import Progress
from Products.zasync.failure import Failure
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasync.running import made_progress
from Products.zasync.zmi import callpages
from tests.fakes import make_call
from tests.fakes import NOW


XSS = '"><script>alert(1)</script>'


class Trap:
    """Would tell if it were made."""

    made = []

    def __reduce__(self):
        return Trap.made.append, ('made',)


def put(manager, *more, **options):
    return manager.putCallWith(Options(**options), 'zope_exec', '/', {}, 'nothing', *more)


@pytest.fixture
def calls(site, manager, now):
    """{state: deferred}: one of each that the page can show."""
    site.login('bob')
    made = {name: put(manager) for name in ('resolved', 'failed', 'accepted', 'cancelled')}
    queue = manager.queue
    transaction.commit()
    made['cancelled'].cancel()
    assert len(queue.take_in_and_claim('boot', NOW, 9, 86_400)) == 3
    made['resolved'].succeed(b'\x80\x04K*.', NOW + 1)
    made['failed'].fail(Failure('ValueError', f'no {XSS}', f'Traceback {XSS}'), NOW + 2)
    queue.archive_ended(made['resolved'].id, 86_400)
    queue.archive_ended(made['failed'].id, 86_400)
    queue.board.write({made['accepted'].id: Progress(3, 4, f'of {XSS}')})
    made['new'] = put(manager)
    transaction.commit()
    site.logout()
    return made


def listed(answer):
    """{id: text of its row}"""
    soup = BeautifulSoup(answer.text, 'html.parser')
    return {row.td.get_text(strip=True): row.get_text(' ', strip=True)
            for row in soup.select('#calls tbody tr')}


def test_all_calls_are_listed_with_what_they_are(site, calls):
    rows = listed(site.browser('admin').get('/zam/manage_calls'))
    assert set(rows) == {deferred.id for deferred in calls.values()}
    for state, deferred in calls.items():
        assert state in rows[deferred.id]
        assert 'bob of /acl_users' in rows[deferred.id]
    assert '3 of 4' in rows[calls['accepted'].id]
    assert 'ValueError: no' in rows[calls['failed'].id]


@pytest.mark.parametrize('state', ['new', 'accepted', 'resolved', 'failed', 'cancelled'])
def test_a_state_can_be_asked_for(site, calls, state):
    answer = site.browser('admin').get('/zam/manage_calls', params={'state': state})
    assert set(listed(answer)) == {calls[state].id}


@pytest.mark.parametrize('asked, number', [
    ({'plugin': 'zope_exec'}, 5), ({'plugin': 'zope_call'}, 0), ({'user': 'bob'}, 5),
    ({'user': 'eve'}, 0), ({'state': 'no such state'}, 5)])
def test_plugin_and_user_can_be_asked_for(site, calls, asked, number):
    assert len(listed(site.browser('admin').get('/zam/manage_calls', params=asked))) == number


def test_what_a_call_says_is_text_on_every_page(site, calls):
    browser = site.browser('admin')
    pages = [browser.get('/zam/manage_calls', params={'plugin': XSS, 'user': XSS, 'state': XSS}),
             browser.get('/zam/manage_calls')]
    pages += [browser.get('/zam/manage_call', params={'id': deferred.id})
              for deferred in calls.values()]
    for page in pages:
        assert page.status_int == 200
        assert '<script>alert' not in page.text


def test_a_long_list_comes_in_pages_and_each_call_once(site, manager):
    for _ in range(120):
        put(manager)
    browser, url, seen = site.browser('admin'), '/zam/manage_calls?state=new', []
    for _ in range(5):
        answer = browser.get(url)
        seen += listed(answer)
        link = BeautifulSoup(answer.text, 'html.parser').find('a', string='Next page')
        if link is None:
            break
        url = link['href']
    assert len(seen) == 120 == len(set(seen))


@pytest.mark.parametrize('fate', ['is to run again', 'runs again', 'dropped'])
def test_the_next_page_is_there_when_the_last_call_of_the_page_is_in_the_list_no_more(
        site, manager, now, fate):
    """Whoever has that one run again, and then turns the page."""
    site.login('bob')
    ids = [put(manager).id for _ in range(callpages.PAGE + 10)]
    for deferred in manager.queue.take_in_and_claim('boot', NOW, 99, 86_400):
        deferred.fail(Failure('ValueError', 'no'), NOW)
        manager.queue.archive_ended(deferred.id, 86_400)
    transaction.commit()
    site.logout()
    admin = site.browser('admin')
    first = admin.get('/zam/manage_calls?state=failed')
    last = list(listed(first))[-1]
    if 'run' in fate:
        admin.post('/zam/manage_retryCall', {'id': last})
        transaction.begin()
        manager.queue.take_in_and_claim('boot', NOW, int(fate == 'runs again'), 86_400)
    else:
        del manager.queue.failed[last]
    transaction.commit()
    second = first.click('Next page')
    assert set(listed(first)) | set(listed(second)) == set(ids)
    assert len(listed(second)) == 10


@pytest.mark.parametrize('start', ['', 'x', '1-2-3', 'f-f-' + 400 * 'f' + '-f', '0-0-0-0'])
def test_after_what_is_no_call_comes_nothing(site, calls, start):
    found = listed(site.browser('admin').get('/zam/manage_calls', params={'start': start}))
    assert len(found) == (0 if start else 5)


def facts(answer):
    soup = BeautifulSoup(answer.text, 'html.parser')
    return {row.th.get_text(strip=True): row.td.get_text(strip=True)
            for row in soup.select('#facts tr')}


def test_a_search_that_finds_little_goes_on_where_it_stopped(site, manager, monkeypatch):
    """Each call that does not fit is loaded: with a million of them a page would never come."""
    monkeypatch.setattr(callpages, 'LOOK_MOST', 10)
    site.login('bob')
    wanted = put(manager).id
    site.login('eve')
    for _ in range(24):
        put(manager)
    site.logout()
    admin = site.browser('admin')
    pages = [admin.get('/zam/manage_calls?user=bob')]
    while 'Look further' in pages[-1].text:
        assert wanted not in pages[-1].text and 'no such calls' not in pages[-1].text
        pages.append(pages[-1].click('Look further'))
    assert len(pages) == 3 and wanted in pages[-1].text
    assert 'There are no such calls.' in admin.get(
        '/zam/manage_calls?user=bob&start=' + wanted).text


@pytest.mark.parametrize('done, total, width', [
    (1, 3, 33), (5, 3, 100), (-1, 3, 0), (10 ** 308, 1.0, 100), (1, 5e-324, 100), (-1, 5e-324, 0)])
def test_the_pages_show_any_progress_that_can_be_told(site, calls, manager, done, total, width):
    call = calls['accepted']
    manager.queue.board.write({call.id: made_progress(done, total, '')})
    admin = site.browser('admin')
    for page in (admin.get('/zam/manage_calls'),
                 admin.get('/zam/manage_call', params={'id': call.id})):
        assert f'width: {width}%' in page.text
        bar = page.html.select_one('[role=progressbar]')
        assert [bar.get(f'aria-{name}') for name in ('label', 'valuemin', 'valuenow', 'valuemax')
                ] == ['Progress', '0', str(width), '100']


def test_one_call_is_shown_in_full(site, calls):
    browser = site.browser('admin')
    found = facts(browser.get('/zam/manage_call', params={'id': calls['resolved'].id}))
    assert found['Result'] == '42'
    assert "'nothing'" in found['Arguments']
    assert found['Caller'] == 'bob of /acl_users'
    failed = browser.get('/zam/manage_call', params={'id': calls['failed'].id})
    soup = BeautifulSoup(failed.text, 'html.parser')
    assert soup.find(id='traceback').get_text() == f'Traceback {XSS}'
    assert len(soup.select('#attempts tr')) == 2


def test_the_options_of_a_call_are_shown(site, manager):
    deferred = put(manager, priority=3, timeout=60, key='once', series='post')
    found = facts(site.browser('admin').get('/zam/manage_call', params={'id': deferred.id}))
    assert (found['Priority'], found['Time-out'], found['Key'], found['Series']) == (
        '3', '60 s', 'once', 'post')


def test_showing_a_call_makes_nothing_of_what_it_was_given(site, manager):
    deferred = put(manager)
    deferred._arguments = pickle.dumps((({'trap': Trap()},), {}))  # the door refuses it
    text = facts(site.browser('admin').get('/zam/manage_call', params={'id': deferred.id}))
    assert 'trap' in text['Arguments'] and 'append' in text['Arguments']
    assert Trap.made == []


@pytest.mark.parametrize('id', ['', 'no', '0-1-0-0', XSS])
def test_a_call_that_is_not_there_is_not_found(site, manager, id):
    answer = site.browser('admin').get('/zam/manage_call', params={'id': id})
    assert answer.status_int == 404
    assert '<script>alert' not in answer.text


def after_redirect(browser, answer):
    assert answer.status_int == 302
    return browser.get(re.sub('^http://localhost(:80)?', '', answer.location)).text


def test_a_call_is_cancelled_by_its_button(site, calls):
    browser = site.browser('admin')
    answer = browser.post('/zam/manage_cancelCall', {'id': calls['new'].id})
    assert 'The call is cancelled' in after_redirect(browser, answer)
    assert calls['new'].state == 'cancelled'
    answer = browser.post('/zam/manage_cancelCall', {'id': calls['resolved'].id})
    assert 'had ended already' in after_redirect(browser, answer)
    assert calls['resolved'].state == 'resolved'


def test_a_call_that_failed_runs_again_by_its_button(site, calls, manager):
    browser = site.browser('admin')
    answer = browser.post('/zam/manage_retryCall', {'id': calls['failed'].id})
    assert 'will run once more' in after_redirect(browser, answer)
    assert calls['failed'].state == 'new'
    again = manager.queue.take_in_and_claim('boot', NOW, 9, 86_400)
    assert calls['failed'] in again
    answer = browser.post('/zam/manage_retryCall', {'id': calls['resolved'].id})
    assert 'Only a call that has failed' in after_redirect(browser, answer)


def test_all_calls_that_failed_run_again_by_one_button(site, calls, manager):
    browser = site.browser('admin')
    answer = browser.post('/zam/manage_retryAll')
    assert '1 call will run once more' in after_redirect(browser, answer)
    assert manager.calls('failed') == []


def test_ended_calls_are_dropped_by_state_and_age(site, calls, manager, now):
    browser = site.browser('admin')
    now.time = NOW + 2 * 3600
    answer = browser.post('/zam/manage_purge', {'state': 'resolved', 'hours': '24'})
    assert '0 calls dropped' in after_redirect(browser, answer)
    answer = browser.post('/zam/manage_purge', {'state': 'resolved', 'hours': '1'})
    assert '1 call dropped' in after_redirect(browser, answer)
    assert manager.calls('resolved') == []
    assert len(manager.calls('failed')) == 1


@pytest.fixture
def busy_putters(site, manager, monkeypatch):
    """Others put by all lanes whenever so many calls are run again; → how many were put."""
    real, put = AsynchronousCallManager.retry, []
    other = site.db.open(transaction.TransactionManager(explicit=False))

    def retry(manager, *args):
        number = real(manager, *args)
        if number > 100:
            other.transaction_manager.begin()
            queue = other.root()['Application'].zam.queue
            put.extend(queue.put(make_call(), lane) for lane in range(lanes.LANES))
            other.transaction_manager.commit()
        return number

    queue = manager.queue
    for number in range(800):
        queue.put(make_call(number), number % 4)
    for deferred in queue.take_in_and_claim('boot', NOW, 800, 86_400):
        deferred.fail(Failure('ValueError', 'no', ''), NOW)
        queue.archive_ended(deferred.id, 86_400)
    transaction.commit()
    monkeypatch.setattr(AsynchronousCallManager, 'retry', retry)
    yield put
    other.close()


def test_by_one_button_fewer_calls_run_again_when_that_meets_what_others_put(
        site, manager, busy_putters):
    browser = site.browser('admin')
    answer = browser.post('/zam/manage_retryAll')
    assert '100 calls will run once more. There may be more.' in after_redirect(browser, answer)
    assert busy_putters and manager.lenNewCalls() == len(busy_putters) + 100


def test_from_python_fewer_calls_run_again_when_that_meets_what_others_put(
        manager, busy_putters):
    numbers = []
    while not numbers or numbers[-1]:
        for attempt in transaction.manager.attempts(4):  # as many as Zope makes
            with attempt:
                numbers.append(manager.retry())
    assert not manager.calls('failed')
    assert busy_putters and manager.lenNewCalls() == len(busy_putters) + 800


@pytest.fixture
def busy_worker(site, manager, monkeypatch):
    """A worker files a failure whenever a purge takes so many calls; → what it has filed."""
    filed, real = [], listing.purge
    other = site.db.open(transaction.TransactionManager(explicit=False))

    def file_one():
        id = ids[len(filed)]
        other.transaction_manager.begin()
        queue = other.root()['Application'].zam.queue
        queue.desk.running[id].fail(Failure('ValueError', 'no', ''), NOW)
        queue.archive_ended(id, 86_400)
        other.transaction_manager.commit()
        filed.append(id)

    def purge(*args):
        number = real(*args)
        if number > 100:
            file_one()
        return number

    queue = manager.queue
    ids = [queue.put(make_call(number), number % 4).id for number in range(800)]
    queue.take_in_and_claim('boot', NOW, 800, 86_400)
    transaction.commit()
    for _ in range(600):
        file_one()
    transaction.begin()
    monkeypatch.setattr(listing, 'purge', purge)
    yield filed
    other.close()


def test_a_purge_by_its_button_takes_fewer_calls_when_it_meets_what_is_filed(
        site, manager, busy_worker):
    browser = site.browser('admin')
    answer = browser.post('/zam/manage_purge', {'state': 'failed', 'hours': '0'})
    assert '100 calls dropped. There may be more.' in after_redirect(browser, answer)
    assert len(manager.queue.failed) == len(busy_worker) - 100


def test_a_purge_from_python_takes_fewer_calls_when_it_meets_what_is_filed(
        manager, busy_worker):
    numbers = []
    while not numbers or numbers[-1]:
        for attempt in transaction.manager.attempts(4):  # as many as Zope makes
            with attempt:
                numbers.append(manager.purge('failed', 0))
    assert not manager.queue.failed


@pytest.mark.parametrize('values', [
    {}, {'state': 'new', 'hours': '0'}, {'state': 'failed', 'hours': 'many'},
    {'state': 'failed', 'hours': '-1'}, {'state': 'failed', 'hours': 'nan'}, {'state': XSS}])
def test_a_wrong_purge_drops_nothing_and_says_so(site, calls, manager, values):
    browser = site.browser('admin')
    page = after_redirect(browser, browser.post('/zam/manage_purge', values))
    assert 'nothing was dropped' in page.replace('\n', ' ')
    assert '<script>alert' not in page
    assert len(manager.calls()) == 5


def test_a_manager_is_paused_and_resumed(site, manager):
    browser = site.browser('admin')
    assert 'Paused' in after_redirect(browser, browser.post('/zam/manage_pause'))
    assert manager.paused
    assert 'paused' in browser.get('/zam/manage_calls').text
    assert 'takes calls again' in after_redirect(browser, browser.post('/zam/manage_resume'))
    assert not manager.paused


def test_looking_at_calls_writes_nothing(site, calls):
    last = site.db.lastTransaction()
    site.browser('admin').get('/zam/manage_calls')
    site.browser('admin').get('/zam/manage_call', params={'id': calls['failed'].id})
    assert site.db.lastTransaction() == last


def test_the_page_of_a_call_that_waits_for_many_loads_and_names_some(site, manager, now):
    site.login('bob')
    job = ('zope_exec', ('/', {}, 'nothing', {}))
    deferred = manager.putCall('aggregate', [job] * (callpages.AWAITED_MOST + 900))
    transaction.commit()
    site.login('admin')
    manager._p_jar.cacheMinimize()
    facts = dict(callpages.facts_of(deferred))
    assert facts['Waits for'].endswith(f'{deferred.after[callpages.AWAITED_MOST - 1].id} '
                                       'and 900 more')
    loaded = sum(each._p_state != GHOST for each in deferred.after)
    assert loaded == callpages.AWAITED_MOST
