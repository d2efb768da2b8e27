"""What the account is worth between closes: its books at the prices of the candles that run.

Shown, stored as one row that is overwritten, and judged by the breaker. No decision follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from atb.core.timeframe import moment
from atb.execution.state import TradingState
from atb.ledger.records import Key
from atb.ledger.running import RunningMark
from atb.live.feed import Running

ZERO = Decimal(0)


class RunningPrices:
    """The last price that was seen of each symbol since its last close; before that, the one in the books."""

    def __init__(self) -> None:
        self._seen: dict[str, Decimal] = {}

    def see(self, running: Mapping[str, Running]) -> None:
        for name, candle in running.items():
            self._seen[name] = Decimal(repr(candle.last))

    def closed(self, names: Iterable[str]) -> None:
        """The books have a newer one."""
        for name in names:
            self._seen.pop(name, None)

    def of(self, state: TradingState, key: Key) -> Decimal:
        seen = self._seen.get(key[1]) if key in state.index else None
        return state.books.prices[key] if seen is None else seen


def running_mark(state: TradingState, prices: RunningPrices, now_ms: int) -> RunningMark:
    """The account by its books and these prices, as of the last entry that the state has."""
    books = state.books
    seen = {key: prices.of(state, key) for key in books.positions}
    worth = {key: position.qty * seen[key] for key, position in books.positions.items()}
    gained = sum((worth[key] - position.cost for key, position in books.positions.items()), ZERO)
    return RunningMark(state.seq, moment(now_ms), books.cash + sum(worth.values(), ZERO), books.peak, gained, seen)
