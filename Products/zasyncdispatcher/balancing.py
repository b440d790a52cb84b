"""Which manager gets a call. Pure.

Imports: nothing of ours.
"""

from typing import NamedTuple


class Load(NamedTuple):
    """What is known of one manager when a call is to be placed.

    id -- of the manager. calls -- new and accepted ones. alive -- its worker
    lives and takes calls.
    """

    id: str
    calls: int
    alive: bool


def choose(loads, spread):
    """The Load to give the next call to, or None when no worker lives.

    loads -- sequence of Load. spread -- a random number from 0 up to 1: which one
    of those that have the least is taken, so that none is favoured.
    There is no number of calls at which a manager counts as absent.
    """
    alive = [load for load in loads if load.alive]
    if not alive:
        return None
    least = min(load.calls for load in alive)
    tied = [load for load in alive if load.calls == least]
    return tied[int(spread * len(tied))]
