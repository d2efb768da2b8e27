"""A session as its ledger tells it: each close with the state that followed from it, and what was executed in between."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.core.errors import DataError, UsageError
from atb.core.timeframe import align_down, in_ms, timeframe_ms
from atb.engine.records import Rules
from atb.engine.stepper import Stepper
from atb.execution.dust import PREFIX as DUST
from atb.execution.state import TradingState
from atb.execution.traded import Traded, traded_from
from atb.ledger.accounts import AccountRow, all_accounts
from atb.ledger.audit import read_chain
from atb.ledger.entries import Chained, Entry
from atb.ledger.records import Fill, Order, Session

if TYPE_CHECKING:
    from psycopg import Connection

EVENTS = "SELECT at, code, message FROM events WHERE account_id = %s ORDER BY at, id"


class Close(NamedTuple):
    """A close that was decided on, and the state after its decisions. prices, signals: by symbol, as they were seen; sides: by
    symbol and name, the side series that its strategy declares.

    written_at: when, by the database's clock. equity, dust (what is held beyond whole lots is worth): of the books.
    """

    seq: int
    open_ms: int
    session_id: int | None
    written_at: datetime
    prices: Mapping[str, float]
    signals: Mapping[str, float]
    reasons: Sequence[int | None]
    stepper: Stepper
    equity: Decimal
    dust: Decimal
    halted: str
    flattening: frozenset[int]
    sides: Mapping[str, Mapping[str, float]]


class Execution(NamedTuple):
    """What an order got, dated by the candle in which that began. Lots are signed; price (the mean) and fee in quote.

    seq: of the entry that told of the first of it. in_base: the fee was taken from the coins.
    """

    open_ms: int
    s: int
    lots: int
    price: float
    fee: float
    reason: str
    seq: int
    order: Order | None
    in_base: bool = False


class Happening(NamedTuple):
    """An event that the session told."""

    at: datetime
    code: str
    message: str


class Recorded(NamedTuple):
    """before: the close that the session went on from, None where it began with nothing that it could go on from."""

    account: AccountRow
    session: Session
    config: Mapping[str, Any]
    traded: Sequence[Traded]
    rules: Rules
    before: Close | None
    closes: Sequence[Close]
    executions: Sequence[Execution]
    chain: Sequence[Chained]
    orders: Mapping[str, Order]
    decisions: Mapping[tuple[str, int], Mapping[str, Any]]  # by symbol and open time
    happenings: Sequence[Happening]
    changed: str = ""  # what is known to be another strategy or model now

    @property
    def step_ms(self) -> int:
        return timeframe_ms(self.session.timeframe)

    @property
    def span_ms(self) -> tuple[int, int]:
        """From the first candle that matters to behind the last: open times."""
        first = self.closes[0] if self.before is None else self.before
        return first.open_ms, self.closes[-1].open_ms + self.step_ms

    @property
    def simulated(self) -> bool:
        """Whether its exchange fills by the backtest's rules."""
        return self.account.environment == "paper"


def read_recorded(connection: Connection[Any], number: int, shown: str) -> Recorded:
    """UsageError: there is no such session in the database `shown`. DataError: it tells too little to be compared."""
    row = connection.execute("SELECT account_id FROM trading_sessions WHERE id = %s", (number,)).fetchone()
    if row is None:
        raise UsageError(
            f"There is no session {number} in {shown}.", "All of them: atb db sessions. Another database: DATABASE_URL"
        )
    account = next(each for each in all_accounts(connection) if each.id == row[0])
    chain = read_chain(connection, account.id)
    happenings = [Happening(*told) for told in connection.execute(EVENTS, (account.id,)).fetchall()]
    connection.rollback()
    return _recorded(account, number, chain, happenings)


def _recorded(account: AccountRow, number: int, chain: Sequence[Chained], happenings: Sequence[Happening]) -> Recorded:
    config = _config(number, chain)
    traded = [traded_from(known) for known in config["markets"]]
    rules = Rules(**config["rules"])
    folding = _Folding(TradingState(traded, rules, account.quote), number)
    for link in chain:
        folding.take(link)
    books = folding.state.books
    if not folding.closes:
        raise DataError(f"Session {number} saw no candle close, so there is nothing to compare.", "atb db sessions")
    session = books.sessions[number]
    return Recorded(
        account, session, config, traded, rules, _going_on(folding, session), folding.closes,
        _executions(folding.state, session.timeframe), chain, books.orders, folding.decisions, happenings,
    )  # fmt: skip


def _config(number: int, chain: Sequence[Chained]) -> Mapping[str, Any]:
    """What the session followed, from the entry that opened it."""
    opening = f"session:{number}"
    text = next((link.entry.body.get("config") for link in chain if link.entry.id == opening), None)
    config: Mapping[str, Any] = json.loads(text or "{}")
    if "rules" not in config or not config.get("markets"):
        raise DataError(f"Session {number} does not say by which rules it traded, so it cannot be replayed.")
    return config


class _Folding:
    """The state, and what is kept of it on the way."""

    def __init__(self, state: TradingState, number: int) -> None:
        self.state, self.number = state, number
        self.closes: list[Close] = []
        self.decisions: dict[tuple[str, int], Mapping[str, Any]] = {}
        self.last: Close | None = None  # before the session's first
        self.last_timeframe = ""

    def take(self, link: Chained) -> None:
        entry = link.entry
        self.state.take(link.seq, entry)
        if entry.kind == "mark" and "signals" in entry.body:
            self._close(link)
        elif entry.kind == "decision" and entry.body["timeframe"]:
            at = in_ms(datetime.fromisoformat(entry.body["open_time"]))
            self.decisions[entry.body["symbol"], at] = {**entry.body, "session_id": entry.session_id}

    def _close(self, link: Chained) -> None:
        mine = link.entry.session_id == self.number
        if not mine and self.closes:
            return
        close = _seen(self.state, link)
        if mine:
            self.closes.append(close)
        else:
            self.last, self.last_timeframe = close, link.entry.id.split(":")[1]


def _seen(state: TradingState, link: Chained) -> Close:
    body = link.entry.body
    return Close(
        link.seq, int(body["open_ms"]), link.entry.session_id, link.recorded_at,
        {name: float(price) for name, price in body["prices"].items()},
        {name: float(signal) for name, signal in body["signals"].items()},
        list(state.reasons), state.stepper.copy(), state.books.equity, _dust(state), state.books.halted,
        frozenset(state.flattening),
        {symbol: {n: float(v) for n, v in sides.items()} for symbol, sides in body.get("sides", {}).items()},
    )  # fmt: skip


def _dust(state: TradingState) -> Decimal:
    """What a fee in base left of a lot. It is no position of the engine's, and part of the books all the same."""
    worth = Decimal(0)
    for s, (symbol, rules) in enumerate(state.traded):
        beyond = state.held(s) - state.position(s).qty * rules.lot
        if beyond:
            worth += beyond * state.books.prices.get((symbol.market, symbol.id), Decimal(0))
    return worth


def _going_on(folding: _Folding, session: Session) -> Close | None:
    """The close before the session's first, where the state after it was to be carried out by the session's own rules."""
    last, first = folding.last, folding.closes[0].stepper
    if last is None or folding.last_timeframe != session.timeframe:
        return None
    then = last.stepper
    same = repr(then.rules.as_tuple()) == repr(first.rules.as_tuple())
    grids = [repr(market.as_tuple()) for market in then.markets]
    return last if same and grids == [repr(market.as_tuple()) for market in first.markets] else None


def _executions(state: TradingState, timeframe: str) -> list[Execution]:
    """The ledger's fills, those of one order as one, in the order in which they were booked."""
    out = []
    for s, traded in enumerate(state.traded):
        by_order: dict[str, list[Fill]] = {}
        for fill in state.books.history.get((traded.symbol.market, traded.symbol.id), []):
            if fill.effective and not fill.venue_trade_id.startswith(DUST):
                by_order.setdefault(fill.client_order_id or fill.id, []).append(fill)
        for name, fills in by_order.items():
            out.append(_execution(s, traded, fills, state.books.orders.get(name), timeframe))
    return sorted(out, key=lambda execution: execution.seq)


def _execution(s: int, traded: Traded, fills: Sequence[Fill], order: Order | None, timeframe: str) -> Execution:
    first, qty = fills[0], sum((fill.effective for fill in fills), Decimal(0))
    lots = round(qty / traded.rules.lot) * (1 if first.side == "buy" else -1)
    price = first.price if len(fills) == 1 else sum((f.price * f.effective for f in fills), Decimal(0)) / qty
    fee = sum((f.fee_quote if f.effective == f.qty else f.fee_quote * f.effective / f.qty for f in fills), Decimal(0))
    open_ms = align_down(in_ms(min(fill.at for fill in fills)), timeframe)
    return Execution(
        open_ms, s, lots, float(price), float(fee), first.reason, first.seq, order, first.fee_kind == "base"
    )


def entries_between(recorded: Recorded, after: int, until: int) -> list[Entry]:
    """The entries numbered after one and up to another."""
    return [link.entry for link in recorded.chain[after:until]]


def refuse_without_files(recorded: Recorded) -> None:
    """UsageError where the candles of a session are known to no exchange."""
    if recorded.account.venue not in ("binance", "coinbase"):
        sources = recorded.config.get("sources", [])
        told = f" ({'; '.join(sources)})" if sources else ""
        raise UsageError(
            f"The candles of session {recorded.session.id} are not an exchange's{told}.",
            "Give them: --data FILE, one for each symbol, in its order.",
        )
