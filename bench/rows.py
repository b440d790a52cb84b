"""Rows of the table: a figure, the bar it has to hold, and the values of the single runs.

Imports: nothing of ours.
"""

import statistics
from typing import NamedTuple


class Row(NamedTuple):
    """A measured figure. bar -- text, '' for none. holds -- bool or None. runs -- of each run."""

    name: str
    value: float
    unit: str
    bar: str
    holds: bool | None
    runs: list


def row(name, runs, unit, least=None, most=None, above=None):
    """The Row of the median of `runs`.

    least, most, above -- the bar: the median has to be at least, at most, more than that.
    """
    value = round(statistics.median(runs), 3)
    for sign, limit, holds in (('>=', least, least is not None and value >= least),
                               ('<=', most, most is not None and value <= most),
                               ('>', above, above is not None and value > above)):
        if limit is not None:
            return Row(name, value, unit, f'{sign} {limit:,}', holds, runs)
    return Row(name, value, unit, '', None, runs)


def milliseconds(seconds):
    """Seconds as milliseconds with two decimals."""
    return round(seconds * 1000, 2)


def percentile(values, share):
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
