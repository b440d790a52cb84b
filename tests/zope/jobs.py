"""What the calls of the tests do; a module, so that zope_call can name them."""

import builtins

import transaction
from AccessControl import getSecurityManager
from zope.globalrequest import getRequest

from Products.zasync import checkpoint
from Products.zasync.failure import Failure
from Products.zasync.options import Options


class Again(transaction.interfaces.TransientError):
    """The publisher should start the request again."""


def who():
    """Id of the user this runs as; the special name of a user without one."""
    user = getSecurityManager().getUser()
    return user.getId() or user.getUserName()


def context_facts():
    """(roles that may be used now, whether there is an executable on the security stack)."""
    manager = getSecurityManager()
    return tuple(manager.getUser().getRoles()), list(manager._context.stack)


def add(number):
    """A number more."""
    return number + 1


def mark(text):
    """Leave a mark in the root of the database."""
    getRequest()['PARENTS'][-1]._marks = text
    return text


def fail(kind='ValueError', *args):
    """Fail with that error of Python's."""
    raise getattr(builtins, kind)(*args)


def mark_and_fail(text, *error):
    """Leave a mark, then fail with that error."""
    mark(text)
    fail(*error)


def overwrite_and_fail(name, transient):
    """Write that blob of the root, store it by a savepoint, and fail, or meet a conflict."""
    with getattr(getRequest()['PARENTS'][-1], name).open('w') as file:
        file.write(b'of the call')
    transaction.savepoint(optimistic=True)
    raise Again('no') if transient else ValueError('no')


def mark_and_transient(text):
    """Leave a mark, then meet a conflict."""
    mark(text)
    raise Again('met somebody')


def mark_and_commit(text):
    """Leave a mark, then commit behind everybody's back."""
    mark(text)
    transaction.commit()


def mark_and_commit_quietly(text):
    """The same, swallowing what comes of it."""
    mark(text)
    try:
        transaction.commit()
    except Exception:  # noqa: S110 (that is the point)
        pass


def mark_and_abort(text):
    """Leave a mark, then abort."""
    mark(text)
    transaction.abort()


def mark_and_checkpoint(text):
    """Leave a mark, make sure of it, leave another and fail."""
    mark(text)
    checkpoint(done=1)
    mark(text + ', and more')
    raise ValueError('after the checkpoint')


def checkpoint_and_return(text):
    """Leave a mark, make sure of it and go on."""
    mark(text)
    checkpoint(done=1)
    return text


def unpicklable():
    """Leave a mark, then return what can't be kept."""
    mark('unpicklable')
    return lambda: None


def fail_unpicklably(result=None):
    """Leave a mark, then return a failure that can't be kept."""
    mark('unpicklable')
    return Failure('ValueError', ValueError('its text was meant'))


def misuse_request():
    """Do to the request what must not reach the real one."""
    request = getRequest()
    request.RESPONSE.redirect('http://evil.example.org')
    request.RESPONSE.expireCookie('__ac')
    request.set('REQUEST_METHOD', 'DELETE')
    return sorted(request.form), sorted(request.cookies)


def exit_process():
    """What a call must not do to its process."""
    raise SystemExit(3)


def put_in_series(series):
    """Put a call of that series to the dispatcher; → (manager id, id of the call)."""
    app = getRequest()['PARENTS'][-1]
    id, deferred = app.asynchronous_call_dispatcher.putCallWith(
        Options(series=series), 'zope_exec', '/', {}, 'nothing')
    return id, deferred.id


def give_lambda(result):
    """A callback that returns what can't be kept."""
    return lambda: result


def store_lambda(text):
    """Leave a mark, then store what has no pickle."""
    mark(text)
    getRequest()['PARENTS'][-1]._lambda = lambda: text


def doom(text):
    """Leave a mark, then have the transaction fail."""
    mark(text)
    transaction.doom()
