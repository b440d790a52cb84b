"""Those who act in a history: each has a thread, and so a connection, a user and a lane.

One acts at a time, and the others' transactions stay open meanwhile. A job that runs waits in its
thread until it is told what to do.

Imports: zasync.
"""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import transaction
from AccessControl import getSecurityManager
from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager

from Products.zasync import lanes
from Products.zasync.running import checkpoint
from Products.zasync.running import current
from Products.zasync.running import progress


#: Longest wait for an actor, in real seconds.
LIMIT = 60.0

_thread = threading.local()
_numbers = itertools.count(1)


class Actor:
    """A thread of its own. What it is told to do it does there, while the caller waits."""

    def __init__(self):
        self._executor = ThreadPoolExecutor(1, 'actor')
        self.connection = None

    def do(self, action, *args, **kwargs):
        """action(…) in the thread; → its value, or raises what it raises."""
        return self._executor.submit(action, *args, **kwargs).result(LIMIT)

    def begin_without_waiting(self, action, *args):
        """The same, and nobody waits."""
        self._executor.submit(action, *args)

    def enter(self, db):
        """Have a connection."""
        self.connection = self.do(db.open)

    def become(self, user_id):
        """Act as that user of the root's user folder."""
        def become():
            users = self.connection.root()['Application'].acl_users
            newSecurityManager(None, users.getUserById(user_id).__of__(users))
        self.do(become)

    def use_lane(self, number):
        """Put into that lane from now on."""
        self.do(setattr, lanes._thread, 'lane', number)

    def leave(self):
        """Close the connection."""
        def leave():
            transaction.abort()
            noSecurityManager()
            if self.connection is not None:
                self.connection.close()
        self.do(leave)
        self.connection = None


class _Alone:
    """A pool in which nothing waits that could share a transaction."""

    def gather(self):
        """Nobody else is to be asked."""
        return False


class Run:
    """The run of a claim by the real code of a worker, in the thread of an actor.

    After each `tell` it is either `waiting`, for the next word, or has an `end`.
    """

    def __init__(self, actor, make_runner, is_stopped, claim, effects):
        self.actor = actor
        self.claim = claim
        self.is_stopped = lambda: is_stopped(claim)
        self.effects = effects
        self.user = None
        self.end = None
        self.waiting = False
        self._words, self._news = SimpleQueue(), SimpleQueue()
        actor.begin_without_waiting(self._run, make_runner)
        self._listen()

    def tell(self, word):
        """Have the job do that, and wait for what comes of it."""
        self.waiting = False
        self._words.put(word)
        self._listen()

    def _listen(self):
        news = self._news.get(timeout=LIMIT)
        if isinstance(news, BaseException):
            raise news
        self.waiting, self.end = news is None, news

    def _run(self, make_runner):
        _thread.run = self
        try:
            end, = make_runner().run(self.claim, _Alone())
            self._news.put(end)
        except BaseException as error:
            self._news.put(error)

    def next_word(self):
        """For the job: what to do next."""
        self.user = getSecurityManager().getUser().getId()
        self._news.put(None)
        return self._words.get(timeout=LIMIT)


def job(number):
    """What calls do: effects of their own, on their way and at the end, as they are told."""
    run = _thread.run
    while True:
        word = run.next_word()
        effects = current().app._p_jar.root()[run.effects][number]
        if word == 'progress':
            progress(1, 2)
        elif word == 'return':
            effects['end'] = effects.get('end', 0) + 1
            return number
        elif word in ('raise', 'leave'):
            effects['end'] = -1_000
            raise ValueError('as it was told')
        else:
            effects['steps'] = effects.get('steps', 0) + 1
            if word == 'checkpoint':
                checkpoint(number=number)
            else:
                transaction.commit()


def bad(value):
    """A callback that fails, each time in another way: who raises what it was given hands it on.
    """
    raise ZeroDivisionError(f'as it was told, number {next(_numbers)}')
