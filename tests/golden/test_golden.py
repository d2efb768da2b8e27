"""Frozen simulated candles and what each strategy did on them. A difference is a change of behaviour: explain it.

After a change that is meant: `python -m tests.golden.test_golden` writes the expectation again; read its diff.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atb.backtest.request import Request
from atb.data.files import load_file
from atb.venue.simulated import SIMULATED_START_MS, simulate_candles

FOLDER = Path(__file__).parent
CANDLES = FOLDER / "candles.csv"
STRATEGIES = (
    "bollinger_reversion", "buy_and_hold", "donchian_trend", "ml_basic", "rsi_reversion", "sma_cross", "vol_target_trend",
)  # fmt: skip
POLICY = {"take_profit": 0.04, "trailing_stop": 0.03, "trailing_after": 0.01, "partial_exits": ((0.02, 0.5),)}
COLUMNS = ("open", "high", "low", "close", "volume")


def outcome(strategy: str, policy: dict[str, Any]) -> dict[str, Any]:
    """Trades and end equity, as text that shows every bit."""
    from atb.app import App

    request = Request(strategy, ("BTCUSDT",), data=(CANDLES,), policy_flags=policy)
    result = App().backtest(request, lambda text: None, lambda what, share: None).to_dict()
    trades = [" ".join(str(value) for value in trade.values()) for trade in result["trades"]]
    return {"end_equity": result["statistics"]["end_equity"], "rejected": result["rejected_signals"], "trades": trades}


def all_outcomes() -> dict[str, Any]:
    found = {name: outcome(name, {}) for name in STRATEGIES}
    return found | {"sma_cross with exits": outcome("sma_cross", POLICY)}


@pytest.mark.parametrize("name", [*STRATEGIES, "sma_cross with exits"])
def test_every_trade_is_the_frozen_one(name: str) -> None:
    expected = json.loads((FOLDER / "outcomes.json").read_text())[name]
    assert expected["trades"]
    strategy = name.split(" ")[0]
    assert outcome(strategy, {} if strategy == name else POLICY) == expected


def test_the_simulator_still_makes_these_candles() -> None:
    frozen = load_file(CANDLES, "BTCUSDT", "1h")
    again = simulate_candles("BTCUSDT", "1h", SIMULATED_START_MS, len(frozen), 7)
    assert np.array_equal(frozen.open_time, again.open_time)
    for name in COLUMNS:
        # The last digit of exp and log may differ between C libraries; prices are rounded to two places.
        np.testing.assert_allclose(getattr(frozen, name), getattr(again, name), rtol=1e-4, err_msg=name)


def write() -> None:
    candles = simulate_candles("BTCUSDT", "1h", SIMULATED_START_MS, 2000, 7)
    columns = [candles.open_time.tolist(), *(getattr(candles, name).tolist() for name in COLUMNS)]
    lines = ["open_time," + ",".join(COLUMNS), *(",".join(map(repr, row)) for row in zip(*columns, strict=True))]
    CANDLES.write_text("\n".join(lines) + "\n")
    (FOLDER / "outcomes.json").write_text(json.dumps(all_outcomes(), indent=1) + "\n")


if __name__ == "__main__":
    write()
