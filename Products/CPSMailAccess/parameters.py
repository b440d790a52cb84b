"""The parameters of a mailbox: names, types, defaults, and checking of what a form sent.

The tool holds a pair (value, flag) for each: 1 = the same for the whole portal, 0 = a default
that each mailbox may replace, -1 = set here and not even shown in mailboxes.

Imports: values.
"""

from dataclasses import dataclass

from .values import Account
from .values import TLS_IMAPS
from .values import TLS_NONE
from .values import TLS_STARTTLS


PORTAL_WIDE, PER_BOX, NOT_IN_BOXES = 1, 0, -1


@dataclass(frozen=True)
class Parameter:
    """kind -- 'text', 'secret', 'integer', 'seconds' or 'choice'."""

    name: str
    label: str
    kind: str
    default: object
    help: str = ''
    smallest: float = 0
    largest: float = 0
    choices: tuple = ()


PARAMETERS = (
    Parameter('connection_type', 'Connection type', 'choice', 'IMAP',
              choices=(('IMAP', 'IMAP'),)),
    Parameter('HOST', 'Mail server', 'text', 'localhost', 'Host name or address.'),
    Parameter('PORT', 'Port', 'integer', 143, '143, or 993 for TLS from the start.', 1, 65535),
    Parameter('SSL', 'Encryption', 'choice', TLS_NONE,
              choices=((TLS_NONE, 'none'), (TLS_IMAPS, 'TLS from the start (imaps)'),
                       (TLS_STARTTLS, 'STARTTLS'))),
    Parameter('CA_FILE', 'Trusted certificates', 'text', '',
              'File with the certificates to trust instead of those of the system.'),
    Parameter('CONNECT_SECONDS', 'Longest wait to connect', 'seconds', 10.0, 'Seconds.',
              0.1, 300),
    Parameter('READ_SECONDS', 'Longest wait for an answer', 'seconds', 30.0, 'Seconds.',
              0.1, 300),
    Parameter('login', 'Login', 'text', ''),
    Parameter('password', 'Password', 'secret', '',
              'Never shown again. Leave empty to keep the stored one.'),
)

BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}

#: Set per mailbox only: a login for everybody makes no sense.
OWN_NAMES = ('login', 'password')
TOOL_NAMES = tuple(name for name in BY_NAME if name not in OWN_NAMES)

#: Whose fault an ordinary user of a mailbox may not make: a file name of the server's disk
#: would tell which files exist.
DEFAULT_FLAGS = {'CA_FILE': NOT_IN_BOXES}


def default_pairs():
    """{name: (value, flag)} of a new tool."""
    return {name: (BY_NAME[name].default, DEFAULT_FLAGS.get(name, PER_BOX))
            for name in TOOL_NAMES}


def effective(pairs, own):
    """{name: value} of a mailbox with its `own` values in a tool with `pairs`."""
    values = {parameter.name: parameter.default for parameter in PARAMETERS}
    for name, (value, flag) in pairs.items():
        values[name] = value
        if flag == PER_BOX and name in own:
            values[name] = own[name]
    for name in BY_NAME:
        if name not in pairs and name in own:
            values[name] = own[name]
    return values


def settable_names(pairs):
    """Names a mailbox may set, in the order of the form."""
    return tuple(parameter.name for parameter in PARAMETERS
                 if pairs.get(parameter.name, (None, PER_BOX))[1] == PER_BOX)


#: Parameters that say to whom the password is given, and over what.
ADDRESSEE = ('HOST', 'PORT', 'SSL', 'CA_FILE', 'login')


def needs_password(stored, values):
    """Whether `values` would send the stored password elsewhere than so far. Who can only
    change settings must not learn it by naming a server of his own."""
    return bool(stored['password']) and not values.get('password') and any(
        name in values and values[name] != stored[name] for name in ADDRESSEE)


def account(values):
    """The Account in a mapping as `effective` gives it."""
    return Account(
        host=values['HOST'], port=values['PORT'], ssl=values['SSL'], login=values['login'],
        password=values['password'], ca_file=values['CA_FILE'],
        connect_seconds=values['CONNECT_SECONDS'], read_seconds=values['READ_SECONDS'])


def check(raw, names):
    """(values, {name: sentence}) of the texts in `raw`; only what was given and is good.

    Nothing is half done: the caller stores `values` only when there are no sentences.
    """
    values, problems = {}, {}
    for name in names:
        if name not in raw:
            continue
        try:
            values[name] = _checked(BY_NAME[name], raw[name])
        except ValueError as error:
            problems[name] = str(error)
    return values, problems


def _checked(parameter, value):
    # Of no class of whoever gave it, which may say that it equals what is stored.
    text = str.__str__(str(value))
    if parameter.kind != 'secret':
        text = text.strip()
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError('No control characters or line breaks here.')
    if any('\ud800' <= character <= '\udfff' for character in text):
        raise ValueError('This is no text in UTF-8.')
    if len(text) > 500:
        raise ValueError('At most 500 characters.')
    if parameter.kind in ('integer', 'seconds'):
        return _number(parameter, text)
    if parameter.kind == 'choice':
        for choice, _label in parameter.choices:
            if text == str(choice):
                return choice
        raise ValueError('Choose one of the list.')
    if parameter.name == 'HOST' and (not text or any(sign in text for sign in ' /@\\')):
        raise ValueError('A host name or address is needed, without spaces or slashes.')
    return text


def _number(parameter, text):
    kind, word = (int, 'whole number') if parameter.kind == 'integer' else (float, 'number')
    try:
        number = kind(text)
    except ValueError:
        raise ValueError('This must be a %s.' % word) from None
    if not parameter.smallest <= number <= parameter.largest:
        raise ValueError('From %g to %g.' % (parameter.smallest, parameter.largest))
    return number
