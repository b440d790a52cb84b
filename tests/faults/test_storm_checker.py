"""The checker of the storm finds each violation that it is there for, within one run."""

import pytest

from Products.zasync.pulse import Pulse
from tests.storm import plan
from tests.storm.__main__ import storm
from tests.storm.plan import Fault
from tests.storm.violations import PATCHES


#: Which violations, and the storm in which they are made: they do not hide each other.
RUNS = {
    'in the request': (('I1', 'I7', 'I8', 'I9', 'I11'), {'seconds': 6}),
    'in a calm': (('I2', 'I6', 'I12', 'R'), {
        'seconds': 8, 'mean_pause': 0.1, 'calm_seconds': 8, 'idle_seconds': 11,
        'kinds': {'plain': 3, 'quick': 1, 'chain': 1}}),
    'under faults': (('I3', 'I4', 'I5', 'I10'), {
        'seconds': 16, 'kinds': {'once': 6, 'slow': 3, 'plain': 1},
        'faults': tuple(Fault(at, 'kill worker', plan.WORKERS[at // 3 % 3], 0.2)
                        for at in range(3, 15, 3))}),
}


def test_each_violation_is_made_in_one_of_the_runs():
    assert sorted(name for names, _ in RUNS.values() for name in names) == sorted(PATCHES)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize('run', RUNS)
def test_deliberate_violations_are_found(run, tmp_path, monkeypatch):
    names, world = RUNS[run]
    if 'I11' in names:  # the checker looks at the class itself
        monkeypatch.setattr(Pulse, '_p_resolveConflict', None, raising=False)
    world = {'faults': (), 'calm_seconds': 40, 'filing_seconds': 0, 'idle_seconds': 0, **world}
    violations, _ = storm(tmp_path / 'storm', 'violations', patches=names, **world)
    assert set(names) <= {violation.invariant for violation in violations}, violations[:20]
