"""What a script has a pickle say of its own objects is neither called nor made.

A script may define classes, and set on them and their objects what pickle asks: by that it would
have functions that it can hold called, and attributes set on what they return, wherever the value
is made again: in the worker before it has become anybody, in the request of whoever reads it.
"""

import pytest
import transaction
from AccessControl import SpecialUsers
from Products.PythonScripts.PythonScript import PythonScript
from zope.globalrequest import clearRequest
from zope.globalrequest import setRequest

from Products.zasync.testing import make_worker
from tests.security.town import ALICE


#: A pickle that has the user of whoever reads it get a role, made of what every script can hold.
ROLES = """
from AccessControl import getSecurityManager

def says(reduced):
    class Own:
        pass
    own = Own()
    setattr({of}, {name!r}, {how})
    return own

manager = says((getSecurityManager, ()))
get_user = says((getattr, (manager, 'getUser')))
user = says((apply, (get_user, ()), (None, {{'roles': ('Manager',)}})))
{put}
"""

PUTS = ("container.zam.putCall('echo', user)", "container.zam.putCall('echo', x=[user])",
        "container.zam.putCall('aggregate', [('echo', (user,))])",
        "container.zam.putCall('zope_exec', '/', {}, 'nothing', {'x': user})",
        "container.zam.putCall('zope_exec', '/', {'x': user}, 'nothing')",
        "container.zam.putCall('schedule', 1, 'echo', user)")


#: What scripts put into the request, of which the call is to remember something.
REQUESTS = ("container.REQUEST.set('SERVER_URL', user)",
            "container.REQUEST.set('VirtualRootPhysicalPath', ('', user))",
            "container.REQUEST.environ['HTTP_ACCEPT_LANGUAGE'] = [user]")


@pytest.fixture
def run_script(town):
    """A function that runs a script of alice's, commits, and has a worker run what it has put.

    Nothing of that has given anybody a role.
    """
    app = town.app
    app.zam.manage_permission('Make Asynchronous Application Calls', ['Authenticated'], 0)
    before = vars(SpecialUsers.nobody).copy()

    def run(text):
        made = PythonScript('putter')
        made.write(text)
        app._setOb('putter', made)
        app.putter._owner = (['acl_users'], ALICE)
        town.login(ALICE)
        try:
            return app.putter()
        finally:
            town.logout()
            transaction.commit()
            app._p_jar.cacheMinimize()
            with make_worker(app.zam) as worker:
                worker.clock.advance(10)
                worker.run_until_idle()

    yield run
    after = vars(SpecialUsers.nobody).copy()
    SpecialUsers.nobody.__dict__.update(before)
    assert after == before, 'Anonymous has become somebody else in this process'
    assert town.user(ALICE).getRoles() == ('Authenticated',)


@pytest.mark.parametrize('put', PUTS)
@pytest.mark.parametrize('name, how', [('__reduce_ex__', 'lambda protocol: reduced'),
                                       ('__reduce__', 'lambda: reduced')])
def test_a_pickle_of_a_scripts_own_making_is_refused(run_script, put, name, how):
    with pytest.raises(ValueError):
        run_script(ROLES.format(of='own', name=name, how=how, put=put))


@pytest.mark.parametrize('change', REQUESTS)
def test_of_what_a_script_puts_into_its_request_a_call_keeps_nothing_but_texts(
        town, run_script, change):
    setRequest(town.app.REQUEST)
    try:
        deferred = run_script(ROLES.format(
            of='Own', name='__reduce__', how='lambda self: reduced',
            put=f"{change}\nreturn container.zam.putCall('echo', 1)"))
    finally:
        clearRequest()
    assert deferred.result == 1
    assert {type(each) for each in deferred.caller} == {str, tuple, type(None)}


#: What a script has a form say: a text that stays of its own class when it is made a text.
OWN_FORM = """
class Text(str):
    pass
setattr(Text, '__str__', lambda self: self)
setattr(Text, 'strip', lambda self: self)
setattr(Text, '__ne__', lambda self, other: False)
setattr(Text, '__reduce__', lambda self: (int, ('no number',)))
form = container.REQUEST.form
for name, value in {form}.items():
    form[name] = Text(value)
container.{action}(container.REQUEST, {more})
"""


def test_a_form_of_a_scripts_own_making_does_not_send_a_password_elsewhere(town, run_script):
    box = town.app.portal_webmail.box_alice
    before = box._account()
    run_script(OWN_FORM.format(form={'HOST': 'mail.example.org'}, more='',
                               action='portal_webmail.box_alice.manage_changeSettings'))
    assert box._account() == before
    run_script(OWN_FORM.format(form={'HOST': 'mail.example.org', 'password': 'another'}, more='',
                               action='portal_webmail.box_alice.manage_changeSettings'))
    assert box._account().host == 'mail.example.org' and box._account().password == 'another'


def test_of_a_form_of_a_scripts_own_making_a_periodic_call_keeps_nothing_but_texts(
        town, run_script):
    town.app.zam.manage_permission('View management screens', ['Authenticated'], 0)
    run_script(OWN_FORM.format(action='zam.manage_savePeriodicCall', more='1', form={
        'id': 'own', 'title': 'own', 'expression': '0 3 * * *', 'zone': 'UTC',
        'kind': 'zope_exec', 'path': '/', 'tales': 'nothing', 'series': 'own'}))
    assert town.app.zam.periodic['own'].title == 'own'
