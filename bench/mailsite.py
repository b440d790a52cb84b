"""A Zope with mailboxes, set up over HTTP as its manager would, and counted from outside.

The counts come straight from the IMAP server and straight from the ZEO server: neither Zope nor
a worker is asked how well it did.

Imports: nothing of ours before it counts; then Products.CPSMailAccess.
"""

from concurrent.futures import ThreadPoolExecutor

import imapclient
import requests


class SiteError(Exception):
    """Zope refused something that the demonstration needs."""


class MailSite:
    """A running Zope, as its manager sees it. url -- without a slash at the end."""

    def __init__(self, url, login):
        self.url = url
        self._http = requests.Session()
        self._http.auth = login

    def box_url(self, folder, user):
        return '%s/%s/portal_webmail/box_%s' % (self.url, folder, user)

    def add_users(self, users):
        for name, password in users.items():
            self._post('/acl_users/manage_users', submit='Add', name=name, password=password,
                       confirm=password)

    def add_folder(self, path):
        """A folder at that path, whose parent is there."""
        parent, slash, name = path.rpartition('/')
        self._post(slash + parent + '/manage_addFolder', id=name)

    def add_dispatcher(self, folder, managers):
        self._post('/%s/manage_addProduct/zasyncdispatcher/'
                   'constructZAsyncDispatcherWithManagers' % folder, managers=managers)

    def add_mail_boxes(self, folder, users, host, port):
        """A portal_webmail, and in it a mailbox for each of the users (login to password)."""
        self._post('/%s/manage_addProduct/CPSMailAccess/addMailTool' % folder)
        for name, password in users.items():
            self._post('/%s/portal_webmail/manage_addProduct/CPSMailAccess/addMailBox' % folder,
                       user=name, HOST=host, PORT=port, SSL=0, login=name, password=password)

    def _post(self, path, **fields):
        answer = self._http.post(self.url + path, data=fields, allow_redirects=False, timeout=60)
        if answer.status_code not in (200, 302, 303):
            raise SiteError('POST %s answers %d: %s' % (path, answer.status_code,
                                                        answer.text[:400]))


def counts_on_server(server):
    """{user: {folder: messages}} as an IMAP client sees it."""
    def of_user(item):
        user, password = item
        client = imapclient.IMAPClient(server.host, server.port, ssl=False, timeout=30)
        try:
            client.login(user, password)
            names = [name for flags, _separator, name in client.list_folders()
                     if b'\\Noselect' not in flags]
            return user, {name: client.folder_status(name, ['MESSAGES'])[b'MESSAGES']
                          for name in names}
        finally:
            client.shutdown()
    with ThreadPoolExecutor(4) as pool:
        return dict(pool.map(of_user, server.users.items()))


def counts_in_zodb(zeo_address, folders):
    """{folder of the site: {user: {mail folder: messages}}}, counted object by object."""
    import ZEO
    import ZODB
    db = ZODB.DB(ZEO.client(zeo_address, wait_timeout=20))
    connection = db.open()
    try:
        app = connection.root()['Application']
        return {folder: {box.title: _counts(box)
                         for box in app[folder].portal_webmail.mail_boxes()}
                for folder in folders}
    finally:
        connection.close()
        db.close()


def _counts(box):
    return {'/'.join(folder.path): len(folder.uids()) for folder in box.folders()
            if folder.selectable}
