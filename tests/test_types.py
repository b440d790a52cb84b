"""What add-ons use has types: mypy checks them, and with them what an add-on does.

The add-on and its mistakes are in tests/typed; a line that is wrong names the kind of error in a
comment.
"""

import importlib
import re
import subprocess
import sys
import tomllib
import typing
from dataclasses import fields
from pathlib import Path

import pytest

from Products.zasync import interfaces
from Products.zasync import lifecycle
from Products.zasync import options
from Products.zasync.board import Progress
from Products.zasync.deferred import Attempt
from Products.zasync.deferred import Deferred


ROOT = Path(__file__).resolve().parents[1]
TYPED = ROOT / 'tests' / 'typed'


@pytest.fixture(scope='module')
def mypy(tmp_path_factory):
    """Run mypy with the settings of the repository; → what it wrote, which is one line a finding.

    All runs share a cache, and leave nothing in the checkout.
    """
    cache = tmp_path_factory.mktemp('mypy')

    def checked(*paths):
        done = subprocess.run(
            [sys.executable, '-m', 'mypy', '--no-error-summary', '--hide-error-context',
             '--no-pretty', '--no-color-output', '--cache-dir', cache, *paths],
            cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
        assert done.returncode in (0, 1) and not done.stderr, done.stderr or done.stdout
        return done.stdout

    return checked


def settings():
    return tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))['tool']['mypy']


def test_the_public_modules_have_no_error(mypy):
    assert settings()['strict'] is True
    assert mypy() == ''


def test_an_add_on_that_is_right_has_no_error(mypy):
    assert mypy(TYPED / 'addon.py') == ''


def test_each_mistake_of_an_add_on_is_an_error_of_its_line(mypy):
    path = TYPED / 'mistakes.py'
    expected = [(number, mistake[1])
                for number, line in enumerate(path.read_text('utf-8').splitlines(), 1)
                if (mistake := re.search(r'# mistake: ([\w-]+)$', line))]
    found = re.findall(r'^\S+mistakes\.py:(\d+): error: .*\[([\w-]+)\]$', mypy(path), re.M)
    assert [(int(number), kind) for number, kind in found] == expected
    assert len(expected) > 20


def test_the_names_that_the_add_on_imports_are_there_when_it_runs():
    assert importlib.import_module('tests.typed.addon').Shop


def test_every_checked_module_is_of_a_package_that_says_it_has_types():
    for name in settings()['files']:
        package = next(path for path in (ROOT / name).parents if path.parent.name == 'Products'
                       or path.parent == ROOT)
        assert (ROOT / name).is_file() and (package / 'py.typed').is_file(), name


def test_the_types_name_the_states_there_are():
    assert typing.get_args(lifecycle.State) == interfaces.STATES


def test_the_types_name_the_options_there_are():
    named = typing.get_type_hints(options.OptionNames)
    assert named == typing.get_type_hints(options.Options)
    assert list(named) == [field.name for field in fields(options.Options)]


def test_the_types_name_what_the_interface_of_a_deferred_has():
    """What restricted code and add-ons may use, and no type checker would miss."""
    hints = {**typing.get_type_hints(Deferred, localns={'Any': typing.Any}),
             'id': str, 'plugin': str, 'put_at': float}
    for name in interfaces.IDeferred.names():
        value = getattr(Deferred, name, None)
        typed = value.fget if isinstance(value, property) else value
        assert name in hints or 'return' in typed.__annotations__, name


@pytest.mark.parametrize('kind', [Progress, Attempt])
def test_restricted_code_reads_what_type_checkers_know_as_fields(kind):
    assert kind.__allow_access_to_unprotected_subobjects__ == 1
    assert list(kind.__annotations__) == list(kind._fields)
