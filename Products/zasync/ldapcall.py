"""What the LDAP plugins take: the shape of a query, checked where it is put. Pure.

No LDAP library is needed here: the process that puts a call may have none.

Imports: sealed, errors.
"""

import math
import re
from dataclasses import dataclass
from dataclasses import field

from .errors import BadCall
from .errors import told
from .sealed import Sealed


#: Scope of a query: the entry itself, the entries right below it, or all of the tree.
SCOPES = ('base', 'onelevel', 'subtree')

#: Entries that a query may find, unless it says otherwise.
SIZE_LIMIT = 1_000

#: Seconds that a query may take, from the connection to the last entry, unless it says otherwise.
TIMEOUT = 30.0

#: Longest filter or name, in characters: the largest request that is sent in one go.
TEXT_MOST = 10_000

#: Most attributes that are named.
ATTRIBUTES_MOST = 200

PLAIN, TLS = 'ldap', 'ldaps'
PORTS = {PLAIN: 389, TLS: 636}

#: [scheme://] host or [IPv6 address] [:port] [/]
_SERVER = re.compile(r'(?:([A-Za-z]+)://)?([\w.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?',
                     re.ASCII)

# RFC 4512, 2.5: a name or an object identifier, with options; and what stands for several.
_ATTRIBUTE = r'(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)(?:;[A-Za-z0-9-]+)*'
_WANTED = re.compile(rf'{_ATTRIBUTE}|[*+]|1\.1')

# RFC 4515, 3: what may follow an opening parenthesis. White space between the parts is allowed
# besides, since people break long filters into lines.
_VALUE = r'(?:[^()\\\0]|\\[0-9A-Fa-f]{2})*'
_RULE = rf'(?:{_ATTRIBUTE})?(?::dn)?(?::{_ATTRIBUTE})?:='
_ITEM = re.compile(rf'(?:{_ATTRIBUTE}(?:=|~=|>=|<=)|{_RULE}){_VALUE}\)')
_OPERATOR = re.compile(r'[&|!]')
_SPACE = re.compile(r'\s*')


@dataclass(frozen=True)
class Query:
    """A checked query.

    server -- a URI with its port: ldap://host:389 or ldaps://host:636. base -- name of the entry
    it starts at. attributes -- tuple of their names, or None for all. size_limit -- entries.
    timeout -- seconds. password -- a text, or a Sealed; it does not show.
    """

    server: str
    base: str
    filter: str = '(objectClass=*)'
    scope: str = 'subtree'
    attributes: tuple | None = None
    user: str | None = None
    password: str | Sealed | None = field(default=None, repr=False)
    size_limit: int = SIZE_LIMIT
    timeout: float = TIMEOUT

    @property
    def scheme(self):
        """'ldap' or 'ldaps'."""
        return self.server.partition('://')[0]

    @property
    def address(self):
        """(host, port)"""
        host, _, port = self.server.partition('://')[2].rpartition(':')
        return host.strip('[]'), int(port)


def check_unprotected(args, kwargs):
    """Arguments of unprotected_ldap → the same, normalised, or BadCall."""
    return _normalised(unprotected(args, kwargs))


def check_protected(args, kwargs):
    """Arguments of protected_ldap → the same, normalised, or BadCall."""
    return _normalised(protected(args, kwargs))


def unprotected(args, kwargs):
    """The Query of these arguments of unprotected_ldap; raises BadCall."""
    return _query('unprotected_ldap', PLAIN, {PLAIN}, args, kwargs)


def protected(args, kwargs):
    """The Query of these arguments of protected_ldap; raises BadCall.

    In its server ldaps:// is TLS from the first byte, ldap:// is StartTLS.
    """
    return _query('protected_ldap', TLS, {PLAIN, TLS}, args, kwargs)


def _normalised(query):
    values = dict(vars(query))
    return (values.pop('server'), values.pop('base')), values


def _query(plugin, scheme, schemes, args, kwargs):
    try:
        query = Query(*args, **kwargs)
    except TypeError as reason:
        wrong = str(reason).replace('Query.__init__() ', '')
        raise BadCall(f'{plugin} takes {", ".join(Query.__dataclass_fields__)}: {wrong}') from None
    _check_texts(query)
    _check_login(query)
    _check_limits(query)
    if query.scope not in SCOPES:
        raise BadCall(f'the scope is one of {", ".join(SCOPES)}, not {told(query.scope)}')
    check_filter(query.filter)
    return Query(**{**vars(query), 'server': _server(plugin, query.server, scheme, schemes),
                    'attributes': _attributes(query.attributes)})


def _check_texts(query):
    for name in ('server', 'base', 'filter', 'scope'):
        _check_text(name, getattr(query, name))


def _check_text(name, value):
    if not isinstance(value, str):
        raise BadCall(f'the {name} is a text, not {told(value, 100)}')
    if len(value) > TEXT_MOST:
        raise BadCall(f'the {name} has {len(value):,} characters; the limit is {TEXT_MOST:,}')
    if '\0' in value:
        raise BadCall(f'there is a NUL in the {name}; write it as \\00')


def _check_login(query):
    if query.user is None and query.password is None:
        return
    if not isinstance(query.password, Sealed):
        _check_password(query.password)
    if query.user is None:
        raise BadCall('a password needs a user, the distinguished name of who asks')
    _check_text('user', query.user)
    if not query.user:
        raise BadCall('the user is empty: leave user and password away to ask as nobody')


def _check_password(password):
    if not isinstance(password, str) or not password:
        # With a name and no password a server lets anybody in, as nobody (RFC 4513, 5.1.2).
        raise BadCall('a user needs a password, a text that is not empty; '
                      'leave both away to ask as nobody')
    if len(password) > TEXT_MOST or '\0' in password:
        raise BadCall('the password is too long, or there is a NUL in it')


def _check_limits(query):
    if isinstance(query.size_limit, bool) or not isinstance(query.size_limit, int) \
            or not 1 <= query.size_limit < 2 ** 31:
        raise BadCall('size_limit is a number of entries, 1 or more, not '
                      + _shown(query.size_limit))
    if isinstance(query.timeout, bool) or not isinstance(query.timeout, (int, float)) \
            or not 0 < query.timeout < math.inf:
        raise BadCall(f'timeout is a number of seconds, more than 0, not {_shown(query.timeout)}')


def _shown(value):
    """A number; of anything else only its type: it may be a password in the wrong place."""
    return repr(value) if isinstance(value, (int, float)) else f'a {type(value).__name__}'


def _server(plugin, text, scheme, schemes):
    if '@' in text:
        raise BadCall('no user and no password stand in the server: give them apart')
    match = _SERVER.fullmatch(text)
    if match is None:
        raise BadCall('the server is a host, host:port, ldap://host or ldaps://host, '
                      f'not {told(text, 200)}')
    given, host, port = match[1], match[2], match[3]
    scheme = given.lower() if given else scheme
    if scheme not in PORTS:
        raise BadCall(f'the server {told(text)} is asked by ldap:// or ldaps://, not by {given}://')
    if scheme not in schemes:
        raise BadCall(f'{plugin} does not ask {told(text)}: use protected_ldap for ldaps://')
    number = int(port) if port else PORTS[scheme]
    if not 1 <= number <= 65535:
        raise BadCall(f'the port of {told(text)} is a number from 1 to 65535')
    return f'{scheme}://{host}:{number}'


def _attributes(names):
    if names is None:
        return None
    if not isinstance(names, (list, tuple)) or not names:
        raise BadCall(f'attributes are a list of names, or None for all, not {told(names, 100)}')
    if len(names) > ATTRIBUTES_MOST:
        raise BadCall(f'there are {len(names):,} attributes; the limit is {ATTRIBUTES_MOST}')
    for name in names:
        if not isinstance(name, str) or not _WANTED.fullmatch(name):
            raise BadCall(f'{told(name, 100)} is no name of an attribute')
    return tuple(names)


def check_filter(text):
    """Raise BadCall with a sentence if `text` is no filter of RFC 4515."""
    position, open_operators = _skip(text, 0), []
    while True:
        if not text.startswith('(', position):
            raise _bad_filter(text, position, 'an opening parenthesis is missing'
                              if position < len(text) else 'it ends before a closing parenthesis')
        position = _skip(text, position + 1)
        if _OPERATOR.match(text, position):
            open_operators.append(text[position])
            position = _skip(text, position + 1)
        else:
            match = _ITEM.match(text, position)
            if match is None:
                raise _bad_filter(text, position, 'there is no (attribute=value) here; '
                                  'parentheses, * and \\ in values are \\28, \\29, \\2a and \\5c')
            position = _skip(text, match.end())
            if open_operators and open_operators[-1] == '!':
                position = _close(text, position, open_operators)
        while open_operators and text.startswith(')', position):
            if open_operators[-1] == '!':
                raise _bad_filter(text, position, 'a ! needs something to deny')
            position = _close(text, position, open_operators)
        if not open_operators:
            break
    if position != len(text):
        raise _bad_filter(text, position, 'the filter goes on after its end')


def _close(text, position, open_operators):
    """Past the closing parenthesis of an operator, and of each ! that this completes."""
    while True:
        if not text.startswith(')', position):
            raise _bad_filter(text, position, 'a closing parenthesis is missing')
        open_operators.pop()
        position = _skip(text, position + 1)
        if not open_operators or open_operators[-1] != '!':
            return position


def _skip(text, position):
    return _SPACE.match(text, position).end()


def _bad_filter(text, position, why):
    return BadCall(f'the filter {told(text, 200)} is wrong at character {position + 1}: {why}')
