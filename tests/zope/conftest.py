"""A Zope for each test, a manager and a dispatcher in it, and the clock."""

import pytest

from Products.zasync import clock
from Products.zasync.manager import AsynchronousCallManager
from tests.fakes import FixedClock
from tests.zopeapp import Site


@pytest.fixture
def site():
    """A Site: root users admin (Manager), bob and eve (Member)."""
    made = Site()
    yield made
    made.close()


@pytest.fixture
def app(site):
    """The application root of the test's connection."""
    return site.app


@pytest.fixture
def manager(app):
    """A manager `zam` in the root."""
    app._setObject('zam', AsynchronousCallManager('zam'))
    return app.zam


@pytest.fixture
def now(monkeypatch):
    """The clock of this process, standing still; the test may set `now.time`."""
    fixed = FixedClock()
    monkeypatch.setattr(clock, 'SYSTEM', fixed)
    return fixed
