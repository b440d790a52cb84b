"""What a call and its plugin together say of running it again. Pure.

Imports: zasync.options, zasync.policy.
"""

from Products.zasync import policy
from Products.zasync.options import Retry


def retry_of(asked, plugin):
    """The retry policy of a call, see policy.next_try: its own, else its plugin's.

    asked -- what is stored of the call's options. A plugin whose calls may not run twice
    is not overruled.
    """
    if plugin is not None and not plugin.retry:
        return ()
    if asked is not None or plugin is None:
        return asked
    return Retry(plugin.attempts, plugin.retry_delay_seconds, plugin.retry_growth,
                 policy.LONGEST_RETRY_SECONDS, tuple(plugin.retry_on)).as_tuple()


def may_run_twice(deferred, plugin):
    """Whether a call that was interrupted may run again: its plugin and its caller agree."""
    return deferred.retry != () and (plugin is None or plugin.retry)
