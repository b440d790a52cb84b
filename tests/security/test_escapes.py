"""Restricted code tries to get out: in expressions, callbacks, scripts, and by what it hands on.

Each attempt is refused, at the door or when it runs, and what it was after has not happened.
"""

import os
import pickle
import sys

import pytest
import transaction
from Products.PythonScripts.PythonScript import PythonScript

from Products.zasync.callbacks import made
from Products.zasync.errors import BadCall
from Products.zasync.testing import eager
from tests.security.town import ALICE
from tests.security.town import Town


#: What an attempt makes if it succeeds.
TRACE = 'a-trace-of-an-escape'

#: How the engine and the policy refuse; nothing else counts.
UNAUTHORIZED, NOT_FOUND, NO_NAME = 'Unauthorized', 'NotFound', 'NameError'
NO_ATTRIBUTE, NOTHING_THERE, NO_WRITING = 'AttributeError', 'LookupError', 'TypeError'
NO_KEY, NOT_KEPT, DOOR = 'KeyError', 'BadResult', 'BadCall'

EXPRESSIONS = {
    # format strings
    "python: '{0.__class__}'.format(here)": UNAUTHORIZED,
    "python: '{0.queue}'.format(root.zam)": UNAUTHORIZED,
    "python: '{0.aq_base.queue.lanes}'.format(root.zam)": UNAUTHORIZED,
    "python: '{x.__class__.__mro__}'.format_map({'x': here})": UNAUTHORIZED,
    "python: '{x[__class__]}'.format_map({'x': here})": NO_KEY,
    "python: str.format('{0.__class__}', here)": UNAUTHORIZED,
    "python: getattr(str, 'format')('{0.__class__}', here)": UNAUTHORIZED,
    "python: getattr('{0.__class__}', 'format')(here)": UNAUTHORIZED,
    "python: getattr('{x.__class__}', 'format_map')({'x': here})": UNAUTHORIZED,
    "python: list(map(str.format_map, ['{x.__class__}'], [{'x': here}]))": UNAUTHORIZED,
    "python: modules['string'].Formatter().format('{0.__class__}', here)": UNAUTHORIZED,
    "python: modules['string'].Template('$x')": UNAUTHORIZED,
    'modules/string/Formatter': NOT_FOUND,
    "python: f'{root.zam.queue!r}'": UNAUTHORIZED,
    "python: f'{here.__class__}'": DOOR,
    "python: f'{here!r:{here.zam.queue}}'": UNAUTHORIZED,
    'string:${root/zam/queue}': UNAUTHORIZED,
    # classes
    "python: ''.__class__.__mro__": DOOR,
    "python: ().__class__.__bases__[0].__subclasses__()": DOOR,
    "python: getattr('', '__class__')": UNAUTHORIZED,
    "python: getattr('', '__cla' + 'ss__')": UNAUTHORIZED,
    "python: getattr(here, '__cla' 'ss__', None)": UNAUTHORIZED,
    "python: hasattr(here, '__class__') or here.zam.queue": UNAUTHORIZED,
    'here/__class__': NOT_FOUND, 'here/__class__/__mro__': NOT_FOUND,
    'here/zam/__dict__': NOT_FOUND,
    'python: type(here)': NO_NAME, 'python: object()': NO_NAME, 'python: super': NO_NAME,
    'python: vars(here)': NO_NAME, 'python: dir(here)': NO_NAME, 'python: globals()': NO_NAME,
    # frames
    'python: (i for i in [1]).gi_frame': DOOR, 'python: (i for i in [1]).gi_code': DOOR,
    "python: getattr((i for i in [1]), 'gi_frame')": UNAUTHORIZED,
    "python: getattr((i for i in [1]), 'gi_yieldfrom')": UNAUTHORIZED,
    "python: getattr((i for i in [1]), 'cr_frame')": NO_ATTRIBUTE,
    'python: (lambda: 1).__globals__': DOOR,
    "python: getattr(lambda: 1, '__globals__')": UNAUTHORIZED,
    "python: getattr(lambda: 1, 'func_globals')": NO_ATTRIBUTE,
    'python: here.tb_frame': DOOR, 'python: here.f_back': DOOR, 'python: here.f_globals': DOOR,
    'python: here.f_builtins': DOOR, 'python: [x async for x in here]': DOOR,
    'python: (await here)': DOOR, 'python: (yield here)': DOOR,
    # running other code
    "python: exec('1')": DOOR, "python: eval('1')": DOOR,
    "python: compile('1', '', 'eval')": NO_NAME,
    "python: open('/etc/passwd')": NO_NAME, "python: __import__('os')": DOOR,
    "python: getattr(modules, '__import__')('os')": UNAUTHORIZED,
    f"python: modules['os'].mkdir('{TRACE}')": UNAUTHORIZED, 'modules/os': UNAUTHORIZED,
    'modules/os/getcwd': UNAUTHORIZED, "python: modules['sys'].modules": UNAUTHORIZED,
    "python: modules['subprocess'].run": UNAUTHORIZED,
    "python: modules['Products.zasync'].defer": UNAUTHORIZED,
    "python: modules['Products.zasync.builtin'].Reference": UNAUTHORIZED,
    "python: modules['Products.zasync.security'].restored": UNAUTHORIZED,
    "python: modules['zasync_client'].run": UNAUTHORIZED,
    'load:/etc/passwd': DOOR, 'import:os': DOOR,
    'python: breakpoint()': DOOR, 'python: input()': NO_NAME,
    # names of the engine
    'python: _getattr_(here, "zam")': DOOR, 'python: _write_(here)': DOOR,
    'python: _getitem_': DOOR,
    'python: __builtins__': DOOR, 'python: econtext': NO_NAME, 'python: vars': NO_NAME,
    # what our objects are made of
    'python: root.zam.queue': UNAUTHORIZED, 'root/zam/queue/lanes': UNAUTHORIZED,
    'nocall: root/zam/queue': UNAUTHORIZED, "python: path('root/zam/queue')": UNAUTHORIZED,
    "python: root.restrictedTraverse('zam/queue')": UNAUTHORIZED,
    "python: root.unrestrictedTraverse('zam/queue')": UNAUTHORIZED,
    "python: request['PARENTS'][0].zam.queue": UNAUTHORIZED,
    "python: request.traverse('zam/queue')": NOT_FOUND,
    'python: root.zam.aq_base': UNAUTHORIZED, 'python: root.zam.aq_self': UNAUTHORIZED,
    'root/zam/_p_jar': NOT_FOUND, 'python: root._p_jar': DOOR, "python: getattr(root, '_p_jar')": (
        UNAUTHORIZED),
    'python: root.zam.put(None)': UNAUTHORIZED, "python: root.zam._putCall(None, 'echo')": DOOR,
    "python: root.zam.setPeriodicCall('x', '* * * * *', 'UTC', 'echo')": UNAUTHORIZED,
    'python: root.zam.periodic': UNAUTHORIZED, 'python: root.zam.names()': UNAUTHORIZED,
    'python: root.zam.calls()': UNAUTHORIZED, 'python: root.zam.purge("failed", 0)': UNAUTHORIZED,
    'python: root.zam.retry()': UNAUTHORIZED, 'python: root.zam.pause()': UNAUTHORIZED,
    'python: root.zam.set_times(1, 1)': UNAUTHORIZED, 'python: root.zam.security': NO_ATTRIBUTE,
    'python: root.zam.getDeferred.im_self.queue': NO_ATTRIBUTE,
    'python: root.zam.getDeferred.__self__': DOOR,
    'python: root.zad.managers()': UNAUTHORIZED, 'python: root.zad.call_names': UNAUTHORIZED,
    "python: root.zad.queue_of('zam1')": UNAUTHORIZED,
    'python: root.portal_webmail.parameter_pairs()': UNAUTHORIZED,
    'python: root.portal_webmail.objectMap()': UNAUTHORIZED,
    'python: root.portal_webmail.box_alice.sync_status': UNAUTHORIZED,
    'python: root.portal_webmail.box_alice.fetch_body': UNAUTHORIZED,
    'python: root.portal_webmail.box_alice._own': DOOR,
    'python: root.portal_webmail.box_alice.create_folder(None)': UNAUTHORIZED,
    "python: root.portal_webmail.box_alice.set_parameters({'HOST': 'x'})": UNAUTHORIZED,
    # users
    "python: root.acl_users.getUserById('admin')": UNAUTHORIZED,
    'python: root.acl_users.data': UNAUTHORIZED, 'root/acl_users/data/admin': UNAUTHORIZED,
    'python: user._getPassword()': DOOR, 'python: user.roles': UNAUTHORIZED,
    "python: modules['AccessControl'].SpecialUsers": UNAUTHORIZED,
    "python: modules['AccessControl.SecurityManagement'].newSecurityManager": UNAUTHORIZED,
    "python: modules['AccessControl'].getSecurityManager()._context": DOOR,
    "python: modules['AccessControl'].getSecurityManager().addContext": UNAUTHORIZED,
    # writing
    "python: setattr(here, 'title', 'x')": NO_WRITING, "python: delattr(root, 'zam')": NO_WRITING,
    "python: root.manage_delObjects(['zam'])": UNAUTHORIZED,
    "python: root.zam.manage_permission('View', [])": UNAUTHORIZED,
    "python: apply(root.manage_delObjects, (['zam'],))": UNAUTHORIZED,
    "python: list(map(lambda each: each.queue, [root.zam]))": UNAUTHORIZED,
    "python: max([root.zam], key=lambda each: each.queue)": UNAUTHORIZED,
}

#: An expression that fails.
DIVIDE = 'python: 1 / 0'

PATHS = ('/../..', '/zam/..', '/zam/../zad', '/zam/queue', '/zam/queue/desk', '/aq_parent',
         '/zam/aq_parent', '/zam/aq_base', '/zam/aq_inner', '/@@absolute_url',
         '/zam/@@absolute_url', '/++view++absolute_url', '/++etc++site', '/++attribute++zam',
         '/REQUEST', '/zam/REQUEST', '/zam/getDeferred', '/zam/putCall', '/zam/zam', '/zad/zam',
         '/sub/zam', '/sub/portal_webmail', '/zam/acl_users', '/__class__',
         '/zam/__dict__', '/_p_jar', '/portal_webmail/_boxes',
         '/portal_webmail/box_alice/sync_status', '/portal_webmail/box_alice/.7', '/.', '/zam/.')


@pytest.fixture(scope='module')
def town():
    made = Town()
    made.app.zam.manage_permission('Make Asynchronous Application Calls', ['Authenticated'], 0)
    transaction.commit()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where a trace would be."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def zam(town):
    """The manager, as alice sees it. What the test did is undone, and has left no trace."""
    transaction.begin()
    before = town.db.lastTransaction()
    town.login(ALICE)
    with eager():
        yield town.app.zam
    town.logout()
    changed = {type(each).__name__ for each in town.connection._registered_objects}
    transaction.abort()
    assert not os.path.exists(TRACE)
    assert town.db.lastTransaction() == before
    # Nothing but the call itself.
    assert changed <= {'LOBTree', 'LOBucket', 'OOBTree', 'OOBucket', 'Desk', 'Marks', 'Deferred',
                       'Waiting', 'Application', 'Board'}, changed


def kind(failure):
    """The last name of the class of a Failure."""
    return None if failure is None else failure.type_name.rpartition('.')[2]


def as_call(zam, text):
    return zam.putCall('zope_exec', '/', {}, text)


def as_member(zam, text):
    return zam.putCall('aggregate', [('zope_exec', ('/', {}, text))], first_failure=True)


def as_callback(zam, text):
    return zam.putCall('echo', 1).addCallbacks(text)


def as_failure_callback(zam, text):
    return zam.putCall('zope_exec', '/', {}, 'python: 1 / 0').addCallbacks(None, text)


@pytest.mark.parametrize('text', EXPRESSIONS)
def test_an_expression_does_not_get_out(zam, text):
    for way in (as_call, as_callback, as_failure_callback):
        refusal = EXPRESSIONS[text]
        if refusal == DOOR:
            with pytest.raises(BadCall):
                way(zam, text)
            continue
        deferred = way(zam, text)
        assert deferred.ended and deferred.result is None
        assert kind(deferred.failure) == refusal, deferred.failure
    if EXPRESSIONS[text] != DOOR:
        assert kind(as_member(zam, text).failure) == 'MemberFailed'


@pytest.mark.parametrize('path', PATHS)
def test_a_path_leads_to_objects_in_the_database_and_nowhere_else(zam, path):
    deferred = zam.putCall('zope_exec', path, {}, 'here/getId')
    assert deferred.result is None
    assert kind(deferred.failure) in (NOTHING_THERE, UNAUTHORIZED)


@pytest.mark.parametrize('path', [
    'zam', '../zam', 5, None, (), ('zam',), ('', 5), ['', ['zam']], b'/zam'])
def test_a_path_that_is_none_is_refused_at_the_door(zam, path):
    with pytest.raises(BadCall):
        zam.putCall('zope_exec', path, {}, 'nothing')


HELD = ('__builtins__', '_getattr_', '_getitem_', '_write_', '_print_', '__import__', 'modules',
        'user', 'options', 'econtext', 'request', 'root', 'home', 'container')


def getattr_of_everybody(found, name, *default):
    """A guard that guards nothing."""
    return getattr(found, name, *default)


def outcome(put, *args):
    """What became of a call that is put: the last name of the class of its failure, or None.

    A call that the door refuses has failed with its BadCall.
    """
    try:
        deferred = put(*args)
    except BadCall:
        return DOOR
    assert deferred.ended and deferred.result is None
    return kind(deferred.failure)


@pytest.mark.parametrize('name', HELD)
@pytest.mark.parametrize('text', [
    f"python: modules['os'].mkdir('{TRACE}')", 'python: here.zam.queue',
    "python: '{0.__class__}'.format(here)", "python: getattr(here, '__class__')"])
def test_names_and_variables_of_the_call_do_not_replace_what_guards_it(zam, name, text):
    refusals = {UNAUTHORIZED, DOOR}
    if name == 'modules' and 'mkdir' in text:
        refusals |= {NO_ATTRIBUTE, NO_WRITING, NO_KEY}  # of what was given in its place
    for value in (getattr_of_everybody, {'os': 1}, {}, None):
        for variables, names in (({name: value}, {}), ({}, {name: value}),
                                 ({name: value}, {name: value})):
            assert outcome(zam.putCall, 'zope_exec', '/', variables, text, names) in refusals


@pytest.mark.parametrize('name', ['here', 'context', 'root', 'home', 'container', 'request'])
def test_what_an_expression_works_on_is_not_replaced_by_names(zam, name):
    deferred = zam.putCall('zope_exec', '/zam', {}, f'python: same_type({name}, 1)', {name: 1})
    assert deferred.result == 0


def test_variables_do_not_make_the_call_somebody_elses(zam):
    variables = {'AUTHENTICATED_USER': 'admin', '_auth': 'Basic YWRtaW46YWRtaW4=', 'PARENTS': [1],
                 'HTTP_AUTHORIZATION': 'Basic YWRtaW46YWRtaW4=', 'REMOTE_USER': 'admin'}
    assert zam.putCall('zope_exec', '/', variables, 'user/getId').result == ALICE
    deferred = zam.putCall('zope_exec', '/', variables, 'python: here.zam.pause()')
    assert kind(deferred.failure) == UNAUTHORIZED


# scripts in the application

SCRIPTS = {
    # a deferred, an attempt, a failure
    "d.state = 'failed'": NO_WRITING, 'd.ended_at = 0': NO_WRITING, 'del d.state': NO_WRITING,
    'd.caller': UNAUTHORIZED, 'd.session': UNAUTHORIZED, 'd.owner': UNAUTHORIZED,
    'd.arguments()': UNAUTHORIZED, 'd.after': UNAUTHORIZED, 'd.append_callback': UNAUTHORIZED,
    'd.take_callbacks()': UNAUTHORIZED, "d.accept('boot', 1)": UNAUTHORIZED, 'd.again()': (
        UNAUTHORIZED), "d.succeed(b'', 1)": UNAUTHORIZED, 'd.fail(None, 1)': UNAUTHORIZED,
    'd.move_to(None, 1)': UNAUTHORIZED, 'd.next_callback()': UNAUTHORIZED,
    'd.next_callback': UNAUTHORIZED, "getattr(d, 'caller')": UNAUTHORIZED,
    "getattr(d, '_queue')": UNAUTHORIZED, "getattr(d, '_p_jar')": UNAUTHORIZED,
    "getattr(d, '_caller', 0)": UNAUTHORIZED, "'{0._queue}'.format(d)": UNAUTHORIZED,
    "'{0.caller}'.format(d)": UNAUTHORIZED, "'{0.__class__}'.format(d)": UNAUTHORIZED,
    "'{0.cancel.__func__.__globals__}'.format(d)": UNAUTHORIZED,
    'd.cancel.im_func': NO_ATTRIBUTE, "d.attempts[0].outcome = 'x'": NO_WRITING,
    "getattr(d.attempts[0], '_replace')": UNAUTHORIZED,
    "getattr(d.attempts[0], '__class__')": UNAUTHORIZED,
    "f.text = 'x'": NO_WRITING, 'f.traceback_text = 0': NO_WRITING,
    "getattr(f, '__class__')": UNAUTHORIZED, "'{0.__class__.__init__}'.format(f)": UNAUTHORIZED,
    "'{0.from_exception.__func__}'.format(f)": UNAUTHORIZED,
    # the objects
    "zam.title = 'x'": NO_WRITING, 'zam.paused = 1': NO_WRITING, 'del container.zam': NO_WRITING,
    'zam.queue = 1': NO_WRITING, "container.zad.no_worker = 'refuse'": NO_WRITING,
    "setattr(zam, 'paused', 1)": NO_WRITING,
    # imports
    'import os': UNAUTHORIZED, 'from Products.zasync import defer': UNAUTHORIZED,
    'from Products.zasync import Options': UNAUTHORIZED, 'import Products.zasync': UNAUTHORIZED,
    'from Products.zasync.builtin import Reference': UNAUTHORIZED,
    'from Products.zasync.options import Options': UNAUTHORIZED,
    'from Products.zasync.failure import Failure': UNAUTHORIZED,
    'from Products.zasync.running import current': UNAUTHORIZED,
    'from Products.zasync import checkpoint': UNAUTHORIZED,
    'from Products.zasyncdispatcher import asyncedCall': UNAUTHORIZED,
    'from Products.CPSMailAccess.mailtool import add_mail_box': UNAUTHORIZED,
    'from zasync_client import run': UNAUTHORIZED, 'from transaction import commit': UNAUTHORIZED,
    'import pickle': UNAUTHORIZED,
    # what can't be called: it would run without a check
    "zam.putCall('zope_call', ('function', 'os', 'mkdir'), TRACE)": DOOR,
    "zam.putCall('zope_call', ['function', 'os', 'mkdir', 0], TRACE)": DOOR,
    "zam.putCall('zope_call', 'os.mkdir', TRACE)": DOOR,
    "zam.putCall('zope_call', 'os:mkdir', TRACE)": DOOR, "zam.putCall('zope_call')": DOOR,
    "zam.putCall('zope_call', {'kind': 'function', 'where': 'os', 'name': 'mkdir'}, TRACE)": DOOR,
    "zam.putCall('zope_call', lambda: 1)": DOOR, "zam.putCall('zope_call', zam)": DOOR,
    "zam.putCall('zope_call', script)": DOOR, "zam.putCall('zope_call', d.cancel)": DOOR,
    "zam.putCall('zope_call', d.addCallbacks, 'x')": DOOR,
    "zam.putCall('zope_call', f.from_exception, 1)": DOOR,
    "zam.putCall('zope_call', '{0.__class__}'.format, 1)": DOOR,
    "zam.putCall('zope_call', '{x.__class__}'.format_map, {'x': 1})": DOOR,
    "zam.putCall('zope_call', 'x'.join, ['a'])": DOOR,
    "zam.putCall('zope_call', container.REQUEST.get, 'x')": DOOR,
    "zam.putCall('zope_call', container.REQUEST.RESPONSE.redirect, 'x')": DOOR,
    "from AccessControl import getSecurityManager as g\nzam.putCall('zope_call', "
    'g().getUser().getUserName)': DOOR,
    "from AccessControl import getSecurityManager as g\nzam.putCall('zope_call', "
    "g().checkPermission, 'View', container)": DOOR,
    "zam.putCall('zope_call', str.format, '{0.__class__}', 1)": UNAUTHORIZED,
    "zam.putCall('zope_call', zam.put, 1)": UNAUTHORIZED,
    "zam.putCall('zope_call', container.manage_delObjects, ['zam'])": UNAUTHORIZED,
    "def own(value):\n    return value\nd.addCallbacks(own)": DOOR,
    'd.addCallbacks(lambda value: value)': DOOR, 'd.addCallbacks(5)': DOOR,
    'd.addCallbacks()': DOOR,
    "d.addCallbacks(('function', 'os', 'mkdir'))": DOOR, "d.addCallbacks(b'nothing')": DOOR,
    "d.addCallbacks('python: here.__class__')": DOOR, "d.addCallbacks('python:')": DOOR,
    'd.addCallbacks(d.cancel)': DOOR, 'd.addCallbacks(script)': DOOR,
    # what can't be put
    "zam.putCall('follow', d.id)": 'UnknownPlugin',
    "zam.putCall('aggregate', [('follow', (d.id,))])": 'UnknownPlugin',
    "zam.putCall('schedule', 1, 'follow', d.id)": 'UnknownPlugin',
    "zam.putCall('os.mkdir', TRACE)": 'UnknownPlugin', "zam.putCall(zam, TRACE)": 'UnknownPlugin',
    "zam.putCallWith({'priority': 1}, 'echo')": DOOR, "zam.putCallWith(d, 'echo')": DOOR,
    "zam.putCall('echo', zam)": DOOR, "zam.putCall('echo', zam.getDeferred)": DOOR,
    "zam.putCall('echo', d)": DOOR, "zam.putCall('echo', x=[zam])": DOOR,
    "zam.putCall('echo', lambda: 1)": DOOR, "zam.putCall('echo', (i for i in [1]))": DOOR,
    "class Own:\n    pass\nzam.putCall('echo', Own())": DOOR,
    "class Own:\n    def __reduce__(self):\n        return 1": 'SyntaxError',
    "class Own:\n    __reduce__ = 1": 'SyntaxError',
    "class Own:\n    pass\nown = Own()\nown.__reduce__ = 1": 'SyntaxError',
    "class Own:\n    pass\nown = Own()\nsetattr(own, '__class__', f)": NO_WRITING,
    "zam.putCall('zope_exec', '/', {'_x': zam}, 'nothing')": DOOR,
    "zam.putCall('zope_exec', '/', {}, 'nothing', {'x': zam.getDeferred})": DOOR,
    "zam.putCall('zope_exec', '/', {}, 'nothing', [('x', 1)])": DOOR,
    "zam.putCall('zope_exec', '/', {5: 1}, 'nothing')": DOOR,
    "zam.putCall('zope_exec', '/', {}, zam.getId)": DOOR,
}

#: What scripts hand on: the door refuses it, or it runs as restricted as it was.
HANDED_ON = {
    "zam.putCall('zope_call', getattr, 'x', '__class__')": UNAUTHORIZED,
    "zam.putCall('zope_call', map, getattr, ['x'], ['__class__'])": UNAUTHORIZED,
    "zam.putCall('zope_call', zam.getDeferred, 'x')": NO_KEY,
    "zam.putCall('zope_call', zam.putCall, 'echo', 1)": NOT_KEPT,
    "zam.putCall('echo', '__class__').addCallbacks(zam.getDeferred)": NO_KEY,
    "zam.putCall('echo', 'x').addCallbacks('python: getattr(result, \"__class__\")')": (
        UNAUTHORIZED),
    "zam.putCall('zope_exec', '/', {}, 'python: x(here, \"__class__\")', {'x': getattr})": (
        UNAUTHORIZED),
    f'zam.putCall("zope_exec", "/", {{}}, "{DIVIDE}").addCallbacks('
    "None, 'python: getattr(failure, \"__class__\")')": UNAUTHORIZED,
    f'zam.putCall("zope_exec", "/", {{}}, "{DIVIDE}").addCallbacks('
    "None, 'python: failure.tb_frame')": DOOR,
}

#: Classes that a script makes. It says what it likes of them, and of their objects.
OWN_METHOD = """
class Own:
    def getPhysicalPath(self):
        return ('', 'board')
    def getPhysicalRoot(self):
        return container
    def manage_changeProperties(self, **values):
        return values
method = Own().manage_changeProperties
if not {may}:
    setattr(Own, 'manage_changeProperties__roles__', ('Manager',))
    setattr(Own, '__allow_access_to_unprotected_subobjects__', 0)
return {put}
"""
OWN_CALLABLE = """
class Own:
    pass
def call(self, *args):
    return 1
setattr(Own, '__call__', call)
own = Own()
{changes}
return {put}
"""
OWN_TEXT = """
class Text(str):
    pass
setattr(Text, '__eq__', lambda self, other: True)
setattr(Text, '__hash__', lambda self: zam.putCall is None or {hash})
return {put}
"""
PUTS = ("zam.putCall('zope_call', {}, title='done')", "zam.putCall('echo', 1).addCallbacks({})",
        "zam.putCall('aggregate', [('zope_call', ({},), {{'title': 'done'}})])")


def run_script(town, text):
    """Run it as alice, who owns it; → (what it returns, name of the class of its error)."""
    lines = '\n    '.join(text.split('\n'))
    made = PythonScript('putter')
    made.ZPythonScript_edit('zam, d, f, TRACE', text)
    town.app._setOb('putter', made)
    town.app.putter._owner = (['acl_users'], ALICE)
    zam = town.app.zam
    deferred = zam.putCall('echo', 1)
    failure = zam.putCall('zope_exec', '/', {}, 'python: 1 / 0').failure
    try:
        return town.app.putter(zam, deferred, failure, TRACE), None
    except Exception as error:
        return lines, type(error).__name__


@pytest.mark.parametrize('text', SCRIPTS)
def test_a_script_does_not_get_out(town, zam, text):
    if SCRIPTS[text] == 'SyntaxError':
        # Zope keeps a script that can't be compiled, and refuses to run it.
        assert run_script(town, text)[1] in ('RuntimeError', 'SyntaxError')
    else:
        assert run_script(town, text)[1] == SCRIPTS[text]


@pytest.mark.parametrize('text', HANDED_ON)
def test_what_a_script_hands_on_runs_as_restricted_as_the_script(town, zam, text):
    deferred, error = run_script(town, f'return {text}')
    if error is None:
        assert deferred.result is None and kind(deferred.failure) == HANDED_ON[text]
    else:
        assert error == DOOR


@pytest.mark.parametrize('put', PUTS)
@pytest.mark.parametrize('may', [True, False])
def test_a_method_of_a_scripts_own_class_is_not_taken_for_that_of_an_object(town, zam, may, put):
    """Its object gives a path that is not its own: another's method would be called."""
    text = OWN_METHOD.format(may=may, put=put.format('method'))
    assert run_script(town, text)[1] == DOOR


@pytest.mark.parametrize('put', PUTS)
@pytest.mark.parametrize('where', ['own', 'Own'])
@pytest.mark.parametrize('attributes', [
    {'__module__': "'antigravity'", '__qualname__': "'geohash'"},
    {'__module__': "'zasync_client.__main__'", '__qualname__': "'x'"},
    {'__module__': "'os'", '__qualname__': "'mkdir'", '__name__': "'mkdir'"},
    {'__self__': 'container', '__name__': "'manage_delObjects'", '__func__': 'None'},
    {'__self__': 'own', '__name__': "'manage_changeProperties'", 'manage_changeProperties': 'own',
     'getPhysicalPath': "lambda: ('', 'board')"}], ids=lambda found: found.get('__module__'))
def test_a_scripts_own_callable_is_not_taken_for_another(
        town, zam, attributes, where, put, monkeypatch):
    monkeypatch.delitem(sys.modules, 'antigravity', raising=False)
    changes = '\n'.join(f'setattr({where}, {name!r}, {value})'
                        for name, value in attributes.items())
    text = OWN_CALLABLE.format(changes=changes, put=put.format('own'))
    # The class itself refuses some of it.
    assert run_script(town, text)[1] in (DOOR, 'TypeError', 'ValueError')
    assert 'antigravity' not in sys.modules, 'a module was imported that the script named'


@pytest.mark.parametrize('like', ['zope_exec', 'echo', 'aggregate', 'schedule'])
def test_a_text_of_a_scripts_own_class_is_taken_for_what_it_says(town, zam, like):
    text = OWN_TEXT.format(hash=f'hash({like!r})', put="zam.putCall(Text('follow'), 'x')")
    assert run_script(town, text)[1] in ('UnknownPlugin', 'NameError')


def test_of_a_text_nothing_is_stored_but_what_it_says(zam):
    class Text(str):
        """Its objects can't be pickled."""

    with pytest.raises(BadCall):
        made(Text('python: 1 +'), 'success')
    kept = made(Text('nothing'), 'success'), zam.putCall(Text('echo'), 1).plugin
    assert [(type(each), each) for each in kept] == [(str, 'nothing'), (str, 'echo')]


def test_a_method_of_what_has_no_path_of_its_own_is_not_put(town, zam):
    """A user acquires the path of its folder, which has methods of the same names."""
    with pytest.raises(BadCall):
        zam.putCall('zope_call', town.user(ALICE).getUserName)
    with pytest.raises(BadCall):
        zam.putCall('echo', 1).addCallbacks(town.user(ALICE).has_role)


def test_a_script_reads_what_it_may_of_its_calls(town, zam):
    values, error = run_script(town, (
        'return d.id, d.state, d.ended, d.plugin, d.result, d.failure, d.memo, d.progress,'
        ' d.attempts[0].number, d.attempts[0].outcome, f.type_name, f.text, d.cancel()'))
    assert error is None
    assert values[1:] == ('resolved', True, 'echo', 1, None, {}, None, 1, 'resolved',
                          'ZeroDivisionError', 'division by zero', False)


class Gadget:
    """Unpickling it makes a directory."""

    def __reduce__(self):
        return os.mkdir, (TRACE,)


def test_pages_do_not_make_what_calls_hold(town):
    """They show what a pickle says, and call nothing it names."""
    transaction.begin()
    town.login(ALICE)
    deferred = town.app.zam.putCall('echo', 1)
    town.logout()
    try:
        deferred._arguments = deferred._memo = pickle.dumps(((Gadget(),), {'x': Gadget()}))
        transaction.commit()
        for page in (f'manage_call?id={deferred.id}', 'manage_calls', 'manage_periodic'):
            assert town.browser('admin').get(f'/zam/{page}').status_int == 200
            assert not os.path.exists(TRACE), page
        assert 'mkdir' in town.browser('admin').get(f'/zam/manage_call?id={deferred.id}').text
    finally:
        deferred.cancel()
        transaction.commit()


def test_the_modules_that_hold_the_keys_are_closed_to_restricted_code(town, zam):
    ours = [name for name in sys.modules if name.startswith(
        ('Products.zasync', 'Products.CPSMailAccess', 'zasync_client'))]
    assert len(ours) > 60
    for name in ours:
        deferred = zam.putCall('zope_exec', '/', {}, f"python: modules['{name}']")
        assert deferred.result is None and kind(deferred.failure) == UNAUTHORIZED, name
