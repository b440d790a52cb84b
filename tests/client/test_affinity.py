"""cpu-affinity: a worker, its threads and what they start are on the processors it names."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transaction

from bench.stack import our_environment
from zasync_client import affinity
from zasync_client.errors import ConfigurationError


ALL = os.sched_getaffinity(0)

#: Does what `argv` says in a process of its own, which has a second thread by then.
SCRIPT = """
import json, os, sys, threading
from zasync_client import affinity
from zasync_client.errors import ConfigurationError

threading.Thread(target=threading.Event().wait, daemon=True).start()
returned = eval(sys.argv[1])
print(json.dumps({
    'returned': returned and sorted(returned),
    'threads': [sorted(os.sched_getaffinity(int(task))) for task in os.listdir('/proc/self/task')],
}))
"""


def in_a_process(what):
    """What a process has returned for an expression, and the processors of its threads then."""
    done = subprocess.run([sys.executable, '-c', SCRIPT, what], env=our_environment(),
                          stdout=subprocess.PIPE, text=True, timeout=30, check=True)
    told = json.loads(done.stdout)
    return told['returned'], told['threads']


def allowed_of_process(pid):
    """What the processors are of each thread of a process, as the system writes them."""
    found = set()
    for task in Path(f'/proc/{pid}/task').iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            found |= {line.split()[1]
                      for line in (task / 'status').read_text('ascii').splitlines()
                      if line.startswith('Cpus_allowed_list:')}
    return found


def test_all_threads_of_a_worker_are_on_its_processor(site):
    one = max(ALL)
    worker = site.stack.start_worker('zam1', '/zam1', threads=3, settings=f'cpu-affinity {one}')
    deferreds = [site.put('zope_call', os.sched_getaffinity, 0) for _ in range(3)]
    site.wait(lambda: all(each.ended for each in deferreds), what='the ends of the calls')
    assert [each.result for each in deferreds] == [{one}] * 3
    assert allowed_of_process(worker.pid) == {str(one)}
    transaction.abort()


def test_a_worker_without_it_is_on_all_that_it_was_given(site):
    worker = site.start_worker('zam1')
    assert allowed_of_process(worker.pid) == allowed_of_process(os.getpid())


def test_threads_that_are_there_already_are_moved_and_what_was_before_is_told():
    """Modules of plugins start some when they are imported."""
    one = min(ALL)
    assert in_a_process(f'affinity.keep_to({{{one}}})') == (sorted(ALL), [[one]] * 2)


def test_without_it_nothing_is_changed_nor_to_be_given_back():
    assert in_a_process('affinity.keep_to(None)') == (None, [sorted(ALL)] * 2)


def test_a_processor_that_is_not_there_stops_the_start_with_a_sentence():
    with pytest.raises(ConfigurationError, match='cpu-affinity names processors 4000-4002,4005, '
                                                 'and this process may not run there, but on '
                                                 'processors? [0-9,-]+: '):
        affinity.keep_to({min(ALL), 4000, 4001, 4002, 4005})
    with pytest.raises(ConfigurationError, match='cpu-affinity names processor 4000, '):
        affinity.keep_to({4000})
    assert os.sched_getaffinity(0) == ALL


def test_a_later_life_goes_on_with_what_is_left_of_them(caplog):
    """One that has begun anew because of a call must not fail because of the machine."""
    one = min(ALL)
    assert in_a_process(f'affinity.keep_to({{{one}, 4000}}, is_first=False)') == (
        sorted(ALL), [[one]] * 2)
    assert in_a_process('affinity.keep_to({4000}, is_first=False)') == (
        sorted(ALL), [sorted(ALL)] * 2)
    affinity.keep_to({4000}, is_first=False)
    assert 'cpu-affinity names processor 4000' in caplog.text
    assert 'this life goes on without what is missing' in caplog.text


def test_the_next_life_comes_though_the_processors_it_had_are_gone():
    affinity.give_back({4000})
    assert os.sched_getaffinity(0) == ALL


def test_who_runs_on_few_may_be_told_to_run_on_others():
    """A worker that a call of another worker has started, for example."""
    assert in_a_process(f'(os.sched_setaffinity(0, {{{min(ALL)}}}), '
                        f'affinity.keep_to({{{max(ALL)}}}))[1]') == (
        [min(ALL)], [[max(ALL)]] * 2)


def test_where_the_system_has_no_such_choice_that_is_said(monkeypatch):
    monkeypatch.delattr(os, 'sched_setaffinity')
    monkeypatch.delattr(os, 'sched_getaffinity')
    with pytest.raises(ConfigurationError, match='this system does not let a process choose'):
        affinity.keep_to({0})
    assert affinity.keep_to({0}, is_first=False) is None
    assert affinity.keep_to(None) is None
    affinity.give_back(None)
