"""Claim and End: what goes from the beat to a thread, and what comes back.

A claim is in the database before its call runs, and so is a *reserved* one; but the deferred of
that is written only once, by the commit that ends it.

Imports: nothing of ours.
"""

from typing import NamedTuple


ENDED = 'ended'
GIVE_BACK = 'give back'
LOST = 'lost'
UNBEGUN = 'not begun'
ALONE = 'alone'


class Claim(NamedTuple):
    """A call this worker has claimed; database_name and oid are of its deferred.

    timeout_seconds -- how long its run may take, or None. target -- path of its manager.
    groupable -- it may share a transaction with others. reserved -- it must, and that commits its
    claim as well.
    """

    id: str
    database_name: str
    oid: bytes
    attempt: int
    timeout_seconds: float | None = None
    target: tuple = ()
    groupable: bool = False
    reserved: bool = False


class End(NamedTuple):
    """How a run ended: ENDED, GIVE_BACK, LOST to another run, UNBEGUN.

    Or ALONE, of what was reserved and could not be run with others: it has not ended, but is to be
    claimed and run alone.

    at, until -- POSIX seconds; what goes back to the queue waits until then.
    monotonic -- monotonic seconds of the end. seconds -- how long it took.
    failed -- it goes back because it raised an exception, by its retry policy.
    begun -- its plugin had begun, and what it did is not stored.
    shared_seconds -- how much of `seconds` is shared by all calls of a group.
    state, plugin -- of a call that has ended, that in which it did, and its plugin.
    """

    claim: Claim
    how: str
    at: float
    monotonic: float
    seconds: float
    until: float = 0.0
    why: str = ''
    failed: bool = False
    begun: bool = False
    shared_seconds: float = 0.0
    state: str = ''
    plugin: str = ''


def attempts(held, ends):
    """{(call id, attempt)} of claims that some thread has begun, or may begin."""
    begun = {end.claim for end in ends if end.how not in (UNBEGUN, ALONE)}
    return {(claim.id, claim.attempt) for claim in held | begun}
