"""What the names of rules, reasons and stretches mean: one sentence each, for the report."""

from __future__ import annotations

RULES = {
    "next_open": "Decided at a close, filled at the next open; slippage against us.",
    "next_open_cash_limited": "The same, with fewer lots than wanted because the cash did not reach.",
    "stop_at_open": "The candle opened at or below the stop: filled at that open, less slippage.",
    "stop": "The candle reached the stop: filled at the stop, less slippage.",
    "stop_before_take": "The candle reached both stop and take: it counts as the stop (an ambiguous candle).",
    "take": "The candle reached the take: filled at its limit, never better, without slippage.",
    "take_before_stop": "Only in the best case of ambiguous candles: the take instead of the stop.",
}

EXITS = {
    "signal": "The strategy's signal asked to be out.",
    "stop_loss": "The stop below the entry was reached.",
    "take_profit": "The take above the entry was reached.",
    "trailing_stop": "The stop that follows the best close was reached.",
    "break_even": "The stop at the entry price was reached.",
    "time_exit": "Held for the longest time the policy allows.",
    "partial_exit": "The last of the position was sold by a partial exit.",
    "drawdown_halt": "The account hit its largest drawdown and everything was closed.",
    "emergency_close": "An operator closed everything.",
    "open": "Still held at the end: marked at the last close, no fill invented.",
}

REJECTIONS = {
    "low_confidence": "A signal above 0, but weaker than the minimum confidence.",
    "short_on_spot": "A signal for a short while nothing was held; spot is long only.",
    "drawdown_halt": "The account was halted after its largest drawdown.",
    "daily_loss_limit": "The day's loss limit was reached.",
    "cooldown": "Too few candles since the last exit.",
    "needs_new_signal": "After a protective exit the same signal may not enter again.",
    "max_open_positions": "As many positions as allowed were open or waiting.",
    "max_exposure": "The share of equity allowed in positions was used up.",
    "no_cash": "The cash was not enough for an order worth sending.",
    "below_min_notional": "The order would be worth less than the exchange accepts.",
    "below_protectable": "The position would be too small for its stop to be accepted.",
}

SEGMENTS = {
    "all": "Whole run",
    "in_sample": "In sample",
    "validation": "Validation",
    "out_of_sample": "Out of sample",
}

GENERAL = (
    "A decision is made at the close of a candle from closed candles only, and filled at the next open or worse.",
    "Exits fill before entries; a candle that touches a resting stop and a resting take counts as the stop.",
    "Every fill pays the fee; market orders and stops also pay slippage, takes are limit orders and do not.",
    "Equity is cash plus positions at the last close, at every close; a position open at the end is marked, not sold.",
    "Quantities are whole lots; orders below the exchange's smallest notional are refused; spot is long only.",
    "Buy and hold: equal shares of the balance in each symbol from its first open on, without costs.",
)

DEFINITIONS = {
    "Daily returns": "Of equity at the last close of each UTC day; sample deviation, 365 days, risk-free rate 0.",
    "Trades": "From flat to flat, after fees. A trade belongs to the stretch in which it was entered.",
}


def segment_title(name: str) -> str:
    """A stretch's name for a heading."""
    return SEGMENTS.get(name, name.replace("_", " ").capitalize())
