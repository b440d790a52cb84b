"""Knocking at a ZEO server's door before ZEO does, to learn why it does not let us in.

A server that refuses a certificate says so only after the connection is made. ZEO's client then
connects again, a hundred times a second, and tells nobody the reason.

Imports: errors.
"""

import socket
import ssl

from .errors import ServerRefuses


#: A server says the first word, at once. One that is silent for so many seconds waits for ours.
SILENCE_SECONDS = 5.0


def knock(storage, silence_seconds=SILENCE_SECONDS):
    """Raise ServerRefuses when a server of this storage is there but lets nobody like us in.

    storage -- the section of a configuration that opens it; of those that are not ZEO's clients,
    and of servers that can't be reached at all, nothing is said. silence_seconds -- how long
    each server may take for each word.
    """
    section = getattr(storage, 'config', None)
    context, name = getattr(section, 'ssl', None) or (None, None)
    for server in getattr(section, 'server', None) or ():
        if isinstance(server.address, tuple):
            _knock(server.address, context, name, silence_seconds)


def _knock(address, context, name, silence_seconds):
    where = 'the ZEO server at %s:%d' % address
    try:
        plain = socket.create_connection(address, timeout=silence_seconds)
    except OSError:
        return  # it is not there, which ZEO waits for
    try:
        with plain:
            if context is None:
                plain.recv(1)
                return
            with context.wrap_socket(plain, server_hostname=name or address[0]) as wrapped:
                heard = wrapped.recv(1)
    except ssl.SSLCertVerificationError as reason:
        raise ServerRefuses(f'{where} has a certificate that this worker does not trust: '
                            f'{reason.verify_message}') from reason
    except ssl.SSLError as reason:
        raise ServerRefuses(f'{where} and this worker do not agree about TLS: '
                            f'{reason.reason or reason}') from reason
    except TimeoutError:
        raise ServerRefuses(f'{where} says nothing; if it wants TLS, this worker needs an <ssl> '
                            'section') from None
    except OSError:
        return  # it went away meanwhile
    if not heard:
        raise ServerRefuses(f'{where} does not accept the certificate of this worker: it closes '
                            'the connection')
