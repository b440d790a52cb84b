"""The owner of a mailbox with a browser: presses a button and watches the mail come.

Nobody presses "reload" here, unless a test says so.
"""

import json

import pytest
import requests
from imapclient import IMAPClient

from .conftest import message
from .conftest import USERS


#: Five batches of 200 (syncplan.BATCH_SIZE): as many stages of the progress bar.
MANY = 2_400

SCRIPT = '</title><script>alert("x")</script>'
IMAGE = '"><img src=x onerror=alert(1)>'


@pytest.fixture
def owner(site, person):
    """A function: that user, in front of their mailbox."""
    def owner(name):
        user = person(name)
        user.box = '%s/box_%s' % (site.mail_tool, name)
        user.goes_to(user.box + '/manage_main')
        return user
    return owner


def state(user):
    return user.reads('#sync-state')


def polls(user):
    """How often the page that is shown has asked for the status."""
    return user.runs('return performance.getEntriesByType("resource")'
                     '.filter(entry => entry.name.endsWith("/manage_syncStatus")).length')


#: Keeps each width the bar gets, in the order it gets them.
NOTE_THE_BAR = """
const bar = document.getElementById('sync-bar');
const widths = [];
function note() {
  widths.push(parseInt(bar.style.width || '0'));
  sessionStorage.setItem('widths', JSON.stringify(widths));
}
note();
new MutationObserver(note).observe(bar, {attributes: true, attributeFilter: ['style']});
"""


def folders(user):
    """{folder: messages} of the list beside the messages; a folder without mail has no link."""
    return {link.find_element('css selector', 'span').text:
            int(link.find_element('css selector', '.badge').text)
            for link in user.finds_all('nav[aria-label=Folders] a[href]')}


def wait_for_end(user, wanted='done'):
    """Wait for the page that follows the end by itself, and that no longer asks."""
    user.waits_for(lambda: not user.finds('#sync-status').get_attribute('data-active'),
                   'the end of the synchronisation')
    assert state(user) == wanted, user.reads('#sync-status')


def test_owner_gets_messages_and_sees_the_bar_move_to_the_counts(site, owner):
    site.fill('alice', MANY)
    alice = owner('alice')
    alice.presses('Get messages')
    alice.runs(NOTE_THE_BAR)
    wait_for_end(alice)
    # Kept beyond the reload that ends it; had the page been loaded anew meanwhile, the
    # observer would have been gone.
    widths = json.loads(alice.runs('return sessionStorage.getItem("widths")'))
    moved = [width for width in widths if 0 < width < 100]
    assert len(set(moved)) >= 2, widths
    assert moved == sorted(moved)
    assert folders(alice) == {'INBOX': MANY}
    assert '%d messages fetched' % MANY in alice.reads('#sync-status')
    assert not alice.finds('#sync-progress').is_displayed()
    assert len(alice.finds_all('main tbody tr')) == 50
    assert '1 to 50 of %d' % MANY in alice.reads('main')


def test_page_asks_only_while_something_runs_and_it_is_seen(site, owner):
    site.fill('bob', 500)
    bob = owner('bob')
    assert state(bob) == 'idle'
    bob.presses('Get messages')
    bob.waits_for(lambda: state(bob) == 'running' and polls(bob), 'the page asking')
    bob.driver.minimize_window()
    bob.waits_for(lambda: bob.runs('return document.hidden'), 'the page being hidden')
    asked = polls(bob)
    # Seconds in which a page that is seen would ask several times.
    bob.waits_for(lambda: status(site, bob, 'bob')['state'] == 'done', 'the end on the server')
    # One question may have been under way.
    assert polls(bob) <= asked + 1 and state(bob) == 'running'
    bob.driver.set_window_rect(width=1280, height=900)
    wait_for_end(bob)
    later(bob, seconds=30)
    assert polls(bob) == 0


def status(site, user, name):
    """The mailbox's status as another program of its owner's reads it."""
    answer = requests.get(site.url + user.box + '/manage_syncStatus', timeout=10,
                          auth=(name, USERS[name]))
    return answer.json()


def later(user, seconds):
    """Let the page's own clock run so far ahead, at once; it is of no more use then."""
    user.runs('window.setTimeout(() => { window.is_later = true }, arguments[0])', seconds * 1000)
    user.driver.execute_cdp_cmd('Emulation.setVirtualTimePolicy', {
        'policy': 'advance', 'budget': (seconds + 1) * 1000})
    user.waits_for(lambda: user.runs('return window.is_later'), 'the later time')


def test_failed_synchronisation_shows_its_reason(site, owner):
    carol = owner('carol')
    carol.goes_to(carol.box + '/manage_settingsForm')
    carol.fills_in(password='wr0ng-one')
    carol.presses('Save changes')
    carol.waits_for(lambda: 'The settings were stored.' in carol.reads('main'), 'the storing')
    carol.goes_to(carol.box + '/manage_main')
    carol.presses('Get messages')
    wait_for_end(carol, 'failed')
    assert 'does not accept the login carol' in carol.reads('#sync-reason')
    assert 'wr0ng-one' not in carol.driver.page_source
    assert not carol.finds('#sync-progress').is_displayed()


def test_markup_in_subjects_and_folder_names_stays_text(site, owner):
    with as_mail_client(site, 'dave') as client:
        client.create_folder(IMAGE)
        client.append('INBOX', message(SCRIPT))
        client.append(IMAGE, message(IMAGE))
    dave = owner('dave')
    dave.presses('Synchronise all folders')
    wait_for_end(dave)
    assert IMAGE in folders(dave)
    dave.driver.find_element('link text', SCRIPT).click()
    dave.waits_for(lambda: SCRIPT in dave.reads('main'), 'the message')
    assert_no_markup(dave)
    dave.presses('Fetch body')
    dave.waits_for(lambda: dave.finds_all('pre'), 'the text of the message')
    assert_no_markup(dave)
    dave.goes_to(dave.box + '/manage_main')
    dave.driver.find_element('partial link text', IMAGE).click()
    dave.waits_for(lambda: dave.reads('h3') == IMAGE, 'the messages of the folder')
    assert_no_markup(dave)


def assert_no_markup(user):
    from selenium.webdriver.support.expected_conditions import alert_is_present
    assert not alert_is_present()(user.driver)
    assert not user.runs('return [...document.scripts].some(s => s.text.includes("alert("))')
    assert not user.finds_all('img[src=x]')


def test_synchronise_all_folders_fills_the_folder_list(site, owner):
    site.fill('erin', 3)
    for name, count in (('Sent', 2), ('Lists/zope-dev', 4), ('Entwürfe', 1)):
        site.fill('erin', count, name)
    erin = owner('erin')
    assert 'Nothing here yet.' in erin.reads('main')
    erin.presses('Synchronise all folders')
    wait_for_end(erin)
    assert folders(erin) == {'INBOX': 3, 'Sent': 2, 'zope-dev': 4, 'Entwürfe': 1}


def as_mail_client(site, name):
    client = IMAPClient(site.mail.host, site.mail.port, ssl=False, timeout=30)
    client.login(name, USERS[name])
    return client
