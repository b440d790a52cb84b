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


class WrongUse(WorkerError):
    """The command line makes no sense."""


class BadTarget(WorkerError):
    """The target is not an asynchronous call manager."""


class TargetAway(WorkerError):
    """There is nothing at the path of the target, which may be a matter of time."""


class ServerRefuses(TargetAway):
    """The database server is there, and does not let this worker in."""


class FileTaken(WorkerError):
    """Another process has the file of a database open."""


class GaveUp(WorkerError):
    """Server or target stayed out of reach for longer than max-total-retry."""


class TargetTaken(WorkerError):
    """Another living worker serves the target."""

    exit_code = 1


class DeskLost(WorkerError):
    """Another worker took the target over while this one ran.

    to_guest -- it is a sibling's worker, which took this one for dead and gives it back.
    """

    exit_code = 1

    def __init__(self, text, to_guest=False):
        super().__init__(text)
        self.to_guest = to_guest


class PoolBroken(WorkerError):
    """The worker has no threads to run calls in."""

    exit_code = 1


class AlreadyRunning(WorkerError):
    """A worker with this configuration runs already."""

    exit_code = 1


class NotSo(WorkerError):
    """The thing asked about is not so: not running, not found, not to be reached."""

    exit_code = 1


def said_by(error):
    """What an exception says, in one line; '' for nothing."""
    if isinstance(error, OSError) and error.strerror:  # its first argument is a number
        return error.strerror if error.filename is None else f'{error.filename}: {error.strerror}'
    return ' '.join(str(error.args[0] if error.args else '').split())
