"""The journal: what each process says it did, in files outside the ZODB, a JSON object a line.

A line is there when `note` returns, also if the process is killed in the next moment. Times are
monotonic seconds of this machine, the same in all its processes.

Imports: nothing of ours.
"""

import json
import os
import time
from pathlib import Path


#: The environment variable that names the directory.
PLACE = 'STORM_JOURNAL'

_files = {}


def note(event, **facts):
    """Append a line."""
    pid = os.getpid()
    if pid not in _files:
        _files[pid] = os.open(os.path.join(os.environ[PLACE], f'{pid}.jsonl'),
                              os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    line = json.dumps({'event': event, 'at': time.monotonic(), 'pid': pid, **facts})
    os.write(_files[pid], line.encode('utf-8') + b'\n')


def read(directory):
    """All lines of all processes, in the order of their times; list of dicts."""
    lines = [json.loads(line) for path in Path(directory).glob('*.jsonl')
             for line in path.read_text('utf-8').splitlines()]
    return sorted(lines, key=lambda line: line['at'])
