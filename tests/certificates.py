"""The certificates of docs/hosts.rst, made by its commands, and etc/hosts in place."""

import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
HOSTS = ROOT / 'etc' / 'hosts'

#: The line of the samples that names a place, and the address of the server in them.
DEFINE = '%define INSTANCE /srv/zope'
ADDRESS = 'zeo.example:8100'


def commands():
    """The shell commands that docs/hosts.rst gives for making certificates."""
    page = (ROOT / 'docs' / 'hosts.rst').read_text('utf-8')
    [block] = re.findall(r'^\.\. code-block:: sh\n\n((?:   .*\n|\n)+)', page, re.M)
    return textwrap.dedent(block)


def skip_without_openssl():
    """Have the test skipped where no certificate can be made."""
    if shutil.which('openssl') is None:
        pytest.skip('openssl is not installed (Debian: apt-get install openssl)')


def make(directory):
    """Make an authority and certificates in an empty directory; → the directory."""
    shutil.copy(HOSTS / 'ca' / 'ca.cnf', directory)
    done = subprocess.run(['sh', '-eu', '-c', commands()], cwd=directory, capture_output=True,
                          text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return directory


def place(instance, made, *names):
    """Put the certificates of these hosts, of all if none is named, into an instance."""
    tls = instance / 'etc' / 'tls'
    tls.mkdir(exist_ok=True)
    for path in made.iterdir():
        if path.stem in (names or ('ca', 'zeo', 'zope', 'workers')) and path.name != 'ca.key':
            shutil.copy(path, tls)


def place_samples(instance, made, address=ADDRESS):
    """Put all files of etc/hosts into the `etc` of an instance, and the certificates.

    Only the place of the instance is changed in them, and the address of the server.
    """
    for host in ('zeo', 'zope', 'workers'):
        for path in (HOSTS / host).iterdir():
            text = path.read_text('utf-8').replace(DEFINE, f'%define INSTANCE {instance}')
            (instance / 'etc' / path.name).write_text(text.replace(ADDRESS, address), 'utf-8')
    place(instance, made)
