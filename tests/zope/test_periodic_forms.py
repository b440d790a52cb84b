"""The tab "Periodic", and periodic calls from Python: what is set, refused and shown."""

import datetime
import re

import pytest
import transaction
from bs4 import BeautifulSoup

from Products.zasync import periodic
from Products.zasync.errors import BadCall
from Products.zasync.failure import Failure
from Products.zasync.options import Options
from Products.zasync.options import Retry
from tests.fakes import NOW
from tests.fakes import sign_on
from tests.zope import jobs


XSS = '"><script>alert(1)</script>'
FORM, LIST = '/zam/manage_periodicCall', '/zam/manage_periodic'
SAVE = '/zam/manage_savePeriodicCall'
ACTIONS = ('pause', 'resume', 'run', 'drop')

EXPRESSION = {'adding': 'yes', 'id': 'nightly', 'title': 'Tidy up', 'expression': '30 2 * * *',
              'zone': 'Europe/Berlin', 'kind': 'zope_exec', 'path': '/zam',
              'tales': 'python: here.getId()', 'plugin': '', 'arguments': '()',
              'keywords': '{}', 'priority': '0', 'timeout': '', 'expires': '', 'attempts': '',
              'series': ''}
PLUGIN = {**EXPRESSION, 'kind': 'plugin', 'path': '', 'tales': '', 'plugin': 'mailer',
          'arguments': "(1, 'two')", 'keywords': "{'three': 3}"}


@pytest.fixture
def manager(manager, now):
    """A manager whose worker offers the plugin `mailer`; the clock stands still."""
    sign_on(manager, ['mailer'])
    return manager


@pytest.fixture
def admin(site, manager):
    """A browser of a Manager."""
    return site.browser('admin')


def soup(answer):
    return BeautifulSoup(answer.text, 'html.parser')


def fields(answer):
    """{name: value} of the form."""
    form = soup(answer).find('form', action=re.compile('manage_savePeriodicCall'))
    found = {tag['name']: tag.get('value', '') for tag in form.find_all('input')
             if tag.get('name') not in (None, 'submit')}
    found['kind'] = form.find('option', selected=True)['value']
    return found


def complaints(answer):
    """{field: sentence} of what a page says is wrong."""
    return {tag.find_previous(('input', 'select'))['name']: tag.get_text(strip=True)
            for tag in soup(answer).find_all(class_='invalid-feedback')}


def rows(answer):
    """{id: text of its row}"""
    return {row.a.get_text(strip=True): row.get_text(' ', strip=True)
            for row in soup(answer).select('#periodic tbody tr')}


def followed(browser, answer):
    assert answer.status_int == 302, answer.text
    return browser.get(re.sub('^http://localhost(:80)?', '', answer.location))


def set_one(manager, id='nightly', expression='30 2 * * *', zone='Europe/Berlin',
            plugin='zope_exec', args=('/', {}, 'nothing'), **more):
    manager.setPeriodicCall(id, expression, zone, plugin, args, **more)
    transaction.commit()
    return manager.periodic[id]


# adding and changing

def test_the_form_adds_an_expression_and_shows_the_next_five_times(site, manager, admin):
    page = followed(admin, admin.post(SAVE, EXPRESSION))
    assert 'Saved.' in page.text
    ticks = [tag.get_text(' ', strip=True) for tag in soup(page).select('#ticks li')]
    # NOW is 14 November 2023, 22:13 UTC.
    assert ticks[0].split() == ['2023-11-15', '02:30', 'CET', '2023-11-15', '01:30:00', 'UTC']
    assert len(ticks) == 5
    each = manager.periodic['nightly']
    assert each.title == 'Tidy up'
    assert each.call.plugin == 'zope_exec'
    assert str(each.call.caller) == 'admin of /acl_users'
    assert fields(page) == {key: value for key, value in EXPRESSION.items() if key != 'adding'}


def test_the_form_adds_a_plugin_with_arguments_and_options(site, manager, admin):
    more = {'priority': '3', 'timeout': '60', 'expires': '90', 'attempts': '4', 'series': 'post'}
    page = followed(admin, admin.post(SAVE, {**PLUGIN, **more}))
    call = manager.periodic['nightly'].call
    assert (call.plugin, call.priority, call.timeout_seconds, call.series) == (
        'mailer', 3, 60.0, 'post')
    assert call.retry[0] == 4
    assert call.expires_at - call.put_at == 90.0
    shown = fields(page)
    assert {key: shown[key] for key in more} == more
    assert (shown['plugin'], shown['arguments'], shown['keywords']) == (
        'mailer', "(1, 'two')", "{'three': 3}")
    periodic.beat(manager, NOW + 86_400)
    assert manager.periodic['nightly'].last.arguments() == ((1, 'two'), {'three': 3})


def test_blanks_around_what_was_typed_do_not_matter(manager, admin):
    blanks = {name: f' {PLUGIN[name]}\t' for name in ('id', 'expression', 'zone', 'plugin')}
    followed(admin, admin.post(SAVE, {**PLUGIN, **blanks}))
    each = manager.periodic['nightly']
    assert (each.timetable.zone, each.call.plugin) == ('Europe/Berlin', 'mailer')


@pytest.mark.parametrize('attempts, stored', [
    ('', None), ('0', ()), ('1', (1, 5.0, 2.0, 3600.0, ()))])
def test_attempts_are_the_plugins_never_twice_or_a_number(manager, admin, attempts, stored):
    page = followed(admin, admin.post(SAVE, {**PLUGIN, 'attempts': attempts}))
    assert manager.periodic['nightly'].call.retry == stored
    assert fields(page)['attempts'] == attempts


def test_what_the_form_does_not_show_of_a_retry_stays(manager, admin):
    retry = Retry(3, delay=7.0, on=('ValueError',))
    set_one(manager, plugin='mailer', args=(), options=Options(retry=retry))
    admin.post(SAVE, {**PLUGIN, 'adding': '', 'attempts': '3'})
    assert manager.periodic['nightly'].call.retry == retry.as_tuple()
    admin.post(SAVE, {**PLUGIN, 'adding': '', 'attempts': '5'})
    assert manager.periodic['nightly'].call.retry == Retry(5).as_tuple()


def test_whoever_saves_the_form_is_the_caller_from_then_on(site, manager, admin):
    site.login('bob')
    set_one(manager)
    assert manager.periodic['nightly'].call.caller.user_id == 'bob'
    site.logout()
    form = fields(admin.get(FORM, params={'id': 'nightly'}))
    assert form['tales'] == 'nothing' and form['kind'] == 'zope_exec'
    followed(admin, admin.post(SAVE, {**form, 'title': 'Another'}))
    assert manager.periodic['nightly'].call.caller.user_id == 'admin'


@pytest.mark.parametrize('plugin, args', [
    ('zope_call', (jobs.add, 1, 2)), ('schedule', (5, 'mailer')),
    ('aggregate', ([('mailer', (1,)), ('mailer', (2,))],))])
def test_what_no_form_can_say_stays_as_it_is_with_its_caller(site, manager, admin, plugin, args):
    site.login('bob')
    call = set_one(manager, plugin=plugin, args=args).call
    site.logout()
    form = fields(admin.get(FORM, params={'id': 'nightly'}))
    assert form['kind'] == 'keep'
    followed(admin, admin.post(SAVE, {**form, 'expression': '@daily', 'title': 'Moved'}))
    each = manager.periodic['nightly']
    assert each.call == call
    assert (each.timetable.expression, each.title) == ('@daily', 'Moved')


def test_a_password_is_on_no_page_and_stays(manager, admin):
    secret = {'bind': 'cn=x', 'password': 'hunter2'}
    set_one(manager, plugin='mailer', args=([secret],), kwargs=secret)
    page = admin.get(FORM, params={'id': 'nightly'})
    assert fields(page)['kind'] == 'keep'
    followed(admin, admin.post(SAVE, {**fields(page), 'expression': '@daily'}))
    for shown in (page, admin.get(LIST), admin.get(FORM, params={'id': 'nightly'})):
        assert 'hunter2' not in shown.text
    assert manager.periodic['nightly'].timetable.expression == '@daily'


def test_a_new_one_can_not_keep_what_it_calls(manager, admin):
    answer = admin.post(SAVE, {**EXPRESSION, 'kind': 'keep'})
    assert answer.status_int == 400
    assert complaints(answer) == {'kind': 'Choose what to call.'}


@pytest.mark.parametrize('wrong', [
    {'id': ''}, {'id': 'a b'}, {'id': '_x'}, {'id': XSS}, {'id': 'x' * 101},
    {'title': 'x' * 201},
    {'expression': 'cron nonsense'}, {'expression': ''}, {'expression': '0 0 30 2 *'},
    {'expression': XSS}, {'zone': 'Berlin'}, {'zone': ''}, {'zone': XSS}, {'zone': '../UTC'},
    {'path': 'zam'}, {'path': XSS}, {'tales': ''}, {'tales': 'python: ('}, {'kind': XSS},
    {'priority': 'high'}, {'priority': XSS}, {'priority': '9' * 50}, {'timeout': '0'},
    {'timeout': 'nan'}, {'timeout': '-1'}, {'timeout': XSS}, {'expires': '-1'},
    {'expires': '1e300'}, {'expires': 'inf'}, {'expires': 'nan'}, {'expires': XSS},
    {'attempts': '-1'}, {'attempts': '1.5'}, {'attempts': XSS}, {'series': 'x' * 201},
    {'expression': 'x', 'zone': 'y', 'tales': '', 'priority': 'z'},
])
def test_a_wrong_form_comes_back_with_what_was_typed_and_a_sentence_a_field(
        manager, admin, wrong):
    typed = {**EXPRESSION, **wrong}
    answer = admin.post(SAVE, typed)
    assert answer.status_int == 400
    assert set(complaints(answer)) == set(wrong)
    assert all(len(sentence.split()) >= 3 for sentence in complaints(answer).values())
    assert '<script>alert' not in answer.text
    kept = fields(answer) if 'kind' not in wrong else {}
    assert kept in ({}, typed)
    assert not manager.periodic


@pytest.mark.parametrize('wrong', [
    {'plugin': 'nobody knows it'}, {'plugin': ''}, {'plugin': XSS}, {'arguments': '(1'},
    {'arguments': '1'}, {'arguments': 'open("x")'}, {'arguments': XSS}, {'arguments': ''},
    {'keywords': '[]'}, {'keywords': XSS}, {'arguments': '(' * 300},
    {'keywords': '{1: 2}'},
])
def test_a_wrong_plugin_or_argument_comes_back_likewise(manager, admin, wrong):
    typed = {**PLUGIN, **wrong}
    answer = admin.post(SAVE, typed)
    assert answer.status_int == 400
    assert set(complaints(answer)) == set(wrong)
    assert '<script>alert' not in answer.text
    assert fields(answer) == typed
    assert not manager.periodic


def test_arguments_of_the_wrong_shape_are_refused_by_the_door(manager, admin):
    answer = admin.post(SAVE, {**PLUGIN, 'plugin': 'zope_exec'})
    assert answer.status_int == 400
    assert 'zope_exec takes a path' in complaints(answer)['kind']
    answer = admin.post(SAVE, {**PLUGIN, 'plugin': 'aggregate'})
    assert 'aggregate takes' in complaints(answer)['arguments']


def test_an_id_is_given_once(manager, admin):
    before = set_one(manager).call
    answer = admin.post(SAVE, EXPRESSION)
    assert answer.status_int == 400
    assert set(complaints(answer)) == {'id'}
    assert manager.periodic['nightly'].call == before


def test_a_refused_change_changes_nothing(manager, admin):
    each = set_one(manager, title='Old')
    serial = each._p_serial
    answer = admin.post(SAVE, {**EXPRESSION, 'adding': '', 'title': 'New', 'expression': 'no'})
    assert answer.status_int == 400
    assert fields(answer)['title'] == 'New'
    assert (each.title, each._p_serial) == ('Old', serial)


# the list

@pytest.fixture
def listed(site, manager):
    """Periodic calls that have been run with different outcomes."""
    site.login('bob')
    for id in ('resolved', 'failed', 'running', 'paused', 'fresh'):
        set_one(manager, id, title=f'{id} {XSS}')
    queue = manager.queue
    for id in ('resolved', 'failed', 'running'):
        manager.runPeriodicCall(id)
    manager.pausePeriodicCall('paused')
    periodic.beat(manager, NOW)
    transaction.commit()
    assert len(queue.take_in_and_claim('boot', NOW, 9, 86_400)) == 3
    last = {id: manager.periodic[id].last for id in ('resolved', 'failed')}
    last['resolved'].succeed(b'\x80\x04K*.', NOW + 1)
    last['failed'].fail(Failure('ValueError', f'no {XSS}', 'Traceback'), NOW + 2)
    for deferred in last.values():
        queue.archive_ended(deferred.id, 86_400)
    manager.runPeriodicCall('running')
    transaction.commit()
    site.logout()
    return last


def test_the_list_shows_times_and_the_last_outcome(site, admin, listed):
    found = rows(admin.get(LIST))
    assert set(found) == {'resolved', 'failed', 'running', 'paused', 'fresh'}
    for id in ('resolved', 'failed', 'running', 'fresh'):
        assert '2023-11-15 02:30 CET' in found[id] and '2023-11-15 01:30:00 UTC' in found[id]
        assert 'Europe/Berlin' in found[id] and '30 2 * * *' in found[id]
    assert 'resolved' in found['resolved'] and '42' in found['resolved']
    assert 'ValueError: no' in found['failed']
    assert 'not ended' in found['running'] and 'to run now' in found['running']
    assert 'paused' in found['paused'] and '2023' not in found['paused']


def test_what_was_typed_is_text_on_every_page(site, admin, listed):
    for page in [admin.get(LIST), *(admin.get(FORM, params={'id': id}) for id in listed)]:
        assert page.status_int == 200
        assert '<script>alert' not in page.text


def test_the_last_outcome_is_shown_without_a_link_when_the_archive_has_dropped_it(
        manager, admin, now, listed):
    link = f'manage_call?id={listed["resolved"].id}'
    assert link in admin.get(LIST).text
    now.time += 60
    assert manager.purge('resolved', 0) == 1
    page = admin.get(LIST)
    assert link not in page.text
    assert '42' in rows(page)['resolved']


# buttons

def test_pause_resume_run_and_delete(manager, admin, now):
    each = set_one(manager)

    def press(action):
        return followed(admin, admin.post(f'/zam/manage_{action}PeriodicCall', {'id': 'nightly'}))

    assert 'is paused' in press('pause').text
    assert each.paused
    now.time += 7 * 86_400
    assert 'from its next time on' in press('resume').text
    assert not each.paused and each.next_tick(now.time) > now.time
    assert 'runs as soon as' in press('run').text
    assert each.is_asked()
    assert 'is deleted' in press('drop').text
    assert not manager.periodic


@pytest.mark.parametrize('action', ACTIONS)
@pytest.mark.parametrize('id', ['', 'other', XSS])
def test_a_button_for_what_is_not_there_is_not_found(manager, admin, action, id):
    set_one(manager)
    answer = admin.post(f'/zam/manage_{action}PeriodicCall', {'id': id})
    assert answer.status_int == 404
    assert '<script>alert' not in answer.text
    assert 'nightly' in manager.periodic


@pytest.mark.parametrize('id', ['other', XSS])
def test_the_form_of_what_is_not_there_is_not_found(manager, admin, id):
    assert admin.get(FORM, params={'id': id}).status_int == 404
    answer = admin.post(SAVE, {**EXPRESSION, 'adding': '', 'id': id})
    assert answer.status_int == 404
    assert '<script>alert' not in answer.text
    assert not manager.periodic


# who may

@pytest.mark.parametrize('name', [None, 'bob'])
def test_who_may_not_manage_sees_and_changes_nothing(site, manager, name):
    each = set_one(manager)
    before = transaction.begin() and each._p_serial
    browser = site.browser(name)
    answers = [browser.get(FORM), browser.get(LIST), browser.post(SAVE, EXPRESSION)]
    answers += [browser.post(f'/zam/manage_{action}PeriodicCall', {'id': 'nightly'})
                for action in ACTIONS]
    assert {answer.status_int for answer in answers} == {401}
    assert list(manager.periodic) == ['nightly'] and each._p_serial == before


def test_who_may_manage_but_not_put_calls_can_not_save(site, manager):
    manager.manage_permission('View management screens', ['Member', 'Manager'])
    set_one(manager)
    browser = site.browser('bob')
    assert browser.get(FORM).status_int == 200
    for values in (EXPRESSION, {**EXPRESSION, 'adding': '', 'id': 'nightly', 'kind': 'keep'}):
        assert browser.post(SAVE, values).status_int == 401
    assert manager.periodic['nightly'].title == ''
    manager.manage_permission('Make Asynchronous Application Calls', ['Member', 'Manager'])
    assert browser.post(SAVE, {**EXPRESSION, 'id': 'other'}).status_int == 302
    assert manager.periodic['other'].call.caller.user_id == 'bob'


@pytest.mark.parametrize('action', ['manage_savePeriodicCall', *(
    f'manage_{action}PeriodicCall' for action in ACTIONS)])
def test_what_changes_something_is_posted(manager, admin, action):
    each = set_one(manager)
    answer = admin.get(f'/zam/{action}', params={**EXPRESSION, 'adding': ''})
    assert answer.status_int in (403, 404, 405)
    assert manager.periodic['nightly'] is each and not each.asked and not each.paused


@pytest.mark.parametrize('name', [
    'periodic', 'periodic/nightly', 'setPeriodicCall', 'dropPeriodicCall', 'runPeriodicCall',
    'pausePeriodicCall', 'resumePeriodicCall', 'reschedulePeriodicCall', '_periodic_form'])
def test_nothing_but_the_pages_has_a_url(manager, admin, name):
    set_one(manager)
    assert admin.get(f'/zam/{name}').status_int in (401, 403, 404)
    assert admin.post(f'/zam/{name}', {'id': 'nightly'}).status_int in (401, 403, 404)
    assert 'nightly' in manager.periodic


def test_restricted_code_can_not_set_what_runs(site, manager):
    from AccessControl import Unauthorized
    from zExceptions import NotFound
    site.login('admin')
    for name in ('setPeriodicCall', 'periodic'):
        with pytest.raises((Unauthorized, NotFound)):
            manager.restrictedTraverse(name)
    assert manager.restrictedTraverse('runPeriodicCall')


# from Python

@pytest.mark.parametrize('changes', [
    {'id': ''}, {'id': None}, {'id': 'ä'}, {'expression': 'cron nonsense'}, {'expression': None},
    {'zone': 'Mars/Elysium'}, {'zone': None}, {'plugin': 'unknown'}, {'plugin': None},
    {'args': ('/',)}, {'args': None}, {'args': 'abc'}, {'kwargs': [1]}, {'kwargs': {1: 2}},
    {'title': None},
    {'args': ('/', {}, 'python: (')}, {'options': 'fast'}, {'options': Options(key='one')},
    {'options': Options(not_before=datetime.timedelta(1))},
    {'options': Options(expires=datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))},
])
def test_what_makes_no_sense_is_refused_from_python_and_nothing_is_stored(manager, changes):
    arguments = {'id': 'nightly', 'expression': '@daily', 'zone': 'UTC', 'plugin': 'zope_exec',
                 'args': ('/', {}, 'nothing'), **changes}
    with pytest.raises(ValueError, match=r'\w+ \w+ \w+'):
        manager.setPeriodicCall(**arguments)
    assert not manager.periodic


def test_a_refused_expiry_says_from_when_it_would_count(manager):
    """As the page does: with no worker for a day a call is late, and not expired."""
    moment = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    with pytest.raises(BadCall, match='counted from the moment at which the worker makes a call'):
        set_one(manager, options=Options(expires=moment))


def test_a_refused_reschedule_changes_nothing(manager):
    each = set_one(manager)
    for wrong in (('no', 'UTC'), ('@daily', 'no'), ('@daily', 'UTC', 'x' * 300)):
        with pytest.raises(BadCall):
            manager.reschedulePeriodicCall('nightly', *wrong)
    assert each.timetable.expression == '30 2 * * *'
    manager.reschedulePeriodicCall('nightly', '@daily', 'UTC')
    assert (each.timetable.expression, each.timetable.zone) == ('@daily', 'UTC')


def test_methods_say_what_they_touched_and_refuse_unknown_ids(manager):
    set_one(manager)
    assert [manager.pausePeriodicCall('nightly'), manager.pausePeriodicCall('nightly')] == [1, 0]
    assert [manager.resumePeriodicCall('nightly'), manager.resumePeriodicCall('nightly')] == [1, 0]
    assert manager.runPeriodicCall('nightly') == 1
    assert manager.dropPeriodicCall('nightly') == 1
    for name in ('pause', 'resume', 'run', 'drop'):
        with pytest.raises(KeyError, match='no such periodic call'):
            getattr(manager, f'{name}PeriodicCall')('nightly')


def test_a_form_that_is_saved_as_it_came_changes_nothing(manager, admin):
    set_one(manager, options=Options(timeout=1234567.5, expires=datetime.timedelta(
        days=400, seconds=0.25), retry=Retry(4, 9.0), priority=3, series='s'))
    before = manager.periodic['nightly'].call
    form = fields(admin.get(f'{FORM}?id=nightly'))
    assert form['timeout'] == '1234567.5'
    assert admin.post(SAVE, form).status_int == 302
    after = manager.periodic['nightly'].call
    assert after == before._replace(
        put_at=after.put_at, expires_at=after.expires_at, caller=after.caller)
    assert abs(after.expires_at - after.put_at - 400 * 86_400 - 0.25) < 0.001


def test_the_form_of_a_call_in_a_zone_that_is_gone_says_so_and_mends_it(manager, admin):
    """Systems drop names of time zones now and then."""
    set_one(manager)
    kept = manager.periodic['nightly']
    object.__setattr__(kept.timetable, 'zone', 'US/Gone')
    kept._p_changed = True
    answer = admin.get(f'{FORM}?id=nightly')
    assert answer.status_int == 200
    assert "'US/Gone'" in complaints(answer)['zone']
    form = {**fields(answer), 'zone': 'America/New_York'}
    assert admin.post(SAVE, form).status_int == 302
    assert manager.periodic['nightly'].timetable.zone == 'America/New_York'


# copies

def test_periodic_calls_of_a_copy_are_paused_and_know_nothing_of_the_originals_calls(
        site, app, manager):
    site.login('admin')
    set_one(manager)
    manager.runPeriodicCall('nightly')
    periodic.beat(manager, NOW)
    manager.runPeriodicCall('nightly')
    transaction.commit()
    app.manage_pasteObjects(app.manage_copyObjects(['zam']))
    copy = app['copy_of_zam'].periodic['nightly']
    assert copy.paused and copy.last is None and not copy.is_asked()
    assert copy.call == manager.periodic['nightly'].call
    original = manager.periodic['nightly']
    assert not original.paused and original.last is not None and original.is_asked()


def test_a_renamed_manager_goes_on(site, app, manager):
    site.login('admin')
    set_one(manager)
    transaction.commit()
    app.manage_renameObject('zam', 'zam2')
    assert not app.zam2.periodic['nightly'].paused
