"""Which manager gets a call."""

from collections import Counter

import pytest

from Products.zasyncdispatcher.balancing import choose
from Products.zasyncdispatcher.balancing import least
from Products.zasyncdispatcher.balancing import Load


def load(id, calls=0, alive=True, pace=0.0):
    return Load(id, calls, alive, pace)


SPREADS = [0.0, 0.2, 0.4, 0.6, 0.8, 0.999_999]


@pytest.mark.parametrize('spread', SPREADS)
@pytest.mark.parametrize('loads, expected', [
    ([load('a', 3), load('b', 1), load('c', 2)], 'b'),
    ([load('a', 1, alive=False), load('b', 5)], 'b'),
    ([load('a', 7)], 'a'),
    ([load('a', 999), load('b', 1_000)], 'a'),
])
def test_the_least_loaded_live_manager_is_chosen(loads, expected, spread):
    assert choose(loads, spread).id == expected


@pytest.mark.parametrize('calls', [998, 999, 1_000, 10 ** 9])
def test_historic_defect_6_there_is_no_number_of_calls_at_which_a_manager_counts_as_absent(calls):
    assert choose([load('a', calls)], 0.5).id == 'a'


def test_historic_defect_7_ties_are_spread_over_all_that_have_least():
    loads = [load('a', 2), load('b', 2), load('busy', 3), load('c', 2), load('dead', 0, False)]
    chosen = Counter(choose(loads, number / 300).id for number in range(300))
    assert chosen == {'a': 100, 'b': 100, 'c': 100}


@pytest.mark.parametrize('balance', ['load', 'pace'])
@pytest.mark.parametrize('loads', [
    [], [load('a', alive=False)], [load('a', 2), load('b', 1)],
    [load('a', 2), load('b', 2), load('busy', 3), load('dead', 0, False)],
    [load('a', 2, pace=3), load('b', 1, pace=2), load('new', 0)]])
def test_those_that_have_least_are_those_that_may_be_chosen(loads, balance):
    found = {choose(loads, number / 300, balance) for number in range(300)} - {None}
    assert set(least(loads, balance)) == found


@pytest.mark.parametrize('loads', [
    [], [load('a', 0, alive=False)], [load('a', 0, False), load('b', 5, False)]])
def test_nobody_is_chosen_when_nobody_lives(loads):
    assert choose(loads, 0.5) is None


@pytest.mark.parametrize('loads, expected', [
    # Where one more call would have ended first.
    ([load('slow', 2, pace=1), load('fast', 5, pace=3)], 'fast'),
    ([load('slow', 1, pace=1), load('fast', 8, pace=3)], 'slow'),
    ([load('dead', 0, False, pace=100), load('slow', 9, pace=1)], 'slow'),
    # Nobody knows the pace of the new one: it is taken for one like the others.
    ([load('new', 1), load('known', 2, pace=5)], 'new'),
    ([load('new', 3), load('known', 2, pace=5)], 'known'),
    # Nobody knows anything: by load.
    ([load('a', 3), load('b', 2)], 'b'),
])
def test_by_pace_the_manager_is_chosen_where_one_more_call_would_end_first(loads, expected):
    assert choose(loads, 0.5, 'pace').id == expected


def test_by_load_the_pace_does_not_matter():
    assert choose([load('a', 3, pace=1_000), load('b', 2, pace=1)], 0.5).id == 'b'


def test_calls_placed_by_pace_are_shared_in_its_proportion():
    paces = {'slow': 1.0, 'one': 3.0, 'other': 3.0}
    calls = dict.fromkeys(paces, 0)
    for number in range(700):
        chosen = choose([load(id, calls[id], pace=pace) for id, pace in paces.items()],
                        number / 700, 'pace')
        calls[chosen.id] += 1
    assert calls == {'slow': 100, 'one': 300, 'other': 300}


def test_a_choice_does_not_change_what_it_chose_from():
    loads = (load('a', 1), load('b', 0))
    assert choose(loads, 0.3) is loads[1]
