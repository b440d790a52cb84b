"""Options and Retry: what is refused where it is written, and what is stored of the rest."""

import datetime
import enum
import math
from dataclasses import FrozenInstanceError

import pytest

from Products.zasync.errors import BadCall
from Products.zasync.options import class_names
from Products.zasync.options import groupable
from Products.zasync.options import is_groupable
from Products.zasync.options import NAME_MOST
from Products.zasync.options import Options
from Products.zasync.options import Retry
from tests.fakes import NOW


def seconds(number):
    return datetime.timedelta(seconds=number)


def at(number, zone=datetime.UTC):
    return datetime.datetime.fromtimestamp(number, zone)


class Level(enum.IntEnum):
    HIGH = 7


class Text(str):
    __slots__ = ()


class Seconds(float):
    __slots__ = ()


class Broken(datetime.tzinfo):
    """A time zone that knows no offset."""

    def utcoffset(self, moment):
        return None


# what is refused

@pytest.mark.parametrize('priority', [
    None, True, False, 1.0, 1.5, '5', math.inf, [], 2 ** 31 + 1, -2 ** 31 - 1, 10 ** 400])
def test_a_priority_is_a_whole_number(priority):
    with pytest.raises(BadCall, match='priority is a whole number'):
        Options(priority=priority)


@pytest.mark.parametrize('name', ['key', 'series'])
@pytest.mark.parametrize('value', [
    '', b'sync', 5, 0, True, False, 1.5, ('a',), ['a'], {}, object(), 'x' * (NAME_MOST + 1)])
def test_a_key_or_a_series_is_a_text(name, value):
    with pytest.raises(BadCall, match=f'the {name} is a text of 1 to {NAME_MOST} characters'):
        Options(**{name: value})


@pytest.mark.parametrize('timeout', [
    0, 0.0, -1, -0.5, math.inf, -math.inf, math.nan, True, False, '5', [], 10 ** 400,
    datetime.timedelta(seconds=5)])
def test_a_timeout_is_a_finite_number_of_seconds_above_none(timeout):
    with pytest.raises(BadCall, match='the timeout is a number of seconds, more than 0'):
        Options(timeout=timeout)


@pytest.mark.parametrize('name', ['not_before', 'expires'])
@pytest.mark.parametrize('value, reason', [
    (seconds(-1), 'negative delay'),
    (seconds(-0.000001), 'negative delay'),
    (datetime.timedelta.min, 'negative delay'),
    (at(NOW).replace(tzinfo=None), 'without a time zone'),
    (datetime.datetime(2030, 1, 1, tzinfo=Broken()), 'without a time zone'),
    (datetime.date(2030, 1, 1), 'an aware datetime or a timedelta'),
    (datetime.time(12, tzinfo=datetime.UTC), 'an aware datetime or a timedelta'),
    (60, 'an aware datetime or a timedelta'),
    (60.0, 'an aware datetime or a timedelta'),
    (True, 'an aware datetime or a timedelta'),
    ('2030-01-01T00:00:00Z', 'an aware datetime or a timedelta')])
def test_a_moment_is_an_aware_datetime_or_a_delay_that_is_not_negative(name, value, reason):
    with pytest.raises(BadCall, match=reason) as caught:
        Options(**{name: value})
    assert str(caught.value).startswith(name)


@pytest.mark.parametrize('retry', [
    True, 0, -1, 1.5, math.inf, '3', (3, 5.0), [], {}, object(), Retry, ()])
def test_a_retry_is_a_retry_a_number_of_attempts_or_false(retry):
    with pytest.raises(BadCall):
        Options(retry=retry)


@pytest.mark.parametrize('values, reason', [
    ({'attempts': 0}, 'attempts is a whole number'),
    ({'attempts': -3}, 'attempts is a whole number'),
    ({'attempts': True}, 'attempts is a whole number'),
    ({'attempts': 2.0}, 'attempts is a whole number'),
    ({'attempts': None}, 'attempts is a whole number'),
    ({'attempts': math.inf}, 'attempts is a whole number'),
    ({'attempts': 2 ** 31 + 1}, 'attempts is a whole number'),
    ({'delay': -0.1}, 'delay of a retry'),
    ({'delay': math.nan}, 'delay of a retry'),
    ({'delay': math.inf}, 'delay of a retry'),
    ({'delay': '5'}, 'delay of a retry'),
    ({'delay': True}, 'delay of a retry'),
    ({'delay': None}, 'delay of a retry'),
    ({'delay': 10 ** 400}, 'delay of a retry'),
    ({'delay': seconds(5)}, 'delay of a retry'),
    ({'growth': 0.9}, 'growth of a retry'),
    ({'growth': 0}, 'growth of a retry'),
    ({'growth': -2}, 'growth of a retry'),
    ({'growth': math.inf}, 'growth of a retry'),
    ({'longest': -1}, 'longest of a retry'),
    ({'longest': math.inf}, 'longest of a retry'),
    ({'on': (int,)}, 'no exception class'),
    ({'on': int}, 'no exception class'),
    ({'on': (ValueError, None)}, 'no exception class'),
    ({'on': (ValueError('an instance'),)}, 'no exception class'),
    ({'on': ('',)}, 'no exception class'),
    ({'on': (5,)}, 'no exception class'),
    ({'on': 5}, 'a tuple'),
    ({'on': None}, 'a tuple')])
def test_a_retry_that_makes_no_sense_is_refused_with_the_reason(values, reason):
    with pytest.raises(BadCall, match=reason):
        Retry(**values)


@pytest.mark.parametrize('make', [Options, Retry])
def test_an_option_of_an_unknown_name_is_an_error_where_it_is_written(make):
    with pytest.raises(TypeError, match='prio'):
        make(prio=5)


def test_options_can_not_be_changed_past_the_checks():
    for made in (Options(), Retry()):
        with pytest.raises(FrozenInstanceError):
            made.priority = 'high'


def test_a_refusal_does_not_repeat_more_than_a_line_of_what_it_refuses():
    for values in ({'priority': 'x' * 10_000}, {'timeout': 'x' * 10_000}, {'key': 'x' * 10_000},
                   {'expires': 'x' * 10_000}, {'retry': 'x' * 10_000}):
        with pytest.raises(BadCall) as caught:
            Options(**values)
        assert len(str(caught.value)) < 500, values
    for values in ({'attempts': 'x' * 10_000}, {'delay': 'x' * 10_000}, {'on': (b'x' * 10_000,)},
                   {'on': 10 ** 4_000}):
        with pytest.raises(BadCall) as caught:
            Retry(**values)
        assert len(str(caught.value)) < 500, values


# what is stored

def test_a_call_without_options_has_none():
    options = Options()
    assert options.times(NOW) == (0.0, None)
    assert options.stored_retry() is None
    assert (options.priority, options.timeout, options.key, options.series) == (0, None, None,
                                                                                None)


@pytest.mark.parametrize('not_before, expires, expected', [
    (None, None, (0.0, None)),
    (seconds(0), None, (0.0, None)),
    (seconds(60), None, (NOW + 60, None)),
    (seconds(0.25), seconds(0.5), (NOW + 0.25, NOW + 0.5)),
    (at(NOW + 60), None, (NOW + 60, None)),
    (at(NOW - 60), None, (0.0, None)),
    (at(NOW), None, (0.0, None)),
    (datetime.datetime(1, 1, 1, tzinfo=datetime.UTC), None, (0.0, None)),
    (None, seconds(60), (0.0, NOW + 60)),
    (at(NOW - 60), seconds(60), (0.0, NOW + 60)),
    (seconds(60), at(NOW + 61), (NOW + 60, NOW + 61))])
def test_moments_become_seconds_and_what_is_past_is_at_once(not_before, expires, expected):
    assert Options(not_before=not_before, expires=expires).times(NOW) == expected


@pytest.mark.parametrize('zone', [
    datetime.timezone(datetime.timedelta(hours=14)),
    datetime.timezone(datetime.timedelta(hours=-11)),
    datetime.timezone(datetime.timedelta(hours=5, minutes=45))])
def test_a_moment_is_the_same_in_every_time_zone(zone):
    moment = at(NOW + 3_600, zone)
    assert Options(not_before=moment, expires=moment + seconds(1)).times(NOW) == (
        NOW + 3_600, NOW + 3_601)


class Summer(datetime.tzinfo):
    """A zone whose clocks go on at 02:00 on 31 March, and back at 03:00 on 27 October."""

    def utcoffset(self, moment):
        return datetime.timedelta(hours=1) + self.dst(moment)

    def dst(self, moment):
        begins, ends, over = ((3, 31, 2), (10, 27, 2), (10, 27, 3))
        wall = (moment.month, moment.day, moment.hour)
        again = wall >= over or (wall >= ends and moment.fold)
        return datetime.timedelta(hours=int(begins <= wall and not again))


def test_the_hour_that_is_there_twice_is_told_apart():
    twice = datetime.datetime(2030, 10, 27, 2, 30, tzinfo=Summer())
    first, second = (Options(not_before=each).times(NOW)[0]
                     for each in (twice, twice.replace(fold=1)))
    assert second - first == 3_600


def test_a_delay_is_a_span_of_seconds_whatever_the_clocks_on_the_wall_do():
    """The night before the clocks go on: a day later is 24 hours later."""
    put_at = datetime.datetime(2030, 3, 30, 12, tzinfo=Summer()).timestamp()
    assert Options(not_before=datetime.timedelta(days=1)).times(put_at)[0] - put_at == 86_400


@pytest.mark.parametrize('not_before, expires', [
    (None, seconds(0)),
    (None, at(NOW)),
    (None, at(NOW - 1)),
    (seconds(60), seconds(60)),
    (seconds(60), seconds(59)),
    (at(NOW + 60), at(NOW + 59)),
    (seconds(60), at(NOW + 60))])
def test_a_call_that_would_expire_before_it_may_begin_is_refused(not_before, expires):
    with pytest.raises(BadCall, match='would expire before it may begin'):
        Options(not_before=not_before, expires=expires).times(NOW)


@pytest.mark.parametrize('name', ['not_before', 'expires'])
def test_a_moment_no_calendar_has_is_refused(name):
    """Else no page could show the call."""
    with pytest.raises(BadCall, match=name):
        Options(**{name: datetime.timedelta.max}).times(NOW)
    last = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
    assert last.timestamp() in Options(**{name: last}).times(NOW)


@pytest.mark.parametrize('retry, expected', [
    (None, None),
    (False, ()),
    (1, (1, 5.0, 2.0, 3600.0, ())),
    (4, (4, 5.0, 2.0, 3600.0, ())),
    (Retry(), (3, 5.0, 2.0, 3600.0, ())),
    (Retry(2, delay=0, growth=1, longest=0), (2, 0.0, 1.0, 0.0, ())),
    (Retry(2, on=KeyError), (2, 5.0, 2.0, 3600.0, ('KeyError',))),
    (Retry(2, on=[KeyError, 'builtins.ValueError', 'a.b.Error', BadCall]),
     (2, 5.0, 2.0, 3600.0, ('KeyError', 'ValueError', 'a.b.Error',
                            'Products.zasync.errors.BadCall')))])
def test_what_is_stored_of_a_retry(retry, expected):
    assert Options(retry=retry).stored_retry() == expected


def test_plain_values_are_stored_whatever_class_they_are_of():
    """A page can show a call though it lacks the classes of whoever put it."""
    options = Options(priority=Level.HIGH, key=Text('k'), series=Text('s'), timeout=Seconds(3),
                      retry=Retry(Level.HIGH, delay=Seconds(2), on=(Text('KeyError'),)))
    assert (options.priority, options.key, options.series, options.timeout) == (7, 'k', 's', 3.0)
    attempts, delay, _, _, on = options.stored_retry()
    kinds = [type(value) for value in (options.priority, options.key, options.series,
                                       options.timeout, attempts, delay, on[0])]
    assert kinds == [int, str, str, float, int, float, str]


def test_options_are_equal_by_their_values():
    assert Options(priority=1, retry=3) == Options(priority=1, retry=Retry(3))


def test_names_of_classes_are_those_of_all_they_inherit_from():
    assert class_names(BadCall) == (
        'Products.zasync.errors.BadCall', 'Products.zasync.errors.ZAsyncError', 'ValueError',
        'Exception', 'BaseException', 'object')


# the mark

class Page:
    """Some of its methods are marked."""

    @groupable
    def count(self):
        """One more visit."""

    def plain(self):
        """It is not marked."""

    @classmethod
    @groupable
    def of_class(cls):
        """A class method."""

    @staticmethod
    @groupable
    def of_none():
        """A static method."""

    @groupable
    def count_later(self):
        """Marked here, and not where it is overridden."""


class Other(Page):

    def count_later(self):
        """Another function by that name."""


def test_a_mark_is_one_of_a_function_whoever_it_is_bound_to():
    marked = (Page.count, Page().count, Other().count, Page.of_class, Other.of_class,
              Page.of_none, Page().of_none, Page().count_later)
    assert [is_groupable(each) for each in marked] == [True] * len(marked)
    plain = (Page.plain, Page().plain, Other().count_later, Page, Page(), None, 'count', len)
    assert [is_groupable(each) for each in plain] == [False] * len(plain)


@pytest.mark.parametrize('kind', [classmethod, staticmethod])
def test_a_mark_that_would_have_no_effect_is_refused(kind):
    with pytest.raises(TypeError, match='below @classmethod'):
        groupable(kind(len))
    with pytest.raises(TypeError, match='marks a function'):
        groupable('count')
