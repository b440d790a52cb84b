"""Call and Caller: the frozen request, as it was put.

Imports: nothing of ours.
"""

from __future__ import annotations

from typing import Any
from typing import NamedTuple
from typing import TypeAlias


#: The path of an object, ids from the root on, '' for the root itself.
Path: TypeAlias = tuple[str, ...]


class Caller(NamedTuple):
    """Who put a call, as names and paths.

    user_id -- id in its user folder; None for a special user.
    folder -- path of the user folder, tuple of ids, ('', 'acl_users') for the
    root's; None for a special user without one.
    special -- '' or 'nobody', 'system', 'emergency'.
    owner -- (path of its user folder, id) of who owns the script or template that
    put the call, or None: such code may do no more than its owner, when queued too.
    site -- path of the component site, or None.
    server_url, script, virtual_root -- what absolute URLs were made of, or None.
    languages -- those of the request, as an Accept-Language header, or None.
    """

    user_id: str | None
    folder: Path | None
    special: str = ''
    owner: tuple[Path, str] | None = None
    site: Path | None = None
    server_url: str | None = None
    script: Path | None = None
    virtual_root: Path | None = None
    languages: str | None = None

    def __str__(self) -> str:
        if self.special:
            return self.special
        return f"{self.user_id} of {'/'.join(self.folder or ())}"


class Call(NamedTuple):
    """A call that has passed the door.

    arguments -- pickle of (args, kwargs), bytes. put_at -- POSIX seconds, whole
    milliseconds. not_before -- POSIX seconds, 0.0 for at once. priority --
    higher first. session -- browser id or None. expires_at -- POSIX seconds or None.
    timeout_seconds -- seconds a run may take, or None. retry -- see
    Options.stored_retry. key, series -- texts or None.
    members -- Calls that are put with this one, which waits for their ends.
    hurried -- it waits for the first failure of a member at most.
    groupable -- what it calls is marked so.
    """

    plugin: str
    arguments: bytes
    caller: Caller
    put_at: float
    priority: int = 0
    not_before: float = 0.0
    session: str | None = None
    expires_at: float | None = None
    timeout_seconds: float | None = None
    retry: tuple[Any, ...] | None = None
    key: str | None = None
    series: str | None = None
    members: tuple[Call, ...] = ()
    hurried: bool = False
    groupable: bool = False
