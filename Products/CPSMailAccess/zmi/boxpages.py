"""The pages of a mailbox: folders and messages, status, settings.

GET never writes; whatever changes something is a POST. The templates get plain values.

Imports: Zope, credentials, parameters, presentation, permissions, fields, zasync.
"""

import json
from urllib.parse import urlencode

from AccessControl.class_init import InitializeClass
from AccessControl.SecurityInfo import ClassSecurityInfo
from ZPublisher import zpublish

from Products.zasync.forgery import action
from Products.zasync.forgery import Page

from .. import credentials
from .. import parameters
from .. import presentation
from ..permissions import ChangeMailbox
from ..permissions import SynchronizeMailbox
from ..permissions import ViewMailbox
from . import fields
from .frame import frame


#: Messages on one page of a folder.
PAGE_SIZE = 50

#: What the page says after a button was pressed.
OUTCOMES = {
    'queued': 'The synchronisation is queued.',
    'joined': 'A synchronisation is under way already and will serve this request too.',
    'done': 'The mailbox was synchronised.',
    'failed': 'The synchronisation failed.',
    'cleared': 'The synchronisation under way was told to stop.',
    'over': 'No synchronisation is under way any more.',
}


class BoxPages:
    """Mixed into MailBox."""

    security = ClassSecurityInfo()

    _box_page = Page('../www/mailbox', globals(), __name__='manage_main')
    _form_page = Page('../www/form', globals(), __name__='manage_settingsForm')

    # The mailbox

    @zpublish
    @security.protected(ViewMailbox)
    def manage_main(self, REQUEST=None, folder='', start=0, outcome=''):
        """Folders, messages of one of them, status and buttons."""
        folders = self.folders()
        chosen = self._chosen(folders, folder)
        return self._box_page(
            frame=frame(self, 'Mailbox'),
            folders=[self._folder_row(one, chosen) for one in folders],
            status=self._status_view(),
            outcome=OUTCOMES.get(str(outcome), ''),
            outcome_class='danger' if outcome == 'failed' else 'success',
            may_synchronize=self._may(SynchronizeMailbox),
            may_change=self._may(ChangeMailbox),
            chosen=chosen.shown_path() if chosen is not None else '',
            password_problem=self.password_problem(),
            **self._message_page(chosen, start),
        )

    @zpublish
    @security.protected(ViewMailbox)
    def index_html(self, REQUEST=None):
        """The mailbox's page."""
        return self.manage_main(REQUEST)

    @zpublish
    @security.protected(ViewMailbox)
    def manage_workspace(self, REQUEST):
        """The first tab."""
        REQUEST.RESPONSE.redirect(self.absolute_url() + '/manage_main')

    @zpublish
    @security.protected(ViewMailbox)
    def manage_syncStatus(self, REQUEST=None):
        """The status as JSON, for the progress bar."""
        if REQUEST is not None:
            response = REQUEST.RESPONSE
            response.setHeader('Content-Type', 'application/json; charset=utf-8')
            response.setHeader('Cache-Control', 'no-store')
        return json.dumps(self.sync_report())

    @zpublish(False)
    @security.private
    def page_frame(self, context, tab):
        """What surrounds a page of `context`, something in this mailbox."""
        return frame(context, tab)

    @zpublish(False)
    @security.protected(ViewMailbox)
    def page_url(self, server_name='', start=0, outcome=''):
        """The address of the mailbox's page, at a folder and a message number."""
        query = {'folder': server_name, 'start': start, 'outcome': outcome}
        query = {name: value for name, value in query.items() if value}
        url = self.absolute_url() + '/manage_main'
        return '%s?%s' % (url, urlencode(query)) if query else url

    @action
    @security.protected(SynchronizeMailbox)
    def manage_getMessages(self, REQUEST=None):
        """Button "Get messages": synchronise INBOX in the background."""
        return self._press(1, REQUEST)

    @action
    @security.protected(SynchronizeMailbox)
    def manage_synchronizeAll(self, REQUEST=None):
        """Button "Synchronise all folders", in the background."""
        return self._press(0, REQUEST)

    @action
    @security.protected(ChangeMailbox)
    def manage_clearSynchro(self, REQUEST=None):
        """Button "Stop": take the lease from the run under way."""
        outcome = 'over'
        if self.isSynchronizing():
            # What one that has ended did, or why it failed, is left on the page.
            self.clearSynchro()
            outcome = 'cleared'
        if REQUEST is not None:
            REQUEST.RESPONSE.redirect(self.page_url(outcome=outcome))

    def _press(self, light, REQUEST):
        outcome = self.background_synchronisation(light=light)
        if REQUEST is not None:
            REQUEST.RESPONSE.redirect(self.page_url(outcome=outcome))

    def _chosen(self, folders, server_name):
        for folder in folders:
            if folder.server_name == server_name:
                return folder
        return folders[0] if folders else None

    def _folder_row(self, folder, chosen):
        return {
            'title': folder.name,
            'indent': 'padding-left: %.1fem' % (0.5 + 1.2 * (len(folder.path) - 1)),
            'count': folder.message_count(),
            'url': self.page_url(folder.server_name),
            'selectable': folder.selectable,
            'active': chosen is not None and folder.server_name == chosen.server_name,
        }

    def _message_page(self, folder, start):
        total = folder.message_count() if folder is not None else 0
        start = max(0, min(_integer(start), max(total - 1, 0)))
        start -= start % PAGE_SIZE
        messages = folder.messages(start, PAGE_SIZE) if folder is not None else []
        name = folder.server_name if folder is not None else ''
        newer, older = start - PAGE_SIZE, start + PAGE_SIZE
        return {
            'messages': [_message_row(message) for message in messages],
            'range': '%d to %d of %d' % (start + 1, start + len(messages), total)
                     if messages else '',
            'newer_url': self.page_url(name, newer) if newer > 0
                         else self.page_url(name) if start else '',
            'older_url': self.page_url(name, older) if older < total else '',
        }

    def _status_view(self):
        status = self.sync_report()
        status['percent'] = presentation.percent(status['done'], status['total'])
        status['is_active'] = status['state'] in ('queued', 'running')
        status['started'] = presentation.moment(status['started_at'])
        status['ended'] = presentation.moment(status['ended_at'])
        status['badge'] = {'failed': 'badge badge-danger', 'done': 'badge badge-success',
                           'running': 'badge badge-primary'}.get(
                               status['state'], 'badge badge-secondary')
        return status

    def _may(self, permission):
        from AccessControl import getSecurityManager
        return bool(getSecurityManager().checkPermission(permission, self))

    # Settings

    @zpublish
    @security.protected(ChangeMailbox)
    def manage_settingsForm(self, REQUEST=None):
        """The connection's settings. The password is not among what is shown."""
        return self._settings_page({}, {})

    @action
    @security.protected(ChangeMailbox)
    def manage_changeSettings(self, REQUEST):
        """Store all settings, or none and say what is wrong with them."""
        names = parameters.settable_names(self.parameter_pairs())
        raw = {name: REQUEST.form[name] for name in names if name in REQUEST.form}
        values, problems = credentials.check(raw, names)
        if not problems and parameters.needs_password(self._effective(), values):
            problems['password'] = ('Type it again: the stored password goes to the server, the '
                                    'port and the login it was stored for, and nowhere else.')
        if problems:
            REQUEST.RESPONSE.setStatus(400)
            return self._settings_page(raw, problems)
        if not values.get('password'):
            # An empty field means: keep it.
            values.pop('password', None)
        self.set_parameters(values)
        return self._settings_page({}, {}, 'The settings were stored.')

    def _settings_page(self, raw, problems, message=''):
        problem = 'Nothing was stored.' if problems else ''
        unreadable = self.password_problem()
        if unreadable:
            problems = {'password': unreadable, **problems}
        names = parameters.settable_names(self.parameter_pairs())
        shown = {name: value for name, value in self._effective().items()
                 if name != 'password'}
        return self._form_page(
            frame=frame(self, 'Settings'), action=self.absolute_url() + '/manage_changeSettings',
            intro='How the mail server is reached. What the portal sets for all mailboxes is '
                  'not shown here.',
            fields=fields.fields(names, shown, raw, problems), message=message,
            problem=problem, submit='Save changes')


def _message_row(message):
    return {
        'url': message.absolute_url() + '/manage_main',
        'subject': presentation.shortened(message.shown_subject()),
        'sender': message.sender,
        'name': presentation.name_of(message.sender),
        'date': presentation.moment(message.date_at or message.internal_at) or message.date,
        'size': presentation.size(message.size),
        'flags': presentation.flag_names(message.flags()),
        'weight': '' if message.is_seen() else 'font-weight-bold',
    }


def _integer(value):
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


InitializeClass(BoxPages)
