"""Which manager gets a call. Pure.

Imports: interfaces.
"""

from collections.abc import Sequence
from typing import NamedTuple

from .interfaces import BY_PACE


class Load(NamedTuple):
    """What is known of one manager when a call is to be placed.

    id -- of the manager. calls -- new and accepted ones. alive -- its worker
    lives and takes calls. pace -- calls a second that its worker can do, 0 when nobody
    knows. why -- in words, why it gets no calls; '' for one that does.
    """

    id: str
    calls: int
    alive: bool
    pace: float = 0.0
    why: str = ''


def choose(loads: Sequence[Load], spread: float, balance: str = 'load') -> Load | None:
    """The Load to give the next call to, or None when no worker lives.

    loads -- sequence of Load. spread -- a random number from 0 up to 1: which one
    of those that have the least is taken, so that none is favoured. balance -- 'load':
    the fewest calls; 'pace': where one more call would have ended first.
    There is no number of calls at which a manager counts as absent.
    """
    tied = least(loads, balance)
    return tied[int(spread * len(tied))] if tied else None


def least(loads: Sequence[Load], balance: str = 'load') -> Sequence[Load]:
    """Those that `choose` takes one of; none when no worker lives."""
    alive = [load for load in loads if load.alive]
    weights = _weights(alive, balance)
    lowest = min(weights, default=None)
    return [load for load, weight in zip(alive, weights, strict=True) if weight == lowest]


def _weights(loads: Sequence[Load], balance: str) -> Sequence[float]:
    """What each of the loads weighs; the least is to be chosen."""
    paces = [load.pace for load in loads if load.pace > 0]
    if balance != BY_PACE or not paces:
        return [load.calls for load in loads]
    # One that has not run anything yet is taken for one like the others.
    usual = sum(paces) / len(paces)
    return [(load.calls + 1) / (load.pace or usual) for load in loads]
