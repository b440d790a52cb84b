"""The manager as an object of Zope: the door, who may see a call, copying, deleting, renaming."""

from html import escape

import pytest
import transaction
from AccessControl import Unauthorized
from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from OFS.interfaces import IItem
from OFS.interfaces import IObjectWillBeRemovedEvent
from OFS.SimpleItem import SimpleItem
from ZEO.Exceptions import ClientDisconnected
from zExceptions import BadRequest
from ZODB.POSException import ConflictError
from zope.component import getGlobalSiteManager
from zope.component import provideHandler
from zope.interface.verify import verifyObject
from ZPublisher import zpublish

from Products.zasync import clock
from Products.zasync import lanes
from Products.zasync import wakeup
from Products.zasync.errors import BadCall
from Products.zasync.errors import NotYours
from Products.zasync.errors import UnknownPlugin
from Products.zasync.failure import Failure
from Products.zasync.interfaces import IAsynchronousCallManager
from Products.zasync.interfaces import NEW
from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.fakes import make_call
from tests.fakes import NOW
from tests.fakes import sign_on


def put(manager, text='nothing'):
    return manager.putCall('zope_exec', '/', {}, text, {})


def test_the_manager_keeps_its_contract(manager):
    verifyObject(IAsynchronousCallManager, manager)


# the door

def test_a_put_returns_a_deferred_that_waits(manager, now):
    deferred = put(manager)
    assert (deferred.state, deferred.plugin, deferred.put_at) == (NEW, 'zope_exec', NOW)
    assert manager.lenNewCalls() == 1
    assert manager.lenAcceptedCalls() == 0


@pytest.mark.parametrize('call, error', [
    (('no_such_plugin', 1), UnknownPlugin),
    (('',), UnknownPlugin),
    (('zope_exec',), BadCall),
    (('zope_exec', '/', {}), BadCall),
    (('zope_exec', '/', {}, 'python:('), BadCall),
    (('zope_exec', 'nowhere', {}, 'nothing'), BadCall),
    (('zope_exec', '/', {'a': lambda: None}, 'nothing'), BadCall),
    (('zope_call', 'os.system', 'true'), BadCall),
    (('zope_call', lambda: None), BadCall),
    (('known', lambda: None), BadCall),
    (('known', 'x' * 10_000_001), BadCall),
])
def test_a_call_can_never_run(site, manager, call, error):
    sign_on(manager, ['known'])
    transaction.commit()
    last = site.db.lastTransaction()
    with pytest.raises(error) as refusal:
        manager.putCall(*call)
    assert isinstance(refusal.value, ValueError)
    assert manager.lenNewCalls() == 0
    transaction.commit()
    assert site.db.lastTransaction() == last


class LostAnswer:
    """A data manager that commits last, when the server takes the commit and goes away."""

    def __init__(self):
        self.transaction_manager = transaction.manager

    def sortKey(self):
        """After all databases."""
        return '~'

    def tpc_finish(self, current):
        """All others have finished."""
        raise ClientDisconnected('gone before it said so')

    def tpc_begin(self, current):
        """Nothing to do."""

    commit = tpc_vote = tpc_abort = abort = tpc_begin


class Page(SimpleItem):
    """A page that puts a call. The answer to its first commit is lost."""

    id = 'page'
    security = ClassSecurityInfo()
    answers = []

    @zpublish
    @security.public
    def put(self):
        """Put a call; → its id."""
        deferred = self.zam.putCall('zope_exec', '/', {}, 'python:1')
        self.answers.append(deferred.id)
        if len(self.answers) == 1:
            transaction.get().join(LostAnswer())
        return deferred.id


InitializeClass(Page)


def test_the_outcome_of_a_put_is_unknown(site, app, manager):
    app._setObject('page', Page())
    Page.answers.clear()
    answer = site.browser('admin').get('/page/put')
    assert answer.status_int == 200 and answer.text == Page.answers[1]
    assert sorted(call.id for call in manager.calls()) == sorted(Page.answers)
    assert len(Page.answers) == 2


@pytest.mark.parametrize('plugin', [None, 5, ['zope_exec'], {'a': 1}, b'zope_exec'])
def test_a_plugin_name_that_is_no_text_is_an_unknown_plugin(manager, plugin):
    with pytest.raises(UnknownPlugin):
        manager.putCall(plugin, 1)


def test_an_unknown_plugin_is_told_what_is_known(manager):
    sign_on(manager, ['resize'])
    with pytest.raises(UnknownPlugin) as refusal:
        manager.putCall('scheduel', 1)
    assert "'scheduel'" in str(refusal.value)
    for known in ('resize', 'schedule', 'zope_call', 'zope_exec'):
        assert known in str(refusal.value)


def test_every_argument_of_a_plugin_goes_to_it(manager):
    sign_on(manager, ['echo'])
    deferred = manager.putCall('echo', 1, 'two', three=3, session=4)
    assert deferred.arguments() == ((1, 'two'), {'three': 3, 'session': 4})


def test_an_application_call_has_no_session_and_a_session_call_has_its_browser(manager):
    args = ('zope_exec', '/', {}, 'nothing')
    assert manager._putCall(None, *args).session is None
    assert manager._putCall(('browser-7',), *args).session == 'browser-7'


@pytest.mark.parametrize('name', ['putCall'])
def test_only_who_has_the_permission_may_put_from_restricted_code(site, manager, name):
    site.login('bob')
    with pytest.raises(Unauthorized):
        manager.restrictedTraverse(name)
    site.login('admin')
    manager.restrictedTraverse(name)
    manager.manage_permission('Make Asynchronous Application Calls', ['Member'], 0)
    site.login('bob')
    manager.restrictedTraverse(name)


def test_a_thread_moves_to_another_lane_after_a_commit_that_failed(site, manager, monkeypatch):
    transaction.commit()
    moves = []
    monkeypatch.setattr(lanes, 'move', lambda: moves.append(1))
    own = lanes.current()
    rival = transaction.TransactionManager()
    other = site.db.open(rival)
    put(manager)
    put(manager)
    other.root()['Application'].zam.queue.put(make_call(), own)
    rival.commit()
    with pytest.raises(ConflictError):
        transaction.commit()
    transaction.abort()
    rival.abort()
    other.close()
    assert moves == [1]
    put(manager)
    transaction.commit()
    assert moves == [1]


# getDeferred

def test_the_caller_sees_its_call_and_another_user_does_not(site, manager):
    site.login('bob')
    id = put(manager).id
    assert manager.getDeferred(id).id == id
    site.login('eve')
    with pytest.raises(NotYours) as refusal:
        manager.getDeferred(id)
    assert id in str(refusal.value)
    site.logout()
    with pytest.raises(NotYours):
        manager.getDeferred(id)
    site.login('admin')
    assert manager.getDeferred(id).id == id


def test_a_user_of_the_same_name_in_another_folder_is_another_user(site, app, manager):
    app.manage_addFolder('sub')
    app.sub.manage_addUserFolder()
    site.add_user('bob', 'Member', folder=app.sub)
    site.login('bob')
    id = put(manager).id
    site.login('bob', app.sub)
    with pytest.raises(NotYours):
        manager.getDeferred(id)


def test_nobody_sees_no_call_of_nobody(site, manager):
    """All visitors are the same nobody: one must not read what another asked for."""
    site.logout()
    id = put(manager).id
    with pytest.raises(NotYours):
        manager.getDeferred(id)


def test_restricted_code_of_the_caller_reads_the_public_attributes_of_its_deferred(site, manager):
    from Products.zasync.expression import evaluate
    manager.manage_permission('Make Asynchronous Application Calls', ['Member'], 0)
    site.login('bob')
    names = {'manager': manager, 'id': put(manager).id}
    assert evaluate('python:manager.getDeferred(id).state', names) == 'new'
    for name in ('succeed', 'caller', 'arguments', 'give_back', 'owner'):
        with pytest.raises((Unauthorized, AttributeError)):
            evaluate(f'python:manager.getDeferred(id).{name}', names)


def test_an_unknown_id_is_a_key_error_that_names_it(manager, now):
    id = put(manager).id
    now.time += 60
    old = id[:-8] + '00000000'
    with pytest.raises(KeyError) as refusal:
        manager.getDeferred(old)
    assert old in str(refusal.value)
    assert 'moment' not in str(refusal.value)


@pytest.mark.parametrize('age, not_yet', [(0.0, True), (4.9, True), (5.1, False), (3600, False),
                                          (-2.0, True)])
def test_a_young_id_nobody_finds_is_not_to_be_seen_yet(manager, now, age, not_yet):
    """Another process sees a commit a moment after it returned."""
    id = put(manager).id[:-8] + '00000000'
    now.time += age
    with pytest.raises(KeyError) as refusal:
        manager.getDeferred(id)
    assert ('not to be seen yet' in str(refusal.value)) is not_yet
    assert id in str(refusal.value)


@pytest.mark.parametrize('id', ['', 'nonsense', None, 5, b'0-1-1-1', ('0', 1), '0-1-1',
                                '0-1-' + 'f' * 400 + '-1', '<script>'])
def test_nonsense_for_an_id_is_a_key_error_that_says_so(manager, id):
    with pytest.raises(KeyError) as refusal:
        manager.getDeferred(id)
    assert 'no id of a call' in str(refusal.value)
    # As HTML, and cut: Zope shows the text of an error as it is.
    assert escape(repr(id), quote=False)[:100] in refusal.value.args[0]


# ping

def test_a_manager_that_was_never_pinged_says_so(manager):
    assert (manager.getLastPing(), manager.getLastPong()) == (None, None)


def test_ping_and_pong_are_aware_utc_times(manager, now):
    manager.ping()
    assert manager.getLastPing().timestamp() == NOW
    assert manager.getLastPing().utcoffset().total_seconds() == 0
    assert manager.getLastPong() is None
    manager.queue.pulse.write(0, 0, 0.0, 1, 1, NOW + 1)
    assert manager.getLastPong().timestamp() == NOW + 1


def test_a_retry_that_was_rolled_back_tells_nothing_of_the_clock_of_the_storage(
        site, app, manager):
    """Else a worker that has died would be taken for alive."""
    site.login('admin')
    with clock.replaced(clock.ManualClock(NOW)) as mine:
        failed = put(manager)
        transaction.commit()
        failed.accept('boot', NOW)
        failed.fail(Failure('ValueError', 'no'), NOW)
        manager.queue.failed[failed.id] = failed
        transaction.commit()
        put(manager)
        transaction.commit()
        storage = clock.storage_clock(app._p_jar.db().database_name)
        before = storage.now(mine.monotonic(), None)
        mine.advance(3_600)
        savepoint = transaction.savepoint()
        assert manager.retry(failed.id) == 1
        savepoint.rollback()
        app.title = 'something else'
        transaction.commit()
        assert failed.state == 'failed'
        assert storage.now(mine.monotonic(), None) == pytest.approx(before + 3_600, abs=60)


def test_a_put_by_another_transaction_manager_than_the_threads_tells_of_its_own_commit(
        site, app, manager, monkeypatch):
    told = []
    monkeypatch.setattr(wakeup, 'tell', told.append)
    transaction.commit()
    site.login('admin')
    own, db = transaction.TransactionManager(), app._p_jar.db()
    connection = db.open(own)
    put(connection.root()['Application'].zam)
    assert list(transaction.get().getAfterCommitHooks()) == []
    own.commit()
    connection.close()
    assert told == [db]


# copying, deleting, renaming

@pytest.fixture
def busy(site, app, manager):
    """A manager with a call that waits and one that runs; somebody may do all in the ZMI."""
    site.login('admin')
    put(manager)
    put(manager)
    manager.queue.take_in_and_claim('boot', NOW, 1, 86_400)
    transaction.commit()
    return manager


def test_a_manager_is_copied(app, busy):
    busy.set_times(7, 777)
    transaction.commit()
    app.manage_pasteObjects(app.manage_copyObjects(['zam']))
    transaction.commit()
    copy = app.copy_of_zam
    assert copy.getId() == 'copy_of_zam'
    assert (copy.poll_interval, copy.rotation_period) == (7, 777)
    assert (copy.lenNewCalls(), copy.lenAcceptedCalls()) == (0, 0)
    assert copy.queue.desk.boot is None and copy.queue.card.boot is None
    assert (busy.lenNewCalls(), busy.lenAcceptedCalls()) == (1, 1)
    put(copy)
    assert (copy.lenNewCalls(), busy.lenNewCalls()) == (1, 1)


def test_a_copy_of_a_manager_keeps_its_security_settings(app, busy):
    busy.manage_permission('Make Asynchronous Application Calls', ['Member'], 0)
    busy.title = 'The fast one'
    transaction.commit()
    app.manage_pasteObjects(app.manage_copyObjects(['zam']))
    copy = app.copy_of_zam
    assert [role['name'] for role in copy.rolesOfPermission('Make Asynchronous Application Calls')
            if role['selected']] == ['Member']
    assert copy.title == 'The fast one'


def test_a_copy_of_a_dispatcher_has_managers_with_empty_queues(site, app):
    site.login('admin')
    app._setObject('zad', ZAsyncDispatcher('zad'))
    app.zad._setObject('zam1', AsynchronousCallManager('zam1'))
    put(app.zad.zam1)
    transaction.commit()
    app.manage_pasteObjects(app.manage_copyObjects(['zad']))
    transaction.commit()
    assert app.copy_of_zad.zam1.lenNewCalls() == 0
    assert app.copy_of_zad.zam1.queue.lanes[0]._p_oid != app.zad.zam1.queue.lanes[0]._p_oid
    assert app.zad.zam1.lenNewCalls() == 1


def test_an_imported_manager_has_an_empty_queue(site, app, busy, tmp_path):
    """Else each call would run twice, once for the original and once for the import."""
    path = tmp_path / 'zam.zexp'
    with path.open('wb') as file:
        busy._p_jar.exportFile(busy._p_oid, file)
    app.manage_addFolder('sub')
    app.sub._importObjectFromFile(str(path))
    assert app.sub.zam.lenNewCalls() == 0
    assert app.sub.zam.lenAcceptedCalls() == 0


def test_a_manager_with_open_calls_is_deleted(site, app, busy):
    answer = site.browser('admin').post('/manage_delObjects', {'ids:list': 'zam'})
    assert answer.status_int == 400
    assert '2 calls' in answer.text
    assert (app.zam.lenNewCalls(), app.zam.lenAcceptedCalls()) == (1, 1)


@pytest.mark.parametrize('place', ['dispatcher', 'folder'])
def test_what_holds_a_manager_with_open_calls_is_not_deleted(site, app, place):
    site.login('admin')
    if place == 'dispatcher':
        app._setObject('box', ZAsyncDispatcher('box'))
    else:
        app.manage_addFolder('box')
    app.box._setObject('zam1', AsynchronousCallManager('zam1'))
    put(app.box.zam1)
    answer = site.browser('admin').post('/manage_delObjects', {'ids:list': 'box'})
    assert answer.status_int == 400
    assert '1 call' in answer.text
    assert app.box.zam1.lenNewCalls() == 1
    with pytest.raises(BadRequest):
        app.manage_delObjects(['box'])


def test_the_other_managers_of_a_folder_that_is_not_deleted_go_on(site, app):
    """Who has tried that may catch the refusal, and commit."""
    site.login('admin')
    app.manage_addFolder('box')
    for id in 'idle', 'busy':
        app.box._setObject(id, AsynchronousCallManager(id))
    put(app.box.busy)
    transaction.commit()
    with pytest.raises(BadRequest):
        app.manage_delObjects(['box'])
    transaction.commit()
    idle = app.box.idle
    assert idle.lenNewCalls() == 0
    deferred = idle.putCall('echo', 1)
    transaction.commit()
    deferred.addCallbacks('result')
    transaction.commit()
    with pytest.raises(BadRequest, match='2 calls'):
        app.box.manage_delObjects(['idle'])


def test_a_call_that_a_deletion_puts_to_the_manager_that_is_deleted_refuses_it(app, manager):
    """Somebody who is told of a deletion may have work for later."""
    def told(removed, event):
        if removed.getId() == 'box':
            app.box.zam1.putCall('echo', 1)

    app.manage_addFolder('box')
    app.box._setObject('zam1', AsynchronousCallManager('zam1'))
    adapts = (IItem, IObjectWillBeRemovedEvent)
    provideHandler(told, adapts)
    try:
        with pytest.raises(BadRequest, match='1 call'):
            app.manage_delObjects(['box'])
    finally:
        getGlobalSiteManager().unregisterHandler(told, adapts)


@pytest.mark.parametrize('committed', [False, True])
def test_a_manager_that_was_deleted_takes_no_calls(site, app, manager, committed):
    """Somebody may have kept it. Nobody would run them."""
    site.login('admin')
    failed = put(manager)
    manager.queue.take_in_and_claim('boot', NOW, 1, 86_400)
    manager.queue.fail(failed.id, Failure('ValueError', 'no', ''), NOW, 86_400)
    transaction.commit()
    app.manage_delObjects(['zam'])
    if committed:
        transaction.commit()
    for act in (lambda: manager.putCall('echo', 1), manager.retry,
                lambda: manager.putCall('aggregate', [('echo', (1,))])):
        with pytest.raises(BadCall, match='the manager was deleted'):
            act()
    transaction.commit()
    assert manager.queue.find(failed.id).state == 'failed'


def test_a_manager_without_open_calls_is_deleted(site, app, manager):
    assert site.browser('admin').post(
        '/manage_delObjects', {'ids:list': 'zam'}).status_int in (200, 302)
    assert 'zam' not in app.objectIds()


def test_a_manager_whose_calls_have_all_ended_is_deleted(site, app, manager):
    deferred = put(manager)
    manager.queue.take_in_and_claim('boot', NOW, 1, 86_400)
    deferred.succeed(None, NOW)
    assert manager.open_calls() == 0
    site.browser('admin').post('/manage_delObjects', {'ids:list': 'zam'})
    assert 'zam' not in app.objectIds()


@pytest.mark.parametrize('taken_in', [False, True])
def test_a_manager_whose_calls_were_cancelled_is_deleted_though_no_worker_comes(
        site, app, manager, taken_in):
    deferred = put(manager)
    if taken_in:
        manager.queue.take_in_and_claim('boot', NOW, 0, 86_400)
    assert deferred.cancel()
    assert (manager.lenNewCalls(), manager.open_calls()) == (0, 0)
    assert site.browser('admin').post(
        '/manage_delObjects', {'ids:list': 'zam'}).status_int in (200, 302)
    assert 'zam' not in app.objectIds()


@pytest.mark.parametrize('first', ['put', 'deletion'])
def test_of_a_put_and_an_overlapping_deletion_one_is_refused(site, app, manager, first):
    """Else the put would commit into the void."""
    transaction.commit()
    rival = transaction.TransactionManager()
    other = site.db.open(rival)
    try:
        other.root()['Application'].zam.queue.put(make_call(), 5)
        app.manage_delObjects(['zam'])
        commits = [rival.commit, transaction.commit]
        if first == 'deletion':
            commits.reverse()
        commits[0]()
        with pytest.raises(ConflictError):
            commits[1]()
    finally:
        transaction.abort()
        rival.abort()
        other.close()
    assert ('zam' in app.objectIds()) is (first == 'put')


def test_a_renamed_manager_keeps_its_calls(site, app, busy):
    ids = {deferred.id for deferred in busy.queue.desk.running.values()}
    answer = site.browser('admin').post(
        '/manage_renameObjects', {'ids:list': 'zam', 'new_ids:list': 'other'})
    assert answer.status_int in (200, 302)
    assert (app.other.lenNewCalls(), app.other.lenAcceptedCalls()) == (1, 1)
    assert {app.other.getDeferred(id).id for id in ids} == ids


def test_a_moved_manager_keeps_its_calls(site, app, busy):
    app.manage_addFolder('sub')
    transaction.commit()
    app.sub.manage_pasteObjects(app.manage_cutObjects(['zam']))
    transaction.commit()
    assert (app.sub.zam.lenNewCalls(), app.sub.zam.lenAcceptedCalls()) == (1, 1)
