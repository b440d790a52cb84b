"""Hostile texts, and a town that has one in each field that reaches a page."""

import pickle

import transaction

from Products.CPSMailAccess.mailmessage import MessageBody
from Products.CPSMailAccess.values import Envelope
from Products.CPSMailAccess.values import FolderState
from Products.CPSMailAccess.values import RemoteFolder
from Products.CPSMailAccess.values import RemoteMessage
from Products.zasync import payload
from Products.zasync.board import Progress
from Products.zasync.failure import Failure
from Products.zasync.options import Options
from tests.security.town import Town


def hostile(field, marked=True):
    """A text that breaks out of elements, attributes, scripts and comments; for that field."""
    marks = '\u202e\u2066\x07' if marked else ''
    return (f'\'">]]>--></script><zx id={field} onmouseover=window.evil=1><img src=x '
            f'onerror=window.evil=1>javascript:evil{marks}')


#: The fields that `furnish` fills, each of which some page shows.
FIELDS = {
    'host', 'plugin', 'offered', 'argument', 'keyword', 'result', 'memo',
    'failure-type', 'failure', 'traceback', 'progress', 'outcome', 'series', 'key', 'user',
    'path', 'periodic-title', 'tales', 'periodic-argument', 'periodic-series',
    'folder', 'subject', 'sender', 'to', 'cc', 'date', 'message-id', 'flag', 'body',
    'attachment', 'sync-message', 'sync-reason', 'login', 'certificates'}


class HostileTown(Town):
    """Its texts are hostile wherever somebody else than its owner can choose them."""

    def __init__(self):
        super().__init__()
        self.ids = []
        self.furnish_managers()
        self.furnish_mail()
        transaction.commit()

    def furnish_managers(self):
        """Calls with hostile texts; their callers, plugins and workers have such names."""
        app, zam = self.app, self.app.zam
        plugin = hostile('plugin')[:200]
        for manager in (zam, app.zad.zam1):
            manager.queue.card.write('boot', hostile('host'), 77, '2.0', {
                plugin: hostile('description'), hostile('offered'): ''}, 1.0)
            manager.queue.pulse.write(0, 0, 0.0, 1, 1, 0)
        for folder, name in ((app, hostile('user')), (app.sub, 'x')):
            folder.acl_users._doAddUser(name, 'x', ['Manager'], [])
        self.login(hostile('user'))
        calls = [zam.putCallWith(Options(key=f'{hostile("key")} {n}', series=hostile('series')),
                                 plugin, hostile('argument'), **{hostile('keyword'): 1})
                 for n in range(3)]
        zam.putCall('aggregate', [(plugin, (hostile('argument'),))])
        zam.setPeriodicCall('nightly', '0 3 * * *', 'UTC', 'zope_exec', (
            '/', {}, "string:" + hostile('tales').replace('$', '')), None,
            Options(series=hostile('periodic-series')), hostile('periodic-title'))
        zam.setPeriodicCall('hourly', '0 * * * *', 'UTC', plugin, (hostile('periodic-argument'),))
        self.logout()
        self.end_hostile_calls(calls)

    def end_hostile_calls(self, calls):
        """One runs, one has a result, one has failed, with texts of their own in each."""
        queue, now = self.app.zam.queue, calls[0].put_at
        running, resolved, failed = calls
        transaction.savepoint(optimistic=True)
        resolved._caller = tuple(resolved.caller._replace(
            folder=('', hostile('path'), 'acl_users')))
        for each in calls:
            each.accept('boot', now)
            each.give_back(now, hostile('outcome'), failed=True)
            each.accept('boot', now)
            each._memo = pickle.dumps({'x': hostile('memo')})
            queue.desk.add_running(each.id, each)
        queue.board.write({running.id: Progress(1, 2, hostile('progress'))})
        resolved.succeed(payload.dumps([hostile('result')]), now)
        failed.fail(Failure(hostile('failure-type'), hostile('failure'), hostile('traceback')),
                    now)
        for each in (resolved, failed):
            queue.archive_ended(each.id, 3600)
        periodic = self.app.zam.periodic
        periodic['nightly'].state.last, periodic['hourly'].state.last = failed, resolved
        self.ids = [each.id for each in calls]

    def furnish_mail(self):
        """A mailbox of a server that lies about everything."""
        tool = self.app.portal_webmail
        box = tool.box_alice
        box.set_parameters({'login': hostile('login'), 'HOST': '127.0.0.1', 'PORT': 1})
        tool.set_parameter_pairs({'CA_FILE': (hostile('certificates'), 0)})
        folder = box.create_folder(RemoteFolder(hostile('server-name'), (hostile('folder'),)))
        folder.begin(FolderState(1))
        fields = ('subject', 'sender', 'to', 'cc', 'date', 'message_id')
        folder.add(RemoteMessage(8, flags=frozenset([hostile('flag')]), envelope=Envelope(
            **{name: hostile(name.replace('_', '-')) for name in fields})))
        attachment = hostile('attachment', marked=False).replace('"', "'")
        raw = (f'Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n'
               f'&lt;zx id=unescaped&gt;{hostile("html")}\n--b\nContent-Type: text/plain; '
               f'charset=utf-8\n\n{hostile("body")}\n--b\nContent-Disposition: attachment; '
               f'filename="{attachment}"\n\nx\n--b--\n')
        folder.message(8).keep_body(MessageBody(raw.encode(), True))
        self.folder_path = '/'.join(folder.getPhysicalPath())
        box.sync_status.take('call', 1.0)
        box.sync_status.fail(2.0, 0, hostile('sync-reason'))
        box.sync_status.progress.message = hostile('sync-message')
