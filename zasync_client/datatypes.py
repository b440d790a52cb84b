"""The types of the values in zasync.conf, as schema.xml names them.

Each takes a text and returns a value, or raises ValueError with what the value must be.
The first line of a docstring is what docs/configuration.rst says of the type.

Imports: zasync.policy.
"""

import importlib.util
import re

import ZConfig.datatypes
from ZConfig.components.logger.logger import LoggerFactory

from Products.zasync.policy import HISTORY_MOST


#: The most that a number of attempts, and of bytes, may be; it has a meaning far below.
WHOLE_MOST = 2 ** 31
BYTES_MOST = 2 ** 63
#: Most threads of a worker: each has a connection to the database and a cache.
THREADS_MOST = 1_000
#: Ten years. A wait of centuries is refused by the system, in the middle of the work.
SECONDS_MOST = 10 * 365 * 86_400

NO_PROMETHEUS = "needs the package prometheus_client: pip install 'zasync[metrics]'"

_METRICS_ADDRESS = ZConfig.datatypes.InetAddress('127.0.0.1')
_BYTES = ZConfig.datatypes.SuffixMultiplier({'kb': 1024, 'mb': 1024 ** 2, 'gb': 1024 ** 3})


def target(text):
    """path in the ZODB, from the root"""
    parts = text.split('/')
    if parts[0] != '' or not any(parts):
        raise ValueError(f'the target is a path like /asynchronous_call_manager, not {text!r}')
    return ('', *(part for part in parts if part))


def positive_integer(text):
    """whole number, 1 or more"""
    return _whole(text, WHOLE_MOST)


def thread_count(text):
    """whole number from 1 to 1,000"""
    return _whole(text, THREADS_MOST)


def _whole(text, most):
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 1 <= int(text) <= most):
        raise ValueError(f'must be a whole number, 1 or more and {most:,} at most, not '
                         f'{text!r:.50}')
    return int(text)


def processors(text):
    """numbers of processors, and ranges, with commas: ``0`` or ``0-2,5``"""
    found = set()
    for part in text.split(','):
        first, dash, last = (piece.strip() for piece in part.partition('-'))
        numbers = [first, last] if dash else [first]
        if not all(re.fullmatch('[0-9]{1,4}', number, re.A) for number in numbers):
            raise ValueError('must be numbers of processors, and ranges of them, with commas, '
                             f'like 0 or 0-2,5, not {text!r:.50}')
        if int(numbers[0]) > int(numbers[-1]):
            raise ValueError(f'the range {part.strip()} ends before it begins')
        found.update(range(int(numbers[0]), int(numbers[-1]) + 1))
    return frozenset(found)


def metrics_address(text):
    """port, or host and port with a colon between them"""
    try:
        host, port = _METRICS_ADDRESS(text.strip())
    except ValueError:
        port = None
    if port is None or not 1 <= port < 65_536:
        raise ValueError(f'must be a port, or a host and a port, like 127.0.0.1:9180, not '
                         f'{text!r:.50}')
    if not has_prometheus():
        raise ValueError(NO_PROMETHEUS)
    return host, port


def has_prometheus():
    """Whether the package is there that writes metrics."""
    return importlib.util.find_spec('prometheus_client') is not None


def few(text):
    """whole number, 1 to 10"""
    try:
        number = positive_integer(text)
    except ValueError:
        number = 0
    if not 1 <= number <= HISTORY_MOST:
        raise ValueError(f'must be a whole number, 1 to {HISTORY_MOST}, not {text!r}')
    return number


def _number(text):
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'must be a number, not {text!r:.50}') from None


def seconds(text):
    """seconds, 0 or more"""
    number = _number(text)
    if not 0 <= number <= SECONDS_MOST:
        raise ValueError('must be a number of seconds, 0 or more and ten years at most, not '
                         f'{text:.50}')
    return number


def positive_seconds(text):
    """seconds, more than 0"""
    number = seconds(text)
    if not number:
        raise ValueError('must be more than 0 seconds')
    return number


def growth(text):
    """factor, 1 or more"""
    number = _number(text)
    if not 1 <= number < float('inf'):
        raise ValueError(f'must be 1 (constant) or more, not {text:.50}')
    return number


def byte_size(text):
    """bytes, more than 0; KB, MB and GB are understood"""
    if not re.fullmatch(r'[0-9]{1,19} *(?:kb|mb|gb)?', text.strip(), re.I | re.A):
        raise ValueError(f'must be a number of bytes, like 500KB or 10MB, not {text!r:.50}')
    number = _BYTES(text.strip())
    if not 0 < number < BYTES_MOST:
        raise ValueError('must be more than 0 bytes, and fewer than there are anywhere')
    return number


def directory(text):
    """directory"""
    if not text:
        raise ValueError('must be the path of a directory')
    return text


def file_path(text):
    """path of a file"""
    if not text:
        raise ValueError('must be the path of a file')
    return text


def dotted(text):
    """dotted name"""
    return text.strip()


def names(text):
    """dotted names, with spaces between them"""
    found = tuple(text.split())
    if not found:
        raise ValueError('names no exception class')
    return found


class PluginSection:
    """A <plugin> section as it was written; ``handlers`` makes a Plugin of it.

    given -- {key: (path of the file, line)} of what it says. where -- the same of its end.
    """

    def __init__(self, section):
        self.section_name = section.getSectionName()
        self.said = section
        lines = getattr(section.getSectionMatcher(), 'lines', {})
        self.where = lines.get(None)
        self.given = {key: where for key, where in lines.items() if key is not None}


class NamedLoggerFactory(LoggerFactory):
    """A <logger> section: without a key ``name`` the section's own name is the logger's."""

    def __init__(self, section):
        if section.name is None:
            section.name = section.getSectionName()
        if not section.name:
            raise ValueError('a logger section needs a name: <logger NAME>, or the key name')
        super().__init__(section)


def http_handler(section):
    """A <http-handler> section: what ZConfig calls <http-logger>."""
    from ZConfig.components.logger.handlers import HTTPHandlerFactory
    return HTTPHandlerFactory(section)


def memory_storage(section):
    """A <temporarystorage> section where the package tempstorage is not installed."""
    from ZODB.config import MappingStorage
    return MappingStorage(section)
