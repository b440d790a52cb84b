"""Runs a program that dies at a crash point; the program knows nothing of that, and has no hook.

    python -m tests.faults.killer 8 -m zasync_client -C etc/zasync.conf
    python -m tests.faults.killer 3:2 -m Zope2.Startup.serve etc/zope.ini

The process sends itself SIGKILL when it comes to crash point 8, or to point 3 for the second
time. What it says last, on standard error, is the number.

The one module with the crash point is compiled with a call more, before the first statement
after the marker. All else runs as it is, at its own pace: a trace function would see each line of
Zope's start as well.

Imports: crashpoints.
"""

import ast
import os
import runpy
import signal
import sys
from importlib.machinery import PathFinder
from importlib.machinery import SourceFileLoader

from tests.faults.crashpoints import find_all


#: How a module calls its killer.
NAME = '_crash_point_reached'


class Killer:
    """Called at the crash point; the process ends when it is for the given time."""

    def __init__(self, point, times):
        self._point = point
        self._left = times

    def __call__(self):
        self._left -= 1
        if self._left == 0:
            if self._point.at_vote:
                import transaction
                transaction.get().join(AtTheVote(self._die))
            else:
                self._die()

    def _die(self):
        os.write(2, f'crash point {self._point.number}\n'.encode('ascii'))
        os.kill(os.getpid(), signal.SIGKILL)


class AtTheVote:
    """A data manager that is asked last for its vote, and calls `die` then."""

    def __init__(self, die):
        import transaction
        self.transaction_manager = transaction.manager
        self._die = die

    def sortKey(self):
        """After all databases."""
        return '~'

    def tpc_vote(self, current):
        """All others have voted."""
        self._die()

    def tpc_begin(self, current):
        """Nothing to do."""

    commit = tpc_finish = tpc_abort = abort = tpc_begin


class Finder:
    """Finds the module with the crash point, before anybody else does."""

    def __init__(self, point, killer):
        self._point = point
        self._killer = killer
        self._module = point.path.removesuffix('.py').replace('/', '.')

    def find_spec(self, name, path=None, target=None):
        """See importlib."""
        if name != self._module:
            return None
        spec = PathFinder.find_spec(name, path, target)
        spec.loader = Loader(name, spec.origin, self._point, self._killer)
        return spec


class Loader(SourceFileLoader):
    """Loads it with the call more; nothing of that is kept on disk."""

    def __init__(self, name, path, point, killer):
        super().__init__(name, path)
        self._point = point
        self._killer = killer

    def get_code(self, fullname):
        """See importlib."""
        tree = ast.parse(self.get_data(self.path))
        block, index = next(
            (block, index) for node in ast.walk(tree) for block in _blocks(node)
            for index, statement in enumerate(block) if statement.lineno == self._point.line)
        call = ast.Expr(ast.Call(ast.Name(NAME, ast.Load()), [], []))
        block.insert(index, ast.fix_missing_locations(ast.copy_location(call, block[index])))
        return compile(tree, self.path, 'exec', dont_inherit=True)

    def exec_module(self, module):
        """See importlib."""
        setattr(module, NAME, self._killer)
        super().exec_module(module)


def _blocks(node):
    """The lists of statements that a node holds."""
    return [block for name in ('body', 'orelse', 'finalbody')
            if isinstance(block := getattr(node, name, None), list)]


def main():
    """See the module."""
    number, _, times = sys.argv[1].partition(':')
    if sys.argv[2] != '-m':
        sys.exit('usage: killer NUMBER[:TIMES] -m MODULE ARGUMENT…')
    point, = (each for each in find_all() if each.number == int(number))
    sys.meta_path.insert(0, Finder(point, Killer(point, int(times or 1))))
    module = sys.argv[3]
    sys.argv[:] = sys.argv[3:]
    runpy.run_module(module, run_name='__main__', alter_sys=True)


if __name__ == '__main__':
    main()
