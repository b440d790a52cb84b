"""The course of a run: how far it is, and how often it met conflicts and lost servers.

Imports: work, zasync.
"""

import random

from Products.zasync import policy
from Products.zasync.errors import Interrupted
from Products.zasync.failure import Failure
from Products.zasync.failure import name_of
from Products.zasync.failure import text_of

from .work import Outcome


class Course:
    """How far the run of a call is.

    outcome -- an Outcome that is not stored yet. step -- which part of the call is under
    way, and has that outcome; see Deferred.step. begun -- its plugin has begun, and what it
    did is not stored. state, plugin -- of the call, once something of it is in the database.
    once -- it may not run twice. own_seconds -- how long its plugin has run,
    if it has and is zope-aware.
    """

    def __init__(self, claim, started, config):
        self.claim = claim
        self.started = started
        self.tries = Tries(config)
        self.outcome = self.step = None
        self.state = self.plugin = ''
        self.begun = self.once = False
        self.own_seconds = None
        self._config = config

    def begins(self, handler):
        """The same handler, which notes that it has begun."""
        def begin(*args, **kwargs):
            self.begun = True
            return handler(*args, **kwargs)

        return begin

    def start_afresh(self):
        """The next transaction has tries of its own."""
        self.tries = Tries(self._config)

    def stop_if_once(self, reason):
        """A transaction was lost: a call that may not run twice fails."""
        if self.once and self.begun and self.outcome is None:
            self.outcome = Outcome(failure=Failure.from_exception(Interrupted(
                f'the call may not run twice, and its end could not be stored '
                f'({name_of(type(reason))}: {text_of(reason)})')))


class Tries:
    """How often a run met conflicts and lost servers, and how long to wait after each."""

    def __init__(self, config):
        self._config = config
        self._conflicts = self._disconnects = 0

    def after_disconnect(self):
        """Seconds to wait after one more lost server."""
        self._disconnects += 1
        return policy.reconnect_delay(self._disconnects, self._config.initial_retry_seconds,
                                      self._config.retry_growth)

    def after_conflict(self):
        """Seconds to wait after one more conflict, or None after too many."""
        self._conflicts += 1
        if self._conflicts >= self._config.max_conflict_attempts:
            return None
        return policy.conflict_delay(self._conflicts, random.random())

    def to_store(self):
        """Seconds until what is known of a call's end is stored once more, after too many."""
        return policy.give_back_delay(self._conflicts - self._config.max_conflict_attempts + 1,
                                      random.random())
