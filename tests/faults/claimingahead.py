"""The worker's command, but that it claims calls ahead on the slowest machine as on a fast one.

Imports: zasync_client, zasync.
"""

import sys

from Products.zasync import policy
from zasync_client.cli import main


#: Seconds of work that are claimed ahead: more than any of the quick calls takes.
policy.AHEAD_SECONDS = 60.0

if __name__ == '__main__':
    sys.exit(main())
