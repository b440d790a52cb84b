"""The rules of docs/architecture.rst that a program can check.

Who may import whom (import-linter, the contracts are in pyproject.toml), where time is read, what
is published, and what the files of the repository must not hold.
"""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from Acquisition import Explicit
from Acquisition import Implicit
from App.Management import Tabs
from OFS.SimpleItem import Item
from OFS.Traversable import Traversable
from ZPublisher import zpublish_mark
from ZPublisher import zpublish_marked


ROOT = Path(__file__).resolve().parents[1]

PRODUCTS = ('Products.zasync', 'Products.zasyncdispatcher', 'Products.CPSMailAccess')
PACKAGES = (*PRODUCTS, 'zasync_client')

#: Modules that may ask what time it is. Everybody else is given a clock, or a time.
CLOCKS = {'Products/zasync/clock.py', 'Products/CPSMailAccess/clock.py'}

#: Modules that only make sense as the first one of a process.
SCRIPTS = {'zasync_client.__main__'}


def sources(*packages):
    """Paths, relative to the repository, of the packages' modules."""
    return sorted(path.relative_to(ROOT).as_posix()
                  for package in packages
                  for path in (ROOT / package.replace('.', '/')).rglob('*.py'))


def modules():
    """Every module of ours, imported."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        yield package
        for info in pkgutil.walk_packages(package.__path__, name + '.'):
            if info.name not in SCRIPTS:
                yield importlib.import_module(info.name)


def classes():
    """Every class that a module of ours defines."""
    return sorted({value for module in modules() for value in vars(module).values()
                   if inspect.isclass(value) and value.__module__ == module.__name__},
                  key=lambda value: (value.__module__, value.__qualname__))


def parsed(path):
    """The module at this path as a syntax tree."""
    return ast.parse((ROOT / path).read_text('utf-8'), path)


def imported(tree):
    """Names of the modules that are imported somewhere in a tree, absolute ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def repository_files():
    """The files that are, or would be, part of the repository."""
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    if listed.returncode:
        # No repository: an unpacked archive holds what it should, and directories of tools.
        return [path for path in ROOT.rglob('*') if path.is_file()
                and not any(part.startswith('.') or part == '__pycache__'
                            for part in path.relative_to(ROOT).parts)]
    names = listed.stdout.decode().split('\0')
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


_LINT = 'import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(no_cache=True))'


def test_imports_go_down():
    """In a process of its own: import-linter silences loggers, and trips over others' imports."""
    done = subprocess.run([sys.executable, '-c', _LINT], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)}, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def test_products_is_a_namespace_shared_with_other_distributions():
    assert not (ROOT / 'Products' / '__init__.py').exists()
    assert {path.name for path in (ROOT / 'Products').iterdir() if path.is_dir()
            and path.name != '__pycache__'} == {name.split('.')[1] for name in PRODUCTS}


def test_time_is_read_in_one_place():
    readers = {path for path in sources(*PACKAGES) if 'time' in imported(parsed(path))}
    assert readers <= CLOCKS


def test_no_module_asks_datetime_what_time_it_is():
    asks = re.compile(r'\b(?:datetime|date)\.(?:now|utcnow|today)\(|\bDateTime\(\)')
    assert [path for path in sources(*PACKAGES)
            if path not in CLOCKS and asks.search((ROOT / path).read_text('utf-8'))] == []


def test_every_module_says_what_it_is():
    paths = sources(*PACKAGES, 'bench', 'tests') + ['setup.py']
    assert [path for path in paths if not ast.get_docstring(parsed(path))] == []


def test_a_zeo_server_needs_none_of_our_classes():
    assert [cls for cls in classes() if '_p_resolveConflict' in vars(cls)] == []


def published(cls):
    """Whether the publisher may come upon instances of this class and go on to their methods.

    They acquire or are made for the tree of objects, or the class says so itself. It can also say
    that it is not published: then the publisher stops there.
    """
    mark = zpublish_mark(cls)
    return mark is not False and (
        bool(mark) or issubclass(cls, (Item, Traversable, Tabs, Implicit, Explicit)))


def bases_of_published():
    """The published classes of ours and what they inherit from ours: mix-ins count too."""
    ours = set(classes())
    return sorted({base for cls in ours if published(cls) for base in cls.__mro__ if base in ours},
                  key=lambda cls: (cls.__module__, cls.__qualname__))


def test_every_method_of_a_published_class_says_whether_it_is_published():
    """A docstring alone publishes a method, so each has a mark: `@zpublish(...)`."""
    unmarked = [
        f'{cls.__module__}.{cls.__qualname__}.{name}'
        for cls in bases_of_published() for name, value in vars(cls).items()
        if inspect.isfunction(value) and not name.startswith('_') and not zpublish_marked(value)]
    assert unmarked == []


def test_the_walk_finds_published_classes():
    """So that the test above can't become one about nothing."""
    assert {cls.__name__ for cls in bases_of_published()} >= {
        'AsynchronousCallManager', 'ZAsyncDispatcher', 'MailTool', 'MailBox'}


#: Places on the machine somebody worked on. /srv, /tmp, /var, /usr and /bin are not.
MACHINE = re.compile(rb'/(?:root|work|farm|Users)/|/home/[a-z]\w*/|\b[A-Z]:\\Users')


def test_no_file_names_a_place_on_somebodys_machine():
    assert [path.relative_to(ROOT).as_posix() for path in repository_files()
            if MACHINE.search(path.read_bytes())] == []


@pytest.mark.parametrize('text, found', [
    (b'see /' + b'root/notes', True), (b'cd /' + b'work/main', True),
    (b'/home' + b'/ann/zope', True),
    (b'/srv/zope/etc', False), (b'home/ann/', False)])
def test_the_search_for_places_finds_them(text, found):
    assert bool(MACHINE.search(text)) is found
