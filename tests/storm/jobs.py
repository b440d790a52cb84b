"""What the calls of the storm do. Workers import them as ``tests.storm.jobs``.

Each effect is an object of its own in the database, with the calls that wrote it; what a call
does outside the database it writes into the journal.

Imports: journal, zasync.
"""

import os
import time
import zlib

import transaction
from AccessControl import getSecurityManager
from persistent import Persistent

from Products.zasync import groupable
from Products.zasync.running import checkpoint
from Products.zasync.running import current
from Products.zasync.running import progress
from tests.storm.journal import note


#: Trees of effects: calls that write different ones seldom meet in a leaf.
BUCKETS = 64


class Effect(Persistent):
    """What a call has done; calls -- the ids of the calls that did it, one each time."""

    def __init__(self, token):
        self.token = token
        self.calls = ()


class Number(Persistent):
    """A number that requests count up, or that a call sets."""

    n = 0


def bucket(root, token):
    """The tree that has that effect."""
    return root['effects'][zlib.crc32(token.encode('ascii')) % BUCKETS]


def root():
    """The root mapping, in the running call's connection."""
    return current().app._p_jar.root()


def have_effect(token):
    """Write the effect of that token, and tell the journal who ran this, with what rights."""
    run = current()
    security = getSecurityManager()
    may = [home.getId() for home in run.app.objectValues('Storm Home')
           if security.checkPermission('View', home)]
    note('ran', token=token, call=run.id, attempt=run.attempt,
         user=security.getUser().getId(), may=may)
    tree = bucket(root(), token)
    if token not in tree:
        tree[token] = Effect(token)
    effect = tree[token]
    effect.calls = (*effect.calls, run.id)
    return {'token': token, 'call': run.id}


def plain(token, ballast=''):
    """An effect."""
    return {**have_effect(token), 'ballast': ballast}


@groupable
def quick(token):
    """An effect, of a call that may be committed with others."""
    return have_effect(token)


def slow(token, seconds):
    """An effect, some progress, and time for things to happen."""
    answer = have_effect(token)
    parts = 4
    for part in range(parts):
        progress(part, parts, 'slowly')
        time.sleep(seconds / parts)
    return answer


def fails(token):
    """An effect that must not stay."""
    have_effect(token)
    raise ValueError(f'{token} fails on purpose')


def steps(token, number, seconds):
    """So many effects under one token, a checkpoint after each."""
    for done in range(current().memo.get('done', 0), number):
        answer = have_effect(token)
        time.sleep(seconds)
        checkpoint(done=done + 1)
    return answer if number else None


def sneaky(token, seconds):
    """An effect that is committed by the call itself, and another at the end."""
    have_effect(token + '/first')
    transaction.commit()
    time.sleep(seconds)
    return have_effect(token)


def once(token, seconds):
    """An effect of a call that may not run twice; the journal tells how often it began."""
    note('began', token=token, call=current().id)
    answer = have_effect(token)
    time.sleep(seconds)
    return answer


def flaky(token, times):
    """Fail so many times, then have an effect."""
    path = os.path.join(os.environ['STORM_JOURNAL'], 'flaky-' + token.replace('/', '-'))
    with open(path, 'a', encoding='ascii') as file:
        file.write('x')
    if os.path.getsize(path) <= times:
        raise ConnectionError(f'{token} is not ready yet')
    return have_effect(token)


def in_series(token, series, seconds):
    """An effect; the journal tells when this run began and ended, with the series."""
    call, attempt = current().id, current().attempt
    note('in', series=series, call=call, attempt=attempt)
    answer = have_effect(token)
    time.sleep(seconds)
    note('out', series=series, call=call, attempt=attempt)
    return answer


def keyed(token, name):
    """Do what requests have asked for so far under that name; those that joined us included."""
    wanted, done = root()['wanted'][name], root()['done'][name]
    done.n = max(done.n, wanted.n)
    return have_effect(token)


def after(answer):
    """A callback: an effect beside that of its call."""
    return {**answer, 'after': have_effect(answer['token'] + '/after')['token']}


def late(answer):
    """The same, of a callback that was added when the call had been put."""
    have_effect(answer['token'] + '/late')
    return answer


def poison(token):
    """End the worker, without a word."""
    note('poison', token=token, call=current().id)
    os._exit(9)
