"""The LDAP plugins: one query of one server, in a connection of its own.

They know nothing of Zope: arguments in, a list of entries out. The library is python-ldap, the
extra `ldap`; who connects and does the TLS is `tunnel`.

No text that leaves this module holds the password: not an error's, not a log's, not the repr of
a query. A sealed one is opened where it is sent.

Imports: tunnel, zasync.ldapcall, zasync.sealing.
"""

import contextlib
import os

from Products.zasync import ldapcall
from Products.zasync import sealing
from Products.zasync.errors import SealingError

from .tunnel import connect
from .tunnel import Deadline
from .tunnel import encrypt
from .tunnel import start_tls
from .tunnel import Trouble
from .tunnel import Tunnel


#: The server is told the password here: see zasync_client.tracebacks.
__hide_values__ = True

#: Environment variable: path of the certificates of those whose servers protected_ldap trusts.
CA_VARIABLE = 'ZASYNC_LDAP_CA_FILE'

#: Attributes whose values are never text, besides those with the option ;binary.
BINARY = frozenset(name.lower() for name in (
    'audio', 'jpegPhoto', 'photo', 'thumbnailLogo', 'thumbnailPhoto', 'javaSerializedData',
    'userCertificate', 'cACertificate', 'crossCertificatePair', 'certificateRevocationList',
    'authorityRevocationList', 'deltaRevocationList', 'userPKCS12', 'userSMIMECertificate',
    'objectGUID', 'objectSid', 'sIDHistory', 'mS-DS-ConsistencyGuid', 'nTSecurityDescriptor',
    'logonHours', 'krbPrincipalKey', 'krbExtraData'))


class LdapError(Exception):
    """The query has failed, and will again until it, or something at the server, is changed."""


class ServerAway(LdapError):
    """The server was not reached, or did not answer in time: the next try may succeed."""


def query_unprotected_ldap(*args, **kwargs):
    """Ask a server without encryption; see ldapcall.Query for the arguments.

    Returns [(name of the entry, {attribute: [values]})], ordered by name. Values are texts; bytes
    where an attribute is binary or one of its values is no UTF-8. Raises LdapError, BadCall.
    """
    return _ask(ldapcall.unprotected(args, kwargs), protected=False)


def query_protected_ldap(*args, **kwargs):
    """The same by TLS. The server proves who it is, or is not asked."""
    return _ask(ldapcall.protected(args, kwargs), protected=True)


def _ask(query, protected):
    library = _library()
    deadline = Deadline(query.timeout)
    try:
        outer = _connection(query, protected, deadline)
    except Trouble as reason:
        kind = ServerAway if reason.passing else LdapError
        raise kind(f'the LDAP server {query.server} was not asked: {reason}') from None
    except TimeoutError:
        raise ServerAway(f'the LDAP server {query.server} did not answer within '
                         f'{query.timeout:g} s') from None
    except OSError as reason:
        raise ServerAway(f'the LDAP server {query.server} is not reached: '
                         f'{reason.strerror or reason}') from None
    tunnel = Tunnel(outer, deadline)
    try:
        return _Conversation(library, query, tunnel, deadline).entries()
    finally:
        tunnel.close()


def _library():
    try:
        import ldap
    except ImportError as reason:
        raise LdapError('the LDAP plugins need python-ldap, which this worker can not import '
                        f"({reason}): install it with zasync's extra, pip install 'zasync[ldap]'"
                        ) from None
    return ldap


def _connection(query, protected, deadline):
    """A socket to the server. With `protected` it has TLS, or Trouble or OSError is raised."""
    plain = connect(query.address, deadline)
    try:
        if not protected:
            return plain
        if query.scheme == ldapcall.PLAIN:
            start_tls(plain, deadline)
        return encrypt(plain, query.address[0], os.environ.get(CA_VARIABLE) or None, deadline)
    except BaseException:
        plain.close()
        raise


class _Conversation:
    """Bind and search, over a tunnel, with python-ldap."""

    def __init__(self, library, query, tunnel, deadline):
        self._ldap = library
        self._query = query
        self._tunnel = tunnel
        self._deadline = deadline

    def entries(self):
        """What was found. Raises LdapError."""
        with self._open() as connection:
            if self._query.user is not None:
                self._bind(connection)
            return sorted(self._search(connection), key=lambda entry: entry[0])

    @contextlib.contextmanager
    def _open(self):
        # libldap gets one end of the tunnel, which is plain for it whatever the scheme is.
        try:
            connection = self._ldap.initialize('ldap://tunnel', fileno=self._tunnel.descriptor)
        except BaseException:
            os.close(self._tunnel.descriptor)
            raise
        try:
            connection.set_option(self._ldap.OPT_REFERRALS, 0)
            connection.set_option(self._ldap.OPT_RESTART, 1)
            yield connection
        finally:
            with contextlib.suppress(self._ldap.LDAPError):  # it may be closed already
                connection.unbind_ext_s()

    def _bind(self, connection):
        ldap, query = self._ldap, self._query
        password = self._password()
        with self._translated('let nobody in'):
            try:
                number = connection.simple_bind(query.user, password)
                connection.result3(number, timeout=self._deadline.remaining())
            except ldap.INVALID_CREDENTIALS:
                raise LdapError(f'the LDAP server {query.server} does not accept user and '
                                f'password: {query.user!r}') from None
            except (ldap.INVALID_DN_SYNTAX, ldap.NO_SUCH_OBJECT):
                raise LdapError(f'the user {query.user!r} is no distinguished name that '
                                f'{query.server} knows') from None

    def _password(self):
        password = self._query.password
        if isinstance(password, str):
            return password
        try:
            return sealing.opened(password)
        except SealingError as reason:
            raise LdapError(f'the password for the LDAP server {self._query.server} is sealed, '
                            f'and this worker can not open it: {reason}') from None

    def _search(self, connection):
        ldap, query = self._ldap, self._query
        scope = {'base': ldap.SCOPE_BASE, 'onelevel': ldap.SCOPE_ONELEVEL,
                 'subtree': ldap.SCOPE_SUBTREE}[query.scope]
        found = []
        with self._translated('did not answer the query'):
            try:
                number = connection.search_ext(
                    query.base, scope, query.filter,
                    None if query.attributes is None else list(query.attributes),
                    sizelimit=query.size_limit)
                kind = None
                while kind != ldap.RES_SEARCH_RESULT:
                    kind, data, _, _ = connection.result3(
                        number, all=0, timeout=self._deadline.remaining())
                    if kind == ldap.RES_SEARCH_ENTRY:
                        found += map(_entry, data)
                    if len(found) > query.size_limit:
                        raise ldap.SIZELIMIT_EXCEEDED
            except ldap.SIZELIMIT_EXCEEDED:
                raise LdapError(
                    f'more is found below {query.base!r} than may be: {query.server} stopped at '
                    f'{len(found):,} entries (size_limit is {query.size_limit:,}, and a server '
                    'has limits of its own); nothing is returned, narrow the filter') from None
            except ldap.NO_SUCH_OBJECT:
                raise LdapError(f'the LDAP server {query.server} has no entry {query.base!r}, '
                                'or does not show it to everybody') from None
            except ldap.INVALID_DN_SYNTAX:
                raise LdapError(f'the base {query.base!r} is no distinguished name') from None
            except ldap.FILTER_ERROR:
                raise LdapError(f'the filter {query.filter!r:.200} is not understood') from None
            except ldap.REFERRAL:
                raise LdapError(f'the LDAP server {query.server} sends whoever asks for '
                                f'{query.base!r} to another server; referrals are not followed'
                                ) from None
        return found

    @contextlib.contextmanager
    def _translated(self, what):
        """Turns what is left of python-ldap's errors into ours."""
        ldap, query = self._ldap, self._query
        try:
            yield
        except (ldap.TIMEOUT, ldap.TIMELIMIT_EXCEEDED, TimeoutError):
            raise ServerAway(self._too_late(what)) from None
        except (ldap.SERVER_DOWN, ldap.CONNECT_ERROR, ldap.UNAVAILABLE, ldap.BUSY) as error:
            with contextlib.suppress(TimeoutError):
                self._deadline.remaining()
                why = self._tunnel.trouble or _description(error)
                raise ServerAway(f'the LDAP server {query.server} {what}: {why}') from None
            raise ServerAway(self._too_late(what)) from None
        except ldap.LDAPError as error:
            raise LdapError(
                f'the LDAP server {query.server} {what}: {_description(error)}') from None
        except UnicodeDecodeError:
            raise LdapError(f'the LDAP server {query.server} {what}: it answered with a name '
                            'that is no UTF-8') from None

    def _too_late(self, what):
        return (f'the LDAP server {self._query.server} {what} within '
                f'{self._query.timeout:g} s')


def _description(error):
    """libldap's words for a result code. What the server said besides is left out: it has seen
    the password.
    """
    details = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return details.get('desc') or type(error).__name__


def _entry(answer):
    name, attributes = answer
    return name, {key: _values(key, attributes[key]) for key in sorted(attributes)}


def _values(attribute, values):
    kind, *options = attribute.lower().split(';')
    if kind in BINARY or 'binary' in options:
        return values
    try:
        return [value.decode('utf-8') for value in values]
    except UnicodeDecodeError:
        return values
