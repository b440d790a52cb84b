"""docs/contract.rst: the tests that it names exist."""

import ast
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
TEXT = (ROOT / 'docs' / 'contract.rst').read_text('utf-8')

#: How many lines the old contract has: methods, plugins, defects, wishes.
SECTIONS = {'Methods of the manager': 12, 'Plugins': 10, 'Defects of zasyncdispatcher': 15,
            'Flaws and wishes': 45}


def tests_named():
    """[(file, function)] of all tests named in the tables."""
    return sorted(set(re.findall(r'``(tests/[\w/]+\.py)::(\w+)``', TEXT)))


def functions(path):
    """Names of the functions of a module, those of its classes included."""
    tree = ast.parse((ROOT / path).read_text('utf-8'))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize('path, name', tests_named())
def test_a_test_that_is_named_exists(path, name):
    assert (ROOT / path).is_file(), path
    assert name in functions(path), f'{path} has no {name}'


@pytest.mark.parametrize('title', SECTIONS)
def test_each_line_of_the_old_contract_has_a_row_with_an_answer(title):
    _, _, rest = TEXT.partition(f'\n{title}\n')
    table = re.split(r'\n\n\n', rest, maxsplit=1)[0]
    rows = table.split('   * - ')[2:]
    assert len(rows) >= SECTIONS[title]
    for row in rows:
        cells = row.split('     - ')
        answer = cells[-1].strip()
        assert '``tests/' in answer or len(answer.split()) > 4, row
    assert 'TODO' not in TEXT
