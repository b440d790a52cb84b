"""Guests: the siblings' managers that a worker serves besides its own.

A manager whose worker is dead is *adopted*: the worker takes its desk, gives out again what
was running there and serves it in place. No call moves, so ids and what callers were told
stay true. The manager's own worker takes its desk back by the same write when it returns,
and what the guest still runs it ends.

A manager whose worker is busy is *visited*: an idle worker takes a few of its calls, by the
write that its own worker's claims are too; of two that claim at once one is refused.

Imports: beat, service, siblings, database, zasync.
"""

import logging

from transaction.interfaces import TransientError
from ZODB.POSException import POSError

from Products.zasync import periodic
from Products.zasync import policy

from .beat import Done
from .beat import GUEST
from .beat import VISITOR
from .database import unit_of_work
from .errors import TargetAway
from .service import Service
from .siblings import pulse_serial


log = logging.getLogger('zasync')

#: The siblings are looked at so often, in seconds, by a worker with something to do.
LOOK_SECONDS = 1.0
#: And by one that has nothing, when a commit wakes it.
IDLE_LOOK_SECONDS = 0.2


class Guests:
    """The services of one worker life at the desks of siblings.

    make_beat -- callable(target, role) → Beat. threads -- how many calls the worker runs at
    the same time.
    """

    def __init__(self, database, clock, boot, threads, siblings, make_beat):
        self._database = database
        self._clock = clock
        self._boot = boot
        self._threads = threads
        self._make_beat = make_beat
        self._siblings = siblings
        self._services = {}
        self._looked_at = float('-inf')
        self._has_siblings = False
        self._draining = False

    def services(self):
        """All services at siblings."""
        return list(self._services.values())

    def get(self, target):
        """The service of that target; it is there while a claim of it is."""
        return self._services[target]

    def drain(self):
        """Claim nothing more."""
        self._draining = True
        for service in self._services.values():
            service.beat.draining = True

    def seconds_to_sleep(self):
        """When the siblings are to be looked at again, in seconds from now."""
        if not self._has_siblings or self._draining:
            return float('inf')
        return self._looked_at + LOOK_SECONDS - self._clock.monotonic()

    def to_serve(self, held):
        """The services that are to beat now; held -- the Claims that the worker runs."""
        interval = LOOK_SECONDS if held else IDLE_LOOK_SECONDS
        if not self._draining and self._clock.monotonic() - self._looked_at >= interval:
            self._looked_at = self._clock.monotonic()
            try:
                self._look_around(held)
            except (TransientError, TargetAway, POSError, OSError) as reason:
                log.info('the siblings are looked at later: %s', type(reason).__name__)
        return self.services()

    def lost(self, service, reason):
        """The desk is its manager's own worker's again, or the manager is gone."""
        log.info('%s is served by its own worker again (%s)', '/'.join(service.target),
                 type(reason).__name__)
        # What runs still is ended by us, as a visitor's would be.
        service.beat.role = VISITOR
        if isinstance(reason, TargetAway):
            service.filed(len(service.ends()))

    def leave(self):
        """Leave the desks of siblings, in the current transaction."""
        for service in self._services.values():
            if service.beat.role == GUEST:
                try:
                    desk = self._database.manager(service.target).queue.desk
                except TargetAway:  # it was deleted, and its desk with it
                    continue
                if desk.boot == self._boot:
                    desk.take(None)

    def _look_around(self, held):
        """Find out whom to serve, and serve nobody for longer than needed."""
        with unit_of_work('zasync looks at the siblings') as work:
            manager = self._database.manager()
            dead, alive = self._siblings.look(manager)
            self._has_siblings = bool(dead or alive)
            now = self._clock.now()
            strangers = {each.getPhysicalPath(): pulse_serial(each) for each in dead
                         if self._is_stranded(each, now)}
            busy = set()
            if len(held) < self._threads:
                busy = {each.getPhysicalPath() for each in alive
                        if each.queue.pulse.new and not each.paused}
            done = {target for target, service in self._services.items()
                    if self._is_done(service, held, now)}
            work.abandon()
        for target, serial in strangers.items():
            self._adopt(target, serial, held)
        for target in done - busy:
            self._end(target)
        for target in busy - set(self._services):
            self._services[target] = Service(self._make_beat(target, VISITOR))

    def _is_stranded(self, manager, now):
        """Whether there is something to do for a manager whose worker is dead."""
        service = self._services.get(manager.getPhysicalPath())
        if manager.paused or (service is not None and service.beat.role == GUEST):
            return False
        return _has_calls(manager, now)

    def _is_done(self, service, held, now):
        """Whether a sibling needs us no more, and we have ended all that we ran for it."""
        if service.ends() or any(claim.target == service.target for claim in held):
            return False
        if service.beat.role == VISITOR:
            return True
        try:
            return not _has_calls(self._database.manager(service.target), now)
        except TargetAway:
            return True

    def _adopt(self, target, serial, held):
        """Take the desk of a manager whose pulse is still what it was.

        What we run of it already, as a visitor, goes on.
        """
        beat = self._make_beat(target, GUEST)
        try:
            with unit_of_work('zasync serves a sibling') as work:
                manager = self._database.manager(target)
                queue = manager.queue
                if pulse_serial(manager) != serial:
                    work.abandon()  # its worker lives, or another was quicker
                    return
                queue.desk.take(self._boot, guest=True)
                service = self._services.get(target)
                ours = {claim for claim in held if claim.target == target}
                if service is not None:
                    ours |= {end.claim for end in service.ends()}
                beat.reconcile(manager, self._clock.now(), ours, policy.WORKER_GONE)
                # crash point 35: the sibling's desk is not adopted; another one adopts it.
                beat.write_pulse(queue, 0, True)
        except TransientError:
            return  # as above, a moment later
        # crash point 36: the desk is adopted; its calls wait for another guest or their own
        # worker.
        beat.note(Done((), False, (), {}, True))
        log.warning('the worker of %s gives no sign of life: its calls are served from here',
                    '/'.join(target))
        if target in self._services:
            self._services[target].beat = beat
        else:
            self._services[target] = Service(beat)

    def _end(self, target):
        """Serve that sibling no more; leave its desk if we hold it."""
        service = self._services[target]
        if service.beat.role == GUEST:
            try:
                with unit_of_work('zasync leaves a sibling'):
                    manager = self._database.manager(target)
                    desk = manager.queue.desk
                    if desk.boot == self._boot and not _has_calls(manager, self._clock.now()):
                        # crash point 37: the guest has not left the desk; what is put there is for
                        # the next one.
                        desk.take(None)
            except TransientError:
                return  # a put came in between, it may be: look again
            except TargetAway:
                pass
            # crash point 38: the desk is left; nothing is lost.
            log.info('nothing is left to be done for %s', '/'.join(target))
        del self._services[target]


def _has_calls(manager, now):
    """Whether a manager has calls to be run, or ended ones to be filed, or makes some itself."""
    queue = manager.queue
    return bool(queue.desk.running or queue.desk.reserved or queue.length_new()
                or periodic.due(manager, now) or periodic.next_due(manager, now) is not None)
