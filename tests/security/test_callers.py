"""Whom a call runs as, and what of the caller's rights is left when it does.

Calls are put for real, the world changes, and a worker in this process runs them; or they run in
the request that puts them. What they try changes an object, so it is seen whether they could.
"""

import pytest
import transaction
from AccessControl import getSecurityManager
from AccessControl import SpecialUsers
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.users import UnrestrictedUser
from Products.PythonScripts.PythonScript import PythonScript
from zExceptions import Unauthorized

from Products.zasync.failure import Failure
from Products.zasync.testing import eager
from Products.zasync.testing import make_worker
from tests.security.town import ALICE
from tests.security.town import CAROL


#: What the calls try, on an object at `here` or below it; who may change its properties may.
DEED = 'python: here.manage_changeProperties(title="done")'
DEED_BELOW = 'python: here.board.manage_changeProperties(title="done")'
WHO = 'python: (user.getId() or user.getUserName(), user.getRoles())'

UNAUTHORIZED = 'Unauthorized'
GONE = 'CallerGone'


class Bench:
    """A town in which `ann`, an Editor, may change `/board` and put calls. So may other editors.
    """

    def __init__(self, town):
        self.town, self.app, self.zam = town, town.app, town.app.zam
        self.app._addRole('Editor')
        for name in ('ann', 'boss'):
            town.add_user(name, 'Editor')
        self.app.manage_addFolder('board')
        self.app.manage_permission('Make Asynchronous Application Calls',
                                   ['Manager', 'Authenticated', 'Anonymous'], 0)
        self.app.board.manage_permission('Manage properties', ['Manager', 'Editor'], 0)
        transaction.commit()

    def act_as(self, name, folder=None):
        """From now on this is that user's code; None for Anonymous."""
        if name is None:
            self.town.logout()
        else:
            self.town.login(name, folder)

    def run(self, seconds=0):
        """Have a worker run all there is, so many seconds later."""
        self.town.logout()
        transaction.commit()
        with make_worker(self.zam) as worker:
            worker.clock.advance(seconds + 1)
            worker.run_until_idle()

    def do(self, action, *args, **kwargs):
        """Change the world, as trusted code."""
        self.town.logout()
        action(*args, **kwargs)
        transaction.commit()

    @property
    def done(self):
        return self.app.board.title == 'done'

    def failures(self):
        """The last names of the classes of all failures there are, members' ones included."""
        found = []
        for deferred in self.zam.calls():
            if deferred.id in self.town.calls.values():
                continue
            results = deferred.result if isinstance(deferred.result, list) else []
            found += [each for each in [deferred.failure, *results] if isinstance(each, Failure)]
        return {each.type_name.rpartition('.')[2] for each in found}

    def script(self, text, parameters='', owner=None, proxy=None):
        """A Python script in the root, of that owner and with that proxy role."""
        made = PythonScript('putter')
        made.ZPythonScript_edit(parameters, text)
        self.app._setOb('putter', made)
        script = self.app.putter
        if owner is not None:
            script._owner = (['acl_users'], owner)
        if proxy is not None:
            script._proxy_roles = (proxy,)
        return script


@pytest.fixture
def bench(town):
    made = Bench(town)
    yield made
    town.logout()


# ways to have something called: put by whoever acts, so many seconds before it runs

def put_expression(bench):
    bench.zam.putCall('zope_exec', '/board', {}, DEED)


def put_method(bench):
    bench.zam.putCall('zope_call', bench.app.board.manage_changeProperties, title='done')


def put_member(bench):
    bench.zam.putCall('aggregate', [('echo', (1,)), ('zope_exec', ('/board', {}, DEED))])


def put_later(bench):
    bench.zam.putCall('schedule', 50, 'zope_exec', '/board', {}, DEED)


def save_periodic(bench):
    bench.zam.setPeriodicCall('p', '* * * * *', 'UTC', 'zope_exec', ('/board', {}, DEED))


def add_callback(bench):
    """To a call of bob's that is not committed."""
    user = getSecurityManager().getUser()
    bench.act_as('bob')
    deferred = bench.zam.putCall('echo', 1)
    newSecurityManager(None, user)
    deferred.addCallbacks(DEED_BELOW)


def add_follower(bench):
    """To a call of bob's that has ended."""
    user = getSecurityManager().getUser()
    bench.act_as('bob')
    deferred = bench.zam.putCall('echo', 1)
    bench.run()
    newSecurityManager(None, user)
    deferred.addCallbacks(DEED_BELOW)


def add_failure_callback(bench):
    """To a call of bob's that an administrator cancels."""
    user = getSecurityManager().getUser()
    bench.act_as('bob')
    deferred = bench.zam.putCall('echo', 1)
    newSecurityManager(None, user)
    deferred.addCallbacks(None, DEED_BELOW)
    transaction.commit()
    bench.act_as('admin')
    bench.zam.cancel(deferred.id)


WAYS = (put_expression, put_method, put_member, put_later, save_periodic, add_callback,
        add_follower, add_failure_callback)


# what may have become of the caller meanwhile: what is done, and how the call fails

def lose_the_role(bench):
    bench.app.acl_users.userFolderEditUser('ann', None, [], [])


def lose_the_local_role(bench):
    bench.app.board.manage_delLocalRoles(['ann'])


def lose_the_permission(bench):
    bench.app.board.manage_permission('Manage properties', ['Manager'], 0)


def be_deleted(bench):
    bench.app.acl_users.userFolderDelUsers(['ann'])


def be_deleted_and_another_made(bench):
    bench.app.acl_users.userFolderDelUsers(['ann'])
    bench.town.add_user('ann')


FALLS = {lose_the_role: UNAUTHORIZED, lose_the_local_role: UNAUTHORIZED,
         lose_the_permission: UNAUTHORIZED, be_deleted: GONE,
         be_deleted_and_another_made: UNAUTHORIZED}


@pytest.mark.parametrize('way', WAYS)
def test_who_has_the_right_when_it_runs_is_served(bench, way):
    bench.act_as('ann')
    way(bench)
    bench.run(70)
    assert bench.done
    assert bench.failures() <= {'Cancelled'}


@pytest.mark.parametrize('fall', FALLS)
@pytest.mark.parametrize('way', WAYS)
def test_a_right_that_is_lost_meanwhile_is_lost_to_the_call(bench, way, fall):
    if fall is lose_the_local_role:
        lose_the_role(bench)
        bench.app.board.manage_setLocalRoles('ann', ['Editor'])
    bench.act_as('ann')
    way(bench)
    bench.do(fall, bench)
    bench.run(70)
    assert not bench.done
    assert bench.failures() - {'Cancelled'} == {FALLS[fall]}


# with no more rights than the caller

@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name, folder', [(None, None), ('bob', None), (CAROL, 'sub'),
                                          ('ann', 'sub')])
def test_who_may_put_calls_and_not_what_they_do_gets_nothing_done(bench, way, name, folder):
    """Neither Anonymous, nor a Member, nor who is Manager, or has that name, in a subfolder."""
    if folder is not None:
        folder = bench.app.sub
        if name == 'ann':
            bench.town.add_user('ann', 'Manager', 'Editor', folder=folder)
    bench.act_as(name, folder)
    if way is put_method:
        with pytest.raises(Unauthorized):  # restricted code does not get hold of it
            bench.app.board.restrictedTraverse('manage_changeProperties')
        return
    way(bench)
    bench.run(70)
    assert not bench.done
    assert bench.failures() - {'Cancelled'} == {UNAUTHORIZED}


WAYS_TO_RUN = ('request', 'worker')


def outcome(bench, how, *args):
    """What became of a zope_exec that is put now; (result, failure)."""
    if how == 'request':
        # The dispatcher has no worker.
        deferred = bench.app.zad.putCall('zope_exec', *args)[1]
        assert deferred.ended
    else:
        deferred = bench.zam.putCall('zope_exec', *args)
        bench.run()
    return deferred.result, deferred.failure


@pytest.mark.parametrize('how', WAYS_TO_RUN)
@pytest.mark.parametrize('name, roles', [
    (None, ('Anonymous User', ('Anonymous',))), ('bob', ('bob', ('Member', 'Authenticated')))])
def test_a_call_runs_as_its_caller(bench, how, name, roles):
    bench.act_as(name)
    assert outcome(bench, how, '/', {}, WHO) == (roles, None)


@pytest.mark.parametrize('how', WAYS_TO_RUN)
def test_a_manager_of_a_subfolder_acts_there_and_nowhere_else(bench, how):
    bench.act_as(CAROL, bench.app.sub)
    result, failure = outcome(bench, how, '/sub', {}, 'python: here.manage_addFolder("made")')
    assert failure is None and 'made' in bench.app.sub.objectIds()
    for path, text in (('/', 'python: here.manage_addFolder("made")'), ('/board', DEED),
                       ('/', 'python: here.sub.board.manage_changeProperties(title="done")'),
                       ('/', 'python: here.zam.lenNewCalls()'),
                       ('/portal_webmail/box_alice', 'python: here.message_count()')):
        bench.act_as(CAROL, bench.app.sub)
        assert outcome(bench, how, path, {}, text)[1].type_name.endswith(UNAUTHORIZED), text
    assert not bench.done and 'made' not in bench.app.objectIds()


@pytest.mark.parametrize('how', WAYS_TO_RUN)
def test_namesakes_of_different_folders_have_nothing_of_each_other(bench, how):
    """Local roles are given to a name: the mailbox is that of alice of the root."""
    count = '/portal_webmail/box_alice', {}, 'python: here.message_count()'
    add = '/sub', {}, 'python: here.manage_addFolder("made")'
    bench.act_as(ALICE)
    assert outcome(bench, how, *count) == (1, None)
    bench.act_as(ALICE)
    assert outcome(bench, how, *add)[1].type_name.endswith(UNAUTHORIZED)
    bench.act_as(ALICE, bench.app.sub)
    assert outcome(bench, how, *count)[1].type_name.endswith(UNAUTHORIZED)
    bench.act_as(ALICE, bench.app.sub)
    assert outcome(bench, how, *add)[1] is None


def test_a_user_whose_folder_is_gone_is_not_its_namesake_above(bench):
    bench.town.add_user('admin', folder=bench.app.sub)
    bench.act_as('admin', bench.app.sub)
    put_expression(bench)
    bench.do(bench.app.sub._delObject, 'acl_users')
    bench.run()
    assert not bench.done and bench.failures() == {GONE}


#: A script that is called as a user folder is: its user may do anything.
MADE_UP_USER = """
class User:
    def allowed(self, value, roles=None):
        return 1
    def getId(self):
        return 'admin'
user = User()
setattr(User, '__of__', lambda self, parent: self)
return user
"""


@pytest.mark.parametrize('who', ['caller', 'owner'])
def test_a_folder_that_is_called_as_a_user_folder_is_none(bench, who):
    """Who may do all in a folder may delete its user folder, and add what they like by its name.
    """
    if who == 'caller':
        bench.act_as(CAROL, bench.app.sub)
        put_expression(bench)
    else:
        script = bench.script(f"container.zam.putCall('zope_exec', '/board', {{}}, {DEED!r})")
        script._owner = (['sub', 'acl_users'], CAROL)
        bench.act_as('admin')
        script()
    bench.do(bench.app.sub._delObject, 'acl_users')
    bench.app.sub.manage_addFolder('acl_users')
    made = PythonScript('getUserById')
    made.ZPythonScript_edit('id, default=None', MADE_UP_USER)
    bench.app.sub.acl_users._setObject('getUserById', made)
    assert bench.app.sub.acl_users.getUserById(CAROL).getId() == 'admin'
    bench.run()
    assert not bench.done and bench.failures() == {GONE}


@pytest.mark.parametrize('how', WAYS_TO_RUN)
def test_what_trusted_code_puts_as_system_runs_as_system(bench, how):
    newSecurityManager(None, SpecialUsers.system)
    assert outcome(bench, how, '/', {}, WHO)[0] == (
        'System Processes', ('manage', 'Authenticated'))
    newSecurityManager(None, SpecialUsers.system)
    assert outcome(bench, how, '/board', {}, DEED)[1] is None
    assert bench.done


def test_restricted_code_does_not_become_system(bench):
    bench.act_as('bob')
    for text in ('from AccessControl.SecurityManagement import newSecurityManager',
                 'from AccessControl.SpecialUsers import system',
                 'from AccessControl import SpecialUsers',
                 'from Products.zasync.call import Caller',
                 'from Products.zasync.security import restored'):
        with pytest.raises(Unauthorized):
            bench.script(text)()


@pytest.mark.parametrize('how', WAYS_TO_RUN)
def test_the_emergency_user_does_what_it_may_as_long_as_there_is_one(bench, how, monkeypatch):
    user = UnrestrictedUser('root', 'root', ('manage',), [])
    monkeypatch.setattr(SpecialUsers, 'emergency_user', user)
    newSecurityManager(None, user.__of__(bench.app.acl_users))
    assert outcome(bench, how, '/board', {}, DEED)[1] is None
    assert bench.done


def test_the_emergency_user_that_is_gone_runs_nothing(bench, monkeypatch):
    with monkeypatch.context() as for_now:
        user = UnrestrictedUser('root', 'root', ('manage',), [])
        for_now.setattr(SpecialUsers, 'emergency_user', user)
        newSecurityManager(None, user.__of__(bench.app.acl_users))
        put_expression(bench)
        bench.town.logout()
        transaction.commit()
    bench.run()
    assert not bench.done and bench.failures() == {GONE}


def test_who_may_not_put_calls_does_not_get_hold_of_putting_them(bench):
    bench.app.zam.manage_permission('Make Asynchronous Application Calls', ['Manager'], 0)
    for name, folder in ((None, None), ('ann', None), (CAROL, bench.app.sub)):
        bench.act_as(name, folder)
        for place in ('zam', 'zad/zam1'):
            bench.app.zad.manage_permission('Make Asynchronous Application Calls', ['Manager'], 0)
            with pytest.raises(Unauthorized):
                bench.app.restrictedTraverse(place).restrictedTraverse('putCall')


# an administrator's help

def test_an_administrator_who_retries_a_call_lends_it_nothing(bench):
    bench.act_as('bob')
    put_expression(bench)
    bench.run()
    assert bench.failures() == {UNAUTHORIZED}
    for press in (lambda: bench.zam.retry(), lambda: bench.town.browser('admin').post(
            '/zam/manage_retryAll')):
        bench.act_as('admin')
        press()
        assert bench.zam.lenNewCalls() > 0
        bench.run()
        assert not bench.done and UNAUTHORIZED in bench.failures()


def test_an_administrator_who_runs_or_moves_a_periodic_call_lends_it_nothing(bench):
    bench.act_as('bob')
    save_periodic(bench)
    bench.act_as('admin')
    bench.zam.runPeriodicCall('p')
    bench.zam.reschedulePeriodicCall('p', '*/2 * * * *', 'UTC', 'another title')
    bench.run(130)
    assert not bench.done and bench.failures() == {UNAUTHORIZED}
    kept = {'id': 'p', 'expression': '* * * * *', 'zone': 'UTC', 'kind': 'keep'}
    browser = bench.town.browser('admin')
    assert browser.post('/zam/manage_savePeriodicCall', kept).status_int == 302
    assert browser.post('/zam/manage_runPeriodicCall', {'id': 'p'}).status_int == 302
    bench.run(70)
    assert not bench.done


def test_a_manager_that_is_removed_moves_its_calls_with_their_callers(bench):
    dispatcher = bench.app.zad
    bench.act_as('bob')
    dispatcher.zam2.putCall('zope_exec', '/board', {}, DEED)
    bench.act_as('ann')
    dispatcher.zam2.putCall('zope_exec', '/board', {}, WHO)
    answer = bench.town.browser('admin').post(
        '/zad/manage_removeManager', {'id': 'zam2', 'how': 'move'})
    assert answer.status_int == 302
    bench.zam = dispatcher.zam1
    bench.run()
    assert not bench.done and bench.failures() == {UNAUTHORIZED}
    assert {call.result[0] for call in bench.zam.calls('resolved')} == {'ann'}


# scripts: their owners and their proxy roles

SCRIPTED = f"""
putting = container.zam.putCall
if way == 'call':
    putting('zope_exec', '/board', {{}}, {DEED!r})
elif way == 'member':
    putting('aggregate', [('zope_exec', ('/board', {{}}, {DEED!r}))])
elif way == 'callback':
    putting('echo', 1).addCallbacks({DEED_BELOW!r})
elif way == 'late callback':
    container.zam.getDeferred(id).addCallbacks({DEED_BELOW!r})
elif way == 'nested':
    putting('zope_exec', '/', {{}},
            'python: here.zam.putCall("zope_exec", "/board", {{}}, deed) and None',
            {{'deed': {DEED!r}}})
elif way == 'nested callback':
    putting('zope_exec', '/', {{}},
            'python: here.zam.putCall("echo", 1).addCallbacks(deed) and None',
            {{'deed': {DEED_BELOW!r}}})
elif way == 'callback that puts':
    putting('echo', 1).addCallbacks(
        'python: here.zam.putCall("zope_exec", "/board", {{}}, '
        '"python: here.manage_changeProperties(title=\\'done\\')") and None')
"""
SCRIPTS = ('call', 'member', 'callback', 'late callback', 'nested', 'nested callback',
           'callback that puts')


@pytest.fixture
def run_script(bench):
    """A function: user, way, owner and proxy role → that user has run such a script."""
    def run_script(name, way, owner=None, proxy=None, fall=None):
        bench.act_as(name)
        deferred = bench.zam.putCall('echo', 1)
        bench.run()
        script = bench.script(SCRIPTED, 'way, id', owner, proxy)
        bench.act_as(name)
        script(way, deferred.id)
        if fall is not None:
            bench.do(fall)
        bench.run()
    return run_script


@pytest.mark.parametrize('way', SCRIPTS)
def test_a_script_puts_calls_for_its_user(bench, run_script, way):
    run_script('ann', way, owner='boss')
    assert bench.done and bench.failures() == set()


@pytest.mark.parametrize('way', SCRIPTS)
def test_proxy_roles_of_a_script_do_not_travel(bench, run_script, way):
    run_script('bob', way, owner='admin', proxy='Manager')
    assert not bench.done and bench.failures() == {UNAUTHORIZED}


@pytest.mark.parametrize('way', SCRIPTS)
@pytest.mark.parametrize('name', ['admin', 'ann'])
def test_what_the_owner_of_a_script_may_not_do_its_calls_may_not_do(
        bench, run_script, way, name):
    run_script(name, way, owner='bob')
    assert not bench.done and bench.failures() == {UNAUTHORIZED}


@pytest.mark.parametrize('way', SCRIPTS)
@pytest.mark.parametrize('fall, failure', [('demoted', UNAUTHORIZED), ('deleted', GONE)])
def test_an_owner_who_has_lost_the_right_since_limits_the_call(
        bench, run_script, way, fall, failure):
    def demoted():
        bench.app.acl_users.userFolderEditUser('boss', None, [], [])

    def deleted():
        bench.app.acl_users.userFolderDelUsers(['boss'])

    run_script('admin', way, owner='boss', fall=locals()[fall])
    assert not bench.done and bench.failures() == {failure}


def test_a_script_of_a_weak_owner_that_runs_in_the_request_can_do_no_more(bench):
    script = bench.script(SCRIPTED, 'way, id=None', owner='bob')
    for way in set(SCRIPTS) - {'late callback'}:
        bench.act_as('admin')
        with eager():
            script(way)
        assert not bench.done, way
    assert bench.failures() == {UNAUTHORIZED}
