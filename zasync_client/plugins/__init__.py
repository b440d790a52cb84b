"""What only a worker can run of the built-in plugins: the handlers, by the names of the plugins.

They are not zope-aware, and import what they need when they are called: a worker starts
without it.

Imports: ldap.
"""

from .ldap import query_protected_ldap
from .ldap import query_unprotected_ldap


HANDLERS = {
    'unprotected_ldap': query_unprotected_ldap,
    'protected_ldap': query_protected_ldap,
}
