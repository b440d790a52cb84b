"""The life of a call: which event leads from which state to which. Pure.

::

    new ──claim──▶ accepted ──succeed──▶ resolved
     ▲ │              │  └────fail─────▶ failed
     │ └──────────────┼──────cancel────▶ cancelled
     └────give back───┘

A call that runs in the request it was put in (no worker lives) is claimed and
ended like any other.

Imports: interfaces, errors.
"""

from .errors import IllegalTransition
from .interfaces import ACCEPTED
from .interfaces import CANCELLED
from .interfaces import EXPIRED
from .interfaces import FAILED
from .interfaces import FINAL_STATES
from .interfaces import NEW
from .interfaces import RESOLVED


CLAIM = 'claim'
GIVE_BACK = 'give back'
CHECKPOINT = 'checkpoint'
SUCCEED = 'succeed'
FAIL = 'fail'
CANCEL = 'cancel'
EXPIRE = 'expire'

TRANSITIONS = {
    (NEW, CLAIM): ACCEPTED,
    (NEW, CANCEL): CANCELLED,
    (NEW, EXPIRE): EXPIRED,
    (ACCEPTED, GIVE_BACK): NEW,
    (ACCEPTED, CHECKPOINT): ACCEPTED,
    (ACCEPTED, SUCCEED): RESOLVED,
    (ACCEPTED, FAIL): FAILED,
    (ACCEPTED, CANCEL): CANCELLED,
}


def advance(state, event):
    """The state that `event` leads to from `state`.

    Raises IllegalTransition where there is none.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f'a call that is {state} can not {event}') from None


def is_final(state):
    """Whether nothing can happen to a call in `state` any more."""
    return state in FINAL_STATES
