"""The life of a call: every event in every state."""

import itertools

import pytest
from zope.interface.verify import verifyObject

from Products.zasync import lifecycle
from Products.zasync.call import Call
from Products.zasync.deferred import Deferred
from Products.zasync.deferred import HISTORY_MOST
from Products.zasync.errors import IllegalTransition
from Products.zasync.failure import Failure
from Products.zasync.interfaces import FINAL_STATES
from Products.zasync.interfaces import IDeferred
from Products.zasync.interfaces import STATES
from tests.fakes import BOB
from tests.fakes import make_call


EVENTS = ('claim', 'give back', 'checkpoint', 'succeed', 'fail', 'cancel', 'expire', 'retry')

#: The whole table, written out a second time: what is not here must be refused.
ALLOWED = {
    ('new', 'claim'): 'accepted',
    ('new', 'cancel'): 'cancelled',
    ('new', 'expire'): 'expired',
    ('accepted', 'give back'): 'new',
    ('accepted', 'checkpoint'): 'accepted',
    ('accepted', 'succeed'): 'resolved',
    ('accepted', 'fail'): 'failed',
    ('accepted', 'cancel'): 'cancelled',
    ('callback', 'claim'): 'callback',
    ('callback', 'give back'): 'callback',
    ('callback', 'checkpoint'): 'callback',
    ('callback', 'succeed'): 'resolved',
    ('callback', 'fail'): 'failed',
    ('callback', 'cancel'): 'cancelled',
    ('callback', 'expire'): 'expired',
    ('failed', 'retry'): 'new',
}


def test_the_events_are_all_there_are():
    assert {event for _, event in lifecycle.TRANSITIONS} == set(EVENTS)


@pytest.mark.parametrize('state, event', list(itertools.product(STATES, EVENTS)))
def test_an_event_leads_where_the_table_says_or_is_refused(state, event):
    if (state, event) in ALLOWED:
        assert lifecycle.advance(state, event) == ALLOWED[state, event]
    else:
        with pytest.raises(IllegalTransition) as refusal:
            lifecycle.advance(state, event)
        assert state in str(refusal.value) and event in str(refusal.value)


@pytest.mark.parametrize('state, event', sorted(ALLOWED))
def test_an_end_leads_to_the_callbacks_first_if_there_are_any(state, event):
    ends = event in ('succeed', 'fail', 'expire')
    assert lifecycle.advance(state, event, callbacks=True) == (
        'callback' if ends else ALLOWED[state, event])


@pytest.mark.parametrize('state', STATES)
def test_a_final_state_is_one_that_nothing_leaves_but_a_retry(state):
    leaves = {start for start, event in lifecycle.TRANSITIONS if event != 'retry'}
    if lifecycle.is_final(state):
        assert state not in leaves
    assert lifecycle.is_final(state) == (state in FINAL_STATES)
    assert lifecycle.is_final(state) == (
        state in ('resolved', 'failed', 'cancelled', 'expired'))


# the same table through the deferred, with what each event writes

def deferred_in(state):
    deferred = Deferred('0-1-0-0', make_call())
    if state != 'new':
        deferred.accept('boot', 10.0)
    if state == 'resolved':
        deferred.succeed(None, 11.0)
    elif state == 'failed':
        deferred.fail(Failure('ValueError', 'no'), 11.0)
    assert deferred.state == state
    return deferred


METHODS = {
    'claim': lambda deferred: deferred.accept('other', 20.0),
    'give back': lambda deferred: deferred.give_back(20.0, 'conflicts'),
    'checkpoint': lambda deferred: deferred.checkpoint(b'\x80\x04}.'),
    'succeed': lambda deferred: deferred.succeed(b'\x80\x04K\x07.', 20.0),
    'fail': lambda deferred: deferred.fail(Failure('ValueError', 'no'), 20.0),
}


@pytest.mark.parametrize('state, event', list(itertools.product(
    ('new', 'accepted', 'resolved', 'failed'), METHODS)))
def test_a_deferred_takes_an_event_or_is_left_as_it_was(state, event):
    deferred = deferred_in(state)
    before = dict(deferred.__dict__)
    if (state, event) in ALLOWED:
        METHODS[event](deferred)
        assert deferred.state == ALLOWED[state, event]
    else:
        with pytest.raises(IllegalTransition):
            METHODS[event](deferred)
        assert deferred.__dict__ == before


def test_a_fresh_deferred_has_no_times_no_owner_and_no_result():
    deferred = Deferred('0-1-0-0', make_call(5))
    verifyObject(IDeferred, deferred)
    assert (deferred.started_at, deferred.ended_at, deferred.owner) == (None, None, None)
    assert (deferred.result, deferred.failure, deferred.memo) == (None, None, {})
    assert deferred.attempts == ()
    assert not deferred.ended
    assert deferred.arguments() == ((5,), {})
    assert deferred.caller == BOB


def test_a_result_of_none_is_a_result():
    deferred = deferred_in('accepted')
    deferred.succeed(None, 20.0)
    assert (deferred.state, deferred.result, deferred.ended_at) == ('resolved', None, 20.0)


def test_an_ended_deferred_is_owned_by_nobody():
    deferred = deferred_in('accepted')
    assert deferred.is_owned_by('boot', 1)
    deferred.succeed(None, 20.0)
    assert not deferred.is_owned_by('boot', 1)
    assert not deferred.is_owned_by(None, 1)


def test_a_failure_is_kept_and_there_is_no_result():
    deferred = deferred_in('accepted')
    deferred.fail(Failure('ValueError', 'no', 'Traceback'), 20.0)
    assert deferred.failure == Failure('ValueError', 'no', 'Traceback')
    assert deferred.result is None


def test_the_attempts_of_a_call_are_told_oldest_first():
    deferred = Deferred('0-1-0-0', make_call())
    for number in range(3):
        deferred.accept(f'boot{number}', 10.0 * number)
        if number < 2:
            deferred.give_back(10.0 * number + 1, f'why {number}')
    deferred.succeed(None, 25.0)
    assert [tuple(attempt) for attempt in deferred.attempts] == [
        (1, 0.0, 1.0, 'why 0'), (2, 10.0, 11.0, 'why 1'), (3, 20.0, 25.0, 'resolved')]


def test_only_the_last_attempts_are_remembered_for_the_record_is_written_each_time():
    deferred = Deferred('0-1-0-0', make_call())
    for number in range(500):
        deferred.accept('boot', float(number))
        deferred.give_back(number + 0.5, 'conflicts')
    deferred.accept('boot', 500.0)
    numbers = [attempt.number for attempt in deferred.attempts]
    assert numbers == list(range(501 - HISTORY_MOST, 502))
    assert deferred.attempts[-1].outcome is None


def test_a_memo_survives_that_the_call_is_given_back():
    deferred = deferred_in('accepted')
    deferred.checkpoint(b'\x80\x04}\x94\x8c\x04done\x94K\x03s.')
    assert deferred.memo == {'done': 3}
    deferred.give_back(20.0, 'interrupted')
    deferred.accept('next', 30.0)
    assert deferred.memo == {'done': 3}


def test_restricted_code_may_read_the_public_attributes_and_nothing_else():
    allowed = Deferred.__allow_access_to_unprotected_subobjects__
    public = set(IDeferred.names())
    assert set(allowed) <= public
    assert not any(name.startswith('_') for name in allowed)


def test_a_call_is_frozen():
    call = make_call()
    assert isinstance(call, Call)
    with pytest.raises(AttributeError):
        call.plugin = 'other'
