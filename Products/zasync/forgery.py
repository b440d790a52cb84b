"""Forgery: an action is a POST that a page of this site sent, and no other site's page.

A browser sends the password of a person along with whatever a page of another site has it
send. Inside Plone each form carries the token of plone.protect, and each action demands it.
Elsewhere nothing is stored: a browser says itself where a request comes from.

All pages are a `Page`, which knows the token.

Imports: Zope, plone.protect if it is installed.
"""

import functools
import inspect
import logging
from urllib.parse import urlsplit

from Products.PageTemplates.PageTemplateFile import PageTemplateFile
from zExceptions import Forbidden
from zope.component import queryUtility
from ZPublisher import zpublish
from ZPublisher.HTTPRequest import HTTPRequest


try:
    from plone.keyring.interfaces import IKeyManager
    from plone.protect import authenticator
except ImportError:  # there is no Plone
    authenticator = None


log = logging.getLogger('zasync')

#: What a browser says in Sec-Fetch-Site of a request that no other site's page had it send.
OUR_SITES = ('same-origin', 'none')

DEFAULT_PORTS = {'http': 80, 'https': 443}

#: Zope shows errors unescaped, so they say nothing that came with the request.
FOREIGN = ('A page of another site sent this, so nothing was done. If it was a page of this site: '
           'the server does not know the address that your browser shows. Its proxy has to hand '
           'the header Host on as it came; what was compared is in the log.')
NO_TOKEN = ('This came without the token of a form of this site, or with an old one, so nothing '
            'was done. Go back, load the page again and send it once more.')

#: Who may show our pages in a frame: Zope's own frames do. In one of another site somebody would
#: press what is not to be seen, and our own page would post it.
FRAMES = 'SAMEORIGIN'

#: Zope's footer takes the query off the address: loaded again, the page would be another one. It
#: is put back, but for what was to be said once.
ADDRESS = """<script>
  (function () {
    var bare = window.location.origin + window.location.pathname;
    var query = new URLSearchParams(window.location.search);
    query.delete('manage_tabs_message');
    query.delete('outcome');
    document.addEventListener('DOMContentLoaded', function () {
      if (String(query) && window.parent.location.href === bare) {
        window.parent.history.replaceState('', 'Main', bare + '?' + query);
      }
    });
  }());
</script>"""


def action(method):
    """Publish `method`, which has an argument REQUEST, for what a page of this site posts.

    As a decorator it stands where `zpublish` would. What calls the method from Python, without
    a request or with a mapping for one, is not looked at.
    """
    signature = inspect.signature(method)
    if 'REQUEST' not in signature.parameters:
        raise TypeError(f'{method.__qualname__} has no argument REQUEST, so it can not be looked '
                        'at')

    @zpublish(methods='POST')
    @functools.wraps(method)
    def checked(*args, **kwargs):
        request = signature.bind_partial(*args, **kwargs).arguments.get('REQUEST')
        if isinstance(request, HTTPRequest):
            check(request)
        return method(*args, **kwargs)

    checked.__signature__ = signature  # the publisher passes what it names
    return checked


def check(request):
    """Raise Forbidden if a page of another site may have had the request sent."""
    if _has_tokens():
        try:
            authenticator.check(request)
        except Forbidden:
            raise Forbidden(NO_TOKEN) from None
    elif not is_ours(*(request.getHeader(name) for name in (
            'Sec-Fetch-Site', 'Origin', 'Referer', 'Host'))):
        log.warning('a POST to %r was refused, Sec-Fetch-Site %r, Origin %r, Referer %r, Host %r',
                    request.get('URL'), *(request.getHeader(name) for name in (
                        'Sec-Fetch-Site', 'Origin', 'Referer', 'Host')))
        raise Forbidden(FOREIGN)


def is_ours(site, origin, referer, host):
    """Whether a request with these headers came from the site it goes to, or from no browser.

    site -- Sec-Fetch-Site. Each may be None. A browser that says nothing of its kind is one
    of before 2023, or speaks to a site without TLS: then what tells is the origin. It is
    compared with the Host that this browser asked for, never with Zope's own URLs: these
    follow the path, which is written by whoever makes the link.
    """
    if site:
        return site.strip().lower() in OUR_SITES
    source = origin or referer
    if not source:
        return True  # a script: browsers send an Origin with each POST
    asked = _address(f'//{host}', None) if host else None
    return asked is not None and asked in (_address(source, False), _address(source, True))


def _address(url, with_port):
    """(name, port) of a URL; None if it has none.

    with_port -- whether a port that is the usual one of the scheme is named, or left out, as
    any server and proxy likes; None for what it says.
    """
    try:
        parts = urlsplit(url.strip())
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.username is not None:
        return None
    usual = DEFAULT_PORTS.get(parts.scheme)
    if with_port is False and port == usual:
        port = None
    elif with_port and port is None:
        port = usual
    return name.rstrip('.'), port


def _has_tokens():
    """Whether this is a Plone site: plone.protect is there, and its keys can be had here."""
    return authenticator is not None and queryUtility(IKeyManager) is not None


class Page(PageTemplateFile):
    """A page. Its forms carry `<input tal:replace="structure authenticator" />`.

    One that is another for each query has `<script tal:replace="structure address"></script>`.
    """

    @zpublish(False)
    def pt_getContext(self, *args, **kwargs):
        """What the page may name: `authenticator` is the token's field, '' where there is none;
        `address` keeps the query in the address.
        """
        names = super().pt_getContext(*args, **kwargs)
        response = getattr(names['request'], 'RESPONSE', None)
        if response is not None:
            response.setHeader('X-Frame-Options', FRAMES)
        names['address'] = ADDRESS
        names['authenticator'] = ''
        if _has_tokens():
            names['authenticator'] = (f'<input type="hidden" name="_authenticator" '
                                      f'value="{authenticator.createToken()}" />')
        return names
