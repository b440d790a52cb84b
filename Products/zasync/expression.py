"""The one TALES evaluator: compiled at the door, evaluated as the caller.

Zope's untrusted engine does both, so ``python:`` is restricted Python and every
access is checked against the user the security manager holds.

Imports: errors.
"""

from functools import lru_cache

from AccessControl import getSecurityManager
from Products.PageTemplates.Expressions import getEngine
from Products.PageTemplates.Expressions import SecureModuleImporter

from .errors import BadCall
from .errors import told


def check(text):
    """Compile `text`; raises BadCall with the reason if it is no TALES expression."""
    if not isinstance(text, str):
        raise BadCall(f'the expression is no text but {type(text).__name__}')
    _compiled(text)


@lru_cache(maxsize=1_000)
def _compiled(text):
    try:
        return getEngine().compile(text)
    except Exception as reason:  # the engine runs several parsers, each with errors of its own
        raise BadCall(f'the expression {told(text)} can not be compiled: {reason!s:.500}'
                      ) from reason


def evaluate(text, names):
    """The value of the expression `text` with `names` (mapping of objects) in reach.

    Raises what the expression raises; Unauthorized where its user may not.
    """
    everything = {'nothing': None, 'options': {}, 'user': getSecurityManager().getUser(),
                  'modules': SecureModuleImporter, **names}
    return getEngine().getContext(everything).evaluate(_compiled(text))
