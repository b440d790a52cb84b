"""An administrator with a browser: managers and dispatchers are added and looked at."""

import pytest
import requests

from bench.stack import ADMIN


ADD = '/manage_addProduct/%s'
ADD_DISPATCHER = ADD % 'zasyncdispatcher/constructZAsyncDispatcherForm'
ADD_MANAGER = ADD % 'zasync/constructAsynchronousCallManagerForm'


def overview(person):
    """{manager: {field: text} of its row}."""
    return {row.get_attribute('data-id'): {
        cell.get_attribute('data-field'): cell.text
        for cell in row.find_elements('css selector', '[data-field]')}
        for row in person.finds_all('#managers tr[data-id]')}


def beside(person, name):
    """The sentence that is seen beside a field."""
    field = person.finds('[name=%s]' % name)
    said = field.find_element('xpath', '..').find_element('css selector', '.invalid-feedback')
    assert said.is_displayed()
    return said.text


def test_administrator_adds_a_dispatcher_with_two_managers_and_sees_them(site, admin):
    admin.goes_to(ADD_DISPATCHER)
    assert admin.finds('[name=managers]').get_attribute('value') == '2'
    admin.fills_in(id='second_dispatcher')
    admin.presses('Add')
    admin.waits_for(lambda: 'second_dispatcher' in admin.reads('body'), 'the folder with it')
    admin.goes_to('/second_dispatcher/manage_overview')
    rows = overview(admin)
    assert set(rows) == {'zam1', 'zam2'}
    for row in rows.values():
        assert (row['worker'], row['alive'], row['new'], row['accepted']) == (
            'none yet', 'no', '0', '0')
        assert row['why'] == 'no worker has served it yet'
    admin.finds('main table a').click()
    admin.waits_for(lambda: admin.driver.current_url.endswith('/zam1/manage_main'),
                    'the page of the first manager')
    assert 'Last ping' in admin.reads('main')


def test_overview_shows_which_managers_have_a_worker(site, admin):
    admin.goes_to(site.dispatcher + '/manage_overview')
    rows = overview(admin)
    assert rows['zam1']['worker'].startswith('process ') and rows['zam1']['alive'] == 'yes'
    assert (rows['zam1']['chosen'], rows['zam2']['chosen']) == ('next', '')
    assert (rows['zam2']['worker'], rows['zam2']['alive']) == ('none yet', 'no')


def test_tested_worker_answers_on_the_overview_which_asks_for_news_itself(site, admin):
    admin.goes_to(site.dispatcher + '/manage_overview')
    admin.presses('Test the workers')
    admin.waits_for(lambda: overview(admin)['zam1']['test'].startswith('answered after '),
                    'the answer, without a reload')
    assert overview(admin)['zam2']['test'] == ''


def test_overview_shows_managers_that_somebody_else_adds_and_removes(site, admin):
    def does(action, **fields):
        answer = requests.post(f'{site.url}/{action}', fields, auth=ADMIN, timeout=30)
        assert answer.status_code == 200, answer.text
    does('manage_addProduct/zasyncdispatcher/constructZAsyncDispatcherWithManagers',
         id='shared', managers='2')
    admin.goes_to('/shared/manage_overview')
    assert set(overview(admin)) == {'zam1', 'zam2'}
    does('shared/manage_addManagers', managers='1')
    does('shared/manage_removeManager', id='zam1')
    admin.waits_for(lambda: set(overview(admin)) == {'zam2', 'zam3'}, 'the change')
    assert overview(admin)['zam3']['why'] == 'no worker has served it yet'
    assert [(link.text, link.get_attribute('href').removeprefix(f'{admin.url}/shared/'))
            for link in admin.finds_all('#managers a')] == [
        ('zam2', 'zam2/manage_main'), ('zam3', 'zam3/manage_main')]


def test_overview_says_so_when_it_gets_no_news_and_asks_one_question_at_a_time(site, admin):
    def said():
        return admin.reads('#no-news')
    admin.goes_to(site.dispatcher + '/manage_overview')
    assert said() == ''
    admin.runs('window.ours = window.fetch; window.asked = 0;'
               'window.fetch = () => { window.asked += 1;'
               ' return new Promise((_, refuse) => { window.end = refuse; }); }')
    admin.waits_for(lambda: said() == 'There is no news from the server: what is shown is old.',
                    'that nobody answers')
    assert admin.runs('return window.asked') == 1
    admin.runs('window.fetch = window.ours; window.end(new TypeError("away"))')
    admin.waits_for(lambda: said() == '', 'news')
    admin.runs('window.fetch = () => Promise.resolve({ok: false, status: 401})')
    admin.waits_for(lambda: said() == ('This page can not follow the managers any more: '
                                       'reload it.'), 'that it is logged out')


@pytest.mark.parametrize('field, value, sentence', [
    ('poll_interval', 'often', "The poll interval is a whole number of seconds, not 'often'."),
    ('rotation_period', '0', 'The rotation period lies between 1 and '),
    ('id', 'a/b', 'This id can not be used: '),
    ('id', '', 'Give an id.'),
])
def test_wrong_value_in_the_add_form_shows_its_sentence_beside_the_field(
        site, admin, field, value, sentence):
    admin.goes_to(ADD_MANAGER)
    admin.fills_in(**{'id': 'zam', 'poll_interval': '7', field: value})
    admin.presses('Add')
    admin.waits_for(lambda: admin.finds_all('.invalid-feedback'), 'the form with what is wrong')
    assert beside(admin, field).startswith(sentence)
    assert [one.get_attribute('name') for one in admin.finds_all('.is-invalid')] == [field]
    # What was typed is still there.
    assert admin.finds('[name=%s]' % field).get_attribute('value') == value
    if field != 'poll_interval':
        assert admin.finds('[name=poll_interval]').get_attribute('value') == '7'


def test_markup_typed_into_the_add_form_stays_text(site, admin):
    admin.goes_to(ADD_MANAGER)
    typed = '"><script>alert(1)</script>'
    admin.fills_in(poll_interval=typed)
    admin.presses('Add')
    admin.waits_for(lambda: admin.finds_all('.invalid-feedback'), 'the form with what is wrong')
    assert admin.finds('[name=poll_interval]').get_attribute('value') == typed
    assert 'alert(1)' in beside(admin, 'poll_interval')
    assert not admin.runs("return [...document.scripts].some(s => s.text.includes('alert(1)'))")


def test_page_that_is_loaded_again_shows_the_same(site, admin):
    """Zope's footer takes off its address what comes after the question mark."""
    manager = site.dispatcher + '/zam1'
    admin.goes_to(site.dispatcher + '/manage_overview')
    admin.presses('Test the workers')
    admin.waits_for(lambda: overview(admin)['zam1']['test'].startswith('answered after '),
                    'the answer')
    admin.driver.refresh()
    assert overview(admin)['zam1']['test'].startswith('answered after ')
    admin.goes_to(manager + '/manage_calls?plugin=echo')
    admin.finds('#calls a').click()
    admin.waits_for(lambda: admin.finds_all('#facts'), 'the page of the call')
    shown = admin.reads('main')
    admin.driver.refresh()
    assert admin.reads('main') == shown
    admin.driver.back()
    admin.waits_for(lambda: admin.finds_all('#calls'), 'the list again')
    assert admin.finds('[name=plugin]').get_attribute('value') == 'echo'
    admin.goes_to(site.dispatcher + '/manage_removal?id=zam2&how=move')
    shown = admin.reads('main')
    assert 'Remove zam2?' in shown
    admin.driver.refresh()
    assert admin.reads('main') == shown
    # What was said once is not said again.
    admin.goes_to(manager + '/manage_calls?state=failed&manage_tabs_message=Done%20it.')
    assert 'Done it.' in admin.reads('body')
    admin.driver.refresh()
    assert 'Done it.' not in admin.reads('body')
    assert admin.finds('[name=state] option:checked').text == 'failed'


def test_wide_table_scrolls_by_itself_on_a_small_screen(site, admin):
    """What is around it, tabs and buttons, stays in sight."""
    manager = site.dispatcher + '/zam1'

    def does(action, **fields):
        answer = requests.post(f'{site.url}{manager}/{action}', fields, auth=ADMIN, timeout=30)
        assert answer.status_code == 200, answer.text
    does('manage_savePeriodicCall', adding='1', id='wide', title='Night and day', path='/',
         expression='@yearly', zone='Europe/Berlin', kind='zope_exec', tales='nothing')
    does('manage_runPeriodicCall', id='wide')
    admin.driver.set_window_rect(width=420, height=900)
    admin.goes_to(manager + '/manage_calls?plugin=zope_exec')
    admin.waits_for(lambda: admin.driver.refresh() or admin.finds_all('#calls a'), 'the call')
    call = admin.finds('#calls a').get_attribute('href').removeprefix(admin.url)
    wider = {}
    for page in (call, manager + '/manage_calls', manager + '/manage_periodic',
                 manager + '/manage_main', site.dispatcher + '/manage_overview',
                 site.mail_tool + '/manage_main'):
        admin.goes_to(page)
        wider[page] = admin.runs('return document.documentElement.scrollWidth'
                                 ' - document.documentElement.clientWidth')
    does('manage_dropPeriodicCall', id='wide')
    assert set(wider.values()) == {0}, wider


def test_pinged_worker_answers_on_the_settings_page(site, admin):
    def answer():
        admin.goes_to(site.dispatcher + '/zam1/manage_main')
        return row(admin, 'Last pong') != 'never'
    admin.goes_to(site.dispatcher + '/zam1/manage_main')
    admin.presses('Ping the worker')
    admin.waits_for(lambda: 'The worker was asked' in admin.reads('body'), 'the message')
    admin.waits_for(answer, 'the pong')


def row(person, label):
    """The text beside a label in the table of the settings page."""
    cell = "//main//th[normalize-space()='%s']/../td" % label
    return person.driver.find_element('xpath', cell).text


def test_periodic_call_is_added_run_and_its_result_is_seen(site, admin):
    def outcome():
        admin.goes_to(site.dispatcher + '/zam1/manage_periodic')
        return '42' in admin.reads('#periodic')
    admin.goes_to(site.dispatcher + '/zam1/manage_periodic')
    admin.finds('main a.btn').click()
    admin.waits_for(lambda: admin.finds_all('[name=tales]'), 'the form')
    admin.fills_in(id='answer', expression='cron nonsense', zone='Europe/Berlin',
                   tales='python: 6 * 7')
    admin.presses('Save')
    admin.waits_for(lambda: admin.finds_all('.invalid-feedback'), 'the form with what is wrong')
    assert beside(admin, 'expression').startswith("'cron nonsense' is no cron expression")
    admin.fills_in(expression='30 2 * * *')
    admin.presses('Save')
    admin.waits_for(lambda: admin.finds_all('#ticks li'), 'the times')
    times = [item.text for item in admin.finds_all('#ticks li')]
    assert len(times) == 5 and all(' 02:30 ' in time or ' 03:00 ' in time for time in times)
    admin.goes_to(site.dispatcher + '/zam1/manage_periodic')
    admin.presses('Run now')
    admin.waits_for(outcome, 'the result')
    assert 'resolved' in admin.reads('#periodic')
    admin.presses('Pause')
    admin.waits_for(lambda: 'paused' in admin.reads('#periodic'), 'the pause')
    admin.presses('Delete')
    admin.waits_for(lambda: 'There are no periodic calls' in admin.reads('main'), 'its end')


def test_manager_is_removed_while_the_page_moves_its_calls_by_itself(site, admin):
    admin.goes_to(ADD_DISPATCHER)
    admin.fills_in(id='changing', managers='1')
    admin.presses('Add')
    admin.waits_for(lambda: 'changing' in admin.reads('body'), 'the folder with it')
    admin.goes_to('/changing/manage_overview')
    admin.presses('Add managers')
    admin.waits_for(lambda: 'Added zam2' in admin.reads('body'), 'the second manager')
    # More calls than two steps move, which nobody runs.
    have_called(site, admin, "python: len([here.changing.zam2.putCall('zope_exec', '/', {}, "
                "'nothing', {}) for number in range(2100)])", '2100')
    admin.goes_to('/changing/manage_overview')
    admin.finds('[name=id] option[value=zam2]').click()
    admin.finds('[name=how][value=move]').click()
    admin.presses('Remove…')
    admin.waits_for(lambda: 'Calls that wait: 2100, moved to zam1.' in admin.reads('main'),
                    'what will happen')
    admin.presses('Remove it')
    admin.waits_for(lambda: 'zam2 is being removed' in admin.reads('main'), 'how far it is')
    admin.waits_for(lambda: 'zam2 was removed.' in admin.reads('body'), 'the end')
    assert set(overview(admin)) == {'zam1'}
    assert overview(admin)['zam1']['new'] == '2100'


def have_called(site, admin, expression, result):
    """Have the worker evaluate it as the administrator, and wait for the result."""
    def outcome():
        admin.goes_to(site.dispatcher + '/zam1/manage_periodic')
        return result in admin.reads('#periodic')
    admin.goes_to(site.dispatcher + '/zam1/manage_periodic')
    admin.finds('main a.btn').click()
    admin.waits_for(lambda: admin.finds_all('[name=tales]'), 'the form')
    admin.fills_in(id='once', expression='0 0 1 1 *', zone='UTC', tales=expression)
    admin.presses('Save')
    admin.waits_for(lambda: admin.finds_all('#ticks li'), 'the times')
    admin.goes_to(site.dispatcher + '/zam1/manage_periodic')
    admin.presses('Run now')
    admin.waits_for(outcome, 'the result')
    admin.presses('Delete')
    admin.waits_for(lambda: 'There are no periodic calls' in admin.reads('main'), 'its end')
