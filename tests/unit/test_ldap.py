"""What the LDAP plugins take at the door, as tables of right and wrong calls."""

import pytest

from Products.zasync import payload
from Products.zasync.builtin import BUILTIN
from Products.zasync.errors import BadCall
from Products.zasync.ldapcall import check_filter
from Products.zasync.ldapcall import check_protected
from Products.zasync.ldapcall import check_unprotected
from Products.zasync.ldapcall import protected
from Products.zasync.ldapcall import Query
from Products.zasync.ldapcall import unprotected
from Products.zasync.showing import shown


BASE = 'dc=example,dc=org'
DEFAULTS = {'filter': '(objectClass=*)', 'scope': 'subtree', 'attributes': None, 'user': None,
            'password': None, 'size_limit': 1000, 'timeout': 30.0}


@pytest.mark.parametrize('check, server, expected', [
    (check_unprotected, 'ldap.example.org', 'ldap://ldap.example.org:389'),
    (check_unprotected, 'ldap.example.org:3890', 'ldap://ldap.example.org:3890'),
    (check_unprotected, 'ldap://127.0.0.1', 'ldap://127.0.0.1:389'),
    (check_unprotected, 'LDAP://host:1/', 'ldap://host:1'),
    (check_unprotected, '[::1]', 'ldap://[::1]:389'),
    (check_protected, 'ldap.example.org', 'ldaps://ldap.example.org:636'),
    (check_protected, 'host:6360', 'ldaps://host:6360'),
    (check_protected, 'ldaps://[fe80::1]:1', 'ldaps://[fe80::1]:1'),
    (check_protected, 'ldap://host', 'ldap://host:389'),
])
def test_a_server_becomes_a_uri_with_its_port(check, server, expected):
    assert check((server, BASE), {}) == ((expected, BASE), DEFAULTS)


@pytest.mark.parametrize('check', [check_unprotected, check_protected])
def test_what_passed_the_door_passes_it_again_unchanged(check):
    given = check(('host', BASE, '(&(cn=x)(sn=y))', 'base', ['cn', '*']),
                  {'user': 'cn=me', 'password': 'x', 'size_limit': 5, 'timeout': 1})
    assert check(*given) == given


def test_a_query_tells_its_address():
    assert unprotected(('[::1]:77', BASE), {}).address == ('::1', 77)
    query = protected(('host', BASE), {})
    assert (query.scheme, query.address) == ('ldaps', ('host', 636))


def test_a_query_does_not_show_its_password():
    query = Query('ldap://host:389', BASE, user='cn=me', password='hidden')
    assert 'cn=me' in repr(query) and 'hidden' not in repr(query)


def test_a_list_of_calls_does_not_show_the_password():
    call = check_protected(('host', BASE), {'user': 'cn=me', 'password': 'geheim'})
    text = shown(payload.dump_arguments(*call))
    assert "'password': (hidden)" in text and 'cn=me' in text and 'geheim' not in text


@pytest.mark.parametrize('args, kwargs, words', [
    ((), {}, "'server' and 'base'"),
    (('host',), {}, "'base'"),
    (('host', BASE), {'sope': 'base'}, "'sope'"),
    (('host', BASE), {'server': 'host'}, "'server'"),
    (('host', BASE, *range(8)), {}, '11 were given'),
    ((None, BASE), {}, 'the server is a text'),
    ((b'host', BASE), {}, 'the server is a text'),
    (('', BASE), {}, 'the server is a host'),
    (('a b', BASE), {}, 'the server is a host'),
    (('ldap://a ldap://b', BASE), {}, 'the server is a host'),
    (('ldap://a,ldap://b', BASE), {}, 'the server is a host'),
    (('ldap://host/dc=org??sub', BASE), {}, 'the server is a host'),
    (('ldap://me:geheim@host', BASE), {}, 'give them apart'),
    (('ldap://', BASE), {}, 'the server is a host'),
    (('host\n', BASE), {}, 'the server is a host'),
    (('ldapi://host', BASE), {}, 'not by ldapi'),
    (('http://host', BASE), {}, 'not by http'),
    (('host:0', BASE), {}, 'the port'),
    (('host:65536', BASE), {}, 'the port'),
    (('host:', BASE), {}, 'the server is a host'),
    (('host', None), {}, 'the base is a text'),
    (('host', 'dc=a\0'), {}, 'NUL'),
    (('host', 'x' * 10_001), {}, '10,001 characters'),
    (('host', BASE), {'filter': None}, 'the filter is a text'),
    (('host', BASE), {'filter': '(cn=a'}, 'the filter'),
    (('host', BASE), {'scope': 'sub'}, 'base, onelevel, subtree'),
    (('host', BASE), {'scope': 2}, 'the scope is a text'),
    (('host', BASE), {'attributes': 'cn'}, 'a list of names'),
    (('host', BASE), {'attributes': []}, 'a list of names'),
    (('host', BASE), {'attributes': ['c n']}, 'no name of an attribute'),
    (('host', BASE), {'attributes': [b'cn']}, 'no name of an attribute'),
    (('host', BASE), {'attributes': ['']}, 'no name of an attribute'),
    (('host', BASE), {'attributes': ['cn'] * 201}, '201 attributes'),
    (('host', BASE), {'size_limit': 0}, 'size_limit'),
    (('host', BASE), {'size_limit': True}, 'size_limit'),
    (('host', BASE), {'size_limit': 10.0}, 'size_limit'),
    (('host', BASE), {'size_limit': 2 ** 31}, 'size_limit'),
    (('host', BASE), {'timeout': 0}, 'timeout'),
    (('host', BASE), {'timeout': None}, 'timeout'),
    (('host', BASE), {'timeout': float('inf')}, 'timeout'),
    (('host', BASE), {'timeout': float('nan')}, 'timeout'),
    (('host', BASE), {'timeout': 'geheim'}, 'timeout'),
    (('host', BASE), {'size_limit': 'geheim'}, 'size_limit'),
    (('host', BASE), {'user': 'cn=me'}, 'needs a password'),
    (('host', BASE), {'user': 'cn=me', 'password': ''}, 'needs a password'),
    (('host', BASE), {'user': 'cn=me', 'password': b'geheim'}, 'needs a password'),
    (('host', BASE), {'user': 'cn=me', 'password': 'geheim\0'}, 'NUL'),
    (('host', BASE), {'user': 5, 'password': 'geheim'}, 'the user is a text'),
    (('host', BASE), {'user': '', 'password': 'geheim'}, 'the user is empty'),
    (('host', BASE), {'password': 'geheim'}, 'needs a user'),
])
@pytest.mark.parametrize('plugin', ['unprotected_ldap', 'protected_ldap'])
def test_a_wrong_call_is_refused_with_a_sentence_that_hides_the_password(plugin, args, kwargs,
                                                                         words):
    with pytest.raises(BadCall) as refusal:
        BUILTIN[plugin].check(args, kwargs)
    assert words in str(refusal.value)
    assert 'geheim' not in str(refusal.value)


def test_the_unprotected_plugin_names_the_other_one_for_ldaps():
    with pytest.raises(BadCall, match='use protected_ldap'):
        check_unprotected(('ldaps://host', BASE), {})


@pytest.mark.parametrize('text', [
    '(cn=a)', '(cn=*)', '(cn=)', '(cn=a*b*c)', '(cn=Zoë Łącka)', '(cn=a=b)',
    '(cn;lang-de=a)', '(2.5.4.3=a)', '(age>=5)', '(age<=5)', '(cn~=a)',
    '(cn:=a)', '(cn:dn:=a)', '(cn:caseExactMatch:=a)', '(:2.5.13.5:=a)', '(cn:dn:2.5.13.5:=a)',
    r'(cn=\28a\29\2a\5c\00)', '(cn= a & | ! )',
    '(&(a=1)(b=2))', '(|(a=1)(&(b=2)(c=3))(d=4))', '(!(a=1))', '(!(!(a=1)))', '(&(!(a=1))(b=2))',
    '(!(&(a=1)(!(b=2))))', '(&)', '(|)', '(!(&))', '(&(a=1))',
    '\n (& (a=1)\n   (b=2) )\n', '( ! ( a=1) )', '(!' * 500 + '(a=1)' + ')' * 500,
])
def test_a_filter_is_taken(text):
    check_filter(text)


@pytest.mark.parametrize('text', [
    '', ' ', 'cn=a', '(', ')', '()', '(cn)', '(=a)', '(cn=a', 'cn=a)', '(cn=a))', '((cn=a))',
    '(cn=a)(sn=b)', '(cn=(a)', r'(cn=\2)', '(cn=\\)', r'(cn=\zz)', '(cn=a\0)', '(c n=a)',
    '(1a=b)', '(.=b)', '(&(a=1)', '(&(a=1)))', '(&a=1)', '(& (a=1) b)', '(!)', '(!(a=1)(b=2))',
    '(!a=1)', '(&(!))', '(!(!))', '(a=1) x', '(&(a=1)(', '(a<1)', '(a!=1)', '(!' * 500,
])
def test_what_is_no_filter_is_refused_with_a_sentence_that_says_where(text):
    with pytest.raises(BadCall, match='wrong at character [0-9]+: '):
        check_filter(text)
