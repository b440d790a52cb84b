"""The pages of the tool: its mailboxes and the parameters they share; and the add forms.

Imports: Zope, credentials, parameters, presentation, errors, fields, zasync.
"""

from AccessControl import getSecurityManager
from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from ZPublisher import zpublish

from Products.zasync.forgery import action
from Products.zasync.forgery import Page

from .. import credentials
from .. import errors
from .. import parameters
from .. import presentation
from . import fields
from .frame import frame


VIEW_MANAGEMENT_SCREENS = 'View management screens'
MANAGE_PROPERTIES = 'Manage properties'

#: Mailboxes on one page of the tool.
PAGE_SIZE = 50

_add_page = Page('../www/form', globals(), __name__='addForm')

#: Parameters asked for when a mailbox is added; the others are on its settings tab.
ADD_NAMES = ('HOST', 'PORT', 'SSL', 'login', 'password')


class ToolPages:
    """Mixed into MailTool."""

    security = ClassSecurityInfo()

    manage_options = (
        {'label': 'Mailboxes', 'action': 'manage_main'},
        {'label': 'Default parameters', 'action': 'manage_defaultsForm'},
        {'label': 'Security', 'action': 'manage_access'},
    )

    _tool_page = Page('../www/mailtool', globals(), __name__='manage_main')
    _form_page = Page('../www/form', globals(), __name__='manage_defaultsForm')

    @zpublish
    @security.protected(VIEW_MANAGEMENT_SCREENS)
    def manage_main(self, REQUEST=None, start=0, manage_tabs_message='', **kw):
        """The mailboxes with their states."""
        return self._mailboxes_page(start, str(manage_tabs_message or ''))

    def _mailboxes_page(self, start=0, message='', problem=''):
        ids = self.objectIds()
        try:
            start = max(0, int(start))
        except (TypeError, ValueError, OverflowError):
            start = 0
        start = min(start - start % PAGE_SIZE, max(len(ids) - 1, 0) // PAGE_SIZE * PAGE_SIZE)
        chosen = ids[start:start + PAGE_SIZE]
        url = self.absolute_url() + '/manage_main?start=%d'
        return self._tool_page(
            boxes=[_box_row(self._getOb(one)) for one in chosen],
            range='%d to %d of %d' % (start + 1, start + len(chosen), len(ids)) if chosen else '',
            before_url=url % (start - PAGE_SIZE) if start else '',
            after_url=url % (start + PAGE_SIZE) if start + PAGE_SIZE < len(ids) else '',
            message=message, problem=problem,
            may_seal=bool(getSecurityManager().checkPermission(MANAGE_PROPERTIES, self)))

    @action
    @security.protected(MANAGE_PROPERTIES)
    def manage_sealPasswords(self, REQUEST):
        """Button "Seal passwords anew": with the newest secret key."""
        try:
            found = self.seal_passwords()
        except errors.PasswordNotSealed as reason:
            REQUEST.RESPONSE.setStatus(400)
            return self._mailboxes_page(problem=str(reason))
        return self._mailboxes_page(
            message='Passwords: ' + credentials.sealing_summary(found))

    @zpublish
    @security.protected(VIEW_MANAGEMENT_SCREENS)
    def manage_workspace(self, REQUEST):
        """The first tab."""
        REQUEST.RESPONSE.redirect(self.absolute_url() + '/manage_main')

    @zpublish
    @security.protected(VIEW_MANAGEMENT_SCREENS)
    def index_html(self, REQUEST=None):
        """The mailboxes."""
        return self.manage_main(REQUEST)

    @zpublish
    @security.protected(MANAGE_PROPERTIES)
    def manage_defaultsForm(self, REQUEST=None):
        """The parameters all mailboxes share, or start from."""
        return self._defaults_page(self.parameter_pairs(), {})

    @action
    @security.protected(MANAGE_PROPERTIES)
    def manage_changeDefaults(self, REQUEST):
        """Store all parameters, or none and say what is wrong with them."""
        form, names = REQUEST.form, parameters.TOOL_NAMES
        values, problems = parameters.check(form, names)
        pairs, typed = {}, {}
        for name, (value, flag) in self.parameter_pairs().items():
            raw_flag = str(form.get(fields.flag_name(name), flag))
            known = {str(choice): choice for choice, _label in fields.FLAG_CHOICES}
            if raw_flag not in known:
                problems[name] = 'Choose one of the list.'
            pairs[name] = (values.get(name, value), known.get(raw_flag, flag))
            typed[name] = (form.get(name, value), known.get(raw_flag, flag))
        if problems:
            REQUEST.RESPONSE.setStatus(400)
            return self._defaults_page(typed, problems)
        self.set_parameter_pairs(pairs)
        return self._defaults_page(pairs, {}, 'The parameters were stored.')

    def _defaults_page(self, pairs, problems, message=''):
        return self._form_page(
            frame=frame(self, 'Default parameters'),
            action=self.absolute_url() + '/manage_changeDefaults',
            intro='Each is the same for all mailboxes, or a default they may change.',
            fields=[fields.flagged_field(name, *pairs[name], problem=problems.get(name, ''))
                    for name in parameters.TOOL_NAMES],
            message=message, problem='Nothing was stored.' if problems else '',
            submit='Save changes')


def _box_row(box):
    report = box.sync_report()
    return {
        'id': box.getId(),
        'title': box.title,
        'url': box.absolute_url() + '/manage_main',
        'folders': len(box.server_names()),
        'messages': box.message_count(),
        'state': report['state'],
        'reason': report['reason'],
        'badge': {'failed': 'badge badge-danger', 'done': 'badge badge-success',
                  'running': 'badge badge-primary'}.get(
                      report['state'], 'badge badge-secondary'),
        'ended': presentation.moment(report['ended_at']),
    }


def _add_frame(dispatcher, title):
    """What surrounds an add form. Only who may add things sees one, so it is Zope's."""
    return {'header': dispatcher.manage_page_header(),
            'tabs': dispatcher.manage_form_title(dispatcher, None, form_title=title),
            'footer': dispatcher.manage_page_footer()}


def tool_form(dispatcher, title, problems):
    """The add form of the tool."""
    return _add_page.__of__(dispatcher)(
        frame=_add_frame(dispatcher, 'Add Mail Tool'), action='addMailTool',
        intro='The mail tool, portal_webmail, holds one mailbox a user and the connection '
              'parameters they share.',
        fields=[fields.text_field('title', 'Title', title, problem=problems.get('title', ''),
                                  required=False)],
        message='', problem=problems.get('', ''), submit='Add')


def box_form(dispatcher, names, user, values, raw, problems):
    """The add form of a mailbox, asking for the parameters `names`.

    values -- what the tool would give it. raw, problems -- what was typed, and is wrong.
    """
    user_field = fields.text_field(
        'user', 'User', user, 'Id of the Zope user the mailbox belongs to; its id becomes '
        'box_ and this.', problems.get('user', ''))
    return _add_page.__of__(dispatcher)(
        frame=_add_frame(dispatcher, 'Add Mail Box'), action='addMailBox',
        intro='A mailbox follows one account on an IMAP server.',
        fields=[user_field] + fields.fields(names, values, raw, problems),
        message='', problem='Nothing was added.' if problems else '', submit='Add')


InitializeClass(ToolPages)
