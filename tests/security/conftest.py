"""One town for all tests that only look at it, and a fresh one for those that change it."""

import pytest

from tests.security.town import Town


@pytest.fixture
def town():
    """A town of the test's own."""
    made = Town()
    yield made
    made.close()
