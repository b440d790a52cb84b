"""Where the worker's log goes: what the configuration says, else standard output.

Imports: nothing of ours.
"""

import logging
import sys


FORMAT = '%(asctime)s %(levelname)s [%(name)s][%(threadName)s] %(message)s'


def set_up(eventlog, loggers):
    """Start logging. eventlog, loggers -- ZConfig logger factories; None for the default."""
    if eventlog is None:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter(FORMAT))
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.INFO)
    else:
        eventlog()
    for logger in loggers:
        logger()
