"""Why something happened: one code for each decision, exit, refusal and fill rule.

The engine works on the integers; everything that leaves it (reports, JSON, the database) carries the names.
"""

# What a decision was. 0..9: no order; 10..19: entries and exits; 20..: refusals of an entry.
HOLD = 0
NEUTRAL = 1
NO_SIGNAL = 2

ENTRY = 10
SIGNAL = 11
STOP_LOSS = 12
TAKE_PROFIT = 13
TRAILING_STOP = 14
BREAK_EVEN = 15
TIME_EXIT = 16
PARTIAL_EXIT = 17
DRAWDOWN_HALT = 18
EMERGENCY_CLOSE = 19  # an operator wants nothing to be held any more

LOW_CONFIDENCE = 20
SHORT_ON_SPOT = 21
REFUSED_HALTED = 22
DAILY_LOSS_LIMIT = 23
COOLDOWN = 24
NEEDS_NEW_SIGNAL = 25
MAX_OPEN_POSITIONS = 26
MAX_EXPOSURE = 27
NO_CASH = 28
BELOW_MIN_NOTIONAL = 29
BELOW_PROTECTABLE = 30

COUNT = 31
FIRST_REFUSAL = LOW_CONFIDENCE

REASON_NAMES = {
    HOLD: "hold",
    NEUTRAL: "neutral",
    NO_SIGNAL: "no_signal",
    ENTRY: "entry",
    SIGNAL: "signal",
    STOP_LOSS: "stop_loss",
    TAKE_PROFIT: "take_profit",
    TRAILING_STOP: "trailing_stop",
    BREAK_EVEN: "break_even",
    TIME_EXIT: "time_exit",
    PARTIAL_EXIT: "partial_exit",
    DRAWDOWN_HALT: "drawdown_halt",
    EMERGENCY_CLOSE: "emergency_close",
    LOW_CONFIDENCE: "low_confidence",
    SHORT_ON_SPOT: "short_on_spot",
    REFUSED_HALTED: "drawdown_halt",
    DAILY_LOSS_LIMIT: "daily_loss_limit",
    COOLDOWN: "cooldown",
    NEEDS_NEW_SIGNAL: "needs_new_signal",
    MAX_OPEN_POSITIONS: "max_open_positions",
    MAX_EXPOSURE: "max_exposure",
    NO_CASH: "no_cash",
    BELOW_MIN_NOTIONAL: "below_min_notional",
    BELOW_PROTECTABLE: "below_protectable",
}

# Which rule of docs/backtest-rules.md made a fill.
NEXT_OPEN = 0
NEXT_OPEN_CASH_LIMITED = 1
STOP_AT_OPEN = 2
STOP = 3
STOP_BEFORE_TAKE = 4
TAKE = 5
TAKE_BEFORE_STOP = 6  # only in the best-case run that brackets ambiguous candles

RULE_NAMES = {
    NEXT_OPEN: "next_open",
    NEXT_OPEN_CASH_LIMITED: "next_open_cash_limited",
    STOP_AT_OPEN: "stop_at_open",
    STOP: "stop",
    STOP_BEFORE_TAKE: "stop_before_take",
    TAKE: "take",
    TAKE_BEFORE_STOP: "take_before_stop",
}
