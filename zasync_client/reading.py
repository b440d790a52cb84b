"""Reading a zasync.conf: the file, and all that is wrong in it, each with file and line.

ZConfig stops at the first mistake. To find the others, what was wrong is left out (a line, or
a section as a whole) and the file read again.

Imports: parsing, schema, errors.
"""

import difflib
import os
from typing import NamedTuple

import ZConfig
from ZConfig.matcher import SectionValue

from .errors import ConfigurationError
from .parsing import Blame
from .parsing import Loader
from .parsing import path_of
from .parsing import Remark
from .parsing import sentence
from .schema import schema


#: More mistakes than that nobody reads, and each costs one more reading of the file.
MISTAKES_MOST = 100


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


def read(path, every=False):
    """The Reading of the file at `path`.

    every -- look for all problems; else there is one at most, and then no root.
    Raises ConfigurationError if there is no such file, or none that this user may read.
    """
    path = os.path.abspath(path)
    if os.path.isdir(path):
        raise ConfigurationError(f'{path} is a directory: name the configuration file in it')
    if not os.path.isfile(path):
        raise ConfigurationError(_why_no_file(path))
    problems, skipped, lost = [], set(), set()
    while True:
        loader = Loader(skipped, lost)
        try:
            return Reading(*loader.loadURL(path), _sorted(problems), loader.remarks, lost)
        except ZConfig.ConfigurationError as reason:
            remark, lines, name = _judge(reason, loader, path)
        # Something is missing because of what was left out: no mistake of its own.
        if not (lines & skipped and 'no values for' in remark.text):
            problems.append(remark)
        new = lines - skipped if lines else {name} - lost - {''}
        if not every or not new or len(problems) >= MISTAKES_MOST:
            return Reading(None, None, _sorted(problems), loader.remarks, lost)
        skipped |= lines
        lost.add(name)


def _why_no_file(path):
    """A sentence: there is none, or this user may not see whether there is."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as reason:
        return f'the configuration file {path} can not be read: {reason.strerror}'
    return f'there is no configuration file {path}'


def _sorted(remarks):
    return sorted((remark._replace(text=sentence(remark.text)) for remark in remarks),
                  key=lambda remark: (remark.path or '', remark.line or 0))


def _judge(reason, loader, path):
    """(Remark on an error, the lines to leave out to get past it, the name of what is lost)."""
    url, line = getattr(reason, 'url', None), getattr(reason, 'lineno', None)
    blame = getattr(reason, 'blame', None)
    if blame is None and isinstance(reason, ZConfig.DataConversionError) and url and line:
        blame = Blame(url, line, frozenset([(url, line)]), loader.names.get((url, line), ''))
    if blame is not None:
        text, key = _text(reason), loader.names.get((blame.url, blame.line))
        if key is not None and key not in text:
            text = f'{key}{" " if text.startswith(("must be", "can not be")) else ": "}{text}'
        return Remark(text, path_of(blame.url), blame.line), blame.lines, blame.name
    if isinstance(getattr(reason, 'value', None), SectionValue):  # ZConfig says no line of it
        path, line = reason.value.getSectionMatcher().lines[None]
        return Remark(_text(reason), path, line), frozenset(), ''
    if "'instancehome'" in str(reason):
        return (Remark('there is no line instancehome: it names the directory of the Zope '
                       'instance', path), frozenset(), 'instancehome')
    return Remark(_text(reason), path_of(url) or path, line), frozenset(), ''


def _text(reason):
    """The sentence of an error of ZConfig, in one line."""
    if isinstance(reason, ZConfig.SubstitutionReplacementError):
        if f'$({reason.name})' in reason.source and reason.name not in os.environ:
            return (f'there is no variable {reason.name} in the environment, for which '
                    f'$({reason.name}) stands: set it where the command is started (systemd and '
                    'cron set few), or write the text itself')
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
