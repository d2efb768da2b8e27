"""What a drawdown halt does: it closes what is held, or leaves it to its stop and its strategy; either way nothing is entered."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from atb.engine.candles import Candles, Floats
from atb.ledger.connect import Where
from atb.ledger.entries import Entry
from atb.strategy.contract import Strategy
from tests.parity.test_paper_is_the_backtest import FIRST, Account, Process
from tests.venue.exchange import HOUR_MS, Rows
from tests.venue.market_time import MarketTime
from tests.venue.test_candles import START

POLICY = {"stop_loss": 0.3, "fraction": 1.0, "max_position": 1.0, "max_drawdown": 0.05}
ENTERED, FALLEN, GONE = 45, 55, 65  # hours: held by then; halted by then; the strategy wants out by then


class Stubborn(Strategy):
    """Long above 33,000."""

    lookback_bars = 1

    def signals(self, candles: Candles) -> Floats:
        return np.where(candles.close > 33_000, 1.0, -1.0)


def falling() -> Rows:
    """Flat at 40,000 for 48 hours, then at 36,000, at 32,000 from hour 60, and at 40,000 again from hour 70."""
    hours = np.arange(80)
    close = np.select([hours < 48, hours < 60, hours < 70], [40_000.0, 36_000.0, 32_000.0], 40_000.0)
    opened = np.append(40_000.0, close[:-1])
    high, low = np.maximum(opened, close) + 1, np.minimum(opened, close) - 1
    return np.column_stack([START + HOUR_MS * hours, opened, high, low, close, np.full(80, 5.0)])


def held_at(account: Account, process: Process, hour: int) -> float:
    account.trade(process, START + hour * HOUR_MS + 30_000)
    return float(process.session.state.held(0))


@pytest.mark.parametrize("on_halt", ["close", "hold"])
def test_a_drawdown_halt(where: Where, tmp_path: Path, on_halt: str) -> None:
    with MarketTime(tmp_path, [falling()], FIRST + 60_000) as market:
        account = Account(where, market, POLICY, on_halt)
        account.strategy, account.config = Stubborn, {"on_halt": on_halt}
        process = account.start()
        assert held_at(account, process, ENTERED) > 0.15
        left = held_at(account, process, FALLEN)
        assert (left > 0.15) == (on_halt == "hold")
        assert "drawdown of 10" in process.session.state.books.halted
        if left:
            resting = [order.purpose for order in process.session.state.working[0].values()]
            assert resting == ["stop"]
        account.end(process)
        process = account.start()  # it lasts
        assert held_at(account, process, GONE) == 0
        assert held_at(account, process, 75) == 0  # wanted again, and not bought
        resume = Entry(
            "resume:1", "control", datetime.now(UTC), {"action": "resume", "reason": "looked at it", "by": "me"}
        )
        process.session.executor.append([resume])
        assert held_at(account, process, 79) > 0.15
        assert not process.session.state.books.halted
        account.end(process)
