"""Away: what means that the server of a database is not there, whatever the storage.

A ZEO client raises ClientDisconnected. RelStorage lets through what the driver of its database
raises; of that PEP 249 fixes the names, and no driver has to be imported to know them.

Imports: zasync.
"""

from contextlib import contextmanager

from ZEO.Exceptions import ClientDisconnected

from Products.zasync.failure import bases_of
from Products.zasync.failure import name_of


#: What RelStorage and the drivers beneath it raise when they have lost a connection, or get none.
LOST = {'InterfaceError', 'OperationalError', 'ReplicaClosedException',
        'StorageDisconnectedDuringCommit'}
#: What a driver raises when its server can't do now what it could: no space, no writes, and no
#: transactions that may write where it is a standby and not promoted yet.
UNABLE = {'InternalError', 'NotSupportedError', 'OperationalError'}

#: Codes of PostgreSQL: the server shuts down, has crashed, or does not take connections yet; and
#: the class of those about connections. An error with another code was answered by a server.
SHUTDOWN = {'57P01', '57P02', '57P03'}
CONNECTION = '08'


class ServerAway(ClientDisconnected):
    """The server of another storage than ZEO's is away; the text is what its driver says."""


def is_away(error):
    """Whether an exception says that the server of a database is away."""
    if _is_disconnected(error):
        return True
    if LOST.isdisjoint(_names(error)) or not _is_of_relstorage(error):
        return False
    code = getattr(error, 'pgcode', None)
    if not code or not isinstance(code, str):  # what a call raises may call anything so
        code = CONNECTION
    return code in SHUTDOWN or code.startswith(CONNECTION)


def is_unable(error):
    """Whether a server under RelStorage was there, and could not do what it usually can."""
    return not UNABLE.isdisjoint(_names(error)) and _is_of_relstorage(error) and not is_away(error)


@contextmanager
def told_away():
    """Have it raised as a ClientDisconnected when a server goes away in the body."""
    try:
        yield
    except Exception as error:
        check_away(error)
        raise


def check_away(error):
    """Raise ServerAway if that exception says so in another way than ZEO's."""
    if is_away(error) and not _is_disconnected(error):
        raise ServerAway(' '.join(str(error).split()) or name_of(type(error))) from error


def _is_disconnected(error):
    # Nothing is asked of the exception: it may be a call's own, whose attributes raise others.
    return issubclass(type(error), ClientDisconnected)


def _names(error):
    return {name_of(each) for each in bases_of(type(error))}


def _is_of_relstorage(error):
    """Whether it came through RelStorage: a call may have connections of its own."""
    step = error.__traceback__
    while step is not None:
        if str(step.tb_frame.f_globals.get('__name__')).startswith('relstorage.'):
            return True
        step = step.tb_next
    return False
