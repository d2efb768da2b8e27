"""Did live trading do what the backtest does? The same candles through the loop, and every difference named.

Compared are the fills (candle, symbol, lots, price, fee and reason, exactly), the counts of decisions, and the equity at each
close (to 1e-9).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from atb.core.timeframe import iso_minute
from atb.engine.candles import Candles, Floats
from atb.engine.reasons import FIRST_REFUSAL, NO_CASH, REASON_NAMES, REFUSED_HALTED
from atb.engine.records import Rules
from atb.engine.simulation import Run, simulate, timeline
from atb.execution.state import TradingState
from atb.ledger.fold import Account

CLOSE = 1e-9
AT_THE_OPEN = (NO_CASH, REFUSED_HALTED)  # counted by the loop where an order comes to nothing, by live trading nowhere


class Fact(NamedTuple):
    """A fill as both sides tell it. Lots are signed; price and fee in quote."""

    open_ms: int
    symbol: str
    lots: int
    price: float
    fee: float
    reason: str

    def __str__(self) -> str:
        side = "bought" if self.lots > 0 else "sold"
        return f"{iso_minute(self.open_ms)} {side} {abs(self.lots)} lots of {self.symbol} at {self.price!r} ({self.reason})"


class Parity(NamedTuple):
    """What was compared, and what differs, in words."""

    fills: int
    candles: int
    differences: list[str]


def compare(
    state: TradingState, series: Sequence[Candles], signals: Sequence[Floats], rules: Rules, balance: float, step_ms: int,
    equity: Sequence[tuple[int, float]],
) -> Parity:  # fmt: skip
    """An account that traded `series` from its beginning, against the loop. equity: (open ms, equity) at the closes."""
    line = timeline(series, signals)
    run = simulate(line, state.stepper.markets, rules, balance)
    names = [traded.symbol.id for traded in state.traded]
    should = [_fact(f, line.open_time, names) for f in run.fills]
    found = [fact for fact in _booked(state.books, state, step_ms) if fact.open_ms <= int(line.open_time[run.rows - 1])]
    differences = _only(should, found, "only in the backtest") + _only(found, should, "only in the ledger")
    differences += _equity(run, line.open_time, equity) + _decisions(run, state, len(line.open_time))
    return Parity(len(should), run.rows, differences)


def _fact(fill: Any, times: Any, names: Sequence[str]) -> Fact:
    reason = REASON_NAMES[int(fill["reason"])]
    at, name = int(times[fill["t"]]), names[int(fill["symbol"])]
    return Fact(at, name, int(fill["qty"]), float(fill["price"]), float(fill["fee"]), reason)


def _booked(books: Account, state: TradingState, step_ms: int) -> list[Fact]:
    """The ledger's fills, each with the candle in which it was made."""
    out = []
    for traded in state.traded:
        symbol = traded.symbol
        for fill in books.history.get((symbol.market, symbol.id), []):
            at = round(fill.at.timestamp() * 1000)
            lots = round(fill.qty / traded.rules.lot) * (1 if fill.side == "buy" else -1)
            out.append(Fact(at - at % step_ms, symbol.id, lots, float(fill.price), float(fill.fee), fill.reason))
    return out


def _only(facts: Sequence[Fact], others: Sequence[Fact], where: str) -> list[str]:
    return [f"{where}: {fact}" for fact in (Counter(facts) - Counter(others)).elements()]


def _equity(run: Run, times: Any, equity: Sequence[tuple[int, float]]) -> list[str]:
    """The first close at which the account was worth something else."""
    told = dict(equity)
    for t in range(run.rows):
        at, should = int(times[t]), float(run.equity[t])
        if at not in told:
            return [f"{iso_minute(at)}: no close was seen"]
        if abs(told[at] - should) > CLOSE * max(1.0, abs(should)):
            return [f"{iso_minute(at)}: equity {told[at]!r}, in the backtest {should!r}"]
    return []


def _decisions(run: Run, state: TradingState, rows: int) -> list[str]:
    """The loop ends where a halted account holds nothing; live trading goes on, and refuses."""
    if run.rows < rows:
        return []
    pairs = [(code, int(count), state.stepper.decisions[code]) for code, count in enumerate(run.decisions)]
    wrong = [(code, a, b) for code, a, b in pairs if a != b and code not in AT_THE_OPEN]
    kind = {True: "refusals", False: "decisions"}
    return [f"{kind[c >= FIRST_REFUSAL]} '{REASON_NAMES[c]}': {b}, in the backtest {a}" for c, a, b in wrong]
