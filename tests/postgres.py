"""A PostgreSQL server for a test.

Imports: bench.postgres.
"""

from contextlib import contextmanager

import pytest

from bench.postgres import Postgres
from bench.postgres import PostgresMissing


@contextmanager
def postgres_or_skip():
    """A Postgres; the test is skipped on a machine that has none."""
    try:
        with Postgres() as server:
            yield server
    except PostgresMissing as reason:
        pytest.skip(str(reason))
