"""Holding: who holds the desk of the target, whether that one lives, taking it and leaving it.

Imports: database, zope, errors, zasync.
"""

import logging
import os
import socket
from typing import NamedTuple

from .database import unit_of_work
from .errors import GaveUp
from .errors import TargetAway
from .errors import TargetTaken
from .zope import patiently


log = logging.getLogger('zasync')

#: A start watches the pulse of another holder of the desk for this long, in seconds:
#: two and a half beats, so that a slow commit does not make it look dead.
WATCH_SECONDS = 25.0


class Holder(NamedTuple):
    """Who holds a desk. boot -- None for nobody. pulse -- something that changes at each beat.

    guest -- it is the worker of a sibling, which leaves when asked.
    """

    boot: str | None
    host: str
    place: str
    pid: int
    pulse: tuple
    guest: bool = False


def look(database):
    """Who holds the desk of the target, as a Holder. Raises TargetAway, BadTarget."""
    with unit_of_work('zasync looks at the target') as work:
        queue = database.manager().queue
        card = queue.card
        found = Holder(queue.desk.boot, card.host, card.place, card.pid,
                       (queue.pulse.beat, queue.desk.boot), queue.desk.guest)
        work.abandon()
    return found


def check_free(database, config, clock, stopping):
    """→ the Holder of the desk, who is dead or nobody; raises TargetTaken if it lives.

    Raises BadTarget, and GaveUp when `stopping` is set meanwhile or the target stays away.
    """
    where = f"the target {'/'.join(config.target)}"

    def patient_look():
        return patiently(lambda: look(database), where, config, clock, stopping)

    holder = patient_look()
    if (holder.boot is not None and not holder.guest
            and _lives(holder, where, patient_look, clock, stopping)):
        raise TargetTaken(f'{where} is served by another worker already: process '
                          f'{holder.pid} on {holder.host}')
    return holder


def _lives(holder, where, patient_look, clock, stopping):
    """Whether the worker that holds the desk is alive.

    A process of this machine that is gone is dead. Anyone else is watched: it
    lives if its pulse changes within WATCH_SECONDS. A wrong "dead" costs the other
    its target, never a call: see the fence.
    """
    if has_died(holder):
        return False
    log.info('%s is held by process %s on %s: watching whether it lives', where, holder.pid,
             holder.host)
    until = clock.monotonic() + WATCH_SECONDS
    while clock.monotonic() < until:
        if clock.wait(stopping, 0.5):
            raise GaveUp(f'stopped while watching who holds {where}')
        found = patient_look()
        if found.boot is None:  # it signed off
            return False
        if found.pulse != holder.pulse:
            return True
    return False


def sign_on(queue, boot, expected, config, version, now):
    """Become the holder of the desk, in the current transaction, and say who we are.

    expected -- the boot that may hold it, of a life known to be over, or None.
    Raises TargetTaken when another one does.
    """
    if queue.desk.boot not in (None, expected, boot):
        raise TargetTaken(f"the target {'/'.join(config.target)} has been taken by another "
                          f'worker just now: process {queue.card.pid} on {queue.card.host}')
    queue.desk.take(boot)
    queue.card.write(
        boot, socket.gethostname(), os.getpid(), version,
        {name: plugin.description for name, plugin in config.plugins.items()}, now, place())


def cut_off(manager_of, services, now, held, outcome):
    """Put back what these claims run, in the current transaction: their threads are about to go.

    services -- of the desks they were claimed at; manager_of -- callable(Service) → its manager.
    outcome -- of their attempts.
    """
    for service in services:
        try:
            manager = manager_of(service)
        except TargetAway:  # deleted, or for the moment: its calls are with it
            continue
        service.beat.cut_off(manager, now, {claim for claim in held
                                            if claim.target == service.target}, outcome)


def sign_off(queue, boot):
    """Leave the desk if that boot holds it, in the current transaction."""
    if queue.desk.boot == boot:
        queue.desk.take(None)


def has_died(holder):
    """Whether the holder is known to be dead: its process was on this machine and is gone."""
    return holder.place == place() and not process_exists(holder.pid)


def process_exists(pid):
    """Whether another process of that id runs here; ours is not the one that held the desk."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def place():
    """Where a process id means something: this boot of this machine, this pid namespace."""
    try:
        with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: the host's name has to do
        return socket.gethostname()
