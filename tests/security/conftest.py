"""A fresh town for the tests that change it, and the secret key of all towns."""

import pytest

from tests.secretkeys import secret_key
from tests.security.town import Town
from tests.zopeapp import started


@pytest.fixture(scope='package', autouse=True)
def key_file(tmp_path_factory):
    """The secret key of this process; the towns are copies of one, with one password in it."""
    started()  # which reads the configuration
    with secret_key(tmp_path_factory.mktemp('keys') / 'secret.key') as made:
        yield made


@pytest.fixture
def town():
    """A town of the test's own."""
    made = Town()
    yield made
    made.close()
