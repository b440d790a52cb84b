"""Periodic calls: the records, and when the worker is to make a call of one.

A periodic call is two objects with one kind of writer each: its settings, written by
people, and its state, written by the beat of the worker that holds the desk. The call is
made on that desk in the same transaction, so two workers can't both make the one of a tick.

A *tick* is a time that the expression names. Ticks that nobody saw to, because no worker
ran, the manager was paused or the call before had not ended, are made up for by one call.
Ticks from before the settings were made or changed, and those of a pause, are not.

Imports: cron, deferred, interfaces.
"""

import functools
import logging
from zoneinfo import ZoneInfoNotFoundError

from persistent import Persistent

from .deferred import is_there
from .interfaces import FAILED


log = logging.getLogger('zasync')

#: Longest id, in characters.
ID_MOST = 100

#: Ticks noted as served that lie this far ahead, in seconds, were served by a worker whose
#: clock was wrong. They are forgotten, or the periodic call would stand still until then.
AHEAD_SECONDS = 86_400.0

#: Most calls that one beat makes: if all are due at midnight the worker must not look dead.
DUE_MOST = 500


class PeriodicState(Persistent):
    """How far a periodic call is. Written by the beat alone.

    served_at -- POSIX seconds up to which ticks are served. answered -- the last request for
    a run that is served. last -- the Deferred of the last call, or None. It hangs here, so
    its outcome can be seen when the archive has dropped it. left -- members of calls before it
    that had not ended, or had failed elsewhere, when it was made.
    """

    __zpublishable__ = False

    served_at = 0.0
    answered = 0
    last = None
    left = ()


class PeriodicCall(Persistent):
    """A call that is made again and again. Written by people; never by traffic.

    timetable -- a Timetable. call -- the Call to make, as the door made it when it was set;
    its caller is whom all its runs run as. paused -- its ticks go by. since -- POSIX seconds:
    ticks up to then are not its own. asked -- number of requests for a run besides.
    """

    __zpublishable__ = False

    paused = False
    asked = 0
    #: Timetable and moment that were asked about last, and the answer: it is asked at each look.
    _v_next_after = None, None, None

    def __init__(self, id, title, timetable, call, now):
        self.id = id
        self.title = title
        self.timetable = timetable
        self.call = call
        self.since = now
        self.state = PeriodicState()

    def change(self, title, timetable, call, now):
        """Take these settings. If the times are others, earlier ones are not made up for."""
        if timetable != self.timetable:
            self.timetable, self.since = timetable, now
        self.title = title
        self.call = call

    def pause(self):
        """Let its ticks go by; → was it not paused?"""
        changed = not self.paused
        if changed:
            self.paused = True
        return changed

    def resume(self, now):
        """End a pause, from the next tick on; → was it paused?"""
        changed = self.paused
        if changed:
            self.paused = False
            self.since = now
        return changed

    def ask_to_run(self):
        """Have the beat make one call besides, at once."""
        self.asked += 1

    def start_over(self):
        """It is a copy now: it waits, and the calls of the original are not its own."""
        self.paused = True
        self.asked = 0
        self.state = PeriodicState()

    # reading

    @property
    def last(self):
        """The Deferred of the last call; None if there is none, or if it was undone."""
        last = self.state.last
        return last if last is not None and is_there(last) else None

    def kept(self):
        """The Deferreds that the next call made will let age: the last with its members, and more.

        Where it goes they go: only the beat there does that.
        """
        return [each for each in (*self.state.left, *_with_members(self.last)) if is_there(each)]

    def is_running(self):
        """Whether the last call has not ended."""
        last = self.last
        return last is not None and not last.ended

    def is_asked(self):
        """Whether a run was asked for that the beat has not made."""
        return self.asked != self.state.answered

    def next_tick(self, now):
        """The first tick that is not served, in POSIX seconds: past if it is due; or None."""
        if self.paused:
            return None
        served_at = self.state.served_at
        if served_at > now + AHEAD_SECONDS:
            served_at = 0.0
        moment = max(self.since, served_at)
        timetable, asked, tick = self._v_next_after
        if timetable is self.timetable and asked == moment:
            return tick
        try:
            tick = self.timetable.next_after(moment)
        except ZoneInfoNotFoundError:  # the process that set it knows more time zones
            _tell_unknown_zone(self.timetable.zone)
            return None
        self._v_next_after = self.timetable, moment, tick
        return tick

    def wants_call(self, now):
        """Whether a call is to be made once the last has ended."""
        tick = self.next_tick(now)
        return (tick is not None and tick <= now) or self.is_asked()


# the beat of the worker that holds the desk

def due(manager, now):
    """The periodic calls of which a call is to be made now."""
    return [each for each in manager.periodic.values()
            if each.wants_call(now) and not each.is_running()]


def next_due(manager, now):
    """When the next tick comes, in POSIX seconds, or None.

    What waits for the end of its last call is not counted: that end wakes the worker.
    """
    ticks = (each.next_tick(now) for each in manager.periodic.values())
    return min((tick for tick in ticks if tick is not None and tick > now), default=None)


def beat(manager, now):
    """Make the calls that are due, DUE_MOST at a time, in the current transaction; → how many."""
    found = due(manager, now)[:DUE_MOST]
    for each in found:
        _make_call(each, manager, now)
    return len(found)


def _make_call(periodic, manager, now):
    """One call, for all ticks that are due and all runs that were asked for."""
    queue, state = manager.queue, periodic.state
    _let_age(periodic, queue, now, manager.rotation_period)
    state.served_at = now
    state.answered = periodic.asked
    state.last = _born(queue, manager.names(), put_at(periodic.call, round(now * 1000) / 1000),
                       now)
    # crash point 30: the call of a tick is not committed; the next life makes one for all ticks.
    log.info('call %s made for the periodic call %s', state.last.id, periodic.id)


def _let_age(periodic, queue, now, rotation_period):
    """What there was before keeps nobody busy any more; some of it may run still."""
    left = []
    for each in periodic.kept():
        if not each.ended or _may_come(each, queue):
            left.append(each)
        else:
            queue.let_age(each, now, rotation_period)
    if left or periodic.state.left:
        periodic.state.left = tuple(left)


def _may_come(deferred, queue):
    """Whether it has failed in a queue which is left, and may be moved to ours."""
    there = deferred.queue
    return (deferred.state == FAILED and there is not queue and not there.closed
            and there.find_waiting(deferred.id) is not None)


def _with_members(deferred):
    """The call and those it was made with, whose ends it waited for."""
    if deferred is None or not is_there(deferred):  # a member's put can be undone as well
        return []
    return [deferred, *(each for member in deferred.after for each in _with_members(member))]


def _born(queue, names, call, now):
    members = [_born(queue, names, member, now) for member in call.members]
    return queue.born(call, now, names, members)


def put_at(call, moment):
    """The same Call, put at that moment; its own times are moved along."""
    shift = moment - call.put_at
    return call._replace(
        put_at=moment,
        not_before=call.not_before and call.not_before + shift,
        expires_at=None if call.expires_at is None else call.expires_at + shift,
        members=tuple(put_at(member, moment) for member in call.members))


@functools.cache
def _tell_unknown_zone(zone):
    log.error('this machine knows no time zone %s: periodic calls in it stand still', zone)
