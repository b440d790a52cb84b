"""``make bench``: one program, one table, each line beside the raw database of the same run.

``python -m bench.run [--only NAME] [--json FILE]``. It starts its own ZEO server
and processes, and names the machine. A bar that does not hold makes the exit
code 1.

Imports: lines, stack.
"""

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import version

from .lines import ASIDE
from .lines import LINES


def main(argv=None):
    """Run the lines asked for, print the table; → exit code."""
    options = _parser().parse_args(argv)
    chosen = [options.only] if options.only else [name for name in LINES if name not in ASIDE]
    print(machine(), flush=True)
    print(f'{"line":<58} {"value":>10} {"unit":<18} {"bar":<12} holds', flush=True)
    rows = []
    began = time.monotonic()
    try:
        for name in chosen:
            started = time.monotonic()
            for row in LINES[name]():
                rows.append(row)
                print(shown(row), flush=True)
            print(f'  ({name}: {time.monotonic() - started:.0f} s)', flush=True)
    finally:  # what was measured before a line failed
        if options.json:
            with open(options.json, 'w', encoding='utf-8') as file:
                json.dump([row._asdict() for row in rows], file, indent=1)
    print(f'({time.monotonic() - began:.0f} s in all)')
    broken = [row.name for row in rows if row.holds is False]
    if broken:
        print(f'bars that do not hold: {", ".join(broken)}')
    return 1 if broken else 0


def _parser():
    parser = argparse.ArgumentParser(prog='bench.run', description=__doc__.partition('\n')[0])
    parser.add_argument('--only', choices=sorted(LINES), help='run one line')
    parser.add_argument('--json', metavar='FILE', help='write the rows there as a JSON list')
    return parser


def machine():
    """A line that names the machine and the versions."""
    versions = ', '.join(f'{name} {version(name)}' for name in ('Zope', 'ZODB', 'ZEO'))
    return (f'{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, '
            f'{versions}, {time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}')


def shown(row):
    """A row of the table, and its runs."""
    holds = {True: 'yes', False: 'NO', None: ''}[row.holds]
    runs = ' '.join(f'{run:g}' for run in row.runs)
    return f'{row.name:<58} {row.value:>10g} {row.unit:<18} {row.bar:<12} {holds:<5} {runs}'


if __name__ == '__main__':
    sys.exit(main())
