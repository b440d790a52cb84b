"""Pages and forms: whatever is sent, a page that says so, and all or nothing of it is done."""

import json
import math

import pytest
import transaction
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
from zope.component import getGlobalSiteManager
from ZPublisher.interfaces import IPubFailure

from Products.CPSMailAccess import parameters
from Products.zasync.forgery import is_ours as is_ours_or_not
from Products.zasync.zmi.managerforms import check_times
from tests.fuzz import examples
from tests.fuzz.forms import ADD
from tests.fuzz.forms import FORMS
from tests.fuzz.forms import requests
from tests.fuzz.forms import state_of
from tests.fuzz.forms import World
from tests.secretkeys import secret_key
from tests.zopeapp import Site


#: Where our code is.
OURS = ('/Products/zasync/', '/Products/zasyncdispatcher/', '/Products/CPSMailAccess/')


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    site = Site()
    with secret_key(tmp_path_factory.mktemp('keys') / 'secret.key'):
        yield World(site)
    site.close()


@pytest.fixture(scope='module')
def failures():
    """The exceptions that reached the publisher."""
    found = []

    def note(event):
        found.append(event.exc_info[1])

    manager = getGlobalSiteManager()
    manager.registerHandler(note, [IPubFailure])
    yield found
    manager.unregisterHandler(note, [IPubFailure])


def is_ours(traceback):
    """Whether code of ours ran when that happened; Zope's own, of a value that its converters
    refuse, is answered as Zope likes."""
    while traceback is not None:
        if any(place in traceback.tb_frame.f_code.co_filename for place in OURS):
            return True
        traceback = traceback.tb_next
    return False


def answered(world, failures, form, sent):
    """Send it, and look at what comes of it."""
    with world.anew() as app:
        before = state_of(app)
        failures.clear()
        try:
            answer = world.send(form, sent)
        except Exception as reason:
            # Zope itself could make no request of it, so nobody of us was asked.
            assert not is_ours(reason.__traceback__), reason
            assert state_of(app) == before
            return
        transaction.begin()
        after = state_of(app)
        assert answer.status_int < 500 or failures and not any(
            is_ours(found.__traceback__) for found in failures), (answer.text, failures)
        if answer.status_int >= 400:
            assert after == before
            assert 'Traceback (most recent' not in answer.text
        else:
            assert answer.status_int in (200, 204, 302), answer.text
        assert '<script>alert' not in answer.text
        assert '\r\nSet-Cookie: a=b' not in str(answer.headers)
        if form.path.endswith(('_data', 'manage_syncStatus')) and answer.status_int == 200:
            json.loads(answer.text)
        check_valid(app, after)
        if answer.status_int < 400 and form.method == 'POST':
            for path in ('/zad/manage_overview', '/portal_webmail/manage_main'):
                assert world.browser.get(path).status_int == 200


def check_valid(app, state):
    for interval, rotation, paused, leaving, periodic, _calls in state['managers'].values():
        assert check_times(interval, rotation) == {} and interval >= 2
        assert type(paused) is type(leaving) is bool
        for title, timetable, *_ in periodic.values():
            assert type(title) is str and timetable.next_after(0)
    title, idle, *_ = state['dispatcher']
    assert type(title) is str and 25 <= idle < math.inf
    title, pairs = state['tool']
    assert type(title) is str
    values = {name: value for name, (value, _flag) in pairs.items()}
    assert parameters.check(values, tuple(values))[1] == {}
    assert all(type(flag) is int and flag in (-1, 0, 1) for _value, flag in pairs.values())
    for title, own, _count in state['boxes'].values():
        assert type(title) is str
        shown = {name: value for name, value in own.items() if name != 'password'}
        values, problems = parameters.check(shown, tuple(shown))
        assert problems == {} and values == shown


@pytest.mark.parametrize('form', FORMS, ids=lambda form: f'{form.method} {form.path}')
def test_each_form_as_people_send_it(world, failures, form):
    with world.anew():
        answer = world.send(form, list(form.fields.items()))
        assert answer.status_int < 500, answer.text
        # A second tool, and a mailbox outside of one, are refused.
        refused = form.method == 'POST' and form.path.startswith(f'{ADD}CPSMailAccess/')
        assert (answer.status_int == 400) == refused, answer.text


def form(path):
    """That form."""
    return next(form for form in FORMS if form.path.endswith(path))


@given(request=requests())
@example(request=(form('manage_calls'), [('plugin', 'a'), ('plugin', 'b')]))
@example(request=(form('manage_purge'), [('state', 'failed'), ('hours', '0'), ('hours', '1')]))
@example(request=(form('manage_delObjects'), [('ids.part:record', 'box_alice')]))
@example(request=(form('manage_delObjects'), [('ids', 'box_alice'), ('ids', 'box_alice')]))
@example(request=(form('box_alice/manage_main'), [('start:float', 'inf')]))
@example(request=(form('portal_webmail/manage_main'), [('start:float', 'inf')]))
@example(request=(form('addMailBox'), [('user', '\udcff'), ('HOST', 'mail.example')]))
@example(request=(form('box_alice/manage_changeSettings'), [('CA_FILE', '\udcff')]))
@example(request=(form('manage_changeProperties'), [('max_idle_time', 'inf')]))
@example(request=(form('manage_changeProperties'), [('max_idle_time', '')]))
@example(request=(form('manage_editProperties'), [('title', 'T'), ('no_worker', 'run')]))
@example(request=(form('manage_editProperties'), [
    ('title:tuple', 'T'), ('max_idle_time:float', '60'), ('no_worker', 'run'),
    ('balance', 'load')]))
@example(request=(form('manage_changeProperties'), [('max_idle_time', '9' * 400)]))
@example(request=(form('manage_changeProperties'), [('max_idle_time', ' ')]))
@example(request=(form('manage_changeProperties'), [('title', 'a'), ('title', 'b')]))
@examples(60)
def test_whatever_is_sent_is_answered(world, failures, request):
    answered(world, failures, *request)


@given(headers=st.tuples(*[st.one_of(st.none(), st.sampled_from((
    'same-origin', 'null', 'http://', 'http://[', 'http://a:99999', '[::1', 'a:b:c', '//',
    'x:80')), st.text(max_size=12))] * 4))
@examples(60)
def test_whatever_headers_say_it_is_known_whose_page_sent_them(headers):
    assert type(is_ours_or_not(*headers)) is bool
