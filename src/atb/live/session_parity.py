"""What a session did against what the backtest does with the same candles, close by close.

The loop is begun anew at each close, in the state that the ledger had then, and goes on to the next: so a difference is named
once, where it arose, and not again in all that follows from it. Compared are candles, signals, decisions, fills and equity. Where
they are all the same, the loop that runs alone from the first close on must come to the same equity, too: that is compared last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from atb.core.errors import DataError
from atb.core.money import lots_to_base
from atb.core.timeframe import iso_minute
from atb.core.words import counted
from atb.engine.candles import Candles, Floats
from atb.engine.reasons import REASON_NAMES
from atb.execution.dust import PREFIX as DUST
from atb.live.causes import Cause, Scene, because, commands, of_decision, of_equity, of_signal
from atb.live.fill_causes import of_pair
from atb.live.made import Made, Pair, Tape, paired
from atb.live.recorded import Close, Execution, Recorded, entries_between
from atb.strategy.contract import Strategy
from atb.strategy.signals import lookback_of

CLOSE = 1e-9
NAN = math.nan


class Difference(NamedTuple):
    """at_ms: the open time of the candle. what: candle, side, signal, decision, fill, command, money or equity. effect: in quote,
    what it was worth to the session at the close of the candle; None where that cannot be told."""

    at_ms: int
    symbol: str
    what: str
    session: str
    backtest: str
    cause: Cause
    effect: float | None = None


class SessionParity(NamedTuple):
    """What was compared, and what differs. alone: the equity of the backtest that runs from the first close to the last."""

    first_ms: int
    last_ms: int
    closes: int
    decisions: int
    fills: int
    equity: float
    alone: float
    differences: Sequence[Difference]
    notes: Sequence[str]

    @property
    def explained(self) -> bool:
        return all(difference.cause.explained for difference in self.differences)


class Part(NamedTuple):
    """One symbol of the session: its candles with their side series, and the signals that the strategy gives for them now
    (None: unknown)."""

    candles: Candles
    signals: Floats | None


def compare_session(recorded: Recorded, parts: Sequence[Part]) -> SessionParity:
    """parts: in the session's order of symbols. DataError: the candles are not those of the session."""
    return _Comparison(recorded, parts).result()


class _Comparison:
    def __init__(self, recorded: Recorded, parts: Sequence[Part]) -> None:
        self.recorded = recorded
        self.names = [traded.symbol.id for traded in recorded.traded]
        self.tape = Tape([part.candles for part in parts])
        self.signals = [_by_time(part) for part in parts]
        self.sides = [_sides_by_time(part.candles) for part in parts]
        self.late: dict[str, int] = {}  # by symbol, the last close at which a side series was another one
        self.found: list[Difference] = []
        self.fills = self.decisions = 0
        self.made_of: dict[int, list[Execution]] = {}
        for execution in recorded.executions:
            self.made_of.setdefault(execution.open_ms, []).append(execution)
        self.wrong = set(self._wrong_closes())

    def result(self) -> SessionParity:
        closes, befores = self.recorded.closes, self._befores()
        for before, now in zip(befores, closes, strict=True):
            self._row(before, now)
        equity, alone = float(closes[-1].equity), self._alone(befores[0])
        if not self.found and not _same(alone, equity):
            self._differs(closes[-1].open_ms, "", "equity", f"{equity!r}", f"{alone!r}", because("unexplained"))
        return SessionParity(
            closes[0].open_ms, closes[-1].open_ms, len(closes), self.decisions, self.fills, equity, alone, self.found,
            self._notes(befores[0]),
        )  # fmt: skip

    def _befores(self) -> list[Close | None]:
        """Of each close the one before it. None: what was executed up to the first is taken as it is."""
        closes, before = self.recorded.closes, self.recorded.before
        return [before, *closes[:-1]]

    def _notes(self, before: Close | None) -> list[str]:
        last = self.recorded.closes[-1].open_ms
        later = sum(1 for e in self.recorded.executions if e.open_ms > last and self._is_mine(e))
        notes = []
        if later:
            notes.append(f"{counted(later, 'execution')} after the last close: not compared.")
        if before is None and self.recorded.closes[0].seq > self._opened_after():
            notes.append("What was executed before the first close is taken as it is.")
        return notes

    def _is_mine(self, execution: Execution) -> bool:
        return execution.order is not None and execution.order.session_id == self.recorded.session.id

    def _opened_after(self) -> int:
        """The number of the first close, where no fill comes before it."""
        first = self.recorded.closes[0].seq
        early = any(entry.kind == "fill" for entry in entries_between(self.recorded, 0, first))
        return first - 1 if early else first

    # One close.

    def _row(self, before: Close | None, now: Close) -> None:
        times = self.tape.between(before.open_ms, now.open_ms) if before is not None else [now.open_ms]
        scene = Scene(self.recorded, before, now, self.wrong)
        self._candles(times, now, scene)
        for name in now.prices:
            if name in self.names:
                self._sides(self.names.index(name), now)
                self._signal(self.names.index(name), now, scene)
                self._decision(self.names.index(name), now, scene)
        if before is None:
            return
        self._commands(scene, now)
        same = self._fills(before, times, scene)
        if not self._money(scene, now) and same and not any(now.open_ms == at for _, at in self.wrong):
            self._equity(before, now, times)

    def _candles(self, times: Sequence[int], now: Close, scene: Scene) -> None:
        for s, name in enumerate(self.names):
            if (s, now.open_ms) in self.wrong:
                told = self.tape.close(s, now.open_ms)
                self._differs(now.open_ms, name, "candle", f"close {now.prices[name]!r}",
                              "none" if told is None else f"close {told!r}", because("candle"))  # fmt: skip
            for at in times:
                if self.tape.close(s, at) is not None and (at != now.open_ms or name not in now.prices):
                    self._differs(at, name, "candle", "not decided on", "decided on", scene.not_seen(name))

    def _sides(self, s: int, now: Close) -> None:
        """What was known beside the candle. A session from before that was written down says nothing."""
        name, given = self.names[s], self.sides[s].get(now.open_ms, {})
        for side, had in now.sides.get(name, {}).items():
            has = given.get(side)
            if has is not None and had != has and not (had != had and has != has):
                self.late[name] = now.open_ms
                told, should = f"{side} {_number(had)}", f"{side} {_number(has)}"
                self._differs(now.open_ms, name, "side", told, should, because("side"))

    def _signal(self, s: int, now: Close, scene: Scene) -> None:
        name, given = self.names[s], self.signals[s].get(now.open_ms)
        had = now.signals[name]
        if given is None or had == given or (had != had and given != given) or abs(had - given) <= CLOSE:
            return
        cause = of_signal(scene, s, had, self.late.get(name))
        self._differs(now.open_ms, name, "signal", _number(had), _number(given), cause)

    def _decision(self, s: int, now: Close, scene: Scene) -> None:
        """What was written down against what the engine decides today from what was seen."""
        name, reason = self.names[s], now.reasons[s]
        if reason is None:
            self._differs(now.open_ms, name, "decision", "none", "one a candle", of_decision(scene, s))
            return
        self.decisions += 1
        told = self.recorded.decisions.get((name, now.open_ms))
        if told is None:
            return  # it was killed before it could say so, and nobody came after it
        p, lot = now.stepper.positions[s], self.recorded.traded[s].rules.lot
        had, has = (
            (told["reason"], Decimal(told["target_qty"])),
            (REASON_NAMES[reason], lots_to_base(p.target_qty, lot)),
        )
        if had[0] != has[0] or (had[1] != has[1] and told["session_id"] == now.session_id):
            text, should = (f"{reason}, target {qty.normalize():f}" for reason, qty in (had, has))
            self._differs(now.open_ms, name, "decision", text, should, because("unexplained"))

    def _fills(self, before: Close, times: Sequence[int], scene: Scene) -> bool:
        """Whether all that was executed in these candles is what the loop executes from the close before them."""
        model = before.stepper.copy()
        should = [made for at in times for made in self.tape.meet(model, at)]
        found = [execution for at in times for execution in self.made_of.get(at, [])]
        self.fills += len(found)
        count = len(self.found)
        for pair in paired(should, found):
            if not self._equal(pair):
                self._fill_differs(pair, scene)
        return len(self.found) == count

    def _equal(self, pair: Pair) -> bool:
        """A simulated exchange computes as the loop does; a real one's decimals are as good as equal. No fee of the loop's is
        taken from coins."""
        made, found = pair.made, pair.execution
        if made is None or found is None or found.in_base:
            return False
        if (made.open_ms, made.lots, made.reason) != (found.open_ms, found.lots, found.reason):
            return False
        if self.recorded.simulated:
            return (made.price, made.fee) == (found.price, found.fee)
        return _same(found.price, made.price) and _same(found.fee, made.fee)

    def _fill_differs(self, pair: Pair, scene: Scene) -> None:
        one = pair.made or pair.execution
        assert one is not None
        traded, close = self.recorded.traded[one.s], self.tape.close(one.s, one.open_ms)
        lot = float(traded.rules.lot)
        gains = [0.0 if each is None else _gain(each, lot, close) for each in (pair.execution, pair.made)]
        told, should = (_told(each, traded.rules.lot, traded.symbol.base) for each in (pair.execution, pair.made))
        effect = None if any(g is None for g in gains) else gains[0] - gains[1]  # type: ignore[operator]
        self._differs(one.open_ms, traded.symbol.id, "fill", told, should, of_pair(scene, pair, self.tape), effect)

    def _commands(self, scene: Scene, now: Close) -> None:
        """What somebody said beside the decisions: what follows is another state than the backtest's."""
        for name, text, cause in commands(scene):
            self._differs(now.open_ms, name, "command", text, "none", cause)

    def _money(self, scene: Scene, now: Close) -> bool:
        """Whether money came or went that no execution moved. (What is left of a lot is kept apart, and that is no event.)"""
        moved = [e for e in scene.entries if e.kind == "adjustment" and e.body["type"] != "external"]
        for body in [e.body for e in moved if not e.id.startswith(DUST)]:
            text = f"{body['type']} of {body['amount']} {body['asset']}"
            self._differs(now.open_ms, "", "money", text, "none", because("money", body["reason"]))
        return bool(moved) or any(e.kind in ("reversal", "attribution") for e in scene.entries)

    def _equity(self, before: Close, now: Close, times: Sequence[int]) -> None:
        """Nothing else differs, so it must be the same; what is held beyond whole lots is not the loop's."""
        model = before.stepper.copy()
        for at in times:
            self.tape.meet(model, at)
            model.close(at, self.tape.closes(at, len(model.markets)), [NAN] * len(model.markets))
        dust = float(now.dust - before.dust)
        should = float(before.equity) + model.account.equity - before.stepper.account.equity + dust
        if not _same(float(now.equity), should):
            self._differs(
                now.open_ms, "", "equity", f"{float(now.equity)!r}", f"{should!r}", of_equity(self.recorded, now)
            )

    # Over all of it.

    def _alone(self, before: Close | None) -> float:
        """The equity at the last close of the backtest alone, which nothing disturbs."""
        closes = self.recorded.closes
        first = before or closes[0]
        model = first.stepper.copy()
        offset = float(first.equity) - model.account.equity
        for at in self.tape.between(first.open_ms, closes[-1].open_ms):
            self.tape.meet(model, at)
            signals = [known.get(at, NAN) for known in self.signals]
            n = len(model.markets)
            model.close(at, self.tape.closes(at, n), signals + [NAN] * (n - len(signals)))
        return model.account.equity + offset

    def _wrong_closes(self) -> Iterator[tuple[int, int]]:
        """(symbol, open time) of what was seen, and is not so in the candles. DataError where that is most of it."""
        seen = [
            (s, close.open_ms, close.prices[name])
            for close in self.recorded.closes for s, name in enumerate(self.names) if name in close.prices
        ]  # fmt: skip
        wrong = [told for told in seen if self.tape.close(*told[:2]) != told[2]]
        if 2 * len(wrong) > len(seen):
            s, at, price = wrong[0]
            has = self.tape.close(s, at)
            raise DataError(
                f"{len(wrong)} of {counted(len(seen), 'recorded close')} are not in these candles: at {iso_minute(at)} "
                f"{self.names[s]} closed at {price!r}, and they have {'no such candle' if has is None else repr(has)}.",
                "Give the candles that the session saw: --data FILE, one for each symbol, in its order.",
            )
        return ((s, at) for s, at, _ in wrong)

    def _differs(
        self, at_ms: int, symbol: str, what: str, session: str, backtest: str, cause: Cause, effect: float | None = None
    ) -> None:
        self.found.append(Difference(at_ms, symbol, what, session, backtest, cause, effect))


def history_of(strategy: Strategy | None) -> int:
    """How many candles before the first are asked for: windows are of candles that exist, so gaps reach further back."""
    return 0 if strategy is None else 2 * lookback_of(strategy)


def _by_time(part: Part) -> Mapping[int, float]:
    if part.signals is None:
        return {}
    return dict(zip(part.candles.open_time.tolist(), np.asarray(part.signals).tolist(), strict=True))


def _sides_by_time(candles: Candles) -> Mapping[int, Mapping[str, float]]:
    names, columns = list(candles.sides), [column.tolist() for column in candles.sides.values()]
    rows = zip(candles.open_time.tolist(), zip(*columns, strict=True), strict=True) if names else ()
    return {at: dict(zip(names, row, strict=True)) for at, row in rows}


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= CLOSE * max(1.0, abs(b))


def _gain(one: Made | Execution, lot: float, close: float | None) -> float | None:
    """What an execution is worth at the close of its candle, against none."""
    return None if close is None else one.lots * lot * (close - one.price) - one.fee


def _told(one: Made | Execution | None, lot: Decimal, base: str) -> str:
    if one is None:
        return "none"
    side = "bought" if one.lots > 0 else "sold"
    qty = lots_to_base(abs(one.lots), lot).normalize()
    return f"{side} {qty:f} {base} at {one.price:.10g}, fee {one.fee:.6g} ({one.reason})"


def _number(value: float) -> str:
    return "none" if value != value else repr(value)
