"""CPSMailAccess: mailboxes in the ZODB that follow those of an IMAP server.

Only the synchronisation of the historic webmail lives here; it shows what zasync is for.
Light on purpose: ZConfig's ``%import`` loads this package before Zope is configured.

Imports: mailtool, mailbox, when Zope initialises the product.
"""

import logging
from importlib.util import find_spec


def initialize(context):
    """Register the tool and the mailbox with Zope; without the extra ``mail`` there are none."""
    if find_spec('imapclient') is None:
        logging.getLogger('CPSMailAccess').info(
            'no mail boxes here: IMAPClient is missing (pip install "zasync[mail]")')
        return
    from . import mailtool
    from . import permissions
    from .mailbox import MailBox
    context.registerClass(
        mailtool.MailTool,
        permission=permissions.AddMailTools,
        constructors=(mailtool.addMailToolForm, mailtool.addMailTool))
    context.registerClass(
        MailBox,
        permission=permissions.AddMailBoxes,
        constructors=(mailtool.addMailBoxForm, mailtool.addMailBox),
        container_filter=mailtool.is_mail_tool)
