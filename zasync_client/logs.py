"""Where the worker's log goes: what the configuration says, else standard output.

Imports: errors.
"""

import logging
import sys

from ZConfig.components.logger.loghandler import reopenFiles

from .errors import ConfigurationError


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


def reopen():
    """Open the log files anew: logrotate has moved them."""
    reopenFiles()


def _nothing():
    pass
