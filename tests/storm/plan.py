"""The plan of a storm: what its seed says will happen, and when. Pure.

Imports: nothing of ours.
"""

import random
from typing import NamedTuple


WEBS = ('web1', 'web2')
WORKERS = ('zam1', 'zam2', 'zam3')
SERVER = 'zeo'
CLIENTS = (*WEBS, *WORKERS)

#: Seconds between two faults, on the average. Shorter: nothing gets done in between.
MEAN_GAP = 2.5

#: A worker that is stopped for so long is taken for dead, if its siblings beat. Seconds.
LOOKS_DEAD = (29.0, 36.0)


class Fault(NamedTuple):
    """at -- seconds from the begin. kind -- what happens, to `who`, for `seconds`."""

    at: float
    kind: str
    who: str
    seconds: float


#: kind → (weight, whom it may happen to, seconds from, to). Seconds are how long it lasts: how
#: long a process is down, a link cut, a disk full.
KINDS = {
    'kill worker': (4, WORKERS, 0.0, 4.0),
    'end worker': (2, WORKERS, 0.0, 2.0),
    'stop worker': (2, WORKERS, 0.3, 6.0),
    'kill web': (1, WEBS, 0.0, 2.0),
    'stop web': (1, WEBS, 0.3, 4.0),
    'kill server': (1, (SERVER,), 0.0, 3.0),
    'end server': (1, (SERVER,), 0.0, 2.0),
    'stop server': (1, (SERVER,), 0.3, 4.0),
    'cut': (2, CLIENTS, 0.0, 5.0),
    'stall': (2, CLIENTS, 0.5, 6.0),
    'slow': (2, CLIENTS, 1.0, 8.0),
    'full disk': (1, (SERVER,), 0.3, 3.0),
    'pack': (2, (SERVER,), 0.0, 0.0),
}


def faults(seed, seconds):
    """The Faults of a storm of so many seconds; tuple, in order."""
    dice = random.Random(f'faults {seed}')
    kinds = list(KINDS)
    weights = [KINDS[kind][0] for kind in kinds]
    found, at, next_long = [], 2.0, dice.uniform(0.0, 40.0)
    while (at := at + min(8.0, dice.expovariate(1 / MEAN_GAP))) < seconds:
        if at >= next_long and at + LOOKS_DEAD[1] < seconds:
            found.append(Fault(at, 'stop worker', dice.choice(WORKERS),
                               dice.uniform(*LOOKS_DEAD)))
            next_long = at + dice.uniform(40.0, 80.0)
            continue
        [kind] = dice.choices(kinds, weights)
        _, whom, shortest, longest = KINDS[kind]
        found.append(Fault(round(at, 2), kind, dice.choice(whom),
                           round(dice.uniform(shortest, longest), 2)))
    return tuple(found)


#: Kinds of calls, see `jobs` and `site`, with their weights.
CALLS = {'plain': 8, 'quick': 8, 'slow': 5, 'fails': 2, 'steps': 3, 'sneaky': 1, 'once': 4,
         'timed': 2, 'flaky': 2, 'series': 3, 'keyed': 4, 'chain': 3, 'together': 2,
         'delayed': 2, 'expiring': 1, 'own': 3, 'foreign': 1, 'big': 1}

#: Seldom: each of them ends five lives of workers.
POISON_SECONDS = 100.0

#: What may be done in a request, with weights.
FATES = {'commit': 20, 'abort': 1, 'roll back': 1}


class Client:
    """The requests of one person in front of a browser; an endless series of specifications.

    A request is {'calls': [see site._call], 'fate': one of FATES}, or {'cancel': True}, {'late':
    True}, {'guess': True}, which name no call: whoever sends them takes one that was put before.
    """

    def __init__(self, seed, name, mean_pause, kinds=None):
        self._dice = random.Random(f'client {seed} {name}')
        self._name = name
        self._mean_pause = mean_pause
        self._kinds = kinds or CALLS
        self._serial = 0

    def pause(self):
        """Seconds until the next request."""
        return min(5 * self._mean_pause, self._dice.expovariate(1 / self._mean_pause))

    def choose(self, what):
        """One of them."""
        return self._dice.choice(what)

    def request(self):
        """The next one."""
        kind = self._dice.choices(('put', 'cancel', 'late', 'guess'), (20, 1, 1, 1))[0]
        if kind != 'put':
            return {kind: True}
        number = self._dice.choices((1, 2, 3), (6, 2, 1))[0]
        return {'calls': [self._call() for _ in range(number)],
                'fate': self._dice.choices(list(FATES), FATES.values())[0]}

    def _call(self):
        self._serial += 1
        return {'kind': self._dice.choices(list(self._kinds), self._kinds.values())[0],
                'token': f'{self._name}-{self._serial}',
                'number': self._dice.randint(1, 4),
                'seconds': round(self._dice.uniform(0, 1.5), 2),
                'manager': self._dice.choice((*WORKERS, None, None, None, None))}
