"""Pulse, Ping and WorkerCard: the signs of life of a worker, one writer each.

A heartbeat that carried everything would grow an idle database by 8 MB a day. So
what changes (a few numbers) is apart from what does not (host, plugins).

Imports: nothing of ours.
"""

from persistent import Persistent


#: In this order the numbers of a pulse are stored, without their names: it is written so often.
NUMBERS = ('new', 'accepted', 'rate', 'beat', 'accepting', 'pong_at', 'answered', 'pace')


class Pulse(Persistent):
    """A few numbers, written by each beat that commits; all a dispatcher reads.

    new, accepted -- calls that wait, calls that run. rate -- calls ended a second,
    smoothed. beat -- number of this beat. accepting -- 0 while the worker drains
    or is not there. pong_at -- when it last answered a ping, POSIX seconds or 0.
    answered -- the asking time of that ping, by the clock of whoever asked.
    pace -- calls a second that it can do, by how long they took of late; 0 when unknown.
    """

    __zpublishable__ = False

    def __init__(self):
        self.write(0, 0, 0.0, 0, 0, 0)

    def write(self, new, accepted, rate, beat, accepting, pong_at, answered=0, pace=0):
        """Set all numbers at once."""
        self.new = new
        self.accepted = accepted
        self.rate = rate
        self.beat = beat
        self.accepting = accepting
        self.pong_at = pong_at
        self.answered = answered
        self.pace = pace

    def __getstate__(self):
        """Its numbers, in order."""
        return tuple(getattr(self, name) for name in NUMBERS)

    def __setstate__(self, state):
        """What __getstate__ returned."""
        self.__dict__.update(zip(NUMBERS, state, strict=True))


class Ping(Persistent):
    """When somebody last asked the worker to prove that it lives; written by those who ask."""

    __zpublishable__ = False

    def __init__(self):
        self.asked_at = None


class WorkerCard(Persistent):
    """Who serves the queue; written by the worker at its start.

    boot -- id of its life. host, version -- texts. place, pid -- where its process id
    means something, and that id.
    plugins -- {name: description}. started_at -- POSIX seconds.
    """

    __zpublishable__ = False

    def __init__(self):
        self.write(None, '', 0, '', {}, None)

    def write(self, boot, host, pid, version, plugins, started_at, place=''):
        """Set all at once."""
        self.boot = boot
        self.host = host
        self.place = place
        self.pid = pid
        self.version = version
        self.plugins = dict(plugins)
        self.started_at = started_at
