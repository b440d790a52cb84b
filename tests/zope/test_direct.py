"""A call run in the request because no worker lives: the worker's execution, with a savepoint."""

import pytest
import transaction
from AccessControl import getSecurityManager
from AccessControl.SecurityManagement import newSecurityManager
from Acquisition import Implicit
from transaction.interfaces import DoomedTransaction
from transaction.interfaces import TransactionFailedError
from ZODB.blob import Blob
from zope.globalrequest import clearRequest
from zope.globalrequest import getRequest
from zope.globalrequest import setRequest

from Products.zasync.errors import CommitRefused
from Products.zasync.options import Options
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.zope import jobs


@pytest.fixture
def zad(site, app):
    """A dispatcher without a manager; bob is logged in."""
    app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
    transaction.commit()
    site.login('bob')
    return app.asynchronous_call_dispatcher


def marks(app):
    return getattr(app.aq_base, '_marks', None)


def test_the_result_and_the_effects_are_there_at_once_and_commit_with_the_request(app, zad):
    _, deferred = zad.putCall('zope_call', jobs.mark, 'done')
    assert (deferred.state, deferred.result) == ('resolved', 'done')
    assert marks(app) == 'done'
    transaction.commit()
    assert marks(app) == 'done'


def test_the_effects_are_gone_if_the_request_aborts(app, zad):
    zad.putCall('zope_call', jobs.mark, 'done')
    transaction.abort()
    assert marks(app) is None


@pytest.mark.parametrize('error', [('ValueError', 'no'), ('KeyError', 'x'),
                                   ('RuntimeError',),
                                   ('SyntaxError', 'no', ('file', 1, 1, b'bytes'))])
def test_a_call_that_runs_in_a_request_fails(app, zad, error):
    app._before = 'of the request'
    _, deferred = zad.putCall('zope_call', jobs.mark_and_fail, 'half', *error)
    assert (deferred.state, deferred.result) == ('failed', None)
    assert deferred.failure.type_name == error[0]
    assert 'mark_and_fail' in deferred.failure.traceback_text
    assert marks(app) is None
    assert app._before == 'of the request'
    app._after = 'the request goes on'
    transaction.commit()
    assert (app._before, app._after, marks(app)) == ('of the request', 'the request goes on', None)


def test_a_failed_call_is_undone_whatever_transaction_manager_its_connection_has(app, zad):
    own = transaction.TransactionManager()
    connection = app._p_jar.db().open(own)
    root = connection.root()['Application']
    root._before = 'of the caller'
    _, deferred = root.asynchronous_call_dispatcher.putCall(
        'zope_call', jobs.mark_and_fail, 'half', 'ValueError')
    assert deferred.state == 'failed'
    own.commit()
    connection.close()
    transaction.begin()
    assert (app._before, marks(app)) == ('of the caller', None)


def test_what_a_call_stores_that_has_no_pickle_fails_the_commit_of_the_request(app, zad):
    zad.putCall('zope_call', jobs.store_lambda, 'half')
    with pytest.raises(Exception, match='pickle'):
        transaction.commit()
    transaction.abort()
    assert marks(app) is None


def test_plone_protect_sees_what_a_call_has_changed(app, zad):
    """It looks at what is registered with the connections, to refuse a page that writes."""
    zad.putCall('zope_call', jobs.mark, 'done')
    assert app.aq_base in app._p_jar._registered_objects


def test_the_request_fails_with_a_call_that_dooms_its_transaction(app, zad):
    """Else the publisher would leave out the commit, and the page would tell of success."""
    with pytest.raises(CommitRefused, match='has doomed its transaction'):
        zad.putCall('zope_call', jobs.doom, 'half')
    transaction.abort()
    transaction.doom()
    _, deferred = zad.putCall('zope_call', jobs.mark, 'of a request that dooms its own')
    assert deferred.state == 'resolved'
    transaction.abort()


class WithoutSavepoints:
    """What takes part in a transaction as an SQL connection of Zope does."""

    def sortKey(self):
        """See Shared.DC.ZRDB.TM."""
        return '1'

    def abort(self, current):
        """Nothing to do."""

    tpc_begin = commit = tpc_vote = tpc_finish = tpc_abort = abort


def test_the_request_fails_with_a_call_that_can_not_be_undone_alone(app, zad):
    app._before = 'of the request'
    transaction.commit()
    app._before = 'of the one that fails'
    transaction.get().join(WithoutSavepoints())
    with pytest.raises(CommitRefused) as refusal:
        zad.putCall('zope_call', jobs.mark_and_fail, 'half', 'ValueError', 'no')
    assert '(ValueError: no), and what it did can not be undone alone: ' in str(refusal.value)
    assert refusal.value.__cause__.args == ('no',)
    with pytest.raises(TransactionFailedError):
        transaction.commit()
    transaction.abort()
    assert (app._before, marks(app)) == ('of the request', None)


@pytest.mark.parametrize('transient', [False, True])
def test_a_request_is_not_committed_with_a_blob_that_a_failed_call_has_overwritten(
        app, zad, transient):
    app._before = Blob(b'at first')
    transaction.commit()
    with app._before.open('w') as file:
        file.write(b'of the request')
    with pytest.raises(jobs.Again if transient else CommitRefused) as refusal:
        zad.putCall('zope_call', jobs.overwrite_and_fail, '_before', transient)
    if not transient:
        assert '(ValueError: no), and what it did can not be undone alone: a blob' in str(
            refusal.value)
    with pytest.raises(DoomedTransaction):
        transaction.commit()
    transaction.abort()
    with app._before.open() as file:
        assert file.read() == b'at first'


def test_a_transient_error_goes_to_the_publisher(app, zad):
    with pytest.raises(jobs.Again):
        zad.putCall('zope_call', jobs.mark_and_transient, 'half')
    transaction.abort()
    assert marks(app) is None


CONFLICT = ('zope_call', (jobs.mark_and_transient, 'half'))


@pytest.mark.parametrize('call', [CONFLICT, (
    'aggregate', ([('zope_call', (jobs.mark, 'a member')), CONFLICT],))])
def test_nothing_is_left_of_a_call_whose_transient_error_somebody_catches(app, zad, call):
    """Else the calls of its series would wait for ever, and who puts it again has it twice."""
    app._before = 'of the request'
    with pytest.raises(jobs.Again):
        zad.putCallWith(Options(series='one'), call[0], *call[1])
    transaction.commit()
    assert (app._before, marks(app)) == ('of the request', None)
    _, deferred = zad.putCallWith(Options(series='one'), 'zope_call', jobs.mark, 'again')
    assert (deferred.state, marks(app)) == ('resolved', 'again')


def test_a_call_with_a_transient_error_that_can_not_be_undone_alone_is_not_committed(app, zad):
    """The error comes through all the same: the publisher begins again."""
    transaction.get().join(WithoutSavepoints())
    with pytest.raises(jobs.Again):
        zad.putCall('zope_call', jobs.mark_and_transient, 'half')
    with pytest.raises(TransactionFailedError):
        transaction.commit()
    transaction.abort()
    assert marks(app) is None


def test_a_system_exit_does_not_become_a_result_nor_pass_unseen(app, zad):
    """As in a worker: the call fails. Letting it through would end the web server."""
    _, deferred = zad.putCall('zope_call', jobs.exit_process)
    assert deferred.state == 'failed'
    assert deferred.failure.type_name == 'SystemExit'


@pytest.mark.parametrize('job', [jobs.mark_and_commit, jobs.mark_and_commit_quietly,
                                 jobs.mark_and_abort])
def test_a_call_that_runs_in_a_request_commits(app, zad, job):
    app._before = 'of the request'
    with pytest.raises(CommitRefused):
        zad.putCall('zope_call', job, 'half')
    transaction.abort()
    assert marks(app) is None
    assert getattr(app.aq_base, '_before', None) is None


def test_a_request_that_goes_on_after_a_refused_commit_can_not_commit_half(app, zad):
    app._before = 'of the request'
    with pytest.raises(CommitRefused):
        zad.putCall('zope_call', jobs.mark_and_commit, 'half')
    with pytest.raises(Exception):  # noqa: B017 (TransactionFailedError, or CommitRefused again)
        transaction.commit()
    transaction.abort()
    assert marks(app) is None
    assert getattr(app.aq_base, '_before', None) is None


def test_the_request_may_commit_after_the_call(app, zad):
    zad.putCall('zope_call', jobs.mark, 'one')
    transaction.commit()
    zad.putCall('zope_call', jobs.mark_and_fail, 'two')
    transaction.commit()
    assert marks(app) == 'one'


def test_a_checkpoint_is_a_savepoint_and_the_request_still_decides(app, zad):
    _, deferred = zad.putCall('zope_call', jobs.checkpoint_and_return, 'kept')
    assert deferred.memo == {'done': 1}
    assert deferred.state == 'resolved'
    assert marks(app) == 'kept'
    transaction.abort()
    assert marks(app) is None


def test_a_failure_after_a_checkpoint_rolls_all_of_the_call_back(app, zad):
    """A call of one request: its effects are there or not at all."""
    _, deferred = zad.putCall('zope_call', jobs.mark_and_checkpoint, 'first')
    assert (deferred.failure.text, deferred.memo) == ('after the checkpoint', {})
    assert marks(app) is None


@pytest.mark.parametrize('job, what', [
    (jobs.unpicklable, 'the result '), (jobs.fail_unpicklably, 'the failure ')])
def test_a_result_that_can_not_be_kept_fails_the_call_and_its_effects(app, zad, job, what):
    _, deferred = zad.putCall('zope_call', job)
    assert deferred.state == 'failed'
    assert deferred.failure.type_name == 'Products.zasync.errors.BadResult'
    assert deferred.failure.text.startswith(what)
    assert marks(app) is None


def test_the_call_has_a_bare_request_of_its_own(app, zad):
    request = app.REQUEST
    request.form['secret'] = 1
    request.cookies['__ac'] = 'x'
    setRequest(request)
    try:
        _, deferred = zad.putCall('zope_call', jobs.misuse_request)
        assert deferred.result == ([], [])
        assert request.RESPONSE.getStatus() == 200
        assert request.RESPONSE.cookies == {}
        assert request.get('REQUEST_METHOD') == 'GET'
        assert getRequest() is request
    finally:
        clearRequest()


def test_the_call_runs_as_the_caller(site, zad):
    assert zad.putCall('zope_call', jobs.who)[1].result == 'bob'
    site.login('eve')
    assert zad.putCall('zope_call', jobs.who)[1].result == 'eve'
    site.logout()
    assert zad.putCall('zope_call', jobs.who)[1].result == 'Anonymous User'


class ProxyScript(Implicit):
    """An executable with proxy roles, as a PythonScript of a Manager may have them."""

    _proxy_roles = ('Manager',)

    def getOwner(self, info=0):
        """Unowned."""

    def getWrappedOwner(self):
        """Unowned."""


def test_proxy_roles_of_the_calling_script_do_not_reach_the_call(app, zad):
    """Else a direct run would have more rights than a queued one."""
    script = ProxyScript().__of__(app)
    manager = getSecurityManager()
    manager.addContext(script)
    try:
        assert manager.checkPermission('Manage users', app)
        _, deferred = zad.putCall('zope_call', jobs.context_facts)
        roles, stack = deferred.result
        assert 'Manager' not in roles
        assert stack == []
        text = 'python:user.has_permission("Manage users", home) and 1 or 0'
        assert zad.putCall('zope_exec', '/', {}, text)[1].result == 0
        # And the script goes on with what it had.
        assert getSecurityManager() is manager
        assert manager.checkPermission('Manage users', app)
    finally:
        manager.removeContext(script)


@pytest.mark.parametrize('job', [jobs.add, jobs.mark_and_commit])
def test_the_security_manager_of_the_request_is_put_back_also_after_errors(zad, job):
    before = getSecurityManager()
    if job is jobs.mark_and_commit:
        with pytest.raises(CommitRefused):
            zad.putCall('zope_call', job, 'x')
    else:
        zad.putCall('zope_call', job, 'no number')
    assert getSecurityManager() is before
    transaction.abort()


def test_a_caller_without_the_rights_gets_unauthorized_and_effects_are_rolled_back(app, zad):
    app.manage_addFolder('private')
    app.private.manage_permission('View', ['Manager'], 0)
    text = 'python:(home.manage_addFolder("made_by_bob"), 1)'
    _, deferred = zad.putCall('zope_exec', '/', {}, text)
    assert deferred.state == 'failed'
    assert deferred.failure.type_name.endswith('Unauthorized')
    assert 'made_by_bob' not in app.objectIds()


def test_a_nested_call_runs_inside_the_first_and_fails_alone(app, zad, site):
    """A call that puts a call, with nobody living: the inner one is a savepoint inside ours."""
    site.login('admin')
    inner = "python:(home.manage_addFolder('inner'), 1 / 0)"
    text = ('python:(home.manage_addFolder("outer"), home.asynchronous_call_dispatcher.putCall('
            f'"zope_exec", "/", {{}}, "{inner}")[1].state)[1]')
    _, deferred = zad.putCall('zope_exec', '/', {}, text)
    assert deferred.failure is None, deferred.failure.traceback_text
    assert deferred.result == 'failed'
    assert 'outer' in app.objectIds() and 'inner' not in app.objectIds()


def test_the_deferred_of_a_direct_run_can_not_be_found_again(zad):
    """It is stored nowhere: the caller holds the only one."""
    _, deferred = zad.putCall('zope_call', jobs.add, 1)
    assert deferred._p_jar is None
    assert deferred.id.startswith('direct-')


def test_two_direct_runs_in_one_request_both_count(app, zad):
    one = zad.putCall('zope_call', jobs.add, 1)[1]
    two = zad.putCall('zope_call', jobs.add, 2)[1]
    assert (one.result, two.result) == (2, 3)
    assert one.id != two.id
    transaction.commit()


def test_a_caller_that_is_gone_fails_the_call(site, app, zad):
    user = site.user('bob')
    app.acl_users.userFolderDelUsers(['bob'])
    newSecurityManager(None, user)
    _, deferred = zad.putCall('zope_call', jobs.add, 1)
    assert deferred.failure.type_name == 'Products.zasync.errors.CallerGone'
