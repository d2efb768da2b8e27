"""A second backtest engine, written from docs/backtest-rules.md alone.

It is slow and obvious on purpose: a reader is meant to lay it beside the page and compare them line by line. The
numbers in the comments (such as "section 3") are the sections of that page.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

DAY_MS = 24 * 60 * 60 * 1000

# Section 5, "Holding nothing", refusal 4: the exits after which a new signal is needed.
PROTECTIVE = frozenset({"stop_loss", "break_even", "trailing_stop", "take_profit", "time_exit", "partial_exit"})


# ---------------------------------------------------------------------------------------------------------------------
# What goes in and what comes out
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RefMarket:
    """The rules of one market (section 7)."""

    lot: float
    tick: float
    min_notional: float


@dataclass(frozen=True)
class RefPolicy:
    """What the strategy asks for. 0 switches off: stop_loss, take_profit, trailing, break_even, max_hold, cooldown,
    daily_loss."""

    fee: float = 0.001
    slip: float = 0.0005
    sizing: str = "fraction"  # "fraction", "risk" or "confidence"
    fraction: float = 0.1
    risk: float = 0.01
    min_confidence: float = 0.1
    neutral: str = "hold"  # "hold" or "flat"
    stop_loss: float = 0.0
    take_profit: float = 0.0
    trailing: float = 0.0
    trailing_after: float = 0.0
    break_even: float = 0.0
    max_hold: int = 0
    cooldown: int = 0
    partials: tuple[tuple[float, float], ...] = ()  # (gain, share), at most 3, lowest gain first
    max_position: float = 1.0
    max_exposure: float = 1.0
    max_open_positions: int = 10
    daily_loss: float = 0.0
    max_drawdown: float = 1.0


@dataclass(frozen=True)
class RefCandle:
    """The four prices of one candle."""

    open: float
    high: float
    low: float
    close: float


@dataclass
class RefFill:
    """One fill: `t` is the row of the timeline, `symbol` the index of the symbol, `lots` is negative for a sale."""

    t: int
    symbol: int
    lots: int
    price: float
    fee: float
    reason: str
    rule: str


@dataclass
class RefResult:
    """Everything a run produced."""

    fills: list[RefFill]
    equity: list[float]
    rows: int
    halted: bool
    halt_drawdown: float | None
    decisions: Counter[str]
    final_cash: float
    positions: list[int]


# ---------------------------------------------------------------------------------------------------------------------
# What is remembered between candles
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Levels:
    """The stop and the take decided together with an entry (section 5, "Levels")."""

    stop: float | None
    stop_reason: str
    take: float | None


@dataclass
class Position:
    """What is remembered about a position from its entry fill to its exit."""

    entry_lots: int  # as filled
    entry_price: float
    cost: float
    stop: float | None
    stop_reason: str
    take: float | None
    best: float  # the highest of the entry price and all closes since
    closes_seen: int = 0
    levels_used: int = 0  # partial exits that were reached


@dataclass
class LastExit:
    """What is remembered about the last exit of a symbol."""

    reason: str
    closes_passed: int = 0  # closes of the symbol since the exit, before the one that decides
    outside_long_zone: bool = False  # one of the closes since was outside the long zone


@dataclass
class Symbol:
    """One symbol of the account."""

    market: RefMarket
    lots: int = 0
    target: int = 0
    target_reason: str = ""
    position: Position | None = None
    last_close: float = 0.0  # section 1: marked at 0 before its first close
    # A waiting entry (section 5): its levels and its notional, from its decision to the next present open.
    waiting_levels: Levels | None = None
    waiting_notional: float = 0.0
    last_exit: LastExit | None = None


def on_the_grid(k: int, tick: float) -> float:
    """Section 5: k ticks; where n ticks make 1, k / n."""
    n = math.floor(1 / tick + 0.5)
    return k / n if tick >= 1e-15 and n > 1 and abs(n * tick - 1) < 1e-12 else k * tick


def round_down(x: float, tick: float) -> float:
    """Section 5: a stop is rounded down to the tick."""
    if x / tick >= 2**53:
        return x
    return on_the_grid(math.floor(x / tick + 1e-9), tick)


def round_up(x: float, tick: float) -> float:
    """Section 5: a take is rounded up to the tick."""
    if x / tick >= 2**53:
        return x
    return on_the_grid(math.ceil(x / tick - 1e-9), tick)


# ---------------------------------------------------------------------------------------------------------------------
# The account
# ---------------------------------------------------------------------------------------------------------------------


class Account:
    """The one account that all symbols share."""

    def __init__(self, markets: list[RefMarket], policy: RefPolicy, initial_balance: float) -> None:
        self.policy = policy
        self.symbols = [Symbol(market) for market in markets]
        self.cash = initial_balance
        self.fills: list[RefFill] = []
        self.decisions: Counter[str] = Counter()
        self.equity = initial_balance
        # Section 6.
        self.peak = initial_balance
        self.day: int | None = None
        self.day_first_equity = initial_balance
        self.halted = False
        self.halt_drawdown: float | None = None

    # -- section 2 ----------------------------------------------------------------------------------------------------

    def fill(self, t: int, index: int, lots: int, price: float, reason: str, rule: str) -> float:
        """Book a fill of `lots` (negative for a sale) and return its value."""
        symbol = self.symbols[index]
        value = (lots * symbol.market.lot) * price
        fee_paid = abs(value) * self.policy.fee
        self.cash = self.cash - value - fee_paid
        symbol.lots += lots
        self.fills.append(RefFill(t, index, lots, price, fee_paid, reason, rule))
        return value

    def sell(self, t: int, index: int, lots: int, price: float, reason: str, rule: str) -> None:
        """Sell `lots` of a position. The sale of the last lot is the exit."""
        symbol = self.symbols[index]
        position = symbol.position
        assert position is not None
        held = symbol.lots
        released = position.cost if lots == held else position.cost * lots / held
        position.cost -= released
        self.fill(t, index, -lots, price, reason, rule)
        if symbol.lots == 0:
            symbol.position = None
            symbol.target = 0
            symbol.last_exit = LastExit(reason)

    # -- section 1, step 1 --------------------------------------------------------------------------------------------

    def open_exits(self, t: int, index: int, candle: RefCandle) -> None:
        """Sell down to the target at the open (section 3, "market sell")."""
        symbol = self.symbols[index]
        if symbol.target < symbol.lots:
            price = candle.open * (1 - self.policy.slip)
            self.sell(t, index, symbol.lots - symbol.target, price, symbol.target_reason, "next_open")

    # -- section 1, step 2 --------------------------------------------------------------------------------------------

    def open_entries(self, t: int, index: int, candle: RefCandle) -> None:
        """Buy up to the target at the open (section 3, "market buy")."""
        symbol = self.symbols[index]
        if not symbol.target > symbol.lots:
            return
        lot = symbol.market.lot
        levels = symbol.waiting_levels
        assert levels is not None
        # From here on the entry does not wait any more (section 5, "Size").
        symbol.waiting_levels = None
        symbol.waiting_notional = 0.0

        if self.halted:
            symbol.target = 0
            self.decisions["drawdown_halt"] += 1
            return

        price = candle.open * (1 + self.policy.slip)
        lots = symbol.target - symbol.lots
        rule = "next_open"
        affordable = math.floor(self.cash / (price * lot * (1 + self.policy.fee)))
        if affordable < lots:
            lots = affordable
            rule = "next_open_cash_limited"
            if lots <= 0 or lots * lot * price < symbol.market.min_notional:
                symbol.target = 0
                self.decisions["no_cash"] += 1
                return

        value = self.fill(t, index, lots, price, "entry", rule)
        symbol.target = symbol.lots  # section 5: the quantity is fixed until the exit
        entry_price = value / (symbol.lots * lot)
        symbol.position = Position(
            entry_lots=lots,
            entry_price=entry_price,
            cost=value,
            stop=levels.stop,
            stop_reason=levels.stop_reason,
            take=levels.take,
            best=entry_price,
        )

    # -- section 1, step 3 --------------------------------------------------------------------------------------------

    def inside_candle(self, t: int, index: int, candle: RefCandle) -> None:
        """Check the resting stop and take (the table of section 4, row by row)."""
        symbol = self.symbols[index]
        position = symbol.position
        if position is None:
            return
        stop = position.stop
        opens_below = stop is not None and candle.open <= stop
        touches_stop = stop is not None and candle.low <= stop
        touches_take = position.take is not None and candle.high >= position.take

        if opens_below:
            price = candle.open * (1 - self.policy.slip)
            self.sell(t, index, symbol.lots, price, position.stop_reason, "stop_at_open")
        elif touches_stop and not touches_take:
            assert stop is not None
            self.sell(t, index, symbol.lots, stop * (1 - self.policy.slip), position.stop_reason, "stop")
        elif touches_stop and touches_take:
            assert stop is not None
            self.sell(t, index, symbol.lots, stop * (1 - self.policy.slip), position.stop_reason, "stop_before_take")
        elif touches_take:
            assert position.take is not None
            self.sell(t, index, symbol.lots, position.take, "take_profit", "take")

    # -- section 1, step 4 --------------------------------------------------------------------------------------------

    def marked_value(self) -> float:
        """The marked value of all positions, added in symbol order."""
        total = 0.0
        for symbol in self.symbols:
            total += symbol.lots * symbol.market.lot * symbol.last_close
        return total

    def mark(self, open_time: int) -> None:
        """Equity, then peak, day and halt (section 6)."""
        equity_before = self.equity
        self.equity = self.cash
        for symbol in self.symbols:
            self.equity += symbol.lots * symbol.market.lot * symbol.last_close

        self.peak = max(self.peak, self.equity)

        day = open_time // DAY_MS
        if self.day is None:
            self.day = day  # the first day's first equity is the initial balance
        elif day != self.day:
            self.day = day
            self.day_first_equity = equity_before  # the last close of the day before

        if not self.halted and self.equity < self.peak * (1 - self.policy.max_drawdown):
            self.halted = True
            self.halt_drawdown = (self.peak - self.equity) / self.peak

    def nothing_held(self) -> bool:
        """Section 6: a halted run ends after the first row at whose close this is so."""
        return all(symbol.lots == 0 for symbol in self.symbols)

    # -- section 1, step 5 --------------------------------------------------------------------------------------------

    def decide(self, index: int, candle: RefCandle, signal: float) -> None:
        """Section 5: decide the target and count the reason."""
        symbol = self.symbols[index]
        if symbol.position is not None:
            reason = self.decide_holding(symbol, symbol.position, candle.close, signal)
        else:
            reason = self.decide_holding_nothing(symbol, candle.close, signal)
        self.decisions[reason] += 1

    def in_long_zone(self, signal: float) -> bool:
        return signal >= self.policy.min_confidence  # False for NaN

    def in_short_zone(self, signal: float) -> bool:
        return signal <= -self.policy.min_confidence  # False for NaN

    # -- section 5, "Holding a position" ------------------------------------------------------------------------------

    def decide_holding(self, symbol: Symbol, position: Position, c: float, signal: float) -> str:
        policy = self.policy
        position.closes_seen += 1  # the close of the entry candle is the first
        position.best = max(position.best, c)
        between = not self.in_long_zone(signal) and not self.in_short_zone(signal)

        # 1. the account is halted
        if self.halted:
            return self.exit(symbol, "drawdown_halt")
        # 2. held for long enough
        if policy.max_hold > 0 and position.closes_seen >= policy.max_hold:
            return self.exit(symbol, "time_exit")
        # 3. the signal
        if self.in_short_zone(signal) or (between and policy.neutral == "flat"):
            return self.exit(symbol, "signal")
        # 4. partial exits (they look at the stop as it rested in this candle, so before it is moved)
        lots_to_sell = self.partial_exit(symbol, position, c)
        # In cases 4 and 5 the stop is also moved.
        self.move_stop(symbol, position, c)
        if lots_to_sell > 0:
            symbol.target = symbol.lots - lots_to_sell
            symbol.target_reason = "partial_exit"
            return "partial_exit"
        # 5. hold
        return "hold"

    def exit(self, symbol: Symbol, reason: str) -> str:
        symbol.target = 0
        symbol.target_reason = reason
        return reason

    def partial_exit(self, symbol: Symbol, position: Position, c: float) -> int:
        """How many lots the lowest level that is not used up sells at this close; 0 where it sells nothing."""
        if position.levels_used == len(self.policy.partials):
            return 0
        gain, share = self.policy.partials[position.levels_used]
        if not c >= position.entry_price * (1 + gain):
            return 0
        position.levels_used += 1  # a level that is reached is used up, also where it sells nothing
        lots = min(math.floor(position.entry_lots * share + 1e-9), symbol.lots)
        remainder = symbol.lots - lots
        at = position.stop if position.stop is not None else c
        if remainder != 0 and remainder * symbol.market.lot * at < 1.1 * symbol.market.min_notional:
            return 0  # what remains could not be protected
        return lots

    def move_stop(self, symbol: Symbol, position: Position, c: float) -> None:
        policy = self.policy
        if policy.break_even > 0 and c >= position.entry_price * (1 + policy.break_even):
            self.raise_stop(symbol, position, position.entry_price, "break_even")
        if policy.trailing > 0 and position.best >= position.entry_price * (1 + policy.trailing_after):
            self.raise_stop(symbol, position, position.best * (1 - policy.trailing), "trailing_stop")

    def raise_stop(self, symbol: Symbol, position: Position, x: float, reason: str) -> None:
        candidate = round_down(x, symbol.market.tick)
        if position.stop is None or candidate > position.stop:
            position.stop = candidate
            position.stop_reason = reason

    # -- section 5, "Holding nothing" ---------------------------------------------------------------------------------

    def decide_holding_nothing(self, symbol: Symbol, c: float, signal: float) -> str:
        reason = self.entry_or_refusal(symbol, c, signal)
        # This close has now passed; the next decision looks back on it.
        if symbol.last_exit is not None:
            symbol.last_exit.closes_passed += 1
            if not self.in_long_zone(signal):
                symbol.last_exit.outside_long_zone = True
        return reason

    def entry_or_refusal(self, symbol: Symbol, c: float, signal: float) -> str:
        policy = self.policy

        # Between or short zone: no entry.
        if math.isnan(signal):
            return "no_signal"
        if 0 < signal < policy.min_confidence:
            return "low_confidence"
        if self.in_short_zone(signal):
            return "short_on_spot"
        if not self.in_long_zone(signal):
            return "neutral"

        # In the long zone: the first refusal that applies.
        # 1.
        if self.halted:
            return "drawdown_halt"
        # 2.
        if policy.daily_loss > 0 and self.equity < self.day_first_equity * (1 - policy.daily_loss):
            return "daily_loss_limit"
        last_exit = symbol.last_exit
        if last_exit is not None:
            # 3.
            if last_exit.closes_passed < policy.cooldown:
                return "cooldown"
            # 4. (This close is in the long zone, so only the closes before it can be outside.)
            if last_exit.reason in PROTECTIVE and policy.cooldown == 0 and not last_exit.outside_long_zone:
                return "needs_new_signal"
        # 5.
        open_positions = sum(1 for other in self.symbols if other.lots > 0)
        waiting_entries = sum(1 for other in self.symbols if other.waiting_levels is not None)
        if open_positions + waiting_entries >= policy.max_open_positions:
            return "max_open_positions"
        # 6.
        return self.size_entry(symbol, c, signal)

    def levels(self, symbol: Symbol, c: float) -> Levels:
        """Section 5, "Levels"."""
        policy = self.policy
        tick = symbol.market.tick
        stop: float | None = None
        stop_reason = ""
        take: float | None = None
        if policy.stop_loss > 0:
            stop = round_down(c * (1 - policy.stop_loss), tick)
            stop_reason = "stop_loss"
        if policy.trailing > 0 and policy.trailing_after == 0:
            trailing_stop = round_down(c * (1 - policy.trailing), tick)
            if stop is None or trailing_stop > stop:  # the stop loss on a tie
                stop = trailing_stop
                stop_reason = "trailing_stop"
        if policy.take_profit > 0:
            take = round_up(c * (1 + policy.take_profit), tick)
        return Levels(stop, stop_reason, take)

    def wanted_notional(self, c: float, signal: float, stop: float | None) -> float:
        """Section 5, the table of "Size"."""
        policy = self.policy
        if policy.sizing == "fraction":
            return policy.fraction * self.equity
        if policy.sizing == "risk":
            assert stop is not None  # check_policy
            if c == stop:
                return math.inf
            return policy.risk * self.equity / (c - stop) * c
        return policy.fraction * self.equity * signal  # "confidence"

    def size_entry(self, symbol: Symbol, c: float, signal: float) -> str:
        """Section 5, "Size": the cuts and the refusals of sizing, then the entry."""
        policy = self.policy
        lot = symbol.market.lot
        min_notional = symbol.market.min_notional
        equity = self.equity
        levels = self.levels(symbol, c)
        notional = self.wanted_notional(c, signal, levels.stop)
        waiting = 0.0
        for other in self.symbols:
            waiting += other.waiting_notional

        # The cut to max_position has no refusal of its own.
        notional = min(notional, policy.max_position * equity)

        # The cut to max_exposure refuses if it is what left too little.
        exposure = self.marked_value() + waiting
        room = policy.max_exposure * equity - exposure
        if room < notional:
            notional = room
            if notional <= 0 or notional < min_notional:
                return "max_exposure"

        # The cut to the cash, likewise.
        payable = self.cash / ((1 + policy.fee) * (1 + policy.slip)) - waiting
        if payable < notional:
            notional = payable
            if notional <= 0 or notional < min_notional:
                return "no_cash"

        lots = math.floor(notional / (c * lot) + 1e-9)
        if lots <= 0 or notional / (c * lot) > 2**53 or lots * lot * c < min_notional:
            return "below_min_notional"
        if levels.stop is not None and lots * lot * levels.stop < 1.1 * min_notional:
            return "below_protectable"

        symbol.target = lots
        symbol.target_reason = "entry"
        symbol.waiting_levels = levels
        symbol.waiting_notional = lots * lot * c
        return "entry"


# ---------------------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------------------


def check_policy(policy: RefPolicy) -> None:
    """Refuse a policy the page gives no meaning to."""
    if policy.sizing not in ("fraction", "risk", "confidence"):
        raise ValueError(f"unknown sizing {policy.sizing!r}")
    if policy.neutral not in ("hold", "flat"):
        raise ValueError(f"unknown neutral {policy.neutral!r}")
    if len(policy.partials) > 3 or list(policy.partials) != sorted(policy.partials, key=lambda level: level[0]):
        raise ValueError("partials: at most 3, lowest gain first")
    has_stop_at_entry = policy.stop_loss > 0 or (policy.trailing > 0 and policy.trailing_after == 0)
    if policy.sizing == "risk" and not has_stop_at_entry:
        raise ValueError("sizing by risk needs a stop at the entry")


def run_reference(
    times: list[int],
    candles: list[list[RefCandle | None]],
    signals: list[list[float]],
    markets: list[RefMarket],
    policy: RefPolicy,
    initial_balance: float,
) -> RefResult:
    """Run the backtest. `times[t]` is the open time of row t in ms; `candles[s][t]` is None where s is absent."""
    check_policy(policy)
    account = Account(markets, policy, initial_balance)
    equity: list[float] = []

    for t, open_time in enumerate(times):
        # Section 1: an absent symbol fills nothing and decides nothing, so only the present ones are gone through.
        present: list[tuple[int, RefCandle]] = []
        for index in range(len(markets)):
            candle = candles[index][t]
            if candle is not None:
                present.append((index, candle))

        # 1. Open: exits.
        for index, candle in present:
            account.open_exits(t, index, candle)
        # 2. Open: entries.
        for index, candle in present:
            account.open_entries(t, index, candle)
        # 3. Inside the candle.
        for index, candle in present:
            account.inside_candle(t, index, candle)
        # 4. Close: mark.
        for index, candle in present:
            account.symbols[index].last_close = candle.close
        account.mark(open_time)
        equity.append(account.equity)
        # 5. Close: decide.
        for index, candle in present:
            account.decide(index, candle, signals[index][t])

        # Section 6: a halted run ends after the first row at whose close nothing is held.
        if account.halted and account.nothing_held():
            break

    return RefResult(
        fills=account.fills,
        equity=equity,
        rows=len(equity),
        halted=account.halted,
        halt_drawdown=account.halt_drawdown,
        decisions=account.decisions,
        final_cash=account.cash,
        positions=[symbol.lots for symbol in account.symbols],
    )
