"""Signs of life that come late: a long garbage collection, a long commit, a laptop's sleep."""

import os
import signal
import sys

import pytest
import transaction

from Products.zasync.manager import AsynchronousCallManager
from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
from tests.client import jobs
from tests.client.conftest import site  # noqa: F401 (the fixture)


#: The command, with a heart that beats faster: nobody wants to wait minutes.
COMMAND = '''
import sys
from zasync_client import beat
from zasync_client import cli
beat.BEAT_SECONDS, beat.LATE_SECONDS = 0.3, 0.5
sys.exit(cli.main(sys.argv[1:]))
'''

#: As many beats as in a minute at the usual pace.
MAX_IDLE = 3.0


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_computer_sleeps_while_calls_run(
        site, tmp_path):  # noqa: F811
    site.app._setObject('zad', ZAsyncDispatcher('zad'))
    site.app.zad.max_idle_time = MAX_IDLE
    for id in ('zam1', 'zam2'):
        site.app.zad._setObject(id, AsynchronousCallManager(id, poll_interval=2))
    transaction.commit()
    sleeper, sibling = [start(site, id) for id in ('zam1', 'zam2')]
    transaction.begin()
    boot = site.app.zad.zam1.queue.desk.boot

    # A garbage collection: no thread of the process moves, for less than max_idle_time.
    collected = put(site, jobs.hold_all_threads, 1, 'collected')
    site.ended(collected)
    site.wait(lambda: sleeper.output().count('s late') == 1, what='a word about it')

    # A commit that keeps all others from theirs, for longer than max_idle_time.
    slow = put(site, jobs.commit_slowly, MAX_IDLE + 1, 'committed')
    site.ended(slow)
    site.wait(lambda: sibling.output().count('s late') >= 1, what='a word about it')
    assert [call.attempt for call in (collected, slow)] == [1, 1]
    assert site.app.zad.zam1.queue.desk.boot == boot
    assert 'no sign of life' not in sleeper.output() + sibling.output()

    # A laptop sleeps, for longer than max_idle_time, and wakes up with calls that it runs.
    work = {'at the end': jobs.mark_then_wait, 'on its way': jobs.commit_behind_our_back}
    gates = {name: str(tmp_path / name) for name in work}
    calls = {name: put(site, job, name, gates[name]) for name, job in work.items()}
    site.wait(lambda: all(os.path.exists(gate + '.running') for gate in gates.values()))
    site.wait(lambda: site.root['marks'].get('on its way') == 1, what='its first commit')
    os.kill(sleeper.pid, signal.SIGSTOP)
    site.wait(lambda: all(call.attempt == 2 for call in calls.values()), what='the rescue')
    assert site.app.zad.zam1.queue.desk.guest
    os.kill(sleeper.pid, signal.SIGCONT)
    site.wait(lambda: site.app.zad.zam1.queue.desk.boot == boot, what='the return')
    assert 'it takes its desk back' in sleeper.output()
    # One after the other: both write to the marks, and who met a conflict would commit once more.
    for name in ('on its way', 'at the end'):
        with open(gates[name], 'w', encoding='ascii'):
            pass
        site.ended(calls[name])
    site.wait(lambda: sleeper.output().count('was dropped') == 2, what='the end of both threads')
    transaction.begin()
    # Once more on its way by the first run, before it was stopped.
    assert (site.root['marks']['at the end'], site.root['marks']['on its way']) == (1, 3)
    for call in calls.values():
        assert [each.outcome for each in call.attempts] == ['its worker was gone', 'resolved']
    site.ended(put(site, jobs.add, 1, 1))


def start(site, id):  # noqa: F811
    """A worker for that manager, with COMMAND."""
    config = site.stack.make_instance() / 'etc' / f'{id}.conf'
    config.write_text(f'%include zope.conf\ntarget /zad/{id}\nthreads 3\n', 'utf-8')
    return site.stack.start(id, [sys.executable, '-c', COMMAND, '-C', config],
                            is_ready=lambda process: ' serves ' in process.output())


def put(site, *call):  # noqa: F811
    transaction.begin()
    deferred = site.app.zad.zam1.putCall('zope_call', *call)
    transaction.commit()
    return deferred
