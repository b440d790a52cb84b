"""docs/failure-modes.rst: each failure says what is lost, and has a test of its name."""

import ast
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / 'docs/failure-modes.rst').read_text('utf-8')

#: {heading: the text below it}
FAILURES = dict(re.findall(r'^(\S.*)\n~{3,}\n\n((?:(?!.+\n[~-]{3,}\n).*\n)*)', PAGE, re.M))


def name_of_test(heading):
    """The name of the test that shows a failure."""
    return 'test_' + '_'.join(re.findall(r'\w+', heading.lower()))


def names_of_tests():
    """{name of a test function: the files that have it}, without importing any."""
    found = {}
    for path in (ROOT / 'tests').rglob('test_*.py'):
        for node in ast.parse(path.read_text('utf-8')).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith('test_'):
                found.setdefault(node.name, []).append(path.name)
    return found


def test_every_failure_has_a_test_of_its_name():
    tests = names_of_tests()
    assert {heading: name_of_test(heading) for heading in FAILURES
            if len(tests.get(name_of_test(heading), ())) != 1} == {}


def test_the_names_of_failures_differ():
    headings = re.findall(r'^\S.*\n~{3,}$', PAGE, re.M)
    assert len(FAILURES) == len(headings) == len(set(map(name_of_test, FAILURES))) > 70


@pytest.mark.parametrize('heading', FAILURES)
def test_every_failure_says_what_is_lost_who_notices_who_repairs_and_after_how_long(heading):
    account, _, told = FAILURES[heading].partition('\n\n')
    assert re.fullmatch(r'\*Lost:\* .+\. \*Notices:\* .+\. \*Repairs:\* .+\. \*After:\* .+\.',
                        ' '.join(account.split()))
    assert told.strip()
