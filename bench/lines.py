"""The lines of the benchmark: each a function that measures and returns rows.

Every figure of ours stands beside the same work done by the raw database, in the
same run, by the same number of clients, through the same ZEO server.

Imports: putting, draining, idling, dispatching, growth, front, parts, storing,
floors, peers.
"""

from bench import dispatching
from bench import draining
from bench import floors
from bench import front
from bench import growth
from bench import idling
from bench import parts
from bench import peers
from bench import putting
from bench import storing


LINES = {
    'latency': idling.latency, 'puts': putting.puts, 'crowd': putting.crowd,
    'conflicts': putting.conflicts, 'waiting': putting.waiting, 'drain': draining.drain,
    'group': draining.group, 'two': draining.two, 'idle': idling.idle, 'growth': growth.growth,
    'dispatch': dispatching.dispatch, 'pace': dispatching.pace, 'front': front.front,
    'stores': storing.stores, 'cache': storing.cache, 'floor': floors.floor,
    'profile': parts.profile, 'peers': peers.peers}

#: What is run only if it is asked for: no bar hangs on it, and the whole is to take 15 minutes at
#: most on a slow day; or it takes packages and servers of others.
ASIDE = {'stores', 'cache', 'floor', 'peers'}
