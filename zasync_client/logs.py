"""Where the worker's log goes: what the configuration says, else standard output.

Imports: errors.
"""

import logging
import os
import sys

from ZConfig.components.logger.loghandler import reopenFiles

from .errors import ConfigurationError


log = logging.getLogger('zasync')

FORMAT = '%(asctime)s %(levelname)s [%(name)s][%(threadName)s] %(message)s'


def set_up(eventlog, loggers):
    """Start logging. eventlog, loggers -- ZConfig logger factories; None for the default.

    Raises ConfigurationError when a log file can't be opened.
    """
    if eventlog is None:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter(FORMAT))
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        eventlog = _nothing
    try:
        eventlog()
        for logger in loggers:
            logger()
    except OSError as reason:
        raise ConfigurationError(f'a log can not be opened: {reason}') from reason


def reopen(output=None, dump=None):
    """Open the log files anew: logrotate has moved them.

    output -- path of the file that standard output and error go to, if `start` has
    sent them there. dump -- a ThreadDump, or None.
    """
    steps = [reopenFiles]
    if output is not None:
        steps.append(lambda: _redirect(output))
    if dump is not None:
        steps.append(dump.reopen)
    for step in steps:
        try:
            step()
        except OSError as reason:  # the others may still be opened
            log.error('a log can not be opened anew: %s', reason)


def _redirect(path):
    """Have standard output and error go to the file that has this name now."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.dup2(fd, 1)
        os.dup2(fd, 2)
    finally:
        os.close(fd)


def _nothing():
    pass
