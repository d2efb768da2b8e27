"""What must hold at any moment, whatever the clients and the faults did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.engine import Engine
from tests.venue.exchange.money import ZERO, Amounts, amounts


def broken(accounts: Iterable[Account], engine: Engine) -> Iterator[str]:
    accounts = list(accounts)
    for account in accounts:
        yield from _balances(account, engine)
        yield from _orders(account)
    yield from _nothing_lost(accounts, engine)
    yield from _trade_ids(accounts)


def _balances(account: Account, engine: Engine) -> Iterator[str]:
    held = account.deposits.copy()
    for trade in account.trades:
        listing, sign = engine.markets[trade.symbol].listing, 1 if trade.order.side == "BUY" else -1
        held[listing.base] += sign * trade.qty
        held[listing.quote] -= sign * trade.quote
        held[trade.fee_asset] -= trade.fee
    locked = _needed(account, engine)
    for asset in {*account.totals, *held, *locked}:
        if min(account.free(asset), account.locked(asset)) < 0:
            yield f"{account.name} has less than nothing of {asset}: {account.balances[asset]}"
        if account.locked(asset) != locked[asset]:
            yield f"{account.name} has {account.locked(asset)} {asset} locked, its orders need {locked[asset]}"
        if account.totals[asset] != held[asset]:
            yield f"{account.name} has {account.totals[asset]} {asset}, its deposits and trades make {held[asset]}"


def _needed(account: Account, engine: Engine) -> Amounts:
    needed = amounts()
    for order in account.open_orders:
        asset, amount = engine.need(order)
        partners = [other for other in order.list.orders if other is not order] if order.list else []
        if all((engine.need(other)[1], other.id) < (amount, order.id) for other in partners):
            needed[asset] += amount  # of a list, only the one that needs most
    return needed


def _orders(account: Account) -> Iterator[str]:
    for order in account.orders:
        trades = [trade for trade in account.trades if trade.order is order]
        if sum((trade.qty for trade in trades), ZERO) != order.filled or order.filled > order.qty:
            yield f"order {order.id} of {order.qty} is filled {order.filled}, by trades of {trades}"
        if (order.status == "FILLED") != (order.filled == order.qty):
            yield f"order {order.id} is {order.status} with {order.filled} of {order.qty}"
    for both in account.lists:
        if sum(bool(order.filled) for order in both.orders) > 1:
            yield f"both orders of list {both.id} have traded"
    for client_id, count in Counter(order.client_id for order in account.open_orders).items():
        if count > 1:
            yield f"{count} open orders of {account.name} are called {client_id}"


def _nothing_lost(accounts: list[Account], engine: Engine) -> Iterator[str]:
    for asset in {asset for account in accounts for asset in account.totals} | {*engine.outside, *engine.fees}:
        put_in = sum((account.deposits[asset] for account in accounts), ZERO)
        there = sum((account.totals[asset] for account in accounts), ZERO) + engine.outside[asset] + engine.fees[asset]
        if put_in != there:
            yield f"{put_in} {asset} were put in, {there} are there"


def _trade_ids(accounts: list[Account]) -> Iterator[str]:
    seen = Counter((trade.symbol, trade.id) for account in accounts for trade in account.trades)
    yield from (f"{symbol} has {count} trades {number}" for (symbol, number), count in seen.items() if count > 1)
