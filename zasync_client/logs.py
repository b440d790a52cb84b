"""Where the worker's log goes: what the configuration says, else standard output.

Imports: tracebacks, errors.
"""

import codecs
import functools
import logging
import os
import sys

from ZConfig.components.logger.handlers import HandlerFactory

from .errors import ConfigurationError
from .tracebacks import text_of


log = logging.getLogger('zasync')

#: Levels of Zope that Python has no names for; historic configurations use them.
LEVELS = {15: 'BLATHER', 5: 'TRACE', 1: 'ALL'}

FORMAT = '%(asctime)s %(levelname)s [%(name)s][%(threadName)s] %(message)s'


def set_up(eventlog, loggers, verbose_traceback=False):
    """Start logging. eventlog, loggers -- ZConfig logger factories; None for the default.

    verbose_traceback -- show values with each traceback.
    Raises ConfigurationError when a log can't be opened, or is configured so that none can.
    """
    for level, name in LEVELS.items():
        logging.addLevelName(level, name)
    factories = [factory for factory in (eventlog, *loggers) if factory is not None]
    for factory in factories:
        factory.handler_factories = [handler for handler in factory.handler_factories
                                     if _works_here(handler)]
    if eventlog is None:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter(FORMAT))
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.INFO)
    for factory in factories:
        try:
            factory()
        except (OSError, ValueError, LookupError) as reason:
            raise ConfigurationError(f'a log can not be opened: {reason}') from reason
    if verbose_traceback:
        for logger in [logging.getLogger(), *(factory() for factory in factories)]:
            for handler in logger.handlers:
                if handler.formatter is not None:
                    handler.formatter.formatException = text_of


def mistake_in(handler):
    """What is wrong with a handler factory, wherever it writes to; None if nothing is known.

    Only of ZConfig's own is it known how they make what they make.
    """
    if not isinstance(handler, HandlerFactory):
        return None
    try:
        handler.create_formatter()
        codecs.lookup(getattr(handler.section, 'encoding', None) or 'utf-8')
    except (ValueError, LookupError) as reason:
        return str(reason)
    return None


def _works_here(handler):
    return sys.platform == 'win32' or handler.section.getSectionType() != 'win32-eventlog'


def reopen(output=None, dump=None):
    """Open the log files anew: logrotate has moved them.

    output -- path of the file that standard output and error go to, if `start` has
    sent them there. dump -- a ThreadDump, or None.
    """
    steps = [functools.partial(_reopen, handler) for handler in _log_files()]
    if output is not None:
        steps.append(lambda: _redirect(output))
    if dump is not None:
        steps.append(dump.reopen)
    mistakes = []
    for step in steps:
        try:
            step()
        except OSError as reason:  # the others may still be opened, and then tell of it
            mistakes.append(reason)
    for reason in mistakes:
        log.error('a log can not be opened anew: %s', reason)


def _log_files():
    """The handlers that write files and can open them anew, those of ZConfig."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    found = [handler for logger in loggers for handler in getattr(logger, 'handlers', ())]
    return dict.fromkeys(handler for handler in found
                         if isinstance(handler, logging.FileHandler)
                         and hasattr(handler, 'reopen'))


def _reopen(handler):
    """Open its file anew; if that can't be, it goes on in the one that it has."""
    with open(handler.baseFilename, 'ab'):  # it would close its own first
        pass
    handler.reopen()


def _redirect(path):
    """Have standard output and error go to the file that has this name now."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.dup2(fd, 1)
        os.dup2(fd, 2)
    finally:
        os.close(fd)
