"""docs/contract.rst: it has every line of the old contract, and the tests that it names exist."""

import ast
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
TEXT = (ROOT / 'docs' / 'contract.rst').read_text('utf-8')

#: How many lines each part of the old contract has: methods of the manager and what is known of
#: them (A.4); rules for plugins, and each plugin with its arguments (A.5); directives, their keys,
#: and the sample as a whole (B.1); the control script (B.2); defects (C.7); wishes (E).
SECTIONS = {'Methods of the manager': 16, 'Plugins': 16, 'Directives of zasync.conf': 22,
            'Commands of zasyncctl': 10, 'Defects of zasyncdispatcher': 15,
            'Flaws and wishes': 45}
#: Those whose lines the old contract numbers.
NUMBERED = ('Defects of zasyncdispatcher', 'Flaws and wishes')


def named():
    """[(file, function)] of all tests named in the tables."""
    return sorted(set(re.findall(r'``(tests/[\w/]+\.py)::(\w+)``', TEXT)))


def rows(title):
    """[[text of each cell]] of the table below a title, without its head."""
    _, _, rest = TEXT.partition(f'\n{title}\n')
    table = re.split(r'\n\n\n', rest, maxsplit=1)[0]
    return [[' '.join(cell.split()) for cell in row.split('\n     - ')]
            for row in table.split('   * - ')[2:]]


def functions(path):
    """Names of the functions of a module, those of its classes included."""
    tree = ast.parse((ROOT / path).read_text('utf-8'))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize('path, name', named())
def test_a_test_that_is_named_exists(path, name):
    assert (ROOT / path).is_file(), path
    assert name in functions(path), f'{path} has no {name}'


@pytest.mark.parametrize('title', SECTIONS)
def test_each_line_of_the_old_contract_has_a_row_with_an_answer(title):
    assert len(rows(title)) == SECTIONS[title]
    for row in rows(title):
        assert '``tests/' in row[-1] or len(row[-1].split()) > 4, row


@pytest.mark.parametrize('title', NUMBERED)
def test_no_number_of_the_old_contract_is_missing(title):
    assert [row[0].split('. ')[0] for row in rows(title)] == [
        str(number + 1) for number in range(SECTIONS[title])]


def test_the_page_has_no_other_table_and_leaves_nothing_open():
    assert re.findall(r'^(\S.*)\n-{3,}$', TEXT, re.M) == list(SECTIONS)
    assert 'TODO' not in TEXT
