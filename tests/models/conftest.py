"""A ZEO server for the histories that want one."""

import pytest
from ZEO.ClientStorage import ClientStorage
from ZODB.DB import DB

from tests.zodb.conftest import zeo_address  # noqa: F401 (a fixture)


@pytest.fixture
def two_clients(zeo_address):  # noqa: F811
    """Two databases, as two processes have them, of one server."""
    # With server_sync a transaction begins by hearing of all commits before it.
    databases = [DB(ClientStorage(zeo_address, wait_timeout=60, server_sync=True))
                 for _ in range(2)]
    yield databases
    for database in databases:
        database.close()
