"""What the calls of the crash scenarios do; workers import them as ``tests.faults.jobs``."""

import transaction

from Products.zasync import groupable
from Products.zasync.running import checkpoint
from Products.zasync.running import current
from tests.client.jobs import append_line
from tests.client.jobs import root
from tests.client.jobs import wait_for_file


def effect(name, path):
    """An effect in the database, and one outside; both can be counted. → what it was given."""
    append_line(path)
    root()['effects'][name].add()
    return name, path


@groupable
def effect_in_group(name, path):
    """The same, and it may share a transaction."""
    return effect(name, path)


def effect_again(given):
    """A callback that does the same, under another name."""
    name, path = given
    effect(name + '-callback', path + '-callback')
    return given


def effect_committed(name, path):
    """What no call should do: it commits by itself."""
    given = effect(name, path)
    transaction.commit()
    return given


def effect_in_steps(name, path):
    """Three times the effect in the database, with a checkpoint after each."""
    done = current().memo.get('done', 0)
    while done < 3:
        effect(name, path)
        done += 1
        checkpoint(done=done)
    return done


def fail_after_effect(name, path):
    """The effect, and an error."""
    effect(name, path)
    raise LookupError(name)


def fail_at_first(name, path):
    """The effect; an error when it is the first."""
    effect(name, path)
    with open(path, encoding='ascii') as file:
        if len(file.readlines()) == 1:
            raise LookupError(name)
    return name, path


def effect_at_gate(name, path):
    """Waits for the file that is named like `path`, with ``-gate``, and then the effect."""
    wait_for_file(path + '-gate')
    return effect(name, path)
