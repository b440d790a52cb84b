"""Mistakes of add-ons. A type checker finds each one; the comment has mypy's word for it."""

from Products.zasync import allow_value
from Products.zasync import checkpoint
from Products.zasync import defer
from Products.zasync import defre  # mistake: attr-defined
from Products.zasync import Options
from Products.zasync import progress
from Products.zasync import Retry
from Products.zasync.deferred import Deferred
from Products.zasync.testing import make_worker
from Products.zasyncdispatcher import asyncCall  # mistake: attr-defined
from Products.zasyncdispatcher import canAsync


allow_value('Basket')  # mistake: type-var


class Shop:
    """Its invoices are made in the background."""

    def make_invoice(self, number: int, copies: int = 1) -> str:
        progress('half')  # mistake: arg-type
        progress(total=3)  # mistake: call-arg
        checkpoint({'number': number})  # mistake: call-arg
        return f'invoice {number}'

    def compare(self, one: str, other: str) -> bool:
        return one == other


def put(shop: Shop) -> str:
    defer(shop.make_invoice, 'seven')  # mistake: arg-type
    defer(shop.make_invoice)  # mistake: call-arg
    defer(shop.make_invoice, 7, copy=2)  # mistake: call-arg
    defer(shop.make_invoice(7))  # mistake: arg-type
    defer.options(priority='high')(shop.make_invoice, 7)  # mistake: arg-type
    defer.options(prioriti=5)(shop.make_invoice, 7)  # mistake: call-arg
    defer.options(priority=5)(shop.make_invoice, '7')  # mistake: arg-type
    Options(priority='high')  # mistake: arg-type
    Options(not_before=60)  # mistake: arg-type
    Options(retry='always')  # mistake: arg-type
    Options(prioriti=5)  # mistake: call-arg
    Retry(on=(5,))  # mistake: arg-type
    return defer(shop.make_invoice, 7)  # mistake: return-value


def look(call: Deferred, shop: Shop) -> None:
    call.addCallbacks(shop.compare)  # mistake: arg-type
    call.addCallbacks(5)  # mistake: arg-type
    call.result = 5  # mistake: misc
    print(call.resutl)  # mistake: attr-defined
    print(call.state == 'done')  # mistake: comparison-overlap
    print(call.failure.text)  # mistake: union-attr
    print(call.progress.done)  # mistake: union-attr
    print(call.attempts[0].at)  # mistake: attr-defined


def check(app: object) -> bool:
    print(defre, asyncCall)
    make_worker(app).clock.advance('a day')  # mistake: arg-type
    return canAsync()  # mistake: call-arg
