"""cpu-affinity: a worker, its threads and what they start are on the processors it names."""

import os
from pathlib import Path

import pytest
import transaction

from zasync_client import affinity
from zasync_client.errors import ConfigurationError


def allowed_of_process(pid):
    """What the processors are of each thread of a process, as the system writes them."""
    return {line.split()[1]
            for task in Path(f'/proc/{pid}/task').iterdir()
            for line in (task / 'status').read_text('ascii').splitlines()
            if line.startswith('Cpus_allowed_list:')}


def test_all_threads_of_a_worker_are_on_its_processor(site):
    one = max(os.sched_getaffinity(0))
    worker = site.stack.start_worker('zam1', '/zam1', threads=3, settings=f'cpu-affinity {one}')
    deferreds = [site.put('zope_call', os.sched_getaffinity, 0) for _ in range(3)]
    site.wait(lambda: all(each.ended for each in deferreds), what='the ends of the calls')
    assert [each.result for each in deferreds] == [{one}] * 3
    assert allowed_of_process(worker.pid) == {str(one)}
    transaction.abort()


def test_a_worker_without_it_is_on_all_that_it_was_given(site):
    worker = site.start_worker('zam1')
    assert allowed_of_process(worker.pid) == allowed_of_process(os.getpid())


def test_a_processor_that_is_not_there_stops_the_start_with_a_sentence():
    before = os.sched_getaffinity(0)
    with pytest.raises(ConfigurationError, match='cpu-affinity names processors 4096, 4097, and '
                                                 'this process may run on processors? [0-9, ]+: '):
        affinity.keep_to({min(before), 4096, 4097})
    assert os.sched_getaffinity(0) == before


def test_where_the_system_has_no_such_choice_that_is_said(monkeypatch):
    monkeypatch.delattr(os, 'sched_setaffinity')
    monkeypatch.delattr(os, 'sched_getaffinity')
    with pytest.raises(ConfigurationError, match='this system does not let a process choose'):
        affinity.keep_to({0})
    affinity.keep_to(None)
    affinity.give_back(affinity.given())
