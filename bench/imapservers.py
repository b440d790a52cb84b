"""Real IMAP servers on free loopback ports: Dovecot, and one that pip installs.

    with best_server({'alice': 'secret'}) as server:
        deliver(server, 'alice', 'INBOX', b'Subject: hello\r\n\r\nhi\r\n')
        imapclient.IMAPClient(server.host, server.port, ssl=False)

Both keep mail in Maildirs, so `deliver` writes files and 2,000 messages take about a second.
A server keeps its port over stop() and start(), and everything it wrote is removed at the end of
the `with` block.

Imports: dovecotconf, processes.
"""

import base64
import hashlib
import importlib.util
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench.dovecotconf import dovecot_conf
from bench.dovecotconf import dovecot_program
from bench.dovecotconf import dovecot_version
from bench.dovecotconf import make_certificate
from bench.dovecotconf import server_user
from bench.processes import accepts
from bench.processes import free_port
from bench.processes import Process


#: A server that does not accept connections by then has failed. Seconds; 0.1 to 1 is usual.
READY_SECONDS = 20.0

#: Characters of a Maildir's file name for the flags a message can be delivered with.
FLAG_LETTERS = {r'\Draft': 'D', r'\Flagged': 'F', r'\Answered': 'R', r'\Seen': 'S',
                r'\Deleted': 'T'}

_serial = itertools.count(1)


class ServerMissing(Exception):
    """The server is not installed here."""


class ImapServer:
    """What the servers have in common.

    users -- login to password.
    host, port -- where it listens without TLS.
    tls_port, ca_file -- the port with TLS from the first byte and the certificate to trust, or
        None.
    """

    name = None
    separator = '/'

    def __init__(self, users):
        self.users = dict(users)
        if any(':' in text for item in self.users.items() for text in item):
            raise ValueError('a colon in a login or a password: it separates fields in the files')
        self.host = '127.0.0.1'
        self.port = free_port()
        self.tls_port = None
        self.ca_file = None
        self.base_dir = None
        self.process = None

    def __enter__(self):
        # Dovecot's sockets live below; a socket's path has at most 107 bytes.
        parent = tempfile.gettempdir()
        self.base_dir = Path(tempfile.mkdtemp(
            prefix='zi-', dir=parent if len(parent) < 40 else '/tmp'))
        try:
            self._set_up()
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc_info):
        self.stop()
        shutil.rmtree(self.base_dir, ignore_errors=True)

    @property
    def log_path(self):
        return self.base_dir / 'server.log'

    def start(self):
        """Start the server and wait until it accepts connections; -> self."""
        self.process.start()
        return self

    def is_ready(self, _process=None):
        """Whether it accepts connections."""
        return accepts(self.host, self.port)

    def stop(self):
        """Stop it and wait for its end; harmless when it does not run."""
        if self.process is not None:
            self.process.stop()

    def maildir(self, user):
        """The directory of a user's INBOX; the other folders are below."""
        raise NotImplementedError

    def folder_dir(self, user, folder):
        """The directory of a folder; its name has the server's separator."""
        if folder.upper() == 'INBOX':
            return self.maildir(user)
        parts = folder.split(self.separator)
        if any('.' in part or not part for part in parts):
            raise ValueError('a Maildir cannot hold a folder of that name: %r' % folder)
        return self.maildir(user) / ''.join('.' + self._on_disk(part) for part in parts)

    def own(self, path):
        """Let the server's own user have a file we made."""

    def _on_disk(self, part):
        return part

    def _set_up(self):
        raise NotImplementedError


class DovecotServer(ImapServer):
    """Dovecot 2.3 or 2.4, as root (its processes then run as nobody) or as any user.

    tls -- also listen with TLS, with a certificate made for the occasion.
    condstore -- false: a server that knows neither CONDSTORE nor QRESYNC.
    separator -- between the parts of a folder's name, '/' or '.'.
    """

    name = 'Dovecot'

    def __init__(self, users=None, tls=False, condstore=True, separator='/'):
        super().__init__(users or {'alice': 'secret'})
        self.separator = separator
        self.condstore = condstore
        self.program = dovecot_program()
        if self.program is None:
            raise ServerMissing('Dovecot is not installed (Debian: apt-get install dovecot-imapd)')
        self.version = dovecot_version(self.program)
        if tls:
            self.tls_port = free_port()
        self._account = server_user()
        if self._account is None:
            raise ServerMissing('Dovecot keeps no mail as root, and wants users and groups with '
                                'names: there is no user nobody here, or we have no name')

    def maildir(self, user):
        return self.base_dir / 'mail' / user / 'Maildir'

    def own(self, path):
        if os.geteuid() == 0:
            shutil.chown(path, *self._account)

    def _on_disk(self, part):
        return modified_utf7(part)

    def _set_up(self):
        base = self.base_dir
        base.chmod(0o755)
        for path in (base / 'mail', base / 'run'):
            path.mkdir()
            self.own(path)
        users = ''.join('%s:{PLAIN}%s::::::\n' % item for item in sorted(self.users.items()))
        (base / 'users').write_text(users, 'utf-8')
        if self.tls_port:
            self.ca_file = str(base / 'cert.pem')
            make_certificate(base / 'cert.pem', base / 'key.pem')
        self.own(base / 'users')
        config = base / 'dovecot.conf'
        config.write_text(dovecot_conf(self, *self._account), 'utf-8')
        # It is told to end by TERM even when we die: its master then ends the others.
        self.process = Process('Dovecot', [self.program, '-F', '-c', config], self.log_path,
                               is_ready=self.is_ready, ready_seconds=READY_SECONDS,
                               death_signal=signal.SIGTERM)


class PyPIServer(ImapServer):
    """pymap with its Maildir backend: nothing but pip is needed; no TLS, no CONDSTORE.

    It serves all connections with one Python process, which a few hundred messages keep busy for
    a second; and it answers BODY[HEADER.FIELDS (A B)] with the names in another order than asked.
    """

    name = 'pymap'

    def __init__(self, users=None):
        super().__init__(users or {'alice': 'secret'})
        if importlib.util.find_spec('pymap') is None:
            raise ServerMissing('pymap is not installed (pip install pymap)')

    def maildir(self, user):
        return self.base_dir / 'mail' / user

    def _set_up(self):
        mail = self.base_dir / 'mail'
        mail.mkdir()
        passwd, shadow = [], []
        for user, password in sorted(self.users.items()):
            passwd.append('%s:x::::%s:\n' % (user, user))
            shadow.append('%s:%s:::::::\n' % (user, _pymap_hash(password)))
            _make_maildir(self, self.maildir(user), self.maildir(user))
        (mail / 'pymap-etc-passwd').write_text(''.join(passwd), 'utf-8')
        (mail / 'pymap-etc-shadow').write_text(''.join(shadow), 'utf-8')
        argv = [sys.executable, '-m', 'bench.pymapserver', '--host', self.host,
                '--port', self.port, '--no-tls', 'maildir', mail]
        # It writes its lists in TMPDIR and renames them, so that has to be on the same disk.
        self.process = Process('pymap', argv, self.log_path, cwd=Path(__file__).parents[1],
                               is_ready=self.is_ready, ready_seconds=READY_SECONDS,
                               env=dict(os.environ, TMPDIR=str(self.base_dir)))


def best_server(users):
    """Dovecot where it is installed and can run, else the one from PyPI.

    ZASYNC_IMAP=dovecot or ZASYNC_IMAP=pypi in the environment forces one.
    """
    wanted = os.environ.get('ZASYNC_IMAP', '').lower()
    if wanted not in ('', 'dovecot', 'pypi'):
        raise ValueError("ZASYNC_IMAP is %r; it can be 'dovecot' or 'pypi'" % wanted)
    if wanted == 'dovecot' or (not wanted and dovecot_program() and server_user()):
        return DovecotServer(users)
    return PyPIServer(users)


def deliver(server, user, folder, message, flags=(), date=None):
    """Put a message into a folder, which is made when it is not there.

    message -- bytes. flags -- IMAP system flags, like r'\\Seen'. date -- aware datetime, the
    internal date; None: now.
    """
    directory = server.folder_dir(user, folder)
    _make_maildir(server, directory, server.maildir(user))
    letters = ''.join(sorted(FLAG_LETTERS[flag] for flag in flags))
    wire_size = len(message) + len(re.findall(rb'(?<!\r)\n', message))
    # Dovecot numbers what it finds at once in the order of the times in the names.
    name = '%d.M%06dP%d.localhost,S=%d,W=%d' % (
        time.time(), next(_serial), os.getpid(), len(message), wire_size)
    draft = directory / 'tmp' / name
    draft.write_bytes(message)
    server.own(draft)
    if date is not None:
        os.utime(draft, (date.timestamp(), date.timestamp()))
    draft.rename(directory / 'cur' / ('%s:2,%s' % (name, letters)))


def modified_utf7(text):
    """A folder's name as IMAP and Dovecot's directories spell it (RFC 3501, 5.1.3)."""
    def encoded(match):
        data = base64.b64encode(match[0].encode('utf-16-be')).decode('ascii')
        return '&%s-' % data.rstrip('=').replace('/', ',')
    return re.sub('[^\x20-\x7e]+', encoded, text.replace('&', '&-'))


def _make_maildir(server, directory, inbox):
    """Make a folder's directories, and those above it, as far as they are missing."""
    if (directory / 'cur').is_dir():
        return
    if directory != inbox:
        _make_maildir(server, inbox, inbox)
    for path in (directory.parent, directory, directory / 'tmp', directory / 'new',
                 directory / 'cur'):
        if not path.is_dir():
            path.mkdir()
            server.own(path)
    if directory != inbox:
        (directory / 'maildirfolder').touch()
        server.own(directory / 'maildirfolder')


def _pymap_hash(password):
    """A password as pymap checks it: by passlib where that is installed, else by pysasl.

    Both read PBKDF2 in nearly the same spelling. Few rounds: a test logs in often.
    """
    rounds, salt = 100, b'loopback only'
    digest = hashlib.pbkdf2_hmac('sha256', password.encode('utf-8'), salt, rounds)
    text = [base64.b64encode(part).decode('ascii') for part in (salt, digest)]
    if importlib.util.find_spec('passlib') is not None:
        text = [part.rstrip('=').replace('+', '.') for part in text]
    return '$pbkdf2-sha256$%d$%s$%s' % (rounds, *text)
