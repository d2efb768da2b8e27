"""The receipt of an emergency close: what was done and what was not, of every account."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from atb.core.errors import AtbError
from atb.core.words import counted
from atb.execution.closing_executor import ClosingExecutor
from atb.execution.closing_outcome import Left, Outcome, Sold
from atb.ledger.accounts import AccountRow
from atb.ops.closing import Closed, Held

HOW = {"emergency_close": "sold at the market", "foreign": "sold by hand"}


class Receipt(NamedTuple):
    """What closing came to. left: what is open all the same, and why. dust: account, asset and amount. flat_after_s: by
    account, without the last look; notes: what else was done, and what was not."""

    closed: list[Closed]
    left: list[tuple[Held, AtbError]]
    failures: list[AtbError]
    dust: list[tuple[str, str, Decimal]]
    cancelled: list[tuple[str, str]]
    flat_after_s: dict[str, float]
    notes: list[str]

    @classmethod
    def empty(cls) -> Receipt:
        return cls([], [], [], [], [], {}, [])

    @property
    def is_empty(self) -> bool:
        """Whether nothing was closed, and nothing tried."""
        return not (self.closed or self.left or self.failures or self.flat_after_s)


def add(
    receipt: Receipt,
    account: AccountRow,
    executor: ClosingExecutor,
    outcome: Outcome,
    pnl: dict[tuple[str, str], Decimal],
) -> None:
    """What the close of an account came to. pnl: by market and symbol, where it is known."""
    state = executor.state
    left = {(each.symbol.market, each.symbol.id): each.qty for each in outcome.left}
    for sold in outcome.sold:
        key = (sold.market, sold.symbol)
        receipt.closed.append(_closed(account, sold, pnl.get(key), left.get(key, Decimal(0))))
    for each in outcome.left:
        entry = state.books.positions.get((each.symbol.market, each.symbol.id))
        price = entry.cost / entry.qty if entry and entry.qty else Decimal(0)
        held = Held(account, executor.session_id, each.symbol.market, each.symbol.id, "LONG", each.qty, price, price)
        receipt.left.append((held, _why(each)))
        if each.qty:
            receipt.notes.append(f"{each.qty:f} {each.symbol.id} of {account.name} is not sold; {each.protection}.")
    receipt.dust.extend((account.name, symbol.base, qty) for symbol, qty in outcome.dust)
    receipt.cancelled.extend((account.name, name) for name in outcome.cancelled)
    if outcome.flat_after_s is not None:
        receipt.flat_after_s[account.name] = outcome.flat_after_s


def _closed(account: AccountRow, sold: Sold, pnl: Decimal | None, left: Decimal) -> Closed:
    how = HOW.get(sold.reason, f"{sold.reason} was executed")
    return Closed(
        account.name, sold.symbol, sold.qty, sold.price.quantize(Decimal("1e-8")).normalize(), sold.fee, pnl, how, left
    )


def _why(left: Left) -> AtbError:
    orders = f"; {counted(len(left.orders), 'order')} may still work ({left.orders[0]})" if left.orders else ""
    return left.kind(f"{left.why}{orders}")
