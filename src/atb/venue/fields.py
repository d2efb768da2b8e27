"""Fields of an exchange's answer, each checked: what is missing or not of its kind makes the whole answer unusable.

Amounts come as strings and become Decimal without a float in between; a bare JSON number would have been one already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from atb.core.timeframe import LATEST_MS
from atb.venue.ccxt_errors import unusable

_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def row(answer: Any, what: str) -> Mapping[str, Any]:
    """The answer as an object; `what` it should have been is for the message."""
    if not isinstance(answer, dict):
        raise unusable(f"gave an answer that is no {what}")
    return answer


def rows(answer: Any, what: str) -> list[Mapping[str, Any]]:
    """The answer as a list of objects."""
    if not isinstance(answer, list):
        raise unusable(f"gave an answer that is no list of {what}s")
    return [row(one, what) for one in answer]


def text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise _without(name)
    return value


def whole(fields: Mapping[str, Any], name: str) -> int:
    """A whole number, as JSON has it or in a string."""
    value = fields.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _without(name)
    return value


def flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if not isinstance(value, bool):
        raise _without(name)
    return value


def amount(fields: Mapping[str, Any], name: str) -> Decimal:
    """A number that is not negative."""
    value = fields.get(name)
    if not isinstance(value, str) or not _NUMBER.fullmatch(value) or value.startswith("-"):
        raise _without(name)
    return Decimal(value)


def positive(fields: Mapping[str, Any], name: str) -> Decimal:
    value = amount(fields, name)
    if value == 0:
        raise _without(name)
    return value


def moment(fields: Mapping[str, Any], name: str) -> datetime:
    """A time in ms since 1970."""
    value = whole(fields, name)
    if not 0 < value < LATEST_MS:
        raise _without(name)
    return _EPOCH + timedelta(milliseconds=value)


def plain(value: Decimal) -> str:
    """A number as exchanges read it: no exponent, no zeros at its end, which some count as precision."""
    digits = f"{value:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _without(name: str) -> Exception:
    return unusable(f"gave an answer without a usable {name}")
