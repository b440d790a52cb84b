"""The site of the storm: who may do what, and the page by which people put calls.

Imports: jobs, journal, zasync, zasyncdispatcher.
"""

import json
import sys
import time
import uuid
from datetime import timedelta

import transaction
from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from AccessControl.userfolder import UserFolder
from BTrees.OOBTree import OOBTree
from OFS.Application import Application
from OFS.SimpleItem import SimpleItem
from persistent.mapping import PersistentMapping
from ZODB.POSException import ConflictError
from ZPublisher import zpublish

from Products.zasync.errors import NotYours
from Products.zasync.manager import AsynchronousCallManager
from Products.zasync.options import Options
from Products.zasync.options import Retry
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.storm import jobs
from tests.storm.journal import note
from tests.storm.plan import WORKERS


#: Who puts calls. Each has a home that nobody else may see.
USERS = ('ann', 'bob', 'cyd', 'dan')
PASSWORD = 'secret'

#: Names a person's keyed calls have.
KEYS = 4
SERIES = ('red', 'green')

#: Bytes of a big argument.
BALLAST = 20_000

#: Where a kind of call may be put: also by the dispatcher, which may run it in the request.
ANYWHERE, QUEUED = 'anywhere', 'queued'

PUT = 'Make Asynchronous Application Calls'

#: The shortest that a dispatcher takes, in seconds.
MAX_IDLE = 25.0


class Home(SimpleItem):
    """What belongs to one person."""

    meta_type = 'Storm Home'
    security = ClassSecurityInfo()
    security.declareObjectProtected('View')

    def __init__(self, id):
        self.id = id

    @zpublish(False)
    @security.protected('View')
    def have_effect(self, token):
        """The effect of a call that an expression makes."""
        return jobs.have_effect(token)


InitializeClass(Home)


class Desk(SimpleItem):
    """The page."""

    id = 'desk'
    meta_type = 'Storm Desk'
    security = ClassSecurityInfo()

    @zpublish(methods='POST')
    @security.protected(PUT)
    def put(self, text):
        """Do what that request says (see plan.Client); → what was put, as JSON."""
        asked = json.loads(text)
        attempt = uuid.uuid4().hex
        user = asked['user']
        for call in asked['calls']:
            call['token'] += '-' + attempt
        note('asked', attempt=attempt, user=user,
             tokens=[call['token'] for call in asked['calls']])
        transaction.get().addAfterCommitHook(_note_end, (attempt,))
        began = time.perf_counter()
        try:
            if asked['fate'] == 'roll back':
                point = transaction.savepoint()
                gone = [call['token'] + '/gone' for call in asked['calls']]
                note('undone', tokens=gone)
                for token in gone:
                    self._zad().putCall('zope_call', jobs.plain, token)
                point.rollback()
            put = [self._put_one(user, **call) for call in asked['calls']]
        except Exception as reason:
            note('aborted', attempt=attempt, reason=repr(reason))
            raise
        note('put', attempt=attempt, calls=put, seconds=time.perf_counter() - began)
        if asked['fate'] == 'abort':
            note('aborted', attempt=attempt, reason='asked for')
            raise RuntimeError('this request fails on purpose')
        return json.dumps(put)

    @zpublish(methods='POST')
    @security.protected(PUT)
    def cancel(self, manager, id):
        """Cancel a call of one's own."""
        try:
            self._zad()[manager].getDeferred(id).cancel()
        except KeyError:  # not to be seen yet
            return 'unknown'
        return 'cancelled'

    @zpublish(methods='POST')
    @security.protected(PUT)
    def late(self, manager, id, token):
        """Add a callback to a call of one's own that was put before."""
        try:
            deferred = self._zad()[manager].getDeferred(id)
        except KeyError:
            return 'unknown'
        attempt = uuid.uuid4().hex
        note('late', attempt=attempt, token=token)
        transaction.get().addAfterCommitHook(_note_end, (attempt,))
        deferred.addCallbacks(jobs.late)
        return 'added'

    @zpublish(methods='POST')
    @security.protected(PUT)
    def guess(self, manager, id):
        """Look at a call of somebody else's."""
        try:
            deferred = self._zad()[manager].getDeferred(id)
        except (KeyError, NotYours) as reason:
            return type(reason).__name__
        note('seen', id=id)
        return deferred.state

    def _zad(self):
        return self.getPhysicalRoot().asynchronous_call_dispatcher

    def _put_one(self, user, kind, token, number, seconds, manager):
        """Put a call of that kind; → what the journal is to know of it."""
        way, options, plugin, *args = _call(user, kind, token, number, seconds)
        if way == QUEUED:
            manager = manager or WORKERS[number % len(WORKERS)]
        if kind == 'keyed':
            self._p_jar.root()['wanted'][f'{user}-{number}'].n += 1
        place = self._zad() if manager is None else self._zad()[manager]
        found = place.putCallWith(Options(**options), plugin, *args)
        where, deferred = found if isinstance(found, tuple) else (manager, found)
        if kind == 'chain':
            deferred.addCallbacks(jobs.after)
        joined = kind == 'keyed' and deferred.arguments()[0][1] != token
        return {'kind': kind, 'token': token, 'manager': where, 'id': deferred.id, 'user': user,
                'joined': joined, 'state': deferred.state if where is None else None,
                'number': number}


InitializeClass(Desk)


def _call(user, kind, token, number, seconds):
    """(where it may be put, options, plugin, arguments) of a call of that kind."""
    name = f'{user}-{number}'
    other = USERS[(USERS.index(user) + 1) % len(USERS)]
    expression = "python: here.have_effect(request['token'])"
    variables = {'token': token}
    series = SERIES[number % 2]
    members = [('zope_call', jobs.plain, f'{token}/{each}') for each in range(number)]
    where, options, *call = {
        'plain': (ANYWHERE, {'priority': number - 2}, jobs.plain, token),
        'quick': (ANYWHERE, {}, jobs.quick, token),
        'slow': (ANYWHERE, {}, jobs.slow, token, seconds),
        'fails': (ANYWHERE, {}, jobs.fails, token),
        'steps': (QUEUED, {}, jobs.steps, token, number, seconds / 4),
        'sneaky': (QUEUED, {}, jobs.sneaky, token, seconds),
        'once': (QUEUED, {'retry': False}, jobs.once, token, seconds),
        'timed': (QUEUED, {'timeout': 0.8}, jobs.slow, token, seconds),
        'flaky': (QUEUED, {'retry': Retry(number + 1, 0.2)}, jobs.flaky, token, number),
        'series': (ANYWHERE, {'series': series}, jobs.in_series, token, series, seconds / 8),
        'keyed': (ANYWHERE, {'key': name}, jobs.keyed, token, name),
        'chain': (ANYWHERE, {}, jobs.plain, token),
        'together': (QUEUED, {}, 'aggregate', members),
        'delayed': (ANYWHERE, {'not_before': timedelta(seconds=2 * seconds)}, jobs.plain, token),
        'expiring': (ANYWHERE, {'expires': timedelta(seconds=seconds + 0.1)}, jobs.plain, token),
        'own': (ANYWHERE, {}, 'zope_exec', f'/home_{user}', variables, expression, {}),
        'foreign': (QUEUED, {}, 'zope_exec', f'/home_{other}', variables, expression, {}),
        'big': (ANYWHERE, {}, jobs.plain, token, 'x' * BALLAST),
        'poison': (QUEUED, {}, jobs.poison, token),
    }[kind]
    return where, options, *([] if isinstance(call[0], str) else ['zope_call']), *call


def _note_end(committed, attempt):
    """After the end of a request's commit, whatever it was."""
    reason = None if committed else sys.exc_info()[1]
    if committed:
        note('committed', attempt=attempt)
    elif isinstance(reason, ConflictError):
        note('refused', attempt=attempt, reason=str(reason), on=str(reason.class_name))
    else:
        note('unknown', attempt=attempt, reason=repr(reason))


def build(root):
    """Fill an empty database; in the current transaction."""
    app = root['Application'] = Application()
    if 'acl_users' not in app.objectIds():
        app._setObject('acl_users', UserFolder())
    app._addRole('Storm')
    app.acl_users._doAddUser('boss', PASSWORD, ['Manager'], [])
    for user in USERS:
        app.acl_users._doAddUser(user, PASSWORD, ['Storm'], [])
        app._setObject(f'home_{user}', Home(f'home_{user}'))
        home = app[f'home_{user}']
        home.manage_permission('View', ['Owner'], acquire=0)
        home.manage_setLocalRoles(user, ['Owner'])
    app._setObject('desk', Desk())
    app._setObject('asynchronous_call_dispatcher', ZAsyncDispatcher())
    zad = app.asynchronous_call_dispatcher
    zad.max_idle_time = MAX_IDLE
    zad.manage_permission(PUT, ['Storm', 'Manager'], acquire=0)
    app.desk.manage_permission(PUT, ['Storm', 'Manager'], acquire=0)
    for id in WORKERS:
        zad._setObject(id, AsynchronousCallManager(id))
    root['effects'] = tuple(OOBTree() for _ in range(jobs.BUCKETS))
    names = [f'{user}-{number}' for user in USERS for number in range(1, KEYS + 1)]
    for what in ('wanted', 'done'):
        root[what] = PersistentMapping((name, jobs.Number()) for name in names)
