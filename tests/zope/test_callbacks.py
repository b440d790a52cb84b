"""Callbacks from restricted code: only for what getDeferred gave, in the page and the browser."""

import pytest
import transaction
from Products.PageTemplates.ZopePageTemplate import ZopePageTemplate

from Products.zasync import permissions
from Products.zasync.errors import BadCall
from Products.zasync.errors import NotYours


PUT = """<p tal:define="deferred python: here.zam.putSessionCall('zope_exec', '/', {}, 'nothing');
x python: deferred.addCallbacks('result').addCallbacks(None, 'failure')"
tal:content="deferred/id" />"""
ADD = """<p tal:define="deferred python: here.zam.getDeferred(request['id']);
x python: deferred.addCallbacks(request['callback'])" tal:content="deferred/state" />"""
#: What restricted code must not reach by a deferred.
INSIDE = """<p tal:content="python: here.zam.getDeferred(request['id']).%s" />"""


@pytest.fixture
def pages(site, app, manager):
    """Pages that put calls and add callbacks to them, as a site's own code would."""
    for permission in (permissions.MakeAsynchronousApplicationCalls,
                       permissions.MakeAsynchronousSessionCalls):
        manager.manage_permission(permission, ['Anonymous'], 0)
    for id, text in (('put', PUT), ('add', ADD), ('caller', INSIDE % 'caller'),
                     ('append', INSIDE % "append_callback('result', None, None)"),
                     ('succeed', INSIDE % 'succeed(None, 0)')):
        app._setObject(id, ZopePageTemplate(id, text))
    transaction.commit()
    return app


def content(answer):
    assert answer.status_int == 200, answer.text
    return answer.text.strip().removeprefix('<p>').removesuffix('</p>')


def followers(app):
    transaction.begin()
    return [call for call in app.zam.calls() if call.plugin == 'follow']


def test_a_page_puts_a_call_with_callbacks(site, pages):
    id = content(site.browser('bob').get('/put'))
    site.login('admin')
    deferred = pages.zam.getDeferred(id)
    assert [pair[:2] for pair in deferred._callbacks] == [('result', None), (None, 'failure')]


def test_a_page_adds_callbacks_to_what_its_browser_may_get_and_to_nothing_else(site, pages):
    mine = site.browser('bob')
    id = content(mine.get('/put'))
    there = {'id': id, 'callback': 'python: 1'}
    for other in (site.browser(), site.browser('eve'), site.browser('bob')):
        with pytest.raises(NotYours):
            other.get('/add', params=there)
    assert followers(pages) == []
    assert content(mine.get('/add', params=there)) == 'new'
    # And a Manager may, in any browser.
    assert content(site.browser('admin').get('/add', params=there)) == 'new'
    assert [call.caller.user_id for call in sorted(followers(pages), key=lambda c: c.put_at)] == [
        'bob', 'admin']


def test_a_page_with_a_bad_callback_fails_and_adds_nothing(site, pages):
    browser = site.browser('bob')
    id = content(browser.get('/put'))
    with pytest.raises(BadCall):
        browser.get('/add', params={'id': id, 'callback': 'python: ('})
    assert followers(pages) == []


@pytest.mark.parametrize('page', ['caller', 'append', 'succeed'])
def test_restricted_code_reaches_nothing_else_of_a_deferred(site, pages, page):
    browser = site.browser('bob')
    id = content(browser.get('/put'))
    assert browser.get(f'/{page}', params={'id': id}).status_int in (401, 403)
