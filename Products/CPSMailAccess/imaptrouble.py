"""What goes wrong on the wire, turned into errors with sentences for people.

Imports: imapclient's errors, errors, headers.
"""

import contextlib
import logging
import socket
import ssl

from imapclient.exceptions import IMAPClientAbortError
from imapclient.exceptions import IMAPClientError
from imapclient.exceptions import ProtocolError

from . import errors
from .headers import clean


logger = logging.getLogger('CPSMailAccess.imap')


class Trouble:
    """Speaks of the server of one account, and never of its password."""

    def __init__(self, account):
        self.account = account

    @property
    def server(self):
        """How sentences call the server."""
        return 'The mail server %s:%d' % (clean(self.account.host), self.account.port)

    def login_error(self, error):
        """IMAPClient says LoginError for whatever happens during a login: look behind it."""
        cause = error.__context__
        if isinstance(cause, IMAPClientAbortError):
            return self.abort_error(cause, 'log in')
        text = str(error).upper()
        if '[UNAVAILABLE]' in text or '[LIMIT]' in text or '[INUSE]' in text:
            # RFC 5530: not the password's fault.
            return errors.CommandRefused(
                '%s can not let %s in for now.' % (self.server, account_name(self.account)))
        return errors.LoginRefused('%s does not accept the login %s with this password.'
                                   % (self.server, account_name(self.account)))

    @contextlib.contextmanager
    def translated(self, action, refused=errors.CommandRefused):
        """Turn whatever happens inside into one of `errors`.

        `from None`: the sentence has it all, and what the libraries say may quote commands.
        """
        try:
            yield
        except errors.MailError:
            raise
        except TimeoutError:
            raise self.timed_out(action) from None
        except ConnectionRefusedError:
            raise errors.ConnectionRefused('%s refuses connections.' % self.server) from None
        except socket.gaierror:
            raise errors.ServerNotFound(
                'There is no host named %s.' % clean(self.account.host)) from None
        except ssl.SSLCertVerificationError as error:
            raise errors.TlsFailed('The certificate of %s is not trusted: %s.' % (
                self.account.host, clean(error.verify_message or ''))) from None
        except ssl.SSLError as error:
            if action != 'connect' and isinstance(error, (ssl.SSLEOFError,
                                                          ssl.SSLZeroReturnError)):
                raise self.lost(action) from None
            raise errors.TlsFailed('%s could not be spoken to with TLS (%s).' % (
                self.server, clean(str(error.reason or 'protocol error')))) from None
        except IMAPClientAbortError as error:
            raise self.abort_error(error, action) from None
        except ProtocolError:
            raise self.garbage(action) from None
        except IMAPClientError as error:
            raise refused('%s refused to %s: %s' % (
                self.server, action, self.scrubbed(error))) from None
        except OSError as error:
            raise errors.ConnectionLost('The connection to %s:%d was lost (to %s): %s.' % (
                self.account.host, self.account.port, action,
                clean(error.strerror or type(error).__name__))) from None
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError):
            # The parsers of imaplib and IMAPClient fall over garbage in all these ways.
            logger.debug('garbage from %s', self.server, exc_info=True)
            raise self.garbage(action) from None

    def abort_error(self, error, action):
        """imaplib's `abort` is a lost connection, or an answer that makes no sense."""
        text = str(error)
        if 'unexpected' in text:
            return self.garbage(action)
        if 'timed out' in text:
            return self.timed_out(action)
        return self.lost(action)

    def lost(self, action):
        return errors.ConnectionLost('%s closed the connection (to %s).'
                                     % (self.server, action))

    def timed_out(self, action):
        account = self.account
        seconds = account.connect_seconds if action == 'connect' else account.read_seconds
        return errors.TimedOut('%s did not answer within %g seconds (to %s).'
                               % (self.server, seconds, action))

    def garbage(self, action):
        return errors.ProtocolGarbage('%s sent an answer that makes no sense (to %s).'
                                      % (self.server, action))

    def scrubbed(self, error):
        text = clean(str(error))
        if self.account.password:
            text = text.replace(self.account.password, '***')
        return text[:200]


def account_name(account):
    """The login, fit for a sentence."""
    return clean(account.login)[:100]
