"""``python -m zasync_client``: the same as the command.

Imports: cli.
"""

import sys

from .cli import main


sys.exit(main())
