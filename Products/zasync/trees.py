"""NarrowTree: a tree that grows large and has one writer. And loading many objects together.

Its inner nodes are small. A plain OOBTree has up to 250 children in each, and writes one
again whenever a leaf is added or emptied: with many calls that is more than all else that
is written for a call. A ZEO server can resolve no conflict over such a node, which it
could not with a plain one either; leaves are plain.

Imports: nothing of ours.
"""

from BTrees.OOBTree import OOBTree
from persistent import GHOST


class NarrowTree(OOBTree):
    """See the module."""

    __zpublishable__ = False

    max_internal_size = 16


def ask_for_leaves(tree):
    """The same for all leaves of a tree that is to be gone through: else each is a journey."""
    level = [tree]
    while level:
        states = [node.__getstate__() for node in level]
        level = [child for state in states if state is not None and len(state) == 2
                 for child in state[0][::2]]
        ask_for(level)
        if level and not isinstance(level[0], type(tree)):
            return


def ask_for(objects):
    """Ask the server for what is not loaded of one database, and do not wait for the answers.

    One alone is as well loaded by who needs it.
    """
    ghosts = [each for each in objects if each._p_state == GHOST]
    if len(ghosts) > 1:
        connection = ghosts[0]._p_jar
        connection.prefetch([each._p_oid for each in ghosts])
        # After a savepoint a connection can't, and hides the method from all who come later.
        vars(connection).pop('prefetch', None)
