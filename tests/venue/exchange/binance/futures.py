"""What anybody may ask of Binance's USD-M perpetuals: funding rates and open interest."""

from __future__ import annotations

from typing import Any

from tests.venue.exchange.binance.errors import ApiError, missing
from tests.venue.exchange.candles import DAY_MS, LENGTH_MS, Rows
from tests.venue.exchange.wire import Call, Reply

REACH_MS = 30 * DAY_MS


def funding_rate(call: Call) -> Reply:
    """The first `limit` from startTime on, up to now."""
    rows = _rows(call, call.exchange.funding)
    rows = rows[rows[:, 0] >= int(call.query.get("startTime", 0))][: int(call.query.get("limit", 100))]
    name = call.query["symbol"]
    return Reply(
        200,
        [
            {"symbol": name, "fundingTime": int(at), "fundingRate": f"{rate:.8f}", "markPrice": "40000.0"}
            for at, rate in call.spoil(rows)
        ],
    )


def open_interest(call: Call) -> Reply:
    """The last `limit` up to endTime, of the last 30 days."""
    if call.query.get("period") not in LENGTH_MS:
        raise ApiError(-1130, "Data sent for parameter 'period' is not valid.")
    rows, query = _rows(call, call.exchange.interest), call.query
    if int(query["startTime"]) < call.now_ms - REACH_MS:
        raise ApiError(-1130, "parameter 'startTime' is invalid.")
    rows = rows[rows[:, 0] % LENGTH_MS[query["period"]] == 0]
    rows = rows[(rows[:, 0] >= int(query["startTime"])) & (rows[:, 0] <= int(query["endTime"]))]
    found = call.spoil(rows[-int(query.get("limit", 30)) :])
    return Reply(200, [_interest(query["symbol"], *row) for row in found])


def _interest(name: str, at: float, base: float) -> dict[str, Any]:
    worth = f"{base * 40_000:.8f}"
    return {"symbol": name, "sumOpenInterest": f"{base:.8f}", "sumOpenInterestValue": worth, "timestamp": int(at)}


def _rows(call: Call, known: dict[str, Rows]) -> Rows:
    if "symbol" not in call.query:
        raise missing("symbol")
    rows = known.get(call.query["symbol"])
    if rows is None:
        raise ApiError(-1121, "Invalid symbol.")
    return rows[rows[:, 0] <= call.now_ms]
