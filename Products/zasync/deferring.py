"""defer: the shortest way to have something run in the background.

Imports: interfaces, options, errors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from typing import ParamSpec
from typing import TYPE_CHECKING
from typing import Unpack

from Acquisition import aq_base
from Acquisition import aq_chain
from Acquisition import aq_inner
from zope.component.hooks import getSite
from zope.globalrequest import getRequest

from .errors import BadCall
from .errors import NoManager
from .interfaces import ITakesCalls
from .options import OptionNames
from .options import Options


if TYPE_CHECKING:
    from .deferred import Deferred


P = ParamSpec('P')

#: Where a call is put, if there are both in one folder in the first.
IDS = ('asynchronous_call_dispatcher', 'asynchronous_call_manager')


class Defer:
    """See `defer`."""

    def __init__(self, options: Options | None = None) -> None:
        self._options = Options() if options is None else options

    def __call__(self, callable: Callable[P, Any], /, *args: P.args,
                 **kwargs: P.kwargs) -> Deferred:
        """Queue a bound method of a persistent object, or a function that can be imported.

        → its Deferred. It is put to the nearest dispatcher or manager that is acquired from
        the method's object, else from the site, else from the root of the request's
        application.
        Raises NoManager if there is none, and what IAsynchronousCallManager.putCall raises.
        """
        put = find_place(callable).putCallWith(self._options, 'zope_call', callable, *args,
                                               **kwargs)
        deferred: Deferred = put[1] if isinstance(put, tuple) else put
        return deferred

    def options(self, **options: Unpack[OptionNames]) -> Defer:
        """The same with Options: ``defer.options(priority=5)(folder.reindex)``.

        They are added to those that this one has.
        Raises BadCall.
        """
        unknown = set(options) - set(Options.__dataclass_fields__)
        if unknown:
            raise BadCall(f'there is no option {", ".join(sorted(unknown))}; there are '
                          f'{", ".join(Options.__dataclass_fields__)}')
        return Defer(dataclasses.replace(self._options, **options))


#: Queue a callable: ``defer(folder.reindex, light=True)``. See Defer.__call__.
defer = Defer()


def find_place(callable: Callable[..., Any]) -> Any:
    """The nearest dispatcher or manager for that callable; raises NoManager."""
    for start in _starts(callable):
        for container in aq_chain(aq_inner(start)):
            for id in IDS:
                found: Any = getattr(aq_base(container), id, None)
                if ITakesCalls.providedBy(found):
                    # Read from the bare container it is wrapped in that, and in nothing above.
                    return aq_base(found).__of__(container)
    raise NoManager(f'no dispatcher and no manager (ids {" and ".join(IDS)}) is found from '
                    f'{callable!r}: add one to the site or to the root')


def _starts(callable: Callable[..., Any]) -> list[Any]:
    """Objects to look from, nearest first."""
    starts = []
    owner = getattr(callable, '__self__', None)
    if hasattr(owner, 'getPhysicalPath'):
        starts.append(owner)
    if (site := getSite()) is not None:
        starts.append(site)
    request = getRequest()
    if request is not None and request.get('PARENTS'):
        starts.append(request['PARENTS'][-1])
    return starts
