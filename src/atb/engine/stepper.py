"""The loop one event at a time: executions as they are told, closes as they come. For live trading, and for its resume.

    stepper = Stepper(markets, rules, balance=10_000.0)
    reasons = stepper.close(open_ms, closes, signals)       # `positions` says what should be held from now on
    stepper.executed(s, lots=3, value=150.0, fee=0.15, reason=ENTRY)
    stepper.settled(s)                                      # the order is at its end: what it did not get is not wanted

The functions are the kernel's own. Fed with the fills that `run` makes, at the times at which it makes them, the state after
each close is that of `run`, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from atb.engine import kernel
from atb.engine.book import Book, apply_fill
from atb.engine.fills import close_position, enter_position, want_nothing
from atb.engine.reasons import COUNT, EMERGENCY_CLOSE
from atb.engine.records import FillRow, Market, Rules, flat_position, fresh_account


class Stepper:
    """The state of S symbols that share one account. `decisions[code]` counts what was decided."""

    def __init__(self, markets: Sequence[Market], rules: Rules, balance: float) -> None:
        self.markets, self.rules = list(markets), rules
        self.account = fresh_account(balance)
        self.positions = [flat_position() for _ in self.markets]
        self.decisions = [0] * COUNT
        self.holds_when_halted = False  # a drawdown halt closes what is held, or else decides on it as before
        self.order = [0] * len(self.markets)

    def copy(self) -> Stepper:
        """The same state, which goes its own way from here on."""
        other = Stepper(self.markets, self.rules, 0.0)
        other.account, other.positions = copy(self.account), [copy(p) for p in self.positions]
        other.decisions, other.holds_when_halted = list(self.decisions), self.holds_when_halted
        return other

    def add(self, market: Market) -> None:
        """Another symbol, of which nothing is held."""
        self.markets.append(market)
        self.positions.append(flat_position())
        self.order.append(len(self.order))

    def regrid(self, s: int, lots: int, factor: float) -> None:
        """Symbol s is counted in other lots from now on: `lots` are held. factor: how many new ones an old one makes."""
        p = self.positions[s]
        if not p.target_qty < p.qty:
            self._answered(s)
            p.target_qty = lots
        elif p.target_qty:
            p.target_qty = min(lots, int(p.target_qty * factor + 1e-9))
        p.qty, p.entry_qty = lots, int(p.entry_qty * factor + 1e-9)

    def close(self, open_ms: int, closes: Sequence[float], signals: Sequence[float]) -> list[int | None]:
        """Mark the account at the closes of one candle of each symbol, and decide. NaN: the symbol has none.

        Returns the reason code of each symbol's decision, None where it has none; the targets are in `positions`.
        """
        n, a, rules = len(self.markets), self.account, self.rules
        kernel.held_first(n, self.positions, self.order, a)
        close = [[value] for value in closes]
        kernel.mark_close(0, n, open_ms, close, self.positions, self.order, self.markets, a, rules)
        reasons: list[int | None] = [None] * n
        for k, s in enumerate(self.order):
            if closes[s] == closes[s]:
                reason = self._decide(s, closes[s], signals[s], held=k < a.open_positions)
                self.decisions[reason] += 1
                reasons[s] = reason
        return reasons

    def meet(self, open_: Sequence[float], high: Sequence[float], low: Sequence[float]) -> list[FillRow]:
        """What one candle of each symbol fills by the backtest's rules: at the open what waits for it, then what rests.

        NaN: the symbol has none. `close` follows, with the candle's closes.
        """
        n, a, made = len(self.markets), self.account, [FillRow() for _ in range(2 * len(self.markets))]
        opens, highs, lows = ([[value] for value in column] for column in (open_, high, low))
        count = kernel.fill_at_open(
            0, n, opens, self.positions, self.markets, a, self.rules, made, 0, self.decisions
        )  # fmt: skip
        kernel.held_first(n, self.positions, self.order, a)
        count = kernel.fill_within(
            0, n, opens, highs, lows, self.positions, self.order, self.markets, a, self.rules, made, count
        )  # fmt: skip
        return made[:count]

    def _decide(self, s: int, close: float, signal: float, held: bool) -> int:
        p, market, a, rules = self.positions[s], self.markets[s], self.account, self.rules
        if not held:
            return int(kernel.decide_flat(close, signal, p, market, a, rules))
        halted = a.halted
        if self.holds_when_halted:
            a.halted = 0
        reason = int(kernel.decide_holding(close, signal, p, market, a, rules))
        a.halted = halted
        return reason

    def executed(self, s: int, lots: int, value: float, fee: float, reason: int, *, asked: bool = True) -> None:
        """A fill of `lots` (sales negative) of symbol s, worth `value` quote (signed alike), that cost `fee` quote.

        It may be a part of what was asked for. Not `asked`: no target wanted it. It is a stop, a take, somebody else's trade;
        what the target still wanted it wants still. A fill that closes the position ends what was asked for, in any case.
        """
        p, a, before = self.positions[s], self.account, self.positions[s].qty
        book = apply_fill(Book(p.qty, p.cost, a.cash, a.realized, a.fees), lots, value, fee)
        self._move_target(s, book.qty, asked)
        p.qty, p.cost = book.qty, book.cost if book.qty else 0.0  # less than a lot has moved cash alone
        a.cash, a.realized, a.fees = book.cash, book.realized, book.fees
        if lots > 0 and p.qty > 0:
            enter_position(p, self.markets[s])
        self._opened_or_closed(s, before, reason)

    def corrected(self, s: int, lots: int, cost: float, reason: int) -> None:
        """Of symbol s, `lots` are held that cost `cost`: the past was another one than was thought. (What that changes in the
        account's money is not its to say.) What a target still wants it wants still."""
        p, before = self.positions[s], self.positions[s].qty
        self._move_target(s, lots, False)
        p.qty, p.cost = lots, cost
        if before == 0 and lots > 0:
            enter_position(p, self.markets[s])
        self._opened_or_closed(s, before, reason)

    def want(self, s: int, lots: int, reason: int) -> None:
        """From now on `lots` of symbol s are wanted, whatever was decided: fewer than are held, or as many."""
        p = self.positions[s]
        self._answered(s)
        p.target_qty = min(lots, p.qty)
        p.target_reason = reason
        if p.target_qty < p.qty:
            self.account.waiting_exits += 1

    def flatten(self, s: int) -> None:
        """Nothing of symbol s is wanted any more: what is held is to be sold, and nothing is bought."""
        p, a = self.positions[s], self.account
        if p.qty == 0:
            want_nothing(p)
        p.target_qty, p.target_reason, p.waiting = 0, EMERGENCY_CLOSE, 0.0
        a.waiting_entries = sum(other.target_qty > other.qty for other in self.positions)
        a.waiting_exits = sum(other.target_qty < other.qty for other in self.positions)

    def settled(self, s: int) -> None:
        """The order for symbol s's target is at its end. What it did not get is not tried again."""
        p = self.positions[s]
        self._answered(s)
        if p.qty == 0:
            want_nothing(p)
        p.target_qty = p.qty

    def _move_target(self, s: int, qty: int, asked: bool) -> None:
        """`qty` lots will be held: an answer to what was asked for, or not."""
        p = self.positions[s]
        if qty == p.qty:  # less than a lot: what waits for an answer waits still
            return
        exiting = p.target_qty < p.qty
        ended = qty in (p.target_qty, 0) or (not asked and exiting and qty < p.target_qty)
        if ended and (asked or exiting or qty == 0):
            self._answered(s)
        if not asked and p.target_qty >= p.qty:
            p.target_qty = max(0, p.target_qty + qty - p.qty)
        elif not asked and ended:
            p.target_qty = qty

    def _opened_or_closed(self, s: int, before: int, reason: int) -> None:
        p, a = self.positions[s], self.account
        if before == 0 and p.qty > 0:
            a.open_positions += 1
        elif before > 0 and p.qty == 0:
            close_position(p, a, self.rules, reason)

    def _answered(self, s: int) -> None:
        """The symbol waits for no fill any more."""
        p, a = self.positions[s], self.account
        if p.target_qty > p.qty:
            a.waiting_entries -= 1
        elif p.target_qty < p.qty:
            a.waiting_exits -= 1
        p.waiting = 0.0
