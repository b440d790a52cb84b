"""One life of a worker's process: configured, Zope started, calls served; and the next one.

Imports: worker, config, affinity, database, sending, inmemory, zope, memory, metrics, succession,
logs, signals, threaddump, pidfile, errors, zasync.
"""

import logging
import os
import signal
import socket
import threading

from Products.zasync import policy
from Products.zasync.clock import SYSTEM
from Products.zasync.failure import text_of
from Products.zasync.wakeup import Wakeup

from . import affinity
from . import config as configuration
from . import logs
from . import memory
from . import metrics
from . import zope
from .database import Database
from .database import unit_of_work
from .errors import WorkerError
from .inmemory import keep_in_memory
from .pidfile import PidFile
from .sending import send_together
from .signals import Signals
from .threaddump import ThreadDump
from .worker import Worker


log = logging.getLogger('zasync')


def live(path, succession, serving=None, output=None):
    """Configure, start Zope, serve, close; → exit code. Raises WorkerError if it can't.

    serving -- callable(), called once the target is taken. output -- path of the file that
    standard output and error go to, None for wherever they go. Does not return where the
    worker is to be replaced: the process goes on with the next life.
    """
    config = configuration.load(path)
    logs.set_up(config.zope.eventlog, config.zope.loggers, config.verbose_traceback)
    for warning in config.warnings:
        log.warning('%s', warning)
    stopping = threading.Event()
    wakeup = Wakeup(SYSTEM)
    dump = ThreadDump()
    dump.install()
    signals = Signals(stopping, wakeup.notify_own, lambda: logs.reopen(output, dump))
    signals.install()
    pid_file = PidFile(config.pid_path, succession.lock_fd)
    try:
        zope.patiently(
            lambda: pid_file.take(
                host=socket.gethostname(), started_at=SYSTEM.now(), configuration=config.path,
                target='/'.join(config.target), drain_seconds=config.drain_seconds,
                replaced=succession.times, replaced_because=succession.reason),
            f'the disk with the PID file {config.pid_path}', config, SYSTEM, stopping)
        try:
            succession.processors = affinity.keep_to(config.cpu_affinity,
                                                     is_first=not succession.times)
            db = zope.start(config, SYSTEM, stopping)
            for each in db.databases.values():
                send_together(each.storage)
                keep_in_memory(each.storage)
            database = Database(db, config.target, config.threads)
            worker = Worker(config, database, wakeup, SYSTEM, stopping)
            ceiling = _ceiling(config, worker, pid_file, succession, signals)

            def serves():
                pid_file.tell(serving=True)
                if ceiling is not None:
                    ceiling.start()
                if serving is not None:
                    serving()

            collector = metrics.Collector(config.target, _reader(database, worker), worker.tally)
            with metrics.served(config.metrics_address, collector,
                                is_first=not succession.times):
                worker.run(serves, lambda is_lost: pid_file.tell(lost=is_lost))
            if worker.replacing.wanted is not None:
                succession.begin_anew(worker.replacing.wanted.reason, pid_file.fd,
                                      lambda: signals.asked)
        finally:
            pid_file.clear()
    except WorkerError as reason:
        if stopping.is_set() and reason.exit_code == 2:
            log.info('%s', reason)
            return 0
        log.error('%s', reason)
        raise
    except Exception:
        log.critical('the worker ends because of an error it can not handle', exc_info=True)
        return 1
    return 0


def _reader(database, worker):
    """What reads the Facts of the worker's manager in a thread of its own; see metrics."""
    def read():
        try:
            if not database.is_connected():
                return None
            with unit_of_work('zasync metrics') as work:
                work.abandon()
                manager = database.manager()
                return metrics.facts_of(manager, SYSTEM.now(),
                                        manager.queue.desk.boot == worker.boot)
        except Exception as reason:  # whoever asks is told that it is not served
            log.warning('the metrics lack what the database tells: %s', text_of(reason))
            return None
        finally:
            database.close()

    return read


def _ceiling(config, worker, pid_file, succession, signals):
    """The memory.Ceiling of the worker, or None; raises ConfigurationError if it is too low."""
    if config.max_memory_bytes is None:
        return None
    most = memory.megabytes(config.max_memory_bytes)

    def above(used):
        worker.replacing.want(
            f'it has {memory.megabytes(used)} of memory, more than max-memory, {most}',
            policy.TOO_MUCH_MEMORY)

    def far_above(used):
        reason = f'it had {memory.megabytes(used)} of memory, far more than max-memory, {most}'
        ids = ', '.join(sorted({claim.id for claim in worker.held()})) or 'no call'
        what = 'ends' if signals.asked else 'begins anew'
        log.critical('the worker %s at once, as after a kill: %s; it was running: %s', what,
                     reason, ids)
        try:
            succession.begin_anew(reason, pid_file.fd, lambda: signals.asked)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    ceiling = memory.Ceiling(config.max_memory_bytes, above, far_above, SYSTEM)
    ceiling.check()
    return ceiling
