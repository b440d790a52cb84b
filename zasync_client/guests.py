"""Guests: the siblings' managers that a worker serves besides its own.

A manager whose worker is dead is *adopted*: the worker takes its desk, gives out again what
was running there and serves it in place. No call moves, so ids and what callers were told
stay true. The manager's own worker takes its desk back by the same write when it returns,
and what the guest still runs it ends.

A manager whose worker is busy is *visited*: an idle worker takes a few of its calls, by the
write that its own worker's claims are too; of two that claim at once one is refused.

Imports: beat, service, siblings, database, errors, zasync.
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
from .errors import BadTarget
from .errors import TargetAway
from .service import Service
from .siblings import identity
from .siblings import pulse_serial
from .siblings import siblings_of


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

    def manager_of(self, service):
        """The manager of a service, in this thread's snapshot; raises TargetAway."""
        try:
            found = self._database.manager(service.place)
        except BadTarget as reason:
            raise TargetAway(str(reason)) from None
        if identity(found) != service.identity:
            raise TargetAway(f"another manager is at {'/'.join(service.place)}")
        return found

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
        try:
            if any(service.is_away for service in self._services.values()):
                self._look_for_those_away()
            if not self._draining and self._clock.monotonic() - self._looked_at >= interval:
                self._looked_at = self._clock.monotonic()
                if self._database.is_connected():  # else all would seem to be as it was
                    self._look_around(held)
        except (TransientError, TargetAway, POSError, OSError) as reason:
            log.info('the siblings are looked at later: %s', type(reason).__name__)
        return [service for service in self._services.values() if not service.is_away]

    def lost(self, service, reason):
        """The desk is its manager's own worker's again, or the manager is not at its place."""
        if isinstance(reason, TargetAway):
            service.is_away = True
            return
        log.info('%s is served by its own worker again (%s)', '/'.join(service.place),
                 type(reason).__name__)
        # What runs still is ended by us, as a visitor's would be.
        service.beat.role = VISITOR

    def leave(self):
        """Leave the desks of siblings, in the current transaction."""
        for service in self._services.values():
            if service.beat.role == GUEST:
                try:
                    desk = self.manager_of(service).queue.desk
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
            now, leaves = self._clock.now(), manager.leaving
            strangers = [(self._service_at(each), pulse_serial(each)) for each in dead
                         if not leaves and self._is_stranded(each, now)]
            busy = []
            if len(held) < self._threads and not leaves:
                busy = [self._service_at(each) for each in alive
                        if each.queue.pulse.new and not each.paused]
            needed = {service.identity for service in busy}
            needed.update(service.identity for service, _serial in strangers)
            there = {identity(each): each for each in (*dead, *alive)}
            done = [service for service in self._services.values()
                    if service.identity not in needed
                    and self._is_done(service, there.get(service.identity), held, now)]
            work.abandon()
        for service, serial in strangers:
            self._adopt(service, serial, held)
        for service in done:
            self._end(service)
        for service in self._services.values():
            # The removal of our manager waits for the end of what we run as a visitor.
            service.beat.draining = leaves and service.beat.role == VISITOR
        for service in busy:
            self._services.setdefault(service.target, service)

    def _service_at(self, manager):
        """The service at that manager, or a new one, a visitor's."""
        known = identity(manager)
        for service in self._services.values():
            if service.identity == known:
                return service
        return Service(self._make_beat(manager.getPhysicalPath(), VISITOR), known)

    def _look_for_those_away(self):
        """A manager that was renamed is a sibling still; its calls go on where it is now."""
        with unit_of_work('zasync looks for siblings') as work:
            places = {identity(each): each.getPhysicalPath()
                      for each in siblings_of(self._database.manager())}
            work.abandon()
        for service in self._services.values():
            if not service.is_away:
                continue
            if service.identity in places:
                service.place, service.is_away = places[service.identity], False
                log.info('%s is at %s now', '/'.join(service.target), '/'.join(service.place))
            else:
                # Deleted, or moved away: its worker there finds that nobody it knows of runs them.
                service.beat.role = VISITOR
                service.filed(len(service.ends()))
                service.beat.forget_overdue()

    def _is_stranded(self, manager, now):
        """Whether there is something to do for a manager whose worker is dead."""
        service = self._service_at(manager)
        if manager.paused or service.beat.role == GUEST:
            return False
        # What was of that name is served until its calls have ended.
        is_free = self._services.get(service.target, service) is service
        return is_free and _has_calls(manager, now)

    def _is_done(self, service, manager, held, now):
        """Whether a sibling needs us no more, and we have ended all that we ran for it.

        manager -- None if it is no sibling any more.
        """
        if service.ends() or any(claim.target == service.target for claim in held):
            return False
        if manager is None:
            return True
        if service.beat.role == VISITOR:
            return service.beat.may_leave(manager.queue)
        return not _has_calls(manager, now)

    def _adopt(self, service, serial, held):
        """Take the desk of a manager whose pulse is still what it was.

        What we run of it already, as a visitor, goes on.
        """
        beat = self._make_beat(service.target, GUEST)
        try:
            with unit_of_work('zasync serves a sibling') as work:
                manager = self.manager_of(service)
                queue = manager.queue
                if pulse_serial(manager) != serial:
                    work.abandon()  # its worker lives, or another was quicker
                    return
                queue.desk.take(self._boot, guest=True)
                ours = {claim for claim in held if claim.target == service.target}
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
                    '/'.join(service.place))
        service.beat = beat
        self._services[service.target] = service

    def _end(self, service):
        """Serve that sibling no more; leave its desk if we hold it."""
        if service.beat.role == GUEST:
            try:
                with unit_of_work('zasync leaves a sibling'):
                    manager = self.manager_of(service)
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
            log.info('nothing is left to be done for %s', '/'.join(service.place))
        del self._services[service.target]


def _has_calls(manager, now):
    """Whether a manager has calls to be run, or ended ones to be filed, or makes some itself."""
    queue = manager.queue
    return bool(queue.desk.running or queue.desk.reserved or queue.length_new()
                or queue.cancelled or periodic.due(manager, now)
                or periodic.next_due(manager, now) is not None)
