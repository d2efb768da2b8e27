"""Binance's errors, by number and in its own words."""

from __future__ import annotations

from tests.venue.exchange.engine import Rejected
from tests.venue.exchange.wire import Reply


class ApiError(Exception):
    """Answered as {"code": ..., "msg": ...}."""

    def __init__(self, code: int, message: str, status: int = 400, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self.code = code
        self.message = message
        self.status = status

    @property
    def body(self) -> dict[str, object]:
        return {"code": self.code, "msg": self.message}

    @property
    def reply(self) -> Reply:
        return Reply(self.status, self.body, self.headers)


# What the matching refuses. The market's being closed is found before it gets there: hence another number.
REJECTIONS: dict[str, tuple[int, str]] = {
    "funds": (-2010, "Account has insufficient balance for requested action."),
    "would trigger": (-2010, "Order would trigger immediately."),
    "would match": (-2010, "Order would immediately match and take."),
    "prices": (-2010, "The relationship of the prices for the orders is not correct."),
    "closed": (-1013, "Market is closed."),
}


def rejection(rejected: Rejected) -> ApiError:
    return ApiError(*REJECTIONS[rejected.reason])


def missing(name: str) -> ApiError:
    return ApiError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def either(name: str, other: str) -> ApiError:
    return ApiError(-1102, f"Param '{name}' or '{other}' must be sent, but both were empty/null!")


def not_required(name: str) -> ApiError:
    return ApiError(-1106, f"Parameter '{name}' sent when not required.")


def illegal(name: str, legal: str) -> ApiError:
    return ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def failed(filter_name: str) -> ApiError:
    return ApiError(-1013, f"Filter failure: {filter_name}")


def unknown_order() -> ApiError:
    return ApiError(-2011, "Unknown order sent.")


def no_such_order() -> ApiError:
    return ApiError(-2013, "Order does not exist.")


def bad_combination() -> ApiError:
    return ApiError(-1128, "Combination of optional parameters invalid.")
