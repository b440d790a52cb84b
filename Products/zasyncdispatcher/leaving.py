"""Leaving: a manager is taken out of a dispatcher, its calls moved to its siblings first.

It is paused and gets no calls, then its calls go, a part in each step, and with the last one
it is deleted. Whoever stops on the way may go on later, or call it off. One manager of a
dispatcher leaves at a time: the calls that are connected go to one place (see zasync.moving),
which must not leave meanwhile.

Imports: loads, interfaces, zasync.
"""

from itertools import chain
from itertools import islice
from typing import NamedTuple

from Acquisition import aq_base
from zExceptions import BadRequest

from Products.zasync import moving
from Products.zasync.errors import ZAsyncError

from . import loads
from .interfaces import IAsynchronousCallDispatcher


#: Kept results that are counted, since of a million all leaves of their trees would be loaded.
RESULTS_MOST = 10_000


class CanNotLeave(ZAsyncError, ValueError):
    """A manager can't be removed as things are."""


class Census(NamedTuple):
    """What a manager has: numbers of calls by kind, kept results, ids of its periodic calls.

    results -- a number above RESULTS_MOST stands for any larger one. served -- a worker lives and
    runs those that run. lacking -- plugins that its worker offers and no sibling's. visits --
    calls of others that its worker runs.
    """

    waiting: int
    running: int
    failed: int
    results: int
    periodic: tuple
    served: bool
    lacking: tuple
    visits: int


def census(dispatcher, manager):
    """The Census of a manager."""
    queue = manager.queue
    theirs = {name for sibling in siblings(dispatcher, manager)
              for name in sibling.queue.card.plugins}
    return Census(queue.length_new(), queue.length_accepted(), queue.length_failed(),
                  sum(1 for _ in islice(_results(queue), RESULTS_MOST + 1)),
                  tuple(manager.periodic), _is_served(dispatcher, manager),
                  tuple(sorted(set(queue.card.plugins) - theirs)), _visits(dispatcher, manager))


def _results(queue):
    """The keys of all kept results."""
    return chain.from_iterable(found.keys() for slices in (queue.archive, queue.withdrawn)
                               for found in slices.values())


def siblings(dispatcher, manager):
    """The managers that the calls of that one may go to: the others in the same database."""
    return [each for each in dispatcher.managers()
            if each.getId() != manager.getId() and not each.leaving
            and each._p_jar is manager._p_jar]


def check(dispatcher, manager):
    """Raise CanNotLeave unless the calls of that manager can be moved now."""
    for each in dispatcher.managers():
        if each.leaving and each.getId() != manager.getId():
            raise CanNotLeave(f'{each.getId()} is being removed: finish that first, or call it '
                              'off.')
    if not siblings(dispatcher, manager):
        raise CanNotLeave('There is no other manager here that its calls could go to: add one '
                          'first.')


def start(dispatcher, manager):
    """Have it leave: its worker claims no more, the dispatcher gives it nothing.

    Its periodic calls go at once. Raises CanNotLeave.
    """
    check(dispatcher, manager)
    if not manager.leaving:
        dispatcher._p_changed = True  # two that start at the same time meet here
        manager.leaving = True
        manager.pause()
        moving.move_periodic(manager.periodic, _targets(dispatcher, manager))


def go_on(dispatcher, manager, now):
    """Move a part of its calls; with the last it is deleted. → whether it was.

    Raises CanNotLeave, and what the manager raises when it is deleted.
    """
    check(dispatcher, manager)
    queue, targets = manager.queue, _targets(dispatcher, manager)
    if manager.periodic:  # set since it began to leave
        moving.move_periodic(manager.periodic, targets)
    moving.move_some(queue, targets, manager.names(), now, manager.rotation_period,
                     _is_served(dispatcher, manager))
    if moving.left(queue) or _visits(dispatcher, manager):
        return False
    # Whoever sets a periodic call meanwhile meets us here: nothing merges with an empty tree.
    # Whoever calls it off writes the manager.
    manager.periodic._p_changed = manager._p_changed = True
    # crash point 40: the last part has not moved, the manager is not deleted.
    dispatcher._delObject(manager.getId())
    return True


def call_off(dispatcher, manager):
    """Have it stay, with what it has still; it is paused."""
    manager.leaving = False


def refuse_to_go_while_its_worker_visits(manager, event):
    """Before a manager goes out of its dispatcher: BadRequest if its worker runs calls of others.
    """
    dispatcher = event.oldParent
    if (event.object is not manager or not IAsynchronousCallDispatcher.providedBy(dispatcher)
            or aq_base(dispatcher) is aq_base(event.newParent)):  # it gets another id
        return
    visits = _visits(dispatcher, manager)
    if visits:
        path = '/'.join(manager.getPhysicalPath())
        raise BadRequest(f'The worker of {path} {told_visits(visits)}')


def told_visits(number):
    """The rest of a sentence on the worker of a manager that can't go now, and what to do."""
    return (f'runs calls of other managers: {number}. Without it they would be given out again, '
            'or fail if they may not run twice. Let them end first, or have its own calls moved '
            'on the tab Overview of its dispatcher, which waits for them.')


def _is_served(dispatcher, manager):
    """Whether a worker lives that holds its desk, or runs some of its calls as a visitor."""
    alive = {each.queue.desk.boot for each in dispatcher.managers()
             if loads.is_heard_of(each.queue.pulse, dispatcher.max_idle_time)}
    desk = manager.queue.desk
    return bool((alive - {None}) & {desk.boot, *(each.owner for each in desk.running.values())})


def _visits(dispatcher, manager):
    """How many calls of others its worker runs, if it lives.

    When the manager is gone nobody knows any more that it does, and they are given out again.
    """
    desk, pulse = manager.queue.desk, manager.queue.pulse
    if (desk.boot is None or desk.guest
            or not loads.is_heard_of(pulse, dispatcher.max_idle_time)):
        return 0
    return sum(deferred.owner == desk.boot for each in dispatcher.managers()
               if each.getId() != manager.getId()
               for deferred in each.queue.desk.running.values())


def _targets(dispatcher, manager):
    return [moving.Target(each.getId(), each.queue, each.periodic,
                          dispatcher.load_of(each).alive, each.paused)
            for each in siblings(dispatcher, manager)]
