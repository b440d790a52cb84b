"""zasync_client: the worker that runs the calls queued in Zope.

``zasync_client -C etc/zasync.conf`` starts it; ``zasync_client.run(path)`` does the
same from Python (it was ``zasync.run`` once, historic contract A.2).

Imports: cli, when run.
"""

import os


__version__ = '2.0.0'


def run(config_path: str | os.PathLike[str], version: object = None) -> int:
    """Run a worker in the foreground until it is told to stop; → exit code.

    config_path -- path of a zasync.conf. version -- ignored; the control script of
    2006 passed the version of Zope.
    """
    from .cli import main
    code: int = main(['-C', str(config_path), 'run'])
    return code
