"""How much may be asked, and what becomes of those who ask for more."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

MINUTE_MS, TEN_SECONDS_MS, DAY_MS = 60_000, 10_000, 86_400_000
BAN_MS, LONGEST_BAN_MS = 120_000, 3 * DAY_MS


class Verdict(NamedTuple):
    """status 429 or 418, and for how long."""

    status: int
    wait_ms: int
    until_ms: int


class Rates:
    """All requests come from one address. Weight is counted by the minute, orders by ten seconds and by the day."""

    def __init__(self) -> None:
        self.weight_a_minute = 6000
        self.orders_in_10s = 100
        self.orders_a_day = 200_000
        self.calls_a_second = 0  # as Coinbase counts; 0: not at all, for the clock may stand still
        self.patience = 10  # refusals of one minute, after which the address is banned
        self.banned_until_ms = 0
        self.bans = 0
        self._weight: Counter[int] = Counter()
        self._calls: Counter[int] = Counter()
        self._refused: Counter[int] = Counter()
        self._orders: Counter[tuple[str, int, int]] = Counter()

    def ask(self, weight: int, now_ms: int) -> Verdict | None:
        """Counts a request; a verdict where it is one too many."""
        if now_ms < self.banned_until_ms:
            return Verdict(418, self.banned_until_ms - now_ms, self.banned_until_ms)
        minute = now_ms // MINUTE_MS
        self._weight[minute] += weight
        if self._weight[minute] <= self.weight_a_minute:
            return None
        self._refused[minute] += 1
        if self._refused[minute] > self.patience:
            return self._ban(now_ms)
        end_ms = (minute + 1) * MINUTE_MS
        return Verdict(429, end_ms - now_ms, end_ms)

    def call(self, now_ms: int) -> bool:
        """Counts a call; whether it is one too many of its second."""
        self._calls[now_ms // 1000] += 1
        return 0 < self.calls_a_second < self._calls[now_ms // 1000]

    def _ban(self, now_ms: int) -> Verdict:
        """Twice as long each time."""
        length = min(BAN_MS * 2**self.bans, LONGEST_BAN_MS)
        self.bans += 1
        self.banned_until_ms = now_ms + length
        return Verdict(418, length, self.banned_until_ms)

    def used(self, now_ms: int) -> int:
        return self._weight[now_ms // MINUTE_MS]

    def order(self, account: str, count: int, now_ms: int) -> tuple[int, str] | None:
        """Counts orders; which limit they go beyond, if any."""
        limits = ((TEN_SECONDS_MS, self.orders_in_10s, "10 SECOND"), (DAY_MS, self.orders_a_day, "1 DAY"))
        for length, limit, name in limits:
            if self._orders[account, length, now_ms // length] + count > limit:
                return limit, name
        for length, _, _ in limits:
            self._orders[account, length, now_ms // length] += count
        return None

    def ordered(self, account: str, length_ms: int, now_ms: int) -> int:
        return self._orders[account, length_ms, now_ms // length_ms]
