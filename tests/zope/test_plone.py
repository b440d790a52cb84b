"""Inside Plone: the forms carry the token of the real plone.protect, and the actions demand it."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import requests
from bs4 import BeautifulSoup

from bench.processes import free_port
from tests import actions


ROOT = Path(__file__).parents[2]

#: An environment in which all of plone.protect is: elsewhere the tests see a Zope without Plone.
PYTHON = ROOT / '.venv-plone' / 'bin' / 'python'

OWN = {'Sec-Fetch-Site': 'same-origin'}


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    """(its URL, {site: (paths, ids, actions)}): /plone with a key manager, the root without."""
    if not PYTHON.exists():
        pytest.skip('no .venv-plone: make .venv-plone makes it')
    place, port = tmp_path_factory.mktemp('plone'), free_port()
    with open(place / 'log', 'w+b') as log:
        process = subprocess.Popen(
            [PYTHON, '-m', 'tests.zope.ploneserver', place, str(port)], cwd=place, stderr=log,
            stdout=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': str(ROOT)})
        try:
            made = process.stdout.readline()
            assert made, (place / 'log').read_text('utf-8')
            yield f'http://127.0.0.1:{port}', json.loads(made)
        finally:
            process.kill()
            process.wait(10)
            process.stdout.close()


@pytest.fixture
def ask(server):
    """ask(method, path, data, user, headers): a request to it; → the answer."""
    def ask(method, path, data=None, user='admin', headers=None):
        return requests.request(method, server[0] + path, data=data, auth=(user, user),
                                headers=headers, timeout=30, allow_redirects=False)
    return ask


def form(answer, action):
    """The form of a page that posts to that action, {field: text} of what is hidden in it."""
    soup = BeautifulSoup(answer.text, 'html.parser')
    found, = (form for form in soup.find_all('form') if form.get('action', '').endswith(action))
    return found, {tag['name']: tag['value'] for tag in found.find_all('input', type='hidden')}


def token(ask, site='/plone', user='admin'):
    """The token in the forms of that user there."""
    return form(ask('GET', f'{site}/zam/manage_main', user=user), '/manage_ping')[1][
        '_authenticator']


def is_paused(ask, site='/plone'):
    return 'Resume' in ask('GET', f'{site}/zam/manage_calls').text


def test_each_action_demands_the_token_whatever_else_a_browser_says(ask, server):
    paths, ids, published = server[1]['/plone']
    good, of_eve = token(ask), token(ask, user='eve')
    assert good != of_eve
    for owner, name in published:
        path, data = f'/plone{paths[owner]}/{name}', actions.form_of(name, ids)
        for wrong in ({}, {'_authenticator': of_eve}):
            answer = ask('POST', path, {**data, **wrong}, headers=OWN)
            assert answer.status_code == 403, (name, wrong)
            assert 'the token of a form of this site' in answer.text
    assert not is_paused(ask)
    assert ask('GET', '/plone/new1/manage_workspace').status_code == 404


def test_a_form_works_and_its_token_is_the_first_thing_in_it(ask):
    """The first: plone.protect adds one at the end of any form that has none."""
    found, hidden = form(ask('GET', '/plone/zam/manage_calls'), '/manage_pause')
    assert found.find('input')['name'] == '_authenticator'
    # It says where it comes from in no way, or wrongly: the token is enough.
    answer = ask('POST', '/plone/zam/manage_pause', hidden,
                 headers={'Sec-Fetch-Site': 'cross-site', 'Origin': 'https://evil.example'})
    assert answer.status_code == 302
    assert is_paused(ask)
    answer = ask('POST', '/plone/zam/manage_resume', headers={'X-CSRF-TOKEN': token(ask)})
    assert (answer.status_code, is_paused(ask)) == (302, False)


def test_all_forms_that_post_carry_it_add_forms_too(ask, server):
    forms = 0
    for page in ('zam/manage_main', 'zam/manage_call?id=' + server[1]['/plone'][1]['call'],
                 'zad/manage_overview', 'portal_webmail/box_bob/INBOX/.7/manage_main',
                 'manage_addProduct/zasync/constructAsynchronousCallManagerForm',
                 'portal_webmail/manage_addProduct/CPSMailAccess/addMailBoxForm'):
        answer = ask('GET', f'/plone/{page}')
        assert answer.status_code == 200, page
        for each in BeautifulSoup(answer.text, 'html.parser').find_all('form', method='post'):
            forms += 1
            assert each.find('input')['name'] == '_authenticator', (page, each.get('action'))
    assert forms > 6


def test_a_page_writes_nothing_so_plone_protect_lets_it_be_seen(ask):
    """A page that wrote would be answered by a question whether that was meant."""
    for page in ('/plone/zam/manage_calls', '/plone/zad/manage_overview_data'):
        assert ask('GET', page).status_code == 200


def test_beside_plone_sites_the_browser_tells(ask):
    """The root has no keys: there it is as outside Plone, and plone.protect looks as well."""
    found, hidden = form(ask('GET', '/zam/manage_calls'), '/manage_pause')
    foreign = {'Origin': 'https://evil.example'}
    answer = ask('POST', '/zam/manage_pause', hidden, headers=foreign)
    assert answer.status_code == 403
    assert 'A page of another site sent this' in answer.text
    assert not is_paused(ask, '')
    assert ask('POST', '/zam/manage_pause', hidden, headers=OWN).status_code == 302
    assert is_paused(ask, '')
