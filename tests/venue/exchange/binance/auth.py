"""Who asks: the key, the signature, the time of the request."""

from __future__ import annotations

import hashlib
import hmac
import re

from tests.venue.exchange.accounts import Account, Key
from tests.venue.exchange.binance.errors import ApiError, illegal, missing
from tests.venue.exchange.binance.params import INTEGER
from tests.venue.exchange.wire import Call

AHEAD_MS = 1000
WINDOW_MS, LONGEST_WINDOW_MS = 5000, 60_000


def account_of(call: Call) -> Account:
    return call.exchange.accounts[key_of(call).account]


def key_of(call: Call) -> Key:
    """The key of a request that is signed rightly and in time, as of now: when it is processed, not when it arrived."""
    given = next((value for name, value in call.request.headers.items() if name.upper() == "X-MBX-APIKEY"), "")
    if not re.fullmatch("[A-Za-z0-9]{64}", given):
        raise ApiError(-2014, "API-key format invalid.", 401)
    signature = call.query.get("signature")
    if not signature:
        raise missing("signature")
    _check_time(call)
    key = call.exchange.keys.get(given)
    if key is None:
        raise unknown_key(call)
    if not hmac.compare_digest(_signature(key.secret, call.request.signed), signature.lower()):
        raise ApiError(-1022, "Signature for this request is not valid.")
    return key


def unknown_key(call: Call) -> ApiError:
    """Also of a key without the right for what it asks."""
    if call.request.path.startswith("/sapi"):
        return ApiError(-2008, "Invalid Api-Key ID.")
    return ApiError(-2015, "Invalid API-key, IP, or permissions for action.", 401)


def _signature(secret: str, signed: str) -> str:
    """Of the query string and the body without the signature itself, wherever in them it stands."""
    payload = re.sub("(?:^|&)signature=[^&]*", "", signed)
    return hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()


def _check_time(call: Call) -> None:
    timestamp = _milliseconds(call, "timestamp")
    if timestamp is None:
        raise missing("timestamp")
    window = _milliseconds(call, "recvWindow")
    window = WINDOW_MS if window is None else window
    if window > LONGEST_WINDOW_MS:
        raise ApiError(-1131, "'recvWindow' must be less than 60000.")
    if timestamp >= call.now_ms + AHEAD_MS:
        raise ApiError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if call.now_ms - timestamp > window:
        raise ApiError(-1021, "Timestamp for this request is outside of the recvWindow.")


def _milliseconds(call: Call, name: str) -> int | None:
    value = call.query.get(name)
    if not value:
        return None
    if not re.fullmatch(INTEGER, value):
        raise illegal(name, INTEGER)
    return int(value)
