"""The password of a mailbox between form, database and server: sealed when it is stored, opened
when it is used.

A mailbox of an earlier version may hold its password as plain text. It goes on working, and is
sealed when it is saved again or when all passwords of the tool are sealed anew.

Imports: parameters, errors; zasync.sealing.
"""

import logging

from Products.zasync import sealing
from Products.zasync.errors import SealingError
from Products.zasync.errors import WrongSecretKey
from Products.zasync.sealed import Sealed

from . import errors
from . import parameters


logger = logging.getLogger('CPSMailAccess')

#: What became of a password that was to be sealed anew.
OUTCOMES = NONE, KEPT, ANEW, UNREADABLE = 'none', 'kept', 'anew', 'unreadable'

#: Mailboxes that are sealed anew in one commit of a worker.
BATCH_SIZE = 100

#: Whether this process has said that there are unsealed passwords.
_told = []


def check(raw, names):
    """`parameters.check`, with the password sealed: it can't be stored without a secret key."""
    values, problems = parameters.check(raw, names)
    try:
        return sealed(values), problems
    except errors.PasswordNotSealed as reason:
        values.pop('password')
        return values, {'password': str(reason), **problems}


def sealed(values):
    """{name: value} as it may be stored. Raises PasswordNotSealed."""
    password = values.get('password')
    if not password or isinstance(password, Sealed):
        return values
    try:
        return {**values, 'password': sealing.seal(password)}
    except SealingError as reason:
        raise errors.PasswordNotSealed('A password can not be stored: %s.' % reason) from None


def opened(stored, where):
    """The password in a stored value, as text. Raises PasswordUnreadable.

    where -- path of the mailbox, for the log.
    """
    if isinstance(stored, Sealed):
        try:
            return sealing.opened(stored)
        except SealingError as reason:
            raise errors.PasswordUnreadable(
                'The stored password can not be read: %s. Type the password again, or restore '
                'the key.' % reason) from None
    if stored and not _told:
        _told.append(True)
        logger.warning('the password of %s is stored as plain text, and maybe those of other '
                       'mailboxes: "Seal passwords anew", on the page of the mail tool, seals '
                       'them', where)
    return stored


def problem(stored):
    """What is wrong with a stored value, as a sentence for people; ''."""
    try:
        if isinstance(stored, Sealed):
            opened(stored, '')
    except errors.PasswordUnreadable as reason:
        return str(reason)
    return ''


def anew(stored):
    """(what to store now, what became of it: NONE, KEPT, ANEW or UNREADABLE).

    Raises PasswordNotSealed if there is no key to seal with.
    """
    try:
        if not stored:
            return stored, NONE
        if isinstance(stored, Sealed):
            if sealing.is_newest(stored):
                return stored, KEPT
            return sealing.seal(sealing.opened(stored)), ANEW
        return sealing.seal(stored), ANEW
    except WrongSecretKey:
        return stored, UNREADABLE
    except SealingError as reason:
        raise errors.PasswordNotSealed('Nothing can be sealed: %s.' % reason) from None


def seal_all(boxes, checkpoint):
    """See IMailTool.seal_passwords. checkpoint -- called after each batch."""
    found = {outcome: [] for outcome in OUTCOMES}
    for number, box in enumerate(boxes, 1):
        found[box.seal_password()].append(box.getId())
        if number % BATCH_SIZE == 0:
            checkpoint()
    return found


def sealing_summary(found):
    """What `seal_all` returned, as a sentence."""
    text = '%d sealed anew; %d were sealed with the newest key already; %d mailboxes have none.' \
        % (len(found[ANEW]), len(found[KEPT]), len(found[NONE]))
    if found[UNREADABLE]:
        text += ' %d can not be read, for want of their key: %s.' % (
            len(found[UNREADABLE]), ', '.join(found[UNREADABLE][:20]))
    return text
