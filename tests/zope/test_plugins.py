"""What zope_exec and zope_call do when they run, as the user who put the call."""

import pytest
import transaction
from zExceptions import Unauthorized

from Products.zasync import expression
from Products.zasync.builtin import BUILTIN
from Products.zasync.builtin import check_zope_call
from Products.zasync.builtin import reference
from Products.zasync.builtin import zope_call
from Products.zasync.deferred import Deferred
from Products.zasync.errors import BadCall
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.running import Run
from Products.zasync.running import running
from Products.zasync.security import capture
from Products.zasync.security import restored
from tests.fakes import make_call
from tests.zope import jobs


@pytest.fixture
def run(site, app):
    """A function: (plugin, *args) → what the plugin returns as the user logged in now."""
    def execute(plugin, *args, **kwargs):
        args, kwargs = BUILTIN[plugin].check(args, kwargs)
        step = Run(Deferred('0-1-0-0', make_call()), lambda memo: None, lambda progress: None)
        with restored(capture(), app.aq_base) as root, running(step):
            step.app = root
            return BUILTIN[plugin].run(step, *args, **kwargs)
    return execute


@pytest.fixture
def folder(app):
    """A folder `sub` with a title, and one inside it."""
    app.manage_addFolder('sub', 'A title')
    app.sub.manage_addFolder('inner', 'Inside')
    transaction.commit()
    return app.sub


# zope_exec

@pytest.mark.parametrize('path, variables, text, names, expected', [
    ('/', {}, 'python:home.sub.title', {}, 'A title'),
    ('/', {}, 'python: home.sub.title', {}, 'A title'),
    ('/sub', {}, 'here/title', {}, 'A title'),
    (('', 'sub', 'inner'), {}, 'python:context.title', {}, 'Inside'),
    ('/sub', {}, 'python:here is context and context is container', {}, True),
    ('/sub', {}, 'python:home is root', {}, True),
    ('/', {'light': 1}, 'python:request.light', {}, 1),
    ('/', {'idxs': ['a', 'b']}, 'request/idxs', {}, ['a', 'b']),
    ('/sub', {'x': 5}, 'python:here.REQUEST.x', {}, 5),
    ('/', {}, 'python:who + "!"', {'who': 'me'}, 'me!'),
    ('/', {}, 'nothing', {}, None),
    ('/', {}, 'python:user.getId()', {}, 'admin'),
    ('/', {}, 'string:${home/sub/title}', {}, 'A title'),
])
def test_zope_exec_evaluates_with_the_historic_names(site, folder, run, path, variables, text,
                                                     names, expected):
    site.login('admin')
    assert run('zope_exec', path, variables, text, names) == expected


@pytest.mark.parametrize('name', ['items', 'text', 'form', 'light'])
def test_each_variable_is_read_as_an_item_of_the_request(site, run, name):
    site.login('bob')
    assert run('zope_exec', '/', {name: 7}, f'python: request[{name!r}]') == 7
    is_hidden = run('zope_exec', '/', {name: 7}, f'python: request.{name} != 7')
    assert is_hidden is (name != 'light')


def test_names_of_the_caller_do_not_take_the_place_of_the_fixed_ones(site, folder, run):
    site.login('admin')
    assert run('zope_exec', '/sub', {}, 'here/title', {'here': 'mine'}) == 'A title'


@pytest.mark.parametrize('path', ['/nowhere', '/sub/nowhere', '/nowhere/at/all'])
def test_a_path_that_leads_nowhere_is_a_lookup_error_that_names_it(site, folder, run, path):
    site.login('admin')
    with pytest.raises(LookupError) as refusal:
        run('zope_exec', path, {}, 'nothing')
    assert path in str(refusal.value)


def test_bob_may_not_do_what_he_may_not_do_and_nothing_is_left_of_it(site, app, folder, run):
    site.login('bob')
    for text in ('python:here.manage_addFolder("x")', 'python:here.manage_delObjects(["inner"])',
                 'python:home.acl_users.userFolderAddUser("x", "x", ["Manager"], [])'):
        with pytest.raises(Unauthorized):
            run('zope_exec', '/sub', {}, text)
    assert folder.objectIds() == ['inner']
    site.login('admin')
    run('zope_exec', '/sub', {}, 'python:here.manage_addFolder("x")')
    assert folder.objectIds() == ['inner', 'x']


def test_bob_may_not_name_an_object_he_may_not_see(site, folder, run):
    folder.inner.manage_permission('View', ['Manager'], 0)
    folder.inner.manage_permission('Access contents information', ['Manager'], 0)
    site.login('bob')
    with pytest.raises(Unauthorized):
        run('zope_exec', '/sub/inner', {}, 'here/title')
    site.login('admin')
    assert run('zope_exec', '/sub/inner', {}, 'here/title') == 'Inside'


def test_what_a_call_makes_is_owned_by_its_caller(site, folder, run):
    site.login('admin')
    run('zope_exec', '/sub', {}, 'python:here.manage_addFolder("mine")')
    assert folder.mine.getOwner().getId() == 'admin'


@pytest.mark.parametrize('text', [
    'python:modules["os"].system("true")', 'modules/os/system', 'python:open("/etc/passwd")',
    'python:getattr(here, "_p_jar")'])
def test_an_expression_is_restricted_whoever_put_it(site, folder, run, text):
    site.login('admin')
    with pytest.raises((Unauthorized, NameError, AttributeError, LookupError, ImportError)):
        run('zope_exec', '/sub', {}, text)


# zope_call

def test_a_method_of_an_object_is_called_as_the_caller(site, app, folder, run):
    site.login('bob')
    assert run('zope_call', folder.title_or_id) == 'A title'


def test_a_function_is_called_with_its_arguments(site, run):
    site.login('bob')
    assert run('zope_call', jobs.add, 41) == 42
    assert run('zope_call', jobs.who) == 'bob'


@pytest.fixture
def put_and_run(site, app):
    """A function: → a function that runs the call as whoever put it, whatever changed since."""
    def put(plugin, *args, **kwargs):
        args, kwargs = BUILTIN[plugin].check(args, kwargs)
        caller = capture()

        def execute():
            step = Run(Deferred('0-1-0-0', make_call()), lambda memo: None, lambda progress: None)
            with restored(caller, app.aq_base) as root, running(step):
                step.app = root
                return BUILTIN[plugin].run(step, *args, **kwargs)
        return execute
    return put


@pytest.mark.parametrize('name, args', [
    ('manage_addFolder', ('x',)), ('manage_delObjects', (['inner'],)),
    ('manage_changeProperties', ()), ('manage_permission', ('View',))])
def test_a_method_the_caller_may_not_call_any_more_is_refused(
        site, app, folder, put_and_run, name, args):
    app.acl_users.userFolderEditUser('eve', None, ['Manager'], [])
    site.login('eve')
    execute = put_and_run('zope_call', getattr(folder, name), *args)
    app.acl_users.userFolderEditUser('eve', None, ['Member'], [])
    site.logout()
    with pytest.raises(Unauthorized):
        execute()
    assert folder.objectIds() == ['inner']


@pytest.mark.parametrize('name, args', [('manage_delObjects', (['inner'],)),
                                        ('_delObject', ('inner',))])
def test_a_method_that_trusted_code_put_for_a_caller_who_may_not_call_it_is_called(
        site, folder, put_and_run, name, args):
    """Restricted code can't get hold of such a method: see the next test."""
    site.login('bob')
    put_and_run('zope_call', getattr(folder, name), *args)()
    assert folder.objectIds() == []


@pytest.mark.parametrize('text', [
    'python:zam.putCall("zope_call", home.sub.manage_delObjects, ["inner"])',
    'python:zam.putCall("zope_call", getattr(home.sub, "manage_delObjects"), ["inner"])',
    'python:zam.putCall("zope_call", home.sub._delObject, "inner")',
    'python:zam.putCall("zope_call", home.sub.objectValues()[0].manage_delObjects, [])',
    'python:zam.putCall("zope_call", modules["os"].system, "true")',
    'python:zam.putCall("zope_call", ("method", ("", "sub"), "manage_delObjects"), ["inner"])',
    'python:zam.putCall("zope_call", ("function", "os", "system"), "true")',
    'python:zam.putCall("zope_call", "os.system", "true")'])
def test_restricted_code_can_not_put_what_it_may_not_call(site, app, folder, text):
    app._setObject('zam', AsynchronousCallManager('zam'))
    app.zam.manage_permission('Make Asynchronous Application Calls', ['Member'], 0)
    site.login('bob')
    try:
        expression.check(text)
        with pytest.raises((Unauthorized, BadCall)):
            expression.evaluate(text, {'home': app, 'zam': app.zam})
    except BadCall:
        pass  # not even an expression of restricted Python
    assert app.zam.lenNewCalls() == 0


def test_a_tuple_that_looks_like_a_reference_is_none_when_the_call_runs(site, app):
    """Also where a site gives the handler another name, whose arguments nobody checked."""
    step = Run(Deferred('0-1-0-0', make_call()), lambda memo: None, lambda progress: None)
    step.app = app
    for forged in (('function', 'os', 'getcwd'), ('function', 'os', 'getcwd', False),
                   ('method', ('',), 'objectIds', False), 'os.getcwd'):
        with pytest.raises(BadCall):
            zope_call(step, forged)


def test_a_method_that_is_gone_when_the_call_runs_is_an_error(site, app, folder, run):
    site.login('admin')
    args, kwargs = check_zope_call((folder.inner.title_or_id,), {})
    folder._delObject('inner')
    step = Run(Deferred('0-1-0-0', make_call()), lambda memo: None, lambda progress: None)
    with restored(capture(), app.aq_base) as root, pytest.raises(LookupError) as refusal:
        step.app = root
        BUILTIN['zope_call'].run(step, *args, **kwargs)
    assert '/sub/inner' in str(refusal.value)


def test_an_object_that_hangs_nowhere_has_no_path_to_be_found_by(folder):
    for stray in (AsynchronousCallManager('stray'), folder.aq_base):
        with pytest.raises(BadCall):
            reference(stray.absolute_url)


def test_the_path_of_a_method_is_physical_whatever_the_way_to_it(app, folder):
    around = app.sub.inner.sub.title_or_id
    assert reference(around)[:3] == ('method', ('', 'sub'), 'title_or_id')


def test_a_text_in_place_of_a_callable_is_refused_for_restricted_code_could_name_anything(app):
    for text in ('os.system', '/sub/manage_delObjects', 'Products.zasync.testing'):
        with pytest.raises(BadCall):
            check_zope_call((text,), {})
