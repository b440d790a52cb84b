"""Group commit: several short calls in one transaction, because a commit costs more than they do.

A thread that has a groupable claim goes on with groupable claims that wait, for
`batch-seconds` at most, and commits all of them together. Each has a savepoint, its own user,
request and site, and its own end. So that nobody can tell such a call from one that ran alone,
the transaction is compared with what it was after each of them. Whatever can not be undone
for one alone (a commit, a hook, a data manager without savepoints, a savepoint that fails), and
a conflict at the commit, aborts the whole, and its members run one by one.

Imports: execution, watch, work, claims, away, database, zasync.
"""

import logging
from typing import NamedTuple

import transaction
from transaction.interfaces import TransactionFailedError
from transaction.interfaces import TransientError

from Products.zasync.builtin import Reference
from Products.zasync.errors import NotOurs
from Products.zasync.failure import name_of
from Products.zasync.failure import one_line
from Products.zasync.failure import Relayed
from Products.zasync.failure import text_of

from .away import is_away
from .away import is_unable
from .claims import ALONE
from .claims import End
from .claims import ENDED
from .claims import GIVE_BACK
from .database import unit_of_work
from .watch import Unfit
from .watch import Watch
from .work import commit
from .work import LaterAgain
from .work import Outcome
from .work import tell_end
from .work import tell_later


log = logging.getLogger('zasync')

#: Most calls in a group; its commit is that much longer, and others wait for it. More than half of
#: what is claimed ahead: what is left over would be a small group, and a commit is a commit.
MOST = 160


class GroupCommit:
    """Runs claims in the thread that made it, in groups where it may. See Pool.

    habits -- the Habits of this process.
    """

    def __init__(self, execution, work, fence, config, database, clock, runs, habits):
        self._execution = execution
        self._work = work
        self._fence = fence
        self._config = config
        self._database = database
        self._clock = clock
        self._runs = runs
        self._habits = habits
        #: Calls of the next group: twice as many after a group, half after one that failed.
        self._room = MOST
        #: Whether calls that might share a transaction did so of late.
        self._is_useful = True

    def run(self, claim, pool):
        """Run the call, and with it such as wait in the pool; yields an End for each."""
        if not (claim.groupable and (pool.gather() or claim.reserved)):
            yield self._weighed(self._execution.run(claim))
            return
        group = _Group(self._work, self._fence, self._database, self._clock, self._runs,
                       self._habits)
        taken = self._fill(group, claim, pool)
        yield from group.ends
        left = taken[group.committed:]
        for number, each in enumerate(left, 1):
            if pool.go_on_with(each):
                pool.wait_on(left[number:])
                if each.reserved:
                    self._habits.note_group(False)
                    now = self._clock.now()
                    yield End(each, ALONE, now, self._clock.monotonic(), 0.0, now,
                              begun=each is not group.refused)
                    continue
                end = self._execution.run(each)
                if each is group.refused and end.how == ENDED and group.kind is not None:
                    self._habits.note_alone(group.kind, end.seconds, end.shared_seconds)
                yield self._weighed(end)

    def _weighed(self, end):
        """The End of a call that ran alone: nothing is shared by those that always will."""
        useful = end.claim.groupable and self._is_useful
        return end if useful else end._replace(shared_seconds=0.0)

    def _fill(self, group, claim, pool):
        """Run and commit a group; → the claims it took: the first ones have an end, or none has.
        """
        until = self._clock.monotonic() + self._config.batch_seconds
        taken = []
        try:
            with unit_of_work('zasync calls') as unit:
                unit.abandon()  # the group commits for itself
                group.begin()
                while claim is not None:
                    taken.append(claim)
                    fits = group.add(claim)
                    pool.put_aside(claim, group.later)
                    claim = None
                    if fits and len(taken) < self._room and self._clock.monotonic() < until:
                        claim = pool.take_groupable()
                pool.gather()  # nor is another group run while this one is committed
                group.commit(pool)
        except BaseException as reason:
            taken = taken or [claim]  # it could not even begin
            for each in taken[-1:]:
                pool.put_aside(each)
            self._room = max(1, len(taken) // 2)
            self._is_useful = False
            if isinstance(reason, Unfit):
                self._habits.note_unfit(group.kind, reason)
            elif isinstance(reason, TransientError):
                self._work.tally.note_conflict()
            log.info('a group of %d calls was not committed, they run one by one: %s: %s',
                     len(taken), name_of(type(reason)), one_line(text_of(reason)))
        else:
            self._room = min(MOST, 2 * self._room)
            self._is_useful = group.committed > 1 or not self._habits.is_known(group.kind)
            if group.committed > 1:
                self._habits.note_group(True)
        finally:
            pool.gathered()
        return taken


class _Member(NamedTuple):
    """A call that has run in a group. seconds -- how long it took; later -- a LaterAgain or None.
    """

    claim: object
    seconds: float
    state: str = ''
    failure: object = None
    later: object = None
    plugin: str = ''


class _Group:
    """Calls that have run in one transaction, this thread's.

    committed -- how many of them have ended, and ends -- their Ends, once it is committed. kind
    -- what the last call was a call of; see Habits. later -- a LaterAgain, if that one has
    failed. refused -- the claim that was not let in, or None.
    """

    def __init__(self, work, fence, database, clock, runs, habits):
        self._work = work
        self._fence = fence
        self._database = database
        self._clock = clock
        self._runs = runs
        self._habits = habits
        self._members = []
        self.ends = []
        self.committed = 0
        self.kind = self.later = self.refused = None

    def begin(self):
        """To be called when the transaction has begun."""
        self._began = self._clock.monotonic()
        self._watch = Watch(self._database.connection())

    def add(self, claim):
        """Run one more call; → whether it is in the group now. If not it has to run alone.

        Raises Unfit, or what has broken the transaction: then the group can't be committed.
        """
        began = self._clock.monotonic()
        self.later = None
        self._watch.save()
        with self._runs.of(claim):
            try:
                member = self._run(claim)
            except LaterAgain as later:
                self.later = later
                member = _Member(claim, 0.0, later=later)
        if member is None:
            self.refused = claim
            return False
        seconds = self._clock.monotonic() - began
        self._habits.note(self.kind, seconds)
        self._members.append(member._replace(seconds=seconds))
        return True

    def _run(self, claim):
        """→ its _Member, without times; None: it has to run alone."""
        try:
            deferred = self._work.ours(claim)
            plugin = self._work.plugin(deferred)
            args, kwargs = deferred.arguments()
        except Exception:  # its own run will tell
            self.kind = None
            return None
        self.kind = kind_of(deferred.plugin, args)
        if not self._habits.may_share(self.kind):
            return None
        asked, failures = deferred.retry, deferred.failures + 1
        began = self._clock.now()
        try:
            with self._fence.closed():
                self._work.take(claim, deferred, began)
                step = self._work.make_run(claim, deferred, self._watch.refuse_checkpoint)
                with self._work.acting_as(deferred.caller, step):
                    outcome = self._work.run(step, plugin.handler, *args, **kwargs)
            self._watch.check()
        except Unfit:
            raise
        except BaseException as error:
            spoils = (issubclass(type(error), (TransientError, TransactionFailedError))
                      or is_away(error) or is_unable(error))
            if spoils and not self._runs.is_stopped(claim):
                self._watch.check()
                raise
            self._watch.roll_back()
            if issubclass(type(error), Relayed):
                outcome = Outcome(failure=error.failure, relayed=True)
            else:
                try:
                    outcome = self._work.outcome_of_error(claim, error, asked, failures, plugin)
                except NotOurs:
                    return None
            self._work.take(claim, deferred, began)
        self._work.store(deferred, outcome)
        return _Member(claim, 0.0, deferred.state, deferred.failure, plugin=deferred.plugin)

    def commit(self, pool):
        """Commit the group; its Ends are there then.

        Of what the beat has taken back meanwhile it has Ends itself, and has filed them maybe.
        """
        if not self._members:
            return
        if any(member.later is None for member in self._members):
            # crash point 46: calls of a group have run, nothing is committed; they run again, each
            # alone.
            current = transaction.get()
            # Members have added to it what they like.
            current.user = 'zasync'
            ids = ' '.join(member.claim.id for member in self._members)
            current.description = f'zasync calls {ids}'
            # crash point 47, at the vote: as 46; the servers drop what was voted for.
            commit()
        # crash point 48: a group is committed and not filed; the next life files its calls.
        now, monotonic = self._clock.now(), self._clock.monotonic()
        each = sum(member.seconds for member in self._members)
        share = (monotonic - self._began - each) / len(self._members)
        self.committed = len(self._members)
        for member in self._members:
            claim, later, seconds = member.claim, member.later, member.seconds + share
            ours = pool.go_on_with(claim)
            if later is None:
                tell_end(claim.id, member.state, member.failure, seconds)
                end = End(claim, ENDED, now, monotonic, seconds, now, state=member.state,
                          plugin=member.plugin)
            elif ours:
                tell_later(claim.id, later)
                end = End(claim, GIVE_BACK, now, monotonic, seconds, now + later.delay, later.why,
                          failed=True)
            if ours:
                self.ends.append(end)


def kind_of(plugin, args):
    """What a call is a call of, for Habits: its plugin, or the function behind that."""
    target = args[0] if args else None
    if type(target) is not Reference:
        return (plugin,)
    module = target.where if target.kind == 'function' else '…'
    return plugin, module, target.name
