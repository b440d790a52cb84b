"""The LDAP plugins against a real slapd, against servers that misbehave, and through a worker."""

import contextlib
import importlib.util
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import transaction

from bench.processes import free_port
from bench.stack import our_environment
from bench.stack import WORKER_READY_SECONDS
from Products.zasync import payload
from Products.zasync.builtin import BUILTIN
from Products.zasync.errors import BadCall
from Products.zasync.sealed import Sealed
from Products.zasync.sealing import DIRECTIVE
from tests import certificates
from tests import slapd
from tests.secretkeys import configured
from tests.secretkeys import secret_key
from tests.slapd import BASE
from tests.slapd import CROWD
from tests.slapd import HOST
from tests.slapd import PASSWORD
from tests.slapd import PEOPLE
from tests.slapd import USER
from zasync_client.plugins import HANDLERS
from zasync_client.plugins.ldap import CA_VARIABLE
from zasync_client.plugins.ldap import LdapError
from zasync_client.plugins.ldap import query_protected_ldap
from zasync_client.plugins.ldap import query_unprotected_ldap
from zasync_client.plugins.ldap import ServerAway


#: For a query of a server that is silent, in seconds; and most that it may take.
SHORT, SOON = 0.5, 5.0

#: For tests that ask with it, whoever answers.
needs_the_library = pytest.mark.skipif(importlib.util.find_spec('ldap') is None,
                                       reason='python-ldap is not installed')


def server(**options):
    pytest.importorskip('ldap', reason='python-ldap is not installed')
    if slapd.slapd_program() is None:
        pytest.skip('slapd is not installed (Debian: apt-get install slapd)')
    certificates.skip_without_openssl()
    return slapd.Slapd(**options)


@pytest.fixture(scope='module')
def directory():
    """A Slapd with TLS."""
    with server() as running:
        yield running


@pytest.fixture
def trusted(directory, monkeypatch):
    """That Slapd, trusted by this process."""
    monkeypatch.setenv(CA_VARIABLE, directory.ca_file)
    return directory


@contextlib.contextmanager
def listener(talk=lambda connection: None):
    """A server that does talk(connection) with each, and then is silent; → 'host:port'."""
    with socket.create_server((HOST, free_port())) as listening:
        accepted = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    accepted.append(connection)
                    talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield '%s:%d' % listening.getsockname()
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for connection in accepted:
                connection.close()
            thread.join(SOON)


def failure(handler, *args, error=LdapError, **kwargs):
    """The sentence with which a query fails."""
    with pytest.raises(LdapError) as failed:
        handler(*args, **kwargs)
    assert type(failed.value) is error, failed.value
    # Nothing of the library's own errors is chained to it, so nothing of them is stored.
    assert failed.value.__cause__ is None and failed.value.__suppress_context__
    assert PASSWORD not in str(failed.value)
    return str(failed.value)


# what is found

def test_entries_come_with_texts_as_texts_and_binary_values_as_bytes(directory):
    found = query_unprotected_ldap(directory.plain, BASE, '(uid=*)')
    assert found == [
        (f'uid=bob,{PEOPLE}', {'cn': ['Bob'], 'jpegPhoto': [slapd.TEXT_PHOTO],
                               'objectClass': ['inetOrgPerson'], 'sn': ['Bob'], 'uid': ['bob']}),
        (USER, {'cn': ['Zoë Łącka'], 'jpegPhoto': [slapd.PHOTO, slapd.TEXT_PHOTO],
                'objectClass': ['inetOrgPerson'], 'sn': ['Łącka'], 'uid': ['zoe']})]
    assert list(found[0][1]) == sorted(found[0][1])
    assert pickle.loads(pickle.dumps(found)) == found


def test_only_the_attributes_asked_for_come(directory):
    assert query_unprotected_ldap(directory.plain, PEOPLE, '(uid=*)', attributes=['sn']) == [
        (f'uid=bob,{PEOPLE}', {'sn': ['Bob']}), (USER, {'sn': ['Łącka']})]
    assert query_unprotected_ldap(directory.plain, PEOPLE, '(uid=bob)', attributes=['1.1']) == [
        (f'uid=bob,{PEOPLE}', {})]


@pytest.mark.parametrize('scope, count', [('base', 1), ('onelevel', 2), ('subtree', 3)])
def test_the_scope_says_how_deep(directory, scope, count):
    assert len(query_unprotected_ldap(directory.plain, PEOPLE, scope=scope)) == count


def test_a_filter_may_hold_what_is_not_ascii_and_what_is_escaped(directory):
    def names(filter):
        return [name for name, _ in query_unprotected_ldap(directory.plain, PEOPLE, filter)]

    assert names('(sn=Łącka)') == [USER]
    assert names(r'(sn=\c5\81*)') == [USER]
    assert names(r'(cn=\2a)') == []
    assert names('(&(objectClass=inetOrgPerson)\n (!(uid=bob)))') == [USER]


def test_nothing_found_is_an_empty_list(directory):
    assert query_unprotected_ldap(directory.plain, BASE, '(uid=nobody)') == []


def test_a_user_sees_more_than_nobody_and_values_keep_the_order_of_the_server(directory):
    found = query_unprotected_ldap(directory.plain, USER, attributes=['mail'], user=USER,
                                   password=PASSWORD)
    assert found == [(USER, {'mail': ['zoe@example.org', 'z@example.org']})]
    assert query_unprotected_ldap(directory.plain, USER, attributes=['mail']) == [(USER, {})]


def test_references_to_other_servers_are_left_out_and_not_followed(directory):
    found = query_unprotected_ldap(directory.plain, BASE, '(|(ou=elsewhere)(uid=bob))')
    assert [name for name, _ in found] == [f'uid=bob,{PEOPLE}']


def test_the_host_may_be_a_name(directory):
    assert query_unprotected_ldap(f'localhost:{directory.port}', PEOPLE, scope='base')


def test_many_queries_at_the_same_time_do_not_meet(trusted):
    results = []

    def ask(number):
        handler, uri = ((query_unprotected_ldap, trusted.plain),
                        (query_protected_ldap, trusted.tls))[number % 2]
        results.append(handler(uri, CROWD, f'(ou=unit{number:02})') == [
            (f'ou=unit{number:02},{CROWD}', {'objectClass': ['organizationalUnit'],
                                             'ou': [f'unit{number:02}']})])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [True] * 12


# TLS

def test_ldaps_and_starttls_give_what_the_clear_gives(trusted):
    plain = query_unprotected_ldap(trusted.plain, PEOPLE, user=USER, password=PASSWORD)
    for uri in (trusted.tls, trusted.tls.removeprefix('ldaps://'), trusted.plain):
        assert query_protected_ldap(uri, PEOPLE, user=USER, password=PASSWORD) == plain
    assert len(query_protected_ldap(trusted.tls, CROWD, scope='onelevel',
                                    filter='(ou=unit0*)')) == 10
    assert 'TLS established' in trusted.log


@pytest.mark.parametrize('uri', ['tls', 'plain'])
def test_a_certificate_of_an_authority_that_is_not_trusted_is_refused(directory, monkeypatch,
                                                                      uri):
    monkeypatch.setenv(CA_VARIABLE, directory.other_ca_file)
    text = failure(query_protected_ldap, getattr(directory, uri), PEOPLE, user=USER,
                   password=PASSWORD)
    assert 'certificate is not trusted' in text and getattr(directory, uri) in text
    monkeypatch.delenv(CA_VARIABLE)
    text = failure(query_protected_ldap, getattr(directory, uri), PEOPLE)
    assert 'certificate is not trusted' in text


@pytest.mark.parametrize('uri', ['tls', 'plain'])
def test_a_certificate_for_another_host_is_refused(trusted, uri):
    place = getattr(trusted, uri).replace(HOST, 'localhost')
    text = failure(query_protected_ldap, place, PEOPLE, user=USER, password=PASSWORD)
    assert "certificate is not trusted" in text and "not valid for 'localhost'" in text


def test_no_setting_of_libldap_makes_it_trust_more(directory, monkeypatch):
    monkeypatch.setenv(CA_VARIABLE, directory.other_ca_file)
    monkeypatch.setenv('LDAPTLS_REQCERT', 'never')
    monkeypatch.setenv('LDAPTLS_CACERT', directory.ca_file)
    assert 'not trusted' in failure(query_protected_ldap, directory.tls, PEOPLE)


@pytest.mark.parametrize('content', [None, '', 'no certificate'])
def test_a_file_of_authorities_that_is_none_is_an_error(directory, tmp_path, monkeypatch,
                                                        content):
    path = tmp_path / 'ca.pem'
    if content is not None:
        path.write_text(content, 'ascii')
    monkeypatch.setenv(CA_VARIABLE, str(path))
    assert str(path) in failure(query_protected_ldap, directory.tls, PEOPLE)


def test_a_server_without_tls_is_never_asked_in_the_clear(trusted):
    with server(tls=False) as poor:
        text = failure(query_protected_ldap, poor.plain, PEOPLE, user=USER, password=PASSWORD)
        assert 'does not offer StartTLS' in text
        text = failure(query_protected_ldap, poor.plain.replace('ldap:', 'ldaps:'), PEOPLE,
                       user=USER, password=PASSWORD, error=LdapError)
        assert 'TLS' in text
        assert 'BIND' not in poor.log and 'SRCH' not in poor.log


STARTTLS_OK = b'\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00'


@needs_the_library
@pytest.mark.parametrize('answer, words', [
    (b'HTTP/1.1 400 no\r\n\r\n', 'does not speak LDAP'),
    (b'\x30\x84\x7f\xff\xff\xff', 'does not speak LDAP'),
    (b'\x30\x03\x02\x01\x01', 'does not speak LDAP'),
    (b'\x30\x00', 'does not speak LDAP'),
    # RFC 4511, 4.1.1: a notice of disconnection, for one, has another number and another tag.
    (b'\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00', 'does not speak LDAP'),
    (b'\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x34\x04\x00\x04\x00', 'code is 52'),
])
def test_what_is_no_consent_to_starttls_is_refused(answer, words):
    with listener(lambda connection: connection.sendall(answer)) as place:
        assert words in failure(query_protected_ldap, f'ldap://{place}', BASE, timeout=SOON)


def test_what_follows_the_consent_to_starttls_in_the_clear_is_not_believed(trusted):
    bind_ok = b'\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00'
    with listener(lambda connection: connection.sendall(STARTTLS_OK + bind_ok)) as place:
        assert 'no TLS came about' in failure(
            query_protected_ldap, f'ldap://{place}', BASE, timeout=SOON)


# what goes wrong

def test_a_wrong_password_and_an_unknown_user_read_alike(directory):
    for user, password in ((USER, 'wrong'), (f'uid=none,{PEOPLE}', PASSWORD)):
        text = failure(query_unprotected_ldap, directory.plain, BASE, user=user,
                       password=password)
        assert 'does not accept user and password' in text and user in text


@pytest.mark.parametrize('args, kwargs, words', [
    (('dc=nowhere',), {}, "no entry 'dc=nowhere'"),
    (('nonsense',), {}, "'nonsense' is no distinguished name"),
    ((BASE,), {'user': 'zoe', 'password': PASSWORD}, "'zoe' is no distinguished name"),
    ((f'ou=elsewhere,{BASE}',), {}, 'referrals are not followed'),
])
def test_what_the_server_does_not_like_is_told_in_a_sentence(directory, args, kwargs, words):
    assert words in failure(query_unprotected_ldap, directory.plain, *args, **kwargs)


def test_more_entries_than_the_limit_are_an_error_and_not_a_part_of_them(directory):
    text = failure(query_unprotected_ldap, directory.plain, CROWD, size_limit=7)
    assert 'stopped at 7 entries (size_limit is 7' in text
    assert len(query_unprotected_ldap(directory.plain, CROWD, '(ou=unit0*)', size_limit=10)) == 10


def test_the_limit_of_the_server_is_an_error_too(directory):
    text = failure(query_unprotected_ldap, directory.plain, CROWD)
    assert f'stopped at {slapd.SERVER_LIMIT} entries' in text


@needs_the_library
def test_a_server_that_is_not_there_is_away():
    for handler in HANDLERS.values():
        text = failure(handler, f'{HOST}:{free_port()}', BASE, error=ServerAway)
        assert 'Connection refused' in text
        text = failure(handler, 'no-such-host.invalid', BASE, error=ServerAway)
        assert 'no-such-host.invalid' in text
        assert 'no name of a host' in failure(handler, 'two..dots', BASE, error=ServerAway)


@needs_the_library
@pytest.mark.parametrize('plugin, scheme', [
    ('unprotected_ldap', 'ldap'), ('protected_ldap', 'ldaps'), ('protected_ldap', 'ldap')])
def test_a_server_that_says_nothing_is_given_up_in_time(plugin, scheme):
    with listener() as place:
        before = time.monotonic()
        text = failure(HANDLERS[plugin], f'{scheme}://{place}', BASE, user=USER,
                       password=PASSWORD, timeout=SHORT, error=ServerAway)
        assert 'within 0.5 s' in text
        assert SHORT <= time.monotonic() - before < SOON


def test_a_server_that_falls_silent_after_its_consent_to_starttls_is_given_up_in_time(trusted):
    with listener(lambda connection: connection.sendall(STARTTLS_OK)) as place:
        text = failure(query_protected_ldap, f'ldap://{place}', BASE, timeout=SHORT,
                       error=ServerAway)
    assert 'within 0.5 s' in text


@needs_the_library
def test_a_server_that_hangs_up_is_away():
    def hang_up(connection):
        connection.recv(1000)
        connection.close()

    with listener(hang_up) as place:
        text = failure(query_unprotected_ldap, place, BASE, timeout=SOON, error=ServerAway)
        assert 'closed the connection' in text
        text = failure(query_protected_ldap, f'ldap://{place}', BASE, timeout=SOON,
                       error=ServerAway)
        assert 'closed the connection' in text


@needs_the_library
def test_a_server_that_talks_without_end_is_cut_off():
    entry = b'\x30\x84\x00\x10\x00\x00' + b'\0' * 0x100000

    def talk(connection):
        connection.recv(1000)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(entry)

    with listener(talk) as place:
        text = failure(query_unprotected_ldap, place, BASE, timeout=SOON, error=ServerAway)
    assert 'LDAP server' in text


def test_no_thread_and_no_descriptor_is_left(trusted):
    def descriptors():
        return len(list(Path('/proc/self/fd').iterdir()))

    query_protected_ldap(trusted.tls, PEOPLE)
    before = descriptors()
    for _ in range(5):
        query_protected_ldap(trusted.plain, PEOPLE)
        failure(query_protected_ldap, trusted.tls.replace(HOST, 'localhost'), PEOPLE)
        failure(query_unprotected_ldap, trusted.plain, 'dc=nowhere')
    assert descriptors() == before
    assert not [thread for thread in threading.enumerate() if thread.name == 'zasync-tunnel']


def test_the_server_saw_no_password_in_the_clear_and_the_log_has_none(trusted):
    query_protected_ldap(trusted.tls, PEOPLE, user=USER, password=PASSWORD)
    assert PASSWORD not in trusted.log


def test_without_the_library_the_error_names_the_extra():
    program = ('import sys\n'
               'sys.modules["ldap"] = None\n'
               'from zasync_client.plugins import HANDLERS\n'
               'for handler in HANDLERS.values():\n'
               '    try:\n'
               '        handler("localhost", "dc=org")\n'
               '    except Exception as error:\n'
               '        print(error)\n')
    done = subprocess.run([sys.executable, '-W', 'error', '-c', program], capture_output=True,
                          text=True, env=our_environment(), timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pip install 'zasync[ldap]'") == 2


def test_the_library_gives_no_warning():
    pytest.importorskip('ldap', reason='python-ldap is not installed')
    done = subprocess.run([sys.executable, '-W', 'error', '-c', 'import ldap'],
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, '')


# through a worker

def start_worker(site, directory=None, **environment):
    """A worker that trusts the authority of the directory, by its configuration."""
    conf = site.stack.make_instance() / 'etc' / 'zope.conf'
    if directory is not None:
        conf.write_text(conf.read_text('utf-8').replace(
            '</environment>', f'{CA_VARIABLE} {directory.ca_file}\n</environment>'), 'utf-8')
    return site.stack.start(
        'zam1', [sys.executable, '-m', 'zasync_client', '-C', worker_conf(site)],
        env={**our_environment(), **environment},
        is_ready=lambda process: ' serves /zam1 ' in process.output(),
        ready_seconds=WORKER_READY_SECONDS)


def worker_conf(site):
    path = site.stack.instance / 'etc' / 'zam1.conf'
    path.write_text('%include zope.conf\ntarget /zam1\n', 'utf-8')
    return path


def test_a_worker_asks_a_directory_as_its_configuration_says(site, directory):
    site.become('boss')
    # Put before any worker was there: the door knows the plugins.
    plain = site.put('unprotected_ldap', directory.plain, PEOPLE, '(uid=*)')
    start_worker(site, directory)
    with configured({DIRECTIVE: site.stack.instance / 'etc' / 'secret.key'}):
        secret = site.put('protected_ldap', directory.tls, USER, attributes=['mail'], user=USER,
                          password=PASSWORD)
    assert isinstance(payload.loads(secret._arguments)[1]['password'], Sealed)
    both = site.put('aggregate', [
        ('protected_ldap', (directory.plain, PEOPLE), {'scope': 'base', 'attributes': ['ou']}),
        ('echo', (5,)), ('protected_ldap', (f'localhost:{directory.tls_port}', BASE))])
    site.ended(plain, secret, both)
    assert plain.result == query_unprotected_ldap(directory.plain, PEOPLE, '(uid=*)')
    assert secret.result == [(USER, {'mail': ['zoe@example.org', 'z@example.org']})]
    found, echoed, refused = both.result
    assert (found, echoed) == ([(PEOPLE, {'ou': ['people']})], 5)
    assert "not valid for 'localhost'" in refused.text


def test_no_account_of_a_failed_query_has_the_password(site, directory):
    site.become('boss')
    worker = start_worker(site, directory)
    password = f'not {PASSWORD}'
    calls = [site.put(plugin, uri, BASE, user=USER, password=password)
             for plugin, uri in (('unprotected_ldap', directory.plain),
                                 ('protected_ldap', directory.tls),
                                 ('protected_ldap', f'localhost:{directory.tls_port}'),
                                 ('unprotected_ldap', f'{HOST}:1'))]
    site.ended(*calls)
    accounts = [f'{call.failure} {call.failure.traceback_text}' for call in calls]
    for account in (*accounts, worker.output()):
        assert PASSWORD not in account and repr(PASSWORD)[1:-1] not in account
    assert 'does not accept user and password' in accounts[0]
    assert calls[3].failure.type_name == 'zasync_client.plugins.ldap.ServerAway'


def test_a_sealed_password_that_can_not_be_opened_fails_the_query(directory, tmp_path):
    with secret_key(tmp_path / 'secret.key') as made:
        _args, kwargs = BUILTIN['unprotected_ldap'].check(
            (directory.plain, USER), {'user': USER, 'password': PASSWORD})
        found = query_unprotected_ldap(directory.plain, USER, **kwargs)
        assert found[0][1]['mail'] == ['zoe@example.org', 'z@example.org']
        made.replace()
        text = failure(query_unprotected_ldap, directory.plain, USER, **kwargs)
    assert 'is sealed, and this worker can not open it: none of the keys in ' in text


def test_a_worker_without_the_library_starts_and_its_calls_say_what_to_install(site, tmp_path):
    (tmp_path / 'ldap.py').write_text('raise ImportError("there is none here")\n', 'ascii')
    site.become('boss')
    path = our_environment()['PYTHONPATH']
    start_worker(site, PYTHONPATH=f'{tmp_path}{os.pathsep}{path}')
    call, echo = site.put('protected_ldap', 'localhost', BASE), site.put('echo', 'hello')
    site.ended(call, echo)
    assert echo.result == 'hello'
    assert "pip install 'zasync[ldap]'" in call.failure.text


def test_a_wrong_query_is_refused_when_it_is_put(site):
    site.become('boss')
    with pytest.raises(BadCall, match='ends before a closing parenthesis'):
        site.put('protected_ldap', 'localhost', BASE, '(&(cn=a)')
    transaction.abort()
    assert site.app.zam1.lenNewCalls() == 0
