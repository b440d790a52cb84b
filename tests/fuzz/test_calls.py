"""The doors for code: what is put is refused with a sentence and leaves nothing, or runs."""

import datetime
import enum
import math

import pytest
import transaction
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st

from Products.zasync.cron import Timetable
from Products.zasync.errors import BadCall
from Products.zasync.errors import NotYours
from Products.zasync.errors import UnknownPlugin
from Products.zasync.options import Options
from Products.zasync.options import Retry
from tests.client.fate import Fate
from tests.fuzz import examples
from zasync_client.config import Plugin


class Odd:
    """An object that nothing can be done with."""

    def __eq__(self, other):
        raise ValueError('not to be compared')

    __hash__ = None

    def __repr__(self):
        return 'odd'


class Mute:
    """An object that can not even be shown."""

    def __repr__(self):
        raise RuntimeError('no')


def deep(levels):
    """A value so deep that nothing that goes down into it comes back."""
    value = ()
    for _ in range(levels):
        value = (value,)
    return value


class Special(enum.Enum):
    """Values that Hypothesis could not show; `real` puts them in."""

    HUGE, LOW, ODD, MUTE, DEEP = 'huge', 'low', 'odd', 'mute', 'deep'


REAL = {Special.HUGE: lambda: 10 ** 5000, Special.LOW: lambda: -10 ** 5000, Special.ODD: Odd,
        Special.MUTE: Mute, Special.DEEP: lambda: deep(100_000)}


def real(value):
    """The value with the special ones in their places."""
    if isinstance(value, Special):
        return REAL[value]()
    if isinstance(value, (list, tuple)):
        return type(value)(map(real, value))
    if isinstance(value, dict):
        return {key: real(each) for key, each in value.items()}
    return value


PLUGINS = ('echo', 'zope_exec', 'zope_call', 'schedule', 'aggregate', 'follow', 'unprotected_ldap',
           'protected_ldap', 'nothing', '', 'ECHO', 'echo\0', '\ud800')

PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.binary(max_size=5), st.sampled_from((
        -10 ** 400, math.inf, 2 ** 70, '/', '/zam', 'nothing', 'python: 1', 'python: (',
        '(' * 3000, '\ud800', '@daily', 'ldap://h')),
    st.sampled_from((*Special, object, len, print, lambda: 1, Exception, transaction, ...)),
    st.timedeltas(), st.datetimes(timezones=st.sampled_from((None, datetime.UTC))),
    st.complex_numbers())

VALUES = st.recursive(PLAIN, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple),
    st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), inner, max_size=2)),
    max_leaves=5)


def calls():
    """(plugin, args, kwargs): such as may be right, and anything."""
    plugin = st.one_of(st.sampled_from(PLUGINS), st.sampled_from(PLUGINS[:5]), VALUES)
    args = st.one_of(
        st.lists(VALUES, max_size=4),
        st.tuples(st.sampled_from(('/', '/zam', ('',), '')), st.just({}), st.just('nothing')),
        st.tuples(st.one_of(VALUES, st.just(0)), st.sampled_from(PLUGINS), VALUES),
        st.tuples(st.lists(st.tuples(st.sampled_from(PLUGINS), st.lists(VALUES, max_size=2)),
                           max_size=3)))
    return st.tuples(plugin, args, st.dictionaries(st.sampled_from(('a', 'first_failure')),
                                                   VALUES, max_size=1))


@pytest.fixture(scope='module')
def bench():
    made = Fate()
    yield made
    made.close()


@pytest.fixture(scope='module')
def worker(bench):
    """A worker that knows all plugins but those that ask other machines."""
    return bench.worker(plugins=[Plugin(name, lambda *args, **kwargs: None, '') for name in (
        'unprotected_ldap', 'protected_ldap')])


def check(reason):
    """The sentence of a refusal."""
    assert str(reason) and len(str(reason)) < 1500


def put(bench, worker, action):
    """Put what is made up; if it is taken, it comes to an end."""
    transaction.begin()
    before = bench.manager.lenNewCalls()
    bench.connection.cacheMinimize()
    try:
        deferred = action()
    except (BadCall, UnknownPlugin) as reason:
        check(reason)
        assert bench.connection._registered_objects == []
        assert bench.manager.lenNewCalls() == before
        transaction.abort()
        return
    transaction.commit()
    if not (deferred.not_before or deferred.expires_at):
        bench.go(worker, 3)
        transaction.begin()
        assert deferred.ended, (deferred.plugin, deferred.state)
        assert (deferred.failure is None) == (deferred.state == 'resolved')
    assert bench.manager.calls()


@given(call=calls())
@example(call=('echo', [Special.DEEP], {}))
@example(call=('zope_exec', ['/', {}, 'python: ' + '(' * 3000], {}))
@example(call=('schedule', [Special.HUGE, 'echo'], {}))
@example(call=('schedule', [math.nan, 'echo'], {}))
@example(call=('aggregate', [[('echo', (Special.ODD,))] * 3], {}))
@example(call=(Special.MUTE, [], {}))
@example(call=('aggregate', [[Special.MUTE]], {}))
@example(call=('zope_call', [Special.MUTE], {}))
@example(call=('zope_exec', [Special.MUTE, {}, 'nothing'], {}))
@example(call=('zope_exec', ['/', {}, Special.MUTE], {}))
@example(call=('schedule', [Special.MUTE, 'echo'], {}))
@example(call=('zope_exec', ['/', 5, 'nothing'], {}))
@examples(60)
def test_any_call_is_refused_or_comes_to_an_end(bench, worker, call):
    plugin, args, kwargs = real(call)
    put(bench, worker, lambda: bench.manager.putCall(plugin, *args, **kwargs))


def _made(kind, **given):
    try:
        return kind(**real(given))
    except BadCall as reason:
        check(reason)
        return None


RETRIES = st.builds(
    lambda **given: _made(Retry, **given), attempts=st.one_of(st.integers(), VALUES),
    delay=st.one_of(st.floats(0, 5), VALUES), growth=VALUES, longest=VALUES,
    on=st.one_of(st.sampled_from(((), OSError, 'OSError', [OSError], 'a.b')), VALUES))


@given(given=st.fixed_dictionaries({}, optional={
    'priority': st.one_of(st.integers(), VALUES), 'timeout': st.one_of(st.floats(), VALUES),
    'not_before': VALUES, 'expires': VALUES, 'retry': st.one_of(RETRIES, VALUES),
    'key': st.one_of(st.text(), VALUES), 'series': st.one_of(st.text(), VALUES)}))
@example(given={'priority': Special.HUGE})
@example(given={'timeout': Special.MUTE})
@example(given={'key': '\ud800'})
@example(given={'series': '\0'})
@example(given={'expires': datetime.timedelta.max})
@example(given={'not_before': datetime.datetime.max.replace(tzinfo=datetime.UTC)})
@example(given={'not_before': datetime.datetime.min.replace(
    tzinfo=datetime.timezone(datetime.timedelta(hours=14)))})
@examples(60)
def test_any_options_are_refused_or_the_call_comes_to_an_end(bench, worker, given):
    options = _made(Options, **given)
    if options is not None:
        put(bench, worker, lambda: bench.manager.putCallWith(options, 'echo', 1))


@given(expression=st.one_of(
    VALUES, st.text('0123456789*/-,LW#@ ', max_size=30),
    st.lists(st.text('0123456789*/-,#L', max_size=8), min_size=5, max_size=5).map(' '.join)),
    zone=st.one_of(st.sampled_from(('UTC', 'Europe/Berlin', 'Australia/Lord_Howe')), VALUES),
    moment=st.floats(0, 4e9))
@example(expression='* * * * *', zone='../../../etc/passwd', moment=0.0)
@example(expression='0 0 29 2 1', zone='UTC', moment=0.0)
@example(expression='0-59/1,' * 28 + '0 * * * *', zone='UTC', moment=0.0)
@examples(120)
def test_any_cron_expression_is_refused_or_gives_times(expression, zone, moment):
    try:
        timetable = Timetable(real(expression), real(zone))
    except BadCall as reason:
        check(reason)
        return
    times = timetable.times_after(moment, 2)
    assert times == sorted(set(times)) and all(time > moment for time in times)


@given(id=VALUES, seconds=VALUES, state=st.one_of(st.sampled_from(('failed', 'new')), VALUES))
@example(id='0-1-' + 'f' * 5000, seconds=Special.HUGE, state='failed')
@example(id='9' * 5000 + '-1-1', seconds=math.nan, state='resolved')
@example(id=Special.MUTE, seconds=Special.MUTE, state=Special.MUTE)
@examples(60)
def test_any_id_age_and_state_is_refused_or_found(bench, id, seconds, state):
    transaction.begin()
    manager, id, seconds, state = bench.manager, *map(real, (id, seconds, state))
    for action in (manager.getDeferred, manager.cancel, manager.pausePeriodicCall):
        with pytest.raises((KeyError, NotYours)) as refused:
            action(id)
        check(refused.value)
    try:
        assert type(manager.purge(state, seconds)) is int
    except ValueError as reason:
        check(reason)
    try:
        assert type(manager.calls(state, id, id, id, seconds)) is list
    except ValueError as reason:
        check(reason)
    transaction.abort()
