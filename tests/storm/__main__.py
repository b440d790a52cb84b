"""The storm: ``python -m tests.storm --seeds "1 2 3" --minutes 5``.

Each seed is a site of its own, which people use while it is killed, cut, stopped, filled and
packed; see `plan`. The last line is a summary; the exit code is 1 if anything was violated.

Imports: plan, world, facts, checker.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.storm import checker
from tests.storm import facts
from tests.storm import plan
from tests.storm.world import World


#: Of many violations of one kind, so many are shown.
SHOWN = 10


def storm(directory, seed, seconds, faults=None, **world):
    """One storm in that directory; → (list of Violations, {what: how often})."""
    faults = plan.faults(seed, seconds) if faults is None else faults
    with World(Path(directory), seed, seconds, faults, **world) as site:
        site.run()
        counts = dict(site.counts)
        known = facts.gather(site)
    ends = Counter(line['event'] for line in known.lines)
    states = Counter(fate.state for fate in known.fates.values())
    kills = sum(number for kind, number in counts.items() if kind.startswith('kill'))
    counts.update(calls=len(known.fates), requests=ends['asked'], committed=ends['committed'],
                  conflicts=ends['refused'], unknown=ends['unknown'], runs=ends['ran'],
                  kills=kills + counts.get('poison', 0), **states)
    return checker.check(known), counts


def main():
    options = _parse()
    if options.one is not None:
        return _one(options)
    waiting, running, total, violations = list(options.seeds.split()), [], Counter(), 0
    failed = []
    while waiting or running:
        while waiting and len(running) < options.at_once:
            seed = waiting.pop(0)
            running.append((seed, _start(seed, options)))
        for seed, process in running:
            if process.poll() is None:
                continue
            running.remove((seed, process))
            text = process.stdout.read()
            print(text, end='', flush=True)
            try:
                told = json.loads(text.splitlines()[-1])
            except (ValueError, IndexError):  # it broke down
                failed.append(seed)
                break
            total.update(told['counts'])
            violations += told['violations']
            if told['violations']:
                failed.append(seed)
            break
        else:
            time.sleep(0.2)
    number = len(options.seeds.split())
    print(f'{number} storms of {options.minutes:g} min: {total["calls"]} calls, '
          f'{total["runs"]} runs, {total["kills"]} kills, {total["restarts"]} restarts, '
          f'{_faults(total)} other faults, {violations} violations'
          + (f'; seeds with violations, or that broke down: {" ".join(failed)}' if failed else ''))
    return 1 if failed else 0


def _faults(counts):
    return sum(counts[kind] for kind in plan.KINDS if not kind.startswith('kill'))


def _parse():
    parser = argparse.ArgumentParser(prog='python -m tests.storm', description='A storm.')
    parser.add_argument('--seeds', default='1', help='texts, one storm each')
    parser.add_argument('--minutes', type=float, default=5.0, help='how long faults happen')
    parser.add_argument('--at-once', type=int, default=1, metavar='N',
                        help='storms at the same time')
    parser.add_argument('--keep', metavar='DIRECTORY', help='keep all files there')
    parser.add_argument('--plan', action='store_true', help='only print what would happen')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        for seed in options.seeds.split():
            for fault in plan.faults(seed, options.minutes * 60):
                print(f'seed {seed}: {fault.at:7.2f} s  {fault.kind} {fault.who} for '
                      f'{fault.seconds:.2f} s')
        sys.exit(0)
    return options


def _start(seed, options):
    argv = [sys.executable, '-m', 'tests.storm', '--one', seed, '--minutes', str(options.minutes)]
    if options.keep:
        argv += ['--keep', options.keep]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def _one(options):
    """The storm of one seed; prints what it found, and as JSON in the last line how much."""
    place = Path(options.keep or tempfile.mkdtemp(prefix='zasync-storm-')) / f'seed-{options.one}'
    place.mkdir(parents=True)
    began = time.monotonic()
    violations, counts = storm(place, options.one, options.minutes * 60)
    by_kind = Counter(each.invariant for each in violations)
    for kind in by_kind:
        for each in [each for each in violations if each.invariant == kind][:SHOWN]:
            print(f'seed {options.one}: {each}')
    print(f'seed {options.one}: {len(violations)} violations in {time.monotonic() - began:.0f} s; '
          + ', '.join(f'{counts[what]} {what}' for what in sorted(counts)))
    print(json.dumps({'violations': len(violations), 'counts': counts}))
    if options.keep or violations:
        print(f'seed {options.one}: its files are in {place}', file=sys.stderr)
    else:
        shutil.rmtree(place.parent)
    return 1 if violations else 0


if __name__ == '__main__':
    sys.exit(main())
