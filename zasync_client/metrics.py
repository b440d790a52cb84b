"""Metrics: a queue and its worker in numbers, in the text format of Prometheus.

Their names are public, see docs/operations.rst. What is in the database each worker tells of its
own manager alone, or a sum over workers would count it several times.

prometheus_client is only imported when it is asked for: it comes with an extra.

Imports: tally, errors, zasync, prometheus_client.
"""

import logging
import os
import socket
from contextlib import contextmanager
from typing import NamedTuple

from Products.zasync import listing
from Products.zasync.interfaces import ACCEPTED
from Products.zasync.interfaces import FAILED
from Products.zasync.interfaces import NEW

from .errors import ConfigurationError
from .errors import said_by
from .tally import BOUNDS


log = logging.getLogger('zasync')


class Facts(NamedTuple):
    """What the database tells of a queue. jobs -- {state: how many}. oldest_seconds -- since when
    the call waits that has waited longest, of those that may run. is_served -- by the worker."""

    queue: str
    jobs: dict
    oldest_seconds: float
    is_served: bool


def facts_of(manager, now, is_served):
    """The Facts of a manager; now -- POSIX seconds."""
    queue = manager.queue
    put_at = listing.oldest_put(queue, now)
    return Facts('/'.join(manager.getPhysicalPath()), {
        NEW: queue.length_new(), ACCEPTED: queue.length_accepted(),
        FAILED: queue.length_failed()},
        0.0 if put_at is None else max(0.0, now - put_at), is_served)


class Collector:
    """What prometheus_client asks. read -- callable() → Facts, or None if the database can't be
    asked. tally -- the Tally of a worker, or None."""

    def __init__(self, target, read, tally=None):
        self._target = '/'.join(target)
        self._read = read
        self._tally = tally

    def collect(self):
        """The metric families, as they are now."""
        from prometheus_client.core import GaugeMetricFamily
        facts = self._read()
        up = GaugeMetricFamily('zasync_worker_up', 'Whether the worker of the queue serves it.',
                               labels=['queue'])
        up.add_metric([self._target], int(facts is not None and facts.is_served))
        yield up
        if facts is not None:
            jobs = GaugeMetricFamily('zasync_jobs', 'Calls of the queue by state.',
                                     labels=['queue', 'state'])
            for state, number in facts.jobs.items():
                jobs.add_metric([facts.queue, state], number)
            yield jobs
            oldest = GaugeMetricFamily(
                'zasync_oldest_waiting_seconds',
                'Age of the oldest call that may run and waits; 0 if none does.',
                labels=['queue'])
            oldest.add_metric([facts.queue], facts.oldest_seconds)
            yield oldest
        if self._tally is not None:
            yield from _counted(self._tally)


def _counted(tally):
    from prometheus_client.core import CounterMetricFamily
    from prometheus_client.core import HistogramMetricFamily
    attempts = CounterMetricFamily('zasync_job_attempts', 'Runs of calls by outcome.',
                                   labels=['outcome'])
    for outcome, number in tally.attempts():
        attempts.add_metric([outcome], number)
    yield attempts
    durations = HistogramMetricFamily('zasync_job_duration_seconds',
                                      'How long calls ran that have ended, by plugin.',
                                      labels=['kind'])
    names = [*map(repr, BOUNDS), '+Inf']
    for plugin, counts, seconds in tally.durations():
        durations.add_metric([plugin], list(zip(names, counts, strict=True)), seconds)
    yield durations
    yield CounterMetricFamily('zasync_conflicts', 'Conflicts that beats and runs have met.',
                              value=tally.conflicts)
    yield CounterMetricFamily('zasync_zeo_disconnects',
                              'How often the worker had to wait for its database server.',
                              value=tally.disconnects)


def text(collector):
    """The metrics of a Collector, as text."""
    from prometheus_client import CollectorRegistry
    from prometheus_client import generate_latest
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def mistake_in(address):
    """Why metrics can't be served at that (host, port), a sentence, or None; None: nowhere."""
    if address is None:
        return None
    host, port = address
    try:
        family, kind, _, _, name = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(name)
    except (OSError, UnicodeError) as reason:  # the latter of a host like a..b
        return f'metrics-address: {host}:{port} can not be served: {said_by(reason)}'
    return None


@contextmanager
def served(address, collector, is_first=True):
    """While the body runs the metrics are served by HTTP at that (host, port); None: nowhere.

    is_first -- whether a mistake raises ConfigurationError. A later life does without: it must
    not fail because another process has taken the port meanwhile.
    """
    mistake = mistake_in(address)
    if mistake is not None:
        if is_first:
            raise ConfigurationError(mistake)
        log.warning('%s; this life goes on without', mistake)
    if address is None or mistake is not None:
        yield
        return
    from prometheus_client import CollectorRegistry
    from prometheus_client import start_http_server
    registry = CollectorRegistry()
    registry.register(collector)
    host, port = address
    server, _thread = start_http_server(port, host, registry)
    # A process that a call forks may outlive this one, and would keep the port from the next.
    os.register_at_fork(after_in_child=server.socket.close)
    log.info('metrics are at http://%s:%d/metrics', host, port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
