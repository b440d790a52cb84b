"""An add-on that uses all there is for its authors. A strict type checker finds nothing wrong."""

import datetime
from collections.abc import Iterator
from typing import Any
from typing import assert_type

from Products.zasync import allow_value
from Products.zasync import checkpoint
from Products.zasync import defer
from Products.zasync import Options
from Products.zasync import progress
from Products.zasync import Retry
from Products.zasync.board import Progress
from Products.zasync.call import Caller
from Products.zasync.clock import as_datetime
from Products.zasync.deferred import Attempt
from Products.zasync.deferred import Deferred
from Products.zasync.errors import NoManager
from Products.zasync.errors import ZAsyncError
from Products.zasync.failure import Failure
from Products.zasync.interfaces import RESOLVED
from Products.zasync.lifecycle import State
from Products.zasync.running import current
from Products.zasync.testing import eager
from Products.zasync.testing import make_worker
from Products.zasync.testing import ManualClock
from Products.zasync.testing import plugin
from Products.zasyncdispatcher import asyncedCall
from Products.zasyncdispatcher import canAsync
from zasync_client import run


DAY = datetime.timedelta(days=1)


@allow_value
class Basket(dict[str, int]):
    """Goods and numbers; it may be passed to a call."""


assert_type(Basket(cup=2)['cup'], int)


class Shop:
    """Its invoices are made in the background."""

    def make_invoice(self, number: int, copies: int = 1) -> str:
        for copy in range(copies):
            progress(copy, copies, f'copy {copy + 1}')
        checkpoint(number=number)
        return f'invoice {number}'

    def send(self, invoice: str) -> None:
        """A callback for success."""

    def complain(self, failure: Failure) -> str:
        """A callback for failure."""
        return f'{failure.type_name}: {failure.text}\n{failure.traceback_text}'

    def order(self, number: int) -> Deferred:
        try:
            call = defer(self.make_invoice, number, copies=2)
        except NoManager as error:
            raise ZAsyncError('there is nobody to make invoices') from error
        assert_type(call, Deferred)
        return call.addCallbacks(self.send, self.complain).addCallbacks(failure='nothing')

    def remind(self, number: int) -> Deferred:
        later = defer.options(not_before=DAY, expires=3 * DAY, priority=-1, timeout=60,
                              retry=Retry(5, on=(OSError, 'zExceptions.Redirect')),
                              key=f'{number}')
        return later(self.make_invoice, number)


def options() -> Iterator[Options]:
    yield Options()
    yield Options(priority=5, series='invoices', not_before=datetime.datetime.now(datetime.UTC))
    yield Options(retry=3)
    yield Options(retry=False)
    yield Options(retry=Retry(on=OSError))


def look(call: Deferred) -> Any:
    """What can be read of a call."""
    assert_type(call.id, str)
    assert_type(call.plugin, str)
    assert_type(call.state, State)
    assert_type(call.ended, bool)
    assert_type(call.caller, Caller)
    assert_type(call.put_at, float)
    assert_type(call.started_at, float | None)
    assert_type(call.ended_at, float | None)
    assert_type(call.attempts, tuple[Attempt, ...])
    assert_type(call.failure, Failure | None)
    assert_type(call.progress, Progress | None)
    assert_type(call.memo, dict[str, Any])
    assert_type(call.cancel(), bool)
    assert_type(as_datetime(call.put_at), datetime.datetime)
    assert_type(as_datetime(call.ended_at), datetime.datetime | None)
    if call.progress is not None and call.progress.total is not None:
        assert_type(call.progress.done / call.progress.total, float)
    if call.state == RESOLVED:
        return call.result
    return call.state == 'new' or [attempt.outcome for attempt in call.attempts]


def ask(context: object) -> str | None:
    """The two functions of the dispatcher."""
    assert_type(canAsync(context), bool)
    manager_id, call = asyncedCall(context, 'string:done')
    assert_type(call, Deferred | None)
    return manager_id


def in_a_call() -> dict[str, Any]:
    """Code that may run in a call, or not."""
    run = current()
    return {} if run is None else run.memo


def check(shop: Shop, app: object) -> None:
    """A test."""
    parcels = plugin('parcels', lambda number: f'parcel {number}', zope_aware=False)
    with eager(propagate=True, plugins=[parcels]):
        shop.order(7)
    with make_worker(app, clock=ManualClock(5.0), plugins=[parcels], threads=2) as worker:
        assert_type(worker.step(), bool)
        worker.clock.advance(60)
        worker.run_until_idle()


@eager(at_commit=True)
def check_at_commit(shop: Shop) -> None:
    """Another test."""
    shop.order(7)


def main() -> int:
    return run('etc/zasync.conf')
