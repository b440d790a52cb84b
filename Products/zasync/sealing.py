"""Sealing passwords: the database has them as tokens that only the secret key opens.

The keys are in a file that the configuration of Zope and of each worker names:

    <product-config zasync-secrets>
      secret-key-file $INSTANCE/etc/secret.key
    </product-config>

One key a line: the first seals, all of them open, which is how a key is replaced. The file is
read again when it has changed, so nobody need be restarted for that.

Imports: sealed, errors; cryptography, App.config.
"""

import logging
import os
import re
import stat

from App.config import getConfiguration
from cryptography.fernet import Fernet
from cryptography.fernet import InvalidToken

from .errors import BadKeyFile
from .errors import NoSecretKey
from .errors import WrongSecretKey
from .sealed import Sealed


#: Passwords and keys are plain here: see zasync_client.tracebacks.
__hide_values__ = True

log = logging.getLogger('zasync')

#: The section of the configuration, and what it says. Not <product-config zasync>: the names of
#: sections are unique in a file, and <logger zasync> is common.
SECTION, DIRECTIVE = 'zasync-secrets', 'secret-key-file'

#: 32 bytes in base64. Python's decoder would overlook what does not belong there.
_KEY = re.compile(rb'[A-Za-z0-9_-]{43}=')

#: A file larger than that is none of ours. Bytes.
LARGEST_BYTES = 100_000

#: {path: (what the file looked like, [Fernet])} of the files that were read.
_KNOWN = {}


def seal(password):
    """The Sealed of a text. Raises NoSecretKey, BadKeyFile."""
    return Sealed(_required()[1][0].encrypt(password.encode('utf-8', 'surrogatepass')))


def opened(sealed):
    """The text in a Sealed. Raises NoSecretKey, BadKeyFile, WrongSecretKey."""
    path, secrets = _required()
    for secret in secrets:
        try:
            password = secret.decrypt(sealed.token)
        except InvalidToken:
            continue
        return password.decode('utf-8', 'surrogatepass')
    raise WrongSecretKey(f'none of the keys in {path} opens it')


def is_newest(sealed):
    """Whether the first key of the file opens it. Raises NoSecretKey, BadKeyFile."""
    try:
        _required()[1][0].decrypt(sealed.token)
    except InvalidToken:
        return False
    return True


def is_configured():
    """Whether the configuration names a file of secret keys; a bad one counts."""
    try:
        return key_path() is not None
    except BadKeyFile:
        return True


def key_path(configuration=None):
    """The path of the file of secret keys that Zope's configuration names, or None.

    configuration -- of which Zope; this process's if none is given.
    Raises BadKeyFile if the section can't be understood.
    """
    if configuration is None:
        configuration = getConfiguration()
    section = (getattr(configuration, 'product_config', None) or {}).get(SECTION)
    if section is None:
        return None
    given = section if isinstance(section, dict) else {}
    path, unknown = given.get(DIRECTIVE), sorted(set(given) - {DIRECTIVE})
    if not path or unknown:
        said = f"says {', '.join(unknown)}" if unknown else f'has no {DIRECTIVE}'
        raise BadKeyFile(f'<product-config {SECTION}> {said}: what it takes is {DIRECTIVE}, the '
                         'path of the file of secret keys, and nothing else')
    return os.path.join(getattr(configuration, 'instancehome', ''), path)


def read(path):
    """The keys in a file as it is now, the newest first. Raises BadKeyFile."""
    try:
        with open(path, 'rb') as file:
            secret_lines = file.read(LARGEST_BYTES + 1).splitlines()
    except FileNotFoundError:
        raise BadKeyFile(f'there is no file of secret keys {path}: restore it; the first one is '
                         'made by "zasync_client key"') from None
    except OSError as reason:
        raise BadKeyFile(f'the file of secret keys {path} can not be read: '
                         f'{reason.strerror}') from None
    secrets = []
    for number, secret_line in enumerate(secret_lines, 1):
        secret_line = secret_line.strip()
        if not secret_line or secret_line.startswith(b'#'):
            continue
        if not _KEY.fullmatch(secret_line):
            raise BadKeyFile(f'line {number} of the file of secret keys {path} is no key: one is '
                             '44 letters, digits, - and _, as "zasync_client key" makes them')
        secrets.append(Fernet(secret_line))
    if not secrets:
        raise BadKeyFile(f'the file of secret keys {path} holds no key')
    return secrets


def remark(path):
    """What is to be said of who may read a file of secret keys; '' if that is as it should be."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return ''
    if mode & 0o027:
        return (f'the file of secret keys {path} has the mode {mode:04o}: let its owner read it, '
                'a group at most read it too, and nobody else')
    return ''


def report():
    """Say in the log what is wrong with the file of secret keys, if one is configured."""
    try:
        _current()
    except BadKeyFile as reason:
        log.error('stored passwords can be neither read nor stored: %s', reason)


def _required():
    """(path, [Fernet]); raises NoSecretKey, BadKeyFile."""
    found = _current()
    if found is None:
        raise NoSecretKey(f'no secret key is configured: <product-config {SECTION}> in zope.conf '
                          'names its file, "zasync_client key" makes one')
    return found


def _current():
    """(path, [Fernet]) of the configured file, or None. Raises BadKeyFile."""
    path = key_path()
    if path is None:
        return None
    try:
        found = os.stat(path)
        look = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode
    except OSError:
        look = None
    known = _KNOWN.get(path)
    if known is None or look is None or known[0] != look:
        known = _KNOWN[path] = look, read(path)
        if remark(path):
            log.warning('%s', remark(path))
    return path, known[1]
