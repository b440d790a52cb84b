"""Pickled values are shown, whatever their classes, and nothing of theirs is run."""

import pickle

import pytest

from Products.zasync.showing import shown


class Plain:
    """No state, or some."""

    def __init__(self, **state):
        self.__dict__.update(state)


@pytest.mark.parametrize('protocol', [2, 4])
def test_an_object_is_shown_by_the_name_of_its_class_and_by_its_state(protocol):
    name = f'{Plain.__module__}.Plain'
    assert shown(pickle.dumps(Plain(), protocol=protocol)) == f'{name}()'
    assert shown(pickle.dumps(Plain(a=1), protocol=protocol)) == f"{name}({{'a': 1}})"
