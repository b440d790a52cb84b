"""Time: the storage's clock as this process learns it, and the time inside an id."""

import datetime
import threading

import pytest
from persistent.TimeStamp import TimeStamp
from zope.interface.verify import verifyObject

from Products.zasync import clock
from Products.zasync.deferred import Deferred
from Products.zasync.interfaces import IClock
from Products.zasync.places import make_id
from Products.zasync.places import parse_id
from Products.zasync.places import place_of
from tests.fakes import make_call


def serial(seconds):
    """The transaction id a storage gives a commit at that POSIX second."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return TimeStamp(moment.year, moment.month, moment.day, moment.hour, moment.minute,
                     moment.second + seconds % 1).raw()


STORAGE = 1_700_000_000.0

#: What our monotonic clock says minus what the storage's says: it starts anywhere.
SKEWS = [0.0, -3_600.0, 3_600.0, 86_400.0 * 400, -0.5, 0.001]


@pytest.mark.parametrize('skew', SKEWS)
def test_the_storage_time_is_right_whatever_our_own_clock_says(skew):
    learned = clock.StorageClock()
    learned.observe(serial(STORAGE), STORAGE + skew)
    # Twenty seconds later, without any commit since.
    assert learned.now(STORAGE + skew + 20, serial(STORAGE)) == pytest.approx(
        STORAGE + 20, abs=0.001)


@pytest.mark.parametrize('skew', SKEWS)
def test_a_clock_that_was_set_is_learned_anew_at_the_next_commit(skew):
    learned = clock.StorageClock()
    learned.observe(serial(STORAGE), STORAGE)
    learned.observe(serial(STORAGE + 60), STORAGE + 60 + skew)
    assert learned.now(STORAGE + 70 + skew, serial(STORAGE)) == pytest.approx(
        STORAGE + 70, abs=0.001)


def test_a_storage_whose_clock_was_set_back_is_no_later_than_what_others_commit_there():
    """Its commits are stamped a moment after the last one until the clock has come so far."""
    learned, last = clock.StorageClock(), TimeStamp(serial(STORAGE))
    learned.observe(last.raw(), 0.0)
    for number in range(1, 1_000):
        last = last.laterThan(last)
        assert learned.now(10.0 * number, last.raw()) - last.timeTime() <= 10.001


def test_a_storage_is_as_late_as_ever_whatever_others_commit_there():
    learned = clock.StorageClock()
    learned.observe(serial(STORAGE), 0.0)
    for looked_at, last in [(5, 3), (5, 5), (40, 3), (40, 39.5), (90, 41), (3_600, 41),
                            (3_601, 3_600.5), (9_999, 3_600.5)]:
        found = learned.now(float(looked_at), serial(STORAGE + last))
        assert found == pytest.approx(STORAGE + looked_at, abs=0.001)


def test_the_storage_is_never_earlier_than_its_last_commit():
    learned = clock.StorageClock()
    assert learned.now(STORAGE - 3_600, serial(STORAGE)) == pytest.approx(STORAGE, abs=0.001)


@pytest.mark.parametrize('monotonic', [0.0, 5.0, STORAGE, STORAGE * 2])
def test_before_our_first_commit_the_last_one_we_know_of_is_the_best_guess(monotonic):
    """No clock of ours says anything about the storage's yet."""
    learned = clock.StorageClock()
    assert learned.now(monotonic, serial(STORAGE)) == pytest.approx(STORAGE, abs=0.001)


@pytest.mark.parametrize('skew', SKEWS)
def test_it_is_told_how_far_the_storage_is_ahead_of_a_clock_of_ours(skew):
    learned, ours = clock.StorageClock(), clock.ManualClock(STORAGE + skew)
    assert learned.ahead_of(ours) is None
    learned.observe(serial(STORAGE), ours.monotonic())
    ours.advance(20)
    assert learned.ahead_of(ours) == pytest.approx(-skew, abs=0.001)


@pytest.mark.parametrize('nothing', [None, b'', b'\0' * 8])
def test_a_record_that_was_never_committed_has_no_time(nothing):
    assert clock.serial_seconds(nothing) == 0.0


@pytest.mark.parametrize('seconds', [STORAGE, STORAGE + 0.25, 1_000_000_000.0, 1_709_210_096.789])
def test_a_serial_tells_its_time(seconds):
    assert clock.serial_seconds(serial(seconds)) == pytest.approx(seconds, abs=0.001)


def test_each_database_has_a_clock_of_its_own():
    one, two = clock.storage_clock('test-one'), clock.storage_clock('test-two')
    assert one is not two
    assert clock.storage_clock('test-one') is one


def test_a_time_is_shown_as_an_aware_utc_datetime():
    assert clock.as_datetime(0.0) == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert clock.as_datetime(STORAGE).utcoffset() == datetime.timedelta(0)
    assert clock.as_datetime(None) is None


@pytest.mark.parametrize('made', [clock.SystemClock(), clock.ManualClock()])
def test_a_clock_keeps_the_contract(made):
    verifyObject(IClock, made)
    event = threading.Event()
    assert made.wait(event, 0.0) is False
    event.set()
    assert made.wait(event, 5.0) is True
    assert made.monotonic() <= made.monotonic()
    assert isinstance(made.now(), float)


def test_a_manual_clock_moves_only_when_told():
    manual = clock.ManualClock(50.0)
    assert (manual.now(), manual.monotonic()) == (50.0, 0.0)
    manual.advance(7.5)
    assert (manual.now(), manual.monotonic()) == (57.5, 7.5)
    manual.wait(threading.Event(), 2.5)
    assert manual.now() == 60.0


@pytest.mark.parametrize('base', [0, 1_000_000_000_000, 1_700_000_000_000, 4_102_444_799_000])
def test_the_milliseconds_in_an_id_are_exactly_the_put_time(base):
    """The place in `ready` is computed from the id: a rounding error would lose the call."""
    for milliseconds in range(base, base + 3_000):
        put_at = milliseconds / 1000
        assert parse_id(make_id(5, 77, put_at)) == (5, 77, put_at)


def test_the_place_in_ready_is_the_same_from_the_entry_and_from_the_deferred():
    for milliseconds in range(1_700_000_000_000, 1_700_000_002_000, 7):
        call = make_call(put_at=milliseconds / 1000, priority=3)
        deferred = Deferred(make_id(1, 2, call.put_at), call)
        assert place_of(deferred) == (-call.priority, call.put_at, 1, 2)
