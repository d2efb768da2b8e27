"""`atb live sync-balance` as an operator types it: the table, the exit code, what is accepted, and every wrong key."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from atb.core.keys import ApiKey
from tests.database import Postgres, book
from tests.integration.shell import Ran, Shell
from tests.integration.test_reconciler import Engine
from tests.venue.broker_case import Case, desk
from tests.venue.exchange import made_key

pytest.importorskip("ccxt")
SYNC = ("live", "sync-balance", "--provider", "binance")


@pytest.fixture
def case() -> Iterator[Case]:
    with desk(deposits={"USDT": "10000", "BTC": "1", "BNB": "3"}) as made:
        made.exchange.clock.factor = 0.0
        yield made


class Account:
    """A real account that has bought something, and a shell beside it. `engine` runs until it is ended."""

    def __init__(self, server: Postgres, case: Case, folder: Path) -> None:
        key = ApiKey(case.account.key.key, case.account.key.secret)
        self.case, self.engine = case, Engine(server, case, key_identity=key.fingerprint)
        self.engine.close(1.0)
        case.exchange.now_ms += 60_000
        self.shell = Shell(
            folder, DATABASE_URL=server.url(self.engine.database), ATB_BINANCE_API_URL=case.server.url,
            BINANCE_API_KEY=key.id, BINANCE_API_SECRET=key.secret,
        )  # fmt: skip

    def move(self, kind: str, amount: str, told: bool = True) -> None:
        self.case.exchange.owner.move(self.case.account, kind, "USDT", amount, told=told)

    def sync(self, *args: str) -> Ran:
        return self.shell(*SYNC, *args)


@pytest.fixture
def account(server: Postgres, case: Case, tmp_path: Path) -> Iterator[Account]:
    made = Account(server, case, tmp_path)
    yield made
    made.engine.end()


def rows(ran: Ran) -> list[list[str]]:
    return [line.split("\t") for line in ran.out.splitlines()]


def test_equal(account: Account) -> None:
    ran = account.sync()
    assert (ran.code, ran.out) == (0, "")
    assert "the ledger and binance agree" in ran.err
    told = account.sync("--json").json
    assert (told["equal"], told["lines"], told["mode"]) == (True, [], "real")


@pytest.mark.slow
def test_different_then_accepted_beside_an_engine_that_goes_on(account: Account) -> None:
    account.move("withdrawal", "77", told=False)
    account.move("deposit", "250")
    ran = account.sync()
    assert ran.code == 7 and "sync-balance --provider binance --accept" in ran.err
    header, *lines = rows(ran)
    assert header == ["what", "database", "exchange", "difference", "explanation", "action"]
    assert [(line[0], line[3], line[5]) for line in lines] == [("USDT", "+250", "book"), ("USDT", "-77", "refuse")]
    assert account.sync("--json").code == 7

    accepted = account.sync("--accept", "--reason", "sent to the cold wallet")
    assert accepted.code == 0, accepted.err
    again = account.sync()
    assert again.code == 7 and "The engine that runs books it within a cycle" in again.err
    assert account.engine.cycle().unexplained == []  # it was not fenced
    account.engine.agrees()
    assert account.sync().code == 0
    told = account.shell(
        "db", "query", "SELECT type, amount, reason, evidence FROM adjustments ORDER BY seq DESC LIMIT 2", ok=True
    )
    assert "correction" in told.out and "sent to the cold wallet" in told.out and "typed by" in told.out
    account.shell("db", "verify", ok=True)


def test_without_an_engine_all_of_it_is_booked_at_once(account: Account) -> None:
    account.engine.end()
    account.move("deposit", "250")
    account.case.exchange.move_to("BTCUSDT", "30000")  # the stop
    ran = account.sync()
    assert ran.code == 7 and "The next start books it" in ran.err
    assert [line[0] for line in rows(ran)[1:]] == ["BTCUSDT", "USDT"]
    assert account.sync("--accept", "--reason", "all right").code == 0
    assert account.sync().code == 0
    held = account.shell("db", "positions", "--json", ok=True).json
    assert [p for p in held if Decimal(str(p["size"])) > Decimal("0.00001")] == []
    account.shell("db", "verify", ok=True)


def test_bad_input(account: Account) -> None:
    for args, words in (
        (("--accept",), "needs a reason"), (("--accept", "--reason", " "), "needs a reason"),
        (("--reason", "x"), "Add --accept"), (("--account", "nobody"), "no account nobody"),
    ):  # fmt: skip
        ran = account.sync(*args)
        assert ran.code == 2 and words in ran.err, ran.err
    assert account.shell("live", "sync-balance", "--provider", "binanse").code == 2
    assert account.shell("live", "sync-balance", "--provider", "coinbase").code == 2


@pytest.mark.slow
def test_keys(account: Account) -> None:
    none = {"BINANCE_API_KEY": "", "BINANCE_API_SECRET": ""}
    ran = account.shell(*SYNC, env=none)
    assert ran.code == 2 and "no account on paper, and no key is set," in ran.err
    name = account.engine.session.account.name
    ran = account.shell(*SYNC, "--account", name, env=none)
    assert ran.code == 2 and "not set" in ran.err
    other = made_key("another")
    ran = account.shell(*SYNC, env={"BINANCE_API_KEY": other.key})
    assert ran.code == 2 and "no account of the key that is set at binance" in ran.err
    env = {"BINANCE_API_KEY": other.key, "BINANCE_API_SECRET": other.secret}
    ran = account.shell(*SYNC, "--account", name, env=env)
    assert ran.code == 2 and "another key" in ran.err and other.secret not in ran.err + ran.out
    ran = account.shell(*SYNC, env={"BINANCE_API_SECRET": other.secret})  # a wrong secret
    assert ran.code == 5 and other.secret not in ran.err
    ran = account.shell(*SYNC, env={"ATB_BINANCE_API_URL": "http://127.0.0.1:9"})
    assert ran.code == 4


def test_paper_has_no_other_side(server: Postgres, tmp_path: Path) -> None:
    name = server.database()
    with psycopg.connect(server.url(name)) as connection:
        book(connection, "paper:one")
    shell = Shell(tmp_path, DATABASE_URL=server.url(name))
    for args in ((), ("--account", "paper:one")):
        ran = shell(*SYNC, *args, ok=True)
        assert "paper account" in ran.out
    assert shell(*SYNC, "--json", ok=True).json["mode"] == "paper"


def test_an_account_that_has_not_begun(server: Postgres, case: Case, tmp_path: Path) -> None:
    name, key = server.database(), ApiKey(case.account.key.key, case.account.key.secret)
    shell = Shell(
        tmp_path, DATABASE_URL=server.url(name), ATB_BINANCE_API_URL=case.server.url, BINANCE_API_KEY=key.id,
        BINANCE_API_SECRET=key.secret,
    )  # fmt: skip
    ran = shell(*SYNC)
    assert ran.code == 2 and "no account of the key" in ran.err
