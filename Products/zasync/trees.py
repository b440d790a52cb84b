"""NarrowTree: a tree that grows large and has one writer.

Its inner nodes are small. A plain OOBTree has up to 250 children in each, and writes one
again whenever a leaf is added or emptied: with many calls that is more than all else that
is written for a call. A ZEO server can resolve no conflict over such a node, which it
could not with a plain one either; leaves are plain.

Imports: nothing of ours.
"""

from BTrees.OOBTree import OOBTree


class NarrowTree(OOBTree):
    """See the module."""

    __zpublishable__ = False

    max_internal_size = 16
