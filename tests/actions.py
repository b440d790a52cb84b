"""All actions of the three products, found by walking what they publish, and objects to act on.

Imports: nothing but what Zope has loaded.
"""

import inspect

from ZPublisher import zpublish_mark


OURS = ('Products.zasync.', 'Products.zasyncdispatcher.', 'Products.CPSMailAccess.')

#: What a form of the action has in it, where it would do nothing without. The others are
#: posted as they are.
FORMS = {
    'manage_cancelCall': {'id': '{call}'}, 'manage_retryCall': {'id': '{call}'},
    'manage_purge': {'state': 'failed', 'hours': '0'},
    'manage_changeSettings': {'poll_interval': '7', 'rotation_period': '77', 'HOST': 'other',
                              'password': 'x'},
    'manage_savePeriodicCall': {
        'adding': '1', 'id': 'more', 'expression': '@daily', 'zone': 'UTC', 'kind': 'zope_exec',
        'path': '/', 'tales': 'nothing'},
    'manage_pausePeriodicCall': {'id': 'nightly'}, 'manage_resumePeriodicCall': {'id': 'sleeping'},
    'manage_runPeriodicCall': {'id': 'nightly'}, 'manage_dropPeriodicCall': {'id': 'nightly'},
    'manage_addManagers': {'managers': '1'}, 'manage_removeManager': {'id': 'zam1'},
    'manage_keepManager': {'id': 'zam1'}, 'manage_changeProperties': {'no_worker': 'queue'},
    'manage_editProperties': {'title': 'Other', 'max_idle_time:float': '70', 'no_worker': 'run',
                              'balance': 'pace'},
    'manage_addProperty': {'id': 'more', 'value': '1', 'type': 'string'},
    'manage_changePropertyTypes': {
        'old_ids:list': 'more', 'props.new_id:records': 'less', 'props.new_value:records': '2',
        'props.new_type:records': 'string'},
    'manage_delProperties': {'ids:list': 'less'},
    'manage_delObjects': {'ids:list': 'box_bob'},
    'manage_changeDefaults': {'HOST': 'other'},
    'addMailBox': {'user': 'eve', 'HOST': 'other', 'PORT': '143', 'SSL': '0', 'login': 'eve',
                   'password': 'x'},
    'constructAsynchronousCallManager': {'id': 'new1'},
    'constructZAsyncDispatcher': {'id': 'new2'},
    'constructZAsyncDispatcherWithManagers': {'id': 'new3'}}


def published_actions():
    """[(what it is an action of, its name)]; the constructors are actions of their product."""
    from Products import CPSMailAccess
    from Products import zasync
    from Products import zasyncdispatcher
    from Products.CPSMailAccess.mailbox import MailBox
    from Products.CPSMailAccess.mailfolder import MailFolder
    from Products.CPSMailAccess.mailmessage import MailMessage
    from Products.CPSMailAccess.mailtool import MailTool
    from Products.zasync.manager import AsynchronousCallManager
    from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
    found = []
    for owner in (AsynchronousCallManager, ZAsyncDispatcher, MailTool, MailBox, MailFolder,
                  MailMessage):
        found += [(owner.__name__, name) for name in _posted(owner)]
    for product in (zasync, zasyncdispatcher, CPSMailAccess):
        found += [(product.__name__.partition('.')[2], name)
                  for name in _posted(product.__FactoryDispatcher__)]
    return found


def _posted(cls):
    return sorted(
        name for name, value in inspect.getmembers(cls, inspect.isfunction)
        if (value.__module__ or '').startswith(OURS) and isinstance(zpublish_mark(value), tuple))


def build(place, put_as):
    """Make a manager, a dispatcher and a mailbox in a folder, so that each action has something
    to do; → {owner: path below the folder}, {name in FORMS: text}.

    put_as -- callable(action): does it as a user who may put calls.
    """
    from Products.CPSMailAccess import mailtool
    from Products.CPSMailAccess.values import RemoteFolder
    from Products.CPSMailAccess.values import RemoteMessage
    from Products.zasync.manager import AsynchronousCallManager
    from Products.zasyncdispatcher.zasyncdispatcher import ZAsyncDispatcher
    place._setObject('zam', AsynchronousCallManager('zam'))
    place._setObject('zad', ZAsyncDispatcher('zad'))
    place.zad._setObject('zam1', AsynchronousCallManager('zam1'))
    place._setObject('portal_webmail', mailtool.MailTool())
    box = mailtool.add_mail_box(place.portal_webmail, 'bob', host='127.0.0.1', port=1)
    folder = box.add_child(RemoteFolder('INBOX', ('INBOX',)), box)
    folder.add(RemoteMessage(7))

    def put():
        for id in ('nightly', 'sleeping'):
            place.zam.setPeriodicCall(id, '@daily', 'UTC', 'echo')
        place.zam.pausePeriodicCall('sleeping')
        return place.zam.putCall('echo', 1)

    call = put_as(put)
    box_path = '/portal_webmail/box_bob'
    return {'AsynchronousCallManager': '/zam', 'ZAsyncDispatcher': '/zad',
            'MailTool': '/portal_webmail', 'MailBox': box_path, 'MailFolder': f'{box_path}/INBOX',
            'MailMessage': f'{box_path}/INBOX/.7', 'zasync': '/manage_addProduct/zasync',
            'zasyncdispatcher': '/manage_addProduct/zasyncdispatcher',
            'CPSMailAccess': '/portal_webmail/manage_addProduct/CPSMailAccess'}, {'call': call.id}


def form_of(name, ids):
    """{field: text} for an action."""
    return {field: text.format(**ids) for field, text in FORMS.get(name, {}).items()}
