"""One run a mailbox in all processes, and no request is lost: every order of commits.

Two connections with transaction managers of their own stand for two processes.
"""

import pytest
import ZEO
from transaction import TransactionManager
from ZODB.POSException import ConflictError

from Products.CPSMailAccess import background
from Products.CPSMailAccess import errors
from Products.CPSMailAccess.mailbox import MailBox
from Products.CPSMailAccess.synchronizer import Synchronizer
from Products.CPSMailAccess.syncstatus import LEASE_SECONDS
from Products.CPSMailAccess.syncstatus import report
from Products.zasync.errors import Cancelled
from Products.zasync.errors import Expired
from Products.zasync.failure import Failure

from .fakes import FakeCall
from .fakes import FakeRun
from .fakes import FakeServer
from .fakes import Hand


class Process:
    """A connection, its transaction manager, the mailbox in it."""

    def __init__(self, database, hand):
        self.manager = TransactionManager(explicit=False)
        self.manager.begin()
        self.connection = database.open(self.manager)
        self.hand = hand
        root = self.connection.root()
        if 'box' not in root:
            root['box'] = MailBox('box_alice')
            self.manager.commit()
        self.box = root['box']

    def commit(self):
        self.manager.commit()
        self.manager.begin()

    def begin(self):
        self.manager.begin()

    def runner(self, owner, server):
        return Synchronizer(self.box, server.session, FakeRun(owner, self.manager), self.hand)

    def run(self, owner, server, light=1):
        """As a worker does: the run, then the commit of its end."""
        try:
            ran = self.runner(owner, server).synchronize(light)
        except BaseException:
            self.manager.abort()
            raise
        self.commit()
        return ran

    def ask(self, light=1, call=None):
        """As a request does, with the dispatcher's work done by hand; what became of it."""
        outcome = background.request_synchronisation(self.box, light, self.hand())
        if outcome != background.JOINED:
            self.box.sync_requests.put(call)
        return outcome

    @property
    def status(self):
        return self.box.sync_status

    def report(self):
        self.begin()
        return report(self.box.sync_status, self.box.sync_requests, self.hand())


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def zeo(tmp_path):
    """Two databases on one ZEO server, as two processes have them."""
    address, stop = ZEO.server(str(tmp_path / 'Data.fs'), threaded=True)
    # server_sync: a new transaction sees what was committed before it began.
    pair = [ZEO.DB(address, server_sync=True, wait_timeout=10) for _ in range(2)]
    yield pair
    for database in pair:
        database.close()
    stop()


@pytest.fixture(params=['DemoStorage', 'ZEO'])
def databases(request):
    """A database for each process: one and the same, or two on a ZEO server."""
    if request.param == 'ZEO':
        return request.getfixturevalue('zeo')
    return [request.getfixturevalue('database')] * 2


@pytest.fixture
def processes(databases, hand, monkeypatch):
    """Two processes; asking puts no call by itself."""
    monkeypatch.setattr(background, 'find_dispatcher', lambda context: object())
    monkeypatch.setattr(background, '_put', lambda *args: ('zam1', FakeCall('not stored')))
    pair = Process(databases[0], hand), Process(databases[1], hand)
    yield pair
    for process in pair:
        process.manager.abort()
        process.connection.close()


@pytest.fixture
def server():
    return FakeServer(INBOX=range(1, 4), Work=range(1, 3))


# The lease

def test_of_two_that_take_the_lease_at_once_the_second_is_refused(processes, server):
    one, two = processes
    one.begin(), two.begin()
    one.runner('call-1', server)._take_lease()
    with pytest.raises(ConflictError):
        two.runner('call-2', server)._take_lease()
    assert server.opened == 0
    two.begin()
    assert two.status.owner == 'call-1'


def test_who_comes_while_a_run_goes_on_is_turned_away_and_writes_nothing(processes, server):
    one, two = processes
    outcomes = []
    server.on('connect', lambda: (two.begin(), outcomes.append(
        two.runner('call-2', server).synchronize(1)), two.manager.abort()))
    assert one.run('call-1', server) is True
    assert outcomes == [False] and server.opened == 1


def test_same_call_run_again_takes_its_lease_over_at_once(processes, server):
    one, two = processes
    one.runner('call-1', server)._take_lease()
    one.begin()  # the worker is killed here
    two.begin()
    assert two.run('call-1', server) is True
    assert two.report()['state'] == 'done'


def test_lease_nobody_renews_is_given_away_after_a_while(processes, server, hand):
    one, two = processes
    one.runner('call-1', server)._take_lease()
    two.begin()
    hand.seconds += LEASE_SECONDS
    assert two.run('call-2', server) is False
    hand.seconds += 1
    two.begin()
    assert two.run('call-2', server) is True


def test_superseded_run_stops_without_touching_anything(processes, server, hand):
    one, two = processes

    def supersede():
        hand.seconds += LEASE_SECONDS + 1
        two.begin()
        assert two.run('call-2', server) is True

    server.on('headers', supersede)
    with pytest.raises(ConflictError):
        one.run('call-1', server)
    one.begin()
    assert one.status.owner == 'call-2' and one.report()['state'] == 'done'
    assert one.box.message_count() == 3


def test_run_that_sees_after_its_checkpoint_that_it_lost_the_lease_stops(processes, server):
    one, two = processes
    runner = one.runner('call-1', server)
    commit = runner.run.checkpoint

    def checkpoint():
        commit()
        runner.run.checkpoint = commit
        two.begin()
        two.box.clearSynchro()
        two.commit()
        one.begin()

    runner.run.checkpoint = checkpoint
    with pytest.raises(errors.Superseded):
        runner.synchronize(1)
    assert server.opened == 0
    assert one.report()['state'] == 'idle'


def test_lease_of_a_call_that_ended_is_free_at_once(processes, server):
    one, two = processes
    call = FakeCall('call-1')
    one.ask(call=call)
    one.commit()
    one.runner('call-1', server)._take_lease()
    call.fail('timed out')
    one.commit()
    two.begin()
    assert two.report()['state'] == 'failed' and 'timed out' in two.report()['reason']
    two.box.sync_requests.ask(1)
    two.box.sync_requests.put(FakeCall('call-2'))
    two.commit()
    assert two.run('call-2', server) is True


def test_clearing_defeats_the_run_under_way(processes, server):
    one, two = processes

    def clear():
        two.begin()
        two.box.clearSynchro()
        two.commit()

    server.on('headers', clear)
    with pytest.raises(ConflictError):
        one.run('call-1', server)
    assert one.report()['state'] == 'idle' and one.box.message_count() == 0
    # The worker meets a conflict and runs the call again: it was told to stop all the same.
    assert one.run('call-1', server) is False
    assert one.report()['state'] == 'idle' and one.box.message_count() == 0


def test_call_stopped_before_it_ran_does_nothing_and_the_next_request_puts_another(
        processes, server):
    one, two = processes
    one.ask(call=FakeCall('call-1'))
    one.commit()
    two.begin()
    two.box.clearSynchro()
    two.commit()
    assert one.report()['state'] == 'idle'
    assert one.ask(call=FakeCall('call-2')) == 'queued'
    one.commit()
    two.begin()
    assert two.run('call-1', server) is False and server.opened == 0
    assert two.report()['state'] == 'queued'
    assert two.run('call-2', server) is True and two.report()['state'] == 'done'


def test_request_that_joins_what_is_being_stopped_is_tried_again(processes):
    one, two = processes
    one.ask(call=FakeCall('call-1'))
    one.commit()
    one.begin(), two.begin()
    assert one.ask() == 'joined'
    two.box.clearSynchro()
    two.commit()
    with pytest.raises(ConflictError):
        one.commit()


# Calls without a sign of life

def test_call_nobody_claims_is_counted_upon_for_a_while_only(processes, server, hand):
    one, two = processes
    one.ask(call=FakeCall('call-1'))
    one.commit()
    hand.seconds += LEASE_SECONDS
    two.begin()
    assert two.ask() == 'joined'
    two.manager.abort()
    hand.seconds += 1
    assert 'another one is looked for' in two.report()['message']
    assert two.ask(call=FakeCall('call-2', put_at=hand.seconds)) == 'queued'
    two.commit()
    assert two.report()['message'] == 'Waiting for a worker.'
    # The first worker comes back after all: both calls do no harm.
    assert two.run('call-2', server) is True
    one.begin()
    assert one.run('call-1', server) is True
    assert one.report()['state'] == 'done' and one.box.message_count() == 3


def test_run_whose_worker_is_gone_for_good_is_replaced_on_request(processes, server, hand):
    one, two = processes
    one.ask(call=FakeCall('call-1', 'accepted'))
    one.commit()
    one.runner('call-1', server)._take_lease()
    hand.seconds += LEASE_SECONDS + 1
    report = two.report()
    assert report['state'] == 'running' and 'No news from its worker' in report['message']
    assert two.ask(call=FakeCall('call-2', put_at=hand.seconds)) == 'queued'
    two.commit()
    assert two.report()['state'] == 'queued'
    assert two.run('call-2', server) is True and two.report()['state'] == 'done'


# Requests

def test_first_request_puts_a_call_and_the_second_joins_it(processes, server):
    one, two = processes
    assert one.ask(call=FakeCall('call-1')) == 'queued'
    one.commit()
    two.begin()
    assert two.ask() == 'joined'
    two.commit()
    assert two.report()['state'] == 'queued'
    assert two.run('call-1', server) is True
    assert two.report()['state'] == 'done'
    assert two.status.served == 2 and server.opened == 1


def test_two_requests_at_once_put_one_call(processes):
    one, two = processes
    one.begin(), two.begin()
    one.ask(call=FakeCall('call-1'))
    two.ask(call=FakeCall('call-2'))
    one.commit()
    with pytest.raises(ConflictError):
        two.commit()
    two.begin()
    assert two.ask() == 'joined'


def test_a_synchronisation_is_asked_for_while_one_runs(processes, server):
    one, two = processes

    def ask():
        two.begin()
        assert two.ask(light=1) == 'joined'
        two.commit()

    one.ask(call=FakeCall('call-1', 'accepted'))
    one.commit()
    server.on('headers', ask)
    assert one.run('call-1', server) is True
    assert server.opened == 2 and one.report()['state'] == 'done'


def test_full_request_during_a_light_run_is_served_in_full(processes, server):
    one, two = processes

    def ask():
        two.begin()
        assert two.ask(light=0) == 'joined'
        two.commit()

    one.ask(call=FakeCall('call-1', 'accepted'))
    one.commit()
    server.on('headers', ask)
    one.run('call-1', server, light=1)
    assert one.box.server_names() == {'INBOX', 'Work'}


def test_full_request_that_joined_a_waiting_light_call_is_served_in_full(processes, server):
    one, two = processes
    one.ask(light=1, call=FakeCall('call-1'))
    one.commit()
    two.begin()
    two.ask(light=0)
    two.commit()
    one.begin()
    one.run('call-1', server, light=1)
    assert one.box.server_names() == {'INBOX', 'Work'} and server.opened == 1


def test_request_just_before_the_end_of_the_run_is_not_lost(processes, server):
    one, two = processes
    one.ask(call=FakeCall('call-1', 'accepted'))
    one.commit()
    assert one.runner('call-1', server).synchronize(1) is True
    # The run is about to commit its end; somebody asks, and commits first.
    two.begin()
    assert two.ask() == 'joined'
    two.commit()
    with pytest.raises(ConflictError):
        one.commit()
    one.begin()
    assert one.run('call-1', server) is True
    assert one.status.served == 2


def test_request_just_after_the_end_of_the_run_is_tried_again(processes, server):
    one, two = processes
    call = FakeCall('call-1', 'accepted')
    one.ask(call=call)
    one.commit()
    two.begin()
    assert two.ask() == 'joined'
    one.run('call-1', server)
    with pytest.raises(ConflictError):
        two.commit()
    one.begin()
    call.state = 'resolved'
    one.commit()
    two.begin()
    assert two.ask(call=FakeCall('call-2')) == 'queued'


def test_request_that_joined_a_call_that_fails_unrun_is_tried_again(processes):
    one, two = processes
    call = FakeCall('call-1')
    one.ask(call=call)
    one.commit()
    two.begin()
    assert two.ask() == 'joined'
    call.fail('You are not allowed')
    one.commit()
    with pytest.raises(ConflictError):
        two.commit()
    assert two.report()['state'] == 'failed'
    assert two.report()['reason'] == 'Unauthorized: You are not allowed'
    assert two.ask(call=FakeCall('call-2')) == 'queued'


def test_call_whose_callbacks_run_serves_nobody_any_more(processes, server):
    one, two = processes
    call = FakeCall('call-1', 'accepted')
    one.ask(call=call)
    one.commit()
    one.run('call-1', server)
    call.state = 'callback'
    one.commit()
    two.begin()
    assert two.ask(call=FakeCall('call-2')) == 'queued'


@pytest.mark.parametrize('error, reason', [
    (Expired('nobody took it'), 'nobody took it'),
    (Cancelled('it was cancelled'), 'it was cancelled'),
    (LookupError('there is nothing'), 'LookupError: there is nothing')])
def test_call_that_never_ran_says_why(processes, error, reason):
    one, _two = processes
    call = FakeCall('call-1', 'failed')
    call.failure = Failure.from_exception(error)
    one.ask(call=call)
    one.commit()
    assert (one.report()['state'], one.report()['reason']) == ('failed', reason)


def test_asking_while_a_run_goes_on_does_not_disturb_it(processes, server):
    # The two sides never write the same object: no conflict but at the end.
    one, two = processes
    one.ask(call=FakeCall('call-1', 'accepted'))
    one.commit()

    def ask():
        two.begin()
        two.ask()
        two.commit()

    for event in ('connect', 'examine', 'list_messages', 'headers', 'logout'):
        server.on(event, ask)
    assert one.run('call-1', server) is True
    assert one.status.served == 6


def test_batches_refuse_nobody_who_asks(processes, server, monkeypatch):
    one, two = processes
    monkeypatch.setattr(Synchronizer, 'batch_size', 1)
    call = FakeCall('call-1', 'accepted')
    one.ask(call=call)
    one.commit()
    runner = one.runner('call-1', server)
    commit = runner.run.checkpoint

    def checkpoint():
        call._p_changed = True  # as zasync's fence does
        commit()

    runner.run.checkpoint = checkpoint

    def ask():
        two.begin()
        assert two.ask() == 'joined'
        # Committed after the next batch is.
        server.on('headers', two.commit)

    server.on('headers', ask)
    assert runner.synchronize(1) is True
    one.commit()
    assert one.status.served == 2 and server.asked == [1, 1, 1]


def test_failure_serves_those_who_asked_meanwhile(processes, server):
    one, two = processes
    one.ask(call=FakeCall('call-1', 'accepted'))
    one.commit()

    def fail():
        raise errors.ConnectionLost('gone')

    def ask_and_fail():
        two.begin()
        two.ask()
        two.commit()
        fail()

    server.on('examine', ask_and_fail)
    with pytest.raises(ConflictError):
        # It read the requests before that one came, so the worker runs the call again.
        one.run('call-1', server)
    server.on('examine', fail)
    with pytest.raises(errors.ConnectionLost):
        one.run('call-1', server)
    assert one.report()['state'] == 'failed' and one.report()['reason'] == 'gone'
    assert one.status.served == 2


def test_progress_is_seen_by_the_other_process(processes, server):
    one, two = processes
    one.ask(call=FakeCall('call-1', 'accepted'))
    one.commit()
    seen = []
    server.on('headers', lambda: seen.append(two.report()))
    one.run('call-1', server)
    assert seen[0]['state'] == 'running' and (seen[0]['done'], seen[0]['total']) == (0, 3)
    assert two.report()['counts'] == {'folders': 1, 'fetched': 3, 'deleted': 0, 'flags': 0}


def test_run_again_after_everything_but_its_result_was_committed_changes_nothing(
        processes, server):
    one, _two = processes
    one.runner('call-1', server).synchronize(0)
    one.manager.abort()
    assert one.run('call-1', server, light=0) is True
    assert one.box.message_count() == 5
