"""Cron: which times an expression names, above all where clocks are put forward and back."""

import datetime
from zoneinfo import ZoneInfo

import pytest

from Products.zasync.cron import SHORT
from Products.zasync.cron import Timetable
from Products.zasync.errors import BadCall


def seconds(text, zone='Europe/Berlin', fold=0):
    """POSIX seconds of a time on the clocks of a zone."""
    moment = datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return moment.timestamp()


def shown(moment, zone='Europe/Berlin'):
    """A time as the clocks of a zone show it."""
    return datetime.datetime.fromtimestamp(moment, ZoneInfo(zone)).strftime('%m-%d %H:%M %z')


def times(expression, start, number=4, zone='Europe/Berlin', fold=0):
    """The times after `start`, as the clocks show them."""
    found = Timetable(expression, zone).times_after(seconds(start, zone, fold), number)
    return [shown(moment, zone) for moment in found]


@pytest.mark.parametrize('expression, expected', [
    ('* * * * *', ['06-01 12:01 +0200', '06-01 12:02 +0200']),
    ('*/20 * * * *', ['06-01 12:20 +0200', '06-01 12:40 +0200']),
    ('5 4 * * *', ['06-02 04:05 +0200', '06-03 04:05 +0200']),
    ('0 9-17/4 * * mon-fri', ['06-01 13:00 +0200', '06-01 17:00 +0200']),
    ('0 0 L * *', ['06-30 00:00 +0200', '07-31 00:00 +0200']),
    ('0 0 LW * *', ['06-30 00:00 +0200', '07-31 00:00 +0200']),
    ('0 0 * * 5L', ['06-26 00:00 +0200', '07-31 00:00 +0200']),
    ('0 8 * * MON#2', ['06-08 08:00 +0200', '07-13 08:00 +0200']),
    ('  0 0 1 jan * ', ['01-01 00:00 +0100', '01-01 00:00 +0100']),
    ('13-13/1 12 * * *', ['06-01 12:13 +0200', '06-02 12:13 +0200']),
    ('0-0/5,07-7/2 13 * * *', ['06-01 13:00 +0200', '06-01 13:07 +0200']),
    ('0 0 * * Sat-sat/1', ['06-06 00:00 +0200', '06-13 00:00 +0200']),
    ('3-33/30 12 * * *', ['06-01 12:03 +0200', '06-01 12:33 +0200']),
    ('@daily', ['06-02 00:00 +0200', '06-03 00:00 +0200']),
    ('@Hourly', ['06-01 13:00 +0200', '06-01 14:00 +0200']),
])
def test_an_expression_names_these_times(expression, expected):
    assert times(expression, '2026-06-01T12:00', 2) == expected


def test_two_fields_for_the_day_are_both_to_fit_if_one_begins_with_a_star_else_either():
    assert times('0 0 13 * fri', '2026-11-01T00:00', 3) == [
        '11-06 00:00 +0100', '11-13 00:00 +0100', '11-20 00:00 +0100']
    assert times('0 0 */13 * sun', '2026-11-01T00:00', 2) == [
        '12-27 00:00 +0100', '02-14 00:00 +0100']


def test_the_time_zone_is_the_one_that_is_named():
    assert Timetable('0 12 * * *', 'Asia/Tokyo').next_after(0.0) == 3 * 3600.0
    assert Timetable('0 12 * * *').next_after(0.0) == 12 * 3600.0


def test_a_time_comes_strictly_after_the_moment_and_has_no_fraction():
    minutely = Timetable('* * * * *')
    assert minutely.next_after(60.0) == 120.0
    assert minutely.next_after(60.25) == 120.0
    assert minutely.next_after(119.999) == 120.0


@pytest.mark.parametrize('expression, expected', [
    # 02:30 does not exist on 29 March: once, at the first moment after the gap.
    ('30 2 * * *', ['03-29 03:00 +0200', '03-30 02:30 +0200']),
    ('*/10 2 * * *', ['03-29 03:00 +0200', '03-30 02:00 +0200']),
    # Once, also where that moment is named itself.
    ('0 2,3 * * *', ['03-29 03:00 +0200', '03-30 02:00 +0200']),
    ('30 2,3 * * *', ['03-29 03:00 +0200', '03-29 03:30 +0200']),
    ('0 */2 * * *', ['03-29 03:00 +0200', '03-29 04:00 +0200']),
])
def test_a_time_of_day_that_does_not_exist_is_the_first_moment_after_the_gap(
        expression, expected):
    assert times(expression, '2026-03-29T01:00', 2) == expected


@pytest.mark.parametrize('expression, expected', [
    ('30 2 * * *', ['10-25 02:30 +0200', '10-26 02:30 +0100']),
    ('*/30 2 * * *', ['10-25 02:00 +0200', '10-25 02:30 +0200', '10-26 02:00 +0100']),
    ('0 */2 * * *', ['10-25 02:00 +0200', '10-25 04:00 +0100']),
])
def test_a_time_of_day_that_exists_twice_is_the_first_of_the_two(expression, expected):
    assert times(expression, '2026-10-25T01:00', len(expected)) == expected


def test_asked_between_two_equal_times_it_does_not_go_back():
    assert times('30 2 * * *', '2026-10-25T02:10', 1, fold=1) == ['10-26 02:30 +0100']
    assert times('*/15 2 * * *', '2026-10-25T02:50', 1) == ['10-26 02:00 +0100']


@pytest.mark.parametrize('start, expected', [
    ('2026-03-29T01:30', ['03-29 01:45 +0100', '03-29 03:00 +0200', '03-29 03:15 +0200']),
    ('2026-10-25T02:30', ['10-25 02:45 +0200', '10-25 02:00 +0100', '10-25 02:15 +0100']),
])
def test_with_a_star_as_hour_elapsed_time_counts(start, expected):
    assert times('*/15 * * * *', start, 3) == expected


@pytest.mark.parametrize('minutes, start, expected', [
    ('30', '2026-10-04T01:00', ['01:30 +1030', '02:30 +1100', '03:30 +1100']),
    ('0', '2026-10-04T01:00', ['03:00 +1100', '04:00 +1100', '05:00 +1100']),
    ('30', '2026-04-05T01:00', ['01:30 +1100', '01:30 +1030', '02:30 +1030']),
    ('45', '2026-04-05T01:00', ['01:45 +1100', '01:45 +1030', '02:45 +1030']),
    ('0', '2026-04-05T01:00', ['02:00 +1030', '03:00 +1030', '04:00 +1030']),
])
def test_with_a_star_as_hour_no_minute_is_missed_where_clocks_change_by_half_an_hour(
        minutes, start, expected):
    zone = 'Australia/Lord_Howe'
    found = Timetable(f'{minutes} * * * *', zone).times_after(seconds(start, zone), 3)
    assert [shown(each, zone)[6:] for each in found] == expected


def test_a_whole_day_that_does_not_exist_is_skipped_over_at_once():
    """Samoa went from 29 to 31 December 2011."""
    zone = 'Pacific/Apia'
    found = Timetable('0 12 30 12 *', zone).next_after(seconds('2011-12-29T13:00', zone))
    assert shown(found, zone) == '12-31 00:00 +1400'


@pytest.mark.parametrize('zone', ['Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe',
                                  'Pacific/Apia', 'Asia/Kathmandu', 'UTC'])
@pytest.mark.parametrize('expression', ['* * * * *', '7 * * * *', '30 2 * * *', '*/25 1-3 * * *'])
def test_times_only_grow_and_do_not_depend_on_where_one_starts(zone, expression):
    """Whoever asks from the last time finds what whoever asks from anywhere between finds."""
    table = Timetable(expression, zone)
    for start in ('2026-03-08T00:00', '2026-03-29T00:00', '2026-04-04T12:00', '2026-10-25T00:00',
                  '2026-11-01T00:00'):
        moment = seconds(start, zone)
        for _ in range(12):
            following = table.next_after(moment)
            assert following > moment
            for part in (0.1, 0.5, 0.99):
                assert table.next_after(moment + (following - moment) * part) == following
            moment = following


@pytest.mark.parametrize('expression', [
    'cron nonsense', '', '   ', '* * * *', '* * * * * *', '0 0 0 * * *', 'a b c d e',
    '60 * * * *', '* 24 * * *', '* * 0 * *', '* * * 13 *', '* * * * 8', '-1 * * * *',
    '*/0 * * * *', '5-5/0 * * * *', '5-5-5/2 * * * *', '5-5/2/2 * * * *', '60-60/1 * * * *',
    '5-1 * * * *', '1,, * * * *', '* * * * *#*', '* * * * MON#1/2', '* * * * 5L/2',
    '0 0 30 2 *', '0 0 31 4,6 *', '@reboot', '@', '@daily * * * *',
    '٣ * * * *', '*' * 500, None, 5, b'* * * * *', ['*'] * 5,
])
def test_what_is_no_cron_expression_is_refused_with_a_sentence(expression):
    with pytest.raises(BadCall) as refused:
        Timetable(expression)
    assert isinstance(refused.value, ValueError)
    assert len(str(refused.value).split()) > 6
    assert len(str(refused.value)) < 500


def test_the_sentence_says_which_field_is_wrong():
    with pytest.raises(BadCall, match="'61 \\* \\* \\* \\*' is no cron expression: Bad minute"):
        Timetable('61 * * * *')
    with pytest.raises(BadCall, match='it has 2 fields, not the five minute, hour'):
        Timetable('cron nonsense')


@pytest.mark.parametrize('zone', ['Berlin', '', 'Europe', '../UTC', '/etc/localtime', 'utc ', None,
                                  5, b'UTC', 'Europe/Berlin\0', ['UTC']])
def test_an_unknown_time_zone_is_refused_with_a_sentence(zone):
    with pytest.raises(BadCall, match='there is no time zone'):
        Timetable('* * * * *', zone)


def test_a_day_that_is_years_away_is_found():
    assert shown(Timetable('0 0 29 2 *', 'UTC').next_after(seconds('2026-01-01T00:00', 'UTC')),
                 'UTC') == '02-29 00:00 +0000'


@pytest.mark.parametrize('short', SHORT)
def test_each_short_form_is_an_expression(short):
    assert Timetable(short).next_after(0.0) > 0.0
