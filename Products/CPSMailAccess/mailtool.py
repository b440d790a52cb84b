"""MailTool: portal_webmail, which holds one mailbox a user and the parameters they share.

The mailboxes are in a BTree: a portal of thousands of users adds one without writing a list
of all others.

Imports: Zope, BTrees, mailbox, background, credentials, parameters, zmi, zasync.
"""

import html

from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from Acquisition import aq_base
from Acquisition import aq_chain
from Acquisition import aq_inner
from BTrees.OOBTree import OOBTree
from OFS.event import ObjectWillBeAddedEvent
from OFS.event import ObjectWillBeRemovedEvent
from OFS.Folder import Folder
from OFS.ObjectManager import checkValidId
from zExceptions import BadRequest
from zope.container.contained import notifyContainerModified
from zope.event import notify
from zope.interface import implementer
from zope.lifecycleevent import ObjectAddedEvent
from zope.lifecycleevent import ObjectRemovedEvent
from ZPublisher import zpublish

from Products.zasync.forgery import action

from . import background
from . import credentials
from . import parameters
from .interfaces import IMailBox
from .interfaces import IMailTool
from .mailbox import MailBox
from .zmi.toolpages import ADD_NAMES
from .zmi.toolpages import box_form
from .zmi.toolpages import tool_form
from .zmi.toolpages import ToolPages


TOOL_ID = 'portal_webmail'
BOX_PREFIX = 'box_'

ONLY_BOXES = 'The mail tool holds mailboxes only.'

_marker = object()


@implementer(IMailTool)
@zpublish
class MailTool(ToolPages, Folder):
    """See IMailTool."""

    meta_type = 'Mail Tool'
    zmi_icon = 'fas fa-mail-bulk'
    _properties = ()
    security = ClassSecurityInfo()
    _boxes = None

    def __init__(self, id=TOOL_ID, title=''):
        super().__init__(id)
        self.title = title
        self._boxes = OOBTree()
        self._pairs = parameters.default_pairs()

    # Contents, in a BTree

    def __getattr__(self, name):
        # For the publisher, restricted code and path expressions alike; called only when
        # there is no ordinary attribute of that name.
        if name[:1] != '_' and self._boxes is not None:
            found = self._boxes.get(name)
            if found is not None:
                return found
        raise AttributeError(name)

    def _setOb(self, id, object):
        self._boxes[id] = object

    def _delOb(self, id):
        del self._boxes[id]

    def _getOb(self, id, default=_marker):
        found = self._boxes.get(id)
        if found is not None:
            return found.__of__(self)
        if default is _marker:
            raise AttributeError(id)
        return default

    def _setObject(self, id, object, roles=None, user=None, set_owner=1, suppress_events=False):
        """As ObjectManager's, without its tuple of all children. Refuses what is no mailbox."""
        if not IMailBox.providedBy(object):
            raise BadRequest(ONLY_BOXES)
        self._checkId(id)
        if not suppress_events:
            notify(ObjectWillBeAddedEvent(object, self, id))
        self._setOb(id, object)
        child = self._getOb(id)
        if set_owner:
            child.manage_fixupOwnershipAfterAdd()
        if not suppress_events:
            notify(ObjectAddedEvent(child, self, id))
            notifyContainerModified(self)
        return id

    def _delObject(self, id, dp=1, suppress_events=False):
        """As ObjectManager's, without its tuple of all children."""
        child = self._getOb(id)
        if not suppress_events:
            notify(ObjectWillBeRemovedEvent(child, self, id))
        self._delOb(id)
        if not suppress_events:
            notify(ObjectRemovedEvent(child, self, id))
            notifyContainerModified(self)

    def _setProperty(self, id, value, type='string'):
        """Its parameters are none of Zope's properties, one of which could hide a mailbox."""
        raise BadRequest('The mail tool has no properties.')

    @zpublish(False)
    @security.protected('Access contents information')
    def hasObject(self, id):
        return id in self._boxes

    @zpublish(False)
    @security.protected('Access contents information')
    def objectIds(self, spec=None):
        if spec is None:
            return list(self._boxes)
        spec = (spec,) if isinstance(spec, str) else spec
        return [id for id, child in self._boxes.items() if child.meta_type in spec]

    @zpublish(False)
    @security.private
    def objectMap(self):
        return tuple({'id': id, 'meta_type': child.meta_type}
                     for id, child in self._boxes.items())

    @action
    @security.protected('Delete objects')
    def manage_delObjects(self, ids=(), REQUEST=None):
        """Delete mailboxes; nothing changes on the mail server."""
        ids = ids if isinstance(ids, (list, tuple)) else [ids]
        if not ids or not all(isinstance(id, str) and id in self._boxes for id in ids):
            raise BadRequest('Choose mailboxes that exist.')
        ids = set(ids)  # one may be named twice
        for id in ids:
            self._delObject(id)
        if REQUEST is not None:
            # Not the page itself, which who deletes need not be allowed to see.
            REQUEST.RESPONSE.redirect('%s/manage_main?manage_tabs_message=%d+deleted.' % (
                self.absolute_url(), len(ids)))

    # What it is for

    @zpublish(False)
    @security.protected('View management screens')
    def mail_boxes(self):
        """See IMailTool."""
        return self.objectValues(MailBox.meta_type)

    @zpublish(False)
    @security.protected('Manage properties')
    def seal_passwords(self):
        """See IMailTool."""
        return credentials.seal_all(self.mail_boxes(), background.current_run().checkpoint)

    @zpublish(False)
    @security.private
    def parameter_pairs(self):
        """See IMailTool."""
        return {**parameters.default_pairs(), **self._pairs}

    @zpublish(False)
    @security.private
    def set_parameter_pairs(self, pairs):
        """Take over checked pairs (parameters.check)."""
        unknown = set(pairs) - set(parameters.TOOL_NAMES)
        if unknown:
            raise ValueError('unknown parameters: %s' % ', '.join(sorted(unknown)))
        self._pairs = {**self._pairs, **pairs}


def is_mail_tool(container):
    """Whether mailboxes may be added here."""
    return IMailTool.providedBy(container)


# The tool's add form

@zpublish
def addMailToolForm(self, REQUEST=None):
    """The add form of the tool."""
    return tool_form(self, 'Webmail', {})


@action
def addMailTool(container, title='Webmail', REQUEST=None):
    """Add the tool, `portal_webmail`, to a container; the tool itself without REQUEST."""
    dispatcher, container = container, container.this()
    title = str(title).strip()
    problem = _id_problem(container, TOOL_ID)
    if is_mail_tool(container):
        problem = ONLY_BOXES
    if not problem and (len(title) > 200 or '<' in title):
        problem = ('The title has at most 200 characters and no less-than sign, which Zope would '
                   'take for markup.')
    if problem:
        if REQUEST is None:
            raise BadRequest(problem)
        REQUEST.RESPONSE.setStatus(400)
        return tool_form(dispatcher, title, {'': problem})
    tool = MailTool(TOOL_ID, title)
    # Set before the tool is added, so that Zope does not make its creator the Owner, of all
    # mailboxes too.
    tool.__ac_local_roles__ = {}
    container._setObject(TOOL_ID, tool)
    if REQUEST is not None:
        REQUEST.RESPONSE.redirect(container.absolute_url() + '/manage_main')
        return None
    return container._getOb(TOOL_ID)


# The mailbox's add form

@zpublish
def addMailBoxForm(self, REQUEST=None):
    """The add form of a mailbox."""
    tool = self.this()
    return box_form(self, _asked_names(tool), '', _starting_values(tool), {}, {})


@action
def addMailBox(self, user='', REQUEST=None):
    """Add a mailbox for a user; the add form's action. Parameters come by their names."""
    tool = self.this()
    user = str(user).strip()
    names = _asked_names(tool)
    raw = {name: REQUEST.form[name] for name in names if name in REQUEST.form}
    values, problems = credentials.check(raw, names)
    if not is_mail_tool(tool):
        problems['user'] = 'Mailboxes live in the mail tool only.'
    else:
        problem = _user_problem(tool, user)
        if problem:
            problems['user'] = problem
    if problems:
        REQUEST.RESPONSE.setStatus(400)
        return box_form(self, names, user, _starting_values(tool), raw, problems)
    _add_box(tool, user, values)
    REQUEST.RESPONSE.redirect(tool.absolute_url() + '/manage_main')
    return None


def add_mail_box(tool, user_id, host='localhost', port=143, ssl=0, login='', password='',
                 **more):
    """Add the mailbox `box_<user_id>` to the tool and return it.

    more -- other parameters by their names. What the tool does not leave to mailboxes has
    no effect.
    Raises ValueError with the sentences the form would show; nothing is added then.
    """
    raw = {'HOST': host, 'PORT': port, 'SSL': ssl, 'login': login or user_id,
           'password': password, **more}
    values, problems = credentials.check(raw, tuple(raw))
    problem = _user_problem(tool, user_id)
    if problem:
        problems['user'] = problem
    if problems:
        raise ValueError('; '.join('%s: %s' % item for item in sorted(problems.items())))
    return _add_box(tool, user_id, values)


def _add_box(tool, user_id, values):
    box_id = BOX_PREFIX + user_id
    box = MailBox(box_id, title=user_id, **values)
    user = _find_user(tool, user_id)
    # Set before the box is added, so that Zope does not make its creator the Owner.
    box.__ac_local_roles__ = {user_id: ['Owner']} if user is not None else {}
    tool._setObject(box_id, box)
    box = tool._getOb(box_id)
    if user is not None:
        box.changeOwnership(user)
    return box


def _starting_values(tool):
    if not is_mail_tool(tool):
        return {}
    return {name: value for name, (value, _flag) in tool.parameter_pairs().items()}


def _asked_names(tool):
    """The parameters the add form asks for: those the tool leaves to mailboxes."""
    settable = parameters.settable_names(tool.parameter_pairs() if is_mail_tool(tool) else {})
    return tuple(name for name in ADD_NAMES if name in settable)


def _user_problem(tool, user_id):
    if not user_id:
        return 'A user id is needed.'
    if len(user_id) > 100:
        return 'At most 100 characters.'
    return _id_problem(tool, BOX_PREFIX + user_id)


def _id_problem(container, id):
    try:
        if hasattr(aq_base(container), id):
            return 'There is a %s here already.' % id
        checkValidId(container, id)
    except UnicodeEncodeError:  # bytes that are no UTF-8 were sent
        return 'No id can be made of this: it is no text.'
    except BadRequest as error:
        # Zope's sentence has the id in it as HTML, and we return a text.
        return 'No id can be made of this: %s' % html.unescape(str(error))
    return ''


def _find_user(tool, user_id):
    """The user of that id in the nearest user folder that knows one, wrapped; or None."""
    for place in aq_chain(aq_inner(tool)):
        if getattr(aq_base(place), 'acl_users', None) is not None:
            users = place.acl_users
            user = users.getUserById(user_id)
            if user is not None:
                return aq_base(user).__of__(users)
    return None


InitializeClass(MailTool)
