"""The commands that look into the database: list, show, retry, cancel, pause, drain, …

Each is a callable(config, options, clock) → exit code; options are those of the command
line.

Imports: access, callview, datatypes, metrics, pidfile, plaintext, errors, zasync.
"""

import json

from Products.zasync import listing
from Products.zasync.deferred import has_ended
from Products.zasync.interfaces import FAILED
from Products.zasync.listing import LEAST
from Products.zasync.listing import MOST

from . import callview
from . import metrics as numbers
from . import pidfile
from .access import opened
from .datatypes import has_prometheus
from .datatypes import NO_PROMETHEUS
from .errors import NotSo
from .errors import WorkerError
from .plaintext import moment
from .plaintext import safe


def status(config, options, clock):
    """Whether the worker runs, and what waits."""
    found = pidfile.worker_of(config)
    facts = {'running': found is not None, 'target': '/'.join(config.target)}
    if found is not None:
        facts.update(pid=found.pid or None, here=found.is_here, host=found.told.get('host'),
                     since=found.told.get('started_at'), serving=found.serving,
                     replaced=found.told.get('replaced', 0),
                     replaced_because=found.told.get('replaced_because'))
    try:
        with opened(config, clock) as target:
            facts.update(target.read(_counts))
    except WorkerError as reason:
        facts['trouble'] = str(reason)
    _print_json(facts) if options.json else print(status_text(facts, found))
    return 0 if found is not None else 1


def _counts(manager):
    queue = manager.queue
    holder = f'process {queue.card.pid} on {queue.card.host}' if queue.desk.boot else None
    return {'waiting': manager.lenNewCalls(), 'running_calls': manager.lenAcceptedCalls(),
            'failed_calls': queue.length_failed(), 'paused': manager.paused, 'desk': holder}


def status_text(facts, found):
    """What `status` found out, in a line."""
    if found is None:
        parts = ['not running']
        if facts.get('desk'):
            parts.append(f"{facts['desk']} has not signed off from {facts['target']}")
    else:
        who = f'process {found.pid}' if found.is_here else f'{found}, not to be reached from here'
        since = f"since {moment(facts['since'])} UTC, " if facts['since'] else ''
        what = ('serving %s' if found.serving else 'not serving %s any more' if found.lost
                else 'not serving %s yet')
        parts = [f"running, {who} {since}{what % facts['target']}"]
        if facts['replaced']:
            often = 'once,' if facts['replaced'] == 1 else f"{facts['replaced']} times, last"
            parts.append(f"it has replaced itself {often} because {facts['replaced_because']}")
    if 'trouble' in facts:
        parts.append(facts['trouble'])
    else:
        parts.append(f"{facts['waiting']} waiting, {facts['running_calls']} running"
                     + (', paused' if facts['paused'] else ''))
    return safe('; '.join(parts))


def metrics(config, options, clock):
    """What the database tells of the queue, in the text format of Prometheus."""
    if not has_prometheus():
        raise NotSo(f'metrics {NO_PROMETHEUS}')
    found = pidfile.worker_of(config)
    is_served = found is not None and found.serving
    with opened(config, clock) as target:
        facts = target.read(lambda manager: numbers.facts_of(manager, clock.now(), is_served))
    print(numbers.text(numbers.Collector(config.target, lambda: facts)), end='')
    return 0


def list_calls(config, options, clock):
    """The calls of the target, as a table."""
    with opened(config, clock) as target:
        calls = target.read(lambda manager: some_calls(manager, options))
    if options.json:
        _print_json(calls)
    else:
        print(*(callview.listed(calls) if calls else ['no such calls']), sep='\n')
    return 0


def some_calls(manager, options):
    """Summaries of the calls that the options ask for, taken page by page."""
    found, last = [], None
    while True:
        most = min(MOST, options.limit - len(found))
        page = manager.calls(state=options.state, plugin=options.plugin, user=options.user,
                             start=last, limit=most)
        found += map(callview.summary, page)
        if len(page) < most or len(found) == options.limit:
            return found
        last = page[-1].id


def show(config, options, clock):
    """All of one call."""
    with opened(config, clock) as target:
        call = target.read(
            lambda manager: callview.details(target.find(manager, options.id)))
    if options.json:
        _print_json(call)
    else:
        print(*callview.lines(call), sep='\n')
    return 0


def retry(config, options, clock):
    """Have a failed call, or all of them, run again."""
    with opened(config, clock) as target:
        if options.all:
            print(f'{_calls(_retry_all(target))} put again')
            return 0

        def again(manager):
            deferred = target.find(manager, options.id)
            if deferred.state != FAILED:
                raise NotSo(f'the call {deferred.id} is {deferred.state}: only one that failed '
                            'can be put again')
            try:
                manager.retry(deferred.id)
            except KeyError as reason:  # it is in none of the managers there
                raise NotSo(reason.args[0]) from reason

        target.change(f'retry {options.id}', again)
    print(f'the call {options.id} was put again')
    return 0


def _retry_all(target):
    """Have run again what has failed by now, each once: it may fail meanwhile; → how many."""
    total, ids = 0, target.read(lambda manager: [
        *manager.queue.failed, *manager.queue.desk.running, *manager.queue.desk.reserved])

    def again(manager, most):
        try:
            return sum(manager.retry(id) for id in ids[:most]
                       if manager.queue.find(id) is not None)
        except KeyError as reason:  # it is in none of the managers there
            raise NotSo(reason.args[0]) from reason

    for number, most in _parts(target, 'retry --all', again):
        total += number
        del ids[:most]
        if not ids:
            return total


def cancel(config, options, clock):
    """End a call that has not ended."""
    with opened(config, clock) as target:
        def end(manager):
            deferred = target.find(manager, options.id)
            if not manager.cancel(deferred.id):
                raise NotSo(f'the call {deferred.id} has ended already: it is {deferred.state}')

        target.change(f'cancel {options.id}', end)
    print(f'the call {options.id} is cancelled')
    return 0


def pause(config, options, clock):
    """Have no more calls begun."""
    with opened(config, clock) as target:
        changed = target.change('pause', lambda manager: manager.pause())
    print(f"{target.where} {'is paused: calls wait' if changed else 'was paused already'}")
    return 0


def resume(config, options, clock):
    """End a pause."""
    with opened(config, clock) as target:
        changed = target.change('resume', lambda manager: manager.resume())
    print(f"{target.where} {'goes on' if changed else 'was not paused'}")
    return 0


def drain(config, options, clock):
    """Pause, and wait until nothing runs."""
    with opened(config, clock) as target:
        def begin(manager):
            manager.pause()
            manager.ping()

        def is_quiet(manager):
            # The beat that answers has seen the pause: an earlier one may still be claiming.
            queue = manager.queue
            return not manager.lenAcceptedCalls() and (
                not queue.desk.boot or queue.pulse.answered == queue.ping.asked_at)

        target.change('drain', begin)
        quiet = target.wait(is_quiet, options.wait)
        running = target.read(lambda manager: [
            deferred.id for calls in (manager.queue.desk.running, manager.queue.desk.reserved)
            for deferred in calls.values() if not has_ended(deferred)])
    if quiet:
        print(f'{target.where} is paused and nothing runs')
        return 0
    if running:
        raise NotSo(f'{target.where} is paused, but after {options.wait:g} s '
                    f"{_calls(len(running))} had not ended: {', '.join(sorted(running))}")
    print(f'{target.where} is paused and nothing runs; its worker gave no sign of life')
    return 0


def purge(config, options, clock):
    """Drop ended calls."""
    total = 0

    def drop(manager, most):
        return listing.purge(manager.queue, options.state, options.older_than, clock.now(), most)

    with opened(config, clock) as target:
        for number, most in _parts(target, f'purge {options.state}', drop):
            total += number
            if number < most:
                break
    print(f'{_calls(total)} dropped')
    return 0


def ping(config, options, clock):
    """Whether the worker answers, and how soon."""
    with opened(config, clock) as target:
        began = clock.monotonic()
        target.change('ping', lambda manager: manager.ping())
        answered = target.wait(
            lambda manager: manager.queue.pulse.answered == manager.queue.ping.asked_at,
            options.wait)
        milliseconds = round((clock.monotonic() - began) * 1000, 1)
    if not answered:
        if options.json:
            _print_json({'answered': False, 'milliseconds': None})
        raise NotSo(f'the worker of {target.where} did not answer in {options.wait:g} s')
    if options.json:
        _print_json({'answered': True, 'milliseconds': milliseconds})
    else:
        print(f'the worker of {target.where} answered in {milliseconds:.0f} ms')
    return 0


def _parts(target, what, action):
    """Commit action(manager, most) for ever; yields what it returns, and `most`.

    Fewer at a time once that has met what a worker files meanwhile, or others put.
    """
    most = MOST

    def part(manager):
        nonlocal most, tried
        if tried:
            most = max(LEAST, most // 2)
        tried = True
        return action(manager, most)

    while True:
        tried = False
        number = target.change(what, part)
        yield number, most


def _calls(number):
    return f"{number} call{'' if number == 1 else 's'}"


def _print_json(value):
    print(json.dumps(value, indent=2))
