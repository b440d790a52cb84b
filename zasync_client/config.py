"""zasync.conf: read, checked, and turned into frozen values.

The schema extends Zope's own, so whatever a zope.conf says may stand in a
zasync.conf, directly or by ``%include``.

Imports: handlers, reading, parsing, errors, zasync.
"""

import os
import sys
from dataclasses import dataclass

from Products.zasync import policy
from Products.zasync.payload import LARGEST_BYTES

from .errors import ConfigurationError
from .handlers import built_in
from .handlers import Plugin
from .handlers import plugins_of
from .parsing import Remark
from .reading import read


__all__ = ['Config', 'load', 'offered', 'Plugin', 'survey']


@dataclass(frozen=True)
class Config:
    """What a zasync.conf says; names carry their units.

    path -- of the file. target -- path of the manager, tuple. plugins -- {name:
    Plugin}, the built-in ones included; empty where nobody wants them. pid_path -- the file
    that says which process serves. zope -- Zope's own configuration object, handlers -- what
    ZConfig wants called with it. max_interruptions -- of a call, in a row, before it fails.
    max_hung_threads, max_memory_bytes -- with so many or so much the worker replaces itself;
    None: half the threads; any amount. max_result_bytes -- of a pickled result.
    verbose_traceback -- whether the log shows values with tracebacks. batch_seconds -- how long
    groups of calls run that share a transaction; 0: no calls do. cpu_affinity -- the processors
    it runs on, frozenset; None: all. metrics_address -- (host, port) or None. warnings --
    sentences for the log.
    """

    path: str
    target: tuple
    threads: int
    max_conflict_attempts: int
    initial_retry_seconds: float
    retry_growth: float
    max_total_retry_seconds: float
    drain_seconds: float
    plugins: dict
    zope: object
    handlers: object
    max_interruptions: int = policy.MAX_INTERRUPTIONS
    max_hung_threads: int | None = None
    max_memory_bytes: int | None = None
    pid_path: str = ''
    max_result_bytes: int = LARGEST_BYTES
    verbose_traceback: bool = False
    batch_seconds: float = 0.05
    cpu_affinity: frozenset | None = None
    metrics_address: tuple | None = None
    warnings: tuple = ()


def load(path, with_plugins=True):
    """The Config of the file at `path`; raises ConfigurationError with a sentence.

    Also gives this process the environment and the paths that the file says. with_plugins --
    whether handlers are imported. Whoever only looks at a worker or stops it does without, and
    is not kept from that by a handler that is gone.
    """
    config, found = survey(path, every=False, with_plugins=with_plugins)
    if found.problems:
        raise ConfigurationError(str(found.problems[0]))
    return config


def survey(path, every=True, with_plugins=True):
    """(Config or None, the Reading with all problems and warnings) of the file at `path`.

    A Config of a file with problems lacks what they are about. Raises ConfigurationError
    if there is no such file. every -- see reading.read. with_plugins -- see load.
    """
    path = os.path.abspath(path)
    found = read(path, every)
    if found.root is None:
        return None, found
    found = found._replace(warnings=[*found.warnings, *_prepare(found.root)])
    plugins, problems, warnings = plugins_of(found.root.plugins) if with_plugins else ({}, [], [])
    found = found._replace(problems=[*found.problems, *problems],
                           warnings=[*found.warnings, *warnings])
    return _config(path, found, plugins), found


def _config(path, found, plugins):
    root = found.root
    return Config(
        path=path, target=root.target, threads=root.threads,
        max_conflict_attempts=root.max_conflict_resolution_attempts,
        initial_retry_seconds=root.initial_retry_delay,
        retry_growth=root.retry_exponential_backoff,
        max_total_retry_seconds=root.max_total_retry, drain_seconds=root.drain_seconds,
        plugins=plugins, pid_path=_pid_path(root, path), zope=root,
        handlers=found.handlers, max_interruptions=root.max_interruptions,
        max_hung_threads=root.max_hung_threads, max_memory_bytes=root.max_memory,
        max_result_bytes=root.max_result_size,
        verbose_traceback=root.verbose_traceback, batch_seconds=root.batch_seconds,
        cpu_affinity=root.cpu_affinity, metrics_address=root.metrics_address,
        warnings=tuple(str(warning) for warning in found.warnings))


def offered(plugins):
    """{name: Plugin} of the built-in plugins and of those Plugins, which come first."""
    return {**built_in(), **{plugin.name: plugin for plugin in plugins}}


def _pid_path(root, path):
    """Beside the data, named like the configuration: an instance may have several workers."""
    name, _ = os.path.splitext(os.path.basename(path))
    return os.path.abspath(
        root.worker_pid_filename or os.path.join(root.clienthome, f'{name}.pid'))


def _prepare(root):
    """Give the process environment and paths; → Remarks on directories that are not there.

    Before handlers are imported: they may be there, and may ask the environment.
    """
    # With it Zope refuses all that is protected; see the warning in `historic`.
    root.skip_authentication_checking = False
    # No web server asks for them here, and the names of hosts in them may mean nothing here.
    root.trusted_proxies = []
    os.environ.update(root.environment)
    remarks = []
    paths = _there(root.path, 'path', remarks)
    sys.path[:] = paths + [path for path in sys.path if path not in paths]
    products = _there(root.products, 'products', remarks)
    if products:
        import Products
        # A list of our own: a namespace package would compute its own anew.
        Products.__path__ = products + [path for path in Products.__path__
                                        if path not in products]
    return remarks


def _there(directories, key, remarks):
    found = []
    for directory in map(os.path.abspath, directories):
        if not os.path.isdir(directory):
            remarks.append(Remark(f'{key} {directory}: there is no such directory, so it has no '
                                  'effect: name one that is there, or leave the line out'))
        elif directory not in found:
            found.append(directory)
    return found
