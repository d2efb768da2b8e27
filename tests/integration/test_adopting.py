"""A dump from before three trades is restored: our own orders are known by their ids, and nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.core.order_id import client_order_id
from atb.core.orders import SeenFill, SeenOrder
from atb.core.types import symbol_for
from atb.execution.adopting import entries_for
from atb.ledger.accounts import take_authority
from atb.ledger.entries import Entry
from atb.ledger.journal import append
from tests.database import START, Book, Postgres, book, postgres
from tests.integration.shell import Shell

ACCOUNT = "binance:spot:real:k1"
SYMBOL = symbol_for("binance", "BTCUSDT")
STARTED_MS = round(START.timestamp() * 1000)
TABLES = {
    "orders": "SELECT client_order_id, symbol, side, type, purpose, qty, price, stop_price, state, filled_qty, venue_order_id "
    "FROM orders ORDER BY 1",
    "fills": "SELECT id, side, qty, price, fee, fee_asset, client_order_id, effective_qty, at FROM fills ORDER BY 1",
    "positions": "SELECT symbol, status, size, entry_price, cost, realized_pnl, fees FROM positions ORDER BY entry_time",
    "trades": "SELECT symbol, pnl, fees, size, exit_reason, entry_time, exit_time FROM trades ORDER BY exit_time",
    "cash": "SELECT cash, realized, fees FROM account_state",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    with postgres(tmp_path / "server") as running:
        yield running


class Exchange:
    """What an exchange remembers of orders, in parts, with fees in base; and an engine that books as it trades."""

    def __init__(self, made: Book) -> None:
        self.book = made
        self.orders: list[SeenOrder] = []
        self.fills: list[SeenFill] = []

    def trade(
        self, number: int, side: str, purpose: str, parts: list[str], state: str = "filled", qty: str = ""
    ) -> None:
        at = START + timedelta(hours=number)
        name = client_order_id(ACCOUNT, SYMBOL.id, STARTED_MS + number * 3_600_000, purpose)
        whole = Decimal(qty) if qty else sum(map(Decimal, parts), Decimal(0))
        stop = Decimal(45_000) if purpose == "stop" else None
        order = SeenOrder(
            name, f"v{number}", SYMBOL, side, "market", whole, None, stop, state, at, at + timedelta(minutes=5)
        )
        self.orders.append(order)
        for i, part in enumerate(parts):
            fee = Decimal(part) / 1000 if side == "buy" else Decimal(part) * 50
            fill = SeenFill(
                f"t{number}-{i}", order.venue_order_id, SYMBOL, side, Decimal(part), Decimal(50_000 + 10 * number + i), fee,
                "BTC" if side == "buy" else "USDT", None, at + timedelta(minutes=i),
            )  # fmt: skip
            self.fills.append(fill)
        # The engine's own bookkeeping: intent first, then what came of it.
        self.book.append(*entries_for(ACCOUNT, [order], self.fills, known=(), session_id=self.book.session))


def told(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    out = {name: connection.execute(query).fetchall() for name, query in TABLES.items()}
    connection.rollback()
    return out


def test_orders_of_two_symbols_with_one_number() -> None:
    """Binance counts orders by symbol."""
    found = []
    for name, number in (("BTCUSDT", "1"), ("ETHUSDT", "2")):
        symbol = symbol_for("binance", name)
        ours = client_order_id(ACCOUNT, symbol.id, STARTED_MS, "entry")
        order = SeenOrder(ours, "7", symbol, "buy", "market", Decimal(1), None, None, "filled", START, START)
        fill = SeenFill(f"t{number}", "7", symbol, "buy", Decimal(1), Decimal(9), Decimal(0), "USDT", None, START)
        found.append((order, fill))
    entries = entries_for(ACCOUNT, [order for order, _ in found], [fill for _, fill in found], known=())
    orders = {e.body["client_order_id"]: e.body["symbol"] for e in entries if e.kind == "intent"}
    fills = [(orders[e.body["client_order_id"]], e.body["symbol"]) for e in entries if e.kind == "fill"]
    assert fills == [("BTCUSDT", "BTCUSDT"), ("ETHUSDT", "ETHUSDT")]
    foreign = entries_for(ACCOUNT, [found[0][0]], [found[1][1]], known=())
    assert not [e for e in foreign if e.kind == "fill"]


def test_in_which_order_and_with_what_they_are_adopted() -> None:
    ours = [client_order_id(ACCOUNT, SYMBOL.id, STARTED_MS + n * 60_000, "entry") for n in range(2)]
    minute = timedelta(minutes=1)
    orders = [
        SeenOrder(
            name,
            f"v{n}",
            SYMBOL,
            "buy",
            "market",
            Decimal(1),
            None,
            None,
            "filled",
            START + n * minute,
            START + 9 * minute,
        )._replace(updated_at=START + (9 - n) * minute)
        for n, name in enumerate(ours)
    ]
    fills = [
        SeenFill(
            f"t{n}", f"v{n}", SYMBOL, "buy", Decimal(1), Decimal(9), Decimal(1), "BNB", Decimal(600), START + n * minute
        )
        for n in (1, 0)
    ]
    entries = entries_for(ACCOUNT, orders[::-1], fills, known=())
    told = [(entry.kind, entry.body["client_order_id"]) for entry in entries]
    first, second = ours
    assert told[:4] == [("intent", first), ("fill", first), ("intent", second), ("fill", second)]
    assert told[4:] == [("order", second), ("order", first)]  # as they were told of last
    assert [e.body["fee_quote"] for e in entries if e.kind == "fill"] == [600, 600]
    elsewhere = orders[0]._replace(symbol=symbol_for("binance", "ETHUSDT"))  # an id that was made for another symbol
    assert entries_for(ACCOUNT, [elsewhere], [], known=()) == []


def test_a_dump_from_before_three_trades(server: Postgres, tmp_path: Path) -> None:
    name = server.database()
    shell = Shell(tmp_path, DATABASE_URL=server.url(name))
    with psycopg.connect(server.url(name)) as connection:
        exchange = Exchange(book(connection, "binance-main", "real"))
        exchange.trade(1, "buy", "entry", ["0.1"])
        exchange.trade(2, "sell", "exit", ["0.05"], state="partially_filled", qty="0.09")  # goes on after the dump
        dump = shell.work / str(shell("db", "backup", "--json", ok=True).json["path"])
        exchange.orders[1] = exchange.orders[1]._replace(state="filled")
        rest = exchange.fills[1]._replace(venue_trade_id="t2-1", qty=Decimal("0.04"), fee=Decimal(2))
        exchange.fills.append(rest)
        exchange.book.append(
            *entries_for(ACCOUNT, exchange.orders[1:2], [rest], known=[exchange.orders[1].client_order_id])
        )
        exchange.trade(3, "buy", "entry", ["0.2", "0.1"])
        exchange.trade(4, "sell", "take", ["0.1", "0.1", "0.0"][:2])
        exchange.trade(5, "sell", "stop", [], state="open", qty="0.1")
        exchange.trade(6, "buy", "entry", [], state="cancelled", qty="0.3")
        before = told(connection)
        connection.execute("UPDATE authority SET heartbeat_at = now() - interval '1 hour'")
        connection.commit()
    shell("db", "restore", dump, "--yes", ok=True)

    # Others trade on the account, too: by hand, with another program, with the same program for another account.
    other = client_order_id("binance:spot:real:k2", SYMBOL.id, STARTED_MS, "entry")
    foreign = [
        exchange.orders[0]._replace(client_order_id=text, venue_order_id=f"f{i}")
        for i, text in enumerate(("web_1", other))
    ]
    strangers = [exchange.fills[0]._replace(venue_trade_id=f"f{i}", venue_order_id=f"f{i}") for i in range(2)]
    with psycopg.connect(server.url(name)) as connection:
        account = exchange.book.account.id
        epoch = take_authority(connection, account)
        connection.execute("UPDATE authority SET halted = false")
        halt = Entry("h", "control", START, {"action": "halt", "reason": "restored", "by": "test"})
        append(connection, account, epoch, [halt])  # a halt does not undo what was sent
        for _ in range(2):
            known = [row[0] for row in connection.execute("SELECT client_order_id FROM orders")]
            connection.rollback()
            seen = entries_for(ACCOUNT, [*foreign, *exchange.orders], [*strangers, *exchange.fills], known)
            append(connection, account, epoch, seen)
            assert told(connection) == before
    shell("db", "verify", ok=True)
