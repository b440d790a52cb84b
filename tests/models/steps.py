"""What the parts of a machine share: deeds, and a choice that shrinks well.

Of several rules Hypothesis leaves some out of each history and takes the others equally often. A
machine here has one rule, which takes a deed, and those that matter more are named more often.

Imports: nothing of ours.
"""

from hypothesis import strategies as st


def deed(name, **strategies):
    """A strategy of (name of a method, its keywords)."""
    return st.tuples(st.just(name), st.fixed_dictionaries(strategies))


def pick(number, candidates):
    """One of them by a small number, the newest by 0; None if there are none."""
    candidates = list(candidates)
    return candidates[-1 - number % len(candidates)] if candidates else None
