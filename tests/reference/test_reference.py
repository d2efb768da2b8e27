"""Small cases for the reference engine, worked out by hand from docs/backtest-rules.md.

Unless a case says otherwise: one symbol, lot 1, tick 1, minimum notional 10, balance 1000, no fee and no slippage,
half of the equity per entry, hourly candles.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.reference.engine import RefCandle, RefFill, RefMarket, RefPolicy, RefResult, run_reference

HOUR = 60 * 60 * 1000
NAN = math.nan
MARKET = RefMarket(lot=1.0, tick=1.0, min_notional=10.0)

Row = tuple[float, float, float, float]


def flat(price: float) -> Row:
    return (price, price, price, price)


def policy(**changes: Any) -> RefPolicy:
    base: dict[str, Any] = {
        "fee": 0.0,
        "slip": 0.0,
        "sizing": "fraction",
        "fraction": 0.5,
        "min_confidence": 0.5,
        "neutral": "hold",
        "max_position": 1.0,
        "max_exposure": 1.0,
        "max_open_positions": 10,
        "max_drawdown": 1.0,
    }
    return RefPolicy(**(base | changes))


def run_many(
    rows: list[list[Row | None]],
    signals: list[list[float]],
    market: RefMarket = MARKET,
    step: int = HOUR,
    **changes: Any,
) -> RefResult:
    """One list of rows and one of signals per symbol."""
    candles = [[None if row is None else RefCandle(*row) for row in symbol] for symbol in rows]
    times = [step * t for t in range(len(rows[0]))]
    return run_reference(times, candles, signals, [market] * len(rows), policy(**changes), 1000.0)


def run_one(
    rows: list[Row], signals: list[float], market: RefMarket = MARKET, step: int = HOUR, **changes: Any
) -> RefResult:
    return run_many([[*rows]], [signals], market, step, **changes)


def brief(fill: RefFill) -> tuple[int, int, float, str, str]:
    return (fill.t, fill.lots, round(fill.price, 9), fill.reason, fill.rule)


def test_entry_at_the_next_open_pays_slippage_and_fee() -> None:
    # Row 0 decides: 0.5 * 1000 = 500, 500 / 100 = 5 lots. Row 1 buys at 110 * 1.02 = 112.2: value 561, fee 5.61,
    # cash 1000 - 566.61 = 433.39. Close 120: 433.39 + 600 = 1033.39.
    # The long signal of row 1 meets a position (hold).
    result = run_one([flat(100), (110, 125, 105, 120)], [1.0, 1.0], fee=0.01, slip=0.02)
    assert [brief(fill) for fill in result.fills] == [(1, 5, 112.2, "entry", "next_open")]
    assert result.fills[0].fee == pytest.approx(5.61)
    assert result.equity == pytest.approx([1000.0, 1033.39])
    assert result.final_cash == pytest.approx(433.39)
    assert result.positions == [5]
    assert result.decisions == {"entry": 1, "hold": 1}
    assert (result.rows, result.halted, result.halt_drawdown) == (2, False, None)


def test_a_decision_at_the_last_candle_is_never_filled() -> None:
    result = run_one([flat(100)], [1.0])
    assert result.fills == []
    assert result.positions == [0]
    assert result.decisions == {"entry": 1}


def test_exit_by_the_signal_at_the_next_open() -> None:
    # 5 lots at 100 * 1.01 = 101: value 505, fee 5.05, cash 489.95. The short zone at row 1 sells at 120 * 0.99 = 118.8:
    # value 594, fee 5.94, cash 489.95 + 594 - 5.94 = 1078.01.
    result = run_one([flat(100), flat(100), flat(120)], [1.0, -0.5, 0.0], fee=0.01, slip=0.01)
    assert brief(result.fills[1]) == (2, -5, 118.8, "signal", "next_open")
    assert result.fills[1].fee == pytest.approx(5.94)
    assert result.equity == pytest.approx([1000.0, 989.95, 1078.01])
    assert result.decisions == {"entry": 1, "signal": 1, "neutral": 1}


def test_the_zone_between_holds_or_exits() -> None:
    rows = [flat(100)] * 3
    assert run_one(rows, [1.0, NAN, NAN], neutral="hold").positions == [5]
    closed = run_one(rows, [1.0, NAN, NAN], neutral="flat")
    assert closed.positions == [0]
    assert closed.decisions == {"entry": 1, "signal": 1, "no_signal": 1}


def test_reasons_for_no_entry() -> None:
    result = run_one([flat(100)] * 6, [NAN, 0.49, 0.0, -0.49, -0.5, -1.0])
    assert result.decisions == {"no_signal": 1, "low_confidence": 1, "neutral": 2, "short_on_spot": 2}
    assert result.fills == []


def test_stop_through_a_gap_fills_at_the_open() -> None:
    # Stop from the close 100: 90. Row 2 opens at 80: 80 * 0.99 = 79.2. Bought at 101 (505), sold for 396: 891.
    rows = [flat(100), (100, 105, 95, 100), (80, 85, 75, 82)]
    result = run_one(rows, [1.0, 1.0, 0.0], slip=0.01, stop_loss=0.1)
    assert brief(result.fills[1]) == (2, -5, 79.2, "stop_loss", "stop_at_open")
    assert result.equity[-1] == pytest.approx(891.0)


def test_stop_inside_the_entry_candle_is_rounded_down() -> None:
    # Close 105: stop 105 * 0.9 = 94.5, rounded down to 94; 500 / 105 = 4.76: 4 lots. The entry candle touches 94.
    rows = [flat(105), (105, 106, 94, 100)]
    result = run_one(rows, [1.0, 0.0], slip=0.01, stop_loss=0.1)
    assert [brief(fill) for fill in result.fills] == [
        (1, 4, 106.05, "entry", "next_open"),
        (1, -4, 93.06, "stop_loss", "stop"),  # 94 * 0.99
    ]


def test_stop_and_take_in_one_candle_is_the_stop() -> None:
    # Stop 90, take 110; the candle goes from 89 to 111.
    rows = [flat(100), flat(100), (100, 111, 89, 100)]
    result = run_one(rows, [1.0, 1.0, 0.0], slip=0.01, stop_loss=0.1, take_profit=0.1)
    assert brief(result.fills[1]) == (2, -5, 89.1, "stop_loss", "stop_before_take")


def test_take_is_a_limit_without_slippage() -> None:
    # Close 101, take 101 * 1.1 = 111.1, rounded up to 112. The open of 120 is not given: 112, no slippage.
    # 500 / 101 = 4 lots at 101 * 1.01 = 102.01 (408.04), sold for 448: 1000 - 408.04 + 448 = 1039.96.
    rows = [flat(101), flat(101), (120, 125, 118, 119)]
    result = run_one(rows, [1.0, 1.0, 0.0], slip=0.01, take_profit=0.1)
    assert brief(result.fills[1]) == (2, -4, 112.0, "take_profit", "take")
    assert result.equity[-1] == pytest.approx(1039.96)


def test_trailing_stop_starts_after_its_gain_and_only_rises() -> None:
    # Entry 100. Best 104 < 105: no stop. Best 110: 99. Best 120: 108. Close 115: stays 108. Row 5 touches 107: 108.
    rows = [flat(100), (100, 104, 50, 104), (104, 110, 100, 110), (110, 120, 109, 120), (118, 118, 110, 115)]
    rows.append((115, 116, 107, 107))
    result = run_one(rows, [1.0] * 6, trailing=0.1, trailing_after=0.05)
    assert [brief(fill) for fill in result.fills[1:]] == [(5, -5, 108.0, "trailing_stop", "stop")]
    assert result.decisions == {"entry": 1, "hold": 4, "needs_new_signal": 1}


def test_the_stop_at_the_entry_is_the_higher_one_and_the_stop_loss_on_a_tie() -> None:
    rows = [flat(100), (100, 100, 80, 80)]
    # 10% and 5%: 90 and 95.
    assert brief(run_one(rows, [1.0, 0.0], stop_loss=0.1, trailing=0.05).fills[1])[2:4] == (95.0, "trailing_stop")
    # 10.2% and 10.9%: 89.8 and 89.1 are both 89 after rounding.
    assert brief(run_one(rows, [1.0, 0.0], stop_loss=0.102, trailing=0.109).fills[1])[2:4] == (89.0, "stop_loss")


def test_break_even_moves_the_stop_to_the_entry_price_rounded_down() -> None:
    # Entry 100.5 (5 lots). Close 105 < 105.525: nothing. Close 106 >= 105.525: stop 100.5, rounded down to 100.
    rows = [flat(100), (100.5, 106, 100.5, 105), (105, 107, 90, 106), (106, 106, 99, 101)]
    result = run_one(rows, [1.0] * 4, break_even=0.05)
    assert brief(result.fills[1]) == (3, -5, 100.0, "break_even", "stop")


def test_partial_exits_one_level_a_close() -> None:
    # 10 lots at 100. Close 112 reaches 105 and 110, one level a close: floor(10 * 0.25) = 2, then floor(10 * 0.5) = 5.
    # Sold at 112: 2 * 112 = 224, and at 113: 5 * 113 = 565. Left 3 * 113 = 339: 224 + 565 + 339 = 1128.
    rows = [flat(100), (100, 112, 100, 112), flat(112), flat(113)]
    result = run_one(rows, [1.0] * 4, fraction=1.0, partials=((0.05, 0.25), (0.1, 0.5)))
    assert [brief(fill) for fill in result.fills[1:]] == [
        (2, -2, 112.0, "partial_exit", "next_open"),
        (3, -5, 113.0, "partial_exit", "next_open"),
    ]
    assert result.positions == [3]
    assert result.equity[-1] == pytest.approx(1128.0)
    assert result.decisions == {"entry": 1, "partial_exit": 2, "hold": 1}


def test_partial_exits_that_are_skipped_are_used_up() -> None:
    # 5 lots. Close of row 1, level 1: floor(5 * 0.1) = 0 lots. Close of row 2, level 2: 2 lots, sold in row 3.
    # Close of row 3, level 3: 2 lots of the 3 left; 1 lot at the close 120 is 120 < 1.1 * 110 = 121: nothing is sold,
    # and it is not tried again at 130.
    market = RefMarket(lot=1.0, tick=1.0, min_notional=110.0)
    rows = [flat(100), (100, 120, 100, 120), flat(120), flat(120), flat(130)]
    result = run_one(rows, [1.0] * 5, market, partials=((0.01, 0.1), (0.02, 0.4), (0.03, 0.4)))
    assert [brief(fill) for fill in result.fills[1:]] == [(3, -2, 120.0, "partial_exit", "next_open")]
    assert result.decisions == {"entry": 1, "partial_exit": 1, "hold": 3}


def test_partial_exit_of_everything_is_protective() -> None:
    # 5 lots, two levels of 60%: floor(3) = 3 lots, then 3 lots but only 2 are held (sold in row 3). The signal
    # never left the long zone, so the close of that candle may not enter again.
    rows = [flat(100), (100, 115, 100, 115), flat(115), flat(115)]
    result = run_one(rows, [1.0] * 4, partials=((0.05, 0.6), (0.1, 0.6)))
    assert [fill.lots for fill in result.fills] == [5, -3, -2]
    assert result.decisions == {"entry": 1, "partial_exit": 2, "needs_new_signal": 1}


def test_time_exit() -> None:
    # Entry in row 1. Its closes: row 1, row 2. So the exit is decided at row 2 and filled in row 3.
    result = run_one([flat(100)] * 5, [1.0] * 5, max_hold=2)
    assert [brief(fill)[:4] for fill in result.fills] == [(1, 5, 100.0, "entry"), (3, -5, 100.0, "time_exit")]
    assert result.decisions == {"entry": 1, "hold": 1, "time_exit": 1, "needs_new_signal": 2}


def test_cooldown_counts_the_candle_of_the_exit() -> None:
    # The time exit is filled in row 2; cooldown 2 refuses at rows 2 and 3; row 4 decides, row 5 buys.
    result = run_one([flat(100)] * 6, [1.0] * 6, max_hold=1, cooldown=2)
    assert [(fill.t, fill.lots) for fill in result.fills] == [(1, 5), (2, -5), (5, 5)]
    assert result.decisions == {"entry": 2, "time_exit": 2, "cooldown": 2}


def test_needs_new_signal_after_a_protective_exit() -> None:
    # The take of row 1 (110). Rows 1 and 2 stay in the long zone: refused. Row 3 leaves it. Row 4 may enter.
    rows = [flat(100), (100, 110, 100, 100), flat(100), flat(100), flat(100)]
    result = run_one(rows, [1.0, 1.0, 1.0, 0.4, 1.0], take_profit=0.1)
    assert result.decisions == {"entry": 2, "needs_new_signal": 2, "low_confidence": 1}
    # The close of the candle of the exit itself counts: here it is outside the long zone.
    result = run_one(rows, [1.0, NAN, 1.0, 1.0, 1.0], take_profit=0.1)
    assert [fill.t for fill in result.fills] == [1, 1, 3]


def test_risk_and_confidence_sizing() -> None:
    # Risk 2% of 1000 = 20, stop 90: 20 / 10 * 100 = 200: 2 lots.
    assert run_one([flat(100)] * 2, [1.0, 1.0], sizing="risk", risk=0.02, stop_loss=0.1).positions == [2]
    # 0.5 * 1000 * 0.8 = 400: 4 lots. With max_position 0.3: 300, 3 lots.
    assert run_one([flat(100)] * 2, [0.8, 1.0], sizing="confidence").positions == [4]
    assert run_one([flat(100)] * 2, [0.8, 1.0], sizing="confidence", max_position=0.3).positions == [3]
    with pytest.raises(ValueError, match="risk"):
        run_one([flat(100)], [1.0], sizing="risk")


def test_exposure_cut_counts_waiting_entries() -> None:
    # 80% each, exposure at most 100%: A waits with 800, B is cut to 200, C finds nothing.
    result = run_many([[flat(100)] * 2] * 3, [[1.0, 1.0]] * 3, fraction=0.8)
    assert result.positions == [8, 2, 0]
    assert result.decisions == {"entry": 2, "max_exposure": 2, "hold": 2}
    # Exposure may be 200%: then it is the cash that cuts. (1000 / (1.25 * 1.6) = 500, 400 of it wait.)
    result = run_many([[flat(100)]] * 3, [[1.0]] * 3, fraction=0.4, max_exposure=2.0, fee=0.25, slip=0.6)
    assert result.decisions == {"entry": 2, "no_cash": 1}


def test_max_open_positions_counts_waiting_entries() -> None:
    result = run_many([[flat(100)]] * 3, [[1.0]] * 3, fraction=0.1, max_open_positions=2)
    assert result.decisions == {"entry": 2, "max_open_positions": 1}


def test_entries_that_are_too_small() -> None:
    # 0.05 * 1000 = 50: no lot of 100.
    assert run_one([flat(100)], [1.0], fraction=0.05).decisions == {"below_min_notional": 1}
    # 1 lot is 100 < 101, and 1000 of room is enough.
    market = RefMarket(lot=1.0, tick=1.0, min_notional=101.0)
    assert run_one([flat(100)], [1.0], market, fraction=0.15).decisions == {"below_min_notional": 1}
    # 1 lot at the stop 90 is 90 < 1.1 * 90 = 99.
    market = RefMarket(lot=1.0, tick=1.0, min_notional=90.0)
    assert run_one([flat(100)], [1.0], market, fraction=0.1, stop_loss=0.1).decisions == {"below_protectable": 1}


def test_cash_limited_entry() -> None:
    # 10 lots decided at 100; the open of 130 lets floor(1000 / 130) = 7 be paid: cash 1000 - 910 = 90.
    result = run_one([flat(100), flat(130), flat(130)], [1.0] * 3, fraction=1.0)
    assert [brief(fill) for fill in result.fills] == [(1, 7, 130.0, "entry", "next_open_cash_limited")]
    assert result.final_cash == pytest.approx(90.0)
    assert result.decisions == {"entry": 1, "hold": 2}
    # An open of 1001 lets nothing be paid; the close of 100 decides again.
    result = run_one([flat(100), (1001, 1001, 100, 100), flat(100)], [1.0] * 3, fraction=1.0)
    assert [brief(fill)[:2] for fill in result.fills] == [(2, 10)]
    assert result.decisions == {"entry": 2, "no_cash": 1, "hold": 1}


def test_drawdown_halt_closes_everything_and_ends_the_run() -> None:
    # 10 lots at 100. Close 120: peak 1200. Close 90: 900 < 1200 * 0.8 = 960: halted, exit decided.
    # It halted at (1200 - 900) / 1200 = 25%. Row 3 sells at 84: 840, and the run ends there. Row 4 is not run.
    rows = [flat(100), (100, 120, 100, 120), (120, 120, 90, 90), (84, 84, 84, 84), flat(200)]
    result = run_one(rows, [1.0] * 5, fraction=1.0, max_drawdown=0.2)
    assert brief(result.fills[1]) == (3, -10, 84.0, "drawdown_halt", "next_open")
    assert result.equity == pytest.approx([1000.0, 1200.0, 900.0, 840.0])
    assert (result.rows, result.halted) == (4, True)
    assert result.halt_drawdown == pytest.approx(0.25)
    assert result.decisions == {"entry": 1, "hold": 1, "drawdown_halt": 2}  # the exit, and the refusal in row 3


def test_daily_loss_limit_lasts_until_the_next_day() -> None:
    # Candles of 12 hours: rows 0 and 1 are the first day, rows 2 and 3 the second.
    # Row 1: 5 lots at 100, stopped at 80: 1000 - 100 = 900 < 1000 * 0.95: refused, in the long zone or not.
    # Row 2: the second day starts at 900: entry.
    rows = [flat(100), (100, 100, 80, 100), flat(100), flat(100)]
    result = run_one(rows, [1.0] * 4, step=12 * HOUR, stop_loss=0.2, cooldown=1, daily_loss=0.05)
    assert result.decisions == {"entry": 2, "daily_loss_limit": 1, "hold": 1}
    assert [(fill.t, fill.lots) for fill in result.fills] == [(1, 5), (1, -5), (3, 4)]


def test_absent_symbol_fills_nothing_and_is_marked_at_its_last_close() -> None:
    # A (first symbol) is always present and never trades. B decides at row 0, is absent in row 1, buys in row 2 at 110
    # (5 lots, cash 450), closes at 120, is absent in row 3 (marked at 120: 450 + 600) and seen again in row 4 at 130.
    # Absent closes are not closes the position has seen: max_hold 2 is reached at row 4.
    a: list[Row | None] = [flat(50)] * 6
    b: list[Row | None] = [flat(100), None, (110, 120, 110, 120), None, flat(130), flat(140)]
    result = run_many([a, b], [[0.0] * 6, [1.0, -1.0, 1.0, -1.0, 1.0, 0.0]], max_hold=2)
    assert [(fill.symbol, *brief(fill)) for fill in result.fills] == [
        (1, 2, 5, 110.0, "entry", "next_open"),
        (1, 5, -5, 140.0, "time_exit", "next_open"),
    ]
    assert result.equity == pytest.approx([1000.0, 1000.0, 1050.0, 1050.0, 1100.0, 1150.0])
    assert result.decisions == {"neutral": 7, "entry": 1, "hold": 1, "time_exit": 1}
