"""What the calls of these tests do; workers import them as ``tests.client.jobs``."""

import ctypes
import multiprocessing
import os
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor

import transaction
from OFS.SimpleItem import SimpleItem
from zope.security import checkPermission

from Products.zasync import allow_value
from Products.zasync import groupable
from Products.zasync.running import checkpoint
from Products.zasync.running import current
from Products.zasync.running import progress


def root():
    """The root mapping of the database, in the running call's connection."""
    return current().app._p_jar.root()


def add(a, b):
    """A sum."""
    return a + b


def may(permission):
    """Whether the caller has that permission at the root, as zope.security tells."""
    return bool(checkPermission(permission, current().app))


def keywords(**kwargs):
    """What it was given by name."""
    return kwargs


def set_mark(name, value):
    """An effect in the database."""
    root()['marks'][name] = value
    return value


def change_through_two_connections(name, commits=False, gate=None):
    """Effects, of which one is made through a connection that the call has opened."""
    if gate is not None:
        wait_for_file(gate)
        transaction.begin()
    set_mark(name, 1)
    current().app._p_jar.db().open().root()['others'] = name
    if commits:
        transaction.commit()


def change_through_two_connections_at_the_end(name):
    """The same by a hook before its commit, as code does that gathers what it has to write."""
    def write():
        app.db().open().root()['others'] = name

    app = current().app._p_jar
    set_mark(name, 1)
    transaction.get().addBeforeCommitHook(write)


def abort_at_the_end(path):
    """An effect, and a hook before its commit that aborts the transaction."""
    note(path, 'ran')
    set_mark(path, 1)
    transaction.get().addBeforeCommitHook(transaction.abort)


def change_through_a_later_connection(name):
    """An effect through a connection that the call has opened after closing its own.

    It may be the same object.
    """
    own = current().app._p_jar
    own.close()
    own.db().open().root()['others'] = name


def wait_for_file(path, limit=30.0):
    """Run until the file exists; tells that it runs by a file of its own."""
    with open(path + '.running', 'w', encoding='ascii') as file:
        file.write(str(os.getpid()))
    until = time.monotonic() + limit
    while not os.path.exists(path):
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.01)
    return os.getpid()


def wait_and_fail(path):
    """As wait_for_file, but it ends with an error."""
    wait_for_file(path)
    raise RuntimeError('failed on purpose')


def mark_then_wait(name, path):
    """An effect, then a wait: killed while it waits, the effect must not be there."""
    set_mark(name, root()['marks'].get(name, 0) + 1)
    return wait_for_file(path)


def fail_after_effect(name):
    """An effect, then an error: the effect must not stay."""
    set_mark(name, True)
    raise RuntimeError('failed on purpose')


@groupable
def fail_in_group():
    """An error, among others."""
    raise RuntimeError('failed on purpose')


def count_in_steps(name, steps, path):
    """Count to `steps`, a checkpoint each; wait for the file after the second."""
    done = current().memo.get('done', 0)
    while done < steps:
        set_mark(name, root()['marks'].get(name, 0) + 1)
        done += 1
        checkpoint(done=done)
        if done == 2 and not os.path.exists(path):
            wait_for_file(path)
    return done


def commit_behind_our_back(name, path):
    """What no call should do: commit by itself, before and after a wait."""
    set_mark(name, root()['marks'].get(name, 0) + 1)
    transaction.commit()
    wait_for_file(path)
    set_mark(name, root()['marks'].get(name, 0) + 1)
    transaction.commit()


def meet_conflicts(name, path):
    """Write an object that somebody else writes meanwhile, as long as `path` does not exist."""
    marks = root()['marks']
    marks[name] = marks.get(name, 0) + 1
    wait_for_file(path)


def exit_process():
    """A call that wants to end its process politely."""
    raise SystemExit(3)


def unpicklable():
    """A result that can't be stored, after an effect."""
    set_mark('unpicklable', True)
    return lambda: None


def print_word(word):
    """Something on standard output."""
    print(word, flush=True)


def fail_with(text):
    """An error with that text."""
    raise RuntimeError(text)


def fail_until_marked(name):
    """An error until somebody has set the mark."""
    if not root()['marks'].get(name):
        raise RuntimeError('not yet')


def tell_progress(path):
    """Tell how far it is, and wait for the file."""
    progress(1, 3, 'first')
    return wait_for_file(path)


def return_foreign():
    """A result of a class that other processes lack."""
    module = types.ModuleType('no_such_module')
    module.Thing = type('Thing', (), {'__module__': 'no_such_module', '__qualname__': 'Thing'})
    sys.modules['no_such_module'] = module
    return allow_value(module.Thing)()


def nothing_by_position(*, name):
    """A handler that is no zope-aware one."""
    return name


def who_runs(run):
    """The caller, as a zope-aware handler sees it."""
    from AccessControl import getSecurityManager
    return getSecurityManager().getUser().getId(), run.app.getId()


def fails_at_first(path):
    """Leaves a file the first time, and fails; → its path the second time."""
    if not os.path.exists(path):
        with open(path, 'w', encoding='ascii'):
            raise ConnectionError('not yet')
    return path


#: What call_hook calls, where the worker runs in the test's own process.
hook = None


def call_hook(*args):
    """A function that can be found by its name and does what the test says."""
    return hook(*args)


def append_line(path):
    """An effect outside the database, that can be counted."""
    with open(path, 'a', encoding='ascii') as file:
        file.write(f'{os.getpid()}\n')


def append_then_wait(path, gate):
    """The same, then a wait."""
    append_line(path)
    return wait_for_file(gate)


def tell_progress_then_wait(done, total, told, gate):
    """Tell it once, say by the file `told` that it was, and wait."""
    progress(done, total, 'as told')
    with open(told, 'w', encoding='ascii'):
        pass
    wait_for_file(gate)
    return 'waited'


def tell_progress_often(times, pause):
    """Tell it so many times, a moment apart."""
    for done in range(times):
        progress(done, times)
        time.sleep(pause)
    return f'told {times} times'


def tell_progress_for_ever(name, told, limit=60.0):
    """An effect, then progress until somebody stops it; the file `told` is there from the first.
    """
    set_mark(name, True)
    until = time.monotonic() + limit
    while time.monotonic() < until:
        progress(1)
        with open(told, 'w', encoding='ascii') as file:
            file.write(str(os.getpid()))
        time.sleep(0.01)


def mark_and_commit_when_told(name, gate):
    """Wait, then commit behind zasync's back."""
    wait_for_file(gate)
    set_mark(name, True)
    transaction.commit()


def fail_without_file(path):
    """Fail until the file is there."""
    if not os.path.exists(path):
        raise LookupError(path)


def note(path, text):
    """Append a line to a file that other processes write too; it is there when this returns."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, f'{text}\n'.encode('ascii'))
    finally:
        os.close(file)


def begin_and_end(path, number):
    """Tell when it begins and when it ends, and leave time for another to begin meanwhile."""
    note(path, f'begin {number} {os.getpid()}')
    time.sleep(0.005)
    note(path, f'end {number} {os.getpid()}')


def begin_wait_and_end(path, number, gate):
    """The same, with a wait for a file between."""
    note(path, f'begin {number} {os.getpid()}')
    wait_for_file(gate)
    note(path, f'end {number} {os.getpid()}')


def take_time(seconds):
    """Harmless, and not at once."""
    time.sleep(seconds)
    return 'done'


def end_forked(number):
    """Send that signal to a process that the call has forked, and that runs; → its exit code."""
    context = multiprocessing.get_context('fork')
    runs = context.Event()
    forked = context.Process(target=_run_for_long, args=(runs,))
    forked.start()
    runs.wait(10)
    os.kill(forked.pid, number)
    forked.join()
    return forked.exitcode


def leave_forked():
    """Fork a process that runs for long, and leave it; → its id."""
    context = multiprocessing.get_context('fork')
    runs = context.Event()
    forked = context.Process(target=_run_for_long, args=(runs,))
    forked.start()
    runs.wait(30)
    return forked.pid


def _run_for_long(runs):
    runs.set()
    time.sleep(10)


def leave_thread():
    """Begin what goes on for long after the call, and what Python waits for at its end."""
    ThreadPoolExecutor(1).submit(time.sleep, 60)


def end_at_once():
    """The process is gone, with no word to anybody."""
    os._exit(1)


def break_memory():
    """What a bug in a C library does: read at address 0."""
    ctypes.string_at(0)


#: What `keep_memory` has taken.
kept = []


def keep_memory(most_bytes, step_bytes=4 * 1024 ** 2):
    """Take so much memory, piece by piece, and never give it back."""
    for _ in range(most_bytes // step_bytes):
        kept.append(bytearray(b'x' * step_bytes))
        time.sleep(0.001)


def wait_then_keep_memory(path, most_bytes):
    """The same after a wait for a file."""
    wait_for_file(path)
    keep_memory(most_bytes)


def hold_all_threads(seconds, name):
    """What a long garbage collection does: no other thread gets to do anything meanwhile."""
    ctypes.PyDLL(None).sleep(seconds)
    return set_mark(name, True)


class _Slow:
    """A data manager that comes last and takes long; meanwhile no other commit gets through."""

    transaction_manager = transaction.manager

    def __init__(self, seconds):
        self._seconds = seconds

    def tpc_begin(self, current):
        """Nothing to do."""

    commit = tpc_finish = tpc_abort = abort = tpc_begin

    def tpc_vote(self, current):
        """The storages have voted, so the server waits for what we say next."""
        time.sleep(self._seconds)

    def sortKey(self):
        """Last."""
        return '~'


def commit_slowly(seconds, name):
    """An effect, and a commit that takes so long."""
    transaction.get().join(_Slow(seconds))
    return set_mark(name, True)


def count_effect(run, number, gate=None):
    """A zope-aware handler: count the effect of call `number`, its first attempt after the gate.
    """
    if gate is not None and run.attempt == 1:
        wait_for_file(f'{gate}{number}')
    run.app._p_jar.root()['effects'].counters[number].add()
class Visits(SimpleItem):
    """Something in the ZODB with a method that may share transactions."""

    n = 0

    def __init__(self, id):
        self.id = id

    @groupable
    def count(self):
        """One more."""
        self.n += 1
        return self.n


@groupable
def count_in_group(name, number, path):
    """Count on an object of its own and on one that all share; tell in a file that it ran.

    The first one that has others before it in its transaction waits for the gate `path`.
    """
    note(f'{path}.ran', f'{name} {number}')
    own = root()['own'][name][number]
    own['n'] = own.get('n', 0) + 1
    shared = root()['marks']
    shared['n'] = shared.get('n', 0) + 1
    begun = root()._p_jar._savepoint_storage
    if begun is not None and begun.index and not os.path.exists(f'{path}.running'):
        wait_for_file(path)


def cancel_all(value=None):
    """Cancel all calls, also the one that runs this; → the sum of the answers."""
    zam = current().app.zam
    return sum(zam.cancel(each.id) for state in ('new', 'accepted', 'callback')
               for each in zam.calls(state))


def ways_of_storage():
    """What keeps the cache of the worker's ZEO client, and what sends for it: names of classes."""
    storage = root()._p_jar.db().storage
    return [type(storage._cache.f).__name__, type(storage._async.__self__).__name__]
