"""The management interface, over WSGI: forms, tabs, and who may do what."""

import inspect
from urllib.parse import urlsplit

import pytest
import transaction
from bs4 import BeautifulSoup
from zExceptions import BadRequest
from ZPublisher import zpublish_mark
from ZPublisher import zpublish_marked

from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.queue import Queue
from Products.zasync.scheduling import PeriodicCalls
from Products.zasync.zmi.callpages import CallPages
from Products.zasync.zmi.managerforms import ManagerPages
from Products.zasync.zmi.periodicforms import PeriodicPages
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from Products.zasyncdispatcher.zmi.dispatcherforms import DispatcherPages
from Products.zasyncdispatcher.zmi.managersforms import ManagersPages
from tests.fakes import sign_on


MANAGER_ADD = '/manage_addProduct/zasync/constructAsynchronousCallManager'
DISPATCHER_ADD = '/manage_addProduct/zasyncdispatcher/constructZAsyncDispatcher'
XSS = '"><script>alert(1)</script>'


def fields(response):
    """{name: value} of a page's text fields."""
    soup = BeautifulSoup(response.text, 'html.parser')
    return {tag['name']: tag.get('value') for tag in soup.find_all('input')
            if tag.get('type') == 'text' and tag.get('name')}


def complaints(response):
    """{field: sentence} of what a page says is wrong."""
    soup = BeautifulSoup(response.text, 'html.parser')
    return {tag.find_previous('input')['name']: tag.get_text(strip=True)
            for tag in soup.find_all(class_='invalid-feedback')}


# registered

@pytest.mark.parametrize('meta_type', ['Asynchronous Call Manager',
                                       'Asynchronous Call Dispatcher'])
def test_both_products_are_in_the_list_of_what_can_be_added(app, meta_type):
    [info] = [info for info in app.all_meta_types() if info['name'] == meta_type]
    assert info['action'].startswith('manage_addProduct/zasync')


def test_the_historic_factories_are_in_their_historic_modules():
    from Products.zasync import manager
    from Products.zasyncdispatcher import zasyncdispatcher
    assert callable(manager.constructAsynchronousCallManager)
    assert callable(manager.constructAsynchronousCallManagerForm)
    assert callable(zasyncdispatcher.constructZAsyncDispatcher)
    assert callable(zasyncdispatcher.constructZAsyncDispatcherForm)


# adding a manager

def test_the_add_form_of_a_manager_shows_the_historic_defaults(site):
    page = site.browser('admin').get(MANAGER_ADD + 'Form')
    assert page.status_int == 200
    assert fields(page) == {'id': 'asynchronous_call_manager', 'poll_interval': '5',
                            'rotation_period': '86400'}
    assert complaints(page) == {}
    assert 'can already be reached' not in page.text


def test_the_add_form_warns_when_a_manager_can_be_reached_already(site, app):
    app._setObject('asynchronous_call_manager', AsynchronousCallManager())
    page = site.browser('admin').get(MANAGER_ADD + 'Form')
    assert 'can already be reached' in page.text


def test_a_manager_is_added_by_its_form_and_the_browser_goes_to_the_contents(site, app):
    page = site.browser('admin').get(MANAGER_ADD + 'Form')
    form = page.forms[0]
    form['id'], form['poll_interval'], form['rotation_period'] = 'zam9', '7', '3600'
    answer = form.submit('submit')
    assert answer.status_int == 302
    assert urlsplit(answer.location).path == '/manage_main'
    added = app.zam9
    assert added.meta_type == 'Asynchronous Call Manager'
    assert (added.getId(), added.poll_interval, added.rotation_period) == ('zam9', 7, 3600)
    assert added.lenNewCalls() == 0


@pytest.mark.parametrize('given, kept', [(1, 2), (2, 2), (3, 3)])
def test_a_poll_interval_under_2_becomes_2(site, app, given, kept):
    answer = site.browser('admin').post(MANAGER_ADD, {'id': 'zam', 'poll_interval': str(given)})
    assert answer.status_int == 302
    assert app.zam.poll_interval == kept


@pytest.mark.parametrize('values, wrong', [
    ({'id': ''}, {'id'}), ({'id': '_private'}, {'id'}), ({'id': 'a/b'}, {'id'}),
    ({'id': 'acl_users'}, {'id'}), ({'id': XSS}, {'id'}), ({'id': 'aq_parent'}, {'id'}),
    ({'id': 'REQUEST'}, {'id'}), ({'id': 'manage_main'}, {'id'}),
    ({'poll_interval': 'five'}, {'poll_interval'}), ({'poll_interval': ''}, {'poll_interval'}),
    ({'poll_interval': '0'}, {'poll_interval'}), ({'poll_interval': '-5'}, {'poll_interval'}),
    ({'poll_interval': '1.5'}, {'poll_interval'}), ({'poll_interval': XSS}, {'poll_interval'}),
    ({'rotation_period': '0'}, {'rotation_period'}),
    ({'rotation_period': '9' * 5_000}, {'rotation_period'}),
    ({'rotation_period': 'nan'}, {'rotation_period'}),
    ({'id': '', 'poll_interval': 'x', 'rotation_period': 'y'},
     {'id', 'poll_interval', 'rotation_period'}),
])
def test_a_wrong_add_form_comes_back_with_what_was_typed_and_a_sentence_a_field(
        site, app, values, wrong):
    before = list(app.objectIds())
    typed = {'id': 'zam', 'poll_interval': '5', 'rotation_period': '86400', **values}
    page = site.browser('admin').post(MANAGER_ADD, typed)
    assert page.status_int == 400
    assert set(complaints(page)) == wrong
    assert all(len(sentence.split()) >= 3 for sentence in complaints(page).values())
    assert fields(page) == typed
    assert '<script>alert' not in page.text
    assert list(app.objectIds()) == before


@pytest.mark.parametrize('address', [MANAGER_ADD, DISPATCHER_ADD + 'WithManagers'])
def test_an_id_that_zope_refuses_is_shown_as_it_was_typed(site, address):
    page = site.browser('admin').post(address, {'id': 'R&D <zam>'})
    assert 'The id "R&D <zam>" contains' in complaints(page)['id']


def test_nothing_is_half_written_by_a_wrong_form(site, app):
    last = site.db.lastTransaction()
    site.browser('admin').post(MANAGER_ADD, {'id': 'zam', 'poll_interval': 'x'})
    site.browser('admin').post(DISPATCHER_ADD + 'WithManagers', {'id': 'zad', 'managers': 'x'})
    assert site.db.lastTransaction() == last


def test_the_factory_called_from_python_raises_a_value_error_with_a_sentence_a_field(app):
    from Products.zasync.manager import constructAsynchronousCallManager
    with pytest.raises(ValueError) as refusal:
        constructAsynchronousCallManager(app.manage_addProduct['zasync'], '', 'x', 'y')
    assert 'poll interval' in str(refusal.value) and 'rotation period' in str(refusal.value)
    constructAsynchronousCallManager(app.manage_addProduct['zasync'], 'zam')
    assert (app.zam.poll_interval, app.zam.rotation_period) == (5, 86_400)


# the tabs of a manager

def test_the_settings_tab_shows_the_settings_and_how_the_queue_stands(site, manager):
    manager.putCall('zope_exec', '/', {}, 'nothing')
    page = site.browser('admin').get('/zam/manage_main')
    assert page.status_int == 200
    assert fields(page) == {'poll_interval': '5', 'rotation_period': '86400'}
    cells = [cell.get_text(strip=True)
             for cell in BeautifulSoup(page.text, 'html.parser').select('table th, table td')]
    status = dict(zip(cells[::2], cells[1::2], strict=True))
    assert status['Calls waiting'] == '1'
    assert status['Calls running'] == '0'
    assert status['Worker'] == 'none yet'
    assert (status['Last ping'], status['Last pong']) == ('never', 'never')


def test_the_settings_tab_shows_who_serves_the_manager(site, manager):
    sign_on(manager, host='<b>host</b>')
    manager.queue.pulse.write(0, 0, 0.0, 1, 1, 1_700_000_001.0)
    page = site.browser('admin').get('/zam/manage_main')
    assert 'process 77 on &lt;b&gt;host&lt;/b&gt;' in page.text
    assert 'takes no calls now' not in page.text
    assert '2023-11-14 22:13:20 UTC' in page.text
    assert '2023-11-14 22:13:21 UTC' in page.text


def test_looking_at_a_tab_writes_nothing(site, manager):
    app = manager.aq_parent
    app._setObject('zad', ZAsyncDispatcher('zad'))
    app.zad._setObject('zam1', AsynchronousCallManager('zam1'))
    transaction.commit()
    last = site.db.lastTransaction()
    for path in ('/zam/manage_main', '/zam/manage_workspace', '/zad/manage_overview',
                 '/zad/manage_main', MANAGER_ADD + 'Form', DISPATCHER_ADD + 'Form'):
        assert site.browser('admin').get(path).status_int in (200, 302), path
    assert site.db.lastTransaction() == last


def test_the_settings_are_changed_by_the_tab(site, manager):
    page = site.browser('admin').get('/zam/manage_main')
    form = next(form for form in page.forms.values() if 'manage_changeSettings' in form.action)
    form['poll_interval'], form['rotation_period'] = '1', '7200'
    answer = form.submit('submit').follow()
    assert answer.status_int == 200
    assert 'Settings changed.' in answer.text
    assert (manager.poll_interval, manager.rotation_period) == (2, 7200)


@pytest.mark.parametrize('values', [
    {'poll_interval': 'x', 'rotation_period': '5'}, {'poll_interval': '5', 'rotation_period': XSS},
    {}, {'poll_interval': '5'}])
def test_wrong_settings_change_nothing_and_come_back_with_what_was_typed(site, manager, values):
    answer = site.browser('admin').post('/zam/manage_changeSettings', values)
    assert answer.status_int == 400
    assert fields(answer) == {'poll_interval': '', 'rotation_period': '', **values}
    assert complaints(answer)
    assert '<script>alert' not in answer.text
    assert (manager.poll_interval, manager.rotation_period) == (5, 86_400)


def test_the_ping_button_asks_the_worker(site, manager):
    assert manager.getLastPing() is None
    page = site.browser('admin').get('/zam/manage_main')
    form = next(form for form in page.forms.values() if 'manage_ping' in form.action)
    assert form.method.upper() == 'POST'
    answer = form.submit('submit')
    assert answer.status_int == 302, 'a reload of what comes must not ping again'
    assert 'The worker was asked.' in answer.follow().text
    assert manager.getLastPing().utcoffset().total_seconds() == 0
    assert manager.getLastPong() is None


# adding a dispatcher

def test_the_add_form_of_a_dispatcher_offers_to_make_its_managers(site):
    page = site.browser('admin').get(DISPATCHER_ADD + 'Form')
    assert page.status_int == 200
    assert fields(page) == {'id': 'asynchronous_call_dispatcher', 'managers': '2'}


@pytest.mark.parametrize('number', [0, 1, 2, 5, 64])
def test_a_dispatcher_is_added_with_so_many_managers(site, app, number):
    form = site.browser('admin').get(DISPATCHER_ADD + 'Form').forms[0]
    form['managers'] = str(number)
    answer = form.submit('submit')
    assert answer.status_int == 302
    dispatcher = app.asynchronous_call_dispatcher
    assert dispatcher.meta_type == 'Asynchronous Call Dispatcher'
    assert dispatcher.objectIds() == [f'zam{number}' for number in range(1, number + 1)]
    assert len(dispatcher.managers()) == number


def test_the_historic_factory_makes_an_empty_dispatcher(site, app):
    assert site.browser('admin').post(DISPATCHER_ADD, {}).status_int == 302
    assert app.asynchronous_call_dispatcher.objectIds() == []
    from Products.zasyncdispatcher.zasyncdispatcher import constructZAsyncDispatcher
    constructZAsyncDispatcher(app.manage_addProduct['zasyncdispatcher'], id='other')
    assert app.other.getId() == 'other'


@pytest.mark.parametrize('values, wrong', [
    ({'managers': '-1'}, {'managers'}), ({'managers': '65'}, {'managers'}),
    ({'managers': 'two'}, {'managers'}), ({'managers': ''}, {'managers'}),
    ({'managers': '1.5'}, {'managers'}), ({'managers': '9' * 5_000}, {'managers'}),
    ({'managers': '²'}, {'managers'}), ({'managers': XSS}, {'managers'}),
    ({'id': XSS}, {'id'}), ({'id': ''}, {'id'}), ({'id': 'acl_users'}, {'id'}),
    ({'id': '', 'managers': 'x'}, {'id', 'managers'}),
])
def test_a_wrong_add_form_of_a_dispatcher_comes_back_with_what_was_typed(
        site, app, values, wrong):
    before = list(app.objectIds())
    typed = {'id': 'zad', 'managers': '2', **values}
    page = site.browser('admin').post(DISPATCHER_ADD + 'WithManagers', typed)
    assert page.status_int == 400
    assert set(complaints(page)) == wrong
    assert fields(page) == typed
    assert '<script>alert' not in page.text
    assert list(app.objectIds()) == before


def test_the_overview_shows_each_manager_and_nothing_else(site, app):
    app._setObject('zad', ZAsyncDispatcher('zad'))
    assert 'There is no manager' in site.browser('admin').get('/zad/manage_overview').text
    for id in ('zam1', 'zam2'):
        app.zad._setObject(id, AsynchronousCallManager(id))
    app.zad.manage_addFolder('folder')
    sign_on(app.zad.zam1)
    app.zad.zam1.queue.pulse.write(0, 0, 0.0, 1, 1, 0)
    app.zad.zam2.putCall('zope_exec', '/', {}, 'nothing')
    page = site.browser('admin').get('/zad/manage_overview')
    rows = [[cell.get_text(strip=True) for cell in row.find_all('td')]
            for row in BeautifulSoup(page.text, 'html.parser').select('table tr')]
    assert [row[1] for row in rows[1:]] == ['process 77 on host', 'none yet']


def test_the_tabs_of_a_dispatcher_are_those_of_a_folder_and_the_overview(site, app):
    app._setObject('zad', ZAsyncDispatcher('zad'))
    labels = [option['label'] for option in app.zad.manage_options]
    assert {'Contents', 'Overview', 'Properties', 'Security'} <= set(labels)
    for option in app.zad.manage_options:
        page = site.browser('admin').get(f'/zad/{option["action"]}')
        assert page.status_int == 200, option


def test_each_tab_of_a_manager_opens(site, manager):
    for option in manager.manage_options:
        assert site.browser('admin').get(f'/zam/{option["action"]}').status_int == 200, option


# properties of the dispatcher

@pytest.mark.parametrize('name, value', [
    ('no_worker', 'queue'), ('no_worker', 'refuse'), ('no_worker', 'run'),
    ('max_idle_time', '25'), ('max_idle_time', '60'), ('max_idle_time', '120.5')])
def test_a_property_is_changed_by_the_properties_tab(site, app, name, value):
    app._setObject('zad', ZAsyncDispatcher('zad'))
    type_ = ':float' if name == 'max_idle_time' else ''
    page = site.browser('admin').post('/zad/manage_changeProperties', {name + type_: value})
    assert page.status_int == 200
    assert str(getattr(app.zad, name)) in (value, value + '.0')


@pytest.mark.parametrize('method', ['manage_changeProperties', 'manage_editProperties'])
@pytest.mark.parametrize('name, value', [
    ('no_worker', 'sleep'), ('no_worker', ''), ('no_worker', XSS), ('max_idle_time:float', '0'),
    ('max_idle_time:float', '-1'), ('max_idle_time:float', 'nan'), ('max_idle_time:float', '24')])
def test_a_property_no_dispatcher_can_work_with_is_refused_and_nothing_changed(
        site, app, method, name, value):
    app._setObject('zad', ZAsyncDispatcher('zad'))
    typed = {'title': 'changed', 'no_worker': 'queue', 'max_idle_time:float': '50'}
    typed.pop(name, None)
    answer = site.browser('admin').post(f'/zad/{method}', {**typed, name: value})
    assert answer.status_int == 400, answer.text
    assert '<script>alert' not in answer.text
    assert (app.zad.no_worker, app.zad.max_idle_time) == ('run', 60.0)
    assert app.zad.title == 'Asynchronous Call Dispatcher'


@pytest.mark.parametrize('value', ['soon', ''])
def test_an_idle_time_that_is_no_number_is_refused_and_nothing_changed(app, value):
    app._setObject('zad', ZAsyncDispatcher('zad'))
    with pytest.raises(BadRequest):
        app.zad.manage_changeProperties(max_idle_time=value)
    assert app.zad.max_idle_time == 60.0


def test_the_defaults_are_the_historic_ones():
    assert ZAsyncDispatcher.id == 'asynchronous_call_dispatcher'
    assert ZAsyncDispatcher.title == ZAsyncDispatcher.meta_type == 'Asynchronous Call Dispatcher'
    assert ZAsyncDispatcher.max_idle_time == 60
    assert ZAsyncDispatcher.no_worker == 'run'
    assert ZAsyncDispatcher().getId() == 'asynchronous_call_dispatcher'
    assert AsynchronousCallManager().getId() == 'asynchronous_call_manager'


# who may do what

CHANGES = [(MANAGER_ADD, {'id': 'new'}), (DISPATCHER_ADD, {'id': 'new'}),
           (DISPATCHER_ADD + 'WithManagers', {'id': 'new', 'managers': '1'}),
           ('/zam/manage_changeSettings', {'poll_interval': '9', 'rotation_period': '9'}),
           ('/zam/manage_ping', {}), ('/zam/manage_pause', {}), ('/zam/manage_resume', {}),
           ('/zam/manage_retryAll', {}), ('/zam/manage_retryCall', {'id': '0-1-0-0'}),
           ('/zam/manage_cancelCall', {'id': '0-1-0-0'}),
           ('/zam/manage_purge', {'state': 'failed', 'hours': '0'})]
PAGES = [MANAGER_ADD + 'Form', DISPATCHER_ADD + 'Form', '/zam/manage_main',
         '/zam/manage_workspace', '/zam/manage_calls', '/zam/manage_call?id=0-1-0-0',
         '/zad/manage_overview']


def state(app):
    return (app.objectIds(), app.zam.poll_interval, app.zam.getLastPing(), app.zam.paused)


@pytest.fixture
def furnished(manager, app):
    """The root with a manager and a dispatcher."""
    app._setObject('zad', ZAsyncDispatcher('zad'))
    return app


@pytest.mark.parametrize('path, values', CHANGES)
def test_a_change_by_get_is_refused(site, furnished, path, values):
    before = state(furnished)
    answer = site.browser('admin').get(path, values)
    assert answer.status_int in (403, 404, 405)
    assert state(furnished) == before


@pytest.mark.parametrize('user', [None, 'bob'])
@pytest.mark.parametrize('path, values', CHANGES)
def test_a_change_is_refused_to_whoever_is_no_manager(site, furnished, path, values, user):
    before = state(furnished)
    assert site.browser(user).post(path, values).status_int == 401
    assert state(furnished) == before


@pytest.mark.parametrize('user', [None, 'bob'])
@pytest.mark.parametrize('path', PAGES)
def test_a_page_is_refused_to_whoever_is_no_manager(site, furnished, path, user):
    assert site.browser(user).get(path).status_int == 401


@pytest.mark.parametrize('name', [
    'queue', 'queue/desk', 'queue/pulse', 'queue/waiting',
    'queue/failed', 'putCallWith', 'putSessionCall', 'cancel', 'retry', 'pause', 'resume',
    'purge', 'calls', 'names', 'queue/find', 'queue/length_new',
    'queue/lanes', 'putCall', '_putCall', 'put', 'ping', 'lenNewCalls', 'lenAcceptedCalls',
    'getLastPing', 'getLastPong', 'getDeferred', 'open_calls', 'set_times', '_status',
    '_settings_page', 'security'])
@pytest.mark.parametrize('verb', ['get', 'post'])
def test_nothing_of_a_manager_but_its_pages_has_a_url(site, manager, name, verb):
    manager.putCall('zope_exec', '/', {}, 'nothing')
    answer = getattr(site.browser('admin'), verb)(f'/zam/{name}')
    assert answer.status_int in (401, 403, 404), (name, answer.status)
    assert manager.lenNewCalls() == 1
    assert manager.getLastPing() is None


@pytest.mark.parametrize('name', [
    'putCall', '_dispatch', 'managers', 'load_of', 'putCallWith', '_overview_page', 'security'])
@pytest.mark.parametrize('verb', ['get', 'post'])
def test_nothing_of_a_dispatcher_but_its_pages_has_a_url(site, app, name, verb):
    app._setObject('zad', ZAsyncDispatcher('zad'))
    answer = getattr(site.browser('admin'), verb)(f'/zad/{name}')
    assert answer.status_int in (401, 403, 404), (name, answer.status)


def test_a_deferred_has_no_url(site, manager):
    id = manager.putCall('zope_exec', '/', {}, 'nothing').id
    for path in (f'/zam/getDeferred/{id}', f'/zam/queue/find/{id}', f'/zam/{id}'):
        assert site.browser('admin').get(path).status_int in (401, 403, 404), path


def test_a_page_template_of_a_user_can_not_reach_the_queue(site, manager):
    from AccessControl import Unauthorized
    from zExceptions import NotFound
    site.login('admin')
    for name in ('queue', 'put', 'open_calls', 'set_times', '_putCall'):
        with pytest.raises((Unauthorized, NotFound)):
            manager.restrictedTraverse(name)


PUBLISHED = (AsynchronousCallManager, ManagerPages, CallPages, PeriodicCalls, PeriodicPages,
             ZAsyncDispatcher, DispatcherPages, ManagersPages)
CHANGING = ('manage_change', 'manage_ping', 'manage_add', 'manage_del', 'manage_cancel',
            'manage_retry', 'manage_purge', 'manage_pause', 'manage_resume', 'manage_save',
            'manage_run', 'manage_drop', 'manage_remove', 'manage_keep')


@pytest.mark.parametrize('cls', PUBLISHED)
def test_every_method_of_ours_says_whether_it_is_published(cls):
    methods = {name: value for name, value in vars(cls).items()
               if inspect.isfunction(value) and not name.startswith('_')}
    assert methods
    assert [name for name, value in methods.items() if not zpublish_marked(value)] == []


@pytest.mark.parametrize('cls', PUBLISHED)
def test_what_is_published_is_a_page_and_what_changes_something_is_posted(cls):
    for name, value in vars(cls).items():
        if inspect.isfunction(value) and not name.startswith('_'):
            mark = zpublish_mark(value)
            if mark:
                assert name.startswith('manage_'), name
            if name.startswith(CHANGING):
                assert mark == ('POST',), (name, mark)


def test_the_parts_of_a_queue_are_not_published():
    from Products.zasync.deferred import Deferred
    assert zpublish_mark(Queue) is False
    assert zpublish_mark(Deferred) is False
