"""Access: the target as the commands see it, by a connection of their own.

They open the database of the configuration and start nothing of Zope. They are
trusted: whoever can read the configuration can open the database.

Imports: database, wakeup, zope, plaintext, errors.
"""

import logging
import threading
from contextlib import contextmanager

from AccessControl.SecurityManagement import newSecurityManager
from AccessControl.SecurityManagement import noSecurityManager
from AccessControl.users import system
from transaction.interfaces import TransientError
from ZEO.Exceptions import ClientDisconnected

from Products.zasync.wakeup import Wakeup

from . import zope
from .database import abort
from .database import Database
from .database import is_storage_trouble
from .database import unit_of_work
from .errors import FileTaken
from .errors import NotSo
from .errors import said_by
from .errors import ServerRefuses
from .errors import TargetAway
from .errors import WorkerError
from .plaintext import safe


#: What a server gets to answer. Seconds.
OPEN_SECONDS = 10.0

#: Tries of a transaction that meets conflicts.
ATTEMPTS = 10

#: Between two looks at the database when no commit tells of anything. Seconds.
LOOK_SECONDS = 1.0


class Access:
    """The target, seen through a connection of our own."""

    def __init__(self, config, database, clock):
        self._database = database
        self.clock = clock
        self.where = '/'.join(config.target)
        self._wakeup = Wakeup(clock)

    def read(self, look):
        """The value of look(manager), in a fresh snapshot. Raises NotSo."""
        with unit_of_work('zasync_client looks') as work:
            work.abandon()
            return look(self._manager())

    def change(self, what, action):
        """Commit action(manager), again if it meets conflicts; → its value. Raises NotSo."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with unit_of_work(f'zasync_client {what}'):
                    return action(self._manager())
            except ClientDisconnected:
                raise
            except TransientError as reason:
                if attempt == ATTEMPTS:
                    raise NotSo(f'others keep writing what this changes in {self.where}: try '
                                'again later') from reason
                self.clock.wait(threading.Event(), 0.02 * attempt)

    def wait(self, condition, seconds):
        """Wait until condition(manager) holds, at most so long; → whether it does."""
        self._wakeup.watch(self._database.watched())
        until = self.clock.monotonic() + seconds
        while True:
            self._wakeup.start_looking()
            if self.read(condition):
                return True
            left = until - self.clock.monotonic()
            if left <= 0:
                return False
            self._wakeup.wait(min(left, LOOK_SECONDS))

    def find(self, manager, id):
        """The call of that id. Raises NotSo."""
        deferred = manager.queue.find(id)
        if deferred is None:
            raise NotSo(f'there is no call {safe(id)} in {self.where}; calls that ended are '
                        'dropped after the rotation period')
        return deferred

    def _manager(self):
        try:
            return self._database.manager()
        except TargetAway as reason:
            raise NotSo(str(reason)) from reason
        except KeyError as reason:
            raise NotSo('the database holds no Zope application: let Zope start once') from reason


@contextmanager
def opened(config, clock):
    """An Access; what goes wrong with the database in the body is NotSo with a sentence."""
    logging.getLogger().addHandler(logging.NullHandler())  # the sentence is enough
    database = Database(_open(config), config.target, 1)
    newSecurityManager(None, system)
    try:
        yield Access(config, database, clock)
    except WorkerError:
        raise
    except Exception as reason:
        if isinstance(reason, TransientError) or is_storage_trouble(reason):
            raise NotSo(f'the database can not be used: {_text(reason)}') from reason
        raise
    finally:
        noSecurityManager()
        abort()
        database.close()


def _open(config):
    """The database, opened in a thread: a storage may wait for its server for ever."""
    answer = []

    def open_it():
        try:
            answer.append((zope.open_database(config), None))
        except Exception as reason:  # told in the main thread
            answer.append((None, reason))

    opener = threading.Thread(target=open_it, daemon=True)
    opener.start()
    opener.join(OPEN_SECONDS)
    if not answer:
        raise NotSo('the database can not be opened: its server gave no answer in '
                    f'{OPEN_SECONDS:g} s')
    db, reason = answer[0]
    if isinstance(reason, (FileTaken, ServerRefuses)):
        raise NotSo(f'the database can not be opened: {reason}') from reason
    if isinstance(reason, WorkerError):
        raise reason
    if reason is not None:
        raise NotSo(f'the database can not be opened: {_text(reason)}') from reason
    return db


def _text(reason):
    text = safe(said_by(reason))
    return f'{type(reason).__name__}: {text}' if text else type(reason).__name__
