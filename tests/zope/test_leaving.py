"""Managers come and go: the pages, what they say before it happens, and what Zope's own do."""

import re

import pytest
import transaction
from AccessControl.Permissions import delete_objects
from bs4 import BeautifulSoup
from BTrees.OOBTree import OOBucket
from OFS.interfaces import IObjectWillBeRemovedEvent
from zExceptions import BadRequest
from zope.component import getGlobalSiteManager
from zope.component import provideHandler

from Products.zasync import lanes
from Products.zasync import moving
from Products.zasync.failure import Failure
from Products.zasync.interfaces import ACCEPTED
from Products.zasync.interfaces import FAILED
from Products.zasync.interfaces import IAsynchronousCallManager
from Products.zasync.interfaces import NEW
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasyncdispatcher import leaving
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.fakes import make_call
from tests.fakes import NOW
from tests.fakes import sign_on
from tests.zope.test_dispatcher import beat


XSS = '"><script>alert(1)</script>'
CALL = ('zope_exec', '/', {}, 'nothing', {})
LATE = NOW + 2_000_000_000


@pytest.fixture
def zad(site, app):
    """A dispatcher with three managers; all have a worker."""
    app._setObject('zad', ZAsyncDispatcher('zad'))
    for id in ('zam1', 'zam2', 'zam3'):
        app.zad._setObject(id, AsynchronousCallManager(id))
        sign_on(app.zad[id], ['zope_exec', 'echo'])
        beat(app.zad[id])
        app.zad[id].queue.desk.boot = f'boot-{id}'
    transaction.commit()
    return app.zad


@pytest.fixture
def admin(site):
    site.login('admin')
    return site.browser('admin')


def put(zad, number=1, manager='zam2', **options):
    found = [zad[manager].putCallWith(Options(**options), *CALL) for _ in range(number)]
    transaction.commit()
    return found


def claim(manager, slots=1):
    found = manager.queue.take_in_and_claim(manager.queue.desk.boot, LATE, slots, 86_400)
    transaction.commit()
    return found


def text_of(page, selector):
    found = BeautifulSoup(page.text, 'html.parser').select(selector)
    return ' '.join(' '.join(each.get_text(' ', strip=True) for each in found).split())


def complaint(page):
    """{field: sentence}."""
    soup = BeautifulSoup(page.text, 'html.parser')
    return {tag.find_previous(['input', 'select'])['name']: tag.get_text(strip=True)
            for tag in soup.select('#come-and-go .invalid-feedback')}


def ask(browser, id='zam2', how='move'):
    return browser.get('/zad/manage_removal', params={'id': id, 'how': how})


def remove(browser, id='zam2', how='move'):
    return browser.post('/zad/manage_removeManager', {'id': id, 'how': how})


def follow(browser, answer):
    assert answer.status_int == 302
    return browser.get(re.sub('^http://localhost(:80)?', '', answer.location))


# adding

def test_managers_are_added_with_the_next_ids(admin, zad):
    zad._delObject('zam2')
    zad.manage_addFolder('zam')
    zad.manage_addFolder('zam' + '9' * 5_000)
    page = follow(admin, admin.post('/zad/manage_addManagers', {'managers': ' 2 '}))
    assert 'Added zam4, zam5' in page.text
    assert [each.getId() for each in zad.managers()] == ['zam1', 'zam3', 'zam4', 'zam5']
    assert zad.zam5.lenNewCalls() == 0


@pytest.mark.parametrize('typed', ['', '0', '65', '-1', 'two', '1.5', XSS, '9' * 5_000])
def test_a_wrong_number_adds_nothing_and_comes_back_with_its_sentence(admin, zad, typed):
    page = admin.post('/zad/manage_addManagers', {'managers': typed})
    assert page.status_int == 400
    assert complaint(page)['managers'].startswith('The number of managers lies between 1 and 64')
    assert page.html.find('input', {'name': 'managers'})['value'] == typed
    assert '<script>alert' not in page.text
    assert len(zad.managers()) == 3


# what is said before

def test_the_removal_is_said_in_sentences_before_it_happens(site, admin, zad):
    put(zad, 3)
    put(zad)
    zad.zam2.queue.take_in_and_claim('boot-zam2', LATE, 1, 86_400)[0].succeed(None, LATE)
    done, = zad.zam2.queue.desk.running.values()
    zad.zam2.queue.archive_ended(done.id, 86_400)
    for deferred in zad.zam2.queue.take_in_and_claim('boot-zam2', LATE, 1, 86_400):
        deferred.fail(Failure('ValueError', 'no'), LATE)
        zad.zam2.queue.archive_ended(deferred.id, 86_400)
    zad.zam2.setPeriodicCall('nightly', '0 3 * * *', 'UTC', *CALL[:1], CALL[1:])
    zad.zam2.queue.card.plugins['resize'] = ''
    zad.zam2.queue.card._p_changed = True
    transaction.commit()
    claim(zad.zam2)
    last = site.db.lastTransaction()
    said = text_of(ask(admin), '#sentences')
    for sentence in ('paused at once', 'Calls that wait: 1, moved to zam1, zam3.',
                     'Calls that run: 1, not moved. The removal waits for their end.',
                     'Calls that failed and are kept: 1, moved.',
                     'Its periodic calls are moved: nightly.', 'Kept results: 1, deleted',
                     'No other worker offers resize', 'process 77 on host', 'manager id'):
        assert sentence in said, sentence
    zad.zam2.queue.desk.boot = None
    assert 'Calls that ran in a worker that is gone: 1, moved.' in text_of(
        ask(admin), '#sentences')
    assert site.db.lastTransaction() != last  # the test's own change, and no other
    last = site.db.lastTransaction()
    ask(admin)
    ask(admin, how='refuse')
    assert site.db.lastTransaction() == last


def test_of_many_results_so_many_are_counted(site, admin, zad, monkeypatch):
    """The page is made anew at each step of a removal; trees are loaded leaf by leaf."""
    put(zad, 300)
    queue = zad.zam2.queue
    for deferred in queue.take_in_and_claim('boot-zam2', LATE, 300, 86_400):
        deferred.succeed(None, LATE)
        queue.archive_ended(deferred.id, 86_400)
    transaction.commit()
    monkeypatch.setattr(leaving, 'RESULTS_MOST', 20)
    assert 'Kept results: more than 20, deleted' in text_of(ask(admin), '#sentences')
    zad._p_jar.cacheMinimize()
    assert leaving.census(zad, zad.zam2).results == 21
    loaded = [each for _, each in zad._p_jar._cache.lru_items()]
    assert sum(isinstance(each, OOBucket) for each in loaded) < 10


def test_a_manager_without_open_calls_is_removed_when_it_was_said_what_goes_with_it(admin, zad):
    zad.zam2.setPeriodicCall('nightly', '0 3 * * *', 'UTC', *CALL[:1], CALL[1:])
    page = ask(admin, how='refuse')
    said = text_of(page, '#sentences')
    assert 'no open calls' in said
    assert 'Its periodic calls are deleted with it: nightly.' in said
    form = page.forms['go-on']
    page = follow(admin, form.submit('press'))
    assert 'zam2 was removed.' in page.text
    assert [each.getId() for each in zad.managers()] == ['zam1', 'zam3']


def test_a_manager_with_open_calls_is_refused_and_the_page_says_so_before_and_after(admin, zad):
    put(zad, 2)
    claim(zad.zam2)
    page = ask(admin, how='refuse')
    assert 'Calls that wait: 1; that run: 1.' in text_of(page, '#error')
    assert 'go-on' not in page.forms
    answer = remove(admin, how='refuse')
    assert answer.status_int == 400
    assert '2 calls still to end' in text_of(answer, '#error')
    assert zad.zam2.open_calls() == 2 and not zad.zam2.paused


# moving

def test_calls_are_moved_and_the_manager_is_removed_in_one_go(admin, zad):
    deferreds = put(zad, 10)
    page = ask(admin)
    answer = page.forms['go-on'].submit('press')
    assert 'zam2 was removed.' in follow(admin, answer).text
    assert (zad.zam1.lenNewCalls(), zad.zam3.lenNewCalls()) == (5, 5)
    for deferred in deferreds:
        place = zad.zam1 if zad.zam1.queue.find(deferred.id) else zad.zam3
        assert place.getDeferred(deferred.id).id == deferred.id
        assert place.getDeferred(deferred.id).state == NEW
    assert not zad.zam1.leaving and not zad.zam1.paused


def test_a_large_move_goes_on_part_by_part_and_shows_how_far_it_is(admin, zad, monkeypatch):
    ids = [deferred.id for deferred in put(zad, 10)]
    monkeypatch.setattr(moving, 'MOST', 4)
    page = follow(admin, remove(admin))
    assert 'zam2 is being removed' in text_of(page, 'h3')
    assert text_of(page, '#left').startswith('6 calls wait here still')
    assert 'setTimeout' in page.text
    # Who asks at the old place is told, as long as there is one.
    assert {zad.zam2.getDeferred(id).id for id in ids} == set(ids)
    overview = admin.get('/zad/manage_overview')
    assert 'zam2 is being removed' in text_of(overview, '.alert')
    assert 'it is being removed' in overview.text
    assert '.submit()' not in overview.text
    # Somebody else may go on with it; a look alone does not.
    look = ask(admin, how='refuse')
    assert 'setTimeout' not in look.text
    page = follow(admin, look.forms['go-on'].submit('press'))
    assert text_of(page, '#left').startswith('2 calls wait here still')
    assert 'zam2 was removed.' in follow(admin, page.forms['go-on'].submit('press')).text
    assert zad.zam1.lenNewCalls() + zad.zam3.lenNewCalls() == 10


def test_a_manager_whose_worker_goes_on_meanwhile_is_paused_before_its_calls_move(
        site, admin, zad, monkeypatch):
    """Each claim writes the desk, which a move does too, for as long as a thousand calls take."""
    put(zad, 3)
    go_on, overlaps = leaving.go_on, []

    def overlapped(dispatcher, manager, now):
        gone = go_on(dispatcher, manager, now)
        rival = transaction.TransactionManager()
        other = site.db.open(rival)
        theirs = other.root()['Application'].zad.zam2
        if not theirs.paused:
            theirs.queue.desk._p_changed = True
            overlaps.append(theirs)
        rival.commit()
        other.close()
        return gone
    monkeypatch.setattr(leaving, 'go_on', overlapped)
    page = follow(admin, remove(admin))
    assert len(overlaps) == 1
    assert 'zam2 is being removed' in text_of(page, 'h3') and 'setTimeout' in page.text
    assert text_of(page, '#left').startswith('3 calls wait here still')
    assert zad.zam2.paused
    assert 'zam2 was removed.' in follow(admin, page.forms['go-on'].submit('press')).text
    assert zad.zam1.lenNewCalls() + zad.zam3.lenNewCalls() == 3


def test_running_calls_are_waited_for(admin, zad):
    put(zad, 2)
    running, = claim(zad.zam2)
    page = follow(admin, remove(admin))
    assert 'not moved' in text_of(page, '#sentences')
    assert zad.zam2.paused and zad.zam2.leaving
    assert zad.zam2.open_calls() == 2
    running.succeed(None, LATE)
    assert 'zam2 was removed.' in follow(admin, remove(admin)).text
    assert zad.zam1.lenNewCalls() + zad.zam3.lenNewCalls() == 1


@pytest.mark.parametrize('how', ['signed off', 'silent'])
def test_running_calls_of_a_worker_that_is_gone_go_along(admin, zad, how):
    put(zad, 2)
    running, = claim(zad.zam2)
    if how == 'signed off':
        zad.zam2.queue.desk.boot = None
    else:
        zad.max_idle_time = -1.0
    assert 'zam2 was removed.' in follow(admin, remove(admin)).text
    assert sorted(each.lenAcceptedCalls() for each in zad.managers()) == [0, 1]
    assert sum(each.lenNewCalls() for each in zad.managers()) == 1
    assert running.state == ACCEPTED


def test_running_calls_of_a_visitor_are_waited_for(admin, zad):
    """The worker of a sibling runs them; that of the manager itself is gone."""
    put(zad, 2)
    running, = zad.zam2.queue.take_in_and_claim('boot-zam1', LATE, 1, 86_400)
    zad.zam2.queue.desk.boot = None
    page = follow(admin, remove(admin))
    assert 'Calls that run: 1, not moved.' in text_of(page, '#sentences')
    assert zad.zam2.queue.find(running.id) is running
    zad.zam1.queue.desk.boot = 'another'
    assert 'zam2 was removed.' in follow(admin, remove(admin)).text


def test_a_leaving_manager_gets_no_calls_even_when_no_worker_lives(admin, zad):
    put(zad, 2)
    claim(zad.zam2)
    remove(admin)
    assert zad.load_of(zad.zam2).why == 'it is being removed'
    assert {zad.putCall(*CALL)[0] for _ in range(12)} == {'zam1', 'zam3'}
    for each in zad.managers():
        each.queue.pulse.accepting = 0
    zad.no_worker = 'queue'
    assert {zad.putCall(*CALL)[0] for _ in range(20)} == {'zam1', 'zam3'}


def test_calls_go_to_a_manager_that_is_paused_only_if_the_others_are_too(admin, zad):
    calls = put(zad, 4)
    for each in (zad.zam1, zad.zam3):
        each.queue.pulse.accepting = 0
    zad.zam1.pause()
    assert 'zam2 was removed.' in follow(admin, remove(admin)).text
    assert all(zad.zam3.queue.find(each.id) for each in calls)
    zad._setObject('zam4', AsynchronousCallManager('zam4'))
    zad.zam4.pause()
    assert 'zam3 was removed.' in follow(admin, remove(admin, 'zam3')).text
    assert len(zad.zam1.calls() + zad.zam4.calls()) == 4


def test_what_is_put_to_a_leaving_manager_all_the_same_is_moved_too(admin, zad):
    put(zad)
    claim(zad.zam2)
    remove(admin)
    for deferred in zad.zam2.queue.desk.running.values():
        deferred.succeed(None, LATE)
    late, = put(zad)
    assert 'zam2 was removed.' in follow(admin, remove(admin)).text
    assert zad.zam1.queue.find(late.id) or zad.zam3.queue.find(late.id)


def test_failed_calls_are_run_again_from_their_new_place(admin, zad):
    deferred, = put(zad)
    claim(zad.zam2)
    deferred.fail(Failure('ValueError', 'no'), LATE)
    assert 'zam2 was removed.' in follow(admin, remove(admin)).text
    place = zad.zam1 if zad.zam1.queue.find(deferred.id) else zad.zam3
    assert [each.id for each in place.calls(FAILED)] == [deferred.id]
    page = admin.get(f'/zad/{place.getId()}/manage_call', params={'id': deferred.id})
    assert 'ValueError' in page.text
    assert place.retry(deferred.id) == 1
    transaction.commit()
    assert claim(place) == [deferred]


def test_the_page_says_that_the_worker_runs_calls_of_others_which_are_waited_for(admin, zad):
    put(zad, manager='zam1')
    call, = zad.zam1.queue.take_in_and_claim('boot-zam2', LATE, 1, 86_400)
    transaction.commit()
    said = text_of(ask(admin), '#sentences')
    assert 'Calls of other managers that its worker runs: 1. The removal waits' in said
    page = follow(admin, remove(admin))
    assert 'zam2 is being removed' in page.text and 'zam2' in zad.objectIds()
    call.succeed(None, NOW)
    transaction.commit()
    assert 'zam2 was removed.' in follow(admin, remove(admin)).text


def test_a_manager_whose_worker_runs_calls_of_others_is_refused_and_the_page_says_so(
        admin, site, zad):
    put(zad, manager='zam1')
    call, = zad.zam1.queue.take_in_and_claim('boot-zam2', LATE, 1, 86_400)
    transaction.commit()
    said = 'runs calls of other managers: 1. Without it they would be given out again'
    assert said in text_of(ask(admin, how='refuse'), '#error')
    page = remove(admin, how='refuse')
    assert page.status_int == 400 and said in text_of(page, '#error')
    answer = admin.post('/zad/manage_delObjects', {'ids:list': 'zam2'})
    assert answer.status_int == 400 and said in answer.text
    site.login('admin')
    with pytest.raises(BadRequest, match='runs calls of other managers'):
        site.app.manage_pasteObjects(zad.manage_cutObjects(['zam2']))
    transaction.begin()
    assert 'zam2' in zad.objectIds()
    zad.manage_renameObject('zam2', 'other')  # it is known wherever it is in its dispatcher
    call.succeed(None, NOW)
    transaction.commit()
    assert 'other was removed.' in follow(admin, remove(admin, 'other', how='refuse')).text


@pytest.mark.parametrize('why', ['stopped', 'a guest has its desk'])
def test_what_others_run_is_not_waited_for(admin, zad, why):
    put(zad, manager='zam1')
    zad.zam1.queue.take_in_and_claim('boot-zam2', LATE, 1, 86_400)
    zad.zam2.queue.desk.take(None if why == 'stopped' else 'boot-zam2', guest=True)
    transaction.commit()
    assert 'zam2 was removed.' in follow(admin, remove(admin)).text


def test_periodic_calls_go_along_under_an_id_that_is_free(admin, zad):
    for id in ('zam1', 'zam2', 'zam3'):
        zad[id].setPeriodicCall('nightly', '0 3 * * *', 'UTC', *CALL[:1], CALL[1:], title=id)
    zad.zam2.setPeriodicCall('weekly', '0 3 * * 0', 'UTC', *CALL[:1], CALL[1:])
    zad.zam2.pausePeriodicCall('weekly')
    remove(admin)
    found = {(id, each.id, each.title, each.paused) for manager in zad.managers()
             for id, each in manager.periodic.items()}
    assert {(each[1], each[2]) for each in found} == {
        ('nightly', 'zam1'), ('nightly', 'zam3'), ('nightly-2', 'zam2'), ('weekly', '')}
    assert all(key == id for key, id, _, _ in found)
    assert [paused for _, id, _, paused in found if id == 'weekly'] == [True]
    assert admin.get(f'/zad/{"zam1"}/manage_periodic').status_int == 200


def test_a_periodic_call_goes_where_a_worker_has_the_plugins_of_its_members_too(admin, zad):
    for id, plugins in (('zam1', ['aggregate']), ('zam2', ['aggregate', 'special']),
                        ('zam3', ['aggregate', 'special'])):
        sign_on(zad[id], plugins)
    put(zad, 3, 'zam3')
    member = 'aggregate', ([('special', ())],)
    zad.zam2.setPeriodicCall('nightly', '0 3 * * *', 'UTC', 'aggregate', ([member],))
    transaction.commit()
    assert 'zam2 was removed.' in follow(admin, remove(admin)).text
    assert [id for id in ('zam1', 'zam3') if zad[id].periodic] == ['zam3']


def test_a_call_joins_another_by_its_key_wherever_that_one_went(admin, zad):
    first = zad.putCallWith(Options(key='k'), *CALL)
    transaction.commit()
    remove(admin, first[0])
    again = zad.putCallWith(Options(key='k'), *CALL)
    assert again[1] is first[1]
    assert again[0] != first[0]
    assert zad[again[0]].getDeferred(first[1].id) is not None


# what can't be

def test_the_last_manager_has_nowhere_to_move_its_calls_to(admin, zad):
    put(zad, 2)
    for id in ('zam1', 'zam3'):
        zad._delObject(id)
    page = ask(admin)
    assert 'no other manager here' in text_of(page, '#error')
    assert 'go-on' not in page.forms
    assert remove(admin).status_int == 400
    assert not zad.zam2.leaving and not zad.zam2.paused


def test_only_one_manager_leaves_at_a_time(admin, zad):
    for id in ('zam1', 'zam2'):
        put(zad, manager=id)
        claim(zad[id])
    remove(admin, 'zam1')
    assert zad.zam1.leaving
    assert 'zam1 is being removed' in text_of(ask(admin), '#error')
    answer = remove(admin, 'zam2')
    assert answer.status_int == 400 and 'zam1 is being removed' in text_of(answer, '#error')
    assert not zad.zam2.leaving
    put(zad, 4, 'zam1')
    for deferred in zad.zam1.queue.desk.running.values():
        deferred.succeed(None, LATE)
    remove(admin, 'zam1')
    assert [each.getId() for each in zad.managers()] == ['zam2', 'zam3']


def test_of_two_managers_that_begin_to_leave_at_the_same_time_one_is_refused(site, zad):
    from ZODB.POSException import ConflictError

    from Products.zasyncdispatcher import leaving
    rival = transaction.TransactionManager()
    other = site.db.open(rival)
    try:
        theirs = other.root()['Application'].zad
        leaving.start(theirs, theirs.zam1)
        leaving.start(zad, zad.zam2)
        rival.commit()
        with pytest.raises(ConflictError):
            transaction.commit()
    finally:
        transaction.abort()
        rival.abort()
        other.close()


def test_a_removal_is_called_off(admin, zad):
    deferreds = put(zad, 2)
    claim(zad.zam2)
    page = follow(admin, remove(admin))
    page = follow(admin, page.forms['keep'].submit('press'))
    assert 'zam2 stays. It is paused' in page.text
    assert zad.zam2.paused and not zad.zam2.leaving
    assert zad.zam2.resume() == 1
    transaction.commit()
    assert {each.id for each in claim(zad.zam2)} <= {each.id for each in deferreds}


def test_a_removal_that_was_called_off_is_not_begun_again_by_a_page_that_goes_on(admin, zad):
    """Somebody else's, which posts its form each second, or the one that Back leads to."""
    put(zad)
    claim(zad.zam2)
    page = follow(admin, remove(admin))
    follow(admin, page.forms['keep'].submit('press'))
    assert zad.zam2.resume() == 1
    zad.zam2.setPeriodicCall('nightly', '@daily', 'UTC', 'echo')
    late = page.forms['go-on'].submit('press')
    assert late.status_int == 400
    assert text_of(late, '#error') == 'Its removal was called off meanwhile.'
    assert 'setTimeout' not in late.text and 'go-on' not in late.forms
    assert not zad.zam2.leaving and not zad.zam2.paused
    again = follow(admin, page.forms['keep'].submit('press'))
    assert 'zam2 stays.' in again.text and 'It is paused' not in again.text
    assert list(zad.zam2.periodic) == ['nightly']
    # Whoever wants it gone all the same begins anew.
    assert 'zam2 is being removed' in text_of(follow(admin, ask(admin).forms['go-on'].submit()),
                                              'h3')


def test_a_manager_that_stays_tells_of_the_calls_that_have_gone(admin, zad, monkeypatch):
    deferreds = put(zad, 3)
    monkeypatch.setattr(moving, 'MOST', 2)
    page = follow(admin, remove(admin))
    follow(admin, page.forms['keep'].submit('press'))
    assert sum(each.is_in(zad.zam2.queue) for each in deferreds) == 1
    assert [zad.zam2.getDeferred(each.id) for each in deferreds] == deferreds


@pytest.mark.parametrize('action', ['manage_removal', 'manage_removeManager',
                                    'manage_keepManager'])
@pytest.mark.parametrize('id', ['', 'zam9', 'manage_main', '..', XSS])
def test_an_id_that_is_no_managers_is_refused_with_a_sentence_in_the_form(
        admin, zad, action, id):
    verb = admin.get if action == 'manage_removal' else admin.post
    page = verb(f'/zad/{action}', params={'id': id, 'how': XSS})
    assert page.status_int == 400
    assert 'anager' in complaint(page)['id']
    assert '<script>alert' not in page.text
    assert len(zad.managers()) == 3


@pytest.mark.parametrize('action', ['manage_addManagers', 'manage_removeManager',
                                    'manage_keepManager'])
def test_what_changes_something_answers_to_post_only(admin, zad, action):
    answer = admin.get(f'/zad/{action}', params={'id': 'zam2', 'how': 'refuse', 'managers': '1'})
    assert answer.status_int in (403, 404, 405)
    assert len(zad.managers()) == 3


@pytest.mark.parametrize('user', [None, 'bob'])
def test_others_may_neither_look_nor_add_nor_remove(site, zad, user):
    browser = site.browser(user)
    assert ask(browser).status_int == 401
    assert remove(browser, how='refuse').status_int == 401
    assert browser.post('/zad/manage_addManagers', {'managers': '1'}).status_int == 401
    assert browser.post('/zad/manage_keepManager', {'id': 'zam2'}).status_int == 401
    assert len(zad.managers()) == 3


def test_who_may_look_may_not_remove_unless_he_may_delete_objects(site, zad):
    zad.manage_permission('View management screens', ['Member'], 1)
    browser = site.browser('bob')
    assert ask(browser).status_int == 200
    assert remove(browser).status_int == 401
    assert browser.post('/zad/manage_addManagers', {'managers': '1'}).status_int == 401
    zad.manage_permission(delete_objects, ['Member'], 1)
    assert remove(browser).status_int == 302
    assert 'zam2' not in zad.objectIds()


def test_a_hostile_host_and_odd_names_are_shown_as_text(admin, zad):
    zad.zam2.queue.card.host = XSS
    zad.zam2.queue.card.plugins[XSS] = ''
    zad.zam2.queue.card._p_changed = True
    page = ask(admin)
    assert page.status_int == 200
    assert 'alert(1)' in page.text and '<script>alert' not in page.text


def test_the_link_to_a_removal_leads_to_a_manager_of_any_id(admin, zad):
    id = 'one #2+2%41 é'
    zad.manage_renameObject('zam2', id)
    put(zad, manager=id)
    claim(zad[id])
    remove(admin, id)
    link = admin.get('/zad/manage_overview').html.select_one('#come-and-go .alert a')
    page = admin.get(link['href'].partition(':80')[2])
    assert f'{id} is being removed' in text_of(page, 'h3')


# what Zope does by itself

@pytest.mark.parametrize('path, selector', [('/zad/manage_overview', '#what-zope-does'),
                                            ('/zad/zam2/manage_main', '#what-zope-does')])
def test_the_pages_say_what_zope_does_with_a_manager(admin, zad, path, selector):
    said = text_of(admin.get(path), selector).lower()
    for word in ('rename', 'copy', 'export', 'delete', 'paste', 'refused', 'import'):
        assert word in said or word == 'copy' and 'copied' in said, word


def test_an_export_holds_the_arguments_and_an_import_drops_the_calls(site, app, zad, tmp_path):
    """Zope writes what is in the database: nothing of ours is asked. The page says so."""
    site.login('admin')
    zad.zam2.putCall('zope_exec', '/', {'secret': 'of-a-user'}, 'nothing', {})
    zad.zam2.leaving = True
    transaction.commit()
    data = app.zad.manage_exportObject('zam2', download=1)
    assert b'of-a-user' in data
    path = tmp_path / 'zam2.zexp'
    path.write_bytes(data)
    app.manage_addFolder('sub')
    app.sub._importObjectFromFile(str(path))
    transaction.commit()
    assert (app.sub.zam2.open_calls(), app.sub.zam2.leaving) == (0, False)
    assert b'of-a-user' not in app.sub.manage_exportObject('zam2', download=1)
    assert zad.zam2.open_calls() == 1


@pytest.mark.parametrize('path, ids', [('/zad/manage_delObjects', 'zam2'),
                                       ('/manage_delObjects', 'zad')])
def test_the_refusal_to_delete_says_what_to_do(site, admin, zad, path, ids):
    put(zad)
    answer = admin.post(path, {'ids:list': ids})
    assert answer.status_int == 400
    assert '1 call still to end' in answer.text
    assert 'Overview' in answer.text
    assert zad.zam2.open_calls() == 1


def test_a_leaving_manager_that_is_renamed_goes_on_leaving_under_its_new_id(admin, zad):
    put(zad, 2)
    claim(zad.zam2)
    remove(admin)
    assert admin.post('/zad/manage_renameObjects', {
        'ids:list': 'zam2', 'new_ids:list': 'old'}).status_int in (200, 302)
    assert zad.old.leaving
    for deferred in zad.old.queue.desk.running.values():
        deferred.succeed(None, LATE)
    assert 'old was removed.' in follow(admin, remove(admin, 'old')).text


def test_a_put_that_overlaps_with_the_last_step_is_moved_by_the_next_one(site, app, zad):
    """The last step deletes the manager: the put meets it at its lane, and one is repeated."""
    from ZODB.POSException import ConflictError

    from Products.zasyncdispatcher import leaving
    site.login('admin')
    rival = transaction.TransactionManager()
    other = site.db.open(rival)
    try:
        id = other.root()['Application'].zad.zam2.queue.put(
            make_call(), (lanes.current() + 3) % lanes.LANES).id
        leaving.start(zad, zad.zam2)
        assert leaving.go_on(zad, zad.zam2, LATE)
        rival.commit()
        with pytest.raises(ConflictError):
            transaction.commit()
        transaction.abort()
        leaving.start(zad, zad.zam2)
        assert leaving.go_on(zad, zad.zam2, LATE)
        transaction.commit()
        assert sum(each.queue.find(id) is not None for each in zad.managers()) == 1
    finally:
        transaction.abort()
        rival.abort()
        other.close()


@pytest.mark.parametrize('first', ['the call-off', 'the last step'])
def test_a_removal_that_is_called_off_during_its_last_step_ends_one_way(site, app, zad, first):
    """Who called it off would be told that a manager stays which is gone."""
    from ZODB.POSException import ConflictError

    from Products.zasyncdispatcher import leaving
    site.login('admin')
    leaving.start(zad, zad.zam2)
    transaction.commit()
    rival = transaction.TransactionManager()
    other = site.db.open(rival)
    try:
        there = other.root()['Application'].zad
        leaving.call_off(there, there.zam2)
        assert leaving.go_on(zad, zad.zam2, LATE)
        sooner, later = ((rival, transaction) if first == 'the call-off' else
                         (transaction, rival))
        sooner.commit()
        with pytest.raises(ConflictError):
            later.commit()
    finally:
        transaction.abort()
        rival.abort()
        other.close()


def test_a_manager_that_does_not_lie_in_a_dispatcher_says_what_to_do(app, manager):
    manager.putCall(*CALL)
    with pytest.raises(BadRequest) as refusal:
        app._delObject('zam')
    assert 'Let its worker finish them first' in str(refusal.value)


@pytest.mark.parametrize('how', ['refuse', 'move'])
def test_a_manager_to_which_its_removal_puts_a_call_stays_with_what_it_has(zad, admin, how):
    """Somebody who is told of the removal may have work for later."""
    def told(removed, event):
        if removed.getId() == 'zam2':
            removed.putCall('echo', 1)

    moved = put(zad) if how == 'move' else []
    adapts = (IAsynchronousCallManager, IObjectWillBeRemovedEvent)
    provideHandler(told, adapts)
    try:
        page = remove(admin, how=how)
    finally:
        getGlobalSiteManager().unregisterHandler(told, adapts)
    transaction.begin()
    assert (page.status_int, 'zam2' in zad.objectIds()) == (400, True)
    assert '1 call still to end' in page.text
    assert (zad.zam2.calls(), zad.zam2.leaving, zad.zam2.paused) == (moved, False, False)
    assert remove(admin, how=how).status_int in (200, 302)
    transaction.begin()
    assert 'zam2' not in zad.objectIds()
