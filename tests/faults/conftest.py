"""Where processes die: one server for all tests of crash points, a ground for each."""

import pytest

from tests.faults.ground import Ground
from tests.faults.ground import Theatre


@pytest.fixture(scope='package')
def theatre():
    """The servers that all share."""
    with Theatre() as made:
        yield made


@pytest.fixture
def ground(request, theatre, tmp_path):
    """A Ground at the crash point of the test, see crashpoints.at."""
    made = Ground(theatre, request.param, tmp_path)
    yield made
    made.close()
