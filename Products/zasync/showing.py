"""Showing pickled values to people, without running anything of theirs.

A page that lists calls must not import the classes of their arguments, nor call what a
pickle tells it to call: it shows what is written there.

Imports: payload, failure.
"""

import ast
import io
import pickle
import reprlib

from . import payload
from .failure import text_of


#: Longest text that is shown of a value, in characters.
MOST = 2_000

#: What is made for real: plain values, and our own names for callables and failures.
_PLAIN = {('builtins', name) for name in ('set', 'frozenset', 'bytearray', 'complex', 'range')} | {
    ('datetime', name) for name in ('datetime', 'date', 'time', 'timedelta', 'timezone')} | {
    ('decimal', 'Decimal'), ('fractions', 'Fraction'), ('uuid', 'UUID'),
    ('Products.zasync.builtin', 'Reference'), ('Products.zasync.failure', 'Failure'),
    ('Products.zasync.sealed', 'Sealed')}


class _Foreign:
    """Stands for an object of a class that is not made: shows its name and what it was given."""

    def __new__(cls, *args, **kwargs):
        # Not in __init__, which a pickle need not call.
        made = super().__new__(cls)
        made.given = [*args, *kwargs.values()]
        return made

    def __setstate__(self, state):
        self.given.append(state)

    def append(self, item):
        """As a list, which it may be."""
        self.given.append(item)

    def extend(self, items):
        """As a list, which it may be."""
        self.given.extend(items)

    def __setitem__(self, key, value):
        self.given.append((key, value))

    def __call__(self, *args):
        return type(self)(*self.given, *args)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(_repr(item) for item in self.given)})"


class _Unpickler(pickle.Unpickler):

    def find_class(self, module, name):
        if (module, name) in _PLAIN:
            return super().find_class(module, name)
        if (module, name) in (('copyreg', '_reconstructor'), ('copyreg', '__newobj__')):
            return lambda kind, *rest: kind()
        return type(f'{module}.{name}', (_Foreign,), {})


def literal(data):
    """The value whose pickle is `data`, if a Python literal says it and it has no password in it.

    Else None.
    """
    try:
        value = _Unpickler(io.BytesIO(payload.pickled(data))).load()
        plain = ast.literal_eval(repr(value)) == value
    except Exception:  # as in `shown`, and what is no literal
        return None
    return value if plain and not _has_hidden(value) else None


def _has_hidden(value):
    if isinstance(value, dict):
        return any(_is_hidden(*item) or _has_hidden(item[1]) for item in value.items())
    return isinstance(value, (tuple, list)) and any(_has_hidden(item) for item in value)


def _is_hidden(key, value):
    return key == 'password' and value is not None


def shown(data):
    """A text for the value whose pickle is `data`; it never raises."""
    if data is None:
        return 'None'
    try:
        return _repr(_Unpickler(io.BytesIO(payload.pickled(data))).load())[:MOST]
    except Exception as reason:  # the pickle of a class that does odd things
        return f'(can not be shown: {type(reason).__name__}: {text_of(reason)})'


class _Hidden:

    def __repr__(self):
        return '(hidden)'


class _Short(reprlib.Repr):
    """Short reprs, without the values of keywords of that name: the LDAP plugins take one."""

    def repr_dict(self, x, level):
        return super().repr_dict({key: _Hidden() if _is_hidden(key, value) else value
                                  for key, value in x.items()}, level)


def _repr(value):
    short = _Short()
    short.maxdict = short.maxlist = short.maxtuple = short.maxset = 20
    short.maxstring = short.maxother = 400
    short.maxlevel = 4
    return short.repr(value)
