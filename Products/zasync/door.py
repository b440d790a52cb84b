"""The door: from the arguments of a put to a Call, or a refusal with its reason.

Imports: builtin, options, payload, security, call, clock, errors.
"""

import datetime
import math
from dataclasses import replace

from . import clock
from . import payload
from .builtin import AGGREGATE
from .builtin import BUILTIN
from .builtin import NAMES
from .builtin import SCHEDULE
from .call import Call
from .errors import BadCall
from .errors import UnknownPlugin
from .options import Options
from .security import capture


#: Most members of an aggregate: each is a call of its own, put in the caller's request.
MEMBERS_MOST = 1_000

PLAIN = Options()


def make_call(offered, session, plugin, args, kwargs, options=PLAIN):
    """The Call of these arguments, put now by whoever runs this code.

    offered -- names of the plugins the worker has told of; the built-in ones are
    always known. session -- None or ``(browser_id,)``. options -- an Options.
    Raises UnknownPlugin or BadCall.
    """
    if not isinstance(options, Options):
        raise BadCall(f'the options are an Options, not {options!r}')
    door = _Door(offered, session, capture(), _put_time())
    return door.call(plugin, args, kwargs, options)


def plugins_wanted(plugin, args, kwargs):
    """The names of the plugins, other than built-in ones, that a call and its parts need.

    For a call of the wrong shape it may find too few: the door refuses that one anyway.
    """
    if plugin == SCHEDULE:
        return plugins_wanted(args[1], args[2:], kwargs) if len(args) > 1 else set()
    if plugin == AGGREGATE:
        members = args[0] if args else kwargs.get('calls')
        return {name for member in members if isinstance(member, (list, tuple)) and member
                for name in plugins_wanted(member[0], *_parts_or_nothing(member))
                } if isinstance(members, (list, tuple)) else set()
    return {plugin} if isinstance(plugin, str) and plugin not in NAMES else set()


def _parts_or_nothing(member):
    try:
        return _member_parts(member)[1:]
    except BadCall:
        return (), {}


class _Door:

    def __init__(self, offered, session, caller, put_at):
        self._offered = offered
        self._session = None if session is None else session[0]
        self._caller = caller
        self._put_at = put_at

    def call(self, plugin, args, kwargs, options=PLAIN):
        self._check_known(plugin)
        if plugin == SCHEDULE:
            return self._scheduled(args, kwargs, options)
        if plugin == AGGREGATE:
            if len(args) > 2 or set(kwargs) - {'calls', 'first_failure'}:
                raise BadCall('aggregate takes a list of calls and, if need be, first_failure; '
                              f'got {len(args)} arguments and the keywords {sorted(kwargs)}')
            members, hurried = self._members(
                **{**dict(zip(('calls', 'first_failure'), args, strict=False)), **kwargs})
            return self._made(plugin, (hurried,), {}, options)._replace(
                members=members, hurried=hurried)
        if plugin in BUILTIN:
            args, kwargs = BUILTIN[plugin].check(args, kwargs)
        return self._made(plugin, args, kwargs, options)

    def _check_known(self, plugin):
        if not isinstance(plugin, str):
            raise UnknownPlugin(f'the name of a plugin is a text, not {plugin!r}')
        if plugin not in NAMES and plugin not in self._offered:
            known = ', '.join(sorted({*NAMES, *self._offered}))
            raise UnknownPlugin(f'there is no plugin {plugin!r}; known are: {known}')

    def _made(self, plugin, args, kwargs, options):
        not_before, expires_at = options.times(self._put_at)
        return Call(plugin, payload.dump_arguments(args, kwargs), self._caller, self._put_at,
                    priority=options.priority, not_before=not_before, session=self._session,
                    expires_at=expires_at, timeout_seconds=options.timeout,
                    retry=options.stored_retry(), key=options.key, series=options.series)

    def _scheduled(self, args, kwargs, options):
        """schedule(seconds, plugin, *args, **kwargs): that call, not before so many seconds."""
        if len(args) < 2:
            raise BadCall('schedule takes a number of seconds, a plugin and its arguments')
        seconds, plugin, *rest = args
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) \
                or not math.isfinite(seconds):
            raise BadCall(f'schedule takes a number of seconds, not {seconds!r}')
        if seconds < 0:
            raise BadCall(f'schedule can not go back in time: {seconds!r} seconds')
        try:
            delay = datetime.timedelta(seconds=seconds)
        except OverflowError:
            raise BadCall(f'schedule can not wait {seconds!r} seconds') from None
        moment = options.times(self._put_at)[0] or self._put_at
        later = self._moment(moment, delay)
        return self.call(plugin, tuple(rest), kwargs, replace(options, not_before=later))

    @staticmethod
    def _moment(seconds, delay):
        try:
            return datetime.datetime.fromtimestamp(seconds, datetime.UTC) + delay
        except OverflowError:
            raise BadCall(f'schedule can not wait {delay}') from None

    def _members(self, calls=None, first_failure=False):
        """aggregate(calls, first_failure=False) → (tuple of Calls, bool)."""
        if not isinstance(calls, (list, tuple)) or not calls:
            raise BadCall('aggregate takes a list of calls, each (plugin, arguments) or '
                          f'(plugin, arguments, keywords), not {calls!r:.300}')
        if len(calls) > MEMBERS_MOST:
            raise BadCall(f'aggregate takes {MEMBERS_MOST:,} calls at most, not {len(calls):,}')
        if not isinstance(first_failure, bool):
            raise BadCall(f'first_failure is true or false, not {first_failure!r}')
        members = []
        for number, member in enumerate(calls, 1):
            try:
                members.append(self.call(*_member_parts(member)))
            except UnknownPlugin as reason:
                raise UnknownPlugin(f'member {number}: {reason}') from None
            except BadCall as reason:
                raise BadCall(f'member {number}: {reason}') from None
        return tuple(members), first_failure


def _member_parts(member):
    if not isinstance(member, (list, tuple)) or not 1 <= len(member) <= 3:
        raise BadCall('give it as (plugin, arguments) or (plugin, arguments, keywords), '
                      f'not {member!r:.300}')
    plugin, args, kwargs = (*member, (), {})[:3] if len(member) == 1 else (*member, {})[:3]
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
        raise BadCall(f'its arguments are a tuple and its keywords a mapping, not {args!r:.100} '
                      f'and {kwargs!r:.100}')
    return plugin, tuple(args), kwargs


def _put_time():
    """Now, in whole milliseconds: the id of a call tells its put time exactly."""
    return round(clock.SYSTEM.now() * 1000) / 1000
