"""check: all that is wrong with a configuration, and with the world it speaks of.

Nothing is written: neither a lock that stays, nor a log, nor into a database.

Imports: affinity, config, database, datafile, holding, knock, logs, memory, metrics, pidfile,
process, zope, plaintext, errors, zasync.
"""

import contextlib
import json
import logging
import math
import os
import sys
import threading
from typing import NamedTuple

from ZODB.POSException import POSKeyError
from ZODB.utils import load_current
from ZODB.utils import z64

from Products.zasync import sealing
from Products.zasync.clock import SYSTEM
from Products.zasync.errors import BadKeyFile

from . import affinity
from . import config as configuration
from . import datafile
from . import holding
from . import logs
from . import memory
from . import metrics
from . import pidfile
from . import process
from . import zope
from .database import Database
from .errors import BadTarget
from .errors import ConfigurationError
from .errors import NotSo
from .errors import said_by
from .errors import ServerRefuses
from .errors import TargetAway
from .knock import knock
from .knock import SILENCE_SECONDS
from .plaintext import safe


ERROR, WARNING, INFO = 'error', 'warning', 'info'

#: Exit codes: the world is not as the configuration says, so that a worker waits, refuses or
#: lacks something; the configuration is wrong, so that none starts.
WORLD, WRONG = 1, 2

#: What others depend on: with a mistake there, nothing is said of the databases.
_BEFORE_DATABASES = {'%define', '%include', '%import', 'instancehome', 'clienthome', 'zodb_db', ''}


class Finding(NamedTuple):
    """A sentence. severity -- error, warning or info. code -- of an error, see above."""

    severity: str
    text: str
    code: int = 0
    path: str | None = None
    line: int | None = None

    def __str__(self):
        where = (self.path or '') + (f', line {self.line}' if self.line else '')
        return safe(f'{self.severity}: {where}{": " if where else ""}{self.text}')


def check(path, wait_seconds, as_json=False):
    """Print what is wrong, and what is worth knowing; → exit code.

    wait_seconds -- how long a database server may take to answer.
    """
    logging.getLogger().addHandler(logging.NullHandler())  # the sentences are enough
    with contextlib.redirect_stdout(sys.stderr):  # what is imported may print
        found = findings(path, wait_seconds)
    code = max((finding.code for finding in found), default=0)
    if as_json:
        print(json.dumps({'exit_code': code,
                          'findings': [finding._asdict() for finding in found]}, indent=2))
        return code
    for finding in found:
        print(finding, file=sys.stderr if finding.severity == ERROR else sys.stdout)
    if not code:
        print(safe(f'{os.path.abspath(path)}: no errors'))
    return code


def findings(path, wait_seconds):
    """All Findings, those on the file first."""
    try:
        config, reading = configuration.survey(path)
    except ConfigurationError as reason:
        return [Finding(ERROR, str(reason), WRONG)]
    found = [Finding(ERROR, problem.text, WRONG, problem.path, problem.line)
             for problem in reading.problems]
    found += [Finding(WARNING, warning.text, 0, warning.path, warning.line)
              for warning in reading.warnings]
    if config is not None:
        found += _of_logs(config)
    if config is None or reading.lost & _BEFORE_DATABASES:
        found.append(Finding(INFO, 'databases and target were not looked at: what is wrong in '
                                   'the file comes first'))
    else:
        found += _of_places(config, 'target' not in reading.lost, wait_seconds)
    if config is not None:
        found += _of_memory(config)
        found += _of_processors(config)
    return found


def _of_places(config, with_target, wait_seconds):
    """What the directories of the instance, the databases and the target are like."""
    yield from _of_secret_keys(config)
    ours, wrong = _of_pid_file(config)
    yield from wrong
    if ours is None:  # else that is who answers there
        yield from _of_metrics(config)
    away = _of_databases(config, ours, wait_seconds)
    yield from away
    if not away and with_target:
        yield from _of_target(config, ours, wait_seconds)


def _of_logs(config):
    """Logs that can't be opened."""
    for logger in (config.zope.eventlog, *config.zope.loggers):
        for factory in logger.handler_factories if logger else ():
            mistake = logs.mistake_in(factory)
            if mistake:
                yield Finding(ERROR, f'a log can not be opened: {mistake}', WRONG)
            path = getattr(factory.section, 'path', 'STDOUT')
            why = None if path in ('STDOUT', 'STDERR') else _why_not_opened(path)
            directory = os.path.dirname(os.path.abspath(path))
            if why and directory == os.path.dirname(process.output_path(config)) and (
                    not os.path.lexists(directory) and not _why_not_made(path)):
                yield Finding(WARNING, f'the log {path} can be opened by a worker that start '
                                       f'starts, which makes {directory}; not by run')
            elif why:
                yield Finding(ERROR, f'the log {path} can not be opened: {why}', WRONG)


def _why_not_opened(path):
    """Why a file can't be written whose directory has to be there, or None."""
    directory = os.path.dirname(os.path.abspath(path))
    return (_why_not_written(path) if os.path.isdir(directory)
            else f'there is no directory {directory}')


def _why_not_written(path):
    """Why a file in a directory that is there can't be written, or None."""
    if os.path.isdir(path):
        return 'it is a directory'
    if not os.access(path if os.path.exists(path) else os.path.dirname(path) or '.', os.W_OK):
        return 'this user may not write there'
    return None


def _why_not_made(path):
    """The same of a file whose directories are made if they are not there."""
    directory = os.path.dirname(path)
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if not os.path.isdir(directory):
        return f'{directory} is no directory'
    if directory == os.path.dirname(path):
        return _why_not_written(path)
    return None if os.access(directory, os.W_OK) else f'this user may not write in {directory}'


def _of_secret_keys(config):
    """What is wrong with the file of secret keys, if one is named."""
    try:
        path = sealing.key_path(config.zope)
        if path is not None:
            sealing.read(path)
            if sealing.remark(path):
                yield Finding(WARNING, sealing.remark(path))
    except BadKeyFile as reason:
        yield Finding(ERROR, str(reason), WORLD)  # a worker starts without, and says so


def _of_pid_file(config):
    """(the Holder that is this configuration's worker, or None; Findings on the PID file)"""
    path = config.pid_path
    try:
        ours = pidfile.worker_of(config)
    except (ConfigurationError, NotSo) as reason:
        return None, [Finding(ERROR, str(reason), reason.exit_code)]
    why = None if ours is not None else _why_not_made(path)
    if why is not None:
        return None, [Finding(ERROR, f'the PID file {path} can not be written: {why}', WRONG)]
    return ours, []


def _of_metrics(config):
    """An address of metrics that can't be had."""
    mistake = metrics.mistake_in(config.metrics_address)
    if mistake:
        yield Finding(ERROR, mistake, WRONG)


def _of_memory(config):
    """Whether max-memory is less than we have ourselves; a worker has more."""
    most, used = config.max_memory_bytes, memory.resident_bytes()
    if most is not None and used >= most:
        yield Finding(ERROR, f'max-memory is {memory.megabytes(most)}, and this check has '
                             f'{memory.megabytes(used)}, which is less than a worker has before '
                             'its first call: give it twice of that, or more', WRONG)


def _of_processors(config):
    """Processors that are not there."""
    mistake = affinity.mistake_in(config.cpu_affinity)
    if mistake:
        yield Finding(ERROR, mistake, WRONG)


# databases

def _of_databases(config, ours, wait_seconds):
    """Errors of databases that can't be used; list. ours -- a Holder; it may have files open."""
    databases = config.zope.databases
    main = config.zope.dbtab.mount_paths.get('/')
    if main is None:
        return [Finding(ERROR, 'no database is mounted at the root: <zodb_db main> with '
                               'mount-point /', WRONG)]
    found, asked = [], []
    for database in databases:
        found += () if ours is not None else _of_files(database)
        taken = None if ours is not None else datafile.taken(database.config.storage)
        if taken is not None:
            found.append(Finding(ERROR, f'the database {database.name}: {taken}', WRONG))
        else:
            asked.append((database, _asked(lambda database=database: _ask(
                database, database.name == main, wait_seconds))))
    until = SYSTEM.monotonic() + wait_seconds
    for database, answer in asked:
        text = _answer(answer, until)
        if text is not None:
            found.append(Finding(ERROR, f'the database {database.name}{_servers(database)} '
                                        f'{text}', WORLD))
    return found


def _of_files(database):
    """Files and directories of a database that can't be written."""
    files, directories = datafile.written(database.config.storage)
    reasons = [(path, _why_not_opened(path) or _why_not_opened(f'{path}.lock')) for path in files]
    reasons += [(path, _why_not_made(os.path.join(os.path.abspath(path), 'tmp', 'blob')))
                for path in directories]
    return [Finding(ERROR, f'the database {database.name}: {path} can not be written: {why}',
                    WRONG) for path, why in reasons if why is not None]


def _ask(database, is_main, wait_seconds):
    """What is wrong with a database, or None."""
    # Told after half of the time, at the latest: the other half is for the answer.
    knock(database.config.storage, min(SILENCE_SECONDS, wait_seconds / 2))
    datafile.without_caches(database.config.storage)
    _tread_lightly(database.config.storage, wait_seconds)
    storage = database.config.storage.open()
    try:
        load_current(storage, z64)
    except POSKeyError:
        return 'is empty: let Zope start once' if is_main else None
    finally:
        storage.close()
    return None


def _tread_lightly(factory, wait_seconds):
    """Have a storage opened only to be read, with no file of its own, and not wait for long."""
    section = factory.config
    settings = {'read_only': True, 'read_only_fallback': False, 'wait': True,
                'wait_timeout': max(1, math.ceil(wait_seconds))}
    inner = datafile.inside(factory)
    if not inner:
        settings['blob_dir'] = None
    for name, value in settings.items():
        if hasattr(section, name):
            setattr(section, name, value)
    for each in inner:
        _tread_lightly(each, wait_seconds)


def _servers(database):
    servers = getattr(database.config.storage.config, 'server', None) or ()
    addresses = [':'.join(map(str, address)) if isinstance(address, tuple) else str(address)
                 for address in (server.address for server in servers)]
    return f' at {" or ".join(addresses)}' if addresses else ''


# the target

def _of_target(config, ours, wait_seconds):
    answer = _asked(lambda: _look(config, ours))
    found = _answer(answer, SYSTEM.monotonic() + wait_seconds)
    return [Finding(ERROR, f'the database {found}', WORLD)] if isinstance(found, str) else found


def _look(config, ours):
    """Findings on the target. ours -- the Holder that is this configuration's worker, or None."""
    where = f"the target {'/'.join(config.target)}"
    database = Database(zope.open_database(config), config.target, 1)
    try:
        holder = holding.look(database)
    except TargetAway:
        return [Finding(ERROR, f'there is nothing at {where}: add an Asynchronous Call Manager '
                               'there; a worker waits for it', WORLD)]
    except BadTarget as reason:
        return [Finding(ERROR, str(reason), WRONG)]
    except KeyError:
        return [Finding(ERROR, 'the database holds no Zope application: let Zope start once',
                        WORLD)]
    finally:
        database.close()
        for db in config.zope.dbtab.databases.copy().values():
            db.close()
    if holder.boot is None:
        return []
    who = f'process {holder.pid} on {holder.host}'
    if ours is not None and holder.pid in (ours.pid, ours.told.get('pid')):
        return [Finding(INFO, f'{where} is served by the worker of this configuration, {who}')]
    if holder.guest:
        return [Finding(INFO, f'{where} is served by the worker of a sibling, {who}, which gives '
                              'it back when a worker of its own starts')]
    if holder.place != holding.place():
        return [Finding(INFO, f'{where} is held by {who}: a worker started here refuses to serve '
                              'it if that one lives')]
    if holding.process_exists(holder.pid):
        return [Finding(ERROR, f'{where} is served by another worker already: {who}', WORLD)]
    return [Finding(INFO, f'{where} was left by {who}, which is dead: the next worker takes up '
                          'what it had begun')]


# in a thread: a storage may wait for its server for ever

def _asked(question):
    """Start question() in a thread; → what `_answer` takes."""
    answer = []

    def ask():
        try:
            answer.append(question())
        except ServerRefuses as reason:
            answer.append(f'can not be opened: {reason}')
        except Exception as reason:  # storages raise anything; it is told in the main thread
            text = said_by(reason)
            answer.append(f'can not be opened: {type(reason).__name__}'
                          f'{": " if text else ""}{text}')

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread, answer


def _answer(asked, until):
    """The value of the question, or the text of what went wrong."""
    thread, answer = asked
    thread.join(max(0.0, until - SYSTEM.monotonic()))
    return answer[0] if answer else 'can not be reached: it gave no answer in time'
