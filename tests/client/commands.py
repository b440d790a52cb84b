"""The commands of zasync_client as an operator gives them: real processes, real files."""

import json
import os
import signal
import subprocess
import sys

from bench.processes import wait_until
from bench.stack import our_environment
from zasync_client import pidfile


CONF = '''\
%include zope.conf
target {target}
threads 2
drain-seconds {drain}
initial-retry-delay 0.2
{more}
'''


class Operator:
    """Somebody in front of the instance of a Stack, with one zasync.conf.

    home -- the instance. conf, pid_path -- of the worker. Its worker ends with the test.
    """

    def __init__(self, stack):
        self.home = stack.make_instance()
        self.conf = self.home / 'etc' / 'zasync.conf'
        self.pid_path = self.home / 'var' / 'zasync.pid'
        self.configure()

    def configure(self, target='/zam1', drain=5, more=''):
        """Write zasync.conf."""
        self.conf.write_text(CONF.format(target=target, drain=drain, more=more), 'utf-8')

    def use_file_storage(self):
        """Have zope.conf say that the database is a file, as mkwsgiinstance does; → its path."""
        path = self.home / 'var' / 'Data.fs'
        (self.home / 'etc' / 'zope.conf').write_text(
            f'%define INSTANCE {self.home}\ninstancehome $INSTANCE\n<zodb_db main>\n'
            f'mount-point /\n<filestorage>\npath {path}\n</filestorage>\n</zodb_db>\n', 'utf-8')
        return path

    def use_client_cache(self, address):
        """Have zope.conf say that the ZEO client keeps its cache in a file; → its path."""
        (self.home / 'etc' / 'zope.conf').write_text(
            f'%define INSTANCE {self.home}\ninstancehome $INSTANCE\n<zodb_db main>\n'
            f'mount-point /\n<zeoclient>\nserver {address[0]}:{address[1]}\nclient zope\n'
            f'var $INSTANCE/var\n</zeoclient>\n</zodb_db>\n', 'utf-8')
        return self.home / 'var' / 'zope-1.zec'

    def argv(self, *words):
        """The command line."""
        return [sys.executable, '-m', 'zasync_client', '-C', str(self.conf), *map(str, words)]

    def begin(self, *words):
        """A command that has not ended; its output in pipes."""
        return subprocess.Popen(self.argv(*words), stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.PIPE, env=our_environment(), cwd=self.home)

    def does(self, *words):
        """(exit code, standard output, standard error) of a command."""
        done = subprocess.run(self.argv(*words), capture_output=True, text=True, timeout=100,
                              env=our_environment(), cwd=self.home)
        assert 'Traceback' not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def gets(self, *words):
        """Standard output of a command that has to succeed."""
        code, output, errors = self.does(*words)
        assert (code, errors) == (0, ''), (code, output, errors)
        return output

    def json(self, *words):
        """The same, from JSON."""
        return json.loads(self.gets(*words, '--json'))

    def refused(self, *words):
        """(exit code, the sentence) of a command that has to fail."""
        code, output, errors = self.does(*words)
        assert code != 0 and output == '', (code, output, errors)
        assert errors.startswith('zasync_client: '), errors
        return code, errors.strip().removeprefix('zasync_client: ')

    def pid(self):
        """Process id of the worker that holds the PID file, or None."""
        found = pidfile.holder(str(self.pid_path))
        return None if found is None else found.pid

    def clean(self):
        """Kill the worker, if one runs."""
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda: self.pid() is None, 10)
