"""One Zope in the process of the tests: started once, with a fresh database for each test.

Zope can be started only once in a process, so whoever needs it inside the test process asks here.
"""

import functools
import itertools
import tempfile
from pathlib import Path

import transaction
import webtest
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from Testing.makerequest import makerequest
from ZODB.DB import DB
from ZODB.DemoStorage import DemoStorage
from ZPublisher.httpexceptions import HTTPExceptionHandler


_numbers = itertools.count(1)

CONF = """
instancehome {place}
<zodb_db main>
  mount-point /
  <mappingstorage>
  </mappingstorage>
</zodb_db>
"""


@functools.cache
def started():
    """Start Zope with all products there are; → (its WSGI application, its database)."""
    import Zope2
    from Zope2.Startup.run import make_wsgi_app
    place = Path(tempfile.mkdtemp(prefix='zasync-tests-'))
    for name in ('etc', 'var', 'log'):
        (place / name).mkdir()
    conf = place / 'etc' / 'zope.conf'
    conf.write_text(CONF.format(place=place), 'utf-8')
    wsgi = make_wsgi_app({}, str(conf))
    return wsgi, Zope2.DB


class Site:
    """A Zope for one test: its database, one connection to it, and a browser.

    The test's connection and the publisher's share the thread's transaction manager, so
    commit before a request and begin after it; a Browser does both.
    storage -- of another Site, whose users and objects are here as well; else it is new.
    """

    def __init__(self, storage=None):
        import Zope2
        self.wsgi, base = started()
        self.db = DB(DemoStorage(base=storage or base.storage, close_base_on_close=False),
                     database_name=f'test{next(_numbers)}', class_factory=base.classFactory)
        self._wrapper = Zope2.bobo_application
        self._old = self._wrapper._db
        self._wrapper._db = self.db
        transaction.abort()
        self.connection = self.db.open()
        self.app = makerequest(self.connection.root()['Application'])
        self.app.REQUEST['PARENTS'] = [self.app]
        if storage is None:
            self._found()

    def _found(self):
        self.add_user('admin', 'Manager')
        self.add_user('bob', 'Member')
        self.add_user('eve', 'Member')
        self.app._addRole('Member')
        transaction.commit()

    def close(self):
        """Give Zope its own database back."""
        noSecurityManager()
        transaction.abort()
        self._wrapper._db = self._old
        self.app.REQUEST.close()
        self.connection.close()
        self.db.close()

    def add_user(self, name, *roles, folder=None):
        """A user whose password is its name, in the user folder of that folder (the root's)."""
        users = (self.app if folder is None else folder).acl_users
        users.userFolderAddUser(name, name, list(roles), [])

    def user(self, name, folder=None):
        """The user, wrapped in its folder."""
        users = (self.app if folder is None else folder).acl_users
        return users.getUserById(name).__of__(users)

    def login(self, name, folder=None):
        """Let this thread act as that user."""
        newSecurityManager(None, self.user(name, folder))

    def logout(self):
        """Let this thread act as nobody."""
        noSecurityManager()

    def browser(self, name=None):
        """A browser, logged in as that user."""
        browser = Browser(HTTPExceptionHandler(self.wsgi))
        if name is not None:
            browser.authorization = ('Basic', (name, name))
        return browser


class Browser(webtest.TestApp):
    """A browser; what the test did is committed before each request, and it sees what that did.

    Errors are answers here, whatever their status.
    """

    def do_request(self, req, status=None, expect_errors=None):
        transaction.commit()
        try:
            return super().do_request(req, status or '*', True)
        finally:
            transaction.begin()
