"""What a script has a pickle say of its own objects is neither called nor made.

A script may define classes, and set on them and their objects what pickle asks: by that it would
have functions that it can hold called, and attributes set on what they return, wherever the value
is made again: in the worker before it has become anybody, in the request of whoever reads it.
"""

import pytest
import transaction
from AccessControl import SpecialUsers
from Products.PythonScripts.PythonScript import PythonScript

from Products.zasync.testing import make_worker
from tests.security.town import ALICE


#: A pickle that has the user of whoever reads it get a role, made of what every script can hold.
ROLES = """
from AccessControl import getSecurityManager

class Own:
    pass

def says(reduced):
    own = Own()
    setattr(own, {name!r}, {how})
    return own

manager = says((getSecurityManager, ()))
get_user = says((getattr, (manager, 'getUser')))
user = says((apply, (get_user, ()), (None, {{'roles': ('Manager',)}})))
{put}
"""

PUTS = ("container.zam.putCall('echo', user)", "container.zam.putCall('echo', x=[user])",
        "container.zam.putCall('aggregate', [('echo', (user,))])",
        "container.zam.putCall('zope_exec', '/', {}, 'nothing', {'x': user})",
        "container.zam.putCall('zope_exec', '/', {'x': user}, 'nothing')",
        "container.zam.putCall('schedule', 1, 'echo', user)")


@pytest.mark.parametrize('put', PUTS)
@pytest.mark.parametrize('name, how', [('__reduce_ex__', 'lambda protocol: reduced'),
                                       ('__reduce__', 'lambda: reduced')])
def test_a_pickle_of_a_scripts_own_making_is_refused(town, put, name, how):
    app = town.app
    app.zam.manage_permission('Make Asynchronous Application Calls', ['Authenticated'], 0)
    made = PythonScript('putter')
    made.write(ROLES.format(name=name, how=how, put=put))
    app._setOb('putter', made)
    app.putter._owner = (['acl_users'], ALICE)
    before = vars(SpecialUsers.nobody).copy()
    town.login(ALICE)
    try:
        with pytest.raises(ValueError):
            app.putter()
    finally:
        town.logout()
        transaction.commit()
        with make_worker(app.zam) as worker:
            worker.clock.advance(10)
            worker.run_until_idle()
        after = vars(SpecialUsers.nobody).copy()
        SpecialUsers.nobody.__dict__.update(before)
    assert after == before, 'Anonymous has become somebody else in this process'
    assert town.user(ALICE).getRoles() == ('Authenticated',)
