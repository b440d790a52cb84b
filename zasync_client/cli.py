"""The ``zasync_client`` command: from argv to an exit code.

0: done. 1: the thing asked about is not so. 2: wrong use or configuration.

Imports: life, check, control, process, logtail, keyfile, succession, config, datatypes,
plaintext, errors, zasync.
"""

import argparse
import errno
import functools
import logging
import os
import sys
import threading
from typing import NamedTuple

from Products.zasync.clock import SYSTEM
from Products.zasync.interfaces import FINAL_STATES
from Products.zasync.interfaces import STATES

from . import __version__
from . import plaintext
from .errors import WorkerError
from .errors import WrongUse


log = logging.getLogger('zasync')

#: What is to end with the process, such as threads that calls have left, gets so long, in seconds.
#: Well below what `stop` waits for beyond drain-seconds.
EXIT_SECONDS = 5.0

#: Nobody reads our output any more, or the disk is full that it goes to.
OUTPUT_LOST = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class Command(NamedTuple):
    """One command. action -- callable(options) → exit code. arguments -- of add_argument."""

    name: str
    help: str
    action: callable
    arguments: tuple = ()


def main(argv=None):
    """Run the command; → exit code. argv -- its words; None: those that the process was given."""
    code = _main(argv)
    if argv is None:
        threading.Thread(target=_end, args=(code,), daemon=True).start()
    return code


def _end(code):
    """End this process, some time after its command.

    Python waits for pools of threads that a call has left, and for processes, as long as those
    like: nobody would serve, and no supervisor would start another worker.
    """
    SYSTEM.wait(threading.Event(), EXIT_SECONDS)
    log.warning('the process is ended: threads or processes that calls have left in it go on')
    os._exit(code if isinstance(code, int) else bool(code))


def _main(argv):
    _open_what_was_closed()
    options = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
    try:
        code = options.action(options)
        if sys.stdout is not None:  # it was closed at the start
            sys.stdout.flush()
        return code
    except WorkerError as reason:
        print(f'zasync_client: {reason}', file=sys.stderr)
        return reason.exit_code
    except FileNotFoundError as reason:
        if reason.filename is not None:
            raise
        print('zasync_client: the directory that it was started in is gone: start it in one that '
              'is there', file=sys.stderr)
        return 2
    except OSError as reason:
        if reason.errno not in OUTPUT_LOST or reason.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where what is left of it goes
        if reason.errno != errno.EPIPE:  # else whoever read it has seen enough
            print(f'zasync_client: the output can not be written: {reason.strerror}',
                  file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except SystemExit as reason:
        return reason.code


def _open_what_was_closed():
    """Have standard streams that were closed at the start lead to nothing.

    Else the next file, pipe or socket gets the number of one of them, and what is written to
    that stream here, or in a process started from here, goes there.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number free


def _parser():
    parser = argparse.ArgumentParser(
        prog='zasync_client',
        description='The worker that runs the calls queued in Zope, and what controls it.',
        epilog='Exit codes: 0 done; 1 what was asked about is not so; 2 wrong use or '
               'configuration. "zasync_client COMMAND --help" tells the options of a command.')
    parser.add_argument('--version', action='version', version=f'zasync {__version__}')
    _add_file(parser, os.path.join('etc', 'zasync.conf'))
    commands = parser.add_subparsers(title='commands', metavar='COMMAND')
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        _add_file(sub, argparse.SUPPRESS)  # it may stand before the command as well
        for names, settings in command.arguments:
            sub.add_argument(*names, **settings)
        sub.set_defaults(action=command.action)
    parser.set_defaults(action=_run, output=None, report=None)
    return parser


def _add_file(parser, default):
    parser.add_argument('-C', '--configure', dest='config', metavar='FILE', default=default,
                        help='the configuration file (default: etc/zasync.conf)')


def _configured(options, with_plugins=False):
    """The Config of the command's file, and the clock."""
    from Products.zasync.clock import SYSTEM

    from . import config
    return config.load(options.config, with_plugins), SYSTEM


# the actions

def _run(options):
    from .life import live
    from .process import Report
    from .succession import Succession
    succession = Succession(options.report)
    # Whoever started the first life has long been told.
    report = Report(None if succession.times else options.report)
    try:
        return live(options.config, succession, report.serving, options.output)
    except WorkerError as reason:
        report.failed(str(reason))
        raise


def _process(name, options):
    from . import process
    environment = dict(os.environ)
    # `restart` too: a file that can't be used is refused before the worker is stopped.
    config, clock = _configured(options, with_plugins=name != 'stop')
    if name == 'stop':
        return process.stop(config, clock)
    return getattr(process, name)(config, environment, options.wait, clock)


def _logtail(options):
    from .logtail import logtail
    config, clock = _configured(options)
    return logtail(config, options.lines, clock)


def _check(options):
    from .check import check
    return check(options.config, options.wait, options.json)


def _key(options):
    from .keyfile import key
    return key(options.config, options.path, options.rotate)


def _retry(options):
    if options.all == (options.id is not None):
        raise WrongUse('retry takes the ID of a call, or --all')
    return _control('retry', options)


def _control(name, options):
    from . import control
    config, clock = _configured(options)
    return getattr(control, name)(config, options, clock)


# the table of commands

def _argument(*names, **settings):
    return names, settings


def _seconds(text):
    try:
        return plaintext.span(text)
    except ValueError as reason:
        raise argparse.ArgumentTypeError(str(reason)) from reason


def _wait_seconds(text):
    from .datatypes import SECONDS_MOST
    seconds = _seconds(text)
    if seconds > SECONDS_MOST:  # the system refuses to wait for centuries
        raise argparse.ArgumentTypeError(f'is ten years at most, not {text!r}')
    return seconds


def _count(text):
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= 1_000_000:
        raise argparse.ArgumentTypeError(f'is a whole number, 1 to 1,000,000, not {text!r}')
    return int(text)


def _wait(default, what):
    return _argument('--wait', type=_wait_seconds, default=default, metavar='SECONDS',
                     help=f'{what} (default: {default:g})')


_JSON = _argument('--json', action='store_true', help='print JSON instead of text')
_ID = _argument('id', metavar='ID', help='id of the call, as list and the log show it')
_START = _wait(60.0, 'how long to wait until the worker serves its target')

#: `run` is what is done when no command is named.
COMMANDS = (
    Command('run', 'serve in the foreground until TERM or INT (the default)', _run, (
        # What `start` tells the worker.
        _argument('--output', help=argparse.SUPPRESS),
        _argument('--report', type=int, help=argparse.SUPPRESS))),
    Command('start', 'start it in the background, and wait until it serves',
            functools.partial(_process, 'start'), (_START,)),
    Command('stop', 'let the worker drain and end; kill it when it does not',
            functools.partial(_process, 'stop')),
    Command('restart', 'stop the worker, if it runs, and start it',
            functools.partial(_process, 'restart'), (_START,)),
    Command('status', 'tell whether the worker runs, and what waits',
            functools.partial(_control, 'status'), (_JSON,)),
    Command('logtail', "follow the worker's log", _logtail, (
        _argument('-n', '--lines', type=_count, default=10, metavar='N',
                  help='lines to begin with (default: 10)'),)),
    Command('check', 'say all that is wrong with the configuration and what it leads to', _check,
            (_wait(5.0, 'how long each database server may take to answer'), _JSON)),
    Command('list', 'list calls, those that run first',
            functools.partial(_control, 'list_calls'), (
                _argument('--state', choices=STATES, help='only calls in this state'),
                _argument('--plugin', help='only calls of this plugin'),
                _argument('--user', help='only calls that this user put'),
                _argument('--limit', type=_count, default=100, metavar='N',
                          help='so many at most (default: 100)'),
                _JSON)),
    Command('show', 'show all of one call', functools.partial(_control, 'show'), (_ID, _JSON)),
    Command('retry', 'have a failed call, or all of them, run again', _retry, (
        _argument('id', nargs='?', metavar='ID', help='id of the call'),
        _argument('--all', action='store_true', help='all calls that failed'))),
    Command('cancel', 'end a call that has not ended', functools.partial(_control, 'cancel'),
            (_ID,)),
    Command('pause', 'have no more calls begun; what runs goes on',
            functools.partial(_control, 'pause')),
    Command('resume', 'end a pause', functools.partial(_control, 'resume')),
    Command('drain', 'pause, and wait until nothing runs', functools.partial(_control, 'drain'),
            (_wait(60.0, 'how long to wait'),)),
    Command('purge', 'drop calls that have ended', functools.partial(_control, 'purge'), (
        _argument('--state', choices=sorted(FINAL_STATES), required=True,
                  help='the state they ended in'),
        _argument('--older-than', type=_seconds, required=True, metavar='AGE',
                  help='ended so long ago: seconds, or like 30m, 1h, 2d'))),
    Command('ping', 'ask the worker for a sign of life, and time it',
            functools.partial(_control, 'ping'),
            (_wait(10.0, 'how long to wait for the answer'), _JSON)),
    Command('metrics', 'print the numbers of the queue for Prometheus',
            functools.partial(_control, 'metrics')),
    Command('key', 'make the file with the secret key that seals stored passwords', _key, (
        _argument('path', nargs='?', metavar='FILE',
                  help='the file (default: the one that the configuration names)'),
        _argument('--rotate', action='store_true',
                  help='put a new key before the others of a file that is there'))),
)
