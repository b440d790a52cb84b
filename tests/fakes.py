"""Doubles and small makers of values, shared by all rings of tests."""

from Products.zasync import payload
from Products.zasync.call import Call
from Products.zasync.call import Caller


#: When the time stands still in a test, it is this POSIX second.
NOW = 1_700_000_000.0

BOB = Caller('bob', ('', 'acl_users'))


def make_call(number=0, **changes):
    """A Call of the plugin 'echo' with one small argument, put `number` seconds after NOW."""
    values = {'plugin': 'echo', 'arguments': payload.dump_arguments((number,), {}),
              'caller': BOB, 'put_at': NOW + number, **changes}
    return Call(**values)


class FixedClock:
    """An IClock whose time is set by the test."""

    def __init__(self, now=NOW):
        self.time = now

    def now(self):
        """See IClock."""
        return self.time

    def monotonic(self):
        """See IClock."""
        return self.time - NOW

    def wait(self, event, seconds):
        """See IClock: nobody waits."""
        return event.is_set()


def sign_on(manager, plugins=(), host='host', pid=77, started_at=NOW):
    """Let a manager's card say that a worker with these plugins serves it."""
    card = manager.queue.card
    card.boot, card.host, card.pid, card.started_at = 'boot', host, pid, started_at
    card.plugins = dict.fromkeys(plugins, '')
