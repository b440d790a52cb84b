"""A page of another site has the administrator's browser post a form here: nothing is done."""

import http.server
import threading

import pytest


PAGE = ('<!DOCTYPE html><title>A game</title><form id="trap" method="post" action="{action}">'
        '</form><script>document.getElementById("trap").submit()</script>')


#: Lays our page under the mouse, itself not to be seen.
FRAME = ('<!DOCTYPE html><title>A game</title><iframe src="{action}" width="900" height="900" '
         'style="opacity: 0.01"></iframe>')


@pytest.fixture
def elsewhere():
    """elsewhere(action, host, name): URL of a page there that posts to an action by itself."""
    pages = {}

    class Handler(http.server.BaseHTTPRequestHandler):

        def do_GET(self):
            text = pages.get(self.path, '').encode('ascii')
            self.send_response(200 if text else 404)
            self.send_header('Content-Type', 'text/html')
            # A page can say that no origin is to be told.
            if 'silent' in self.path:
                self.send_header('Referrer-Policy', 'no-referrer')
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def elsewhere(action, host, name):
        pages[f'/{name}'] = (FRAME if name == 'frame' else PAGE).format(action=action)
        return f'http://{host}:{server.server_port}/{name}'

    yield elsewhere
    server.shutdown()
    thread.join()
    server.server_close()


def is_paused(site, admin):
    admin.goes_to(site.dispatcher + '/zam2/manage_calls')
    return bool(admin.finds_all('form[action$=manage_resume]'))


@pytest.mark.parametrize('host, name', [
    ('evil.localhost', 'game'), ('evil.localhost', 'silent'),
    ('admin.localhost', 'game')])  # the same host at another port, which has other pages
def test_page_of_another_site_can_not_press_a_button_here(site, admin, elsewhere, host, name):
    action = admin.url + site.dispatcher + '/zam2/manage_pause'
    assert not is_paused(site, admin)  # and the browser knows the password
    admin.driver.get(elsewhere(action, host, name))
    admin.waits_for(lambda: admin.driver.current_url == action, 'the posted form')
    # With the password: without it Zope would have asked for one.
    admin.waits_for(lambda: 'A page of another site sent this' in admin.reads('body'),
                    'the refusal')
    assert not is_paused(site, admin)


@pytest.mark.parametrize('host', ['evil.localhost', 'admin.localhost'])
def test_page_of_another_site_can_not_lay_one_of_ours_under_the_mouse(
        site, admin, elsewhere, host):
    """What is pressed there would be posted by our own page."""
    address = admin.url + site.dispatcher + '/zam2/manage_calls'
    assert not is_paused(site, admin)
    admin.driver.get(elsewhere(address, host, 'frame'))
    admin.driver.switch_to.frame(admin.finds('iframe'))
    try:
        admin.waits_for(lambda: admin.finds_all('body'), 'what the frame shows')
        assert not admin.finds_all('form[action$=manage_pause]')
    finally:
        admin.driver.switch_to.default_content()


def test_our_own_page_can(site, admin):
    assert not is_paused(site, admin)
    admin.presses('Pause')
    admin.waits_for(lambda: 'Paused' in admin.reads('body'), 'the message')
    assert is_paused(site, admin)
    admin.presses('Resume')
    admin.waits_for(lambda: 'takes calls again' in admin.reads('body'), 'the message')
