"""Ids of objects that two clients of a restarted ZEO server hold ready.

A client fetches ids for new objects in hundreds. A restarted server counts on from the highest
it has stored, so it gives the same ones to others. If one of those is loaded here, and a new
object of ours gets its id as well, the commit fails with a ValueError; and while it is aborted
ZODB takes the loaded object for the new one, and disowns it. What is written to it after that,
through whatever refers to it, is lost without a word. So all that was loaded has to be forgotten.

Imports: nothing of ours.
"""

from ZODB.Connection import resetCaches


#: How ZODB says it.
_TEXT = 'A different object already has the same oid'


def is_stale_oid(error: BaseException | None) -> bool:
    """Whether a commit failed with that error because of such an id."""
    return isinstance(error, ValueError) and str(error) == _TEXT


def forget_loaded() -> None:
    """Have each connection of this process forget what it has loaded when it is opened next."""
    resetCaches()
