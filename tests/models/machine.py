"""What the machines of this directory have in common.

Imports: nothing of ours.
"""

from hypothesis.stateful import RuleBasedStateMachine


class Machine(RuleBasedStateMachine):
    """Its rules call `do` with a deed: the name of a method, and its keyword arguments.

    sound -- whether the last deed went well and all invariants hold; if not, teardown only
    cleans up.
    """

    sound = False

    def do(self, deed):
        """Do that."""
        self.sound = False
        name, arguments = deed
        getattr(self, name)(**arguments)

    def check_invariants(self, *args):
        """If they hold the history may go on."""
        self.sound = False
        super().check_invariants(*args)
        self.sound = True
