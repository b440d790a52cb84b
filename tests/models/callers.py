"""What callers and a manager of the site do, in transactions that overlap.

Imports: ledger, calls, queuemodel, steps, world, zasync.
"""

import datetime
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace

from hypothesis import strategies as st
from transaction.interfaces import TransientError

from Products.zasync import lanes
from Products.zasync.errors import NotYours
from Products.zasync.interfaces import FAILED
from Products.zasync.interfaces import FINAL_STATES
from Products.zasync.interfaces import NEW
from Products.zasync.interfaces import RESOLVED
from Products.zasync.options import Options
from Products.zasync.places import parse_id

from . import queuemodel
from .actors import bad
from .calls import AGGREGATE
from .calls import FOLLOWER
from .calls import JOB
from .calls import Modelled
from .ledger import ACCEPTED
from .ledger import REFUSED
from .steps import deed
from .steps import pick
from .world import JOBS


USER = st.sampled_from(['bob', 'eve', 'admin'])
PICK = st.integers(0, 9)
LANE = st.integers(0, 2)
PAIRS = st.lists(st.sampled_from([
    ('good', None), ('good', 'good'), (None, 'good'), ('bad', 'good'), ('good', 'bad')]),
    max_size=2).map(tuple)


@dataclass(frozen=True)
class Wish:
    """The options of a put; delay and expires in seconds from then, from its time."""

    priority: int = 0
    delay: float = 0
    expires: float | None = None
    timeout: float | None = None
    retry: object = None
    series: str | None = None
    key: str | None = None

    def __repr__(self):
        told = (f'{each.name}={getattr(self, each.name)!r}' for each in fields(self)
                if getattr(self, each.name) != each.default)
        return f'Wish({", ".join(told)})'


WISH = st.builds(
    Wish, priority=st.sampled_from([0, 0, 0, 1, -1]), delay=st.sampled_from([0, 0, 0, 5, 30]),
    expires=st.sampled_from([None, None, None, 2, 40]),
    timeout=st.sampled_from([None, None, None, 3]), retry=st.sampled_from([None, None, False, 3]),
    series=st.sampled_from([None, None, 's', 't']), key=st.sampled_from([None, 'k']))
CALLBACKS = {'good': 'nothing', 'bad': bad, None: None}

DEED = st.one_of(
    *[deed('put', wish=WISH, pairs=PAIRS)] * 5, deed('put', wish=WISH, pairs=st.just(())),
    deed('put_aggregate', members=st.integers(1, 3), hurried=st.booleans(),
         priority=st.sampled_from([0, 0, 1]), delay=st.sampled_from([0, 0, 5])),
    deed('add_callbacks', number=PICK, pairs=PAIRS), deed('cancel', number=PICK),
    deed('look_at_anothers_call', number=PICK), deed('make_savepoint'), deed('roll_back'))
#: Once in a while a request does something, thinks better of it, and does it after all.
REQUEST = st.one_of(*[st.lists(DEED, min_size=1, max_size=4)] * 5, DEED.map(
    lambda deed: [('make_savepoint', {}), deed, ('roll_back', {}), deed]))
MANAGEMENT = st.one_of(
    deed('retry', number=PICK), deed('retry_all', number=PICK), deed('cancel', number=PICK),
    deed('purge', state=st.sampled_from(sorted(FINAL_STATES)), older=st.sampled_from([0, 10])),
    deed('pause_or_resume', paused=st.sampled_from([True, False, False])),
    deed('set_periodic_call'))
ENDS = st.sampled_from([*['commit'] * 6, 'abort', 'stay', 'stay'])
PUTS = st.lists(deed('put', wish=WISH, pairs=PAIRS), min_size=2, max_size=4)

DEEDS = [*[deed('request', user=USER, lane=LANE, deeds=REQUEST, then=ENDS)] * 4,
         deed('management', lane=LANE, deed=MANAGEMENT, then=ENDS),
         deed('end_request', user=USER, then=ENDS)]


class Callers:
    """Deeds of those who put calls: bob, eve and admin, who may see all."""

    def request(self, user, lane, deeds, then):
        for name, keywords in deeds:
            getattr(self, name)(user, lane, **keywords)
        self._then(user, then)

    def management(self, lane, deed, then):
        getattr(self, deed[0])('admin', lane, **deed[1])
        self._then('admin', then)

    def end_request(self, user, then):
        self._then(user, then)

    def _then(self, user, then):
        if user in self.open and then != 'stay':
            (self.end_of if then == 'commit' else self.abort)(user)

    def transaction_of(self, user):
        """The one that is open, or a new one."""
        if user not in self.open:
            self.world.begin(user)
            self.open[user] = self.ledger.begin()
            self.followers[user] = {}
            self.savepoints.pop(user, None)
        return self.open[user]

    def visible(self, user):
        """Calls that this user may touch, in its transaction."""
        t = self.transaction_of(user)
        return [call for call in queuemodel.calls(t.records).values()
                if user in ('admin', call.user) and self.is_kept(call)]

    def found(self, user, call):
        """Whether the real one is found; it may have been dropped, if it is as old as that."""
        there = self.world.act(user, lambda manager: manager.queue.find(call.id) is not None)
        assert there or self.may_be_dropped(call), call
        return there

    # putting

    def put(self, user, lane, wish, pairs):
        if self.numbers >= JOBS - 3:
            return
        t, now = self.transaction_of(user), self.world.clock.now()
        if wish.expires is not None and wish.series is not None:
            pairs = ()
        put_at = round(now * 1000) / 1000
        options, fields = self._options(wish, put_at)
        key = ('key', user, wish.key)
        joined = t.get(t.get(key)) if wish.key else None
        if joined is not None and (joined.gone or joined.state != NEW
                                   or joined.has_expired(put_at)):
            joined = None
        id = self.world.act(user, _put, options, self.numbers, lane=lane)
        if joined is not None:
            assert id == joined.id, (id, joined)
            if not t.is_new(id):
                t.rely(id)
        else:
            self._note_put(t, id, lane, kind=JOB, user=user, number=self.numbers, **fields)
            if wish.key:
                t[key] = id
                t.share('keys')
        self.numbers += 1
        self._add_callbacks(user, lane, id, pairs)

    def _options(self, wish, put_at):
        delay, expires = wish.delay, wish.expires
        if expires is not None:
            expires += delay
        options = Options(
            priority=wish.priority, timeout=wish.timeout, retry=wish.retry,
            not_before=datetime.timedelta(seconds=delay) if delay else None,
            expires=None if expires is None else datetime.timedelta(seconds=expires),
            series=wish.series, key=wish.key)
        return options, {
            'priority': wish.priority, 'time': put_at + delay if delay else 0.0,
            'expires_at': None if expires is None else put_at + expires,
            'timeout': wish.timeout, 'retry': wish.retry, 'series': wish.series}

    def _note_put(self, t, id, lane, priority=0, **fields):
        number, put_at = parse_id(id)[1:]
        assert parse_id(id)[0] == lane
        t[id] = Modelled(id=id, place=(-priority, put_at, lane, number), **fields)
        t.write(('lane', lane))
        t.share('lanes')

    def put_aggregate(self, user, lane, members, hurried, priority, delay):
        if self.numbers >= JOBS - 3:
            return
        t, put_at = self.transaction_of(user), round(self.world.clock.now() * 1000) / 1000
        numbers = range(self.numbers, self.numbers + members)
        ids = self.world.act(
            user, _put_aggregate, Options(
                priority=priority,
                not_before=datetime.timedelta(seconds=delay) if delay else None),
            numbers, hurried, lane=lane)
        self.numbers += members
        common = {'priority': priority, 'user': user, 'time': put_at + delay if delay else 0.0}
        for id, number in zip(ids[1:], numbers, strict=True):
            self._note_put(t, id, lane, kind=JOB, number=number, **common)
        self._note_put(t, ids[0], lane, kind=AGGREGATE, after=tuple(ids[1:]), hurried=hurried,
                       **common)

    # to calls there are

    def add_callbacks(self, user, lane, number, pairs):
        call = pick(number, self.visible(user))
        if call is not None and self.found(user, call):
            self._add_callbacks(user, lane, call.id, pairs)

    def _add_callbacks(self, user, lane, id, pairs):
        t = self.open[user]
        if not pairs:
            return
        newest = self.world.act(user, _add_callbacks, id, pairs, lane, lane=lane)
        call = t[id]
        if t.is_new(id) and not call.ended:
            t[id] = replace(call, callbacks=call.callbacks + pairs)
            return
        follower = self.followers[user].get(id)
        if follower is None or follower not in t.records:
            self._note_follower(t, newest, lane, call, user, pairs)
            self.followers[user][id] = newest
        else:
            t[follower] = replace(t[follower], callbacks=t[follower].callbacks + pairs)

    def _note_follower(self, t, id, lane, call, user, pairs):
        self._note_put(t, id, lane, priority=-call.place[0], kind=FOLLOWER, user=user,
                       after=(call.id,), callbacks=pairs)

    def cancel(self, user, lane, number):
        call = pick(number, self.visible(user))
        if call is None or not self.found(user, call):
            return
        t = self.open[user]
        cancelled, newest = self.world.act(user, _cancel, call.id, lane, lane=lane)
        assert cancelled is not call.ended
        if call.ended:
            return
        queuemodel.release(t, call)
        t[call.id] = call.cancel(self.world.clock.now())
        if call.waits:
            t.share('cancelled')
        left = call.callbacks[call.called:]
        if left:
            self._note_follower(t, newest, lane, call, call.user, left)

    def retry(self, user, lane, number):
        call = pick(number, [call for call in self.visible(user)
                             if call.aged_at is None and (call.state == FAILED or number == 9)])
        if call is not None and self.found(user, call):
            expected = int(call.state == FAILED)
            assert self.world.act(user, lambda manager: manager.retry(call.id),
                                  lane=lane) == expected
            if expected:
                self._note_retried(self.open[user], call, lane)

    def retry_all(self, user, lane, number):
        failed = [call for call in self.visible(user)
                  if call.state == FAILED and call.aged_at is None]
        assert self.world.act(user, lambda manager: manager.retry(), lane=lane) == len(failed)
        for call in failed:
            self._note_retried(self.open[user], call, lane)

    def _note_retried(self, t, call, lane):
        t[call.id] = call.again()
        t.write(('lane', lane))
        t.share('lanes')
        if call.filed:
            t.share('failed')

    def purge(self, user, lane, state, older):
        now = self.world.clock.now()
        t = self.transaction_of(user)
        old = [call for call in queuemodel.calls(t.records).values()
               if call.state == state and call.filed and not call.gone
               and call.ended_at <= now - older and call.aged_at is None
               and self.found(user, call)]
        assert self.world.act(user, lambda manager: manager.purge(state, older)) == len(old)
        for call in old:
            t.note(call.id, replace(call, gone=True))
            t.share({RESOLVED: 'archive', FAILED: 'failed'}.get(state, 'withdrawn'))

    def pause_or_resume(self, user, lane, paused):
        t = self.transaction_of(user)
        changed = self.world.act(
            user, lambda manager: manager.pause() if paused else manager.resume())
        assert changed == int(paused != t.get('paused', False))
        if changed:
            t['paused'] = paused

    def look_at_anothers_call(self, user, lane, number):
        """A caller sees its own calls and no others."""
        t = self.transaction_of(user)
        call = pick(number, [call for call in queuemodel.calls(t.records).values()
                             if self.is_kept(call)])
        if call is None or not self.found(user, call):
            return
        try:
            got = self.world.act(user, lambda manager: manager.getDeferred(call.id).id)
            assert got == call.id and user in (call.user, 'admin'), (user, call)
        except NotYours:
            assert user not in (call.user, 'admin'), (user, call)

    # transactions

    def make_savepoint(self, user, lane):
        t = self.transaction_of(user)
        self.savepoints[user] = self.world.act(user, _savepoint), t.savepoint()

    def roll_back(self, user, lane):
        if user in self.open and user in self.savepoints:
            real, modelled = self.savepoints[user]
            self.world.act(user, lambda manager: real.rollback())
            self.open[user].rollback(modelled)

    def end_of(self, user):
        """Commit; the model knows whether that may go through."""
        t = self.open.pop(user)
        fate = t.fate()
        try:
            self.world.end(user)
        except TransientError:
            assert fate != ACCEPTED, 'a transaction was refused that met nobody'
            return
        assert fate != REFUSED, 'of two transactions that meet both were committed'
        self.committed(t)

    def abort(self, user):
        """Nothing of it was ever there."""
        self.open.pop(user)
        self.world.end(user, commit=False)


# in the thread of the caller

def _put(manager, options, number):
    return manager.putCallWith(options, 'job', number).id


def _put_aggregate(manager, options, numbers, hurried):
    deferred = manager.putCallWith(options, 'aggregate', [('job', (n,)) for n in numbers],
                                   first_failure=hurried)
    return [deferred.id, *(member.id for member in deferred.after)]


def _add_callbacks(manager, id, pairs, lane):
    deferred = manager.queue.find(id)
    for success, failure in pairs:
        deferred.addCallbacks(CALLBACKS[success], CALLBACKS[failure])
    return _newest(manager, lane)


def _cancel(manager, id, lane):
    return manager.getDeferred(id).cancel(), _newest(manager, lane)


def _newest(manager, lane):
    """The id of the last call put into that lane."""
    lane = manager.queue.lanes[lane]
    entry = lanes.get(lane, lanes.highest(lane))
    return entry and entry.deferred and entry.deferred.id


def _savepoint(manager):
    import transaction
    return transaction.savepoint()
