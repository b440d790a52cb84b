"""zasync.conf: read, checked, and turned into frozen values.

The schema extends Zope's own, so whatever a zope.conf says may stand in a
zasync.conf, directly or by ``%include``.

Imports: errors, plugins.
"""

import os
import ssl
import xml.sax
from dataclasses import dataclass
from importlib import import_module

import ZConfig
from Zope2.Startup.options import ConditionalSchemaParser
from Zope2.Startup.options import ZopeWSGIOptions

from Products.zasync.builtin import BUILTIN
from Products.zasync.builtin import INTERNAL
from Products.zasync.payload import LARGEST_BYTES

from .errors import ConfigurationError
from .plugins import HANDLERS


SCHEMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'schema.xml')


@dataclass(frozen=True)
class Plugin:
    """A kind of call the worker runs: its name, an IPlugin and a sentence about it.

    timeout_seconds -- the longest a run may take, or None. zope_aware -- see IPlugin. retry --
    whether it may run twice. attempts and the following -- see options.Retry.
    """

    name: str
    handler: callable
    description: str
    timeout_seconds: float | None = None
    zope_aware: bool = False
    retry: bool = True
    attempts: int = 1
    retry_delay_seconds: float = 5.0
    retry_growth: float = 2.0
    retry_on: tuple = ()


@dataclass(frozen=True)
class Config:
    """What a zasync.conf says; names carry their units.

    path -- of the file. target -- path of the manager, tuple. plugins -- {name:
    Plugin}, the built-in ones included. zope -- Zope's own configuration object,
    handlers -- what ZConfig wants called with it.
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
    max_result_bytes: int = LARGEST_BYTES


def load(path):
    """The Config of the file at `path`; raises ConfigurationError with a sentence."""
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise ConfigurationError(f'there is no configuration file {path}')
    options = _Options(configfile=path)
    try:
        options()
    except ZConfig.ConfigurationSyntaxError as reason:
        where = f'{reason.url or path}, line {reason.lineno}'
        raise ConfigurationError(f'{where}: {reason.message}') from reason
    except ZConfig.ConfigurationError as reason:
        raise ConfigurationError(f'{path}: {_sentence(reason)}') from reason
    except ssl.SSLError as reason:
        raise ConfigurationError(f'{path}: an <ssl> section names a certificate, key or authority '
                                 f'that is none: {reason}') from reason
    except (OSError, UnicodeDecodeError) as reason:
        if getattr(reason, 'filename', path) is None:  # what SSL says of a file it does not find
            raise ConfigurationError(f'{path}: a file that an <ssl> section names can not be '
                                     f'read: {reason.strerror}') from reason
        raise ConfigurationError(f'{path} can not be read: {reason}') from reason
    root = options.configroot
    plugins = {name: Plugin(name, builtin.run or HANDLERS[name], builtin.description,
                            zope_aware=builtin.run is not None)
               for name, builtin in {**BUILTIN, **INTERNAL}.items()}
    plugins.update({plugin.name: plugin for plugin in root.plugins})
    return Config(
        path=path, target=root.target, threads=root.threads,
        max_conflict_attempts=root.max_conflict_resolution_attempts,
        initial_retry_seconds=root.initial_retry_delay,
        retry_growth=root.retry_exponential_backoff,
        max_total_retry_seconds=root.max_total_retry, drain_seconds=root.drain_seconds,
        plugins=plugins, zope=root, handlers=options.confighandlers)


def _sentence(reason):
    url = getattr(reason, 'url', None)
    line = getattr(reason, 'lineno', None)
    text = getattr(reason, 'message', None) or str(reason)
    return f'line {line}: {text}' if url and line else text


class _SchemaParser(ConditionalSchemaParser):
    """Reads the schema we extend with the same rules as our own, conditional imports included."""

    def extendSchema(self, src):
        parser = _SchemaParser(self._loader, src, self)
        with self._loader.openResource(src) as resource:
            xml.sax.parse(resource.file, parser)


class _Options(ZopeWSGIOptions):

    schemafile = SCHEMA

    def _conditional_load(self):
        loader = ZConfig.loader.SchemaLoader()
        with loader.openResource(loader.normalizeURL(self.schemafile)) as resource:
            parser = _SchemaParser(loader, resource.url)
            xml.sax.parse(resource.file, parser)
            self.schema = parser._schema


# datatypes of schema.xml

def target(text):
    """A ZODB path as a tuple; it starts at the root and names something in it."""
    parts = text.split('/')
    if parts[0] != '' or not any(parts):
        raise ValueError(f'the target is a path like /asynchronous_call_manager, not {text!r}')
    return ('', *(part for part in parts if part))


def positive_integer(text):
    """A whole number, 1 or more."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f'must be a whole number, 1 or more, not {text!r}')
    return int(text)


def _number(text):
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'must be a number, not {text!r}') from None


def seconds(text):
    """A number of seconds, 0 or more."""
    number = _number(text)
    if not 0 <= number < float('inf'):
        raise ValueError(f'must be a number of seconds, 0 or more, not {text}')
    return number


def positive_seconds(text):
    """A number of seconds, more than 0."""
    number = seconds(text)
    if not number:
        raise ValueError('must be more than 0 seconds')
    return number


def growth(text):
    """A factor, 1 or more."""
    number = _number(text)
    if not 1 <= number < float('inf'):
        raise ValueError(f'must be 1 (constant) or more, not {text}')
    return number


def plugin_section(section):
    """The Plugin of a <plugin> section."""
    name = section.getSectionName()
    if not name:
        raise ValueError('a plugin section needs a name: <plugin NAME>')
    return Plugin(name, section.handler, section.description, zope_aware=section.zope_aware)


def handler(dotted):
    """The callable of that dotted name."""
    module, _, attribute = dotted.rpartition('.')
    if not module:
        raise ValueError(f'the handler {dotted!r} is no dotted name like package.module.function')
    try:
        found = getattr(import_module(module), attribute)
    except Exception as reason:  # importing runs the module, which may raise anything
        raise ValueError(f'the handler {dotted!r} can not be imported: '
                         f'{type(reason).__name__}: {reason}') from reason
    if not callable(found):
        raise ValueError(f'the handler {dotted!r} can not be called')
    return found
