"""MailMessage: one message, without its body until somebody views it.

A message is one small persistent object (about 600 bytes); its body, once fetched, is an
object of its own, so that a change of flags does not write it again.

GET of a message's page never writes. The body is fetched by a POST of the page's button:
a ZODB write in answer to a GET could be caused by any foreign page the reader visits (and
is refused by plone.protect). After that every GET shows the stored body.

Imports: Zope, bodytext, headers, presentation, permissions, zasync.
"""

from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from OFS.SimpleItem import SimpleItem
from persistent import Persistent
from zope.interface import implementer
from ZPublisher import zpublish

from Products.zasync.forgery import action
from Products.zasync.forgery import Page

from . import errors
from . import presentation
from .bodytext import readable_text
from .headers import identity
from .interfaces import IMailMessage
from .permissions import ViewMailbox


class MessageBody(Persistent):
    """The bytes of a message. Written once; several messages may share it after a copy."""

    __zpublishable__ = False

    def __init__(self, raw, is_whole):
        self.raw = raw
        self.is_whole = is_whole


@implementer(IMailMessage)
@zpublish
class MailMessage(SimpleItem):
    """A message of a mailbox, as published object."""

    meta_type = 'Mail Message'
    zmi_icon = 'far fa-envelope'
    security = ClassSecurityInfo()
    security.declareObjectProtected(ViewMailbox)
    for _name in ('uid', 'size', 'internal_at', 'subject', 'sender', 'to', 'cc', 'date',
                  'date_at', 'message_id'):
        security.declareProtected(ViewMailbox, _name)
    del _name

    manage_options = ({'label': 'Message', 'action': 'manage_main'},)

    uid = size = 0
    internal_at = date_at = None
    subject = sender = to = cc = date = message_id = ''
    _flags = ()
    _body = None
    _page = Page('www/message', globals(), __name__='manage_main')

    def __init__(self, remote):
        self.uid = remote.uid
        self.id = message_id_of(remote.uid)
        self._flags = tuple(sorted(remote.flags))
        self.size = remote.size
        self.internal_at = remote.internal_at
        envelope = remote.envelope
        self.subject = envelope.subject
        self.sender = envelope.sender
        self.to = envelope.to
        self.cc = envelope.cc
        self.date = envelope.date
        self.date_at = envelope.date_at
        self.message_id = envelope.message_id

    @zpublish(False)
    @security.protected(ViewMailbox)
    def getId(self):
        return self.id

    @zpublish(False)
    @security.protected(ViewMailbox)
    def shown_subject(self):
        """The subject, or words that say there is none.

        Not named `title`: Zope's pages put an object's title into their head as it is.
        """
        return self.subject or '(no subject)'

    @zpublish(False)
    @security.protected(ViewMailbox)
    def flags(self):
        """See IMailMessage."""
        return frozenset(self._flags)

    @zpublish(False)
    @security.protected(ViewMailbox)
    def is_seen(self):
        """See IMailMessage."""
        return any(flag.lower() == '\\seen' for flag in self._flags)

    @zpublish(False)
    @security.protected(ViewMailbox)
    def has_body(self):
        """See IMailMessage."""
        return self._body is not None

    @zpublish(False)
    @security.protected(ViewMailbox)
    def body(self):
        """See IMailMessage."""
        return None if self._body is None else self._body.raw

    @zpublish(False)
    @security.private
    def identity(self):
        """What recognises this message elsewhere, see headers.identity; None: nothing."""
        return identity(self, self.size, self.internal_at)

    @zpublish(False)
    @security.private
    def set_flags(self, flags):
        """Take over the server's flags."""
        self._flags = tuple(sorted(flags))

    @zpublish(False)
    @security.private
    def keep_body(self, body):
        """Store a MessageBody (fetched, or found at the message this one is a copy of)."""
        self._body = body

    @zpublish(False)
    @security.private
    def stored_body(self):
        """The MessageBody, or None."""
        return self._body

    @zpublish(False)
    @security.private
    def shares(self, body):
        """Whether this message has that very MessageBody."""
        return self._body is body

    # Pages

    @zpublish
    @security.protected(ViewMailbox)
    def manage_main(self, REQUEST=None):
        """The message's page. Writes nothing."""
        return self._shown()

    def _shown(self, problem=''):
        text, attachments = readable_text(self._body.raw) if self._body else ('', [])
        return self._page(
            frame=self.mail_box().page_frame(self, 'Message'),
            problem=problem,
            has_body=self.has_body(),
            is_whole=self._body is None or self._body.is_whole,
            text=text,
            attachments=attachments,
            fields=self._shown_fields(),
            flags=presentation.flag_names(self._flags),
            box_url=self.mail_box().absolute_url(),
            folder_title=self.mail_folder().shown_path(),
            folder_name=self.mail_folder().server_name,
        )

    @zpublish
    @security.protected(ViewMailbox)
    def index_html(self, REQUEST=None):
        """The message's page."""
        return self.manage_main(REQUEST)

    def _shown_fields(self):
        fields = (('Subject', self.shown_subject()), ('From', self.sender),
                  ('To', self.to), ('Cc', self.cc),
                  ('Date', presentation.moment(self.date_at) or self.date),
                  ('Received', presentation.moment(self.internal_at)),
                  ('Size', presentation.size(self.size)), ('Message-ID', self.message_id))
        return [(label, text) for label, text in fields if text]

    @action
    @security.protected(ViewMailbox)
    def manage_fetchBody(self, REQUEST=None):
        """Fetch the body from the mail server and keep it (button of the page)."""
        try:
            self.mail_box().fetch_body(self.mail_folder(), self)
        except errors.MailError as error:
            return self._shown(str(error))
        if REQUEST is not None:
            REQUEST.RESPONSE.redirect(self.absolute_url() + '/manage_main')
        return None


def message_id_of(uid):
    """The Zope id of the message with this UID; the dot keeps clear of folder ids."""
    return '.%d' % uid


InitializeClass(MailMessage)
