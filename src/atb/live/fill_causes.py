"""Why an execution is not that of the backtest: read from orders, commands, events and times, the surest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atb.core.timeframe import iso_minute
from atb.engine.reasons import REASON_NAMES, STOP_BEFORE_TAKE, TAKE_PROFIT
from atb.ledger.entries import Entry
from atb.ledger.records import FINAL_STATES
from atb.live.breaker import NAME as BREAKER
from atb.live.causes import Cause, Scene, because
from atb.live.made import Made, Pair, Tape
from atb.live.recorded import Execution

TAKEN = REASON_NAMES[TAKE_PROFIT]
CLOSE = 1e-9
LATE_S = 60.0  # a close that was written down so long after it was not lived through


def of_pair(scene: Scene, pair: Pair, tape: Tape) -> Cause:
    """Of a fill of the loop and an execution that differ, or have no other side."""
    made, execution = pair
    one = made or execution
    assert one is not None
    found = None
    if made is not None and execution is not None:
        found = _differing(scene, made, execution)
    elif made is not None:
        found = _first_of(_MISSING, scene, made)
    elif execution is not None:
        found = _first_of(_EXTRA, scene, execution) or _outside(execution, tape)
    if found is None and (one.s, one.open_ms) in scene.wrong:
        found = because("candle")
    if found is None and one.s in scene.explained:
        found = because("follows", f"it follows from: {scene.explained[one.s].why}")
    if found is not None:
        scene.explained.setdefault(one.s, found)
    return found or because("unexplained")


def _first_of(ways: Sequence[Callable[..., Cause | None]], *args: object) -> Cause | None:
    return next((cause for way in ways if (cause := way(*args)) is not None), None)


# Both sides did something.


def _differing(scene: Scene, made: Made, execution: Execution) -> Cause | None:
    if made.rule == STOP_BEFORE_TAKE and execution.reason == TAKEN:
        return because("in_candle")
    if made.reason != execution.reason:
        return _first_of(_EXTRA, scene, execution)
    if (cause := _stop_was_moved(scene, execution.s)) is not None:
        return cause
    if made.lots != execution.lots:
        return _in_part(scene, execution) or _told_late(scene, made)
    if scene.recorded.simulated:
        return None
    if execution.price != made.price and abs(execution.price / made.price - 1.0) > CLOSE:
        bps = (execution.price / made.price - 1.0) * 10_000
        return because("price", f"{abs(bps):.2f} bps {'above' if bps > 0 else 'below'} the model's price")
    return because("fee", "the fee was taken from the coins that were bought" if execution.in_base else "")


def _in_part(scene: Scene, execution: Execution) -> Cause | None:
    order = execution.order
    if order is not None and order.filled_qty < order.qty:
        return because(
            "part", f"{_plain(order.filled_qty)} of {_plain(order.qty)} were filled, then it was {order.state}"
        )
    told = scene.happened("less_is_free")
    if told is not None:
        return because("part", told.message)
    if scene.recorded.simulated or order is None:
        return None
    if execution.lots < 0 and _fees_took(scene, execution):
        return because("fee", "the fee was taken from the coins that were bought, so less was there to be sold")
    return because("price", "at the market's price the cash paid for another quantity") if execution.lots > 0 else None


def _fees_took(scene: Scene, execution: Execution) -> bool:
    after = scene.before.seq if scene.before is not None else 0
    bought = [
        e for e in scene.recorded.executions if e.s == execution.s and e.lots > 0 and after < e.seq <= execution.seq
    ]
    return any(e.in_base for e in bought)


# The loop filled what the session did not.


def _refused(scene: Scene, made: Made) -> Cause | None:
    side = "buy" if made.lots > 0 else "sell"
    for order in scene.orders(made.s):
        if order.side == side and order.state in FINAL_STATES - {"filled"} and not order.filled_qty and order.reason:
            return because("refused", f"the {order.purpose} order was {order.state}: {order.reason}")
    return None


def _told_late(scene: Scene, made: Made) -> Cause | None:
    """The ledger did not know yet what had been executed when it wrote down the close before."""
    if scene.before is None:
        return None
    for e in scene.recorded.executions:
        if e.s == made.s and e.open_ms <= scene.before.open_ms and e.seq > scene.before.seq:
            return because("late", f"an execution of the candle of {iso_minute(e.open_ms)} was told only afterwards")
    return None


def _executed_later(scene: Scene, made: Made) -> Cause | None:
    known = {order.client_order_id for order in scene.orders(made.s)}
    for e in scene.recorded.executions:
        later = e.s == made.s and e.open_ms > made.open_ms and (e.lots > 0) == (made.lots > 0)
        if later and e.order is not None and e.order.client_order_id in known:
            return because("late", f"its order was executed in the candle of {iso_minute(e.open_ms)}")
    return None


def _no_entry(scene: Scene, made: Made) -> Cause | None:
    if made.lots < 0 or scene.before is None:
        return None
    halt = scene.control(made.s, "halt")
    if scene.before.halted or halt is not None:
        why = scene.before.halted or (halt.body["reason"] if halt is not None else "")
        return because("halted", f"the account was halted: {why}")
    told = scene.happened("entry_blocked", scene.name(made.s))
    if told is not None:
        return because("breaker" if BREAKER in told.message else "blocked", told.message)
    tripped = scene.happened("breaker")  # what it kept from being bought may have been told before, and counted since
    return None if tripped is None else because("breaker", tripped.message)


def _away(scene: Scene, made: Made) -> Cause | None:
    """A close that was made up for is not acted on, unless it is the last of them; nor is anything while all is away."""
    if scene.before is None or scene.recorded.simulated:
        return None
    late_s = scene.late_s(scene.before)
    if late_s > LATE_S:
        return because("outage", f"the close before it was seen {late_s:.0f} s late, so it was not acted on")
    told = scene.happened("database_away") or scene.happened("exchange_away")
    return because("outage", told.message) if told is not None else None


def _somebody_else(scene: Scene, made: Made) -> Cause | None:
    entry = scene.control(made.s, "exit", "flatten", "fence")
    return _said(entry) if entry is not None else _stop_was_moved(scene, made.s)


def _not_resting(scene: Scene, made: Made) -> Cause | None:
    """A take where the exchange has no pairs: between two looks the price may be there and gone."""
    if scene.recorded.simulated or made.reason != TAKEN:
        return None
    symbol = scene.recorded.traded[made.s].symbol
    rested = any(
        order.key == (symbol.market, symbol.id) and order.purpose == "take" and order.seq <= scene.now.seq
        for order in scene.recorded.orders.values()
    )
    every_s = scene.recorded.config.get("check_interval_s", 0)
    return None if rested else because("watched", f"no take-profit rests here; the engine looks every {every_s:g} s")


# The session did what the loop did not.


def _by_somebody(scene: Scene, e: Execution) -> Cause | None:
    if e.order is None:
        return because("operator", "it was not an order of the engine's")
    if e.order.purpose == "emergency":
        return because("operator", "closed by an operator (flatten)")
    entry = scene.control(e.s, "exit", "flatten")
    return _said(entry) if entry is not None else _stop_was_moved(scene, e.s)


def _placed_earlier(scene: Scene, e: Execution) -> Cause | None:
    if e.order is None or scene.before is None or e.order.purpose in ("stop", "take") or e.order.seq > scene.before.seq:
        return None
    return because("late", "its order was placed at an earlier close")


def _outside(e: Execution, tape: Tape) -> Cause | None:
    """The market was where this candle has never been."""
    candle = tape.candle(e.s, e.open_ms)
    if candle is None:
        return because("candle", "there is no such candle in the data")
    if candle[2] <= e.price <= candle[1]:
        return None
    return because("candle", f"{e.price:.10g} is outside the candle's {candle[2]:.10g} to {candle[1]:.10g}")


def _stop_was_moved(scene: Scene, s: int) -> Cause | None:
    for e in scene.entries:
        if e.kind == "level" and e.body.get("by") and e.body["symbol"] == scene.name(s):
            return because("operator", f"the stop was set to {e.body['stop']} ({e.body['by']})")
    return None


def _said(entry: Entry) -> Cause:
    """What a control entry says: by the engine itself, or by an operator."""
    body = entry.body
    evidence = body.get("evidence") or body["reason"]
    if body.get("by") == "engine" and not str(evidence).startswith("--"):
        return because("watched", f"the engine sold it at the market: {evidence}")
    return because("operator", f"{body['action']}: {evidence}")


def _plain(value: object) -> str:
    return f"{value:f}".rstrip("0").rstrip(".") if "." in f"{value:f}" else f"{value:f}"


_MISSING = (_refused, _told_late, _somebody_else, _executed_later, _no_entry, _away, _not_resting)
_EXTRA = (_by_somebody, _placed_earlier)
