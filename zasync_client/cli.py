"""The ``zasync_client`` command: from argv to an exit code.

0: done. 1: the thing asked about is not so. 2: wrong use or configuration.

Imports: worker, config, database, wakeup, zope, logs, signals, errors.
"""

import argparse
import logging
import os
import sys
import threading

from . import __version__
from .errors import WorkerError


log = logging.getLogger('zasync')

COMMANDS = ('run',)


def main(argv=None):
    """Run the command; → exit code."""
    options = _parser().parse_args(argv)
    try:
        return run_worker(options.config)
    except WorkerError as reason:
        print(f'zasync_client: {reason}', file=sys.stderr)
        return reason.exit_code
    except SystemExit as reason:
        return reason.code


def _parser():
    parser = argparse.ArgumentParser(
        prog='zasync_client', description='The worker that runs the calls queued in Zope.',
        epilog='run (the default): serve the target in the foreground until TERM or INT.')
    parser.add_argument('-C', '--configure', dest='config', metavar='FILE',
                        default=os.path.join('etc', 'zasync.conf'),
                        help='the configuration file (default: %(default)s)')
    parser.add_argument('command', nargs='?', choices=COMMANDS, default='run')
    parser.add_argument('--version', action='version', version=f'zasync {__version__}')
    return parser


def run_worker(path):
    """Configure, start Zope, serve, close; → 0. Raises WorkerError with the reason if it can't."""
    from Products.zasync.clock import SYSTEM

    from . import config as configuration
    from . import logs
    from . import zope
    from .database import Database
    from .signals import Signals
    from .wakeup import Wakeup
    from .worker import Worker

    config = configuration.load(path)
    logs.set_up(config.zope.eventlog, config.zope.loggers)
    stopping = threading.Event()
    wakeup = Wakeup(SYSTEM)
    Signals(stopping, wakeup.notify_own, logs.reopen).install()
    try:
        db = zope.start(config, SYSTEM, stopping)
        database = Database(db, config.target, config.threads)
        Worker(config, database, wakeup, SYSTEM, stopping).run()
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
