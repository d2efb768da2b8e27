"""The glue of a backtest, worked out by hand: two symbols with holes, gaps, shares, history, segments, best case."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from atb.app import App
from atb.backtest.request import Request, Span
from atb.backtest.result import BacktestResult
from atb.core.errors import DataError, StrategyError
from atb.core.words import are, counted, often
from atb.settings import load_settings

HOUR_MS = 3_600_000
START_MS = 1_704_067_200_000  # 2024-01-01


def write_candles(path: Path, prices: dict[int, float]) -> Path:
    """Hourly candles that open at `price` and close at `price + 1`, at the given hours."""
    lines = ["open_time,open,high,low,close,volume"]
    for hour, price in prices.items():
        lines.append(f"{START_MS + hour * HOUR_MS},{price},{price + 2},{price - 2},{price + 1},5")
    path.write_text("\n".join(lines) + "\n")
    return path


def backtest(strategy: str, files: dict[str, Path], folder: Path | None = None, **changes: Any) -> BacktestResult:
    settings = load_settings()
    if folder is not None:
        settings = settings._replace(strategy_dirs=(folder,))
    costs = {"fee_bps": 0.0, "slippage_bps": 0.0}
    request = Request(strategy, tuple(files), data=tuple(files.values()), **{**costs, **changes})
    return App(settings).backtest(request, lambda text: None, lambda what, share: None)


def strategy(folder: Path, body: str, lookback: int = 1, extra: str = "") -> Path:
    (folder / "own.py").write_text(
        "import numpy as np\nfrom atb.strategy import Strategy\n\n\nclass Own(Strategy):\n"
        f"    policy = {{'fraction': 0.5, 'max_position': 1.0, 'stop_loss': 0.0}}\n{extra}"
        f"    lookback_bars = {lookback}\n\n    def signals(self, candles):\n        {body}\n"
    )
    return folder


def test_buy_and_hold_divides_the_account_and_the_market_is_two_halves(tmp_path: Path) -> None:
    """BTC goes from 100 to 111, ETH opens two hours later at 200 and ends at 221 (its closes are opens + 1)."""
    files = {
        "BTCUSDT": write_candles(tmp_path / "a.csv", {h: 100 + h for h in range(11)}),
        "ETHUSDT": write_candles(tmp_path / "b.csv", {h: 200 + 2 * (h - 2) for h in range(2, 11)}),
    }
    result = backtest("buy_and_hold", files, max_gap_share=1.0)
    # From the first opens: 100 -> 111 and 200 -> 217, half of 10,000 each.
    assert result.total.market_change == pytest.approx(0.5 * (111 / 100) + 0.5 * (217 / 200) - 1)
    # Bought at the next opens, 101 and 202, with half each (the second half is of an equity that has moved a little).
    fills = result.fill_rows()
    assert [(f["symbol"], f["price"]) for f in fills] == [("BTCUSDT", 101.0), ("ETHUSDT", 202.0)]
    assert fills[0]["qty_base"] * 101 == pytest.approx(5000, rel=1e-3)
    assert fills[1]["qty_base"] * 202 == pytest.approx(5000, rel=2e-2)
    assert "begin at 2024-01-01T02:00:00Z" in " ".join(result.notes)


def test_a_symbol_that_ends_early_is_named(tmp_path: Path) -> None:
    files = {
        "BTCUSDT": write_candles(tmp_path / "a.csv", {h: 100 + h for h in range(40)}),
        "ETHUSDT": write_candles(tmp_path / "b.csv", dict.fromkeys(range(20), 200)),
    }
    notes = " ".join(backtest("buy_and_hold", files).notes)
    assert "ETHUSDT: its candles end at 2024-01-01T20:00:00Z, not at 2024-01-02T16:00:00Z" in notes
    assert "BTCUSDT" not in notes


def test_gaps_above_the_share_fail_unless_allowed(tmp_path: Path) -> None:
    file = write_candles(tmp_path / "a.csv", {h: 100 for h in range(100) if not 50 <= h < 55})
    with pytest.raises(DataError, match=r"5 of 100 candles are missing \(5.0%.*starts at 2024-01-03T02:00:00Z"):
        backtest("buy_and_hold", {"BTCUSDT": file})
    allowed = backtest("buy_and_hold", {"BTCUSDT": file}, allow_gaps=True)
    assert any("5.0% of the candles are missing (allowed)" in note for note in allowed.notes)
    assert backtest("buy_and_hold", {"BTCUSDT": file}, max_gap_share=0.05).data[0].missing_candles == 5


def test_exposure_counts_the_closes_with_a_position(tmp_path: Path) -> None:
    """In from the open of hour 3 to the open of hour 6: held at the closes of hours 3, 4, 5, of twelve."""
    body = "return np.where((candles.close >= 103) & (candles.close < 106), 1.0, -1.0)"
    file = write_candles(tmp_path / "a.csv", {h: 100 + h for h in range(12)})
    result = backtest("own", {"BTCUSDT": file}, strategy(tmp_path, body))
    assert [f["price"] for f in result.fill_rows()] == [103.0, 106.0]
    assert result.total.exposure == pytest.approx(3 / 12)
    assert result.total.end_equity == pytest.approx(10_000 + 5000 / 103 * 3, rel=1e-4)


def test_signals_before_the_lookback_are_refused(tmp_path: Path) -> None:
    file = write_candles(tmp_path / "a.csv", {h: 100 + h for h in range(30)})
    with pytest.raises(StrategyError, match="9 signals come before the 10 candles"):
        backtest("own", {"BTCUSDT": file}, strategy(tmp_path, "return np.ones(len(candles))", lookback=10))


def test_history_before_the_range_is_in_the_facts(tmp_path: Path) -> None:
    file = write_candles(tmp_path / "a.csv", {h: 100 + h % 7 for h in range(300)})
    whole = backtest("sma_cross", {"BTCUSDT": file}, params={"slow": 50.0})
    later = backtest(
        "sma_cross", {"BTCUSDT": file}, params={"slow": 50.0}, span=Span(start_ms=START_MS + 100 * HOUR_MS)
    )
    short = backtest("sma_cross", {"BTCUSDT": file}, params={"slow": 50.0}, span=Span(start_ms=START_MS + 10 * HOUR_MS))
    assert [r.data[0].history_candles for r in (whole, later, short)] == [0, 49, 10]
    assert later.data[0].sha256 != whole.data[0].sha256  # other history, other data
    assert "the first 49 candles are warm-up" in " ".join(whole.notes)
    assert "the first 39 candles are warm-up" in " ".join(short.notes)
    assert not later.notes


def test_simulated_runs_have_no_in_sample_part() -> None:
    request = Request("ml_basic", ("BTCUSDT",), provider="simulated", span=Span(days=60.0))
    result = App().backtest(request, lambda text: None, lambda what, share: None)
    assert [segment.name for segment in result.segments] == ["all"]
    assert any("trained on real candles" in note for note in result.notes)


def test_segments_chain_and_follow_the_models_dates() -> None:
    """The shipped model was trained to 2024-07-01 and validated to 2025-01-01."""
    from atb.venue.simulated import simulate_candles

    settings = load_settings()
    request = Request("ml_basic", ("BTCUSDT",), provider="simulated", span=Span(days=400.0))
    app = App(settings)
    candles = simulate_candles("BTCUSDT", "1h", START_MS, 400 * 24, 7)
    desk_file = write_like(candles)
    try:
        result = app.backtest(
            request._replace(data=(desk_file,), provider="file", span=Span()), print, lambda w, s: None
        )
    finally:
        desk_file.unlink()
    parts = result.segments[1:]
    assert [part.name for part in parts] == ["in_sample", "validation", "out_of_sample"]
    assert [part.statistics.start[:10] for part in parts] == ["2024-01-01", "2024-07-01", "2025-01-01"]
    for before, after in pairwise(parts):
        assert after.statistics.start_equity == before.statistics.end_equity
    assert parts[-1].statistics.end_equity == result.total.end_equity
    assert sum(part.statistics.trades.closed for part in parts) == result.total.trades.closed


def write_like(candles: Any) -> Path:
    """Candles as a temporary CSV file."""
    import tempfile

    rows = zip(candles.open_time, candles.open, candles.high, candles.low, candles.close, candles.volume, strict=True)
    lines = ["open_time,open,high,low,close,volume", *(",".join(str(value) for value in row) for row in rows)]
    path = Path(tempfile.mkstemp(suffix=".csv")[1])
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_best_case_of_an_ambiguous_candle(tmp_path: Path) -> None:
    """Bought at 100 with stop 90 and take 110; one candle goes to both: 90 counts, 110 is told."""
    path = tmp_path / "a.csv"
    rows = [(100, 101, 99, 100), (100, 101, 99, 100), (100, 115, 85, 100), (100, 101, 99, 100)]
    lines = [f"{START_MS + i * HOUR_MS},{o},{h},{lo},{c},5" for i, (o, h, lo, c) in enumerate(rows)]
    path.write_text("open_time,open,high,low,close,volume\n" + "\n".join(lines) + "\n")
    policy = {"fraction": 0.5, "max_position": 1.0, "stop_loss": 0.1, "take_profit": 0.1}
    result = backtest("buy_and_hold", {"BTCUSDT": path}, policy_flags=policy)
    assert result.best_case.ambiguous_exits == 1
    assert result.total.end_equity == pytest.approx(10_000 - 500)
    assert result.best_case.end_equity == pytest.approx(10_000 + 500)


def test_a_strategy_of_one_s_own_that_hides_a_shipped_one_is_named(tmp_path: Path) -> None:
    strategy(tmp_path, "return candles.close * 0")
    (tmp_path / "own.py").rename(tmp_path / "sma_cross.py")
    file = {"BTCUSDT": write_candles(tmp_path / "a.csv", {h: 100 + h for h in range(5)})}
    notes = backtest("sma_cross", file, tmp_path).notes
    assert notes == [f"{tmp_path}/sma_cross.py ran, not the sma_cross that comes with atb."]


@pytest.mark.parametrize("provider", ["file", "simulated"])
def test_assumed_rules_are_noted(tmp_path: Path, provider: str) -> None:
    data = (write_candles(tmp_path / "a.csv", {h: 100 + h for h in range(5)}),) if provider == "file" else ()
    request = Request("buy_and_hold", ("FOOUSDT",), provider=provider, data=data, span=Span(days=2.0))
    notes = App().backtest(request, lambda text: None, lambda what, share: None).notes
    assert any(note.startswith("FOOUSDT is not in the table of 20") for note in notes)


def test_one_file_for_two_symbols_is_warned_of(tmp_path: Path) -> None:
    path = write_candles(tmp_path / "a.csv", {h: 100 + h for h in range(5)})
    request = Request("buy_and_hold", ("BTCUSDT", "ETHUSDT"), data=(path, path))
    said: list[str] = []
    App().backtest(request, said.append, lambda what, share: None)
    assert said == [f"BTCUSDT and ETHUSDT get the same candles: --data {path} was given 2 times."]


def test_a_long_simulation_shows_progress() -> None:
    told: dict[str, float] = {}
    request = Request("buy_and_hold", ("BTCUSDT",), "1m", "simulated", span=Span(days=9.0))
    App().backtest(request, lambda text: None, told.__setitem__)
    assert told == {"simulating BTCUSDT 1m": 1.0}


def test_one_is_no_plural() -> None:
    assert [counted(n, "candle") for n in (0, 1, 2, 2000)] == ["0 candles", "1 candle", "2 candles", "2,000 candles"]
    assert (often(1), often(2), are(1), are(3)) == ("once", "2 times", "is", "are")
