"""What an entry means for somebody who watches: one line for each order, execution and decision that matters."""

from __future__ import annotations

from decimal import Decimal

from atb.execution.dust import is_dust
from atb.execution.fills import Event
from atb.execution.state import TradingState
from atb.ledger.entries import Entry

QUIET = ("hold", "neutral", "no_signal")  # decisions that change nothing


def narrate(entry: Entry, state: TradingState) -> Event | None:
    """The event of an entry that was just folded; None for what nobody needs to read."""
    tell = {"fill": _fill, "order": _order, "decision": _decision}.get(entry.kind)
    return tell(entry, state) if tell is not None else None


def _fill(entry: Entry, state: TradingState) -> Event:
    body = entry.body
    if is_dust(body):
        where = "kept apart: too little to be sold" if body["side"] == "sell" else "taken to what is held now"
        return Event("info", "dust", f"{body['symbol']}: {plain(body['qty'])} {body['base']} of dust is {where}")
    side = "bought" if body["side"] == "buy" else "sold"
    reason = body.get("reason") or "fill"
    return Event(
        "info", str(reason), f"{body['symbol']}: {side} {plain(body['qty'])} at {plain(body['price'])} ({reason})"
    )


def _order(entry: Entry, state: TradingState) -> Event | None:
    order = state.books.orders[entry.body["client_order_id"]]
    if entry.body["state"] != "open" or order.purpose not in ("stop", "take"):
        return None
    name, at = ("stop_loss", order.stop_price) if order.purpose == "stop" else ("take_profit", order.price)
    what = f"{order.key[1]}: {name}={plain(at)} rests for {plain(order.qty)}"
    return Event("info", f"{name}_placed", what)


def _decision(entry: Entry, state: TradingState) -> Event | None:
    body = entry.body
    severity = "debug" if body["reason"] in QUIET else "info"
    signal = "none" if body["signal"] is None else f"{float(body['signal']):+.3f}"
    return Event(severity, "decision", f"{body['symbol']}: {body['reason']}, signal {signal}")


def plain(value: object) -> str:
    """A number without an exponent or zeros at its end."""
    return f"{Decimal(str(value)).normalize():f}"
