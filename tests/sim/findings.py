"""What is wrong with an account at the end of a day, however it went: nothing is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from atb.core.money import floor_to
from atb.core.order_id import parse_order_id
from atb.core.orders import SeenOrder
from atb.execution.dust import PREFIX as DUST
from atb.execution.external import IN_KIND
from atb.execution.reconcile import differences
from atb.ledger.audit import audit
from atb.ledger.connect import connect
from atb.ledger.records import Key

if TYPE_CHECKING:
    from tests.sim.chaos_world import ChaosWorld

KINDS = (
    "duplicate order", "orphan position", "orphan order", "lost fill", "doubled fill", "unprotected", "disagreement",
    "changed by a restart", "error",
)  # fmt: skip
FOREIGN = ("BNB", "DUST")  # of the owner, and of those who write beside the engine: nothing to the account
ROUNDED = Decimal("1e-15")
OF_A_TARGET = ("entry", "exit", "partial", "emergency")


class Finding(NamedTuple):
    kind: str
    what: str


def findings(world: ChaosWorld) -> Iterator[Finding]:
    yield from _duplicates(world)
    for s in range(len(world.traded)):
        yield from _fills(world, s)
        yield from _position(world, s)
        yield from _orders(world, s)
    yield from (Finding("unprotected", what) for what in world.bare)
    yield from _books(world)


def _duplicates(world: ChaosWorld) -> Iterator[Finding]:
    """The same id twice; more done for a candle's decision than its orders asked for at the most, also those that were refused;
    more sold than was held."""
    report = world.exchange.audit()
    yield from (Finding("duplicate order", name) for name in report.duplicates)
    if not world.draw.owner:
        yield from (Finding("duplicate order", f"oversold: {sold}") for sold in report.oversold.items())
    for name, orders in _of_decisions(world).items():
        done, asked = sum(o.filled_qty for o in orders), _asked(world, orders[0])
        if done > asked:
            yield Finding("duplicate order", f"{name}: {done} instead of {asked}")


def _asked(world: ChaosWorld, order: SeenOrder) -> Decimal:
    """The most that one order asked for, of those of the same candle and purpose. Where the owner's orders lock coins of what is
    to be sold, each asks for what is free by then, and all of them for what was held when the first did."""
    parsed, key = parse_order_id(order.client_order_id), (order.symbol.market, order.symbol.id)
    assert parsed is not None
    told = ((o, parse_order_id(o.client_order_id)) for o in world.session.state.books.orders.values() if o.key == key)
    same = [o for o, p in told if p is not None and (p.candle_ms, p.purpose) == (parsed.candle_ms, parsed.purpose)]
    most = max(o.qty for o in same)
    if world.draw.owner and order.side == "sell":
        return max(most, _held_at(world, key, min(o.seq for o in same)))
    return most


def _held_at(world: ChaosWorld, key: Key, seq: int) -> Decimal:
    """By the books before an entry of the ledger."""
    fills = [fill for fill in world.session.state.books.history.get(key, []) if fill.seq < seq]
    return sum((fill.effective if fill.side == "buy" else -fill.effective for fill in fills), Decimal(0))


def _of_decisions(world: ChaosWorld) -> dict[str, list[SeenOrder]]:
    """The exchange's orders of ours by candle and purpose."""
    found: dict[str, list[SeenOrder]] = defaultdict(list)
    for traded in world.traded:
        for order in world.exchange.orders(traded.symbol, 0):
            parsed = parse_order_id(order.client_order_id)
            if parsed is not None and parsed.purpose in OF_A_TARGET:
                found[f"{traded.symbol.id} {parsed.purpose} of {parsed.candle_ms}"].append(order)
    return found


def _fills(world: ChaosWorld, s: int) -> Iterator[Finding]:
    symbol, books = world.traded[s].symbol, world.session.state.books
    told = Counter((f.side, f.venue_trade_id) for f in world.exchange.fills(symbol, 0))
    fills = (f for f in books.history.get((symbol.market, symbol.id), []) if f.reason != IN_KIND)
    booked = Counter((f.side, f.venue_trade_id) for f in fills if not f.venue_trade_id.startswith(DUST))
    yield from (Finding("lost fill", f"{symbol.id} {fill}") for fill in told - booked)
    yield from (Finding("doubled fill", f"{symbol.id} {fill}") for fill in booked - told)


def _position(world: ChaosWorld, s: int) -> Iterator[Finding]:
    symbol, rules = world.traded[s]
    state, balance = world.session.state, world.exchange.balances().get(symbol.base)
    held, there = state.held(s), balance.total if balance else Decimal(0)
    apart = state.dust.get(symbol.base, Decimal(0))
    if not world.draw.owner and (held + apart != there or apart >= rules.lot):
        yield Finding("orphan position", f"{symbol.id}: {held} by the books and {apart} apart, {there} at the exchange")
    if state.position(s).qty != int(held // rules.lot):
        yield Finding(
            "orphan position", f"{symbol.id}: {held} by the books, {state.position(s).qty} lots by the engine"
        )


def _orders(world: ChaosWorld, s: int) -> Iterator[Finding]:
    symbol, rules = world.traded[s]
    state, p = world.session.state, world.session.state.position(s)
    there = [o for o in world.exchange.open_orders([symbol]) if parse_order_id(o.client_order_id)]
    if {o.client_order_id for o in there} != set(state.working[s]):
        yield Finding("orphan order", f"{symbol.id}: {there} at the exchange, {list(state.working[s])} by the books")
    if world.draw.owner or not p.qty or p.stop != p.stop or p.target_qty != p.qty:
        return
    stopped = sum((o.qty - o.filled_qty for o in there if o.type in ("stop", "stop_limit")), Decimal(0))
    if stopped != floor_to(state.held(s), rules.lot) and not world.executor.told.offers(s, state.held(s)).dust:
        yield Finding("unprotected", f"{symbol.id}: {state.held(s)} held, {stopped} has a stop")


def _books(world: ChaosWorld) -> Iterator[Finding]:
    books = world.session.state.books
    if world.draw.reconciles:
        verdict = world.reconciler.look()
        if verdict.unsettled or verdict.unexplained:
            yield Finding("disagreement", f"{verdict}")
    for asset, amount in differences(books, world.broker.venue, world.exchange.balances()).items():
        if asset not in FOREIGN and abs(amount) > ROUNDED:
            yield Finding("disagreement", f"{amount} more {asset} at the exchange than in the books")
    yield from (Finding("disagreement", f"{p.key} is {p.qty}") for p in books.positions.values() if p.qty < 0)
    with connect(world.where) as connection:
        yield from (
            Finding("disagreement", f"{problem}") for problem in audit(connection, world.session.account).problems
        )
    for event in world.events:
        if event.code == "spool_refused":
            yield Finding("disagreement", event.message)
    if world.home is not None and list((world.home / "spool").glob("*.jsonl")):
        yield Finding("disagreement", "something is left in the spool")
