"""Cron: the times that a cron expression names on the clocks of a time zone. Pure.

Where clocks are put forward or back there are times of day that do not exist, and others
that exist twice. An expression with ``*`` as its hour tells of elapsed time: it goes on in
its step, through both of two equal hours. Any other tells a time of day: one that does not
exist is the first moment after the gap, one that exists twice is the first of the two.

Imports: errors.
"""

import datetime
import functools
import re
import zoneinfo
from dataclasses import dataclass

from cronsim import CronSim

from .errors import BadCall
from .errors import told


#: Longest expression, in characters.
LONGEST = 200

FIELDS = ('minute', 'hour', 'day of the month', 'month', 'day of the week')

#: Short forms of expressions.
SHORT = {'@hourly': '0 * * * *', '@daily': '0 0 * * *', '@midnight': '0 0 * * *',
         '@weekly': '0 0 * * 0', '@monthly': '0 0 1 * *', '@yearly': '0 0 1 1 *',
         '@annually': '0 0 1 1 *'}

#: A range of one value and a step, which CronSim takes for that value and all after it.
_SINGLE = re.compile(r'(?<![-\w])0*(\w+)-0*\1/0*[1-9]\d*(?![-/\w])', re.ASCII | re.IGNORECASE)
#: Some day: whether an expression names any time at all is tried from here.
_SOME_DAY = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_MINUTE = datetime.timedelta(minutes=1)


@dataclass(frozen=True)
class Timetable:
    """A cron expression in a time zone.

    expression -- minute, hour, day of the month, month, day of the week; or one of SHORT.
    zone -- name of a time zone, as 'Europe/Berlin'.

    Raises BadCall.
    """

    expression: str
    zone: str = 'UTC'

    def __post_init__(self):
        check_expression(self.expression)
        check_zone(self.zone)

    def next_after(self, moment):
        """The first time after `moment`, both in POSIX seconds; None if there is none."""
        return _next(self.expression, self.zone, moment)

    def times_after(self, moment, number):
        """The first `number` times after `moment`, POSIX seconds."""
        found = []
        while len(found) < number:
            moment = self.next_after(moment)
            if moment is None:
                break
            found.append(moment)
        return found


def check_expression(expression):
    """Raise BadCall if that is no cron expression, or one that names no time."""
    if not isinstance(expression, str) or len(expression) > LONGEST:
        raise BadCall(f'a cron expression is a text of at most {LONGEST} characters, '
                      f'not {told(expression, 300)}')
    if expression.strip().startswith('@') and expression.strip().lower() not in SHORT:
        raise BadCall(f'{told(expression)} is no short form of a cron expression; there are '
                      f"{', '.join(SHORT)}")
    number = len(_full(expression).split())
    if number != len(FIELDS):
        raise BadCall(f'{told(expression)} is no cron expression: it has {number} fields, not the '
                      f"five {', '.join(FIELDS)}")
    try:
        for _ in _walls(expression, _SOME_DAY):
            return
    except Exception as reason:  # the parser has assertions, and meets mixed types in some
        why = reason or 'it makes no sense'
        raise BadCall(f'{told(expression)} is no cron expression: {why}. '
                      f"The fields are {', '.join(FIELDS)}") from None
    raise BadCall(f'the cron expression {told(expression)} names no time: there is no such day')


def check_zone(zone):
    """Raise BadCall if no time zone has that name."""
    if not isinstance(zone, str) or zone not in zones():
        raise BadCall(f"there is no time zone {told(zone, 100)}; names are as 'Europe/Berlin' or "
                      "'UTC'")


@functools.cache
def zones():
    """The names of all time zones, a frozenset."""
    return frozenset(zoneinfo.available_timezones())


def _next(expression, zone, moment):
    zone = zoneinfo.ZoneInfo(zone)
    start = datetime.datetime.fromtimestamp(moment, zone)
    if _full(expression).split()[1] != '*':
        start = start.replace(tzinfo=None)
    for wall in _walls(expression, start):
        found = _existing(wall, zone).timestamp()
        # Equal: a time in the gap, and one at its end. Before: the second of two hours.
        if found > moment:
            return found
    return None


def _walls(expression, start):
    """Iterate over the times after `start`; ends when there is none in fifty years."""
    return _Walls(_full(expression), start)


class _Walls(CronSim):

    def advance_minute(self):
        """Where there is one minute only, CronSim adds what is left to it on the clocks."""
        before = self.dt
        has_moved = super().advance_minute()
        if before.utcoffset() != self.dt.utcoffset():
            # They have changed meanwhile, by half an hour it may be, and it is elsewhere.
            self.dt = before.replace(second=0)
            while self.dt.minute not in self.minutes:
                self.tick(60)
        return has_moved


def _full(expression):
    return _SINGLE.sub(r'\1', SHORT.get(expression.strip().lower(), expression))


def _existing(wall, zone):
    """The moment at which the clocks of the zone first show `wall`, or skip over it."""
    if wall.tzinfo is not None:  # it has been told of in elapsed time
        return wall
    while True:
        found = wall.replace(tzinfo=zone, fold=0)
        if found.astimezone(datetime.UTC).astimezone(zone).replace(tzinfo=None) == wall:
            return found
        wall += _MINUTE
