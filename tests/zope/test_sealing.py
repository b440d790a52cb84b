"""Sealing: what a file of secret keys must be like, what opens what, and what shows nothing."""

import os
import pickle
from types import SimpleNamespace

import pytest
from App.config import getConfiguration

from Products.zasync import initialize
from Products.zasync import payload
from Products.zasync import sealing
from Products.zasync import showing
from Products.zasync.builtin import BUILTIN
from Products.zasync.door import make_call
from Products.zasync.errors import BadCall
from Products.zasync.errors import BadKeyFile
from Products.zasync.errors import NoSecretKey
from Products.zasync.errors import WrongSecretKey
from Products.zasync.sealed import Sealed
from tests.secretkeys import configured
from tests.secretkeys import new_key
from tests.secretkeys import secret_key


KEY = 'hunter2hunter2hunter2hunter2hunter2hunter2h='
PLAIN = 'pl41n "text" \\ ü'


@pytest.fixture
def key_file(tmp_path):
    with secret_key(tmp_path / 'secret.key') as made:
        yield made


@pytest.mark.parametrize('plain', [PLAIN, 'a', 'x' * 500, '\udcff'])
def test_what_was_sealed_is_opened_and_shows_nothing(key_file, plain):
    sealed = sealing.seal(plain)
    assert sealing.opened(sealed) == plain
    for text in (repr(sealed), str(sealed), f'{sealed}', '%s' % [sealed]):
        assert '(sealed)' in text and len(text) < 15
    assert sealing.seal(plain) != sealed
    stored = pickle.dumps(sealed)
    assert plain.encode('utf-8', 'surrogatepass') not in stored or plain == 'a'
    assert pickle.loads(stored) == sealed


def test_any_key_of_the_file_opens_and_the_first_one_seals(key_file):
    first = key_file.text()
    old = sealing.seal(PLAIN)
    assert sealing.is_newest(old)
    key_file.write(f'# newer\n{new_key()}\n{first}')
    # Nobody told this process that the file has changed.
    assert sealing.opened(old) == PLAIN and not sealing.is_newest(old)
    new = sealing.seal(PLAIN)
    assert sealing.is_newest(new)
    key_file.write(first)
    with pytest.raises(WrongSecretKey, match=f'none of the keys in {key_file.path} opens it'):
        sealing.opened(new)
    assert sealing.opened(old) == PLAIN


@pytest.mark.parametrize('text, sentence', [
    (None, 'there is no file of secret keys {}: restore it'),
    ('', '{} holds no key'),
    ('# only words\n\n', '{} holds no key'),
    ('hunter2\n', 'line 1 of the file of secret keys {} is no key'),
    (f'{KEY}\n{KEY[:-4]}\n', 'line 2 of the file of secret keys {} is no key'),
    (f'# a\n{KEY}AAAA\n', 'line 2 of the file of secret keys {} is no key'),
    (f'{KEY}\n{KEY} # new\n', 'line 2 of the file of secret keys {} is no key'),
    (f'\xef\xbb\xbf{KEY}\n', 'line 1 of the file of secret keys {} is no key'),
])
def test_a_file_that_is_no_key_file_is_named_and_not_quoted(key_file, text, sentence):
    sealed = sealing.seal(PLAIN)
    if text is None:
        os.unlink(key_file.path)
    else:
        key_file.write(text)
    for action in (lambda: sealing.seal(PLAIN), lambda: sealing.opened(sealed)):
        with pytest.raises(BadKeyFile) as refused:
            action()
        assert sentence.format(key_file.path) in str(refused.value)
        assert 'hunter2' not in str(refused.value)


def test_a_directory_is_no_key_file(tmp_path):
    with configured({sealing.DIRECTIVE: str(tmp_path)}), \
            pytest.raises(BadKeyFile, match='can not be read: Is a directory'):
        sealing.seal(PLAIN)


@pytest.mark.parametrize('section, error, sentence', [
    (None, NoSecretKey, 'no secret key is configured: <product-config zasync-secrets>'),
    ({}, BadKeyFile, 'has no secret-key-file'),
    ({'secret-key-file': ''}, BadKeyFile, 'has no secret-key-file'),
    ({'secret-key-fil': '/x'}, BadKeyFile, 'says secret-key-fil: what it takes is'),
    ({'secret-key-file': '/x', 'more': 'y'}, BadKeyFile, 'says more'),
    (SimpleNamespace(), BadKeyFile, 'has no secret-key-file'),
])
def test_a_configuration_without_a_key_file_says_what_is_missing(section, error, sentence):
    with configured(section):
        assert sealing.is_configured() == (section is not None)
        with pytest.raises(error, match=sentence):
            sealing.seal(PLAIN)


def test_a_relative_path_starts_at_the_instance(tmp_path):
    configuration = SimpleNamespace(
        instancehome=str(tmp_path), product_config={sealing.SECTION: {
            sealing.DIRECTIVE: 'etc/secret.key'}})
    assert sealing.key_path(configuration) == str(tmp_path / 'etc' / 'secret.key')
    assert sealing.key_path(getConfiguration()) != str(tmp_path / 'etc' / 'secret.key')


@pytest.mark.parametrize('mode, is_told', [
    (0o400, False), (0o600, False), (0o440, False), (0o640, False),
    (0o644, True), (0o444, True), (0o660, True), (0o602, True)])
def test_the_log_says_once_who_may_read_the_file_besides(key_file, caplog, mode, is_told):
    os.chmod(key_file.path, mode)
    for _ in range(3):
        sealing.opened(sealing.seal(PLAIN))
    assert caplog.text.count(f'has the mode {mode:04o}') == is_told


def test_the_log_says_at_the_start_that_the_file_is_bad(key_file, caplog):
    product = SimpleNamespace(registerClass=lambda *args, **kwargs: None)
    initialize(product)
    assert caplog.text == ''
    key_file.write('nonsense\n')
    initialize(product)
    assert 'stored passwords can be neither read nor stored: line 1 of' in caplog.text
    assert 'nonsense' not in caplog.text


# LDAP

def door(plugin, **kwargs):
    return BUILTIN[plugin].check(('host', 'dc=org'), {'user': 'cn=x', **kwargs})


@pytest.mark.parametrize('plugin', ['protected_ldap', 'unprotected_ldap'])
def test_the_password_of_a_query_is_sealed_at_the_door(key_file, plugin):
    args, kwargs = door(plugin, password=PLAIN)
    assert isinstance(kwargs['password'], Sealed)
    assert sealing.opened(kwargs['password']) == PLAIN
    # As that of a periodic call, which passes the door a second time.
    assert BUILTIN[plugin].check(args, kwargs) == (args, kwargs)
    data = payload.dump_arguments(args, kwargs)
    assert "'password': (hidden)" in showing.shown(data)
    assert showing.literal(data) is None
    assert payload.loads(data) == (args, kwargs)


def test_without_a_key_the_password_of_a_query_is_kept_as_it_is():
    with configured(None):
        assert door('protected_ldap', password=PLAIN)[1]['password'] == PLAIN


def test_with_a_bad_key_file_a_query_with_a_password_is_refused(key_file):
    key_file.write('')
    with pytest.raises(BadCall, match='password can not be stored: .* holds no key') as refused:
        door('protected_ldap', password=PLAIN)
    assert PLAIN not in str(refused.value)
    assert BUILTIN['protected_ldap'].check(('host', 'dc=org'), {})[1]['password'] is None


def test_a_sealed_value_anywhere_is_shown_as_such(key_file):
    sealed = sealing.seal(PLAIN)
    assert showing.shown(pickle.dumps([sealed])) == '[(sealed)]'


@pytest.mark.parametrize('members', [
    [('protected_ldap', 'host', 'dc=org', {'password': PLAIN})],
    [('protected_ldap', ('host', 'dc=org'), [('password', PLAIN)])],
    [('protected_ldap', PLAIN)], [PLAIN, {'password': PLAIN}], {'password': PLAIN}, PLAIN])
def test_what_is_no_member_of_an_aggregate_is_refused_without_a_word_of_it(members):
    with pytest.raises(BadCall) as refused:
        make_call((), None, 'aggregate', (members,), {})
    assert 'pl41n' not in str(refused.value)
