"""Values → text for a terminal, and words of a command line → values.

What others named, put or raised may hold anything: nothing of it reaches a terminal
that the terminal would obey.

Imports: zasync.
"""

import re
import unicodedata

from Products.zasync.clock import as_datetime
from Products.zasync.failure import one_line


#: Seconds in each unit of a span of time.
UNITS = {'': 1, 's': 1, 'm': 60, 'h': 3600, 'd': 86400}


def safe(text, most=None):
    """`text` in one line of printable characters, cut to `most`; what is not is escaped."""
    text = str(text)
    return one_line(text if most is None or len(text) <= most else text[:most - 1] + '…')


def safe_lines(text):
    """The lines of `text`, each as `safe` makes it, but for tabs."""
    return [safe(line.expandtabs()) for line in str(text).splitlines()]


def table(head, rows):
    """Lines of aligned columns, of which the last is as long as it is."""
    rows = [[safe(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    return ['  '.join(cell + ' ' * (width - _width(cell))
                      for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def moment(seconds):
    """POSIX seconds as a date and time, UTC; '-' for None or 0."""
    return f'{as_datetime(seconds):%Y-%m-%d %H:%M:%S}' if seconds else '-'


def span(text):
    """Seconds of a span like 90, 30s, 15m, 1h or 2d; raises ValueError."""
    found = re.fullmatch(r'(\d+(?:\.\d+)?)([smhd]?)', text.strip(), re.ASCII)
    if not found or len(text) > 20:
        raise ValueError(f'a span of time is a number of seconds, or like 15m, 1h, 2d, not '
                         f'{text!r}')
    return float(found[1]) * UNITS[found[2]]


def _width(text):
    return sum(0 if unicodedata.combining(char)
               else 2 if unicodedata.east_asian_width(char) in 'WF' else 1 for char in text)
