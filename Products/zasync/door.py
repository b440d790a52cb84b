"""The door: from the arguments of a put to a Call, or a refusal with its reason.

Imports: builtin, options, payload, security, call, clock, errors.
"""

import datetime
from dataclasses import replace

from . import clock
from . import payload
from .builtin import AGGREGATE
from .builtin import BUILTIN
from .builtin import INTERNAL
from .builtin import NAMES
from .builtin import SCHEDULE
from .builtin import ZOPE_CALL
from .call import Call
from .errors import BadCall
from .errors import told
from .errors import UnknownPlugin
from .options import bare
from .options import is_groupable
from .options import Options
from .security import capture


#: Most members of an aggregate, those of aggregates in it included: each is a call of its
#: own, put in the caller's request.
MEMBERS_MOST = 1_000
#: How deep aggregate and schedule may be put into each other.
DEPTH_MOST = 10

PLAIN = Options()


def make_call(offered, session, plugin, args, kwargs, options=PLAIN):
    """The Call of these arguments, put now by whoever runs this code.

    offered -- names of the plugins the worker has told of; the built-in ones are
    always known. session -- None or ``(browser_id,)``. options -- an Options.
    Raises UnknownPlugin or BadCall.
    """
    if not isinstance(options, Options):
        raise BadCall('the first argument of putCallWith is an Options, then come the plugin and '
                      f'its arguments; got {told(options, 100)}')
    door = _Door(offered, session, capture(), _put_time())
    return door.call(plugin, args, kwargs, options)


def plugins_wanted(plugin, args, kwargs):
    """The names of the plugins, other than built-in ones, that a call and its parts need.

    For a call that the door refuses it may find too few.
    """
    wanted, calls = set(), [(plugin, args, kwargs)]
    for plugin, args, kwargs in calls:  # which grows
        if plugin == SCHEDULE:
            calls += [(args[1], args[2:], kwargs)] if len(args) > 1 else []
        elif plugin == AGGREGATE:
            members = args[0] if args else kwargs.get('calls')
            calls += _parts_of_all(members) if isinstance(members, (list, tuple)) else []
        elif isinstance(plugin, str) and plugin not in NAMES:
            wanted.add(plugin)
        if len(calls) > MEMBERS_MOST * DEPTH_MOST:
            break
    return wanted


def _parts_of_all(members):
    try:
        return [_member_parts(member) for member in members[:MEMBERS_MOST]]
    except BadCall:
        return []


class _Door:

    def __init__(self, offered, session, caller, put_at):
        self._offered = offered
        self._session = None if session is None else session[0]
        self._caller = caller
        self._put_at = put_at
        self._depth = self._n_members = 0

    def call(self, plugin, args, kwargs, options=PLAIN):
        plugin = self._known(plugin)
        if plugin in (SCHEDULE, AGGREGATE):
            return self._of_calls(plugin, args, kwargs, options)
        groupable = plugin == ZOPE_CALL and is_groupable(args[0] if args else None)
        if plugin in BUILTIN:
            args, kwargs = BUILTIN[plugin].check(args, kwargs)
        return self._made(plugin, args, kwargs, options)._replace(groupable=groupable)

    def _of_calls(self, plugin, args, kwargs, options):
        """A call that is made of others."""
        if self._depth == DEPTH_MOST:
            raise BadCall(f'schedule and aggregate are put into each other {DEPTH_MOST} deep at '
                          'most')
        self._depth += 1
        try:
            make = self._scheduled if plugin == SCHEDULE else self._aggregated
            return make(args, kwargs, options)
        finally:
            self._depth -= 1

    def _known(self, plugin):
        """The name of a plugin that is known."""
        if not isinstance(plugin, str):
            raise UnknownPlugin(f'the name of a plugin is a text, not {told(plugin, 100)}')
        plugin = bare(plugin)
        known = {*NAMES, *self._offered}.difference(INTERNAL)
        if plugin not in known:
            raise UnknownPlugin(f'there is no plugin {told(plugin, 100)}; known are: '
                                f'{", ".join(sorted(known))}')
        return plugin

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
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise BadCall(f'schedule takes a number of seconds, not {told(seconds, 100)}')
        if seconds < 0:
            raise BadCall(f'schedule can not go back in time: {told(seconds, 100)} seconds')
        moment = options.times(self._put_at)[0] or self._put_at
        try:
            later = _moment(moment) + datetime.timedelta(seconds=seconds)
        except (OverflowError, ValueError):  # infinity, not a number, the year 10,000
            raise BadCall(f'schedule can not wait {told(seconds, 100)} seconds') from None
        if seconds:
            options = replace(options, not_before=later)
        return self.call(plugin, tuple(rest), kwargs, options)

    def _aggregated(self, args, kwargs, options):
        """aggregate(calls, first_failure=False): those calls, and one that waits for them.

        Priority and earliest time hold for the members as well.
        """
        given = dict(zip(('calls', 'first_failure'), args, strict=False))
        if len(args) > 2 or set(kwargs) - ({'calls', 'first_failure'} - set(given)):
            raise BadCall('aggregate takes a list of calls and, if need be, first_failure; '
                          f'got {len(args)} arguments and the keywords {sorted(kwargs)}')
        given = {'calls': None, 'first_failure': False, **given, **kwargs}
        if not isinstance(given['first_failure'], bool):
            raise BadCall('first_failure is true or false, not '
                          f'{told(given["first_failure"], 100)}')
        call = self._made(AGGREGATE, (given['first_failure'],), {}, options)
        theirs = Options(priority=options.priority,
                         not_before=_moment(call.not_before) if call.not_before else None)
        return call._replace(members=self._members(given['calls'], theirs),
                             hurried=given['first_failure'])

    def _members(self, calls, options):
        if not isinstance(calls, (list, tuple)) or not calls:
            raise BadCall('aggregate takes a list of calls, each (plugin, arguments) or '
                          f'(plugin, arguments, keywords), not {_kind(calls)}')
        self._n_members += len(calls)
        if self._n_members > MEMBERS_MOST:
            raise BadCall(f'aggregate takes {MEMBERS_MOST:,} calls at most, all in all')
        members = []
        for number, member in enumerate(calls, 1):
            try:
                members.append(self.call(*_member_parts(member), options))
            except UnknownPlugin as reason:
                raise UnknownPlugin(f'member {number}: {reason}') from None
            except BadCall as reason:
                raise BadCall(f'member {number}: {reason}') from None
        return tuple(members)


def _moment(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _member_parts(member):
    """(plugin, args, kwargs) of a member; raises BadCall."""
    if not isinstance(member, (list, tuple)) or not 1 <= len(member) <= 3:
        raise BadCall('give it as (plugin, arguments) or (plugin, arguments, keywords), '
                      f'not {_kind(member)}')
    plugin, args, kwargs = (*member, (), {})[:3] if len(member) == 1 else (*member, {})[:3]
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict) \
            or not all(isinstance(name, str) for name in kwargs):
        raise BadCall('its arguments are a tuple and its keywords a mapping of names, not '
                      f'{_kind(args)} and {_kind(kwargs)}')
    return plugin, tuple(args), kwargs


def _kind(value):
    """What a value is, and not what is in it: that may be a password."""
    size = f' of {len(value)}' if isinstance(value, (list, tuple, dict)) else ''
    return f'a {type(value).__name__}{size}'


def _put_time():
    """Now, in whole milliseconds: the id of a call tells its put time exactly."""
    return round(clock.SYSTEM.now() * 1000) / 1000
