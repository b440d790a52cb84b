"""A call as the commands list and show it: text for people, plain values for programs.

Imports: plaintext, zasync.
"""

from Products.zasync.interfaces import RESOLVED
from Products.zasync.showing import shown

from . import plaintext
from .plaintext import moment


#: The last column of a list, in characters.
REMARK_MOST = 60

LIST_HEAD = ('ID', 'PLUGIN', 'STATE', 'USER', 'PUT AT (UTC)', 'ATTEMPTS', 'REMARK')


def summary(deferred):
    """A call in a list, as plain values."""
    caller, failure = deferred.caller, deferred.failure
    return {
        'id': deferred.id, 'plugin': deferred.plugin, 'state': deferred.state,
        'user': caller.user_id or caller.special, 'put_at': deferred.put_at,
        'attempts': len(deferred.attempts), 'progress': _progress(deferred.progress),
        'failure': None if failure is None else str(failure)}


def listed(calls):
    """Lines of a table of summaries."""
    return plaintext.table(LIST_HEAD, [
        (call['id'], call['plugin'], call['state'], call['user'], moment(call['put_at']),
         call['attempts'],
         plaintext.safe(call['failure'] or _progress_text(call['progress']), REMARK_MOST))
        for call in calls])


def details(deferred):
    """All of one call, as plain values; times are POSIX seconds."""
    failure = deferred.failure
    return {
        **summary(deferred),
        'caller': str(deferred.caller), 'session_call': deferred.session is not None,
        'started_at': deferred.started_at, 'ended_at': deferred.ended_at,
        'not_before': deferred.not_before or None, 'expires_at': deferred.expires_at,
        'priority': deferred.priority, 'timeout_seconds': deferred.timeout_seconds,
        'retry': _retry(deferred.retry), 'key': deferred.key, 'series': deferred.series,
        'attempts': [attempt._asdict() for attempt in deferred.attempts],
        'arguments': shown(deferred._arguments),
        'memo': None if deferred._memo is None else shown(deferred._memo),
        'result': shown(deferred._result) if deferred.state == RESOLVED else None,
        'failure': None if failure is None else {
            'type_name': failure.type_name, 'text': failure.text,
            'traceback_text': failure.traceback_text}}


def lines(call):
    """Those details as lines of text."""
    failure, name = call['failure'], plaintext.safe
    facts = [(what, call[what]) for what in ('id', 'plugin', 'state', 'caller')]
    facts += [('session call', 'yes' if call['session_call'] else 'no')]
    facts += [(what, f'{moment(call[key])} UTC') for what, key in (
        ('put', 'put_at'), ('not before', 'not_before'), ('expires', 'expires_at'),
        ('started', 'started_at'), ('ended', 'ended_at')) if call[key]]
    facts += [(what, call[key]) for what, key in (
        ('priority', 'priority'), ('timeout', 'timeout_seconds'), ('retry', 'retry'),
        ('key', 'key'), ('series', 'series')) if call[key] is not None]
    if call['progress'] is not None:
        facts.append(('progress', _progress_text(call['progress'])))
    facts.append(('arguments', call['arguments']))
    facts += [(what, call[what]) for what in ('memo', 'result') if call[what] is not None]
    if failure is not None:
        kind, text = failure['type_name'], failure['text']
        facts.append(('failure', f'{kind}: {text}' if text else kind))
    found = [f'{what + ":":<13} {name(value)}' for what, value in facts]
    if call['attempts']:
        found += ['', *plaintext.table(
            ('ATTEMPT', 'STARTED (UTC)', 'ENDED (UTC)', 'OUTCOME'),
            [(each['number'], moment(each['started_at']), moment(each['ended_at']),
              each['outcome'] or 'runs') for each in call['attempts']])]
    if failure is not None and failure['traceback_text']:
        found += ['', *plaintext.safe_lines(failure['traceback_text'])]
    return found


def _progress(progress):
    if progress is None:
        return None
    return {'done': progress.done, 'total': progress.total, 'message': str(progress.message)}


def _progress_text(progress):
    if progress is None:
        return ''
    of = '' if progress['total'] is None else f" of {progress['total']:g}"
    return f"{progress['done']:g}{of} {progress['message']}".strip()


def _retry(kept):
    """Options.stored_retry as text; None for what the plugin says."""
    if kept is None:
        return None
    if not kept:
        return 'never twice'
    attempts, delay, growth, longest, on = kept
    kinds = f" on {', '.join(on)}" if on else ''
    return f'{attempts} attempts{kinds}, {delay:g} s apart, growing by {growth:g} to {longest:g} s'
