"""Every error of zasync: one root, one sentence a class.

What may be tried again inherits from transaction's TransientError as well, so
that Zope's publisher and the worker's retry loop treat it alike.

Imports: nothing of ours.
"""

from typing import TYPE_CHECKING


if TYPE_CHECKING:  # transaction has no types, and a base without any would hide mistakes
    TransientError = Exception
else:
    from transaction.interfaces import TransientError


def told(value: object, most: int = 200) -> str:
    """`value` in a sentence, in so many characters at most, whatever it is."""
    try:
        return f'{value!r:.{most}}'
    except Exception:  # it is foreign code that says how a value is written
        if isinstance(value, int):
            return 'a number of thousands of digits'
        return f'something of the type {type(value).__name__}'


class ZAsyncError(Exception):
    """Root of all errors raised by zasync."""


class UnknownPlugin(ZAsyncError, ValueError):
    """No plugin of that name is offered by the worker of this manager."""


class BadCall(ZAsyncError, ValueError):
    """The call as put can never run: wrong shape, syntax error, or what can't be pickled."""


class NotYours(ZAsyncError):
    """The deferred belongs to another user or to another browser session."""


class CallerGone(ZAsyncError):
    """The user who put the call, or the user folder, does not exist any more."""


class BadResult(ZAsyncError):
    """The result of the call can't be stored, so its effects were rolled back."""


class ForeignValue(ZAsyncError, LookupError):
    """A stored value is of a class that values may not be of: nothing of it was made."""


class Interrupted(ZAsyncError):
    """The worker died or stopped while it ran the call, and the call may not run twice."""


class TimedOut(ZAsyncError):
    """The call ran longer than its time-out."""


class Expired(ZAsyncError):
    """No worker took the call before it expired."""


class Cancelled(ZAsyncError):
    """The call was cancelled."""


class NoWorker(ZAsyncError):
    """No worker lives that could take the call, and the dispatcher is set to refuse."""


class NotOurs(ZAsyncError, TransientError):
    """This run of the call has lost it to another one: nothing it did may be committed."""


class CommitRefused(ZAsyncError):
    """A call tried to commit a transaction that is not its own, a request's or a group's; or it
    doomed that of a request, or failed in one, and what it did can't be undone alone; or it
    changed a database through two connections, or had closed its own; or what it had left to a
    hook before its commit ended the transaction.
    """


class NoManager(ZAsyncError):
    """There is neither a dispatcher nor a manager where the call is to be put."""


class StillRuns(ZAsyncError, TransientError):
    """A call that was waited for runs once more: whoever waited for it waits again."""


class MemberFailed(ZAsyncError):
    """A member of an aggregate failed, and the first failure was to be enough."""


class SealingError(ZAsyncError):
    """A password can't be sealed, or a sealed one not be opened; the text says why."""


class NoSecretKey(SealingError):
    """The configuration names no file of secret keys."""


class BadKeyFile(SealingError):
    """The file of secret keys can't be used."""


class WrongSecretKey(SealingError):
    """The password was sealed with a key that is not in the file."""


class IllegalTransition(ZAsyncError):
    """An event happened to a call in a state where it can't."""
