"""A contract type for import-linter: forbidden imports of modules that need not exist yet."""

from importlinter import ContractCheck
from importlinter.contracts.forbidden import ForbiddenContract


class ForbiddenIfThere(ForbiddenContract):
    """Import-linter's `forbidden`, silent about source modules that are not there.

    The layers contract has parentheses for that; `forbidden` has nothing, and would refuse to
    run until the last module of the map is written.
    """

    type_name = 'forbidden_if_there'

    def check(self, graph, verbose) -> ContractCheck:
        """See `ForbiddenContract`; a broken one lists the chains of imports."""
        self.source_modules = {
            expression for expression in self.source_modules
            if expression.expression in graph.modules}
        return super().check(graph, verbose)
