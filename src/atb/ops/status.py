"""What every account is doing: who trades it, whether it is halted, what it is worth, holds and has working."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from atb.ledger.accounts import AccountRow, all_accounts
from atb.ledger.lease import STANDING, Standing
from atb.ledger.running import RunningMark, read_marks
from atb.ops.closing import WORKING

if TYPE_CHECKING:
    from psycopg import Connection

REHEARSED = "replay"  # the venue of a rehearsal: each has an account of its own, and ends
NONE, RUNNING, DEAD, SILENT = "none", "running", "dead", "silent"

ACCOUNTS = f"""
    SELECT u.account_id, {STANDING}, u.halted, u.halt_reason, s.equity, s.peak,
        t.id, t.start_time, t.status, t.strategy, t.symbols, t.timeframe
    FROM authority u LEFT JOIN account_state s USING (account_id) LEFT JOIN LATERAL (
        SELECT * FROM trading_sessions WHERE account_id = u.account_id ORDER BY start_time DESC, id DESC LIMIT 1
    ) t ON true
"""
POSITIONS = (
    "SELECT account_id, market, symbol, side, size, entry_price, current_price, unrealized_pnl, stop_loss, take_profit "
    "FROM positions WHERE status = 'OPEN' ORDER BY symbol"
)
ORDERS = "SELECT account_id, count(*) FROM orders WHERE state = ANY(%s) GROUP BY account_id"


class OpenPosition(NamedTuple):
    """Prices and pnl in quote; None where there is no stop or take."""

    market: str
    symbol: str
    side: str
    size: Decimal
    entry_price: Decimal
    current_price: Decimal
    unrealized_pnl: Decimal
    stop: Decimal | None
    take: Decimal | None


class LastSession(NamedTuple):
    """The session of an account that was begun last."""

    id: int
    start_time: datetime
    status: str
    strategy: str
    symbols: str
    timeframe: str


class AccountStatus(NamedTuple):
    """One account, as its ledger has it. equity and peak are None before anything was booked.

    mark: what its engine saw since; None where the ledger is newer.
    """

    account: AccountRow
    standing: Standing
    halted: bool
    halt_reason: str
    equity: Decimal | None
    peak: Decimal | None
    session: LastSession | None
    positions: Sequence[OpenPosition]
    working_orders: int
    mark: RunningMark | None = None

    @property
    def engine(self) -> str:
        """none: nobody holds it. running. dead: its process of this host has ended. silent: its lease has run out."""
        return engine_word(self.standing)

    @property
    def drawdown_frac(self) -> Decimal | None:
        if self.equity is None or not self.peak:
            return None
        return 1 - self.equity / self.peak

    def at_running_prices(self) -> AccountStatus:
        """The same with equity and positions at the prices that its engine saw last."""
        mark = self.mark
        if mark is None:
            return self
        return self._replace(equity=mark.equity, positions=[_marked(p, mark) for p in self.positions])

    @property
    def is_current(self) -> bool:
        """Not a rehearsal that has ended."""
        return self.account.venue != REHEARSED or self.engine == RUNNING


def _marked(position: OpenPosition, mark: RunningMark) -> OpenPosition:
    price = mark.prices.get((position.market, position.symbol), position.current_price)
    gained = position.size * (price - position.current_price) * (1 if position.side == "LONG" else -1)
    return position._replace(current_price=price, unrealized_pnl=position.unrealized_pnl + gained)


def engine_word(standing: Standing) -> str:
    if not standing.holder:
        return NONE
    if standing.process is not None and standing.process.is_gone:
        return DEAD
    return RUNNING if standing.left_s is not None and standing.left_s > 0 else SILENT


def read_status(connection: Connection[Any]) -> list[AccountStatus]:
    """Every account, as of now."""
    connection.execute("SET LOCAL TimeZone = 'UTC'")
    accounts = {account.id: account for account in all_accounts(connection)}
    positions: Mapping[int, list[OpenPosition]] = defaultdict(list)
    for number, *row in connection.execute(POSITIONS):
        positions[number].append(OpenPosition(*row))
    marks = read_marks(connection)
    working = dict(connection.execute(ORDERS, (list(WORKING),)).fetchall())
    out = []
    for number, *row in connection.execute(ACCOUNTS).fetchall():
        standing, (halted, reason, equity, peak), session = Standing(*row[:6]), row[6:10], row[10:]
        last = None if session[0] is None else LastSession(*session)
        status = AccountStatus(
            accounts[number], standing, halted, reason, equity, peak, last, positions[number], working.get(number, 0),
            marks.get(number),
        )  # fmt: skip
        out.append(status)
    connection.rollback()
    return sorted(out, key=lambda status: status.account.id)


def as_json(status: AccountStatus) -> dict[str, Any]:
    """Everything that is known, for a program: amounts as text, exact, at the prices that the engine saw last."""
    status = status.at_running_prices()
    account, standing, session = status.account, status.standing, status.session
    process = standing.process
    return {
        "account": account.name, "mode": account.environment, "venue": account.venue, "market": account.market,
        "quote": account.quote, "engine": status.engine,
        "authority": {
            "epoch": standing.epoch, "holder": standing.shown or None, "host": process.host if process else None,
            "pid": process.pid if process else None, "since": standing.since or None,
            "heartbeat_age_s": standing.heartbeat_age_s if standing.holder else None,
            "lease_left_s": standing.left_s if standing.holder else None,
        },
        "session": None if session is None else session._asdict() | {"start_time": utc_text(session.start_time)},
        "marked_at": None if status.mark is None else utc_text(status.mark.at),
        "halted": status.halted, "halt_reason": status.halt_reason or None,
        "equity": text_of(status.equity), "peak": text_of(status.peak),
        "drawdown_frac": None if status.drawdown_frac is None else float(status.drawdown_frac),
        "positions": [
            {name: text_of(value) if isinstance(value, Decimal) else value for name, value in position._asdict().items()}
            for position in status.positions
        ],
        "working_orders": status.working_orders,
    }  # fmt: skip


def text_of(value: Decimal | None) -> str | None:
    return None if value is None else f"{value.normalize():f}"


def utc_text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
