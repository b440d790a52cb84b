"""The decisions of queue and worker, as tables."""

import pytest

from Products.zasync import policy


@pytest.mark.parametrize('attempts, spread, expected', [
    (1, 0.0, 0.0), (1, 1.0, 0.04), (2, 1.0, 0.08), (1, 0.5, 0.02),
    (5, 1.0, 0.64), (6, 1.0, 1.0), (50, 1.0, 1.0), (50, 0.0, 0.0)])
def test_the_wait_after_a_conflict_doubles_is_spread_and_is_a_second_at_most(
        attempts, spread, expected):
    assert policy.conflict_delay(attempts, spread) == pytest.approx(expected)


@pytest.mark.parametrize('attempt, spread, expected', [
    (1, 0.0, 0.25), (1, 0.5, 0.5), (1, 1.0, 0.75), (2, 0.5, 1.0), (8, 0.5, 60.0),
    (30, 0.0, 30.0), (1_000, 1.0, 90.0)])
def test_a_call_given_back_waits_longer_from_attempt_to_attempt_up_to_a_bound(
        attempt, spread, expected):
    assert policy.give_back_delay(attempt, spread) == pytest.approx(expected)


@pytest.mark.parametrize('failures, first, growth, expected', [
    (1, 5, 1.1, 5), (2, 5, 1.1, 5.5), (3, 5, 1.1, 6.05), (1, 5, 1, 5), (10, 5, 1, 5),
    (2, 5, 2, 10), (50, 5, 2, 60), (1, 100, 1.1, 60)])
def test_the_wait_for_a_server_grows_by_the_factor_up_to_a_minute(
        failures, first, growth, expected):
    assert policy.reconnect_delay(failures, first, growth) == pytest.approx(expected)


def test_a_worker_that_has_waited_for_weeks_still_knows_how_long_to_wait():
    """A factor to a high power does not fit a float."""
    assert policy.reconnect_delay(100_000, 5.0, 1.1) == 60.0


def test_a_call_that_was_given_back_many_times_still_knows_how_long_to_wait():
    assert policy.give_back_delay(100_000, 0.5) == 60.0
    assert policy.conflict_delay(100_000, 1.0) == 1.0


@pytest.mark.parametrize('waited, max_total, expected', [
    (0, 3600, False), (3599.9, 3600, False), (3600, 3600, True), (1e9, 0, False), (0, 0, False)])
def test_a_worker_gives_up_after_the_longest_wait_and_never_with_0(waited, max_total, expected):
    assert policy.gives_up(waited, max_total) is expected


@pytest.mark.parametrize('beat_at, now, expected', [
    (1000.0, 1000.0, True), (1000.0, 1059.9, True), (1000.0, 1060.0, True),
    (1000.0, 1060.1, False), (0, 10.0, False), (0.0, 0.0, False),
    (1000.0, 990.0, True),                 # the estimate lags behind: it lives
    (1000.0, 1000.0 + 86_400, False),      # 24 h old counted as 0 s once
    (86_390.0, 86_410.0, True)])           # 20 s across midnight counted as a day once
def test_a_worker_lives_while_its_last_beat_is_no_older_than_the_idle_time(
        beat_at, now, expected):
    assert policy.is_alive(beat_at, now, 60) is expected


@pytest.mark.parametrize('ended_at, period, expected', [
    (0.0, 800, 100), (99.9, 800, 100), (100.0, 800, 200), (250.5, 800, 300),
    (1_700_000_123.0, 86_400, 1_700_000_123 // 10_800 * 10_800 + 10_800)])
def test_a_slice_is_named_by_the_second_it_ends_at(ended_at, period, expected):
    assert policy.slice_of(ended_at, period) == expected


@pytest.mark.parametrize('period', [1, 2, 7, 8, 60, 86_400, 86_401])
def test_a_slice_is_a_second_at_least_and_an_eighth_of_the_period(period):
    assert policy.slice_seconds(period) == max(1.0, period / 8)


@pytest.mark.parametrize('period', [1, 2, 7, 8, 60, 1_000, 86_400, 86_401])
@pytest.mark.parametrize('ended_at', [0.0, 0.5, 1.0, 99.999, 1_700_000_000.123])
def test_a_result_is_never_dropped_before_its_period_is_over(period, ended_at):
    end = policy.slice_of(ended_at, period)
    assert end > ended_at
    assert not policy.slice_is_over(end, ended_at + period - 0.01, period)


@pytest.mark.parametrize('seconds, threads, expected', [
    (None, 4, 0), (1.0, 4, 0), (0.21, 4, 0), (0.2, 4, 4), (0.1, 4, 8), (0.02, 2, 20),
    (0.002, 2, 150), (0.0, 2, 150), (1e-9, 1, 75)])
def test_short_calls_are_claimed_ahead_and_long_ones_are_not(seconds, threads, expected):
    assert policy.claim_ahead(seconds, threads) == expected


@pytest.mark.parametrize('threads, ahead, busy, expected', [
    (4, 0, 0, 4), (4, 0, 3, 1), (4, 0, 4, 0),            # nothing ahead: whenever one is free
    (2, 10, 0, 12), (2, 10, 7, 5), (2, 10, 8, 0), (2, 10, 12, 0),
    (1, 0, 5, 0), (4, 1, 4, 1), (4, 1, 5, 0)])
def test_more_is_claimed_when_half_of_what_was_claimed_ahead_is_gone(
        threads, ahead, busy, expected):
    assert policy.free_slots(threads, ahead, busy) == expected


def test_a_rotation_period_that_is_made_longer_keeps_old_results_longer_and_never_drops_early():
    """The end of a slice does not depend on the period it is judged by."""
    end = policy.slice_of(1_000.0, 800)
    assert policy.slice_is_over(end, 1_100 + 800, 800)
    assert not policy.slice_is_over(end, 1_100 + 800, 86_400)
    assert not policy.slice_is_over(end, 1_000 + 86_400 - 1, 86_400)


# the retries of a call

@pytest.mark.parametrize('retry, failures, expected', [
    (None, 1, None),                               # nothing said: the first failure is the end
    ((), 1, None),                                 # never twice
    ((1, 5.0, 2.0, 3600.0, ()), 1, None),
    ((3, 5.0, 2.0, 3600.0, ()), 1, 5.0),
    ((3, 5.0, 2.0, 3600.0, ()), 2, 10.0),
    ((3, 5.0, 2.0, 3600.0, ()), 3, None),
    ((3, 5.0, 2.0, 3600.0, ()), 4, None),          # its attempts were made fewer meanwhile
    ((9, 5.0, 1.0, 3600.0, ()), 8, 5.0),           # no growth
    ((9, 5.0, 2.0, 30.0, ()), 3, 20.0),
    ((9, 5.0, 2.0, 30.0, ()), 4, 30.0),            # the longest
    ((9, 60.0, 2.0, 30.0, ()), 1, 30.0),
    ((9, 0.0, 2.0, 3600.0, ()), 8, 0.0),           # at once, each time
    ((10 ** 6, 5.0, 2.0, 3600.0, ()), 10 ** 5, 3600.0),
    ((10 ** 6, 0.0, 2.0, 3600.0, ()), 10 ** 5, 0.0),
    ((10 ** 6, 5.0, 1e300, 3600.0, ()), 9, 3600.0),
    ((10 ** 6, 1e308, 1e300, 3600.0, ()), 2, 3600.0),
])
def test_a_call_that_failed_is_tried_again_after_a_wait_that_grows(retry, failures, expected):
    assert policy.next_try(retry, failures, ('ValueError', 'Exception')) == expected


@pytest.mark.parametrize('on, expected', [
    ((), 5.0),
    (('ValueError',), 5.0),
    (('KeyError', 'ValueError'), 5.0),
    (('Exception',), 5.0),                         # what it inherits from
    (('KeyError',), None),
    (('some.other.ValueError',), None),
])
def test_only_the_exceptions_that_are_named_are_worth_another_try(on, expected):
    kinds = ('ValueError', 'Exception', 'BaseException', 'object')
    assert policy.next_try((3, 5.0, 2.0, 3600.0, on), 1, kinds) == expected


@pytest.mark.parametrize('asked, ceiling, expected', [
    (None, None, None), (5, None, 5), (None, 60, 60), (5, 60, 5), (90, 60, 60)])
def test_the_timeout_of_a_plugin_is_a_ceiling_for_that_of_a_call(asked, ceiling, expected):
    assert policy.time_limit(asked, ceiling) == expected


@pytest.mark.parametrize('outcomes, suspect', [
    ([], False),
    (['interrupted'] * 4, False),
    (['interrupted'] * 5, True),
    (['its worker was gone', 'interrupted'] * 3, True),
    (['conflicts'] + ['interrupted'] * 5, True),
    (['interrupted'] * 4 + ['failed: ValueError', 'interrupted'], False),
    (['interrupted'] * 5 + ['nobody ran it'], False),
    (['interrupted'] * 4 + ['its worker took too much memory'], True),
    (['interrupted'] * 4 + ['its worker was stopped', 'interrupted'], False),
    (['interrupted'] * 4 + ['its worker was replaced'], False),
    (['interrupted'] * 4 + [None], False),
    (['interrupted, maybe by a call beside it'] + ['interrupted'] * 4, False),
    (['interrupted, maybe by a call beside it'] + ['interrupted'] * 5, True),
])
def test_a_call_is_suspect_after_five_attempts_in_a_row_whose_workers_were_lost(outcomes, suspect):
    assert policy.is_suspect(outcomes) is suspect


@pytest.mark.parametrize('outcomes, most, last', [
    ([], 1, False), (['interrupted'], 1, False),   # it fails at once
    ([], 2, False), (['interrupted'], 2, True), (['interrupted', None], 2, True),
    (['interrupted', 'conflicts', None], 2, False),
    (['its worker was gone'] * 3, 5, False), (['its worker was gone'] * 4, 5, True)])
def test_one_interruption_before_the_last_a_call_has_its_last_chance(outcomes, most, last):
    assert policy.has_last_chance(outcomes, most) is last
