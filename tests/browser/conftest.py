"""One site for the browser tests, and one browser a module.

Skipped where there is no Chromium; with ZASYNC_NO_SKIPS=1 a skip is a failure
(tests/noskips.py).
"""

import sys
from typing import NamedTuple

import pytest
import requests

from bench.imapservers import best_server
from bench.imapservers import deliver
from bench.mailsite import MailSite
from bench.processes import accepts
from bench.processes import free_port
from bench.stack import ADMIN
from bench.stack import Stack

from .chromium import Chromium
from .chromium import missing
from .chromium import Person


FOLDER = 'office'

#: Each test has a mailbox of its own, so none waits for another's mail.
USERS = {'alice': 'secret-1', 'bob': 'secret-2', 'carol': 'secret-3', 'dave': 'secret-4',
         'erin': 'secret-5'}

#: Whose mail server is far away: a synchronisation takes seconds, and the page, which looks each
#: second, sees its stages. The way there and back, in milliseconds.
FAR, ROUND_TRIP_MS = ('alice', 'bob'), 250


class Site(NamedTuple):
    """What runs: Zope at `url`, a worker for the first of two managers in /office, and `mail`,
    an IMAP server whose users are Zope's and own the mailboxes there."""

    url: str
    mail: object

    @property
    def mail_tool(self):
        return '/%s/portal_webmail' % FOLDER

    @property
    def dispatcher(self):
        return '/%s/asynchronous_call_dispatcher' % FOLDER

    def fill(self, user, count, folder='INBOX'):
        """Deliver `count` messages."""
        for number in range(1, count + 1):
            deliver(self.mail, user, folder, message('Mail %d' % number))


def message(subject):
    """Bytes of a plain message."""
    return ('From: Bob <bob@example.org>\r\nTo: alice@example.org\r\n'
            'Date: Mon, 11 Jul 2005 14:05:00 +0200\r\nSubject: %s\r\n\r\nText.\r\n'
            % subject).encode('utf-8')


@pytest.fixture(scope='package')
def site():
    reason = missing()
    if reason:
        pytest.skip(reason)
    with best_server(USERS) as mail, Stack() as stack:
        stack.start_zeo()
        site = Site(stack.start_zope(), mail)
        made = MailSite(site.url, ADMIN)
        made.add_users(USERS)
        made.add_folder(FOLDER)
        made.add_dispatcher(FOLDER, managers=2)
        made.add_mail_boxes(FOLDER, USERS, mail.host, mail.port)
        far_port = start_slow_link(stack, mail)
        for name in FAR:
            answer = requests.post('%s/manage_changeSettings' % made.box_url(FOLDER, name),
                                   {'PORT': far_port, 'password': USERS[name]}, auth=ADMIN,
                                   timeout=30)
            assert answer.status_code == 200, answer.text
        stack.start_worker('worker1', site.dispatcher + '/zam1')
        yield site


def start_slow_link(stack, server):
    """-> the port where the server is far away."""
    port = free_port()
    stack.start('slowlink', [sys.executable, '-m', 'bench.slowlink', '--listen', port,
                             '--to', '%s:%d' % (server.host, server.port),
                             '--round-trip-ms', ROUND_TRIP_MS],
                is_ready=lambda process: accepts('127.0.0.1', port))
    return port


@pytest.fixture(scope='module')
def driver(site):
    with Chromium() as chromium:
        yield chromium.driver


@pytest.fixture
def window(driver):
    """A new window for the test: what it did to the old one's size or clock is gone with it."""
    first = driver.current_window_handle
    driver.switch_to.new_window('window')
    driver.set_window_rect(width=1280, height=900)
    yield driver
    driver.close()
    driver.switch_to.window(first)


@pytest.fixture
def person(site, window):
    """A function: the user of that name, at the browser. A script that fails fails the test."""
    passwords = {ADMIN[0]: ADMIN[1], **USERS}
    people = []

    def person(name):
        people.append(Person(window, site.url, name, passwords[name]))
        return people[-1]
    yield person
    assert not [error for one in people for error in one.script_errors()]


@pytest.fixture
def admin(person):
    return person('admin')
