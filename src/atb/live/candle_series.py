"""One symbol's closed candles as a feed has them: each is given once, when it is final, and never changed after that.

A candle that has just closed may still be what it was before its last trades. So it is taken when two answers, at least
SETTLE_MS apart by the exchange's clock and both from after its close, tell the same of it; or one answer from FINAL_AFTER_MS
after its close on, which is history. That there is *no* candle at a time must always be said twice, by answers that show a later
one. What the exchange says otherwise afterwards is a correction: told, and not taken.

What a stream tells of a closed candle is a witness, too: where it says the same, a single answer is enough that shows a later
candle as well, since then the exchange is past the close. Nothing is taken from a stream alone: with it or without it the candles
are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from atb.core.types import Symbol
from atb.engine.candles import Candles, Floats
from atb.venue.candle_tail import Tail

SETTLE_MS = 1_000
FINAL_AFTER_MS = 10_000
SPARE = 1_000  # candles that are kept beyond the lookback before old ones are dropped

Numbers = tuple[float, ...]  # open time, open, high, low, close, volume
NONE = np.empty((0, 6))


class Sighting(NamedTuple):
    """What an answer said of a time (None: no candle), and the exchange's clock when it was said first."""

    candle: Numbers | None
    at_ms: int


class Correction(NamedTuple):
    """What the exchange says now of a time that was settled before. had: what was given; None: that there is no candle."""

    open_ms: int
    had: Numbers | None
    has: Numbers


class News(NamedTuple):
    """What an answer settled. gaps: (first open time, how many) of times without a candle. otherwise: what a stream had told
    of candles that were settled, where it was something else."""

    candles: int
    gaps: list[tuple[int, int]]
    corrections: list[Correction]
    otherwise: Sequence[Correction] = ()


class CandleSeries:
    """Of every time before `until_ms` it is settled whether there is a candle, and which."""

    def __init__(self, symbol: Symbol, timeframe: str, step_ms: int, lookback: int) -> None:
        self.symbol, self.timeframe, self.step_ms, self.lookback = symbol, timeframe, step_ms, lookback
        self.known_ms = self.until_ms = 0  # from when to when
        self.rows: Floats = NONE
        self.running: Floats | None = None
        self.fresh_ms = 0  # up to when the market is known, by the exchange's clock
        self._seen: dict[int, Sighting] = {}
        self._told: dict[int, Numbers] = {}  # by a stream, of candles that have closed
        self._called_ms = 0
        self._corrected: dict[int, Numbers] = {}
        self._candles: Candles | None = None

    def begin(self, rows: Floats, until_ms: int) -> None:
        """History: final as it is."""
        self.until_ms, self.rows, self._candles = until_ms, rows, None
        self.known_ms = int(rows[0, 0]) if len(rows) else until_ms
        self.fresh_ms = until_ms

    @property
    def since_ms(self) -> int:
        """From where to ask: the last that was settled is looked at once more."""
        return self.until_ms - self.step_ms

    @property
    def unsettled(self) -> bool:
        """Whether something was seen that a further answer would settle."""
        return bool(self._seen)

    @property
    def awaited(self) -> bool:
        """Whether a stream has told what the next candle is: an answer that says the same settles it."""
        return self.until_ms in self._told

    def has(self, open_ms: int) -> bool:
        i = int(np.searchsorted(self.rows[:, 0], open_ms))
        return i < len(self.rows) and int(self.rows[i, 0]) == open_ms

    def window(self, open_ms: int) -> Candles:
        """Exactly `lookback` candles, the last of which opened at `open_ms`."""
        stop = int(np.searchsorted(self.rows[:, 0], open_ms, side="right"))
        assert stop >= self.lookback and int(self.rows[stop - 1, 0]) == open_ms
        return self._whole().window(stop - self.lookback, stop)

    def between(self, after_ms: int, before_ms: int) -> Floats:
        """The rows that open after one time and before another."""
        times = self.rows[:, 0]
        return self.rows[(times > after_ms) & (times < before_ms)]

    def take(self, tail: Tail) -> News:
        """Take an answer in, to a question from `since_ms` or earlier on."""
        told = {int(row[0]): tuple(row.tolist()) for row in tail.closed}
        corrections = self._corrections({at: row for at, row in told.items() if at < self.until_ms})
        end = self._end(tail)
        slots = range(self.until_ms, end, self.step_ms)
        newest_ms = end if tail.running is not None else end - self.step_ms
        agreed = [self._agreed(slot, told.get(slot), tail.exchange_ms, slot < newest_ms) for slot in slots]
        settled = slots[: agreed.index(False) if False in agreed else len(agreed)]
        otherwise = [
            Correction(slot, self._told[slot], told[slot])
            for slot in settled
            if slot in told and self._told.get(slot, told[slot]) != told[slot]
        ]
        self._settle(settled, told)
        self._look_at_running(tail)
        present = [slot in told for slot in settled]
        return News(sum(present), _gaps(settled, present), corrections, otherwise)

    def hear(self, row: Numbers, final: bool, at_ms: int) -> bool:
        """Take in what a stream told of a candle. Whether it is worth asking now: the next candle has closed, it seems.

        at_ms: the exchange's clock when it was told.
        """
        open_ms = int(row[0])
        if open_ms < self.until_ms or (open_ms - self.until_ms) % self.step_ms:
            return False
        final = final and at_ms >= open_ms + self.step_ms  # else it contradicts itself
        news = final and open_ms not in self._told  # once: whoever says it in many ways is not asked after each
        if final:
            self._told[open_ms] = row
        elif open_ms > self.until_ms and self._called_ms != self.until_ms:
            news, self._called_ms = True, self.until_ms
        # While the candle before is not settled, what runs is of no use to anybody; and an answer may be newer than what is told.
        if open_ms == self.until_ms and at_ms > self.fresh_ms:
            self.fresh_ms = at_ms
            if not final:
                self.running = np.array(row)
        return news

    def drop_before(self, open_ms: int) -> None:
        """Forget what no window that ends at `open_ms` or later reaches back to."""
        keep = int(np.searchsorted(self.rows[:, 0], open_ms)) - self.lookback
        if keep > SPARE:
            self.rows, self._candles = self.rows[keep:].copy(), None
            self.known_ms = int(self.rows[0, 0])
            self._corrected = {at: row for at, row in self._corrected.items() if at >= self.known_ms}

    def _end(self, tail: Tail) -> int:
        """Before this every candle has closed that the answer shows, and every time without one is past."""
        if tail.running is not None:
            return int(tail.running[0])
        return int(tail.closed[-1, 0]) + self.step_ms if len(tail.closed) else self.until_ms

    def _agreed(self, slot: int, candle: Numbers | None, at_ms: int, followed: bool) -> bool:
        """followed: the answer shows a later candle, too."""
        witnessed = followed and self._told.get(slot) == candle
        if candle is not None and (at_ms >= slot + self.step_ms + FINAL_AFTER_MS or witnessed):
            return True
        first = self._seen.get(slot)
        if first is None or first.candle != candle:
            self._seen[slot] = Sighting(candle, at_ms)
            return False
        return at_ms - first.at_ms >= SETTLE_MS

    def _settle(self, slots: range, told: dict[int, Numbers]) -> None:
        if not slots:
            return
        new = [told[slot] for slot in slots if slot in told]
        if new:
            self.rows, self._candles = np.concatenate([self.rows, np.array(new)]), None
        self.until_ms = slots[-1] + self.step_ms
        self._seen = {slot: seen for slot, seen in self._seen.items() if slot >= self.until_ms}
        self._told = {slot: row for slot, row in self._told.items() if slot >= self.until_ms}

    def _corrections(self, told: dict[int, Numbers]) -> list[Correction]:
        """Each once."""
        out = []
        for at, has in told.items():
            i = int(np.searchsorted(self.rows[:, 0], at))
            had = tuple(self.rows[i].tolist()) if self.has(at) else None
            if has != had and self._corrected.get(at) != has and at >= self.known_ms:
                self._corrected[at] = has
                out.append(Correction(at, had, has))
        return out

    def _look_at_running(self, tail: Tail) -> None:
        if tail.running is not None:
            self.running, self.fresh_ms = tail.running, max(self.fresh_ms, tail.exchange_ms)
        elif len(tail.closed):
            self.running = None
            self.fresh_ms = max(self.fresh_ms, int(tail.closed[-1, 0]) + self.step_ms)

    def _whole(self) -> Candles:
        """All rows as Candles, made once; windows are views of it and share its scales."""
        if self._candles is None:
            rows = self.rows
            self._candles = Candles(self.symbol.id, self.timeframe, rows[:, 0].astype(np.int64), *rows.T[1:])
        return self._candles


def _gaps(slots: range, present: list[bool]) -> list[tuple[int, int]]:
    """Runs of times without a candle."""
    runs: list[tuple[int, int]] = []
    for k, slot in enumerate(slots):
        if present[k]:
            continue
        if runs and k and not present[k - 1]:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((slot, 1))
    return runs
