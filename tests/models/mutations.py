"""Defects to be put into the product: each must be found by a machine, or that asserts nothing.

Each is a function(monkeypatch) that breaks our own code.

Imports: zasync, zasyncdispatcher, zasync_client.
"""

from Products.zasync import archiving
from Products.zasync import callbacks
from Products.zasync import claiming
from Products.zasync import putting
from Products.zasync.deferred import Deferred
from Products.zasync.desk import Desk
from Products.zasync.queue import Queue
from Products.zasync.waiting import Waiting
from Products.zasyncdispatcher import loads
from Products.zasyncdispatcher import zasyncdispatcher
from zasync_client import work
from zasync_client.fence import Fence


def a_join_does_not_rely_on_the_call_that_is_joined(monkeypatch):
    monkeypatch.setattr(putting, 'NO_SERIAL', _Everything())


class _Everything:
    """As if each call were a new one."""

    def __eq__(self, other):
        return True

    __hash__ = None


def any_worker_owns_a_call_that_runs(monkeypatch):
    monkeypatch.setattr(Deferred, 'is_owned_by', lambda self, boot, attempt: not self.ended)


def a_run_commits_on_its_way_without_writing_the_call(monkeypatch):
    monkeypatch.setattr(Fence, 'beforeCompletion', lambda self, current: None)


def calls_that_wait_for_their_time_are_not_counted(monkeypatch):
    real = Waiting.add_later

    def add_later(self, time, place, deferred):
        real(self, time, place, deferred)
        self._desk.n_later -= 1

    monkeypatch.setattr(Waiting, 'add_later', add_later)


def a_mark_is_a_number_alone(monkeypatch):
    monkeypatch.setattr(claiming, 'holds', lambda lane, mark, oid: True)


def a_paused_manager_is_claimed_from(monkeypatch):
    real = Queue.take_in_and_claim

    def take_in_and_claim(self, boot, now, slots, *others):
        return real(self, boot, now, slots or 1, *others)

    monkeypatch.setattr(Queue, 'take_in_and_claim', take_in_and_claim)


def a_series_is_not_freed(monkeypatch):
    monkeypatch.setattr(Deferred, '_release', lambda self: setattr(self, 'owner', None))


def who_cancels_does_not_tell_the_worker(monkeypatch):
    monkeypatch.setattr(Queue, 'note_cancelled', lambda self, deferred: None)


def a_call_that_runs_once_more_stays_listed_as_failed(monkeypatch):
    monkeypatch.setattr(Queue, '_leave_ended', lambda self, id: None)


def an_end_wakes_nobody(monkeypatch):
    monkeypatch.setattr(Waiting, 'take_after', lambda self, id: [])


def a_follower_outlives_its_savepoint(monkeypatch):
    real = callbacks._follower

    def follower(deferred, caller):
        import transaction
        try:
            return transaction.get().data(real)[deferred.id][1]
        except KeyError:
            return real(deferred, caller)

    monkeypatch.setattr(callbacks, '_follower', follower)


def an_effect_is_committed_before_the_result(monkeypatch):
    real = work.Work.store

    def store(self, deferred, outcome):
        import transaction
        transaction.commit()
        real(self, deferred, outcome)

    monkeypatch.setattr(work.Work, 'store', store)


def a_call_runs_as_nobody(monkeypatch):
    monkeypatch.setattr(Deferred, 'caller', property(
        lambda self: self._caller_of_nobody()), raising=False)
    from Products.zasync.call import Caller
    monkeypatch.setattr(Deferred, '_caller_of_nobody',
                        lambda self: Caller(None, None, 'nobody'), raising=False)


def what_has_ended_is_dropped_at_once(monkeypatch):
    monkeypatch.setattr(archiving.policy, 'slice_is_over', lambda end, now, period: True)


def a_call_is_cancelled_in_the_list_alone(monkeypatch):
    def take(self, boot, guest=False):
        self.boot = boot

    monkeypatch.setattr(Desk, 'take', take)


# of the dispatcher

def the_first_that_lives_gets_the_call(monkeypatch):
    monkeypatch.setattr(zasyncdispatcher, 'choose', lambda loads, *others: next(
        (each for each in loads if each.alive), None))


def what_was_put_since_the_last_pulse_does_not_count(monkeypatch):
    monkeypatch.setattr(loads, 'note_put', lambda manager: None)


def a_worker_lives_for_ever(monkeypatch):
    monkeypatch.setattr(loads, 'is_heard_of', lambda pulse, seconds: True)


OF_DISPATCHERS = [
    the_first_that_lives_gets_the_call, what_was_put_since_the_last_pulse_does_not_count,
    a_worker_lives_for_ever]

OF_MANAGERS = [each for name, each in list(globals().items())
               if callable(each) and getattr(each, '__module__', '') == __name__
               and name[0] != '_' and each not in OF_DISPATCHERS]
