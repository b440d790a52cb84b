"""What a call and its plugin together say of running it again. Pure.

Imports: zasync.policy.
"""

from Products.zasync import policy


def retry_of(deferred, plugin):
    """The retry policy of a call, see policy.next_try: its own, else its plugin's."""
    if deferred.retry is not None or plugin is None:
        return deferred.retry
    if not plugin.retry:
        return ()
    return (plugin.attempts, plugin.retry_delay_seconds, plugin.retry_growth,
            policy.LONGEST_RETRY_SECONDS, tuple(plugin.retry_on))


def may_run_twice(deferred, plugin):
    """Whether a call that was interrupted may run again: its plugin and its caller agree."""
    return deferred.retry != () and (plugin is None or plugin.retry)
