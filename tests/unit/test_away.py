"""What means that a database server is away, and what only looks so."""

import pytest
from transaction.interfaces import TransientError
from ZEO.Exceptions import ClientDisconnected

from zasync_client.away import check_away
from zasync_client.away import is_away
from zasync_client.away import is_unable
from zasync_client.away import ServerAway
from zasync_client.away import told_away


def error(name, code=None, base=Exception):
    """An exception as a driver has it; code -- PostgreSQL's."""
    return type(name, (base,), {'pgcode': code})('no route\n\tto host')


def raised(reason, module='relstorage.adapters.connmanager'):
    """The exception after a function of that module has raised it."""
    names = {'__name__': module, 'reason': reason}
    exec('def go():\n    raise reason', names)
    try:
        names['go']()
    except Exception as caught:
        return caught
    raise AssertionError('nothing was raised')


@pytest.mark.parametrize('reason', [
    ClientDisconnected(), raised(error('OperationalError')), raised(error('InterfaceError')),
    raised(error('AdminShutdown', '57P01', type('OperationalError', (Exception,), {}))),
    raised(error('OperationalError', '08006')), raised(error('ReplicaClosedException')),
    raised(error('StorageDisconnectedDuringCommit', base=TransientError))], ids=repr)
def test_the_server_is_away(reason):
    assert is_away(reason) and not is_unable(reason)
    with pytest.raises(ClientDisconnected), told_away():
        raise reason


@pytest.mark.parametrize('reason', [
    raised(error('OperationalError', '53100')), raised(error('InternalError', '25006')),
    raised(error('NotSupportedError', '0A000'))], ids=repr)
def test_the_server_is_there_and_can_not_do_it_now(reason):
    """Its disk is full, it takes no writes, or it is a standby."""
    assert is_unable(reason) and not is_away(reason)


@pytest.mark.parametrize('reason', [
    ValueError('no route'), OSError('no route'), error('OperationalError'),
    raised(error('OperationalError'), 'shop.orders'), raised(error('ProgrammingError')),
    raised(error('OrderError', 5)), raised(error('OperationalError', 5), 'shop.orders'),
    raised(error('OperationalError'), None), raised(KeyError(1))], ids=repr)
def test_an_error_of_something_else_says_nothing_of_the_server(reason):
    assert not is_away(reason) and not is_unable(reason)
    check_away(reason)
    with pytest.raises(type(reason)) as caught, told_away():
        raise reason
    assert caught.value is reason


def test_what_the_driver_says_is_told_in_one_line():
    reason = raised(error('OperationalError'))
    with pytest.raises(ServerAway, match='^no route to host$') as caught:
        check_away(reason)
    assert caught.value.__cause__ is reason
    assert isinstance(caught.value, TransientError)
