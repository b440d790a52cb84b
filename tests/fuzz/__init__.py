"""Tests with input that Hypothesis makes up; how many examples, tests/conftest.py says."""

from hypothesis import HealthCheck
from hypothesis import settings


#: What the profile `ci` makes of a test that does not say how many examples it tries.
_USUAL = 40


def examples(number):
    """The settings of a test that tries so many examples in `make test`."""
    return settings(max_examples=number * settings().max_examples // _USUAL,
                    suppress_health_check=[HealthCheck.too_slow])
