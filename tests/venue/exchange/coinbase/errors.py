"""How Coinbase refuses: requests with an HTTP status, orders with 200 and success false."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.venue.exchange.engine import Rejected
from tests.venue.exchange.orders import Order
from tests.venue.exchange.wire import Reply


class ApiError(Exception):
    """A request that is refused as such."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, {"error": name, "error_details": message, "message": message})


class Unauthorized(ApiError):
    """Coinbase says no more than that, and not as JSON."""

    def __init__(self) -> None:
        super().__init__(401, "", "Unauthorized")
        self.reply = Reply(401, b"Unauthorized\n", {"Content-Type": "text/plain"})


class Failure(NamedTuple):
    error: str
    message: str
    preview: str


class OrderFailed(Exception):
    """An order that was understood and is not made."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error)
        self.failure = failure


def invalid(message: str) -> ApiError:
    return ApiError(400, "INVALID_ARGUMENT", message)


def unknown_product(product: str) -> ApiError:
    return ApiError(404, "NOT_FOUND", f"Product {product} not supported")


def failed(error: str, preview: str = "", message: str = "") -> OrderFailed:
    return OrderFailed(Failure(error, message, preview or f"PREVIEW_{error}"))


def rejection(rejected: Rejected, order: Order) -> OrderFailed:
    """What the matching refuses, in Coinbase's words."""
    if rejected.reason == "funds":
        return failed("INSUFFICIENT_FUND", message="Insufficient balance in source account")
    if rejected.reason == "would match":
        return failed("INVALID_LIMIT_PRICE_POST_ONLY")
    if rejected.reason == "closed":
        return failed("UNTRADABLE_PRODUCT", "UNKNOWN_PREVIEW_FAILURE_REASON", "source is not enabled for trading")
    side = "BELOW" if order.stop_above else "ABOVE"
    return failed("UNKNOWN_FAILURE_REASON", f"PREVIEW_STOP_PRICE_{side}_LAST_TRADE_PRICE")


def failure_body(failure: Failure, configuration: dict[str, Any]) -> dict[str, Any]:
    return {
        "success": False,
        "failure_reason": "UNKNOWN_FAILURE_REASON",
        "order_id": "",
        "error_response": {
            "error": failure.error,
            "message": failure.message,
            "error_details": "",
            "preview_failure_reason": failure.preview,
        },
        "order_configuration": configuration,
    }
