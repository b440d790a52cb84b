"""A process is killed at each crash point that the code numbers; what is lost is what is written.

A crash point without a scenario fails, and so does a scenario without a crash point.
"""

import pytest

from tests.faults import dying_calls  # noqa: F401 (they register their scenarios)
from tests.faults import dying_desks  # noqa: F401
from tests.faults import dying_mail  # noqa: F401
from tests.faults.crashpoints import find_all
from tests.faults.ground import Ground
from tests.faults.ground import Theatre
from tests.faults.scenarios import SCENARIOS


NUMBERS = [point.number for point in find_all()]

CASES = [(number, scenario) for number in sorted({*NUMBERS, *SCENARIOS})
         for scenario in SCENARIOS.get(number, [None])]


@pytest.fixture(scope='module')
def theatre():
    """The server that all share."""
    with Theatre() as made:
        yield made


def test_each_crash_point_has_a_number_of_its_own():
    assert NUMBERS == list(range(1, len(NUMBERS) + 1))


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize('case', range(len(CASES)), ids=lambda case: '-'.join(
    (str(CASES[case][0]), getattr(CASES[case][1], '__name__', 'nothing'))))
def test_what_is_lost_at_a_crash_point(theatre, tmp_path, case):
    number, scenario = CASES[case]
    assert number in NUMBERS, 'the code has no such crash point'
    assert scenario is not None, 'this crash point has no scenario'
    ground = Ground(theatre, f'zad{case}', number, tmp_path)
    try:
        scenario(ground)
    finally:
        ground.close()
