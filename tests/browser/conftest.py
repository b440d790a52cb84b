"""One site for the browser tests, and one browser a module.

Skipped where there is no Chromium; with ZASYNC_NO_SKIPS=1 a skip is a failure
(tests/noskips.py).
"""

import sys
from typing import NamedTuple

import pytest

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

#: Between a worker and the IMAP server, both ways together: a synchronisation takes seconds, and
#: the page, which looks each second, sees its stages. Milliseconds.
ROUND_TRIP_MS = 400


class Site(NamedTuple):
    """What runs: Zope at `url`, a worker for the first of two managers in /office, and `mail`,
    an IMAP server whose users are Zope's and own the mailboxes there."""

    url: str
    mail: object
    slow_port: int

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
        port = free_port()
        stack.start('slowlink', [sys.executable, '-m', 'bench.slowlink', '--listen', port,
                                 '--to', '%s:%d' % (mail.host, mail.port),
                                 '--round-trip-ms', ROUND_TRIP_MS],
                    is_ready=lambda process: accepts('127.0.0.1', port))
        stack.start_zeo()
        url = stack.start_zope()
        made = MailSite(url, ADMIN)
        made.add_users(USERS)
        made.add_folder(FOLDER)
        made.add_dispatcher(FOLDER, managers=2)
        made.add_mail_boxes(FOLDER, USERS, '127.0.0.1', port)
        site = Site(url, mail, port)
        stack.start_worker('worker1', site.dispatcher + '/zam1')
        yield site


@pytest.fixture(scope='module')
def driver(site):
    with Chromium() as chromium:
        yield chromium.driver


@pytest.fixture
def person(site, driver):
    """A function: the user of that name, at the browser."""
    passwords = {ADMIN[0]: ADMIN[1], **USERS}

    def person(name):
        return Person(driver, site.url, name, passwords[name])
    return person


@pytest.fixture
def admin(person):
    return person('admin')
