"""What zope_exec and zope_call take at the door, as tables of right and wrong shapes."""

import functools
import os.path

import pytest
from persistent import Persistent

from Products.zasync import builtin
from Products.zasync.builtin import as_path
from Products.zasync.builtin import check_zope_call
from Products.zasync.builtin import check_zope_exec
from Products.zasync.builtin import reference
from Products.zasync.errors import BadCall
from zasync_client.plugins import HANDLERS


GOOD = ('/', {}, 'python:1', {})


@pytest.mark.parametrize('args, expected', [
    (('/', {}, 'python:1'), (('',), {}, 'python:1', {})),
    (('/', {}, 'python:1', {}), (('',), {}, 'python:1', {})),
    ((('', 'a', 'b'), {'x': 1}, 'here/title', {'y': 2}),
     (('', 'a', 'b'), {'x': 1}, 'here/title', {'y': 2})),
    ((['', 'a'], {}, 'python: 1', {}), (('', 'a'), {}, 'python: 1', {})),
    (('/a/b/', {}, 'python:1', {}), (('', 'a', 'b'), {}, 'python:1', {})),
    ((('',), {}, 'python:1', {}), (('',), {}, 'python:1', {})),
])
def test_zope_exec_takes_the_historic_shapes(args, expected):
    assert check_zope_exec(args, {}) == (expected, {})


@pytest.mark.parametrize('args, kwargs', [
    ((), {}), (('/',), {}), (('/', {}), {}), ((*GOOD, {}), {}),
    (GOOD, {'names': {}}), (GOOD[:3], {'names': {}}), ((), {'path': '/'}),
    (('a/b', *GOOD[1:]), {}), (('x', *GOOD[1:]), {}),
    ((None, *GOOD[1:]), {}), ((5, *GOOD[1:]), {}), ((('a',), *GOOD[1:]), {}),
    (((), *GOOD[1:]), {}), ((('', 5), *GOOD[1:]), {}), (({'': 1}, *GOOD[1:]), {}),
    (('/', None, *GOOD[2:]), {}), (('/', 'text', *GOOD[2:]), {}), (('/', [1], *GOOD[2:]), {}),
    (('/', {5: 1}, *GOOD[2:]), {}), (('/', [('a', 1)], *GOOD[2:]), {}),
    (('/', {}, None, {}), {}), (('/', {}, b'python:1', {}), {}), (('/', {}, 'python:(', {}), {}),
    (('/', {}, 'python:1', None), {}), (('/', {}, 'python:1', 'names'), {}),
    (('/', {}, 'python:1', {1: 2}), {}),
    (('python:1',), {}), (('/', 'python:1', {}), {}),
])
def test_zope_exec_refuses_a_wrong_shape_with_a_sentence(args, kwargs):
    with pytest.raises(BadCall) as refusal:
        check_zope_exec(args, kwargs)
    assert isinstance(refusal.value, ValueError)
    assert len(str(refusal.value).split()) >= 4


def test_zope_exec_does_not_keep_the_mappings_of_the_caller():
    variables, names = {'a': 1}, {'b': 2}
    (_, kept_variables, _, kept_names), _ = check_zope_exec(('/', variables, 'nothing', names), {})
    assert (kept_variables, kept_names) == (variables, names)
    assert kept_variables is not variables and kept_names is not names


@pytest.mark.parametrize('given, expected', [
    ('/', ('',)), ('/a', ('', 'a')), ('/a//b/', ('', 'a', 'b')), (('',), ('',)),
    (('', 'a b', 'é'), ('', 'a b', 'é')), (['', 'a'], ('', 'a')), (('', '', 'a'), ('', 'a'))])
def test_a_path_is_a_tuple_that_starts_at_the_root(given, expected):
    assert as_path(given) == expected


class Named:
    """A class at module level, with callables of all kinds."""

    def method(self):
        """An ordinary one."""

    @classmethod
    def of_class(cls):
        """One that is bound to the class."""

    @staticmethod
    def static():
        """One that is bound to nothing."""


def function():
    """A function of a module."""


def nested():
    """Makes functions nobody can import."""
    def inner():
        pass
    return inner


#: A second name of a function, and a name that hides another.
alias = function
hidden = function


def hidden():  # noqa: F811
    """Whoever holds the first `hidden` can still find it, as `function`."""


class Located(Persistent):
    """Stands for an object of a tree: it has a path."""

    def __init__(self, path):
        self.path = path

    def getPhysicalPath(self):
        """Where it is."""
        return self.path

    def work(self):
        """What is called."""

    @classmethod
    def of_class(cls):
        """Bound to the class, which is nowhere in the tree."""


def named_elsewhere(self):
    """A function of a module, bound to an object whose class has no such name."""


@pytest.mark.parametrize('target, expected', [
    (function, ('function', __name__, 'function')),
    (alias, ('function', __name__, 'function')),
    (Named, ('function', __name__, 'Named')),
    (Named.static, ('function', __name__, 'Named.static')),
    (os.path.join, ('function', 'posixpath', 'join')),
    (len, ('function', 'builtins', 'len')),
    (Located(('', 'a', 'b')).work, ('method', ('', 'a', 'b'), 'work')),
    (Located(('',)).work, ('method', ('',), 'work')),
])
def test_zope_call_takes_what_can_be_found_again_by_name(target, expected):
    found = reference(target)
    assert (found.kind, found.where, found.name) == expected
    assert check_zope_call((target, 1, 'x'), {'y': 2}) == ((found, 1, 'x'), {'y': 2})


@pytest.mark.parametrize('target', [
    'os.system', 'Products.zasync.builtin.reference', '/a/b', '', b'os.system', None, 5, (), [],
    {'kind': 'function'}, ('function', 'os', 'system'), ('method', ('',), 'manage_delObjects'),
    lambda: None, nested(), Named().method, functools.partial(function), Named(),
    Located(()).work, Located(('a', 'b')).work, [].append, 'text'.upper,
])
def test_zope_call_refuses_what_can_not_be_found_again_by_name(target):
    with pytest.raises(BadCall) as refusal:
        check_zope_call((target,), {})
    assert isinstance(refusal.value, ValueError)
    assert len(str(refusal.value).split()) >= 4


def test_zope_call_refuses_a_call_of_nothing():
    with pytest.raises(BadCall):
        check_zope_call((), {})
    with pytest.raises(BadCall):
        check_zope_call((), {'target': function})


def test_zope_call_refuses_a_function_that_another_has_taken_the_name_of():
    first = type(function)(function.__code__, globals(), 'hidden')
    first.__qualname__ = 'hidden'
    with pytest.raises(BadCall):
        reference(first)


def test_zope_call_refuses_a_function_whose_module_is_gone():
    orphan = type(function)(function.__code__, globals(), 'function')
    orphan.__module__ = 'no_such_module_of_anybody'
    with pytest.raises(BadCall):
        reference(orphan)


def test_zope_call_refuses_a_bound_function_that_its_object_does_not_have():
    with pytest.raises(BadCall) as refusal:
        reference(named_elsewhere.__get__(Located(('', 'a'))))
    assert 'named_elsewhere' in str(refusal.value)


def test_zope_call_refuses_a_method_of_a_class_even_if_its_objects_have_paths():
    for target in (Named.of_class, Located.of_class):
        with pytest.raises(BadCall):
            reference(target)


def test_the_built_in_plugins_are_there_with_a_sentence_each():
    assert set(builtin.BUILTIN) == {'zope_exec', 'zope_call', 'aggregate', 'echo',
                                    'unprotected_ldap', 'protected_ldap'}
    assert all(plugin.description for plugin in builtin.BUILTIN.values())


def test_what_only_a_worker_can_run_has_a_handler_there():
    assert set(HANDLERS) == {name for name, plugin in builtin.BUILTIN.items()
                             if plugin.run is None}


@pytest.mark.parametrize('args, kwargs, expected', [
    ((5,), {}, 5), (((1, 2),), {}, (1, 2)), ((None,), {}, None),
    ((), {}, ((), {})), ((1, 2), {}, ((1, 2), {})), ((1,), {'a': 2}, ((1,), {'a': 2}))])
def test_echo_takes_anything_and_gives_it_back(args, kwargs, expected):
    assert builtin.check_echo(args, kwargs) == (args, kwargs)
    assert builtin.echo(None, *args, **kwargs) == expected
