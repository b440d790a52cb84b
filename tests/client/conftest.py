"""A ZEO server, an application with managers, and real workers, for the tests of the worker."""

import sys
import time

import pytest
import transaction
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.users import system
from persistent.mapping import PersistentMapping
from transaction.interfaces import TransientError

from bench.clients import open_database
from bench.stack import Stack
from tests.client.commands import Operator


#: Longest time a test waits for anything, in seconds.
LIMIT = 30.0


class Site:
    """An application in a real ZEO server, seen through a connection of the test's own."""

    def __init__(self, stack):
        self.stack = stack
        self.address = stack.start_zeo()
        self.db, self.connection, self.root = open_database(self.address)
        from OFS.Application import Application

        from Products.zasync.manager import AsynchronousCallManager
        if 'Application' not in self.root:
            self.root['Application'] = Application()
        self.app = self.root['Application']
        self.root['marks'] = PersistentMapping()
        for id in ('zam1', 'zam2'):
            self.app._setObject(id, AsynchronousCallManager(id))
        users = self.app.acl_users if hasattr(self.app, 'acl_users') else None
        if users is None:
            from AccessControl.userfolder import UserFolder
            self.app._setObject('acl_users', UserFolder())
            users = self.app.acl_users
        users._doAddUser('boss', 'secret', ['Manager'], [])
        users._doAddUser('bob', 'secret', [], [])
        transaction.commit()

    def become(self, user_id):
        """Put calls as that user from now on; None for nobody."""
        if user_id is None:
            noSecurityManager()
        else:
            users = self.app.acl_users
            newSecurityManager(None, users.getUserById(user_id).__of__(users))

    def put(self, plugin, /, *args, manager='zam1', **kwargs):
        """Put a call and commit; → its deferred."""
        transaction.begin()
        deferred = self.app[manager].putCall(plugin, *args, **kwargs)
        transaction.commit()
        return deferred

    def put_with(self, options, plugin, *args, manager='zam1'):
        """The same with Options, given as a mapping."""
        from Products.zasync.options import Options
        transaction.begin()
        deferred = self.app[manager].putCallWith(Options(**options), plugin, *args)
        transaction.commit()
        return deferred

    def wait(self, condition, limit=LIMIT, what='the condition'):
        """Wait until condition(), asked in a fresh snapshot each time, is true."""
        until = time.monotonic() + limit
        while True:
            transaction.begin()
            found = condition()
            if found:
                return found
            if time.monotonic() > until:
                raise AssertionError(f'{what} did not come about in {limit} s')
            time.sleep(0.01)

    def ended(self, *deferreds, limit=LIMIT):
        """Wait until these calls ended."""
        self.wait(lambda: all(deferred.ended for deferred in deferreds), limit,
                  f'the end of {deferreds}')

    def start_worker(self, manager='zam1', name=None, threads=2):
        """A real worker process."""
        return self.stack.start_worker(name or manager, '/' + manager, threads=threads)

    def second_worker(self, target):
        """A worker process, of another configuration, of which nobody expects that it comes up."""
        etc = self.stack.instance / 'etc'
        config = etc / f'second{target[1:]}.conf'
        config.write_text((etc / f'{target[1:]}.conf').read_text('utf-8'), 'utf-8')
        argv = [sys.executable, '-m', 'zasync_client', '-C', config]
        return self.stack.start('second' + target[1:], argv, is_ready=lambda process: True)

    def change(self, action):
        """Commit what action() does, again if it met a conflict."""
        def done():
            try:
                action()
                transaction.commit()
            except TransientError:
                transaction.abort()
                return False
            return True

        self.wait(done, what='a commit without a conflict')

    def restart_server(self):
        """Restart the ZEO server, and wait until this connection has noticed."""
        self.stack.zeo.stop()
        self.stack.zeo.start()
        # A new oid a round: a server counts them on from the highest stored, so those
        # this client still holds ready may be taken (see zasync.wakeup).
        del self.db.storage._oids[:]
        self.change(lambda: self.root['marks'].update(reached=True))

    def close(self):
        """Leave."""
        noSecurityManager()
        transaction.abort()
        self.connection.close()
        self.db.close()


@pytest.fixture
def site():
    """A Site; all its processes end with the test."""
    with Stack() as stack:
        site = Site(stack)
        try:
            yield site
        finally:
            site.close()


@pytest.fixture
def operator(site):
    """An Operator in the instance of the site."""
    operator = Operator(site.stack)
    try:
        yield operator
    finally:
        operator.clean()


@pytest.fixture
def gate(tmp_path):
    """A file that lets a waiting call go on when it is made."""
    return str(tmp_path / 'gate')


@pytest.fixture
def fate():
    """A Fate; its calls are put as the system user, who may do all."""
    from tests.client.fate import Fate
    newSecurityManager(None, system)
    bench = Fate()
    try:
        yield bench
    finally:
        bench.close()
        noSecurityManager()


@pytest.fixture
def farm():
    """A Farm; its workers end with the test."""
    from tests.client.farm import Farm
    made = Farm()
    yield made
    made.close()


@pytest.fixture(params=[False, True], ids=['claimed', 'reserved'])
def group(request):
    """A Group, of which calls are claimed as any, or reserved."""
    from tests.client.grouping import Group
    newSecurityManager(None, system)
    made = Group(request.param)
    try:
        yield made
    finally:
        made.close()
        noSecurityManager()
