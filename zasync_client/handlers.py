"""From <plugin> sections to Plugins: each handler imported and looked at, all mistakes named.

Imports: plugins, parsing, historic, zasync.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from importlib import import_module
from typing import Any

from Products.zasync.builtin import AGGREGATE
from Products.zasync.builtin import BUILTIN
from Products.zasync.builtin import INTERNAL
from Products.zasync.builtin import NAMES
from Products.zasync.failure import dotted_name

from . import historic
from .parsing import Remark
from .parsing import sentence
from .plugins import HANDLERS


@dataclass(frozen=True)
class Plugin:
    """A kind of call the worker runs: its name, an IPlugin and a sentence about it.

    timeout_seconds -- the longest a run may take, or None. zope_aware -- see IPlugin. retry --
    whether it may run twice. attempts and the following -- see options.Retry. groupable --
    whether its calls may share a transaction.
    """

    name: str
    handler: Callable[..., Any]
    description: str
    timeout_seconds: float | None = None
    zope_aware: bool = False
    retry: bool = True
    attempts: int = 1
    retry_delay_seconds: float = 5.0
    retry_growth: float = 2.0
    retry_on: tuple[str, ...] = ()
    groupable: bool = False


class BadHandler(ValueError):
    """A handler that can't run a call; its text continues "the handler 'x' "."""


def built_in():
    """{name: Plugin} of those that are always there."""
    return {name: Plugin(name, builtin.run or HANDLERS[name], builtin.description,
                         zope_aware=builtin.run is not None, groupable=builtin.groupable)
            for name, builtin in {**BUILTIN, **INTERNAL}.items()}


def plugins_of(sections):
    """({name: Plugin}, problems, warnings) of <plugin> sections; the last two lists of Remarks.

    A section with a problem has no Plugin.
    """
    plugins, taken = built_in(), set()
    problems, warnings = [], []
    for section in sections:
        judge = _Judge(section)
        plugin = judge.plugin(taken)
        problems += judge.problems
        warnings += judge.warnings
        if plugin is not None and not judge.problems:
            plugins[plugin.name] = plugin
    return plugins, problems, warnings


class _Judge:
    """Makes a Plugin of one section, and says what is wrong with it."""

    def __init__(self, section):
        self._section = section
        self._said = section.said
        self.problems = []
        self.warnings = []

    def plugin(self, taken):
        """The Plugin, or None; taken -- the names that are in use, to which its own is added."""
        name = self._name()
        if name is None:
            return None
        if name in taken:
            self._wrong('name', f'there is a plugin {name} already')
        taken.add(name)
        if name in INTERNAL:
            self._wrong('name', f'the name {name} is one of ours: take another')
            return None
        said, dotted = self._said, self._said.handler
        known = dotted and historic.HANDLERS.get(dotted)
        if known:
            self._warn('handler', historic.of_handler(dotted, known))
        if name in NAMES and (dotted is None or known == name):
            found = built_in().get(name)
            if found and 'zope-aware' in self._section.given \
                    and said.zope_aware != found.zope_aware:
                self._warn('zope-aware', f'the plugin {name} is built in, so zope-aware has no '
                                         'effect: leave it out')
            if self._section.where and set(self._section.given) <= {'name'}:
                self._warn(None, f'the plugin {name} is built in: this section changes nothing')
        elif known in BUILTIN and known != AGGREGATE:
            found = replace(built_in()[known], name=name, handler=_checking(known))
        elif known:
            self._wrong('handler', f'the handler {dotted!r} has to be called {known}, not {name}')
            return None
        elif dotted is None:
            self._wrong(None, f'the plugin {name} needs a handler: handler package.function')
            return None
        else:
            found = self._own(name, dotted)
        retry_on = self._retry_on(name)
        if not said.retry and said.attempts > 1:
            self._wrong('attempts', f'the plugin {name} has retry off, so it never runs again: '
                                    f'attempts {said.attempts} contradicts that')
        if found is not None:
            self._judge_groupable(name, found)
        if found is None:
            if name in NAMES and not self.problems and set(self._section.given) & {
                    'timeout', 'retry', 'attempts', 'retry-delay', 'retry-growth', 'retry-on',
                    'groupable'}:
                self._warn(None, f'the plugin {name} puts another call and does not run itself: '
                                 'time-out and retries are those of that call')
            return None
        return replace(
            found, description=said.description or found.description,
            timeout_seconds=said.timeout, retry=said.retry, attempts=said.attempts,
            retry_delay_seconds=said.retry_delay, retry_growth=said.retry_growth,
            retry_on=retry_on,
            groupable=found.groupable if said.groupable is None else said.groupable)

    def _judge_groupable(self, name, plugin):
        if not self._said.groupable:
            return
        if not plugin.zope_aware:
            self._wrong('groupable', f'the plugin {name} is not zope-aware, so it has no '
                                     'transaction that it could share: groupable on contradicts '
                                     'that')
        elif not self._said.retry:
            self._wrong('groupable', f'the plugin {name} has retry off, so it never runs again: '
                                     'groupable on contradicts that, for a call that shared a '
                                     'transaction may have to')

    def _name(self):
        section, given = self._section.section_name, self._said.name
        if not section and not given:
            self._wrong(None, 'a plugin needs a name: <plugin NAME>')
            return None
        if given and section and given.lower() != section:
            self._wrong('name', f'the section <plugin {section}> says name {given}: one of them')
        return given or section

    def _own(self, name, dotted):
        """The Plugin of a handler that is not built in, or None."""
        try:
            handler = resolved(dotted)
            remark = look_at(handler, self._said.zope_aware)
        except BadHandler as reason:
            self._wrong('handler', f'plugin {name}: the handler {dotted!r} {reason}')
            return None
        if remark:
            self._warn('handler', f'plugin {name}: the handler {dotted!r} {remark}')
        return Plugin(name, handler, '', zope_aware=self._said.zope_aware)

    def _retry_on(self, name):
        found = []
        for dotted in [dotted for names in self._said.retry_on for dotted in names]:
            try:
                found.append(dotted_name(_exception(dotted)))
            except BadHandler as reason:
                self._wrong('retry-on', f'plugin {name}: the exception {dotted!r} {reason}')
        return tuple(found)

    def _wrong(self, key, text):
        self.problems.append(self._remark(key, text))

    def _warn(self, key, text):
        self.warnings.append(self._remark(key, text))

    def _remark(self, key, text):
        where = self._section.given.get(key) or self._section.where or (None, None)
        return Remark(sentence(text), *where)


def _checking(name):
    """The handler of a built-in plugin that goes by another name, of which no door knows."""
    builtin = BUILTIN[name]
    if builtin.run is None:
        return HANDLERS[name]

    def handler(run, *args, **kwargs):
        args, kwargs = builtin.check(args, kwargs)
        return builtin.run(run, *args, **kwargs)

    return handler


def resolved(dotted):
    """The callable of that dotted name. Raises BadHandler."""
    found = _imported(dotted)
    if not callable(found):
        raise BadHandler('can not be called')
    return found


def _imported(dotted):
    module, _, attribute = dotted.rpartition('.')
    if not module:
        raise BadHandler('is no dotted name like package.module.function')
    try:
        return getattr(import_module(module), attribute)
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as reason:  # importing runs the module, which may even exit
        text = ' '.join(str(reason).split())
        raise BadHandler(f'can not be imported: {type(reason).__name__}: {text}') from reason


def _exception(dotted):
    found = _imported(dotted if '.' in dotted else f'builtins.{dotted}')
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise BadHandler('is no class of exceptions')
    return found


def look_at(handler, zope_aware):
    """Raises BadHandler if no call can run with that callable; → what is odd about it, or None.

    Callables of C that tell nothing of their arguments pass.
    """
    for kind, what in ((inspect.iscoroutinefunction, 'a coroutine function'),
                       (inspect.isasyncgenfunction, 'an asynchronous generator'),
                       (inspect.isgeneratorfunction, 'a generator function')):
        if kind(handler) or kind(type(handler).__call__):
            raise BadHandler(f'is {what}: nobody would run its body')
    if inspect.isabstract(handler):
        raise BadHandler('is an abstract class: it makes no instances')
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError):
        return None
    positional = [parameter for parameter in parameters if parameter.kind in (
        parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)]
    if zope_aware and not positional:
        raise BadHandler('takes no argument by position, but with zope-aware on it is given the '
                         'run as the first one')
    if not zope_aware and positional and positional[0].name == 'run' \
            and positional[0].default is inspect.Parameter.empty:
        return ('takes `run` as its first argument, but without zope-aware on it is not given '
                'the run of the call: write zope-aware on, if that is what it is')
    return None
