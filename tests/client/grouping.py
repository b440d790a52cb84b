"""What the tests of calls that share a transaction have in common."""


import transaction
from persistent.mapping import PersistentMapping

from tests.client.fate import Fate
from zasync_client.config import Plugin


class Group(Fate):
    """A Fate whose one thread finds all calls waiting that were put before."""

    def __init__(self, reserves, storage=None):
        super().__init__(storage)
        #: Whether groups have worked of late, so that calls are reserved and not claimed.
        self.reserves = reserves
        #: What the calls of the plugin `do` do: callable(run, *args). Each writes a mark of its
        #: own unless it is told otherwise.
        self.actions = {}
        self.runs = []
        self.connection.root()['own'] = PersistentMapping(
            {number: PersistentMapping() for number in range(20)})
        transaction.commit()
        self.own = self.connection.root()['own']

    def worker(self, batch_seconds=0.05, plugins=(), **options):
        """Not started: its threads begin with `go`."""
        own = [Plugin(name, self._do, '', zope_aware=True, groupable=True)
               for name in ('do', 'odd')]
        worker = super().worker(start=False, plugins=[*own, *plugins],
                                changes={'batch_seconds': batch_seconds}, **options)
        # Calls were short, so it claims ahead; and each kind has run before.
        worker._pace.note(0.0, self.clock.monotonic())
        for kind in (('do',), ('odd',), ('echo',)):
            worker._habits.note_alone(kind, 0.0)
        worker._habits.note_group(self.reserves)
        return worker

    def _do(self, run, action, *args):
        self.runs.append((run.id, run.attempt))
        return self.actions.get(action, getattr(self, action, None))(run, *args)

    def mark(self, run, number, value=True):
        """An effect on an object that no other call writes."""
        run.app._p_jar.root()['own'][number]['mark'] = value
        return number

    def marks_of(self):
        """The numbers of the marks that are there."""
        transaction.begin()
        return [number for number, own in sorted(self.own.items()) if own.get('mark')]

    def put_marks(self, *numbers):
        return [self.put('do', 'mark', number) for number in numbers]

    def go(self, worker, rounds=3):
        """Run what waits, and file it."""
        if not worker._pool._started:
            self.step(worker)
            worker._pool.start()
            self.settle(worker)
        super().go(worker, rounds)
        self.step(worker, hurry=True)


def commits(deferreds):
    """How many transactions wrote these calls last."""
    transaction.begin()
    for deferred in deferreds:
        deferred._p_activate()  # a ghost has the serial it had
    return len({deferred._p_serial for deferred in deferreds})


def assert_together(*deferreds):
    assert commits(deferreds) == 1


def assert_apart(*deferreds):
    assert commits(deferreds) == len(deferreds)


def states(deferreds):
    return [deferred.state for deferred in deferreds]


def times_run(group, deferred):
    return [id for id, _attempt in group.runs].count(deferred.id)
