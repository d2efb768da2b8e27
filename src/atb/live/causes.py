"""Why a session did something else than the backtest: what its ledger and its events tell of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import cached_property
from typing import NamedTuple

from atb.core.timeframe import iso_minute
from atb.ledger.entries import Entry
from atb.ledger.records import Order
from atb.live.recorded import Close, Happening, Recorded, entries_between

SLACK = timedelta(seconds=5)  # between the clocks of engine and database
CAUSES = {
    "price": "what the market gave, against the model of the backtest",
    "fee": "what the exchange took, against the costs of the backtest",
    "candle": "the candles differ from those that were seen",
    "side": "a side series is another one now: a value was told, or changed, after the close",
    "strategy_failed": "the strategy failed, and gave no signal",
    "strategy_changed": "the strategy's file or its model is another one now",
    "under_way": "an order was under way, so nothing was decided",
    "halted": "the account was halted",
    "blocked": "no entries at that time",
    "breaker": "the equity was past a limit between two closes: nothing was bought until the next one",
    "refused": "the order came to nothing",
    "part": "the order was filled in part",
    "outage": "the engine, its exchange or its database was away",
    "late": "it was executed, or told, in another candle",
    "operator": "an operator's doing",
    "watched": "no order rested for it: the engine watches the price itself",
    "in_candle": "the candle touched stop and take; the exchange met the take first",
    "money": "money came or went",
    "follows": "it follows from another difference of this candle",
    "unexplained": "nothing that was recorded explains it",
}


class Cause(NamedTuple):
    """code: one of CAUSES. why: in words, of this case."""

    code: str
    why: str

    @property
    def explained(self) -> bool:
        return self.code != "unexplained"


def because(code: str, detail: str = "") -> Cause:
    return Cause(code, detail or CAUSES[code])


class Scene:
    """All that is known of the time between two closes. wrong: (symbol, open time) of closes that the candles have otherwise."""

    def __init__(self, recorded: Recorded, before: Close | None, now: Close, wrong: set[tuple[int, int]]) -> None:
        self.recorded, self.before, self.now, self.wrong = recorded, before, now, wrong
        self.entries: Sequence[Entry] = [] if before is None else entries_between(recorded, before.seq, now.seq)
        self.explained: dict[int, Cause] = {}  # by symbol, of its executions between these closes

    @cached_property
    def happenings(self) -> list[Happening]:
        after = self.now.written_at if self.before is None else self.before.written_at
        until = self.now.written_at + SLACK
        return [h for h in self.recorded.happenings if after - SLACK <= h.at <= until]

    def happened(self, code: str, symbol: str = "") -> Happening | None:
        return next((h for h in self.happenings if h.code == code and symbol in h.message), None)

    def name(self, s: int) -> str:
        return self.recorded.traded[s].symbol.id

    def orders(self, s: int) -> Iterator[Order]:
        """Those of a symbol that were meant to be sent between these closes."""
        after = self.before.seq if self.before is not None else 0
        symbol = self.recorded.traded[s].symbol
        for order in self.recorded.orders.values():
            if order.key == (symbol.market, symbol.id) and after < order.seq <= self.now.seq:
                yield order

    def control(self, s: int, *actions: str) -> Entry | None:
        """What was said beside the decisions: of the whole account, or of this symbol."""
        name = self.name(s)
        for e in self.entries:
            if e.kind == "control" and e.body["action"] in actions and e.body.get("symbol", name) == name:
                return e
        return None

    def not_seen(self, name: str) -> Cause:
        told = self.happened("candle_late", name) or self.happened("candle_corrected", name)
        return because("candle", told.message if told else "the exchange had not shown it when its row was decided")

    def late_s(self, close: Close) -> float:
        """From a close to when it was written down; a replay has a time of its own."""
        if self.recorded.account.venue == "replay":
            return 0.0
        return close.written_at.timestamp() - (close.open_ms + self.recorded.step_ms) / 1000


def commands(scene: Scene) -> Iterator[tuple[str, str, Cause]]:
    """What somebody told the account to do: symbol, words, cause."""
    for entry in scene.entries:
        body = entry.body
        if entry.kind == "level" and body.get("by"):
            yield body["symbol"], f"stop set to {body['stop']}", because("operator", f"by {body['by']}")
        elif entry.kind == "control" and body["by"] != "engine":
            yield body.get("symbol", ""), body["action"], because("operator", f"{body['reason']} ({body['by']})")


def of_signal(scene: Scene, s: int, had: float, late_ms: int | None = None) -> Cause:
    """late_ms: the last close up to this one at which a side series was another one than it is now."""
    told = scene.happened("strategy_failed", scene.name(s)) if had != had else None
    if told is not None:
        return because("strategy_failed", told.message)
    back = [at for symbol, at in scene.wrong if symbol == s and at <= scene.now.open_ms]
    if back:
        return because("candle", f"the candle of {iso_minute(max(back))} that it looks back on is another one")
    if late_ms is not None:
        return because("side", f"a side series was another one at the close of {iso_minute(late_ms)}")
    if scene.recorded.changed:
        return because("strategy_changed", scene.recorded.changed)
    return because("unexplained", "the strategy gives another signal for the same candles")


def of_decision(scene: Scene, s: int) -> Cause:
    """Of a close that nothing was decided at."""
    if s in scene.now.flattening:
        return because("operator", "the account was to be flat: nothing is decided until it is")
    return because("under_way")


def of_equity(recorded: Recorded, now: Close) -> Cause:
    """Of a close at which the account was worth something else, although the same was executed."""
    told = next((e for e in recorded.executions if e.open_ms <= now.open_ms and e.seq > now.seq), None)
    if told is not None:
        return because("late", f"an execution of the candle of {iso_minute(told.open_ms)} was told only afterwards")
    return because("unexplained")
