"""One candle after the other: signals, the decision, what follows from it.

The engine's state is a fold over the ledger (execution/state.py), so this only brings facts into the ledger: first the mark
with the closes and signals that were seen (folding it is the decision), the decisions in words, and then what the executor does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from atb.core.errors import DataError, StrategyError
from atb.core.money import lots_to_base, price_to_decimal
from atb.core.timeframe import moment, timeframe_ms
from atb.engine.candles import Candles
from atb.engine.reasons import REASON_NAMES
from atb.engine.sides import Join, as_they_are
from atb.execution.executor import Event, Executor
from atb.execution.state import TradingState
from atb.ledger.entries import Entry
from atb.strategy.contract import Strategy, sides_of
from atb.strategy.signals import compute_signals

STEP = Decimal("0.002")  # of the peak: by so much a new trough is lower than the last that was written


class Trader:
    """Decides for the symbols of an executor's state. strategies: one a symbol, in the same order. join: what gives a window
    the side series that a strategy declares."""

    def __init__(
        self, executor: Executor, strategies: Sequence[Strategy], timeframe: str, join: Join = as_they_are
    ) -> None:
        self.executor, self.strategies, self.timeframe, self.join = executor, list(strategies), timeframe, join
        self.sides = [sides_of(type(strategy)) for strategy in strategies]
        self.length_ms = timeframe_ms(timeframe)
        self.beside: dict[str, dict[str, str]] = {}  # by symbol, its side series at the last close: texts of floats
        self.failing: dict[str, str] = {}  # by symbol, why the strategy gave no signal at its last close

    @property
    def state(self) -> TradingState:
        return self.executor.state

    def begin(self) -> None:
        """A process starts: what the last one decided and did not write down any more."""
        state = self.state
        if state.last_open_ms is not None and state.decided_ms != state.last_open_ms and state.signals:
            at = moment(state.last_open_ms + self.length_ms)
            self.executor.append(self._decisions(state.last_open_ms, at, state.signals))

    def close(self, open_ms: int, windows: Mapping[str, Candles], act: bool = True) -> None:
        """Candles have closed: by symbol the window that ends with the one that opened at `open_ms`.

        act: send what follows from it. Of several at once only the last one is acted on.
        """
        signals = {name: self._signal(name, window) for name, window in windows.items()}
        prices = {name: Decimal(repr(float(window.close[-1]))) for name, window in windows.items()}
        body = {
            "prices": prices, "why": "close", "open_ms": open_ms,
            "signals": {name: repr(signal) for name, signal in signals.items()},
        }  # fmt: skip
        if sides := {name: self.beside[name] for name in windows if name in self.beside}:
            body["sides"] = sides  # what was known then: a value that comes late is not found out otherwise
        at = moment(open_ms + self.length_ms)
        name = f"mark:{self.timeframe}:{open_ms}"
        self.executor.append([Entry(name, "mark", at, body, self.executor.session_id)])
        written = self.state.decided_ms == open_ms  # by a process that died after it
        decided = [] if written else self._decisions(open_ms, at, signals)
        self._halt(at)
        if act:
            self.executor.act()  # before they are written: the market moves on
        self.executor.append([*decided, *self._levels(at)])
        if act:
            self.executor.cycle()  # what was filled at once is protected at once

    def trough(self, equity: Decimal, last: Mapping[int, float]) -> None:
        """Between closes the account is worth less than ever since its peak: that is written, too. last: prices by index."""
        state = self.state
        if not state.books.positions or equity >= state.lowest - STEP * state.books.peak:
            return
        prices = {state.traded[s].symbol.id: Decimal(repr(price)) for s, price in last.items()}
        body = {"prices": prices, "why": "trough"}
        self.executor.append(
            [Entry(f"trough:{state.seq + 1}", "mark", self.executor.now(), body, self.executor.session_id)]
        )

    def _halt(self, at: datetime) -> None:
        """A drawdown halt is durable, and known to all: it lasts until somebody resumes."""
        a, books = self.state.stepper.account, self.state.books
        if not a.halted or books.halted:
            return
        why = f"drawdown of {a.halt_drawdown:.1%} from the peak of {a.peak:.2f} {books.quote}"
        body = {"action": "halt", "reason": why, "by": "engine"}
        self.executor.append([Entry(f"halt:{self.state.seq + 1}", "control", at, body, self.executor.session_id)])
        self.executor.tell(Event("critical", "drawdown_halt", f"Halted: {why}. See: atb live resume --reason TEXT"))

    def look(self, at_ms: int) -> None:
        """Between closes: book what happened, and protect what is held."""
        before = self.state.seq
        self.executor.cycle()
        if self.state.seq != before:
            levels = self._levels(moment(at_ms))
            if levels:
                self.executor.append(levels)

    def _signal(self, name: str, window: Candles) -> float:
        s = next(i for i, t in enumerate(self.state.traded) if t.symbol.id == name)
        try:
            joined = self.join(self.sides[s], window)
            self.beside |= {name: {n: repr(float(v[-1])) for n, v in joined.sides.items()}} if joined.sides else {}
            signal = float(compute_signals(self.strategies[s], joined)[-1])
            self.failing.pop(name, None)
            return signal
        except (StrategyError, DataError) as error:  # also: a side series cannot be read
            self.failing[name] = error.what
            self.executor.tell(Event("error", "strategy_failed", f"{name}: {error.what} It gives no signal."))
            return math.nan

    def _decisions(self, open_ms: int, at: datetime, signals: Mapping[str, float]) -> list[Entry]:
        """What was decided, for people and programs: nothing is folded from it."""
        out = []
        for s, traded in enumerate(self.state.traded):
            reason, p, name = self.state.reasons[s], self.state.position(s), traded.symbol.id
            if reason is None or name not in signals:
                continue
            tick = traded.rules.tick
            body = {
                "symbol": name, "timeframe": self.timeframe, "open_time": moment(open_ms),
                "signal": None if math.isnan(signals[name]) else signals[name], "reason": REASON_NAMES[reason],
                "target_qty": lots_to_base(p.target_qty, traded.rules.lot), "stop": _price(p.stop, tick),
                "take": _price(p.take, tick),
            }  # fmt: skip
            entry = Entry(f"decision:{name}:{self.timeframe}:{open_ms}", "decision", at, body, self.executor.session_id)
            out.append(entry)
        return out

    def _levels(self, at: datetime) -> list[Entry]:
        """Where stops and takes belong, where the books have them elsewhere."""
        out = []
        for s, traded in enumerate(self.state.traded):
            symbol, p = traded.symbol, self.state.position(s)
            held = self.state.books.positions.get((symbol.market, symbol.id))
            if held is None or p.qty == 0:
                continue
            stop, take = _price(p.stop, traded.rules.tick), _price(p.take, traded.rules.tick)
            if (stop, take) != (held.stop, held.take):
                body = {"symbol": symbol.id, "market": symbol.market, "stop": stop, "take": take}
                name = f"level:{symbol.id}:{self.state.seq}"
                out.append(Entry(name, "level", at, body, self.executor.session_id))
        return out


def _price(level: float, tick: Decimal) -> Decimal | None:
    return None if math.isnan(level) else price_to_decimal(level, tick)
