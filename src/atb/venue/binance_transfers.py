"""What comes to and goes from a spot wallet at Binance without an order: deposits, withdrawals, conversions, income.

Each kind has an endpoint of its own, all of which a key for reading and trading may ask. One that is refused is left out.
An answer as long as it may be hides more: then each half of its time is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from atb.core.errors import ExchangeRefused
from atb.core.orders import SeenTransfer
from atb.venue.ccxt_errors import unusable
from atb.venue.ccxt_session import Session
from atb.venue.fields import amount, moment, positive, row, rows, text, whole

DAY_MS = 86_400_000
SPOT = 0  # the wallet that is traded from; 1 is the funding wallet
CREDITED = (1, 6)  # of a deposit; 6: it cannot be withdrawn again yet
GIVEN_BACK = (1, 3, 5)  # of a withdrawal: cancelled, rejected, failed. While it is under way it is gone already

Read = Callable[[Mapping[str, Any]], list[SeenTransfer]]


class Source(NamedTuple):
    """An endpoint. rows_at: where its rows are, "" where they are the answer; most: rows of an answer; window_ms: the longest
    time that one request may ask for."""

    endpoint: str
    params: Mapping[str, Any]
    rows_at: str
    most: int
    window_ms: int
    read: Read


def read_transfers(session: Session, since_ms: int, until_ms: int) -> list[SeenTransfer] | None:
    """All of them by time; None where the exchange refuses each question."""
    found: list[SeenTransfer] = []
    told = False
    for source in SOURCES:
        try:
            found += _read(session, source, max(0, since_ms), until_ms)
            told = True
        except ExchangeRefused:  # no such endpoint (test networks), or not for this key
            continue
    return sorted(found, key=lambda transfer: transfer.at) if told else None


def _read(session: Session, source: Source, since_ms: int, until_ms: int) -> Iterator[SeenTransfer]:
    for start in range(since_ms, until_ms + 1, source.window_ms):
        yield from _between(session, source, start, min(until_ms, start + source.window_ms - 1))


def _between(session: Session, source: Source, start: int, end: int) -> Iterator[SeenTransfer]:
    def read(answer: Any) -> tuple[int, list[SeenTransfer]]:
        listed = rows(row(answer, "list").get(source.rows_at) or [] if source.rows_at else answer, "transfer")
        return len(listed), [leg for one in listed for leg in source.read(one)]

    what = f"Reading what came and went ({source.endpoint.removeprefix('sapiGet')})"
    count, found = session.ask(what, source.endpoint, {**source.params, "startTime": start, "endTime": end}, read)
    if count < source.most or start == end:
        yield from found
        return
    middle = (start + end) // 2
    yield from _between(session, source, start, middle)
    yield from _between(session, source, middle + 1, end)


def _deposit(told: Mapping[str, Any]) -> list[SeenTransfer]:
    if told.get("walletType", SPOT) != SPOT or whole(told, "status") not in CREDITED:
        return []
    at = moment(told, "completeTime" if told.get("completeTime") else "insertTime")
    return [SeenTransfer(_id(told, "id"), "deposit", text(told, "coin"), amount(told, "amount"), at)]


def _withdrawal(told: Mapping[str, Any]) -> list[SeenTransfer]:
    if told.get("walletType", SPOT) != SPOT or whole(told, "status") in GIVEN_BACK:
        return []
    gone = amount(told, "amount") + (amount(told, "transactionFee") if told.get("transactionFee") else Decimal(0))
    try:
        at = datetime.strptime(text(told, "applyTime"), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise unusable("gave an answer without a usable applyTime") from None
    return [SeenTransfer(_id(told, "id"), "withdrawal", text(told, "coin"), -gone, at)]


def _dust(told: Mapping[str, Any]) -> list[SeenTransfer]:
    """Small amounts turned into BNB, several at a time under one id."""
    legs = []
    for one in rows(told.get("userAssetDribbletDetails"), "conversion"):
        name, asset = f"dust-{_id(one, 'transId')}-{text(one, 'fromAsset')}", text(one, "fromAsset")
        into = text(one, "targetAsset") if one.get("targetAsset") else "BNB"
        legs += _converted(name, asset, positive(one, "amount"), into, amount(one, "transferedAmount"),
                           moment(one, "operateTime"))  # fmt: skip
    return legs


def _conversion(told: Mapping[str, Any]) -> list[SeenTransfer]:
    if text(told, "orderStatus") != "SUCCESS":
        return []
    gone, came = positive(told, "fromAmount"), positive(told, "toAmount")
    at, into = moment(told, "createTime"), text(told, "toAsset")
    return _converted(f"convert-{_id(told, 'orderId')}", text(told, "fromAsset"), gone, into, came, at)


def _income(told: Mapping[str, Any]) -> list[SeenTransfer]:
    name = _id(told, "id" if told.get("id") else "tranId")
    return [SeenTransfer(name, "income", text(told, "asset"), positive(told, "amount"), moment(told, "divTime"))]


def _converted(name: str, asset: str, gone: Decimal, into: str, came: Decimal, at: datetime) -> list[SeenTransfer]:
    return [
        SeenTransfer(name, "conversion", asset, -gone, at),
        SeenTransfer(name, "conversion", into, came, at),
    ]


def _internal(sign: int) -> Read:
    def read(told: Mapping[str, Any]) -> list[SeenTransfer]:
        if text(told, "status") != "CONFIRMED":
            return []
        asset, moved = text(told, "asset"), positive(told, "amount")
        return [SeenTransfer(_id(told, "tranId"), "internal", asset, sign * moved, moment(told, "timestamp"))]

    return read


def _id(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    return str(whole(told, name)) if isinstance(value, int) else text(told, name)


SOURCES = (
    Source("sapiGetCapitalDepositHisrec", {"limit": 1000}, "", 1000, 90 * DAY_MS, _deposit),
    Source("sapiGetCapitalWithdrawHistory", {"limit": 1000}, "", 1000, 90 * DAY_MS, _withdrawal),
    Source("sapiGetAssetDribblet", {}, "userAssetDribblets", 100, 90 * DAY_MS, _dust),
    Source("sapiGetConvertTradeFlow", {"limit": 1000}, "list", 1000, 30 * DAY_MS, _conversion),
    Source("sapiGetAssetAssetDividend", {"limit": 500}, "rows", 500, 90 * DAY_MS, _income),
    *(
        Source("sapiGetAssetTransfer", {"type": kind, "size": 100}, "rows", 100, 90 * DAY_MS, _internal(sign))
        for wallet in ("FUNDING", "UMFUTURE", "MARGIN")
        for kind, sign in ((f"MAIN_{wallet}", -1), (f"{wallet}_MAIN", 1))
    ),
)
