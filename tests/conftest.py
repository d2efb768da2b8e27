"""What all tests share: how hypothesis runs, candles of every kind, and the real ones where they are at hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

from atb.core.timeframe import timeframe_ms
from atb.engine.candles import Candles

if TYPE_CHECKING:
    from atb.ledger.connect import Where
    from tests.database import Postgres

settings.register_profile("atb", deadline=None, print_blob=True)  # a busy machine is not a failure
settings.load_profile("atb")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background, with all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)

START_MS = 1_704_067_200_000  # 2024-01-01


class _AtOnce:
    """Tells of a failure when it happens: the log of a run that is ended from outside says what had failed."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(f"\nFAILED {report.nodeid} ({report.when}, {report.duration:.0f} s)", red=True)
            self._terminal.write_line(report.longreprtext[-3000:])


def pytest_sessionstart(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(terminal, pytest.TerminalReporter) and not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_AtOnce(terminal))


def random_candles(
    count: int,
    seed: int = 1,
    *,
    symbol: str = "BTCUSDT",
    timeframe: str = "1h",
    start_ms: int = START_MS,
    price: float = 30_000.0,
) -> Candles:
    """A random walk with wicks, rounded to cents."""
    random = np.random.default_rng(seed)
    close = np.round(price * np.exp(np.cumsum(random.normal(0, 0.005, count))) + 0.01, 2)
    open_ = np.append(price, close[:-1])
    wick = np.abs(random.normal(0, 0.003, (2, count)))
    high = np.round(np.maximum(open_, close) * (1 + wick[0]) + 0.01, 2)
    low = np.round(np.maximum(0.01, np.minimum(open_, close) * (1 - wick[1]) - 0.01), 2)
    times = start_ms + timeframe_ms(timeframe) * np.arange(count, dtype=np.int64)
    return Candles(symbol, timeframe, times, open_, high, low, close, np.round(random.uniform(0, 90, count), 3))


def same_candles(a: Candles, b: Candles) -> bool:
    """Whether two series are equal in every bit."""
    names = ("open_time", "open", "high", "low", "close", "volume")
    columns = all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in names)
    return columns and (a.symbol, a.timeframe) == (b.symbol, b.timeframe)


@pytest.fixture(scope="session")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    from tests.database import postgres

    with postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="module")
def server(one_server: Postgres) -> Iterator[Postgres]:
    """A Postgres for databases of one's own: who changes the server itself, or stops it, starts another one."""
    yield one_server
    one_server.drop_databases()


@pytest.fixture
def where(server: Postgres) -> Where:
    """A database of its own, with the tables of this version."""
    return server.where(server.database())


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real candles; without it the tests that need it say so."""
    folder = os.environ.get("ATB_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ATB_TEST_DATA names no folder of real candles: this test did NOT run")
    return Path(folder)
