"""A Zope with the real plone.protect, as Plone has it, in a process of its own.

    .venv-plone/bin/python -m tests.zope.ploneserver DIRECTORY PORT

serves /plone, a site with a key manager, and the root, which has none: in both are the objects of
`actions.build`. The first line it prints tells their paths, ids and actions, as JSON.

Imports: Zope, plone.protect, waitress.
"""

import json
import sys
from pathlib import Path


CONF = '''
instancehome {place}
<zodb_db main>
  mount-point /
  <mappingstorage>
  </mappingstorage>
</zodb_db>
'''

SITE = '''
<configure xmlns="http://namespaces.zope.org/zope"
           xmlns:five="http://namespaces.zope.org/five">
  <include package="Zope2.App" />
  <five:loadProducts file="meta.zcml" />
  <five:loadProducts />
  <five:loadProductsOverrides />
  <include package="plone.protect" />
</configure>
'''


def main(place, port):
    """Make the site, and serve it until killed."""
    import waitress
    from Zope2.Startup.run import make_wsgi_app
    from ZPublisher.httpexceptions import HTTPExceptionHandler
    place = Path(place)
    (place / 'etc').mkdir()
    (place / 'etc' / 'site.zcml').write_text(SITE, 'ascii')
    conf = place / 'etc' / 'zope.conf'
    conf.write_text(CONF.format(place=place), 'utf-8')
    wsgi = make_wsgi_app({}, str(conf))
    made = build()
    server = waitress.create_server(HTTPExceptionHandler(wsgi), host='127.0.0.1', port=port,
                                    threads=4)
    print(json.dumps(made), flush=True)
    server.run()


def build():
    """Users and both sites, committed; → {path of the site: (paths, ids, actions)}."""
    import transaction
    import Zope2
    from five.localsitemanager import make_objectmanager_site
    from plone.keyring.interfaces import IKeyManager
    from plone.keyring.keymanager import KeyManager
    from Products.Five.component import enableSite
    app = Zope2.app()
    for name in ('admin', 'eve'):
        app.acl_users.userFolderAddUser(name, name, ['Manager'], [])
    app._setObject('plone', _folder('plone'))
    make_objectmanager_site(app.plone)
    enableSite(app.plone)
    app.plone.getSiteManager().registerUtility(KeyManager(), IKeyManager)
    made = {'/plone': _build(app.plone), '': _build(app)}
    transaction.commit()
    app._p_jar.close()
    return made


def _folder(id):
    from OFS.Folder import Folder
    return Folder(id)


def _build(place):
    from AccessControl.SecurityManagement import newSecurityManager
    from AccessControl.SecurityManagement import noSecurityManager

    from tests import actions

    def as_admin(put):
        users = place.getPhysicalRoot().acl_users
        newSecurityManager(None, users.getUserById('admin').__of__(users))
        try:
            return put()
        finally:
            noSecurityManager()

    return *actions.build(place, as_admin), actions.published_actions()


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
