"""The id of another user's call, guessed or overheard: what it is good for, and what it tells."""

import pytest
import transaction
from Acquisition import aq_base
from Products.PythonScripts.PythonScript import PythonScript
from Testing.makerequest import makerequest
from zExceptions import Unauthorized

from Products.zasync.errors import NotYours
from Products.zasync.options import Options
from Products.zasync.testing import eager
from tests.security.town import ALICE
from tests.security.town import CAROL
from tests.security.town import NOBODY


OTHERS = [(None, None), ('eve', None), (NOBODY, None), (CAROL, 'sub'), (ALICE, 'sub')]


@pytest.fixture
def zam(town):
    town.app.zam.manage_permission('Make Asynchronous Application Calls',
                                   ['Authenticated', 'Manager', 'Anonymous'], 0)
    transaction.commit()
    yield town.app.zam
    town.logout()


def act_as(town, name, folder=None):
    if name is None:
        town.logout()
    else:
        town.login(name, folder and town.app[folder])


def in_script(town, text, id):
    """What a Python script of nobody's returns when whoever acts runs it."""
    made = PythonScript('asker')
    made.ZPythonScript_edit('id', text)
    town.app._setOb('asker', made)
    return town.app.asker(id)


WAYS = ('return container.zam.getDeferred(id)', 'return container.zam.getDeferred(id).result',
        'return container.zam.getDeferred(id).addCallbacks("nothing")',
        'return container.zam.getDeferred(id).cancel()')


@pytest.mark.parametrize('state', ['new', 'failed', 'resolved'])
@pytest.mark.parametrize('name, folder', OTHERS)
def test_the_exact_id_is_good_for_nothing_in_others_hands(town, zam, name, folder, state):
    """Namesakes of other folders included. The refusal tells no more than they gave."""
    id = town.calls[state]
    act_as(town, name, folder)
    for text in WAYS:
        with pytest.raises(NotYours) as refusal:
            in_script(town, text, id)
        assert str(refusal.value) == f'the call {id} was put by somebody else'
    for text in ('cancel(id)', 'retry(id)', 'calls(user="alice")', 'purge("failed", 0)'):
        with pytest.raises(Unauthorized):
            in_script(town, f'return container.zam.{text}', id)


@pytest.mark.parametrize('name, folder', OTHERS)
def test_nor_in_a_call_of_theirs_nor_in_its_parts(town, zam, name, folder):
    id = town.calls['resolved']
    text = f'python: here.zam.getDeferred({id!r}).result'
    for put in (lambda: zam.putCall('zope_exec', '/', {}, text),
                lambda: zam.putCall('zope_call', zam.getDeferred, id),
                lambda: zam.putCall('echo', id).addCallbacks(zam.getDeferred),
                lambda: zam.putCall('echo', 1).addCallbacks(text)):
        act_as(town, name, folder)
        with eager():
            deferred = put()
        assert deferred.result is None
        assert deferred.failure.type_name == 'Products.zasync.errors.NotYours'
        assert 'secret' not in str(deferred.failure)
    act_as(town, name, folder)
    with eager():
        deferred = zam.putCall('aggregate', [('zope_exec', ('/', {}, text)), ('echo', (2,))])
    assert deferred.result[0].type_name == 'Products.zasync.errors.NotYours'


def variants(id):
    """Ids that are nearly that one."""
    lane, number, millis, bits = id.split('-')
    yield from (id[:-1], id[:-2], id[1:], id[:-1] + ('0' if id[-1] != '0' else '1'),
                f'{lane}-{number}-{millis}', f'{lane}-{number}-{millis}-', f'{id}-', f'{id}0',
                f'{lane}-{number}-{millis}-{"0" * 8}', f'0{id}', f' {id}',
                f'{int(lane, 16) ^ 1:x}-{number}-{millis}-{bits}',
                f'{id} ', f'{id}\n', f'+{id}', f'0x{id}', f'{lane}-0{number}-{millis}-{bits}',
                f'{lane}-{number}-{millis}_0-{bits}', f'/{id}', f'{id}/', f'../zam/{id}',
                f'{id}%00', f'{id}\0', f'-{id}', '-'.join('٠' + part for part in id.split('-')))
    yield f'{lane}-{int(number, 16) + 1:x}-{millis}-{bits}'
    if id.upper() != id:
        yield id.upper()
    yield from (id.encode(), [id], (id,), {id: 1}, None, 0, -1, True, object())


@pytest.mark.parametrize('state', ['new', 'failed', 'resolved'])
@pytest.mark.parametrize('name', ['eve', ALICE, 'admin'])
def test_what_is_nearly_its_id_names_no_call(town, zam, state, name):
    """Whoever asks, its caller and the management too; and all are told the same."""
    id, asked = town.calls[state], 0
    act_as(town, name)
    for nearly in variants(id):
        with pytest.raises(KeyError) as refusal:
            zam.getDeferred(nearly)
        assert 'alice' not in str(refusal.value) and 'echo' not in str(refusal.value)
        asked += 1
    assert asked > 30


def test_a_text_that_is_equal_to_all_others_names_no_call_of_others(town, zam):
    act_as(town, 'eve')
    text = ('class Text(str):\n    pass\n'
            'setattr(Text, "__eq__", lambda self, other: True)\n'
            'setattr(Text, "__hash__", lambda self: 1)\n'
            'for given in (id, id[:-1], "0-1-0-0"):\n'
            '    try:\n        container.zam.getDeferred(Text(given))\n'
            '    except Exception:\n        continue\n'
            '    return given')
    assert in_script(town, text, town.calls['resolved']) is None


OWN_BROWSER = """
class Text(str):
    pass
setattr(Text, '__eq__', lambda self, other: True)
setattr(Text, '__reduce__', lambda self: (int, ('no number',)))
container.REQUEST.set('browser_id_', Text('79685035BA1lfF-78DM'))
return container.zam.{}
"""


def test_a_browser_that_is_equal_to_all_others_gets_no_session_call_of_others(town, zam):
    zam.manage_permission('Make Asynchronous Session Calls', ['Anonymous'], 0)
    id = zam.putSessionCall('echo', 'secret').id
    other = makerequest(aq_base(town.app))
    made = PythonScript('asker')
    other._setOb('asker', made)
    made.ZPythonScript_edit('id', OWN_BROWSER.format('getDeferred(id)'))
    with pytest.raises(NotYours):
        other.asker(id)
    # Nor is it kept: whoever loaded the call would do what its pickle says.
    made.ZPythonScript_edit('id', OWN_BROWSER.format("putSessionCall('echo', 'of another')"))
    deferred = other.asker(id)
    transaction.commit()
    deferred._p_deactivate()
    assert type(deferred.session) is str
    other.REQUEST.close()


@pytest.mark.parametrize('name', [None, 'eve', NOBODY])
def test_no_page_and_no_data_shows_it_to_them(town, zam, name):
    id = town.calls['resolved']
    browser, before = town.browser(name), town.db.lastTransaction()
    for path in (f'/zam/manage_call?id={id}', f'/zam/manage_calls?start={id}',
                 '/zam/manage_calls?user=alice', f'/zad/manage_overview?test=zam:{id}',
                 f'/zad/manage_overview_data?test=zam1:{id}'):
        answer = browser.get(path)
        assert answer.status_int == 401 and 'secret' not in answer.text
    for action in ('manage_cancelCall', 'manage_retryCall'):
        for each in town.calls.values():
            assert browser.post(f'/zam/{action}', {'id': each}).status_int == 401
    assert town.db.lastTransaction() == before


@pytest.mark.parametrize('name, folder', OTHERS)
def test_a_guessed_key_does_not_join_it(town, zam, name, folder):
    act_as(town, ALICE)
    options = Options(key='report', series='reports')
    hers = zam.putCallWith(options, 'echo', 'secret')
    assert zam.putCallWith(options, 'echo', 'again') is hers
    act_as(town, name, folder)
    other = zam.putCallWith(options, 'echo', 'mine')
    assert other is not hers and other.arguments() == (('mine',), {})
    act_as(town, ALICE)
    assert zam.putCallWith(options, 'echo', 'again') is hers


def test_who_has_her_id_after_her_has_her_calls(town, zam):
    """A user is an id in a user folder: security.rst says so."""
    id = town.calls['resolved']
    town.app.acl_users.userFolderDelUsers([ALICE])
    town.add_user(ALICE)
    act_as(town, ALICE)
    assert zam.getDeferred(id).result == 'secret result'


def test_its_caller_and_the_management_see_it(town, zam):
    for name in (ALICE, 'admin'):
        act_as(town, name)
        assert in_script(town, WAYS[1], town.calls['resolved']) == 'secret result'
