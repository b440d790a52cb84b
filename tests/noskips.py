"""A pytest plugin: with ZASYNC_NO_SKIPS=1 in the environment a skipped test fails the run.

A test may be skipped where its server is not installed. In CI that would hide the missing server,
so CI sets the variable. Loaded by `-p tests.noskips` in pyproject.toml.
"""

import os

import pytest


_VARIABLE = 'ZASYNC_NO_SKIPS'


def _forbidden():
    return os.environ.get(_VARIABLE, '') not in ('', '0')


def _reason(report):
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    return str(report.longrepr)


def _refuse(report):
    """Turn a report of a skip into a failure; an expected failure (xfail) stays as it is."""
    if report.skipped and _forbidden() and not hasattr(report, 'wasxfail'):
        report.longrepr = f'{_VARIABLE} is set, and this was skipped: {_reason(report)}'
        report.outcome = 'failed'


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that skips, or that a mark skips."""
    outcome = yield
    _refuse(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """A module that skips itself while it is collected."""
    outcome = yield
    _refuse(outcome.get_result())
