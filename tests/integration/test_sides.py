"""Side series as a user has them: imported or downloaded, looked at, and joined by backtest, replay, live session and parity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from atb.core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, SystemClock, iso
from tests.database import Postgres
from tests.integration.shell import Shell
from tests.integration.test_live_trading import ended, healthy, until
from tests.venue.exchange_process import ExchangeProcess
from tests.venue.fear_greed import FearGreed, days
from tests.venue.loopback import Exchange, Fault, Loopback

ROOT = Path(__file__).parents[2]
CANDLES = ROOT / "tests" / "golden" / "candles.csv"
CARRY = '''
import numpy as np

from atb.engine.indicators import sma
from atb.strategy import Strategy, side


class Carry(Strategy):
    """In an uptrend, while funding is not dear."""

    sides = (side("funding_rate", max_age="1d"),)
    policy = {"stop_loss": 0.1}
    lookback_bars = 24

    def signals(self, candles):
        trend = np.sign(candles.close - sma(candles, 24))
        return np.where((candles.side("funding_rate") > 0.0001) & ~np.isnan(trend), -1.0, trend)
'''
PEEK = CARRY.replace('candles.side("funding_rate") > ', 'np.append(candles.side("funding_rate")[1:], 0.0) > ')
REAL = ("--name", "funding_rate", "--symbol", "BTCUSDT", "--venue", "binanceusdm", "--time-column", "funding_time",
        "--value-column", "funding_rate", "--delay", "1m")  # fmt: skip


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.write("strategies/carry.py", CARRY)
    return made


def csv_of(rows: list[tuple[int, float]], header: str = "time,value") -> str:
    return "\n".join([header, *(f"{iso(at)},{value!r}" for at, value in rows)]) + "\n"


def funding(start_ms: int, count: int, seed: int = 1) -> list[tuple[int, float]]:
    values = np.random.default_rng(seed).normal(1e-4, 2e-4, count).round(8).tolist()
    return [(start_ms + i * 8 * HOUR_MS, value) for i, value in enumerate(values)]


def golden_funding(more: float = 0.0) -> str:
    """Of the days of the golden candles."""
    first = int(CANDLES.read_text().splitlines()[1].split(",")[0])
    return csv_of([(at, value + more) for at, value in funding(first - 2 * DAY_MS, 400)])


# --- commands


def test_import_list_show_remove(shell: Shell) -> None:
    assert "No side series are stored" in shell("data", "side", "list", ok=True).err
    shell.write("mine.csv", csv_of([(DAY_MS * 20_000, 1.5), (DAY_MS * 20_001, -2.0)]))
    ran = shell("data", "side", "import", "mine.csv", "--name", "mine", "--delay", "1d", ok=True)
    assert "Stored 2 values of mine file, under" in ran.err
    again = shell("data", "side", "import", "mine.csv", "--name", "mine", "--delay", "1d", ok=True)
    assert "Stored 0 values of mine file; 2 were there already" in again.err
    shell.write("mine.csv", csv_of([(DAY_MS * 20_000, 9.5), (DAY_MS * 20_001, -2.0)]))
    shell("data", "side", "import", "mine.csv", "--name", "mine", "--delay", "1d", ok=True)
    (listed,) = shell("data", "side", "list", "--json", ok=True).json
    assert listed["rows"] == 3 and listed["revisions"] == 1 and listed["symbol"] is None and listed["value"] == -2.0
    assert (listed["first"], listed["known"]) == (iso(DAY_MS * 20_000), iso(DAY_MS * 20_002))
    shown = shell("data", "side", "show", "mine", "--json", ok=True).json["rows"]
    assert [row["value"] for row in shown] == [1.5, -2.0, 9.5]
    assert (
        abs(SystemClock().now_ms() - np.datetime64(shown[2]["available"][:-1]).astype("datetime64[ms]").astype(int))
        < 60_000
    )
    assert shell("data", "side", "show", "mine", "--rows", 1, ok=True).out.startswith("time\tavailable\tvalue\n")
    assert shell("data", "side", "remove", "mine").code == 2
    shell("data", "side", "remove", "mine", "--yes", ok=True)
    assert shell("data", "side", "list", "--json", ok=True).json == []


def test_a_file_may_say_itself_when_it_was_known(shell: Shell) -> None:
    shell.write("mine.csv", "TIME,Value,Available\n2024-01-01,1,2024-01-02\n2024-01-01,2,2024-02-01T12:00\n")
    shell("data", "side", "import", "mine.csv", "--name", "gdp", "--symbol", "BTCUSDT", ok=True)
    rows = shell("data", "side", "show", "gdp", "--json", ok=True).json["rows"]
    assert [(row["available"], row["value"]) for row in rows] == [
        ("2024-01-02T00:00:00Z", 1.0),
        ("2024-02-01T12:00:00Z", 2.0),
    ]


BAD = {
    "": "is empty",
    "time,value\n": "holds no rows",
    "time,values\n2024-01-01,1\n": "column value is missing",
    "when,value\n2024-01-01,1\n": "column time is missing",
    "time,value\n2024-01-01,one\n": "column value, line 2: 'one' is not a number",
    "time,value\n2024-01-01,nan\n": "column value, line 2: nan is no number",
    "time,value\n2024-01-01,inf\n": "column value, line 2: inf is no number",
    "time,value\n2024-01-01,1\n2024-01-02,\n": "column value, line 3: empty",
    "time,value\nyesterday,1\n": "column time, line 2: 'yesterday' is not a time",
    "time,value\n2024-01-01,1\n2024-01-01,2\n": "is both 1.0 and 2.0",
}


@pytest.mark.parametrize(("text", "words"), BAD.items(), ids=BAD.values())
def test_files_that_are_none(shell: Shell, text: str, words: str) -> None:
    shell.write("mine.csv", text)
    ran = shell("data", "side", "import", "mine.csv", "--name", "mine", "--delay", "1d")
    assert ran.code == 3 and words in ran.message, ran.err
    assert not list((shell.home / "sides").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("import", "mine.csv", "--name", "mine"), "does not say from when on"),
        (("import", "mine.csv", "--name", "mine", "--delay", "soon"), "--delay 'soon' is no length of time"),
        (("import", "mine.csv", "--name", "Mine!", "--delay", "1d"), "cannot be the name"),
        (("import", "mine.csv", "--name", "close", "--delay", "1d"), "is a column of candles"),
        (("import", "mine.csv", "--name", "mine", "--delay", "1d", "--symbol", "../x"), "--symbol '../x' is no name"),
        (("import", "mine.csv", "--name", "mine", "--delay", "1d", "--symbol", "btcusdt"), "as an exchange writes it"),
        (("import", "none.csv", "--name", "mine", "--delay", "1d"), "none.csv does not exist"),
        (("import", "known.csv", "--name", "mine", "--delay", "1d"), "has a column of when"),
        (("download", "fundingrate", "BTCUSDT"), "'fundingrate' cannot be downloaded"),
        (("download", "funding_rate"), "funding_rate is of a symbol"),
        (("download", "fear_greed", "BTCUSDT"), "fear_greed is of no symbol"),
        (("download", "funding_rate", "BTCUSDT", "--period", "1h"), "--period means nothing"),
        (("show", "mine", "--rows", "-1"), "--rows must be 0 or more"),
    ],
)  # fmt: skip
def test_bad_usage(shell: Shell, args: tuple[str, ...], words: str) -> None:
    shell.write("mine.csv", csv_of([(DAY_MS * 20_000, 1.5)]))
    shell.write("known.csv", "time,value,available\n2024-01-02,1,2024-01-03\n")
    ran = shell("data", "side", *args)
    assert ran.code == 2 and words in ran.message, ran.err


def test_known_before_its_time_is_refused(shell: Shell) -> None:
    shell.write("known.csv", "time,value,available\n2024-01-02,1,2024-01-01\n")
    ran = shell("data", "side", "import", "known.csv", "--name", "mine")
    assert ran.code == 3 and "is before the time that it is about" in ran.message


def test_several_of_a_name(shell: Shell) -> None:
    shell.write("mine.csv", csv_of([(DAY_MS * 20_000, 1.5)]))
    for symbol in ("BTCUSDT", "ETHUSDT"):
        shell("data", "side", "import", "mine.csv", "--name", "mine", "--delay", "1d", "--symbol", symbol, ok=True)
    ran = shell("data", "side", "show", "mine")
    assert ran.code == 2 and "mine file BTCUSDT; mine file ETHUSDT" in ran.message
    shell("data", "side", "show", "mine", "--symbol", "ETHUSDT", ok=True)
    assert shell("data", "side", "show", "mien").code == 3


# --- backtest


def test_without_it_the_next_command_is_named(shell: Shell) -> None:
    ran = shell("backtest", "carry", "--symbol", "BTCUSDT", "--data", CANDLES)
    assert ran.code == 3 and "No side series funding_rate for BTCUSDT is stored." in ran.message
    assert "atb data side download funding_rate BTCUSDT" in ran.err


def test_simulated_candles_have_simulated_side_series(shell: Shell) -> None:
    run = ("backtest", "carry", "--symbol", "BTCUSDT", "--provider", "simulated", "--days", 90, "--json")
    told = shell(*run, ok=True).json
    assert told["data"][0]["sides"]["funding_rate"]["missing"] == 0
    assert shell(*run, "--seed", 2, ok=True).json["data"][0]["sides"] != told["data"][0]["sides"]
    assert shell("strategies", "check", "carry", ok=True).out.startswith("carry: passed")


def test_a_look_ahead_is_refused(shell: Shell) -> None:
    shell.write("strategies/peek.py", PEEK)
    shell.write("funding.csv", golden_funding())
    shell("data", "side", "import", "funding.csv", *REAL[:4], "--delay", "1m", ok=True)
    for ran in (
        shell("strategies", "check", "peek", "--json"),
        shell("strategies", "check", "peek", "--data", CANDLES, "--json"),
    ):
        assert ran.code == 10 and ran.json["findings"][0]["kind"] == "future"
    ran = shell("backtest", "peek", "--symbol", "BTCUSDT", "--data", CANDLES)
    assert ran.code == 10 and "look-ahead: the signal of candle" in ran.message
    shell("strategies", "check", "carry", "--data", CANDLES, ok=True)


def test_values_that_do_not_reach_the_candles(shell: Shell) -> None:
    shell.write("old.csv", csv_of(funding(DAY_MS * 15_000, 10)))
    shell("data", "side", "import", "old.csv", *REAL[:4], "--delay", "1m", ok=True)
    ran = shell("backtest", "carry", "--symbol", "BTCUSDT", "--data", CANDLES)
    assert ran.code == 3 and "funding_rate has no value at any of the candles of BTCUSDT" in ran.message


def test_a_revision_that_comes_later_changes_no_backtest(shell: Shell) -> None:
    """What is told otherwise today was not known then."""
    shell.write("funding.csv", golden_funding())
    shell("data", "side", "import", "funding.csv", *REAL[:4], "--delay", "1m", ok=True)
    run = ("backtest", "carry", "--symbol", "BTCUSDT", "--data", CANDLES, "--json")
    before = shell(*run, ok=True).json
    shell.write("funding.csv", golden_funding(more=1.0))
    ran = shell("data", "side", "import", "funding.csv", *REAL[:4], "--delay", "1m", ok=True)
    assert "Stored 400 values" in ran.err
    after = shell(*run, ok=True).json
    assert len(before["trades"]) > 3 and after["trades"] == before["trades"] and after["data"] == before["data"]


# --- live


@pytest.fixture
def traded(server: Postgres, tmp_path: Path) -> Shell:
    made = Shell(tmp_path, DATABASE_URL=server.url(server.database()))
    made.write("strategies/carry.py", CARRY)
    return made


@pytest.mark.slow
def test_a_replay_is_the_backtest(traded: Shell) -> None:
    """Imported, in a backtest, replayed through what trades live, and compared: identical, and funding had a say."""
    traded.write("funding.csv", golden_funding())
    traded("data", "side", "import", "funding.csv", *REAL[:4], "--delay", "1m", ok=True)
    _replay_is_the_backtest(traded, CANDLES, ("--days", "40"))


@pytest.mark.slow
def test_a_value_that_is_another_one_now_is_named(traded: Shell) -> None:
    """As where it was told after the close: what the session knew then is in its ledger."""
    traded.write("funding.csv", golden_funding())
    imported = ("data", "side", "import", "funding.csv", *REAL[:4], "--delay", "1m")
    traded(*imported, ok=True)
    asked = ("carry", "--symbol", "BTCUSDT", "--data", CANDLES, "--days", "40", "--json")
    session = traded("live", *asked, "--provider", "replay", ok=True).json["session_id"]
    traded("data", "side", "remove", "funding_rate", "--yes", ok=True)
    head, *rows = golden_funding().splitlines()
    cells = [row.split(",") for row in rows]
    other = [f"{at},{-float(value) if k % 9 == 0 else value}" for k, (at, value) in enumerate(cells)]
    traded.write("funding.csv", "\n".join([head, *other]) + "\n")
    traded(*imported, ok=True)
    told = traded("live", "parity", "--session-id", session, "--data", CANDLES, "--json", ok=True).json
    assert told["explained"] and not told["equal"] and set(told["causes"]) == {"side"}
    assert {d["what"] for d in told["differences"]} == {"side", "signal"}
    first = next(d for d in told["differences"] if d["what"] == "side")
    assert first["session"].startswith("funding_rate ") and first["session"] != first["backtest"]


@pytest.mark.slow
def test_a_replay_of_real_candles_with_real_funding(traded: Shell, real_data: Path) -> None:
    path = real_data / "binanceusdm_BTCUSDT_funding.parquet"
    traded("data", "side", "import", path, *REAL, ok=True)
    candles = real_data / "binance_BTCUSDT_1h.parquet"
    _replay_is_the_backtest(traded, candles, ("--start", "2024-02-20", "--end", "2024-04-10"))


def _replay_is_the_backtest(shell: Shell, candles: Path, span: tuple[str, ...]) -> None:
    asked = ("carry", "--symbol", "BTCUSDT", "--data", candles, *span, "--json")
    backtest = shell("backtest", *asked, ok=True).json
    told = shell("live", *asked, "--provider", "replay", ok=True).json
    assert told["parity"]["differences"] == [] and told["parity"]["fills"] == len(backtest["fills"]) > 5
    assert float(told["equity"]) == pytest.approx(backtest["statistics"]["end_equity"], rel=1e-9)
    parity = ("live", "parity", "--session-id", told["session_id"], "--data", candles, "--json")
    assert shell(*parity, ok=True).json["differences"] == []
    shell.write("strategies/plain.py", CARRY.replace("Carry", "Plain").replace("> 0.0001", "> 9.0"))
    without = shell("backtest", "plain", *asked[1:], ok=True).json
    assert without["fills"] != backtest["fills"]
    shell("data", "side", "remove", "funding_rate", "--yes", ok=True)
    assert shell(*parity).code == 3


@pytest.fixture(scope="module")
def exchange() -> Iterator[ExchangeProcess]:
    """A process of its own, as an exchange is."""
    pytest.importorskip("ccxt")
    with ExchangeProcess("--timeframe", "1m", "--history", "400", "--walk", "2") as process:
        yield process


PAPER = ("carry", "--symbol", "BTCUSDT", "--timeframe", "1m", "--check-interval", "1", "--health-port", "0")


@pytest.fixture
def futures() -> Iterator[Loopback]:
    now = SystemClock().now_ms()
    made = Exchange(now)
    made.clock.run(1.0)
    first = now // (8 * HOUR_MS) * 8 * HOUR_MS - 30 * DAY_MS
    made.funding["BTCUSDT"] = np.array(funding(first, 91))
    with Loopback(made) as server:
        yield server


@pytest.mark.slow
def test_a_series_that_cannot_be_refreshed_keeps_nobody_from_trading(
    traded: Shell, exchange: ExchangeProcess, futures: Loopback
) -> None:
    env = {**exchange.address, "ATB_BINANCEUSDM_API_URL": futures.url}
    refused = traded("live", *PAPER, env=env)
    assert refused.code == 3 and "atb data side download funding_rate BTCUSDT" in refused.err
    known = futures.exchange.funding["BTCUSDT"][:5]
    traded.write("first.csv", csv_of([(int(at), float(value)) for at, value in known]))
    traded("data", "side", "import", "first.csv", *REAL[:6], "--delay", "1m", ok=True)
    futures.add(Fault("status", times=1))
    process = traded.start("live", *PAPER, env=env)
    try:
        healthy(traded)
        query = "SELECT message FROM events WHERE code = 'side_series_stale'"
        told = until(lambda: traded("db", "query", query).out, "a word on the trouble")
        assert "is not fresh" in told, told
        decided = "SELECT count(*) FROM decisions WHERE signal IS NOT NULL"
        until(lambda: int(traded("db", "query", decided).out or 0) > 0, "a decision, with the series stale")
    finally:
        process.terminate()
        code, _, _ = ended(process)
    assert code == 0


@pytest.mark.slow
def test_a_session_fetches_what_is_new(traded: Shell, exchange: ExchangeProcess, futures: Loopback) -> None:
    env = {**exchange.address, "ATB_BINANCEUSDM_API_URL": futures.url}
    done = traded("data", "side", "download", "funding_rate", "BTCUSDT", "--json", env=env, ok=True).json
    assert done["new"] == done["told"] and done["new"] > 85
    rows, now = futures.exchange.funding["BTCUSDT"], SystemClock().now_ms()
    news = [[now - 90_000, 0.25]]
    futures.exchange.funding["BTCUSDT"] = np.concatenate([rows[rows[:, 0] < now - 90_000], news])
    process = traded.start("live", *PAPER, env=env)
    try:
        healthy(traded)
        listed = ("data", "side", "show", "funding_rate", "--json")
        until(
            lambda: 0.25 in [row["value"] for row in traded(*listed).json["rows"]],
            "the newest value, fetched by the session",
        )
    finally:
        process.terminate()
        code, _, _ = ended(process)
    assert code == 0


def test_fear_and_greed_by_its_command(shell: Shell) -> None:
    day = SystemClock().now_ms() // DAY_MS * DAY_MS
    with FearGreed(days(20, 30, 40, first_ms=day - 2 * DAY_MS)) as server:
        env = {"ATB_FEAR_GREED_URL": server.url}
        ran = shell("data", "side", "download", "fear_greed", env=env, ok=True)
        assert "Stored 3 values of fear_greed alternative.me; 3 values came." in ran.err
    ran = shell("data", "side", "download", "fear_greed", env=env)
    assert ran.code == 4 and "could not be reached" in ran.message
    assert len(shell("data", "side", "show", "fear_greed", "--json", ok=True).json["rows"]) == 3
    assert shell("data", "list", "--json", ok=True).json == []  # no candles


def test_a_damaged_file_stops_a_backtest_with_its_name(shell: Shell) -> None:
    shell.write("funding.csv", golden_funding())
    shell("data", "side", "import", "funding.csv", *REAL[:4], "--delay", "1m", ok=True)
    (part,) = (shell.home / "sides").rglob("*.parquet")
    part.write_bytes(part.read_bytes()[: MINUTE_MS % 977])
    ran = shell("backtest", "carry", "--symbol", "BTCUSDT", "--data", CANDLES)
    assert ran.code == 3 and part.name in ran.message
