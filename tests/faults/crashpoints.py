"""The crash points that the code numbers, each a comment on lines of its own:

    # crash point 3: the put is committed and nobody is told; the call runs.

A process that dies there does so before the first line of code after the comment. With
``crash point 16, at the vote:`` it dies while the transaction of that line is committed, when all
databases have voted and none has finished.

A test says by `at` where its process dies. ``python -m tests.faults.crashpoints`` prints the list
as it stands in docs/failure-modes.rst.

Imports: nothing of ours.
"""

import ast
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest


ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ('Products', 'zasync_client')

_MARKER = re.compile(r'\s*# crash point (\d+)(, at the vote)?: (.*)')
_MORE = re.compile(r'\s*# (.*)')


#: The numbers of the crash points at which some test has a process die.
TESTED = set()


def at(*numbers):
    """The test is run for each of these crash points, on a Ground where processes die there."""
    def register(test):
        TESTED.update(numbers)
        for mark in (pytest.mark.slow, pytest.mark.faults,
                     pytest.mark.parametrize('ground', numbers, indirect=True)):
            test = mark(test)
        return test
    return register


class CrashPoint(NamedTuple):
    """One of them. path -- below ROOT. line -- of the code before which the process dies.

    at_vote -- see the module. told -- what happens then, in a sentence.
    """

    number: int
    path: str
    line: int
    at_vote: bool
    told: str


def find_all():
    """All crash points of the product, a list in the order of their numbers."""
    return sorted(point for package in PACKAGES for path in sorted((ROOT / package).rglob('*.py'))
                  for point in find_in(path))


def as_text(point):
    """An item of the list in the document."""
    number = f'{point.number}. '
    return textwrap.fill(
        f'{number}``{point.path}``: {"at the vote; " * point.at_vote}{point.told}', 99,
        subsequent_indent=' ' * len(number), break_long_words=False, break_on_hyphens=False)


def find_in(path):
    """Those of one file."""
    text = path.read_text('utf-8')
    if '# crash point ' not in text:
        return
    lines, statements = text.splitlines(), _statements(text)
    for index, line in enumerate(lines):
        if marker := _MARKER.fullmatch(line):
            number, at_vote, told = marker.groups()
            index += 1
            while more := _MORE.fullmatch(lines[index]):
                told += ' ' + more[1]
                index += 1
            if index + 1 not in statements:
                raise ValueError(f'no statement follows crash point {number} in {path}')
            yield CrashPoint(int(number), path.relative_to(ROOT).as_posix(), index + 1,
                             bool(at_vote), told)


def _statements(text):
    """The lines at which statements inside of functions begin."""
    return {node.lineno for function in ast.walk(ast.parse(text))
            if isinstance(function, ast.FunctionDef) for node in ast.walk(function)
            if isinstance(node, ast.stmt) and node is not function}


if __name__ == '__main__':
    print('\n'.join(map(as_text, find_all())))
