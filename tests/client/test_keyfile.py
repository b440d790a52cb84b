"""The command `key`, and what `check` says of the file of secret keys."""

import contextlib
import os
import resource
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.stack import our_environment
from Products.zasync import sealing
from tests.secretkeys import configured
from zasync_client.cli import main


CONF = '''\
instancehome {home}
<zodb_db main>
  mount-point /
  <mappingstorage>
  </mappingstorage>
</zodb_db>
'''

SECTION = '''\
<product-config zasync-secrets>
  secret-key-file {home}/secret.key
</product-config>
'''


#: Numbers of a user and a group that the file is to be kept for.
OWNER, GROUP = 1500, 1602


class Shell:
    """Gives commands to a zasync.conf, in this process."""

    def __init__(self, home, capsys):
        self.home, self.conf, self._capsys = home, home / 'zasync.conf', capsys
        self.file = home / 'secret.key'
        self.configure()

    def configure(self, section=''):
        self.conf.write_text((CONF + section).format(home=self.home), 'utf-8')

    def does(self, *words):
        """(exit code, all that was printed)"""
        code = main(['-C', str(self.conf), *map(str, words)])
        return code, ''.join(self._capsys.readouterr())

    def opened(self, sealed):
        with configured({sealing.DIRECTIVE: str(self.file)}):
            return sealing.opened(sealed)

    def sealed(self, text):
        with configured({sealing.DIRECTIVE: str(self.file)}):
            return sealing.seal(text)


@pytest.fixture
def shell(tmp_path, capsys):
    return Shell(tmp_path, capsys)


@pytest.fixture
def shared(capsys):
    """A Shell in a directory that everybody may write."""
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o777)
        yield Shell(Path(home), capsys)


@contextlib.contextmanager
def as_user(user, *groups):
    """Meanwhile this process, which is root's, is of that user and those groups, all by number."""
    before = os.getgid(), os.getgroups()
    os.setgroups(groups)
    os.setegid(groups[0])
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[0])
        os.setgroups(before[1])


@contextlib.contextmanager
def full_disk():
    """Meanwhile this process can write into no file, as if there were no room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_key_makes_a_file_that_only_its_owner_reads_and_says_how_to_name_it(shell):
    code, text = shell.does('key', shell.file)
    assert code == 0 and SECTION.format(home=shell.home) in text
    assert mode(shell.file) == 0o600
    assert shell.opened(shell.sealed('hush')) == 'hush'
    (secret,) = [line for line in shell.file.read_text('ascii').splitlines()
                 if not line.startswith('#')]
    assert secret not in text


def test_key_makes_the_file_that_the_configuration_names(shell):
    code, text = shell.does('key')
    assert code == 2 and f'say which one to make: zasync_client key {shell.home}/etc/' in text
    shell.configure(SECTION + '<plugin gone>\n  handler no.such.thing\n</plugin>\n')
    code, text = shell.does('key')
    assert code == 0 and f'made {shell.file}' in text and '<product-config' not in text
    shell.configure(SECTION.replace('secret-key-file', 'secret-key'))
    code, text = shell.does('key')
    assert code == 2 and 'says secret-key' in text


def test_key_never_overwrites_a_file(shell):
    shell.does('key', shell.file)
    before = shell.file.read_bytes()
    code, text = shell.does('key', shell.file)
    assert code == 1 and 'is there already, and nothing was changed' in text
    assert shell.file.read_bytes() == before
    code, text = shell.does('key', shell.home)
    assert code == 2 and f'{shell.home} is a directory: name the file, like {shell.home}/' in text
    code, text = shell.does('key', '--rotate', shell.home)
    assert code == 2 and f'{shell.home} is a directory' in text
    code, text = shell.does('key', shell.home / 'nowhere' / 'key')
    assert code == 1 and 'can not be made: No such file or directory' in text


def test_on_a_full_disk_key_leaves_no_file_behind_and_rotate_the_old_one(shell):
    with full_disk():
        code, text = shell.does('key', shell.file)
    assert (code, text) == (1, f'zasync_client: {shell.file} can not be made: File too large\n')
    assert not shell.file.exists()
    assert shell.does('key', shell.file)[0] == 0
    before = shell.file.read_bytes()
    with full_disk():
        code, text = shell.does('key', '--rotate', shell.file)
    assert code == 1 and 'can not be replaced, and was not changed: File too large' in text
    assert shell.file.read_bytes() == before
    assert sorted(os.listdir(shell.home)) == ['secret.key', 'zasync.conf']


def test_a_command_that_nobody_reads_does_its_work(shell):
    """As `zasync_client key FILE >&-` in a script."""
    command = [sys.executable, '-m', 'zasync_client', 'key', str(shell.file)]
    done = subprocess.run(['sh', '-c', 'exec "$@" >&-', 'sh', *command], stderr=subprocess.PIPE,
                          env=our_environment(), timeout=60)
    assert (done.returncode, done.stderr) == (0, b'')
    assert shell.file.exists()


def test_rotate_puts_a_new_key_before_the_others_and_keeps_the_mode(shell):
    shell.does('key', shell.file)
    os.chmod(shell.file, 0o640)
    old = shell.sealed('hush')
    before = shell.file.read_text('ascii')
    code, text = shell.does('key', '--rotate', shell.file)
    assert code == 0 and 'has a new key before the others' in text
    assert mode(shell.file) == 0o640
    assert shell.opened(old) == 'hush'
    after = shell.file.read_text('ascii')
    assert len(after.splitlines()) == len(before.splitlines()) + 1
    assert after.endswith(before.splitlines(keepends=True)[-1])
    assert sorted(os.listdir(shell.home)) == ['secret.key', 'zasync.conf']


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be somebody else')
@pytest.mark.parametrize('user, groups, sentence', [
    (OWNER, (1501, GROUP), ''), (OWNER, (GROUP,), ''), (0, (0,), ''),
    (OWNER, (1501,), 'the new file can not be given the owner and the group of the old one'),
    (1600, (GROUP,), f'Do it as root, or as its owner, the user {OWNER}, in the group {GROUP}'),
])
def test_rotate_keeps_owner_group_and_mode_or_changes_nothing(shared, user, groups, sentence):
    shared.does('key', shared.file)
    os.chown(shared.file, OWNER, GROUP)
    os.chmod(shared.file, 0o640)
    before = shared.file.read_bytes()
    with as_user(user, *groups):
        code, text = shared.does('key', '--rotate', shared.file)
    assert (code, sentence in text) == (bool(sentence), True)
    assert (shared.file.read_bytes() == before) == code
    found = os.stat(shared.file)
    assert (found.st_uid, found.st_gid, mode(shared.file)) == (OWNER, GROUP, 0o640)
    assert sorted(os.listdir(shared.home)) == ['secret.key', 'zasync.conf']


def test_what_is_sealed_after_rotate_is_not_opened_by_the_old_key(shell):
    shell.does('key', shell.file)
    before = shell.file.read_text('ascii')
    shell.does('key', '--rotate', shell.file)
    sealed = shell.sealed('hush')
    assert shell.opened(sealed) == 'hush'
    shell.file.write_text(before, 'ascii')
    with pytest.raises(sealing.WrongSecretKey):
        shell.opened(sealed)


@pytest.mark.parametrize('text', [None, '', 'rubbish\n'])
def test_rotate_leaves_alone_what_is_no_key_file(shell, text):
    if text is not None:
        shell.file.write_text(text, 'ascii')
    code, said = shell.does('key', '--rotate', shell.file)
    assert code == 1 and 'nothing was changed: ' in said
    assert (shell.file.read_text('ascii') if shell.file.exists() else None) == text


@pytest.mark.parametrize('text, permissions, sentence', [
    (None, 0, 'error: there is no file of secret keys'),
    ('', 0o600, 'error: the file of secret keys {} holds no key'),
    ('rubbish', 0o600, 'error: line 1 of the file of secret keys {} is no key'),
    (True, 0o644, 'warning: the file of secret keys {} has the mode 0644'),
    (True, 0o600, ''),
])
def test_check_says_what_is_wrong_with_the_file(shell, text, permissions, sentence):
    shell.configure(SECTION)
    if text is True:
        shell.does('key')
    elif text is not None:
        shell.file.write_text(text, 'ascii')
    if text is not None:
        os.chmod(shell.file, permissions)
    # The database is empty, so it is 1 in any case: a worker starts without the file as well.
    code, said = shell.does('check')
    assert code == 1
    assert sentence.format(shell.file) in said
    assert ('secret keys' in said) == bool(sentence)
    assert 'rubbish' not in said


def test_check_says_that_the_section_is_wrong(shell):
    shell.configure(SECTION.replace('secret-key-file', 'file'))
    code, said = shell.does('check')
    assert code == 1 and 'error: <product-config zasync-secrets> says file' in said


def test_a_logger_may_be_called_zasync_beside_the_section(shell):
    shell.does('key', shell.file)
    shell.configure(SECTION + '<logger zasync>\n  level INFO\n  <logfile>\n    path STDOUT\n'
                              '  </logfile>\n</logger>\n')
    code, said = shell.does('check')
    assert code == 1 and 'unique' not in said and 'names' not in said
