"""Reading a zasync.conf: the file, and all that is wrong in it, each with file and line.

ZConfig stops at the first mistake. To find the others, what was wrong is left out (a line, or
a section as a whole) and the file read again.

Imports: schema, historic, errors.
"""

import difflib
import os
import ssl
import sys
import urllib.parse
import urllib.request
from typing import NamedTuple

import ZConfig
from ZConfig.cfgparser import ZConfigParser
from ZConfig.loader import CompositeHandler
from ZConfig.loader import ConfigLoader

from . import historic
from .errors import ConfigurationError
from .schema import schema


#: More mistakes than that nobody reads, and each costs one more reading of the file.
MISTAKES_MOST = 100


class Remark(NamedTuple):
    """A sentence on a place in a file; path, line -- None where it is about no place."""

    text: str
    path: str | None = None
    line: int | None = None

    def __str__(self):
        where = self.path or ''
        if self.line:
            where += f', line {self.line}'
        return f'{where}: {self.text}' if where else self.text


class Reading(NamedTuple):
    """What a file says.

    root, handlers -- ZConfig's; None where nothing could be made of the file.
    problems, warnings -- lists of Remarks. lost -- names of the top-level keys, sections and
    directives that were left out because something is wrong in them.
    """

    root: object
    handlers: object
    problems: list
    warnings: list
    lost: set


class _Blame(NamedTuple):
    """Where a mistake is, and what is to be left out: lines, {(url, number)}, with their name."""

    url: str
    line: int
    lines: frozenset
    name: str


def read(path, every=False):
    """The Reading of the file at `path`.

    every -- look for all problems; else there is one at most, and then no root.
    Raises ConfigurationError if there is no such file, or it is no text.
    """
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise ConfigurationError(f'there is no configuration file {path}')
    problems, skipped, lost = [], set(), set()
    while True:
        loader = _Loader(skipped, lost)
        try:
            return Reading(*loader.loadURL(path), _sorted(problems), loader.remarks, lost)
        except ZConfig.ConfigurationError as reason:
            remark, lines, name = _judge(reason, loader, path)
        except OSError as reason:
            raise ConfigurationError(f'{path}{_of_os_error(reason, path)}') from reason
        # Something is missing because of what was left out: no mistake of its own.
        if not (lines & skipped and 'no values for' in remark.text):
            problems.append(remark)
        new = lines - skipped if lines else {name} - lost - {''}
        if not every or not new or len(problems) >= MISTAKES_MOST:
            return Reading(None, None, _sorted(problems), loader.remarks, lost)
        skipped |= lines
        lost.add(name)


def _of_os_error(reason, path):
    """How a sentence on the file at `path` goes on: it, or what it names, can't be read."""
    if isinstance(reason, ssl.SSLError):
        return f': an <ssl> section names a certificate, key or authority that is none: {reason}'
    if getattr(reason, 'filename', path) is None:  # what SSL says of a file it does not find
        return f': a file that an <ssl> section names can not be read: {reason.strerror}'
    return f' can not be read: {reason}'


def _sorted(remarks):
    return sorted(remarks, key=lambda remark: (remark.path or '', remark.line or 0))


def _judge(reason, loader, path):
    """(Remark on an error, the lines to leave out to get past it, the name of what is lost)."""
    url, line = getattr(reason, 'url', None), getattr(reason, 'lineno', None)
    blame = getattr(reason, 'blame', None)
    if blame is None and isinstance(reason, ZConfig.DataConversionError) and url and line:
        blame = _Blame(url, line, frozenset([(url, line)]), loader.names.get((url, line), ''))
    if blame is not None:
        text, key = _text(reason), loader.names.get((blame.url, blame.line))
        if key is not None and key not in text:
            text = f'{key}{" " if text.startswith(("must be", "can not be")) else ": "}{text}'
        return Remark(text, _path(blame.url), blame.line), blame.lines, blame.name
    if "'instancehome'" in str(reason):
        return (Remark('there is no line instancehome: it names the directory of the Zope '
                       'instance', path), frozenset(), 'instancehome')
    return Remark(_text(reason), _path(url) or path, line), frozenset(), ''


def _path(url):
    if not url:
        return None
    parts = urllib.parse.urlsplit(url)
    return urllib.request.url2pathname(parts.path) if parts.scheme == 'file' else url


def _text(reason):
    """The sentence of an error of ZConfig, in one line."""
    if isinstance(reason, ZConfig.SubstitutionReplacementError):
        return (f'{reason.name} is not defined; %define {reason.name} would do it, and '
                f'$({reason.name}) is a variable of the environment')
    lines = (getattr(reason, 'message', None) or str(reason)).strip().splitlines() or ['']
    text = lines[0].strip() if len(lines) == 1 else f'{lines[0].strip()}: {lines[-1].strip()}'
    if text.startswith('unknown type name: '):
        text = f"there is no section <{text.partition(': ')[2][1:-1]}>"
    key, unknown, _ = text.partition(' is not a known key name')
    if unknown:
        near = difflib.get_close_matches(
            key.strip("'").lower(), [name for name, _ in schema() if name], 1, 0.8)
        if near:
            text += f'; is {near[0]} meant?'
    return text


class _Loader(ConfigLoader):
    """Leaves out what is skipped, and collects remarks and places of what it reads.

    names -- {(url, line): key}.
    """

    def __init__(self, skipped, lost):
        super().__init__(schema())
        self.skipped = skipped
        self.remarks = []
        self.names = {}
        self._lost = lost
        self._open = []

    def loadResource(self, resource):
        matcher = self.createSchemaMatcher()
        matcher.lines = {}
        self._parse_resource(matcher, resource)
        if self._lost & {'instancehome', '%include'} and 'instancehome' not in matcher.lines:
            matcher.addValue('instancehome', os.sep, (None, None, None))
        return matcher.finish(), CompositeHandler(matcher.handlers, self.schema)

    def openResource(self, url):
        try:
            return super().openResource(url)
        except UnicodeDecodeError as reason:
            raise ZConfig.ConfigurationError(
                f'{_path(str(url))} is no text in UTF-8: {reason}') from reason

    def importSchemaComponent(self, package):
        try:
            super().importSchemaComponent(package)
        except ZConfig.ConfigurationError:
            raise
        except Exception as reason:  # importing runs the package, which may raise anything
            raise ZConfig.ConfigurationError(
                f'{package} can not be imported: {type(reason).__name__}: {reason}') from reason

    def _parse_resource(self, matcher, resource, defines=None):
        if resource.url in self._open:
            raise ZConfig.ConfigurationError(f'{_path(resource.url)} includes itself')
        self._open.append(resource.url)
        try:
            _Parser(resource, self, defines).parse(matcher)
        finally:
            self._open.pop()


class _Parser(ZConfigParser):
    """Tells where what stands, and of each error what to leave out to get past it."""

    def __init__(self, resource, context, defines=None):
        super().__init__(resource, context, defines)
        self._begins = []  # [(line, type)] of the sections that are open
        self._text = [line.strip() for line in resource.file.getvalue().splitlines()]

    def nextline(self):
        done, line = super().nextline()
        if not done and (self.url, self.lineno) in self.context.skipped:
            return False, ''
        return done, line

    def error(self, message):
        reason = ZConfig.ConfigurationSyntaxError(message, self.url, self.lineno)
        if message.startswith('unclosed sections'):
            line, kind = self._begins[-1]
            reason.message = f'the section <{kind}> that begins here does not end'
            reason.blame = _Blame(self.url, line, frozenset(), '')
        elif message.startswith('unbalanced section end'):
            line, kind = self._begins[-1]
            reason.message = f'this should be </{kind}>, the end of the section of line {line}'
            reason.blame = _Blame(self.url, self.lineno, frozenset(), '')
        elif message.startswith(('unexpected section end', 'malformed section end')):
            self._blame(reason, self.lineno, self.lineno, self.lineno, '')
        raise reason

    def start_section(self, section, rest):
        begin, kind = self.lineno, (rest.rstrip('/').split() or [''])[0].lower()
        try:
            found = super().start_section(section, rest)
        except ZConfig.ConfigurationError as reason:
            self._blame(reason, begin, begin, self._end_of(begin), kind)
            raise
        self._remark(historic.of_section(kind, sys.platform))
        if found is not section:
            found.lines = {None: (_path(self.url), begin)}
            self._begins.append((begin, kind))
        return found

    def end_section(self, section, rest):
        try:
            found = super().end_section(section, rest)
        except ZConfig.ConfigurationError as reason:
            if hasattr(reason, 'blame'):
                raise
            begin, kind = self._begins[-1]
            line = getattr(reason, 'lineno', None) or -1
            if begin < line < self.lineno and getattr(reason, 'url', None) == self.url:
                self._blame(reason, line, line, line, kind)
            else:
                self._blame(reason, begin, begin, self.lineno, kind)
            raise
        self._begins.pop()
        return found

    def handle_key_value(self, section, rest):
        key = rest.split(None, 1)[0]
        try:
            super().handle_key_value(section, rest)
        except ZConfig.ConfigurationError as reason:
            self._blame(reason, self.lineno, self.lineno, self.lineno, key.lower())
            raise
        section.lines.setdefault(key.lower(), (_path(self.url), self.lineno))
        self.context.names[self.url, self.lineno] = key.lower()
        self._remark(historic.of_key(section.type.name, key.lower(), rest[len(key):]))

    def handle_directive(self, section, rest):
        try:
            super().handle_directive(section, rest)
        except ZConfig.ConfigurationError as reason:
            name = '%' + (rest.split() or [''])[0]
            self._blame(reason, self.lineno, self.lineno, self.lineno, name)
            raise

    def _end_of(self, begin):
        """The line in which the section ends that begins in that line."""
        depth = 0
        for number, line in enumerate(self._text[begin - 1:], begin):
            if line.startswith('</'):
                depth -= 1
            elif line.startswith('<') and not line.endswith('/>'):
                depth += 1
            if depth <= 0:
                return number
        return len(self._text)

    def _remark(self, text):
        if text is not None:
            self.context.remarks.append(Remark(text, _path(self.url), self.lineno))

    def _blame(self, reason, line, first, last, name):
        """The mistake is in `line`; the lines from first to last are to be left out."""
        if not hasattr(reason, 'blame'):
            outermost = self._begins[0][1] if self._begins else name
            reason.blame = _Blame(self.url, line, frozenset(
                (self.url, number) for number in range(first, last + 1)), outermost)
