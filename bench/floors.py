"""The least that a put, or a group of calls, could do: what there is to gain, and what not.

Imports: rows, site, clients.
"""

import os

from BTrees.LOBTree import LOBTree

from bench.clients import CALL_TEXT
from bench.clients import Record
from bench.rows import row
from bench.site import duration
from bench.site import Site


COMMITS = 1_000
#: Objects of a group line, each as long as a call.
CALLS = 4_000
RUNS = 3


def floor():
    """Clients that know nothing of calls, beside raw commits of one."""
    puts, groups, rates = [], [], []
    for _ in range(RUNS):
        with Site(prepare=_have_objects, apart=True) as site:
            before = site.raw_seconds(COMMITS)
            put = duration(site.clients('least_put', 1, number=COMMITS)) / COMMITS
            raw = (before + site.raw_seconds(COMMITS)) / 2
            group = duration(site.clients('least_group', 1,
                                          processor=min(os.sched_getaffinity(0)))) / CALLS
            site.check_effects(CALLS)
            raw_of_group = (raw + site.raw_seconds(COMMITS)) / 2
        puts.append(round(raw / put, 2))
        groups.append(round(raw_of_group / group, 2))
        rates.append(round(1 / group))
    return [row('the least a put could do ÷ raw', puts, 'ratio'),
            row('the least group commit could do ÷ raw', groups, 'ratio'),
            row('  calls', rates, '1/s')]


def _have_objects(root):
    """An object for each call, and a chunk as lanes have them."""
    root['least_put'] = LOBTree()
    root['least_group'] = [_of_a_call() for _ in range(CALLS)]


def _of_a_call():
    record = Record()
    record.text = CALL_TEXT
    return record
