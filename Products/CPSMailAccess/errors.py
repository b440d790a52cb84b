"""What can go wrong with a mailbox: one root, one sentence a class.

The text of each error is a sentence for the person who looks at the mailbox. It never holds
a password: `ImapSession` writes its own sentences, and quotes nothing that has the password in it.

None of these is retried by the worker: the run ends as 'failed' with the sentence as its
reason, and the next press of the button (or the next scheduled run) goes on where it stopped.

Imports: nothing.
"""


class MailError(Exception):
    """Something about a mailbox failed; the text says what."""


class ServerNotFound(MailError):
    """The host name of the mail server is unknown, or nobody could be asked for it."""


class ConnectionRefused(MailError):
    """Nobody listens at the mail server's address, no way leads there, or it turns us away."""


class TimedOut(MailError):
    """The mail server did not answer within the time allowed."""


class ConnectionLost(MailError):
    """The connection ended in the middle of the conversation."""


class TlsFailed(MailError):
    """No trusted encrypted connection could be made."""


class LoginRefused(MailError):
    """The mail server does not accept this login and password."""


class CommandRefused(MailError):
    """The mail server answered NO or BAD to a command."""


class FolderUnreadable(CommandRefused):
    """One folder can't be opened, or looked into; the others may be."""


class FolderGone(FolderUnreadable):
    """The server has no such folder, whatever it lists."""


class ProtocolGarbage(MailError):
    """The mail server sent something that is not IMAP."""


class MessageGone(MailError):
    """The message is not on the server any more."""


class BadSettings(MailError):
    """The mailbox has no usable server settings."""


class PasswordNotSealed(MailError):
    """The password can't be stored, for want of a secret key to seal it with."""


class PasswordUnreadable(MailError):
    """The stored password was sealed with a key that is not here."""


class Superseded(Exception):
    """The lease of this run was given to another one: stop, and write nothing.

    Not a MailError: nothing is wrong with the mailbox, and nobody needs to be told.
    """
