"""A real Zope under waitress in a process of its own, for the page tests.

Imports: requests.
"""

import os
import shutil
import subprocess
import sys
import tempfile

import requests

from tests.secretkeys import SecretKey

from .servers import free_port
from .servers import STOP_SECONDS
from .servers import wait_until


_CONFIG = '''
instancehome {base}
<zodb_db main>
  <filestorage>
    path {base}/Data.fs
  </filestorage>
  mount-point /
</zodb_db>
<product-config zasync-secrets>
  secret-key-file {base}/secret.key
</product-config>
'''

_SERVE = '''
import sys
import waitress
from Zope2.Startup.run import make_wsgi_app
from ZPublisher.httpexceptions import HTTPExceptionHandler
waitress.serve(HTTPExceptionHandler(make_wsgi_app({}, sys.argv[1])), host='127.0.0.1',
               port=int(sys.argv[2]), threads=4)
'''

_TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class ZopeServer:
    """Zope with the users admin (Manager) and those added by `add_user`."""

    def __enter__(self):
        self.base = tempfile.mkdtemp(prefix='zzp', dir='/tmp')
        self.port = free_port()
        self.url = 'http://127.0.0.1:%d' % self.port
        os.mkdir(os.path.join(self.base, 'etc'))
        config = os.path.join(self.base, 'etc', 'zope.conf')
        with open(config, 'w', encoding='utf-8') as file:
            file.write(_CONFIG.format(base=self.base))
        self.secret_key = SecretKey(os.path.join(self.base, 'secret.key'))
        with open(os.path.join(self.base, 'inituser'), 'w', encoding='utf-8') as file:
            file.write('admin:admin\n')
        self.log = open(os.path.join(self.base, 'log'), 'w+b')
        self.process = subprocess.Popen(
            [sys.executable, '-c', _SERVE, config, str(self.port)], cwd=self.base,
            env={**os.environ, 'PYTHONPATH': _TOP, 'ZPUBLISHER_DEPRECATE_DOCSTRINGS': '1'},
            stdout=self.log, stderr=self.log)
        try:
            wait_until(self._answers, seconds=40, what='Zope')
        except BaseException:
            self.__exit__()
            raise
        return self

    def _answers(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise AssertionError(self.log.read().decode('utf-8', 'replace'))
        try:
            return requests.get(self.url + '/', timeout=5).status_code < 500
        except requests.ConnectionError:
            return False

    def __exit__(self, *exc_info):
        self.process.terminate()
        self.process.wait(STOP_SECONDS)
        self.log.close()
        shutil.rmtree(self.base, ignore_errors=True)

    def database_bytes(self):
        """How much was ever written to the database."""
        return os.path.getsize(os.path.join(self.base, 'Data.fs'))

    def browser(self, user=None):
        """A person at the server; anonymous without `user`."""
        return Browser(self.url, user)

    def add_user(self, name):
        answer = self.browser('admin').post('/acl_users/manage_users', {
            'submit': 'Add', 'name': name, 'password': name, 'confirm': name})
        assert answer.status_code == 200, answer.text


class Browser:
    """GET and POST by path, as a user whose password is the name."""

    def __init__(self, url, user):
        self.url = url
        self._session = requests.Session()
        if user is not None:
            self._session.auth = (user, user)

    def get(self, path, **query):
        return self._session.get(self._full(path), params=query, timeout=30)

    def post(self, path, data=None, follow=True):
        return self._session.post(self._full(path), data=data or {}, timeout=30,
                                  allow_redirects=follow)

    def _full(self, path):
        return path if path.startswith('http') else self.url + path
