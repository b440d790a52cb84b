"""What must hold after a storm, whatever happened. Pure: facts in, violations out.

A put is *sure* if its request says that it was committed, *undone* if it says that it was not or
met a conflict, and else *open*: the process was killed, or the server went away, in the commit.

Imports: facts, history, lifecycle, plan.
"""

import statistics
from collections import Counter
from collections import defaultdict
from typing import NamedTuple

from ZODB.TimeStamp import TimeStamp

from Products.zasync import lifecycle
from tests.storm import plan
from tests.storm.history import DEFERRED
from tests.storm.history import EFFECT


#: Kinds whose one effect is there if the call was resolved, and else is not.
SINGLE = frozenset(('plain', 'quick', 'slow', 'fails', 'once', 'timed', 'flaky', 'series', 'keyed',
                    'delayed', 'expiring', 'own', 'foreign', 'big', 'poison'))

#: Kinds that never succeed, and what their failures say.
FAILING = {'fails': 'on purpose', 'foreign': 'not allowed', 'poison': 'in a row'}

#: Of requests that put, the share that may meet a conflict over a lane.
LANE_CONFLICTS = 0.03
#: Seconds that putting may take, half of the times.
PUT_SECONDS = 0.05
#: Records that a put of one small call writes, half of the times: its lane's leaf, its deferred.
PUT_RECORDS = 2
#: Seconds without a sign of life after which a worker may be taken for dead, less what is lost
#: between the clocks of two processes.
SILENT_SECONDS = 24.0
#: How long after something was done to a worker it may be silent still: it starts, or it looks for
#: the server again. Seconds.
RECOVERY_SECONDS = 45.0
#: Bytes of a sign of life, all of it, and seconds between two.
PULSE_BYTES, BEAT_SECONDS = 260, 10.0


class Violation(NamedTuple):
    """invariant -- its number in the design, or 'R' for results. text -- what was seen."""

    invariant: str
    text: str

    def __str__(self):
        return f'{self.invariant}: {self.text}'


def check(facts):
    """All Violations, list."""
    puts = _Puts(facts.lines)
    found = []
    for rule in (_undone, _ended, _effects, _together, _begun_once, _written, _conflicts, _sizes,
                 _rights, _waits, _condemned, _resolvers, _idle, _results, _series, _keys,
                 _whole):
        found += rule(facts, puts)
    return found


class _Puts:
    """What the journal says of the puts.

    calls -- {token: what is known of it} of all that were put. sure, open -- sets of tokens.
    owner -- {token: user} of all that were asked for. runs -- {token: how often it ran}.
    """

    def __init__(self, lines):
        ends, self.calls, self.owner = {}, {}, {}
        tokens, late = {}, {}
        for line in lines:
            event, attempt = line['event'], line.get('attempt')
            if event == 'asked':
                tokens[attempt] = line['tokens']
                self.owner.update(dict.fromkeys(line['tokens'], line['user']))
            elif event == 'put':
                self.calls.update((call['token'], call) for call in line['calls'])
            elif event == 'late':
                late[attempt] = line['token']
            elif event in ('committed', 'refused', 'unknown', 'aborted'):
                # A request that has failed does not commit: who says so has the last word.
                if ends.get(attempt) != 'aborted':
                    ends[attempt] = event
        self.sure = _of(tokens, ends, 'committed')
        self.open = {token for attempt, each in tokens.items() for token in each
                     if ends.get(attempt, 'unknown') == 'unknown'}
        self.late = Counter(token for attempt, token in late.items()
                            if ends.get(attempt) == 'committed')
        self.late_open = {token for attempt, token in late.items()
                          if ends.get(attempt, 'unknown') == 'unknown'}
        self.runs = Counter(line['token'] for line in lines if line['event'] == 'ran')

    def queued(self):
        """(token, call) of the sure ones that went to a manager and joined no other."""
        return [(token, self.calls[token]) for token in self.sure
                if self.calls[token]['manager'] is not None and not self.calls[token]['joined']]


def _of(tokens, ends, how):
    return {token for attempt, each in tokens.items() if ends.get(attempt) == how
            for token in each}


def _base(token):
    return token.partition('/')[0]


def _undone(facts, puts):
    """I1: what was put in a transaction that did not commit never was."""
    for token in facts.effects:
        base = _base(token)
        if token.endswith('/gone') or (base not in puts.sure and base not in puts.open):
            yield Violation('I1', f'{token} has an effect, and its put was undone')
    for token, call in puts.calls.items():
        if token not in puts.sure and token not in puts.open and call['id'] in facts.fates \
                and not call['joined']:
            yield Violation('I1', f'the call {call["id"]} of {token} is there, and its put was '
                                  'undone')


def _ended(facts, puts):
    """I2: each committed call reached a final state."""
    if facts.left is not None:
        yield Violation('I2', f'calls that did not end: {facts.left}')
    for token, call in puts.queued():
        fate = facts.fates.get(call['id'])
        if fate is None:
            yield Violation('I2', f'the call {call["id"]} of {token} is lost')
        elif not lifecycle.is_final(fate.state):
            yield Violation('I2', f'the call {call["id"]} of {token} is {fate.state}')


def _effects(facts, puts):
    """I3: the effects of a call are there once, or not at all."""
    for token, call in puts.queued():
        fate = facts.fates.get(call['id'])
        if fate is None:
            continue
        kind, done = call['kind'], fate.state == 'resolved'
        count = len(facts.effects.get(token, ()))
        expected = _expected(kind, call, done, fate)
        if expected is not None and count not in expected:
            yield Violation('I3', f'{token} ({kind}, {fate.state}: {fate.failure}) has {count} '
                                  f'effects, not {" or ".join(map(str, expected))}')
        if kind in FAILING and done:
            yield Violation('I8' if kind == 'foreign' else 'I3', f'{token} ({kind}) was resolved')
        yield from _parts(facts, puts, token, call, fate)
    for token in puts.sure:
        call = puts.calls[token]
        if call['manager'] is None and len(facts.effects.get(token, ())) != (
                1 if call['state'] == 'resolved' else 0):
            yield Violation('I3', f'{token}, run in its request ({call["state"]}), has '
                                  f'{len(facts.effects.get(token, ()))} effects')


def _expected(kind, call, done, fate):
    if kind in SINGLE:
        return (1,) if done else (0,)
    if kind == 'chain':  # the callback may fail, and the work of the call stays
        return (1,) if done else (0, 1)
    if kind == 'steps':
        return (call['number'],) if done else range(call['number'] + 1)
    if kind == 'sneaky':
        return (1,) if done else (0, 1)
    return None


def _parts(facts, puts, token, call, fate):
    """The same for effects of callbacks, members, and what calls committed by themselves."""
    count = {part: len(facts.effects.get(f'{token}/{part}', ()))
             for part in ('after', 'late', 'first')}
    done = fate.state == 'resolved'
    if call['kind'] == 'chain' and count['after'] != 1 and (done or count['after']):
        yield Violation('I3', f'the callback of {token} ({fate.state}) ran {count["after"]} times')
    if call['kind'] == 'sneaky':  # after a conflict it begins anew, on what it has committed
        runs = puts.runs[f'{token}/first']
        if not (1 if done else 0) <= count['first'] <= runs:
            yield Violation('I3', f'{token} committed by itself {count["first"]} times in '
                                  f'{runs} runs')
    if call['kind'] == 'together' and done:
        for number in range(call['number']):
            member = len(facts.effects.get(f'{token}/{number}', ()))
            answer = fate.result[number]
            if member != (1 if isinstance(answer, dict) else 0):
                yield Violation('I3', f'{token}/{number} has {member} effects, its result is '
                                      f'{answer!r}')
    late = puts.late[token]
    most = late + (token in puts.late_open)
    if not (late if done else 0) <= count['late'] <= most:
        yield Violation('I3', f'the late callback of {token} ({fate.state}) ran {count["late"]} '
                              f'times, it was added {late} times')


def _together(facts, puts):
    """I3: each commit of an effect writes the deferred of its call, who owns it."""
    direct = {call['id'] for call in puts.calls.values() if call['manager'] is None}
    for each in facts.transactions:
        effects = [record.state for record in each.records.values()
                   if record.kind == EFFECT and record.state is not None]
        if not effects:
            continue
        here = {record.state['id'] for record in each.records.values()
                if record.kind == DEFERRED}
        for effect in effects:
            if effect['calls'] and effect['calls'][-1] not in here | direct:
                yield Violation('I3', f'the effect of {effect["token"]} was committed without its '
                                      f'call, by {each.note!r}')


def _begun_once(facts, puts):
    """I4: a call that may not run twice began once."""
    began = Counter(line['call'] for line in facts.lines if line['event'] == 'began')
    for id, number in began.items():
        if number > 1:
            yield Violation('I4', f'the call {id} may not run twice, and began {number} times')


#: state → states that the next record of a deferred may have, if it has changed.
_NEXT = defaultdict(set)
for (_state, _event), _after in lifecycle.TRANSITIONS.items():
    if _event != lifecycle.RETRY:
        _NEXT[_state].add(_after)
        if _event in lifecycle.ENDS:
            _NEXT[_state].add('callback')
#: The same where a worker writes a claim, or what takes it back, together with what follows.
_BOTH = _NEXT['new'] | _NEXT['accepted']


def _after(before, now, note, given_back):
    """The states that may be written after `before`, in a transaction of that note.

    before, now -- (state, attempt, owner). given_back -- a worker says that it gave it back.
    """
    claimed_too = (before[0] == 'new' and now[1] == before[1] + 1 == 1
                   and note.startswith('zasync '))
    # No thread had begun it, and in the same beat its time was over.
    unbegun = (before[0] == 'accepted' and now[1] == before[1] - 1 and note == 'zasync beat'
               and given_back)
    return _BOTH if claimed_too or unbegun else _NEXT[before[0]]


def _written(facts, puts):
    """I5: a deferred goes through the states that the lifecycle allows, in no other way."""
    last = {}
    for each in facts.transactions:
        acting = {id for record in each.records.values() if record.kind == EFFECT
                  for id in record.state['calls']}
        for oid, record in each.records.items():
            if record.kind != DEFERRED or record.state is None:
                continue
            state = record.state
            now = (state.get('state', 'new'), state.get('attempt', 0), state.get('owner'))
            before = last.get(oid)
            last[oid] = now
            if before is None:
                continue
            call = f'the call {state["id"]} went from {before} to {now} by {each.note!r}'
            if lifecycle.is_final(before[0]):
                yield Violation('I5', f'{call}, and had ended')
            elif now == before:
                # A checkpoint or a commit of the call's own, or one more of its callbacks; or a
                # beat gave it back and claimed it once more.
                if not (state['id'] in each.note or state['id'] in acting
                        or (each.note == 'zasync beat' and state['id'] in facts.given_back)):
                    yield Violation('I5', f'{call}, and nothing had happened')
            elif now[0] != before[0] and now[0] not in _after(
                    before, now, each.note, state['id'] in facts.given_back):
                # Two steps may be packed into one by a pack; its history is not complete.
                yield Violation('I5', call)
            elif abs(now[1] - before[1]) > 1:
                yield Violation('I5', f'{call}, and skipped an attempt')


def _conflicts(facts, puts):
    """I6: puts do not meet each other in their lanes."""
    ends = Counter(line['event'] for line in facts.lines
                   if line['event'] in ('committed', 'refused'))
    met = [line for line in facts.lines if line['event'] == 'refused'
           and 'BTrees.LOBTree' in (line['on'] or '')]
    if len(met) > 5 and len(met) > LANE_CONFLICTS * sum(ends.values()):
        yield Violation('I6', f'{len(met)} of {sum(ends.values())} requests met a conflict in a '
                              'lane')


def _sizes(facts, puts):
    """I7: a put writes its lane and its deferred."""
    sizes = []
    for each in facts.transactions:
        if not each.note.endswith('/desk/put'):
            continue
        deferreds = [record for record in each.records.values() if record.kind == DEFERRED]
        others = [record for record in each.records.values()
                  if record.kind[0].startswith(('Products.', 'BTrees.LOBTree'))]
        if len(deferreds) == 1:
            sizes.append(len(others))
    if sizes and statistics.median(sizes) > PUT_RECORDS:
        yield Violation('I7', f'a put of one call writes {statistics.median(sizes)} records')


def _rights(facts, puts):
    """I8: a call runs as who put it, with his rights and no others."""
    for line in facts.lines:
        if line['event'] == 'ran':
            owner = puts.owner.get(_base(line['token']))
            if line['user'] != owner or line['may'] != [f'home_{owner}']:
                yield Violation('I8', f'{line["token"]} of {owner} ran as {line["user"]}, who may '
                                      f'see {line["may"]}')
        elif line['event'] == 'seen':
            yield Violation('I8', f'the call {line["id"]} was shown to somebody else')


def _waits(facts, puts):
    """I9: nothing in a request waits for a worker."""
    times = [line['seconds'] for line in facts.lines if line['event'] == 'put'
             and all(call['manager'] for call in line['calls'])]
    if times and statistics.median(times) > PUT_SECONDS:
        yield Violation('I9', f'a put takes {statistics.median(times):.3f} s, half of the times')


def _condemned(facts, puts):
    """I10: nobody is taken for dead to whom nothing was done, whatever the clocks say."""
    for each in facts.transactions:
        if each.note != 'zasync serves a sibling':
            continue
        at = TimeStamp(each.tid).timeTime()
        for oid in each.records:
            name = facts.managers.get(oid)
            if name is not None and not _was_disturbed(facts.deeds, name, at):
                yield Violation('I10', f'the worker of {name} was taken for dead at {at:.0f}, and '
                                       'nothing had been done to it')


def _was_disturbed(deeds, name, at):
    for deed in deeds:
        if deed.who in (name, plan.SERVER) and deed.since <= at \
                and deed.until + RECOVERY_SECONDS >= at - SILENT_SECONDS:
            return True
    return False


def _resolvers(facts, puts):
    """I11: the server need resolve no conflict of our classes."""
    kinds = {record.kind for each in facts.transactions for record in each.records.values()}
    for module, name in sorted(kinds):
        if module.startswith('Products.'):
            found = getattr(__import__(module, fromlist=[name]), name, None)
            ours = [each for each in getattr(found, '__mro__', ())
                    if each.__module__.startswith('Products.')]
            # What a BTree of ours inherits a server without our code just refuses.
            if any('_p_resolveConflict' in vars(each) for each in ours):
                yield Violation('I11', f'{module}.{name} wants a server that has it')


def _idle(facts, puts):
    """I12: idle workers write a sign of life now and then, and nothing else."""
    since, until = facts.idle
    during = [each for each in facts.transactions
              if since <= TimeStamp(each.tid).timeTime() <= until]
    most = len(plan.WORKERS) * ((until - since) / BEAT_SECONDS + 1)
    if len(during) > most:
        yield Violation('I12', f'{len(during)} transactions in {until - since:.0f} idle seconds: '
                               f'{Counter(each.note for each in during)}')
    for each in during:
        size = sum(record.size for record in each.records.values())
        if len(each.records) > 1 or size > PULSE_BYTES:
            yield Violation('I12', f'a worker with nothing to do writes {len(each.records)} '
                                   f'records, {size} bytes')


def _results(facts, puts):
    """R: a result is that of the call that has it."""
    for token, call in puts.queued():
        fate = facts.fates.get(call['id'])
        if fate is None or fate.state != 'resolved':
            continue
        answers = fate.result if call['kind'] == 'together' else [fate.result]
        tokens = [f'{token}/{number}' for number in range(call['number'])] \
            if call['kind'] == 'together' else [token]
        if len(answers) != len(tokens):
            yield Violation('R', f'{token} has {len(answers)} results')
            continue
        for each, answer in zip(tokens, answers, strict=True):
            if isinstance(answer, dict) and answer['token'] != each:
                yield Violation('R', f'{each} has the result of {answer["token"]}')
            elif not isinstance(answer, dict) and call['kind'] != 'together':
                yield Violation('R', f'{each} has the result {answer!r}')


def _series(facts, puts):
    """Calls of a series do not run at the same time; what could not commit does not count."""
    owners = {(line['call'], line['attempt']): line for line in facts.lines
              if line['event'] == 'in'}
    runs, last = {}, Counter()
    done = {call['id'] for _, call in puts.queued()
            if call['id'] in facts.fates and facts.fates[call['id']].state == 'resolved'}
    for line in facts.lines:
        if line['event'] == 'out' and line['call'] in done:
            begin = owners.get((line['call'], line['attempt']))
            # One that was frozen, and taken for dead, may come to its end after the next one.
            if begin is not None and line['attempt'] >= last[line['call']]:
                last[line['call']] = line['attempt']
                runs[line['series'], line['call']] = (begin['at'], line['at'])
    by_series = defaultdict(list)
    for (series, call), (begin, end) in runs.items():  # the last attempt: that one committed
        by_series[series].append((begin, end, call))
    for series, each in by_series.items():
        each.sort()
        for (_, end, first), (begin, _, second) in zip(each, each[1:], strict=False):
            if begin < end:
                yield Violation('series', f'{first} and {second} of {series} ran together')


def _keys(facts, puts):
    """What a request asked of a call that it joined is done."""
    unsure = {f'{call["user"]}-{call["number"]}' for call in puts.calls.values()
              if call['kind'] == 'keyed' and call['manager'] is not None
              and (call['id'] not in facts.fates
                   or facts.fates[call['id']].state != 'resolved')}
    for name, wanted in facts.numbers['wanted'].items():
        done = facts.numbers['done'][name]
        if done != wanted and name not in unsure:
            yield Violation('keys', f'{wanted} were asked for under {name}, {done} are done')


def _whole(facts, puts):
    """The database has all it refers to, and no worker met an error it can't handle."""
    for each in facts.unread:
        yield Violation('I2', f'an object is missing: {each}')
    for each in facts.log:
        yield Violation('log', each)
