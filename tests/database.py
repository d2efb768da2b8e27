"""A real Postgres for tests: one server a session, one fresh, migrated database a test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import psycopg
import pytest
from psycopg.sql import SQL, Literal

from atb.ledger import accounts, embedded
from atb.ledger.connect import Where, from_url
from atb.ledger.entries import Entry, fill_id
from atb.ledger.journal import append
from atb.ledger.migrate import migrate

ROOT = Path(__file__).resolve().parents[1]
MIGRATIONS = ROOT / "migrations"
TEMPLATE = "atb_template"
START = datetime(2025, 11, 21, 12, tzinfo=UTC)
_numbers = itertools.count()


class Postgres:
    """The server, and databases on it. A commit is with the operating system when it returns, and not yet on the disk: that
    survives every kill of a process, and only a power failure would tell the difference."""

    def __init__(self, home: Path, first_port: int = 23_000) -> None:
        self.home = home
        self.server = embedded.start(home, first_port=first_port)
        self.port = self.server.port
        lines = self.server.password_file.read_text().splitlines()
        self.password = next(line.rsplit(":", 1)[1] for line in lines if line.startswith("127.0.0.1:"))
        self._made = False
        self._names: list[str] = []
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            # Each of thousands of connections proves that it knows the password: with less arithmetic.
            connection.execute("SET scram_iterations = 1")
            connection.execute(SQL("ALTER ROLE trading_bot PASSWORD {}").format(Literal(self.password)))

    def url(self, database: str) -> str:
        return f"postgresql://trading_bot:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    def where(self, database: str) -> Where:
        return from_url(self.url(database))

    def database(self) -> str:
        """A new database with the tables of this version, copied from a template."""
        if not self._made:
            self._create(TEMPLATE, "template1")
            migrate(self.where(TEMPLATE), MIGRATIONS)
            self._made = True
        name = f"test_{next(_numbers)}"
        self._create(name, TEMPLATE)
        self._names.append(name)
        return name

    def empty_database(self) -> str:
        name = f"empty_{next(_numbers)}"
        self._create(name, "template1")
        self._names.append(name)
        return name

    def drop_databases(self) -> None:
        """Those that were asked for, with whoever is connected to them."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            while self._names:
                connection.execute(f'DROP DATABASE IF EXISTS "{self._names.pop()}" WITH (FORCE)')

    def _create(self, name: str, template: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')


class Elsewhere(Postgres):
    """A server that runs already, such as one of another version. url: of its superuser. It is neither stopped nor killed."""

    def __init__(self, url: str) -> None:
        self.base, self.password = url.rpartition("/")[0], unquote(urlsplit(url).password or "")
        self.port = urlsplit(url).port or 5432
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            left = connection.execute(
                "SELECT datname FROM pg_database WHERE datname ~ '^(atb_template$|(test|empty)_[0-9])'"
            )
            self._made, self._names = False, [name for (name,) in left]
        self.drop_databases()

    def url(self, database: str) -> str:
        return f"{self.base}/{database}"

    def __getattr__(self, name: str) -> Any:
        pytest.skip(f"ATB_TEST_POSTGRES is somebody's: this needs the server's {name}, and did NOT run")


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """ATB_TEST_POSTGRES: the URL of a server to be used instead of one of our own."""
    if url := os.environ.get("ATB_TEST_POSTGRES"):
        yield Elsewhere(url)
        return
    home = folder / "server"
    try:
        yield Postgres(home)
    finally:
        embedded.stop(home)


class Book(NamedTuple):
    """An account with a session, to be written to by a test."""

    connection: psycopg.Connection[Any]
    account: accounts.AccountRow
    epoch: int
    session: int

    def append(self, *entries: Entry) -> None:
        append(self.connection, self.account.id, self.epoch, entries)

    def fill(self, side: str, qty: str, price: str, trade_id: str, minute: int = 0, **more: Any) -> Entry:
        symbol = more.pop("symbol", "BTCUSDT")
        body = {
            "symbol": symbol,
            "side": side,
            "qty": Decimal(qty),
            "price": Decimal(price),
            "venue_trade_id": trade_id,
        }
        at = START + timedelta(minutes=minute)
        return Entry(fill_id(symbol, side, trade_id), "fill", at, {"base": symbol[:3], **body, **more}, self.session)

    def mark(self, minute: int, **prices: str) -> Entry:
        body = {"prices": {symbol: Decimal(price) for symbol, price in prices.items()}, "why": "candle"}
        return Entry(f"mark:{minute}", "mark", START + timedelta(minutes=minute), body, self.session)


def book(
    connection: psycopg.Connection[Any], name: str = "paper:one", environment: str = "paper", balance: str = "10000"
) -> Book:
    """An account of `balance` USDT with an open session."""
    account = accounts.open_account(connection, name, venue="binance", environment=environment, quote="USDT")
    epoch = accounts.take_authority(connection, account.id)
    session = accounts.next_session_id(connection)
    connection.commit()
    deposit = {"type": "deposit", "asset": "USDT", "amount": Decimal(balance), "reason": "start", "evidence": "test"}
    opening = {
        "action": "open",
        "session_id": session,
        "strategy": "ml_basic",
        "mode": environment,
        "symbols": "BTCUSDT",
    }
    made = Book(connection, account, epoch, session)
    made.append(
        Entry("deposit", "adjustment", START, deposit), Entry(f"session:{session}", "session", START, opening, session)
    )
    return made
