"""Progress and tables for people, on a terminal or in a log file.

Imports: nothing of ours.
"""

import sys
import time


WIDTH = 30

#: Without a terminal a line of progress is printed so often. Seconds. Shorter: logs fill up.
LINE_SECONDS = 5.0


class Progress:
    """A bar that moves in its line on a terminal, and a line now and then elsewhere."""

    def __init__(self, label, total, unit, stream=None):
        self.label, self.total, self.unit = label, total, unit
        self.stream = stream or sys.stdout
        self._started = self._printed_at = time.monotonic()

    def show(self, done):
        now = time.monotonic()
        if self.stream.isatty():
            self.stream.write('\r' + self._line(done, now))
        elif now - self._printed_at >= LINE_SECONDS:
            self._printed_at = now
            self.stream.write(self._line(done, now) + '\n')
        self.stream.flush()

    def end(self, done):
        """The last state, which stays; -> seconds since the beginning."""
        now = time.monotonic()
        if self.stream.isatty():
            self.stream.write('\r')
        self.stream.write(self._line(done, now) + '\n')
        self.stream.flush()
        return now - self._started

    def remark(self, text):
        """A line of its own, above the bar."""
        if self.stream.isatty():
            self.stream.write('\r' + ' ' * 79 + '\r')
        self.stream.write('  %s\n' % text)
        self.stream.flush()

    def _line(self, done, now):
        filled = WIDTH * done // self.total if self.total else WIDTH
        return '  %-26s [%s%s] %5s of %s %s, %4.1f s' % (
            self.label, '#' * filled, '.' * (WIDTH - filled), number(done), number(self.total),
            self.unit, now - self._started)


def number(value):
    """1234 -> '1,234', None -> '-'; text stays as it is."""
    if value is None:
        return '-'
    return value if isinstance(value, str) else f'{value:,}'


def table(heads, rows):
    """Lines of a table: a name, then one right-aligned cell for each head."""
    name_width = max(len(name) for name, *_ in rows)
    widths = [max(len(head), *(len(number(row[i])) for row in rows))
              for i, head in enumerate(heads, 1)]
    return [name.ljust(name_width) + ''.join(
                '  %*s' % (width, number(cell)) for width, cell in zip(widths, cells, strict=True))
            for name, *cells in [('', *heads), *rows]]
