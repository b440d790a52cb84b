"""key: making the file of secret keys that seal stored passwords, and replacing the key.

Imports: config, errors, zasync.sealing.
"""

import contextlib
import os
import shutil
import tempfile

from cryptography.fernet import Fernet

from Products.zasync import sealing
from Products.zasync.errors import BadKeyFile

from . import config as configuration
from .errors import ConfigurationError
from .errors import NotSo
from .errors import WrongUse


_HEAD = b'''\
# Secret keys of zasync, one a line: the first one seals passwords, all of them open them.
# Keep a copy, but not beside the copies of the database.
'''

_SECTION = f'''\
<product-config {sealing.SECTION}>
  {sealing.DIRECTIVE} %s
</product-config>'''


def key(config_path, path, rotate):
    """Make a file with a new key, or put a new key before the others of a file; → exit code.

    config_path -- of the zasync.conf, asked only if there is no `path`. path -- of the file.
    """
    configured = path is None
    path = os.path.realpath(_configured(config_path) if configured else path)
    if os.path.isdir(path):
        raise WrongUse(f'{path} is a directory: name the file, like '
                       f'{os.path.join(path, "secret.key")}')
    if rotate:
        _rotate(path)
        print(f'{path} has a new key before the others. It seals from now on, in all processes '
              'that read this file.\n'
              'Next: copy the file to the other hosts; have the passwords sealed anew, on the '
              'page of each mail tool;\n'
              'take the old lines out when nothing is left that they sealed.')
        return 0
    _make(path)
    print(f'made {path}, for its owner to read and nobody else')
    if not configured:
        print('Next: put this into zope.conf, and into each zasync.conf that does not include '
              'it, and start them anew:\n')
        print(_SECTION % path)
    print('\nKeep a copy of the file. Without it no stored password can be read.')
    return 0


def _configured(config_path):
    """The path that the configuration names."""
    config = configuration.load(config_path, with_plugins=False)
    try:
        path = sealing.key_path(config.zope)
    except BadKeyFile as reason:
        raise ConfigurationError(f'{config_path}: {reason}') from None
    if path is None:
        instance = config.zope.instancehome
        raise WrongUse(f'{config_path} names no file of secret keys; say which one to make: '
                       f'zasync_client key {os.path.join(instance, "etc", "secret.key")}')
    return path


def _make(path):
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with _whole_or_gone(path), open(descriptor, 'wb') as file:
            _write(file, _HEAD, b'')
    except FileExistsError:
        raise NotSo(f'{path} is there already, and nothing was changed: the keys in it may be the '
                    'only ones that open stored passwords. To put a new key before them use '
                    '--rotate') from None
    except OSError as reason:
        raise NotSo(f'{path} can not be made: {reason.strerror}') from None


def _rotate(path):
    try:
        sealing.read(path)
        with open(path, 'rb') as file:
            secret_lines = file.read()
            found = os.fstat(file.fileno())
        # A file of its own that takes the place of the old one: nobody reads half of it.
        descriptor, fresh = tempfile.mkstemp(dir=os.path.dirname(path))
        with _whole_or_gone(fresh):
            with open(descriptor, 'wb') as file:
                _give(file.fileno(), found, path)
                # Its mode, and what else says who may read it, as access control lists.
                shutil.copystat(path, fresh)
                head, rest = _comments_and_rest(secret_lines)
                _write(file, head, rest)
            os.replace(fresh, path)
    except BadKeyFile as reason:
        raise NotSo(f'nothing was changed: {reason}') from None
    except OSError as reason:
        raise NotSo(f'{path} can not be replaced, and was not changed: '
                    f'{reason.strerror}') from None


@contextlib.contextmanager
def _whole_or_gone(path):
    """If the body fails, the file that it writes is taken away."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _give(descriptor, found, path):
    """Give a new file the owner and the group that stat() has `found`; raises NotSo.

    Else whoever reads it as a member of the group could not any more.
    """
    made = os.fstat(descriptor)
    if (made.st_uid, made.st_gid) == (found.st_uid, found.st_gid):
        return
    try:
        os.fchown(descriptor, found.st_uid, found.st_gid)
    except OSError as reason:
        raise NotSo(f'{path} was not changed: the new file can not be given the owner and the '
                    f'group of the old one ({reason.strerror}). Do it as root, or as its owner, '
                    f'the user {found.st_uid}, in the group {found.st_gid}') from None


def _comments_and_rest(secret_text):
    """(the comments that a file begins with, its other lines)"""
    secret_lines = secret_text.splitlines(keepends=True)
    for number, secret_line in enumerate(secret_lines):
        if secret_line.strip() and not secret_line.lstrip().startswith(b'#'):
            return b''.join(secret_lines[:number]), b''.join(secret_lines[number:])
    return secret_text, b''


def _write(file, head, rest):
    """Write a file with a new key before the `rest`, and have it on the disk."""
    file.write(head + Fernet.generate_key() + b'\n' + rest)
    file.flush()
    os.fsync(file.fileno())
