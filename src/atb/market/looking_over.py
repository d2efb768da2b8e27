"""Is an exchange fit to be traded at, from here and now: reachable, fast, on time, with rules, candles and room for requests."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from atb.core.errors import AtbError, ExchangeRefused, ExchangeUnavailable, UsageError
from atb.core.timeframe import align_down, iso_minute
from atb.core.types import Symbol
from atb.core.words import duration
from atb.venue.broker import Broker
from atb.venue.candle_tail import CandleTail
from atb.venue.ccxt_markets import fetch_market_rules
from atb.venue.ccxt_session import Patience, Session
from atb.venue.exchange_clock import ExchangeClock, Sample
from atb.venue.rate_budget import LIMITS, Priority, RateBudget
from atb.venue.server_time import sample_of

GOOD, WARN, BAD, SKIPPED = "ok", "warning", "bad", "skipped"
SLOW_MS, TOO_SLOW_MS = 1_000, 3_000  # an answer: the runbook's thresholds
SKEWED_MS, TOO_SKEWED_MS = 500, 5_000  # the clock: Binance refuses an order that is signed 1 s ahead or 5 s behind
LATE = 2  # closed candles that may be missing
SPENT = 0.2  # of what may be asked, left


class Check(NamedTuple):
    """What was looked at, its verdict, and what was seen. value: for programs, in the unit that the name says."""

    name: str
    verdict: str
    seen: str
    value: float | str | None = None


class Place(NamedTuple):
    """Where an exchange is, and the folder of the budget of requests."""

    venue: str
    url: str | None
    rates: Path | None
    patience: Patience


def look_over(place: Place, symbol: Symbol, timeframe: str, now_ms: Callable[[], int]) -> list[Check]:
    """Each check in turn; after an exchange that cannot be reached, nothing else is asked. Raises UsageError for a symbol or
    timeframe that the exchange does not have."""
    with contextlib.closing(Session(place.venue, place.url, place.patience, "", place.rates)) as session:
        checks = _reached(session)
        if checks[0].verdict == BAD:
            return checks
        checks.append(_rules(place, symbol))
        checks.append(_candle(place, symbol, timeframe, now_ms))
        checks.append(_room(session))
    return checks


def look_over_key(open_broker: Callable[[], Broker]) -> Check:
    """What the key may do. One that may withdraw, or works from everywhere, is more than a trading program needs."""
    try:
        rights = open_broker().rights()
    except AtbError as error:
        return Check("key", BAD, error.what)
    remarks = [
        "it may NOT trade" if rights.may_trade is False else "",
        "it may withdraw: make one that may not" if rights.may_withdraw else "",
        "it works from every address: restrict it to yours" if rights.only_from is False else "",
    ]
    said = "; ".join(remark for remark in remarks if remark)
    if rights.may_trade is None and not said:
        return Check("key", SKIPPED, "this place does not tell what a key may do")
    verdict = BAD if rights.may_trade is False else WARN if said else GOOD
    return Check("key", verdict, said or "it may trade and cannot withdraw")


def verdict_of(checks: list[Check]) -> str:
    verdicts = {check.verdict for check in checks}
    return BAD if BAD in verdicts else WARN if WARN in verdicts else GOOD


def _reached(session: Session) -> list[Check]:
    """Reachability, latency and clock, from the same few requests."""
    took_ms: list[float] = []

    def sample() -> Sample:
        one = sample_of(session)
        took_ms.append(1000 * one.round_trip_s)
        return one

    clock = ExchangeClock(sample)
    try:
        sample()  # the first one opens the connection
        skew = clock.measure()
        sample()
    except (ExchangeUnavailable, ExchangeRefused) as error:
        return [Check("reachable", BAD, error.what)]
    middle = statistics.median(took_ms[1:])
    latency = BAD if middle > TOO_SLOW_MS else WARN if middle > SLOW_MS else GOOD
    ahead = abs(skew.ahead_ms) - skew.within_ms  # what is certain of it
    time_ = BAD if ahead > TOO_SKEWED_MS else WARN if ahead > SKEWED_MS else GOOD
    where = "ahead" if skew.ahead_ms >= 0 else "behind"
    return [
        Check("reachable", GOOD, f"{session.host} answers{session.through}"),
        Check("latency_ms", latency, f"{middle:.0f} ms, the median of {len(took_ms) - 1}", round(middle, 1)),
        Check(
            "clock_skew_ms", time_,
            f"the exchange is {abs(skew.ahead_ms):.0f} ms {where} (within {skew.within_ms:.0f} ms)", round(skew.ahead_ms, 1),
        ),
    ]  # fmt: skip


def _rules(place: Place, symbol: Symbol) -> Check:
    try:
        rules = fetch_market_rules(
            place.venue, symbol, base_url=place.url, timeout_s=place.patience.timeout_s, attempts=2, rates=place.rates
        )
    except UsageError:
        raise
    except AtbError as error:
        return Check("market_rules", BAD, error.what)
    return Check(
        "market_rules", GOOD, f"lot {rules.lot:f}, tick {rules.tick:f}, at least {rules.min_notional:f} {symbol.quote}"
    )


def _candle(place: Place, symbol: Symbol, timeframe: str, now_ms: Callable[[], int]) -> Check:
    tail = CandleTail(place.venue, base_url=place.url, now_ms=now_ms, patience=place.patience, rates=place.rates)
    with contextlib.closing(tail):
        step = tail.length_ms(timeframe)
        try:
            told = tail.look(symbol, timeframe, align_down(now_ms(), timeframe) - 3 * step)
        except UsageError:
            raise
        except (ExchangeUnavailable, ExchangeRefused) as error:
            return Check("last_candle", BAD, error.what)
    if not len(told.closed):
        return Check("last_candle", BAD, f"no {timeframe} candle of {symbol.id} has closed lately; is it traded?")
    opened, close = int(told.closed[-1, 0]), float(told.closed[-1, 4])
    age_ms = told.exchange_ms - (opened + step)
    verdict = GOOD if age_ms < LATE * step else WARN
    seen = f"of {iso_minute(opened)} UTC, closed at {close:g} {duration(age_ms)} ago"
    return Check("last_candle", verdict, seen, round(age_ms / 1000, 1))


def _room(session: Session) -> Check:
    """What of the exchange's limit this machine may still use."""
    budget = session.budget or RateBudget(None, session.host, LIMITS[session.venue])
    if silent_s := budget.silent_s():
        return Check("rate_budget", BAD, f"the exchange wants no request for another {silent_s:.0f} s", 0.0)
    left, most = budget.left(), round(budget.limit.weight * Priority.PROTECT.value)
    verdict = WARN if left < SPENT * most else GOOD
    return Check("rate_budget", verdict, f"{left:,} of {most:,} left in these {budget.limit.window_s} s", float(left))
