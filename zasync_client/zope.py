"""Starting Zope inside a worker: products, database, no web server.

Imports: config, away, database, datafile, errors, knock.
"""

import logging
import threading
from contextlib import contextmanager

import ZConfig
import Zope2
from App.config import setConfiguration
from transaction.interfaces import TransientError
from zc.lockfile import LockError
from zope.event import notify
from zope.processlifetime import ProcessStarting
from Zope2.Startup import get_wsgi_starter
from Zope2.Startup.handlers import handleWSGIConfig

from Products.zasync import policy

from . import datafile
from .away import is_away
from .away import told_away
from .database import abort
from .database import is_storage_trouble
from .errors import ConfigurationError
from .errors import GaveUp
from .errors import said_by
from .errors import TargetAway
from .knock import knock


log = logging.getLogger('zasync')

class WorkerStarting(ProcessStarting):
    """The process of a worker is starting: Zope as ever, but without a web server."""


#: Tries of Zope's own start: on an empty database it writes the root objects, and
#: of several processes that start at once all but one meet a conflict there.
START_ATTEMPTS = 10

#: Between two looks whether we are to stop, while a storage waits for its server. Seconds.
LOOK_SECONDS = 0.1


def start(config, clock, stopping):
    """Start Zope as `config` says and return its database.

    Waits for a database server that can't be reached, with a line in the log a
    try. Raises GaveUp when that took too long or `stopping` was set, FileTaken.
    """
    handleWSGIConfig(config.zope, config.handlers)
    setConfiguration(config.zope)
    starter = get_wsgi_starter()
    starter.setConfiguration(config.zope)
    starter.setupLocale()
    starter.setupSecurityOptions()
    starter.setupPublisher()
    for opener in (_open_root, _open_mounted):
        patiently(lambda opener=opener: _until_stopped(lambda: opener(config), stopping),
                  'the database server', config, clock, stopping)
    patiently(_start_zope, 'the database server', config, clock, stopping)
    notify(WorkerStarting())
    return Zope2.DB


def open_database(config):
    """Open the root database and start nothing else of Zope; → the ZODB.DB.

    A worker may have the files open in which ZEO clients keep their caches: there are none here.
    Raises ConfigurationError, FileTaken, and whatever the storage raises.
    """
    for database in config.zope.databases:
        datafile.without_caches(database.config.storage)
    handleWSGIConfig(config.zope, config.handlers)
    setConfiguration(config.zope)
    return _open_root(config)


def _open_root(config):
    """Open the root database; Zope's own start finds it open.

    A try that fails leaves nothing half-open behind for the next.
    """
    dbtab = config.zope.dbtab
    for database in config.zope.databases:
        if '/' in database.getVirtualMountPaths():
            knock(database.config.storage)
    try:
        with told_away(), _told_files(config):
            return dbtab.getDatabase('/', is_root=1)
    except ZConfig.ConfigurationError as reason:
        raise ConfigurationError(f'{config.path}: {reason}') from reason
    except LockError as reason:
        storage = dbtab.getDatabaseFactory('/').config.storage
        raise datafile.refusal(storage, reason) from reason
    except TransientError:
        for db in dbtab.databases.values():
            db.close()
        dbtab.databases.clear()
        raise


def _open_mounted(config):
    """Open the other databases; Zope's own start finds them open too."""
    dbtab = config.zope.dbtab
    for path, _name in dbtab.listMountPaths():
        with told_away(), _told_files(config):
            dbtab.getDatabase(path)


def _until_stopped(open_it, stopping):
    """Do open_it(), which waits for a server as long as its storage likes.

    Raises GaveUp when `stopping` is set meanwhile: it goes on in a thread of its own, which ends
    with the process.
    """
    mistakes = []

    def work():
        try:
            open_it()
        except Exception as reason:  # raised again in our thread
            mistakes.append(reason)

    thread = threading.Thread(target=work, name='zasync-opens', daemon=True)
    thread.start()
    while thread.is_alive():
        if stopping.is_set():
            raise GaveUp('stopped while waiting for the database server')
        thread.join(LOOK_SECONDS)
    if mistakes:
        raise mistakes[0]


@contextmanager
def _told_files(config):
    """Have it raised as a ConfigurationError if a storage can't open a file, or make it."""
    try:
        yield
    except OSError as reason:
        if reason.filename is None or is_storage_trouble(reason):
            raise
        raise ConfigurationError(f'{config.path}: a file of a database can not be opened: '
                                 f'{said_by(reason)}') from reason


def _start_zope():
    """What Zope2.startup_wsgi does, which would do nothing when it is called again after an error,
    and would take the configuration that ZOPE_CONFIG names in the environment in place of ours.
    """
    from Zope2.App.startup import startup
    Zope2._began_startup = 1  # else a call that asks for Zope2.app() would start it again
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            with told_away():
                startup()
            return
        except TransientError as reason:
            abort()
            if is_away(reason) or attempt == START_ATTEMPTS:
                raise


def patiently(action, what, config, clock, stopping, known=None):
    """The value of action(), tried again while it is away, as the configuration says.

    action -- raises TargetAway or a TransientError (ClientDisconnected is one) while
    `what` is away, or what a full disk raises. known -- an exception that says that it is away.
    Warns of that once, and once when it is back.
    Raises GaveUp after max-total-retry seconds or when `stopping` is set.
    """
    failures, since = 0, clock.monotonic()
    if known is not None:
        log.warning('%s is out of reach (%s); waiting for it', what, _text(known))
    while True:
        try:
            value = action()
        except Exception as reason:
            if not (isinstance(reason, (TransientError, TargetAway))
                    or is_storage_trouble(reason)):
                raise
            failures += 1
            delay = policy.reconnect_delay(failures, config.initial_retry_seconds,
                                           config.retry_growth)
            waited = clock.monotonic() - since
            if policy.gives_up(waited, config.max_total_retry_seconds):
                raise GaveUp(f'{what} was out of reach for {waited:.0f} s: {_text(reason)}; '
                             'gave up, as max-total-retry says') from reason
            is_first = failures == 1 and known is None
            log.log(logging.WARNING if is_first else logging.INFO,
                    '%s is out of reach (%s); trying again in %.0f s', what, _text(reason), delay)
        else:
            if failures or known is not None:
                log.warning('%s is back after %.0f s', what, clock.monotonic() - since)
            return value
        if clock.wait(stopping, delay):
            raise GaveUp(f'stopped while waiting for {what}')


def _text(reason):
    return said_by(reason) or type(reason).__name__
