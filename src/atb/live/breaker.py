"""The breaker: between two closes the account passed a limit, so nothing new is bought until the next close judges.

It closes nothing, and exits and stops go on: whether the account is halted is for the close alone, as in the backtest. So it may
keep a session from an entry that the backtest makes; that is an event, and `atb live parity` names it.
"""

from __future__ import annotations

from collections.abc import Callable

from atb.engine.stepper import Stepper
from atb.execution.executor import Event
from atb.execution.state import TradingState
from atb.live.running import RunningPrices

NAME = "the breaker"  # each reason begins with it: parity finds it in what was told of an entry


class Breaker:
    """Give it each look at the market (`look`) and each close (`judged`). why: empty while entries may be made."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self.tell, self.why = tell, ""

    def look(self, state: TradingState, prices: RunningPrices, open_ms: int) -> None:
        """open_ms: of the candle that runs."""
        if self.why or state.books.halted:
            return
        passed = limit_passed(state.stepper, _equity(state, prices), open_ms)
        if passed:
            self.why = f"{NAME}: {passed}; the next close judges"
            self.tell(Event("warning", "breaker", f"Nothing is bought until the next close: {passed}"))

    def judged(self) -> None:
        """A close: from here on the engine's own rules say whether there are entries."""
        if self.why:
            self.why = ""
            self.tell(Event("info", "breaker_over", "The next close has come: it judges, and not the breaker."))


def limit_passed(stepper: Stepper, equity: float, open_ms: int) -> str:
    """Which limit an equity between closes is past, in words; empty where none. The limits are those of a close."""
    a, rules = stepper.account, stepper.rules
    is_new_day = open_ms >= a.day_end_ms  # its first close begins with what the last one left
    day_equity = a.equity if is_new_day else a.day_equity
    if equity < a.peak * (1.0 - rules.max_drawdown):
        under = 1.0 - equity / a.peak
        return f"equity {equity:,.2f} is {under:.1%} under its peak of {a.peak:,.2f}, past {rules.max_drawdown:.1%}"
    if rules.daily_loss > 0.0 and equity < day_equity * (1.0 - rules.daily_loss):
        lost = 1.0 - equity / day_equity
        return f"equity {equity:,.2f} is {lost:.1%} under that of the day's beginning, past {rules.daily_loss:.1%}"
    return ""


def _equity(state: TradingState, prices: RunningPrices) -> float:
    """As a close would find it, at the prices that run."""
    stepper, equity = state.stepper, state.stepper.account.cash
    for p, market, traded in zip(stepper.positions, stepper.markets, state.traded, strict=True):
        if p.qty:
            price = float(prices.of(state, (traded.symbol.market, traded.symbol.id)))
            equity += (p.qty * market.lot) * price
    return equity
