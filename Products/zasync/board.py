"""Board: how far the running calls of a queue are. One writer, the beat of the desk's holder.

It is apart from the deferreds: a call that tells of its progress must not meet
itself at its own commit.

Imports: nothing of ours.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING


if TYPE_CHECKING:  # persistent has no types, and a base without any would hide mistakes
    Persistent = object
else:
    from persistent import Persistent


class Progress(NamedTuple):
    """How far a call is: done of total (None: nobody knows), and a message for people."""

    done: float
    total: float | None = None
    message: str = ''


# Restricted Python may read all three. Not in the class: type checkers take it for a field there.
setattr(Progress, '__allow_access_to_unprotected_subobjects__', 1)


class Board(Persistent):
    """{call id: (done, total, message)} of calls that run."""

    __zpublishable__ = False

    def __init__(self) -> None:
        self._of: dict[str, tuple[Any, ...]] = {}

    def get(self, id: str) -> Progress | None:
        """The Progress of that call, or None."""
        entry = self._of.get(id)
        return None if entry is None else Progress(*entry)

    def ids(self) -> set[str]:
        """The calls that have told of their progress."""
        return set(self._of)

    def write(self, reports: Mapping[str, Progress], gone: Iterable[str] = ()) -> None:
        """Note {id: Progress} of `reports`, and forget the ids in `gone`."""
        self._of.update((id, tuple(progress)) for id, progress in reports.items())
        for id in gone:
            self._of.pop(id, None)
        self._p_changed = True
