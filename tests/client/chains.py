"""Callbacks and calls of the tests of chains; workers import them as ``tests.client.chains``."""

import os
import threading
import time

import transaction
from AccessControl import getSecurityManager
from zope.component.hooks import getSite
from zope.globalrequest import getRequest

from Products.zasync import allow_value
from Products.zasync.failure import Failure
from Products.zasync.running import checkpoint
from Products.zasync.running import current
from tests.client.jobs import root


#: Set by a test of the same process; what waits for it goes on.
GATE = threading.Event()


def value(number=1):
    """A call that ends well."""
    return number


def fail(text='no'):
    """A call that fails."""
    raise ValueError(text)


def double(result):
    """A callback that returns."""
    return 2 * result


def text_of(failure):
    """A failure callback that recovers."""
    return failure.text


def recover(failure):
    """Another."""
    return 100


def hand_on(failure):
    """A failure callback that only looks."""
    return failure


def boom(result):
    """A callback that raises."""
    raise RuntimeError(f'after {result}')


def boom_again(failure):
    """A failure callback that raises."""
    raise LookupError(f'after {failure.text}')


def keep(result, app=None):
    """An effect, and the value handed on; app -- the application, where no call runs."""
    marks = root()['marks'] if app is None else app._p_jar.root()['marks']
    marks['kept'] = (*marks.get('kept', ()), result)
    return result


def keep_at_commit(result=None):
    """An effect that a hook before the commit makes: (user, path of the site, a URL)."""
    def at_commit():
        request = getRequest()
        url = request and request['PARENTS'][0].absolute_url()
        keep((getSecurityManager().getUser().getId(), getSite() and getSite().getPhysicalPath(),
              url), app)

    app = current().app
    transaction.get().addBeforeCommitHook(at_commit)


def keep_and_raise(result):
    """An effect that must not stay."""
    keep(result)
    raise RuntimeError('on purpose')


def keep_type(failure):
    """The type of the failure, as an effect."""
    return keep(failure.type_name)


def who(result=None):
    """Id of the user this runs as."""
    return getSecurityManager().getUser().getId()


def keep_who(result):
    """The same as an effect."""
    return keep(who())


def unpicklable(result=None):
    """What can't be stored, after an effect."""
    keep('unpicklable')
    return lambda: None


def disappointed_unpicklably(result=None):
    """As `unpicklable`, a Failure."""
    keep('unpicklable')
    return Failure('Disappointment', ValueError('its text was meant'))


@allow_value
class NoReturn:
    """Can be pickled, and not be read again."""

    def __reduce__(self):
        return _refuse, ()


@allow_value
def _refuse():
    raise TypeError('it does not come back')


def no_return(result=None):
    """A result that can be stored and not be read."""
    return NoReturn()


def big(result=None, size=2_000):
    """More bytes than the test allows."""
    return 'x' * size


def count_runs(result):
    """How often it began, conflicts included, outside the database."""
    _runs.append(result)
    return result


_runs = []


def runs():
    """What `count_runs` and `conflicts` were given since the last question."""
    found = _runs[:]
    _runs.clear()
    return found


def conflicts(result):
    """A callback that meets two conflicts before it succeeds."""
    count_runs('callback')
    if _runs.count('callback') < 3:
        raise transaction.interfaces.TransientError('again')
    return keep(result)


def always_conflicts(result):
    """A callback that meets a conflict each time."""
    raise transaction.interfaces.TransientError('again')


def counted(number):
    """A call that says how often it ran."""
    count_runs('call')
    return keep(number)


def makes_checkpoint(result):
    """What a callback can not do."""
    checkpoint(done=1)


def unstorable_effect(result):
    """An effect that the commit refuses."""
    root()['marks']['bad'] = lambda: None


def wait_for_gate(result=None):
    """Hold the thread, in the test's own process."""
    if not GATE.wait(30):
        raise TimeoutError('nobody opened the gate')
    return result


def keep_and_wait(result, path):
    """An effect, then a wait for a file, in another process."""
    keep(result)
    with open(path + '.running', 'w', encoding='ascii') as file:
        file.write(str(os.getpid()))
    until = time.monotonic() + 30
    while not os.path.exists(path):
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.01)
    return result


def disappointed(result):
    """An effect, and a Failure that is returned, not raised."""
    keep(result)
    return Failure('Disappointment', 'that is all')


def wait_where_it_says(result):
    """As `keep_and_wait`, the path being the result."""
    return keep_and_wait(result, result)


def put_another(result):
    """A callback that puts a call."""
    return current().app.zam.putCall('zope_call', keep, 'another').id


def callback_of_itself(number):
    """A call that adds a callback to itself while it runs."""
    run = current()
    run.app.zam.queue.find(run.id).addCallbacks(keep)
    return number


def fail_once(value):
    """Fails the first time."""
    _runs.append(value)
    if _runs.count(value) == 1:
        raise ValueError('the first time')
    return value
