"""Deposits, withdrawals, conversions, income and transfers between wallets, as the wallet's endpoints tell of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.venue.exchange.accounts import Account
from tests.venue.exchange.binance.errors import ApiError
from tests.venue.exchange.binance.params import Params
from tests.venue.exchange.candles import DAY_MS
from tests.venue.exchange.money import written
from tests.venue.exchange.transfers import Transfer
from tests.venue.exchange.wire import Call, Reply

Row = dict[str, Any]


def deposits(call: Call, mine: Account) -> Reply:
    params = Params(call)
    params.ignore("status", "coin")
    limit = params.limit()
    return Reply(200, [_deposit(one) for one in _chosen(call, mine, params, ("deposit",), 90)[:limit]])


def withdrawals(call: Call, mine: Account) -> Reply:
    params = Params(call)
    limit = params.limit()
    return Reply(200, [_withdrawal(one) for one in _chosen(call, mine, params, ("withdrawal",), 90)[:limit]])


def dust(call: Call, mine: Account) -> Reply:
    """The last hundred."""
    found = _chosen(call, mine, Params(call), ("dust",), 90)[:100]
    return Reply(200, {"total": len(found), "userAssetDribblets": [_dust(one) for one in found]})


def conversions(call: Call, mine: Account) -> Reply:
    params = Params(call)
    limit = params.limit()
    start, end = params.integer("startTime"), params.integer("endTime")
    if start is None or end is None:
        raise ApiError(-1102, "Mandatory parameter 'startTime' was not sent, was empty/null, or malformed.")
    found = _chosen(call, mine, params, ("convert",), 30)
    told = {"list": [_convert(one) for one in found[:limit]], "startTime": start, "endTime": end, "limit": limit}
    return Reply(200, told | {"moreData": len(found) > limit})


def dividends(call: Call, mine: Account) -> Reply:
    params = Params(call)
    limit = min(params.integer("limit") or 20, 500)
    found = _chosen(call, mine, params, ("income",), 180)
    return Reply(200, {"rows": [_income(one) for one in found[:limit]], "total": len(found)})


def between_wallets(call: Call, mine: Account) -> Reply:
    params = Params(call)
    kind, size = params.needed("type"), params.integer("size") or 10
    found = _chosen(call, mine, params, (kind,), 180)
    told = [_between(one) for one in found[: min(size, 100)]]
    return Reply(200, {"total": len(found), "rows": told} if found else {"total": 0})


def _chosen(call: Call, mine: Account, params: Params, kinds: tuple[str, ...], days: int) -> list[Transfer]:
    """Newest first."""
    start, end = params.integer("startTime"), params.integer("endTime")
    params.done()
    end = call.exchange.now_ms if end is None else end
    start = end - 7 * DAY_MS if start is None else start
    if not 0 <= end - start < days * DAY_MS:
        raise ApiError(-1127, f"More than {days} days between startTime and endTime.")
    found = [t for t in mine.transfers if t.kind in kinds and start <= t.at_ms <= end and call.visible(t.at_ms)]
    return found[::-1]


def _deposit(one: Transfer) -> Row:
    return {
        "id": f"d{one.id}", "amount": written(one.amount), "coin": one.asset, "network": "ETH",
        "status": 1 if one.status == "done" else 0, "address": "0x1", "addressTag": "", "txId": f"0x{one.id}",
        "insertTime": one.at_ms, "completeTime": one.at_ms, "transferType": 0, "confirmTimes": "12/12",
        "unlockConfirm": 12, "walletType": 0,
    }  # fmt: skip


def _withdrawal(one: Transfer) -> Row:
    applied = datetime.fromtimestamp(one.at_ms // 1000, UTC)
    return {
        "id": f"w{one.id}", "amount": written(one.amount), "transactionFee": written(one.fee), "coin": one.asset,
        "status": 6 if one.status == "done" else 4, "address": "0x2", "txId": f"0x{one.id}",
        "applyTime": f"{applied:%Y-%m-%d %H:%M:%S}", "network": "ETH", "transferType": 0, "info": "",
        "confirmNo": 3, "walletType": 0, "txKey": "",
    }  # fmt: skip


def _dust(one: Transfer) -> Row:
    assert one.into is not None
    same = {"operateTime": one.at_ms, "transId": 45178372831 + one.id}
    detail = {
        **same, "serviceChargeAmount": written(one.fee), "amount": written(one.amount),
        "transferedAmount": written(one.into[1]), "fromAsset": one.asset,
    }  # fmt: skip
    totals = {"totalTransferedAmount": written(one.into[1]), "totalServiceChargeAmount": written(one.fee)}
    return {**same, **totals, "userAssetDribbletDetails": [detail]}


def _convert(one: Transfer) -> Row:
    assert one.into is not None
    return {
        "quoteId": f"q{one.id}", "orderId": 940708407462087195 + one.id, "orderStatus": "SUCCESS",
        "fromAsset": one.asset, "fromAmount": written(one.amount), "toAsset": one.into[0],
        "toAmount": written(one.into[1]), "ratio": written(one.into[1] / one.amount),
        "inverseRatio": written(one.amount / one.into[1]), "createTime": one.at_ms,
    }  # fmt: skip


def _income(one: Transfer) -> Row:
    return {
        "id": 1_000_000 + one.id, "amount": written(one.amount), "asset": one.asset, "divTime": one.at_ms,
        "enInfo": "Flexible", "tranId": 2_000_000 + one.id,
    }  # fmt: skip


def _between(one: Transfer) -> Row:
    return {
        "asset": one.asset, "amount": written(one.amount), "type": one.kind, "status": "CONFIRMED",
        "tranId": 11_415_955_596 + one.id, "timestamp": one.at_ms,
    }  # fmt: skip
