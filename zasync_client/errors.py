"""What stops a worker, each with the sentence for the person who started it.

Imports: nothing of ours.
"""


class WorkerError(Exception):
    """Root of what ends a worker; its text is printed.

    exit_code -- of the command: 2, wrong configuration or use.
    """

    exit_code = 2


class ConfigurationError(WorkerError):
    """The configuration file can't be used."""


class BadTarget(WorkerError):
    """The target is not an asynchronous call manager."""


class TargetAway(WorkerError):
    """There is nothing at the path of the target, which may be a matter of time."""


class ServerRefuses(TargetAway):
    """The database server is there, and does not let this worker in."""


class GaveUp(WorkerError):
    """Server or target stayed out of reach for longer than max-total-retry."""


class TargetTaken(WorkerError):
    """Another living worker serves the target."""

    exit_code = 1


class DeskLost(WorkerError):
    """Another worker took the target over while this one ran."""

    exit_code = 1


class PoolBroken(WorkerError):
    """The worker has no threads to run calls in."""

    exit_code = 1
