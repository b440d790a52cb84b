"""The door: from the arguments of a put to a Call, or a refusal with its reason.

Imports: builtin, payload, security, call, clock, errors.
"""

from . import clock
from . import payload
from .builtin import BUILTIN
from .call import Call
from .errors import UnknownPlugin
from .security import capture


def make_call(offered, session, plugin, args, kwargs):
    """The Call of these arguments, put now by whoever runs this code.

    offered -- names of the plugins the worker has told of; the built-in ones are
    always known. session -- None or ``(browser_id,)``.
    Raises UnknownPlugin or BadCall.
    """
    if not isinstance(plugin, str):
        raise UnknownPlugin(f'the name of a plugin is a text, not {plugin!r}')
    if plugin in BUILTIN:
        args, kwargs = BUILTIN[plugin].check(args, kwargs)
    elif plugin not in offered:
        known = ', '.join(sorted({*BUILTIN, *offered}))
        raise UnknownPlugin(f'there is no plugin {plugin!r}; known are: {known}')
    return Call(plugin, payload.dump_arguments(args, kwargs), capture(), _put_time(),
                session=None if session is None else session[0])


def _put_time():
    """Now, in whole milliseconds: the id of a call tells its put time exactly."""
    return round(clock.SYSTEM.now() * 1000) / 1000
