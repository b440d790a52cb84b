"""Tracebacks with values, for verbose-traceback: under each line what its names stood for.

A password is handed on: what is called with one may keep it under any name. So below a line where
there is a password no values are shown at all, and none in a module that says `__hide_values__ =
True` because a password is told to a server there, which may repeat it in any answer. The text of
an exception may quote one; of those that are values only the class is shown.

Imports: zasync.
"""

import re
import reprlib
import traceback

from Products.zasync.failure import lines_of


#: Innermost frames that are shown with values.
FRAMES_MOST = 30

#: What a name with one of these in it stands for is not shown.
SECRET = re.compile('pass(word|wd|phrase)|secret|token|credential|auth', re.I)

#: What is called where such a name stands for something is shown without values.
HANDED_ON = re.compile('pass(word|wd|phrase)|secret', re.I)

#: Names of every module or class body.
DULL = re.compile(r'__\w+__$')


class _Repr(reprlib.Repr):

    def __init__(self):
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 200
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 8

    def repr1(self, value, level):
        if isinstance(value, BaseException):
            return f'({type(value).__name__})'
        return super().repr1(value, level)

    def repr_dict(self, value, level):
        shown = {key: _Hidden() if isinstance(key, str) and SECRET.search(key) else each
                 for key, each in value.items()}
        return super().repr_dict(shown, level)


class _Hidden:

    def __repr__(self):
        return '(not shown)'


_REPR = _Repr()


def text_of(exc_info):
    """The traceback of (class, exception, traceback) as text, with values.

    An exception that another one led to is shown first, without values.
    """
    _, error, tb = exc_info
    lines = []
    before = error.__cause__
    if before is None and not error.__suppress_context__:
        before = error.__context__
    if before is not None:
        lines += [*lines_of(before), '\nled to:\n\n']
    lines.append('Traceback (most recent call last):\n')
    frames, hidden = [], False
    for frame, number in traceback.walk_tb(tb):
        hidden = hidden or frame.f_globals.get('__hide_values__', False) is not False
        frames.append((frame, number, hidden))
        hidden = hidden or _has_password(frame)
    for frame, number, hidden in frames[-FRAMES_MOST:]:
        lines += traceback.format_list(
            traceback.StackSummary.extract([(frame, number)], lookup_lines=True))
        values = ['(values not shown: a password is about)'] if hidden else _values(frame)
        lines += [f'      {line}\n' for line in values]
    lines += lines_of(error, frames=False)
    return ''.join(lines).rstrip('\n')


def _has_password(frame):
    try:
        return any(HANDED_ON.search(name) and value for name, value in frame.f_locals.items())
    except Exception:  # foreign code says whether a value is true: it may be a password
        return True


def _values(frame):
    """Lines that tell the local variables of a frame and the globals that its code uses."""
    try:
        shown = [('', name, value) for name, value in frame.f_locals.items()]
        shown += [('global ', name, frame.f_globals[name]) for name in frame.f_code.co_names
                  if name in frame.f_globals and name not in frame.f_locals]
        return [f'{prefix}{name} = {_shown(name, value)}' for prefix, name, value in shown
                if not DULL.match(name)]
    except Exception as reason:  # a namespace given to exec() may be foreign, and name anything
        return [f'(which values there are can not be told: {type(reason).__name__})']


def _shown(name, value):
    if SECRET.search(name):
        return repr(_Hidden())
    try:
        return ' '.join(_REPR.repr(value).split())
    except Exception as reason:  # foreign code made the text; a log must not fail for it
        return f'({type(value).__name__}, which can not be shown: {type(reason).__name__})'
