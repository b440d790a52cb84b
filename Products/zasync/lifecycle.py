"""The life of a call: which event leads from which state to which. Pure.

::

    new ──claim──▶ accepted ──succeed──▶ resolved
     ▲ │              │  └────fail─────▶ failed ──retry──▶ new
     │ ├──────────────┼──────cancel────▶ cancelled
     │ └──────────────┼──────expire────▶ expired
     └────give back───┘

A call with callbacks is in the state *callback* between its own end and theirs:
``succeed``, ``fail`` and ``expire`` lead there first, and when the last callback
has run the same events lead to the final state. Its worker may be lost on the way;
then it is claimed again, in that state, and goes on where it was.

A call that runs in the request it was put in (no worker lives) is claimed and
ended like any other.

Imports: interfaces, errors.
"""

from typing import Literal
from typing import TypeAlias

from .errors import IllegalTransition
from .interfaces import ACCEPTED
from .interfaces import CALLBACK
from .interfaces import CANCELLED
from .interfaces import EXPIRED
from .interfaces import FAILED
from .interfaces import FINAL_STATES
from .interfaces import NEW
from .interfaces import RESOLVED


#: One of interfaces.STATES, for type checkers.
State: TypeAlias = Literal['new', 'accepted', 'callback', 'resolved', 'failed', 'cancelled',
                           'expired']

CLAIM = 'claim'
GIVE_BACK = 'give back'
CHECKPOINT = 'checkpoint'
SUCCEED = 'succeed'
FAIL = 'fail'
CANCEL = 'cancel'
EXPIRE = 'expire'
RETRY = 'retry'

TRANSITIONS: dict[tuple[State, str], State] = {
    (NEW, CLAIM): ACCEPTED,
    (NEW, CANCEL): CANCELLED,
    (NEW, EXPIRE): EXPIRED,
    (ACCEPTED, GIVE_BACK): NEW,
    (ACCEPTED, CHECKPOINT): ACCEPTED,
    (ACCEPTED, SUCCEED): RESOLVED,
    (ACCEPTED, FAIL): FAILED,
    (ACCEPTED, CANCEL): CANCELLED,
    (CALLBACK, CLAIM): CALLBACK,
    (CALLBACK, GIVE_BACK): CALLBACK,
    (CALLBACK, CHECKPOINT): CALLBACK,
    (CALLBACK, SUCCEED): RESOLVED,
    (CALLBACK, FAIL): FAILED,
    (CALLBACK, EXPIRE): EXPIRED,
    (CALLBACK, CANCEL): CANCELLED,
    (FAILED, RETRY): NEW,
}

#: What leads to CALLBACK first when the call has callbacks that have not run.
ENDS = frozenset((SUCCEED, FAIL, EXPIRE))


def advance(state: State, event: str, callbacks: bool = False) -> State:
    """The state that `event` leads to from `state`.

    callbacks -- whether callbacks wait for the end of the call.
    Raises IllegalTransition where there is none.
    """
    try:
        after = TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f'a call that is {state} can not {event}') from None
    return CALLBACK if callbacks and event in ENDS else after


def is_final(state: State) -> bool:
    """Whether nothing can happen to a call in `state` any more."""
    return state in FINAL_STATES
