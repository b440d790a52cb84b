"""What the form of a periodic call says: typed text → values, and values → text.

A field that is wrong leaves a sentence; nothing is raised and nothing is stored here.

Imports: showing, builtin, cron, options, expression, errors, clock, callpages.
"""

import ast
import datetime
from zoneinfo import ZoneInfo
from zoneinfo import ZoneInfoNotFoundError

from .. import builtin
from .. import clock
from .. import cron
from .. import expression
from .. import showing
from ..errors import BadCall
from ..options import Options
from ..options import Retry
from .callpages import moment


#: What the form may call: an expression on an object, any plugin, or what it calls already.
EXEC, PLUGIN, KEEP = 'zope_exec', 'plugin', 'keep'

#: Fields of the form and what a new one has in them.
DEFAULTS = {
    'id': '', 'title': '', 'expression': '0 3 * * *', 'zone': 'UTC', 'kind': EXEC, 'path': '/',
    'tales': '', 'plugin': '', 'arguments': '()', 'keywords': '{}', 'priority': '0',
    'timeout': '', 'expires': '', 'attempts': '', 'series': ''}

#: The text fields of the form, before and after the choice of what to call: name, label,
#: help, id of the list of what may be chosen.
PARTS = (
    (('title', 'Title', 'For people; may be empty.', None),
     ('expression', 'Cron expression', (
        'Minute, hour, day of the month, month, day of the week; '
        f"or {', '.join(cron.SHORT)}."), None),
     ('zone', 'Time zone', 'Whose clocks count, as Europe/Berlin.', 'zones')),
    None,
    (('path', 'Path', 'For an expression: of the object that is here in it.', None),
     ('tales', 'TALES expression', 'As python: here.cleanUp()', None),
     ('plugin', 'Plugin', 'For a plugin: its name.', 'plugins'),
     ('arguments', 'Arguments', "Of the plugin, a literal of Python, as (1, 'two').", None),
     ('keywords', 'Keywords', "Of the plugin, a literal of Python, as {'name': 3}.", None),
     ('priority', 'Priority', 'Higher first; 0 is usual.', None),
     ('timeout', 'Time-out', 'Seconds that a run may take; empty for what the plugin says.',
      None),
     ('expires', 'Expires', 'Seconds after which it is not begun any more; empty for never.',
      None),
     ('attempts', 'Attempts', (
        'How often it is tried in all; 0 for never twice, not even after an interruption; '
        'empty for what the plugin says.'), None),
     ('series', 'Series', 'Calls of one series never run at the same time; may be empty.',
      None)))


class Reader:
    """Reads fields, and keeps the sentences about those that are wrong."""

    def __init__(self, values):
        self.values = values
        self.errors = {}

    def read(self, name, action, *more):
        """action(the text of that field); None if it refuses it."""
        try:
            return action(self.values[name], *more)
        except BadCall as reason:
            self.errors[name] = str(reason)
            return None


def read_call(found):
    """(plugin, args, kwargs) of what was typed."""
    if found.values['kind'] == EXEC:
        path = found.read('path', lambda text: builtin.as_path(text.strip()))
        found.read('tales', _check_tales)
        return EXEC, (path, {}, found.values['tales']), {}
    if found.values['kind'] != PLUGIN:
        found.errors['kind'] = 'Choose what to call.'
    return (found.values['plugin'],
            found.read('arguments', _literal, (tuple, list), '(1, "two")'),
            found.read('keywords', _names, '{"name": 3}'))


def _check_tales(text):
    if not text.strip():
        raise BadCall('Give an expression.')
    expression.check(text)


def _names(text, example):
    value = _literal(text, dict, example)
    if not all(isinstance(name, str) for name in value):
        raise BadCall(f'Keywords are names, as {example}; not {text!r:.200}')
    return value


def _literal(text, kinds, example):
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, kinds):
        raise BadCall(f'Give a literal of Python, as {example}, not {text!r:.200}')
    return value


def read_options(found, periodic):
    """The Options of what was typed; None if something is wrong."""
    given = {name: found.read(name, _number, kind) for name, kind in (
        ('priority', int), ('timeout', float), ('expires', float), ('attempts', int))}
    try:
        expires = given['expires'] and datetime.timedelta(seconds=given['expires'])
    except (OverflowError, ValueError):
        expires = None
        found.errors['expires'] = 'So many seconds can not be counted.'
    retry = False if given['attempts'] == 0 else given['attempts']
    kept = None if periodic is None else periodic.call.retry
    if kept and kept[0] == given['attempts']:
        retry = Retry(*kept)  # with the waits that were set from Python
    fields = {'priority': {'priority': given['priority'] or 0},
              'timeout': {'timeout': given['timeout']}, 'expires': {'expires': expires},
              'attempts': {'retry': retry},
              'series': {'series': found.values['series'].strip() or None}}
    for name, options in fields.items():
        if name not in found.errors:
            found.read(name, lambda _, options: Options(**options), options)
    if found.errors:
        return None
    return Options(**{key: value for options in fields.values() for key, value in options.items()})


def _number(text, kind):
    """A number, None for an empty text."""
    if not text.strip():
        return None
    try:
        return kind(text.strip())
    except ValueError:
        what = 'a whole number' if kind is int else 'a number of seconds'
        raise BadCall(f'Give {what}, not {text!r:.200}') from None


def values_of(periodic):
    """What the form of a periodic call shows in its fields."""
    call, timetable = periodic.call, periodic.timetable
    literal = None if call.members or call.not_before else showing.literal(call.arguments)
    args, kwargs = literal or ((), {})
    values = {
        **DEFAULTS, 'id': periodic.id, 'title': periodic.title, 'kind': PLUGIN,
        'expression': timetable.expression, 'zone': timetable.zone, 'plugin': call.plugin,
        'arguments': repr(args), 'keywords': repr(kwargs), 'priority': str(call.priority),
        'timeout': _shown_seconds(call.timeout_seconds),
        'expires': _shown_seconds(
            None if call.expires_at is None else round(call.expires_at - call.put_at, 6)),
        'attempts': '' if call.retry is None else str(call.retry[0] if call.retry else 0),
        'series': call.series or ''}
    if literal is None:
        values.update(kind=KEEP, plugin='')
    elif call.plugin == EXEC and args[1] == args[3] == {}:
        values.update(kind=EXEC, path='/'.join(args[0]) or '/', tales=args[2], plugin='',
                      arguments='()')
    return values


def _shown_seconds(seconds):
    """As they may be typed: nothing is changed by a form that is saved as it came."""
    return '' if seconds is None else repr(float(seconds)).removesuffix('.0')


def row_of(periodic, queue, now):
    """What the pages show of a periodic call: {name: text}."""
    last, tick = periodic.last, periodic.next_tick(now)
    zone = periodic.timetable.zone
    row = {
        'id': periodic.id, 'title': periodic.title, 'paused': periodic.paused,
        'expression': periodic.timetable.expression, 'zone': zone,
        'next': ('', '') if tick is None else shown_tick(tick, zone),
        'due': tick is not None and tick <= now, 'asked': periodic.is_asked(),
        'caller': str(periodic.call.caller), 'running': periodic.is_running(),
        'call': '', 'filed': False, 'state': '', 'at': '', 'outcome': '', 'failed': False}
    if last is not None:
        failure = last.failure
        outcome = ''
        if failure is not None:
            outcome = str(failure)
        elif last.state == 'resolved':
            outcome = showing.shown(last._result)
        row.update(call=last.id, filed=queue.find(last.id) is not None, state=last.state,
                   at=moment(last.ended_at or last.started_at or last.put_at),
                   outcome=outcome[:200], failed=failure is not None)
    return row


def called_by(call):
    """What a call calls, as texts: plugin and arguments."""
    if call.members:
        return call.plugin, ', '.join(member.plugin for member in call.members)
    return call.plugin, showing.shown(call.arguments)


def shown_ticks(timetable, now, number):
    """The next ones as shown_tick has them; none if nobody here knows the time zone."""
    try:
        return [shown_tick(tick, timetable.zone) for tick in timetable.times_after(now, number)]
    except ZoneInfoNotFoundError:
        return []


def shown_tick(tick, zone):
    """(on the clocks of the zone, UTC) of a tick, as texts."""
    there = clock.as_datetime(tick).astimezone(ZoneInfo(zone))
    return there.strftime('%Y-%m-%d %H:%M %Z'), moment(tick)
