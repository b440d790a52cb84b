"""Files with secret keys for the tests, and a configuration that names them.

Imports: zasync.sealing.
"""

import contextlib
import os

from App.config import getConfiguration
from cryptography.fernet import Fernet

from Products.zasync import sealing


class SecretKey:
    """A file with one new key, that is there from the start."""

    def __init__(self, path):
        self.path = str(path)
        self.replace()

    def replace(self):
        """Have another key in it, and that one only; what was in it."""
        old = self.text() if os.path.exists(self.path) else ''
        self.write(new_key())
        return old

    def text(self):
        with open(self.path, encoding='latin-1') as file:
            return file.read()

    def write(self, text):
        """Put a file with that text in its place."""
        fresh = self.path + '.new'
        with open(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), 'w',
                  encoding='latin-1') as file:
            file.write(text)
        os.replace(fresh, self.path)


def new_key():
    """A line with a key."""
    return Fernet.generate_key().decode('ascii') + '\n'


@contextlib.contextmanager
def configured(section):
    """This process has that mapping for its <product-config zasync-secrets>, or None."""
    configuration = getConfiguration()
    before = getattr(configuration, 'product_config', None)
    configuration.product_config = {**(before or {})}
    configuration.product_config.pop(sealing.SECTION, None)
    if section is not None:
        configuration.product_config[sealing.SECTION] = section
    try:
        yield
    finally:
        configuration.product_config = before


@contextlib.contextmanager
def secret_key(path):
    """This process has the secret key in a new file; the SecretKey."""
    made = SecretKey(path)
    with configured({sealing.DIRECTIVE: made.path}):
        yield made
