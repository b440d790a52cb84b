"""A pytest plugin: how many examples Hypothesis makes, and which.

As they are, the tests try the same few examples each time: a run tells of the change that was made
and not of luck. With ZASYNC_FUZZ=1 in the environment, as `make fuzz` sets it, they are many and
others each time; one that fails is kept in `.hypothesis` and tried first from then on.

No profile has a deadline for an example: machines are slow at times. What must be quick says so.

Loaded by `-p tests.profiles` in pyproject.toml.
"""

import os

from hypothesis import HealthCheck
from hypothesis import settings


_THOROUGH = os.environ.get('ZASYNC_FUZZ', '') not in ('', '0')

#: So many times the examples of each test.
TIMES = 25 if _THOROUGH else 1

_COMMON = {'deadline': None, 'print_blob': True, 'suppress_health_check': [
    # A fixture that serves all examples of a test is meant; and the first ones start a Zope.
    HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}

settings.register_profile('ci', derandomize=True, database=None, **_COMMON)
settings.register_profile('thorough', derandomize=False, **_COMMON)
settings.load_profile('thorough' if _THOROUGH else 'ci')


def examples(number):
    """The settings of a test that tries so many examples."""
    return settings(max_examples=number * TIMES)
