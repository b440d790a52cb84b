"""The one door to zasync: asking for a run in the background, and knowing who runs us.

Both products are optional. Without zasyncdispatcher, or without a dispatcher to acquire,
the work is done in the request; without zasync nothing is ever "inside a call".

The expression is a constant; what varies travels as request variables.

Imports: transaction, syncstatus, errors; zasyncdispatcher and zasync when they are there.
"""

import logging
import uuid

import transaction
from transaction.interfaces import TransientError

from . import errors
from .syncstatus import read_current


logger = logging.getLogger('CPSMailAccess')

DISPATCHER_ID = 'asynchronous_call_dispatcher'

SYNCHRONIZE = 'python: here.synchronize(light=request.light)'
INDEX_MAILS = 'python: here.indexMails(request.stack)'

#: What became of a request.
QUEUED, JOINED, DONE, FAILED = 'queued', 'joined', 'done', 'failed'


class Run:
    """Who runs us: a call of a worker, a direct run of a dispatcher, or a plain request.

    owner -- the call's id, the same when the call is run again after a crash; outside a
    call a fresh token, whose lease nobody sees before it is over.
    """

    def __init__(self, call=None):
        self._call = call
        self.in_call = call is not None
        self.owner = call.id if call is not None else 'request-%s' % uuid.uuid4().hex

    def checkpoint(self):
        """In a worker: commit what was done, fenced. Elsewhere the caller's transaction goes
        on; a savepoint gives the memory of a large first run back."""
        if self._call is not None:
            self._call.checkpoint()
        else:
            transaction.savepoint(optimistic=True)


def current_run():
    """The Run we are in."""
    try:
        from Products.zasync import running
    except ImportError:
        return Run()
    return Run(running.current())


def find_dispatcher(context):
    """The dispatcher acquired from `context`, or None."""
    try:
        from Products.zasyncdispatcher import canAsync
    except ImportError:
        return None
    if not canAsync(context):
        return None
    return getattr(context, DISPATCHER_ID, None)


def request_synchronisation(box, light, now):
    """See IMailBox.background_synchronisation.

    Joining relies on what was read: that the run, or the call, has not ended. Either may end
    before we commit; then our commit is refused and the publisher makes the request anew. A
    run's batches change neither; the call is written by each, so it is claimed to be as it
    was only while it waits.
    """
    status, requests = box.sync_status, box.sync_requests
    held = status.is_held(now, requests)
    waits = not held and requests.is_open() and not (
        requests.is_silent(status, now) or is_lost(box))
    requests.ask(light)
    if held or waits:
        read_current(status)
        if waits:
            read_current(requests.call)
        return JOINED
    dispatcher = find_dispatcher(box)
    if dispatcher is None:
        return _in_this_request(box, light)
    pair = _put(dispatcher, box, {'light': light}, SYNCHRONIZE)
    if isinstance(pair, str):
        requests.problem = pair
        return FAILED
    manager_id, call = pair
    if call is None:
        return _in_this_request(box, light)
    requests.put(call, manager_id)
    if not call.ended:
        return QUEUED
    # No worker lives, and the dispatcher ran the call here.
    return DONE if call.failure is None else FAILED


def is_lost(box):
    """Whether the call that was put for a mailbox is open and will never run: no manager of the
    dispatcher knows it, or the dispatcher can't be acquired any more."""
    requests = box.sync_requests
    if requests.manager_id is None or not requests.is_open():
        return False
    dispatcher = find_dispatcher(box)
    if dispatcher is None:
        return True
    # It may have been moved to another one, but is first looked for where it was put.
    managers = sorted(dispatcher.managers(), key=lambda each: each.getId() != requests.manager_id)
    return not any(_knows(each, requests.call_id) for each in managers)


def _knows(manager, call_id):
    try:
        return manager.getDeferred(call_id) is not None
    except KeyError:
        return False
    except _not_yours():
        return True


def _not_yours():
    from Products.zasync.errors import NotYours
    return NotYours


def request_indexing(box, stack):
    """Have `stack` indexed by a worker; whether that could be arranged."""
    dispatcher = find_dispatcher(box)
    if dispatcher is None:
        return False
    pair = _put(dispatcher, box, {'stack': stack}, INDEX_MAILS)
    return not isinstance(pair, str) and pair[1] is not None


def _in_this_request(box, light):
    try:
        box.synchronize(light=light)
    except errors.MailError:
        # The status has the sentence and is part of this transaction; raising would abort
        # it and leave the page without a reason.
        return FAILED
    return DONE


def _put(dispatcher, box, variables, expression):
    """The dispatcher's (manager id, Deferred); text that says why, when it takes no call."""
    savepoint = transaction.savepoint(optimistic=True)
    try:
        return dispatcher.putCall('zope_exec', box.getPhysicalPath(), variables, expression)
    except TransientError:
        raise
    except Exception as error:
        # A dispatcher without managers, one told to refuse, or a broken one: the mailbox's
        # page must say so and not fall over (historic defect E.23). What was half written
        # is taken back.
        savepoint.rollback()
        logger.warning('the dispatcher took no call for %s',
                       '/'.join(box.getPhysicalPath()), exc_info=True)
        return 'The call could not be put: %s: %s' % (type(error).__name__, error)
