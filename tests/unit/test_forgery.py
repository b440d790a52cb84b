"""Whose page sent a request, told from what browsers and proxies send."""

import pytest
from ZPublisher import zpublish_mark

from Products.zasync.forgery import action
from Products.zasync.forgery import is_ours


SITE = 'www.example.com'


@pytest.mark.parametrize('said', ['same-origin', 'none', ' Same-Origin '])
@pytest.mark.parametrize('origin', [None, 'null', 'https://evil.example', f'https://{SITE}'])
def test_a_browser_that_says_it_is_our_page_is_believed(said, origin):
    """Whatever a proxy did to Host: no page can set that header, and no other site has it."""
    assert is_ours(said, origin, None, 'backend:8080')


@pytest.mark.parametrize('said', ['cross-site', 'same-site', 'CROSS-SITE', 'other', ',',
                                  'same-origin, cross-site'])
def test_a_browser_that_says_anything_else_is_refused_whatever_the_origin(said):
    assert not is_ours(said, f'https://{SITE}', f'https://{SITE}/', SITE)


@pytest.mark.parametrize('source, host', [
    ('https://www.example.com', 'www.example.com'), ('http://www.example.com', 'www.example.com'),
    ('https://WWW.Example.com', 'www.EXAMPLE.com'), ('https://www.example.com.', SITE),
    ('https://www.example.com', 'www.example.com:443'), ('https://www.example.com:443', SITE),
    ('http://www.example.com', 'www.example.com:80'),
    ('http://localhost:8080', 'localhost:8080'), ('http://127.0.0.1:8080', '127.0.0.1:8080'),
    ('http://[::1]:8080', '[::1]:8080'), ('http://[2001:DB8::1]', '[2001:db8::1]:80'),
    ('https://xn--bcher-kva.example', 'xn--bcher-kva.example')])
def test_the_same_host_is_ours(source, host):
    assert is_ours(None, source, None, host)
    assert is_ours(None, None, f'{source}/a/page?x=http://evil.example', host)
    assert is_ours('', '', source, host), 'a header that a proxy emptied is none'


@pytest.mark.parametrize('source, host', [
    ('null', SITE), ('https://evil.example', SITE), ('https://example.com', SITE),
    ('https://evil.www.example.com', SITE), ('https://www.example.com.evil.example', SITE),
    ('https://www.example.com:8443', SITE), ('https://www.example.com', 'www.example.com:8443'),
    ('http://www.example.com', 'www.example.com:443'), ('http://localhost:8080', '127.0.0.1:8080'),
    ('http://localhost:8081', 'localhost:8080'), ('http://[::1]:8081', '[::1]:8080'),
    ('http://[::1', '[::1]'), ('https://www.example.com:99999', SITE), ('about:blank', SITE),
    ('https://www.example.com@evil.example', SITE), ('https://evil.example@www.example.com', SITE),
    ('//', SITE), ('https://', SITE), ('www.example.com', SITE), ('data:text/html,x', SITE),
    ('https://www.example.com', None), ('https://www.example.com', ''),
    ('https://www.example.com', ':443'), ('null', 'null'), ('moz-extension://abc', SITE),
    ('https://evil.example', 'www.example.com, evil.example')])
def test_another_host_or_none_that_can_be_read_is_not_ours(source, host):
    assert not is_ours(None, source, None, host)
    assert not is_ours(None, None, source, host)


def test_an_origin_tells_more_than_a_referer():
    assert not is_ours(None, 'null', f'https://{SITE}/', SITE)
    assert not is_ours(None, 'https://evil.example', f'https://{SITE}/', SITE)
    assert is_ours(None, f'https://{SITE}', 'https://evil.example/', SITE)


@pytest.mark.parametrize('host', [SITE, None])
def test_a_script_says_nothing_and_is_let_in(host):
    assert is_ours(None, None, None, host)


def test_an_action_is_posted_and_keeps_its_name_text_and_arguments():
    @action
    def manage_do(self, REQUEST, id='', *, more=1):
        """Do it."""
        return self, REQUEST, id, more

    assert zpublish_mark(manage_do) == ('POST',)
    assert (manage_do.__name__, manage_do.__doc__) == ('manage_do', 'Do it.')
    assert manage_do('it', None, more=2) == ('it', None, '', 2)


def test_an_action_that_takes_no_request_could_not_be_looked_at():
    with pytest.raises(TypeError, match='manage_do has no argument REQUEST'):
        @action
        def manage_do(self, id=''):
            """Do it."""
