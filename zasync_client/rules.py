"""What a call and its plugin together say of how it runs.

Imports: zasync.interfaces, zasync.options, zasync.policy.
"""

from Products.zasync import policy
from Products.zasync.interfaces import ACCEPTED
from Products.zasync.interfaces import NEW
from Products.zasync.options import first_name
from Products.zasync.options import Retry


def retry_of(asked, plugin):
    """The retry policy of a call, see policy.next_try: its own, else its plugin's.

    asked -- what is stored of the call's options. A plugin whose calls may not run twice
    is not overruled. The exceptions have the names by which `class_names` tells of them.
    """
    if plugin is not None and not plugin.retry:
        return ()
    if asked is None and plugin is not None:
        asked = Retry(plugin.attempts, plugin.retry_delay_seconds, plugin.retry_growth,
                      policy.LONGEST_RETRY_SECONDS, tuple(plugin.retry_on)).as_tuple()
    if not asked:
        return asked
    *numbers, on = asked
    return (*numbers, tuple(first_name(each) for each in on))


def may_run_twice(deferred, plugin):
    """Whether a call that was interrupted may run again: its plugin and its caller agree."""
    return deferred.retry != () and (plugin is None or plugin.retry)


def time_limit(deferred, plugin):
    """Seconds a run of the call may take, or None."""
    return policy.time_limit(deferred.timeout_seconds,
                             None if plugin is None else plugin.timeout_seconds)


#: A call with a shorter time-out does not share a transaction, in seconds.
GROUPABLE_TIMEOUT = 1.0


def may_share(deferred, plugin):
    """Whether a call that is claimed may share a transaction with others.

    Its code must be fit for that, and all that is odd about a call runs alone: what has run
    before, what may not run twice, what other calls wait for with a series or a callback.
    """
    if plugin is None or not plugin.zope_aware:
        return False
    limit = time_limit(deferred, plugin)
    return (deferred.state == ACCEPTED and deferred.attempt == 1 and _is_fit(deferred, plugin)
            and (limit is None or limit >= GROUPABLE_TIMEOUT))


def may_reserve(deferred, plugin):
    """Whether a call that waits may be claimed by the same commit that ends it, in a group.

    Until then it is new to all others. So nobody may count on its beginning later than now (a
    key), nor on its being ended in time.
    """
    return (plugin is not None and plugin.zope_aware and deferred.state == NEW
            and deferred.attempt == 0 and deferred.key is None and deferred.expires_at is None
            and time_limit(deferred, plugin) is None and _is_fit(deferred, plugin))


def _is_fit(deferred, plugin):
    return ((plugin.groupable or deferred.groupable) and deferred.series is None
            and not deferred.has_callbacks() and may_run_twice(deferred, plugin))
