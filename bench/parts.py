"""The line that says where the time of a call goes: of one alone, and of many.

Imports: rows, site, jobs, processes, tracing.
"""

import os
import statistics
import time
from collections import Counter

import transaction

from bench import tracing
from bench.jobs import append_record
from bench.jobs import append_record_together
from bench.processes import processor_seconds
from bench.rows import row
from bench.site import Site


RUNS = 3
#: Of a run: calls one by one, and seconds between two.
PUTS = 100
GAP_SECONDS = 0.05
#: Calls that wait together.
CALLS = 1_000

#: What a worker notes of a call before it runs, last first; and afterwards.
BEFORE = ('thread has it', 'claim is committed', 'has claimed', 'awake')
AFTER = 'end is committed'

#: What is in a thread's name → whose it is.
WHO = {'MainThread': 'the beat', 'networking': 'the network thread', '': 'threads that run calls'}

#: (row, from, to)
STEPS = (('  putCall', 'put', 'committing'),
         ('  its commit, until the worker wakes up', 'committing', 'awake'),
         ('  the beat begins, and finds it', 'awake', 'has claimed'),
         ('  the claim is committed', 'has claimed', 'claim is committed'),
         ('  to a thread, with its user and request', 'claim is committed', 'runs'),
         ('  the end is committed', 'runs', 'end is committed'))


def profile():
    """From the put of one call to its committed end; and the processor time of many."""
    found = _one_by_one()
    rows = [row('profile: put → end is committed', [
        _milliseconds(calls, 'put', 'end is committed') for calls in found], 'ms')]
    rows += [row(name, [_milliseconds(calls, since, until) for calls in found], 'ms')
             for name, since, until in STEPS]
    for title, function in (('one by one', append_record),
                            ('group commit', append_record_together)):
        spent = [_spent(function) for _ in range(RUNS)]
        rows.append(row(f'profile: processor time of a call, {title}',
                        [sum(each.values()) for each in spent], 'µs'))
        rows += [row(f'  {who}', [each[who] for each in spent], 'µs') for who in spent[0]]
    return rows


def _milliseconds(calls, since, until):
    return round(1000 * statistics.median(each[until] - each[since] for each in calls), 3)


def _one_by_one():
    """For each run, a list of {moment: monotonic seconds} of its calls."""
    with Site() as site:
        site.start_worker()
        _call(site, tracing.begin)
        return [_traced(site) for _ in range(RUNS)]


def _traced(site):
    calls = []
    for _ in range(PUTS):
        time.sleep(GAP_SECONDS)
        transaction.begin()
        moments = {'put': time.monotonic()}
        site.manager.putCall('zope_call', tracing.run)
        moments['committing'] = time.monotonic()
        transaction.commit()
        calls.append(moments)
    site.wait_until_done(30)
    noted = [(what, at) for what, at in _call(site, tracing.moments) if at >= calls[0]['put']]
    runs = [index for index, (what, _) in enumerate(noted) if what == 'runs']
    for moments, index in zip(calls, runs, strict=True):
        moments['runs'] = noted[index][1]
        here = index
        for what in BEFORE:
            here = next(each for each in range(here - 1, -1, -1) if noted[each][0] == what)
            moments[what] = noted[here][1]
        moments[AFTER] = next(at for what, at in noted[index:] if what == AFTER)
    return calls


def _call(site, function):
    """The result of a call."""
    transaction.begin()
    deferred = site.manager.putCall('zope_call', function)
    transaction.commit()
    site.wait_until_done(30)
    transaction.begin()
    return deferred.result


def _spent(function):
    """{who: µs of processor time a call}, while many wait."""
    with Site() as site:
        site.fill(CALLS, function, numbered=True)
        worker = site.start_worker()
        before, server = _of_threads(worker.pid), processor_seconds(site.stack.zeo.pid)
        transaction.begin()
        left = site.manager.open_calls()
        site.wait_until_done(120)
        after, served = _of_threads(worker.pid), processor_seconds(site.stack.zeo.pid)
        known = _call(site, tracing.threads)
    spent = Counter(dict.fromkeys(WHO.values(), 0.0))
    for thread, seconds in after.items():
        who = next(who for part, who in WHO.items() if part in known.get(thread, ''))
        spent[who] += seconds - before.get(thread, 0.0)
    spent['ZEO server'] = served - server
    return {who: round(1e6 * seconds / left) for who, seconds in spent.items()}


def _of_threads(pid):
    """{native id: seconds of processor time} of the threads of a process."""
    return {int(thread): processor_seconds(pid, thread)
            for thread in os.listdir(f'/proc/{pid}/task')}
