"""Each crash point that the code numbers is tested, and told in docs/failure-modes.rst."""

import re

import pytest

from tests.faults import test_killed_calls  # noqa: F401 (they tell which points they test)
from tests.faults import test_killed_desks  # noqa: F401
from tests.faults import test_killed_synchronisation  # noqa: F401
from tests.faults.crashpoints import as_text
from tests.faults.crashpoints import find_all
from tests.faults.crashpoints import ROOT
from tests.faults.crashpoints import TESTED


POINTS = find_all()


@pytest.mark.parametrize('point', POINTS, ids=lambda point: str(point.number))
def test_a_process_is_killed_at_each_crash_point(point):
    assert point.number in TESTED


def test_each_crash_point_has_a_number_of_its_own_and_none_is_missing():
    assert [point.number for point in POINTS] == list(range(1, len(TESTED) + 1))


def test_each_crash_point_is_told_in_the_document_as_in_the_code():
    page = (ROOT / 'docs/failure-modes.rst').read_text('utf-8')
    told = page.split('\nCrash points\n-')[1]
    listed = re.findall(r'^\d+\. .+\n(?: .+\n)*', told, re.M)
    assert listed == [f'{as_text(point)}\n' for point in POINTS], (
        'run python -m tests.faults.crashpoints')
