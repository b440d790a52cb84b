"""What the scripts of the pages put into them stays text: in a real Chromium.

Skipped where there is none; with ZASYNC_NO_SKIPS=1 a skip is a failure (tests/noskips.py).
"""

import threading
from wsgiref.simple_server import make_server
from wsgiref.simple_server import WSGIRequestHandler

import pytest
import transaction
from ZPublisher.httpexceptions import HTTPExceptionHandler

from Products.zasync.clock import SYSTEM
from Products.zasync.failure import Failure
from tests.browser.chromium import Chromium
from tests.browser.chromium import missing
from tests.browser.chromium import Person
from tests.security.markup import hostile
from tests.security.markup import HostileTown
from tests.security.test_table import BOX


#: What a script or an element of somebody else's would leave in the page.
TRACES = """
return [window.evil || 0, document.querySelectorAll('zx, [onerror], [onmouseover]').length,
        [...document.scripts].filter(each => each.text.includes('window.evil=')).length,
        [...document.links].filter(each => each.protocol === 'javascript:').length]
"""


class Quiet(WSGIRequestHandler):

    def log_message(self, *args):
        """Nobody reads it."""


@pytest.fixture(scope='module')
def town():
    if missing():
        pytest.skip(missing())
    made = HostileTown()
    yield made
    made.close()


@pytest.fixture(scope='module')
def admin(town):
    """The administrator at the browser; the site is served by a thread of this process."""
    with make_server('127.0.0.1', 0, HTTPExceptionHandler(town.wsgi),
                     handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Chromium() as chromium:
                yield Person(chromium.driver, f'http://127.0.0.1:{server.server_port}',
                             'admin', 'admin')
        finally:
            server.shutdown()
            thread.join()


def change(action, *args):
    """Do it, and commit."""
    transaction.begin()
    action(*args)
    transaction.commit()


def test_the_overview_keeps_what_it_asks_for_as_text(town, admin):
    zam1 = town.app.zad.zam1
    transaction.begin()
    town.login('admin')
    deferred = zam1.putCall('echo', 1)
    town.logout()
    transaction.commit()
    admin.goes_to(f'/zad/manage_overview?test=zam1:{deferred.id}')
    assert 'zx id=host ' in admin.reads('#managers')
    assert admin.runs(TRACES) == [0, 0, 0, 0]

    def go_on():
        zam1.queue.card.host = hostile('later')
        deferred.accept('boot', SYSTEM.now())
        deferred.fail(Failure('ValueError', hostile('failure')), SYSTEM.now())
    change(go_on)
    admin.waits_for(lambda: 'zx id=later ' in admin.reads('#managers')
                    and 'zx id=failure ' in admin.reads('#managers'), 'the news')
    assert admin.runs(TRACES) == [0, 0, 0, 0]


def test_the_mailbox_keeps_what_it_asks_for_as_text(town, admin):
    status = town.app.portal_webmail.box_alice.sync_status

    def begin():
        status.take('call', SYSTEM.now())
        status.renew(SYSTEM.now(), 1, 2, hostile('before'), {})
    change(begin)
    admin.goes_to(f'/{BOX}/manage_main')
    assert 'zx id=before ' in admin.reads('#sync-message')
    change(lambda: status.renew(SYSTEM.now(), 1, 2, hostile('after'), {}))
    admin.waits_for(lambda: 'zx id=after ' in admin.reads('#sync-message'), 'the news')
    assert admin.runs(TRACES) == [0, 0, 0, 0]
    change(lambda: status.fail(SYSTEM.now(), 0, hostile('reason')))
    admin.waits_for(lambda: 'zx id=reason ' in admin.reads('#sync-reason'), 'its end')
    assert admin.runs(TRACES) == [0, 0, 0, 0]


@pytest.mark.parametrize('path', [
    '/zam/manage_calls', '/zam/manage_periodic', '/zam/manage_main',
    '/zam/manage_periodicCall?id=nightly', '{folder}/.8/manage_main'])
def test_no_page_runs_what_somebody_else_wrote(town, admin, path):
    admin.goes_to(path.format(folder=town.folder_path))
    assert 'zx id=' in admin.reads('main')
    assert admin.runs(TRACES) == [0, 0, 0, 0]
