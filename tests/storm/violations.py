"""Deliberate violations, one for each thing the checker knows: it must find them.

Each is a function that breaks the product in the process that calls it, as a mistake of ours
might have done.

Imports: zasync, zasync_client, zasyncdispatcher.
"""

import random
import time

import transaction

from Products.zasync import lanes
from Products.zasync import putting
from Products.zasync import security
from Products.zasync.claiming import Claiming
from Products.zasync.pulse import Pulse
from Products.zasyncdispatcher import loads
from zasync_client import beat
from zasync_client import filing
from zasync_client import siblings
from zasync_client.work import Work


def commit_each_put():
    """I1: a put does not wait for its caller's transaction."""
    real = putting.put

    def put(*args):
        deferred = real(*args)
        transaction.commit()
        return deferred

    putting.put = put


def lose_some():
    """I2: now and then an entry of a lane is passed over."""
    real = Claiming._new_entries

    def new_entries(self, *args):
        return [entry for entry in real(self, *args) if random.random() > 0.1]

    Claiming._new_entries = new_entries


def commit_effects_first():
    """I3: the effects of a call are committed before its result."""
    real = Work.store

    def store(self, deferred, outcome):
        transaction.commit()
        real(self, deferred, outcome)

    Work.store = store


def run_all_again():
    """I4: what may not run twice does."""
    filing.may_run_twice = lambda deferred, plugin: True


def touch_what_runs():
    """I5: a sign of life writes the deferreds of the calls that run."""
    real = beat.Beat.write_pulse

    def write_pulse(self, queue, *args):
        for deferred in queue.desk.running.values():
            if not deferred.ended:
                deferred._p_changed = True
        real(self, queue, *args)

    beat.Beat.write_pulse = write_pulse


def share_a_lane():
    """I6: all threads put into one lane."""
    lanes.current = lambda: 0


def write_the_pulse_at_puts():
    """I7: a put writes one more object."""
    real = putting.put

    def put(queue, *args):
        queue.ping.asked_at = time.time()
        return real(queue, *args)

    putting.put = put


def run_as_boss():
    """I8: all calls run as one user."""
    real = security.find_user

    def find_user(caller, app):
        return real(caller._replace(user_id='boss'), app)

    security.find_user = find_user


def wait_for_the_worker():
    """I9: a put waits until somebody looks at it."""
    real = loads.note_put

    def note_put(manager):
        time.sleep(0.1)
        real(manager)

    loads.note_put = note_put


def compare_clocks():
    """I10: a sibling whose sign of life is old by our clock is dead."""
    real = siblings.Siblings.look

    def look(self, manager):
        dead, alive = real(self, manager)
        late = [each for each in alive if each.queue.pulse.beat
                and time.time() - each.queue.pulse._p_mtime > 25]
        return dead + late, [each for each in alive if each not in late]

    siblings.Siblings.look = look


def resolve_conflicts():
    """I11: the server is to resolve conflicts of our classes."""
    Pulse._p_resolveConflict = lambda self, old, committed, new: new


def write_when_idle():
    """I12: an idle worker writes more than its sign of life."""
    real = beat.Beat.write_pulse

    def write_pulse(self, queue, *args):
        real(self, queue, *args)
        queue.desk._p_changed = True

    beat.Beat.write_pulse = write_pulse


def mix_results():
    """R: a call gets the result of the one before."""
    real, last = Work.outcome_of, []

    def outcome_of(self, result):
        last.append(result)
        return real(self, last[-2] if len(last) > 1 else result)

    Work.outcome_of = outcome_of


PATCHES = {
    'I1': commit_each_put, 'I2': lose_some, 'I3': commit_effects_first, 'I4': run_all_again,
    'I5': touch_what_runs, 'I6': share_a_lane, 'I7': write_the_pulse_at_puts, 'I8': run_as_boss,
    'I9': wait_for_the_worker, 'I10': compare_clocks, 'I11': resolve_conflicts,
    'I12': write_when_idle, 'R': mix_results}
