"""Sealed: a password as it is stored. Pure: what seals and opens it is `sealing`.

Imports: nothing of ours.
"""

from dataclasses import dataclass
from dataclasses import field


@dataclass(frozen=True, repr=False)
class Sealed:
    """A password that only who has the secret key can read. Its text shows nothing at all.

    token -- bytes, as cryptography's Fernet makes them.
    """

    token: bytes = field(repr=False)

    def __repr__(self):
        return '(sealed)'
