"""The plugins that are always there: what they take, checked at the door, and what they do.

The put needs the first half, worker and direct run the second; so both halves of
a plugin stand together here. More plugins are named in the worker's configuration.

Imports: expression, errors, failure, ldapcall, sealing, security, call.
"""

import functools
import sys
from types import MethodType
from typing import NamedTuple

from AccessControl import getSecurityManager
from Acquisition import aq_base
from Acquisition import aq_inner
from Acquisition import aq_parent
from persistent import Persistent
from transaction.interfaces import TransientError
from zExceptions import Unauthorized

from . import expression
from . import ldapcall
from . import sealing
from .errors import BadCall
from .errors import MemberFailed
from .errors import SealingError
from .errors import StillRuns
from .errors import told
from .failure import Failure
from .failure import Relayed
from .paths import at


#: Calls a method or a function: what `defer` puts.
ZOPE_CALL = 'zope_call'
#: Puts another call, with a delay: the door knows it, no worker ever sees it.
SCHEDULE = 'schedule'
#: Waits for several other calls and returns all their results.
AGGREGATE = 'aggregate'
#: Ends as another call did, so that callbacks can be added to that one when it can't be
#: written any more. Nobody can put it by name.
FOLLOW = 'follow'


class BuiltinPlugin(NamedTuple):
    """check -- (args, kwargs) → the same, normalised, or BadCall. run -- a zope-aware IPlugin.

    run is None where only a worker has what does the work, see zasync_client.plugins.
    groupable -- its calls may share a transaction.
    """

    check: callable
    run: callable
    description: str
    groupable: bool = False


def check_zope_exec(args, kwargs):
    """Shape of zope_exec: path, request variables, expression, optionally more names."""
    if kwargs or not 3 <= len(args) <= 4:
        raise BadCall('zope_exec takes a path, a mapping of request variables, a TALES '
                      'expression and, if need be, a mapping of names; got '
                      f'{len(args)} arguments and the keywords {sorted(kwargs)}')
    path, variables, text, names = *args, *([{}] if len(args) == 3 else [])
    expression.check(text)
    return (as_path(path), _as_names(variables, 'the request variables'), text,
            _as_names(names, 'the names')), {}


def zope_exec(run, path, variables, text, names):
    """Evaluate a TALES expression as the caller (historic contract A.5).

    Its names: `here` and `context`, the object at `path`; `home` and `root`, the
    application root; `request` with `variables`; `user`, `modules`, `nothing`, and
    what `names` holds.
    """
    request = run.app.REQUEST
    for name, value in variables.items():
        request.set(name, value)
    here = reach(run.app, path)
    return expression.evaluate(text, {
        **names, 'here': here, 'context': here, 'container': here, 'home': run.app,
        'root': run.app, 'request': request})


def check_zope_call(args, kwargs):
    """Shape of zope_call: a bound method of a persistent object or a function, its arguments."""
    if not args:
        raise BadCall('zope_call takes a callable and its arguments; got nothing')
    return (reference(args[0]), *args[1:]), kwargs


def zope_call(run, target, /, *args, **kwargs):
    """Call what `reference` named, as the caller."""
    if type(target) is not Reference:
        # Also where a site gives this handler another name: nobody can name a function
        # by a text or a tuple that could not get hold of the function itself.
        raise BadCall('zope_call takes what was put through the door as a callable')
    if target.kind == 'function':
        return _import(target.where, target.name)(*args, **kwargs)
    context = traverse(run.app, target.where)
    method = getattr(context, target.name)
    if target.checked and not _may_call(context, target.name, method):
        raise Unauthorized(f"{'/'.join(target.where)}/{target.name}")
    return method(*args, **kwargs)


class Reference(NamedTuple):
    """The name of a callable.

    kind -- 'function', then `where` is its module, or 'method', then `where` is the
    path of its object. checked -- the caller was allowed to call the method when it
    was put, so it must still be when it is run. A method that was out of the caller's
    reach even then was put by trusted code: restricted code could not have got hold
    of it.
    """

    kind: str
    where: str | tuple
    name: str
    checked: bool = False


def reference(target):
    """The Reference of a callable.

    Raises BadCall for what can't be found again by name: lambdas, nested
    functions, methods of objects that have no path, and texts.
    """
    if not callable(target):
        raise BadCall(f'{told(target)} can not be called')
    # Restricted code makes classes, and says what it likes of their objects: of their path,
    # their module and who may call them. So a method is a real one, of an object that is in
    # the ZODB, and a function is found where it says it comes from.
    owner = target.__self__ if isinstance(target, MethodType) else None
    bare = aq_base(owner)
    # What only acquires a path, as a user does from its folder, has none of its own.
    if isinstance(bare, Persistent) and hasattr(bare, 'getPhysicalPath'):
        name = target.__name__
        path = owner.getPhysicalPath()
        if not path or path[0] != '':
            raise BadCall(f'the object of the method {name} is not reached from the root of '
                          'the application: take it by traversal')
        found = getattr(bare, name, None)
        if found is None or _function(found) is not _function(target):
            # An alias, a method overridden since: another would be called.
            raise BadCall(f"the object at {'/'.join(path)} has no such method by the name {name}")
        return Reference('method', path, name, _may_call(owner, name, target))
    module, qualified = getattr(target, '__module__', None), getattr(target, '__qualname__', None)
    if isinstance(module, str) and isinstance(qualified, str) and module != '__main__':
        if _found(module, qualified) is target:
            return Reference('function', module, qualified)
    raise BadCall(f'{told(target)} can not be found again by its name: give a bound method of an '
                  'object in the ZODB or a function of a module')


def _function(method):
    return getattr(method, '__func__', method)


def _may_call(context, name, method):
    try:
        return bool(getSecurityManager().validate(context, context, name, method))
    except Unauthorized:
        return False


def _import(module, qualified):
    """The object of that qualified name in that module."""
    __import__(module)
    return functools.reduce(getattr, qualified.split('.'), sys.modules[module])


def _found(module, qualified):
    """The same in a module that is imported already, as that of what exists is; or None."""
    try:
        return functools.reduce(getattr, qualified.split('.'), sys.modules[module])
    except (KeyError, AttributeError):
        return None


def reach(app, path):
    """The object at `path` if the caller may have it; LookupError or Unauthorized if not.

    Only the object itself is checked, not the folders above it: whoever may use
    an object need not be able to walk there.
    """
    found = traverse(app, path)
    if len(path) > 1:
        parent = aq_parent(aq_inner(found))
        if not getSecurityManager().validate(parent, parent, path[-1], found):
            raise Unauthorized('/'.join(path))
    return found


def traverse(app, path):
    """The object at `path`, a tuple, unchecked; raises LookupError with a sentence if none is."""
    found = at(app, path)
    if found is None:
        raise LookupError(f"there is nothing at {'/'.join(path)}")
    return found


def as_path(path):
    """A path as a tuple that starts with ''; takes texts and sequences of ids."""
    parts = path.split('/') if isinstance(path, str) else path
    if not isinstance(parts, (tuple, list)) or not all(isinstance(p, str) for p in parts):
        raise BadCall(f'{told(path)} is no path: give a text or a tuple of ids')
    if not parts or parts[0] != '':
        raise BadCall(f'the path {told(path)} does not start at the root')
    return ('', *(part for part in parts if part))


def _as_names(mapping, what):
    if not hasattr(mapping, 'items') or not all(isinstance(key, str) for key in mapping):
        raise BadCall(f'{what} are no mapping of names, but {told(mapping)}')
    return dict(mapping.items())


def check_unprotected_ldap(args, kwargs):
    """Arguments of unprotected_ldap; the password is sealed, where there is a secret key."""
    return _sealed(*ldapcall.check_unprotected(args, kwargs))


def check_protected_ldap(args, kwargs):
    """The same of protected_ldap."""
    return _sealed(*ldapcall.check_protected(args, kwargs))


def _sealed(args, kwargs):
    password = kwargs['password']
    if not isinstance(password, str) or not sealing.is_configured():
        return args, kwargs
    try:
        return args, {**kwargs, 'password': sealing.seal(password)}
    except SealingError as reason:
        raise BadCall(f'the password can not be stored: {reason}') from None


def check_echo(args, kwargs):
    """Anything will do."""
    return args, kwargs


def echo(run, /, *args, **kwargs):
    """What it was given: its one argument, or else the pair (arguments, keywords)."""
    return args[0] if len(args) == 1 and not kwargs else (args, kwargs)


def check_aggregate(args, kwargs):
    """Nothing is left to check: the door has made calls of the members."""
    return args, kwargs


def aggregate(run, first_failure):
    """The results of the calls that were waited for, a list in the order they were given.

    For one that failed the list holds its Failure; with `first_failure` that raises
    MemberFailed, at once. So it does for one whose result can't be read again.
    """
    outcomes = [_outcome(member) for member in run.awaited]
    if first_failure:
        for number, outcome in enumerate(outcomes, 1):
            if isinstance(outcome, Failure):
                plugin = run.awaited[number - 1].plugin
                raise MemberFailed(f'member {number} ({plugin}) failed: {outcome}')
    _check_all_ended(run)
    return outcomes


def _outcome(member):
    try:
        return member.result if member.failure is None else member.failure
    except TransientError:
        raise
    except Exception as error:  # unpickling runs foreign code, which may raise anything
        return Failure.from_exception(error)


def _check_all_ended(run):
    if not all(each.ended for each in run.awaited):
        raise StillRuns('a call that this one waited for runs once more')


def follow(run, id):
    """End as the call that was waited for did; its callbacks then get what that one had."""
    _check_all_ended(run)
    if not run.awaited:
        raise LookupError('the put of the call that was waited for was undone')
    followed, = run.awaited
    if followed.failure is not None:
        raise Relayed(followed.failure)
    return followed.result


BUILTIN = {
    'zope_exec': BuiltinPlugin(check_zope_exec, zope_exec, 'evaluates a TALES expression'),
    ZOPE_CALL: BuiltinPlugin(check_zope_call, zope_call, 'calls a method or a function'),
    AGGREGATE: BuiltinPlugin(check_aggregate, aggregate, 'waits for several other calls'),
    'echo': BuiltinPlugin(check_echo, echo, 'returns what it is given', groupable=True),
    'unprotected_ldap': BuiltinPlugin(
        check_unprotected_ldap, None, 'asks an LDAP server, without encryption'),
    'protected_ldap': BuiltinPlugin(
        check_protected_ldap, None, 'asks an LDAP server, by TLS'),
}

#: What callers may name before any worker has told what it offers.
NAMES = (*BUILTIN, SCHEDULE)

#: What a worker and a direct run know besides.
INTERNAL = {FOLLOW: BuiltinPlugin(None, follow, 'runs callbacks that were added late')}
