"""The lines of a zasync.conf: what stands where, and of each mistake what to leave out.

Imports: schema, historic.
"""

import contextlib
import io
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
from .schema import schema


#: Longest line, in characters, with what the names in it stand for: a few lines of %define can
#: double a text until it fills the memory.
LINE_MOST = 10_000

#: Longest sentence, in characters: it may quote what stands in the file.
TEXT_MOST = 500


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


def sentence(text):
    """`text` in one line, and no longer than a person reads."""
    text = ' '.join(text.split())
    return text if len(text) <= TEXT_MOST else f'{text[:TEXT_MOST]}…'


class Blame(NamedTuple):
    """Where a mistake is, and what is to be left out: lines, {(url, number)}, with their name."""

    url: str
    line: int
    lines: frozenset
    name: str


def path_of(url):
    """The path of a file's URL, and other URLs as they are; None for none."""
    if not url:
        return None
    parts = urllib.parse.urlsplit(url)
    return urllib.request.url2pathname(parts.path) if parts.scheme == 'file' else url


class Loader(ConfigLoader):
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
        with _told('the file as a whole makes no sense'):  # Zope's type of it may raise anything
            root = matcher.finish()
        if root.verbose_security and root.security_policy_implementation == 'C':
            self._refuse_key('verbose-security', 'verbose-security on needs '
                             'security-policy-implementation PYTHON, for Zope too: write that as '
                             'well, or leave this line out')
        return root, CompositeHandler(matcher.handlers, self.schema)

    def _refuse_key(self, key, message):
        """What the top-level directive of that name says does not go with another one."""
        url, line = next(place for place, name in self.names.items() if name == key)
        reason = ZConfig.ConfigurationSyntaxError(message, url, line)
        reason.blame = Blame(url, line, frozenset([(url, line)]), key)
        raise reason

    def openResource(self, url):
        scheme, path = urllib.parse.urlsplit(url).scheme, path_of(url)
        if scheme not in ('file', 'package'):
            # A server might let us wait for ever; and what is read says which code is run.
            raise ZConfig.ConfigurationError(f'{url} is no file, and nothing else is included')
        if scheme == 'file' and os.path.exists(path) and not os.path.isfile(path):
            raise ZConfig.ConfigurationError(f'{path} is no file')  # a pipe might never end
        with _told(f'{path} can not be read'):
            return super().openResource(url)

    def createResource(self, file, url):
        text = file.getvalue()
        return super().createResource(io.StringIO(text.removeprefix('\ufeff')), url)

    def importSchemaComponent(self, package):
        with _told(f'{package} can not be imported'):
            super().importSchemaComponent(package)

    def _parse_resource(self, matcher, resource, defines=None):
        if resource.url in self._open:
            raise ZConfig.ConfigurationError(f'{path_of(resource.url)} includes itself')
        self._open.append(resource.url)
        try:
            _Parser(resource, self, defines).parse(matcher)
        finally:
            self._open.pop()


@contextlib.contextmanager
def _told(what):
    """Whatever happens inside becomes a ConfigurationError: it may run the code of a package."""
    try:
        yield
    except (ZConfig.ConfigurationError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as reason:
        raise ZConfig.ConfigurationError(f'{what}: {_why(reason)}') from reason


def _why(reason):
    if isinstance(reason, UnicodeDecodeError):
        return f'it is no text in UTF-8: {reason}'
    if isinstance(reason, ssl.SSLError):
        return f'it names a certificate, key or authority that is none: {reason}'
    if isinstance(reason, OSError) and reason.filename is None:  # SSL does not say which
        return f'a file that it names can not be read: {reason.strerror}'
    return f'{type(reason).__name__}: {reason}'


class _Parser(ZConfigParser):
    """Tells where what stands, and of each error what to leave out to get past it."""

    def __init__(self, resource, context, defines=None):
        super().__init__(resource, context, defines)
        self._begins = []  # [(line, type)] of the sections that are open
        self._text = [line.strip() for line in resource.file.getvalue().split('\n')]

    def nextline(self):
        done, line = super().nextline()
        if not done and (self.url, self.lineno) in self.context.skipped:
            return False, ''
        if not done and '\0' in line:
            self._refuse_line('a NUL character stands in this line')
        if not done and len(line) > LINE_MOST:
            self._refuse_line(f'this line has more than {LINE_MOST:,} characters')
        return done, line

    def _refuse_line(self, message):
        reason = ZConfig.ConfigurationSyntaxError(message, self.url, self.lineno)
        self._blame(reason, self.lineno, self.lineno, self.lineno, '')
        raise reason

    def replace(self, text):
        found = super().replace(text)
        if len(found) > LINE_MOST:
            self.error(f'with the texts that its names stand for this line has more than '
                       f'{LINE_MOST:,} characters')
        return found

    def error(self, message):
        reason = ZConfig.ConfigurationSyntaxError(message, self.url, self.lineno)
        if message.startswith('unclosed sections'):
            line, kind = self._begins[-1]
            reason.message = f'the section <{kind}> that begins here does not end'
            reason.blame = Blame(self.url, line, frozenset(), '')
        elif message.startswith('unbalanced section end'):
            line, kind = self._begins[-1]
            reason.message = f'this should be </{kind}>, the end of the section of line {line}'
            reason.blame = Blame(self.url, self.lineno, frozenset(), '')
        elif message.startswith(('unexpected section end', 'malformed section end')):
            self._blame(reason, self.lineno, self.lineno, self.lineno, '')
        raise reason

    def start_section(self, section, rest):
        if rest.endswith('/'):  # it ends where it begins, and its mistakes are in this line
            return self.end_section(self.start_section(section, rest[:-1]),
                                    (rest[:-1].split() or [''])[0])
        begin, kind = self.lineno, (rest.split() or [''])[0].lower()
        try:
            if kind == 'zodb' and not self._begins:
                self.error('a database of Zope is a section <zodb_db>, which says where it is '
                           'mounted')
            found = super().start_section(section, rest)
        except ZConfig.ConfigurationError as reason:
            if reason.message.startswith('None is not an allowed name for'):
                reason.message = f'a section <{kind}> needs a name: <{kind} NAME>'
            self._blame(reason, begin, begin, self._end_of(begin), kind)
            raise
        self._remark(historic.of_section(kind, sys.platform))
        if found is not section:
            found.lines = {None: (path_of(self.url), begin)}
            self._begins.append((begin, kind))
        return found

    def end_section(self, section, rest):
        try:
            with _told('this section makes no sense'):  # its type may raise anything
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
        section.lines.setdefault(key.lower(), (path_of(self.url), self.lineno))
        self.context.names[self.url, self.lineno] = key.lower()
        self._remark(historic.of_key(section.type.name, key.lower(), rest[len(key):]))

    def handle_directive(self, section, rest):
        try:
            with _told(f'%{rest} makes no sense'):
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
            self.context.remarks.append(Remark(text, path_of(self.url), self.lineno))

    def _blame(self, reason, line, first, last, name):
        """The mistake is in `line`; the lines from first to last are to be left out."""
        if not hasattr(reason, 'blame'):
            outermost = self._begins[0][1] if self._begins else name
            reason.blame = Blame(self.url, line, frozenset(
                (self.url, number) for number in range(first, last + 1)), outermost)
