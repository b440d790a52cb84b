"""Three queues between which the tests of moving move calls."""



from Products.zasync import moving
from Products.zasync import putting
from tests.fakes import NOW


PERIOD = 86_400
LATE = NOW + 10_000


def id_of(deferred):
    return deferred._p_oid


class Site:
    """Three queues and the names they share, as one connection sees them."""

    def __init__(self, client, key):
        self.client = client
        self._key = key

    def begin(self):
        self.client.begin()
        return self

    def __getitem__(self, id):
        return self.client.connection.root()[self._key][id]

    @property
    def names(self):
        return self['names']

    def put(self, *calls, queue='old', lane=0, after=()):
        """Put calls in one transaction; → their ids."""
        self.begin()
        found = [self[queue].put(call, lane,
                                 self.names, [self.find(id) for id in after]).id
                 for call in calls]
        self.commit()
        return found

    def put_all(self, call, queue='old'):
        """As the manager does, with members and keys; → the id. Its transaction goes on."""
        return putting.put(self[queue], self.names, call, queue).id

    def find(self, id, *queues):
        """The call; the old queue tells of it as well when it has gone."""
        found = [each for each in (self[queue].find(id) for queue in
                                   queues or ('old', 'one', 'two')) if each is not None]
        assert len(found) <= 2 and len(set(map(id_of, found))) <= 1, (id, found)
        return found[0] if found else None

    def place(self, id):
        return next((queue for queue in ('one', 'two', 'old')
                     if self[queue].find(id) is not None), None)

    def targets(self):
        return [moving.Target(id, self[id], {}) for id in ('one', 'two')]

    def move(self, now=LATE, **options):
        """A part of the move, not committed; → how many."""
        return moving.move_some(self['old'], self.targets(), self.names, now, PERIOD, **options)

    def move_all(self, now=LATE, **options):
        """All of it, a transaction a part; → how many."""
        moved = 0
        for _ in range(1_000):
            self.begin()
            moved += self.move(now, **options)
            done = not moving.left(self['old'])
            self.commit()
            if done:
                return moved
        raise AssertionError(f'{moving.left(self["old"])} calls do not move')

    def beat(self, queue, now=LATE, slots=0):
        self.begin()
        claimed = [deferred.id for deferred in self[queue].take_in_and_claim(
            f'boot-{queue}', now, slots, PERIOD)]
        self.commit()
        return claimed

    def lengths(self):
        self.begin()
        return {queue: (self[queue].length_new(), self[queue].length_accepted())
                for queue in ('old', 'one', 'two')}

    def commit(self):
        self.client.commit()

    def abort(self):
        self.client.abort()
