"""What the parts of a machine share: rules, and a choice that shrinks well.

Imports: nothing of ours.
"""

import functools

from hypothesis.stateful import precondition
from hypothesis.stateful import rule


def act(when=None, **strategies):
    """A rule; whether it went through shows in the machine's `sound`.

    when -- callable(machine) → whether it can be done now.
    """
    def decorated(method):
        @functools.wraps(method)
        def step(self, **kwargs):
            self.sound = False
            method(self, **kwargs)
            self.sound = True

        made = rule(**strategies)(step)
        return made if when is None else precondition(when)(made)
    return decorated


def pick(number, candidates):
    """One of them by a small number, the newest by 0; None if there are none."""
    candidates = list(candidates)
    return candidates[-1 - number % len(candidates)] if candidates else None
