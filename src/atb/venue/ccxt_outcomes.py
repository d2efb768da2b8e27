"""What a failure means for a writer: was it done? Only what is certain counts as "not done"."""

from __future__ import annotations

import enum
import re
from typing import Any

from atb.venue.ccxt_errors import Failure


class Outcome(enum.Enum):
    """What a failure says about whether something was done. The value: how the sentence about it ends."""

    REFUSED = "refused"
    TOO_FAST = "refused, being too fast"
    CLOCK = "refused, its time being wrong"
    BARRED = "refused from this place or with this key"
    NOT_SENT = "not sent"
    UNKNOWN = "not known to be done or not"


# Looked up: the exchange's code, its family ("-11xx"), the HTTP status. Only what is listed is certain; all
# else (time-outs, resets, 5xx, an error that is no JSON, a code that nobody has read about) is UNKNOWN, which costs a
# look-up, where a wrong "refused" costs a second order.
OUTCOMES: dict[int | str, Outcome] = {
    -1000: Outcome.UNKNOWN,
    -1001: Outcome.UNKNOWN,
    -1002: Outcome.BARRED,
    -1003: Outcome.TOO_FAST,
    -1004: Outcome.UNKNOWN,  # "server is busy": whether it took the order all the same is not said
    -1006: Outcome.UNKNOWN,
    -1007: Outcome.UNKNOWN,
    -1008: Outcome.UNKNOWN,
    -1010: Outcome.REFUSED,
    -1013: Outcome.REFUSED,  # filters; it never came to the matching engine
    -1014: Outcome.REFUSED,
    -1015: Outcome.TOO_FAST,  # too many orders of this account, which says nothing about this address
    -1016: Outcome.UNKNOWN,
    -1020: Outcome.REFUSED,
    -1021: Outcome.CLOCK,
    -1022: Outcome.BARRED,
    "-11xx": Outcome.REFUSED,  # the form of the request
    -2010: Outcome.REFUSED,
    -2011: Outcome.REFUSED,
    -2013: Outcome.REFUSED,
    -2008: Outcome.BARRED,
    -2014: Outcome.BARRED,
    -2015: Outcome.BARRED,
    -2016: Outcome.REFUSED,
    -2026: Outcome.REFUSED,
    "INVALID_ARGUMENT": Outcome.REFUSED,
    "NOT_FOUND": Outcome.REFUSED,
    "PERMISSION_DENIED": Outcome.BARRED,
    "UNAUTHENTICATED": Outcome.BARRED,
    "RESOURCE_EXHAUSTED": Outcome.TOO_FAST,
    "rate_limit_exceeded": Outcome.TOO_FAST,
    401: Outcome.BARRED,
    403: Outcome.BARRED,
    418: Outcome.TOO_FAST,
    429: Outcome.TOO_FAST,
    451: Outcome.BARRED,
}

# The words that go with a refusal (-2010, -2011, -1013), and our word for the reason. None: it is no refusal after all.
# "Duplicate order" says that an order with this id is working: whoever sent it, it has to be looked up.
REASONS: tuple[tuple[str, str | None], ...] = (
    ("Duplicate order sent", None),
    ("Unknown order sent|Order does not exist", "unknown_order"),
    ("insufficient balance|INSUFFICIENT_FUND", "insufficient_balance"),
    ("would trigger immediately|STOP_PRICE_(ABOVE|BELOW)_LAST_TRADE_PRICE", "would_trigger"),
    ("would immediately match|INVALID_LIMIT_PRICE_POST_ONLY", "would_match"),
    ("relationship of the prices", "wrong_prices"),
    ("Market is closed|ORDER_ENTRY_DISABLED|UNTRADABLE_PRODUCT", "market_closed"),
    ("MAX_NUM_ALGO_ORDERS", "too_many_stops"),
    ("MAX_NUM_ORDERS|MAX_NUM_ORDER_LISTS|EXCHANGE_MAX", "too_many_orders"),
    ("NOTIONAL|QUOTE_SIZE", "min_notional"),
    ("LOT_SIZE|SIZE_PRECISION|BASE_SIZE", "lot"),
    ("PRICE_FILTER|PERCENT_PRICE|PRICE_PRECISION|LIMIT_PRICE", "price"),
    ("disabled on this account|may not place|not permitted for this account|restricted for this account", "account"),
    ("not supported|Unsupported|UNSUPPORTED", "not_supported"),
)


def outcome_of(failure: Failure) -> tuple[Outcome, str]:
    """What it means for a writer: the outcome, and a word for the reason."""
    if not failure.sent:
        return Outcome.NOT_SENT, "not_sent"
    answer = failure.whole_answer
    if rejection := _rejection(answer):
        return Outcome.REFUSED, _reason(rejection) or "refused"
    code = _code(answer)
    family = f"-{-code // 100}xx" if isinstance(code, int) else None
    keys = (code, family, failure.status)
    outcome = next((OUTCOMES[key] for key in keys if key in OUTCOMES), Outcome.UNKNOWN)
    if outcome is not Outcome.REFUSED:
        return outcome, outcome.name.lower()
    reason = _reason(failure.words)
    return (Outcome.UNKNOWN, "unknown") if reason is None else (outcome, reason)


def _reason(words: str) -> str | None:
    return next((word for pattern, word in REASONS if re.search(pattern, words)), "refused")


def _code(answer: dict[str, Any]) -> int | str | None:
    """Binance's number or Coinbase's word."""
    if isinstance(word := answer.get("error"), str):
        return word
    try:
        return int(answer["code"])
    except (ValueError, TypeError, LookupError):
        return None


def _rejection(answer: dict[str, Any]) -> str:
    """Coinbase's reasons for not taking an order, which come as an answer like any other; empty where it gives none."""
    error = answer.get("error_response")
    if answer.get("success") is not False or not isinstance(error, dict):
        return ""
    names = ("error", "preview_failure_reason", "new_order_failure_reason")
    words = [str(error[name]) for name in names if error.get(name)]
    return " ".join(word for word in words if not word.startswith("UNKNOWN"))
